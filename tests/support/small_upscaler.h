/* small_upscaler: writes a network of the ESRGAN family at reduced widths under any of the names that such files have,
 * with weights that are a hash of the layer's number and the index; and gives its layers, for those who compute with them. */
#ifndef MYSTI_TESTS_SMALL_UPSCALER_H
#define MYSTI_TESTS_SMALL_UPSCALER_H

#include <stddef.h>

enum small_upscaler_names {
    NAMES_REAL_ESRGAN,
    NAMES_ESRGAN,
    NAMES_NUMBERED,
    NAMES_COMPACT, /* another network: Real-ESRGAN's compact one */
};

struct small_upscaler {
    enum small_upscaler_names names;
    int width, growth; /* channels: 8 and 4 when 0 */
    int blocks;        /* 0: 1 */
    int doublings;     /* 0: 2; -1: none */
    int shuffle;       /* 0: 1 */
    int scale;         /* of a compact one; 0: 4 */
    const char *prefix;
    int is_torch;        /* as torch.save writes {"params_ema": tensors} */
    const char *without; /* leaves this tensor out */
    const char *extra;   /* adds a tensor of this name, [1] */
    int is_broken;       /* the last bias is NaN */
};

/* In the order in which they are used: first, the parts of the blocks, the one after the blocks, one for each doubling, two;
 * of a compact one: first, blocks, last. */
struct small_layer {
    int out, in;   /* 3x3 kernels */
    float *weight; /* [out, in, 3, 3] */
    float *bias;   /* [out] */
    float *
        slopes; /* [out], of the activation behind it; NULL: none, or not in the file */
};

struct small_layers {
    struct small_layer *layers;
    size_t count;
};

struct small_layers small_upscaler_layers(const struct small_upscaler *options);
void small_layers_free(struct small_layers *l);
/* A file under /tmp; free() the path after unlink(). Fails the test that calls it. */
char *small_upscaler_write(const struct small_upscaler *options);

#endif
