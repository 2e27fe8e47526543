/* small_taesd: the tiny autoencoder of tests/golden/taesd_small.tensors, in the shapes in which it is given away. All of them
 * hold the same weights. */
#ifndef MYSTI_TESTS_SMALL_TAESD_H
#define MYSTI_TESTS_SMALL_TAESD_H

enum taesd_naming {
    TAESD_DIFFUSERS, /* "decoder.layers.0.weight" */
    TAESD_COMFY,     /* "taesd_decoder.1.weight" */
    TAESD_ORIGINAL,  /* "1.weight": one half in a file */
};

struct small_taesd {
    enum taesd_naming naming;
    const char *only;    /* "decoder", "encoder"; NULL: both */
    const char *without; /* no tensor whose name, as diffusers has it, begins so */
    const char *extra;   /* a tensor of this name, [1] */
    int channels; /* latents of so many: shapes alone, the bytes are not enough for more than 4; 0: 4 */
    const char *broken; /* this tensor is NaN, named as diffusers does */
};

/* As folder/name, a safetensors file whatever the name ends in. Fails the test that calls it. */
void small_taesd_write(const char *folder, const char *name,
                       const struct small_taesd *how);

#endif
