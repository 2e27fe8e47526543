/* small_model: writes the checkpoint that tests/golden/sd1_small.tensors describes:
 * SD 1.x's shape at reduced widths, 5 million weights that are a hash of their name and
 * index, so that no weights need committing. Or that of another family beside it. */
#ifndef MYSTI_TESTS_SMALL_MODEL_H
#define MYSTI_TESTS_SMALL_MODEL_H

#define SMALL_MODEL_TENSORS "tests/golden/sd1_small.tensors"

#define SMALL_TAESD_TENSORS                                                            \
    "tests/golden/taesd_small.tensors" /* under diffusers' names */
#define SMALL_TINY_TENSORS "tests/golden/tiny_small.tensors"
#define SMALL_INPAINT_TENSORS "tests/golden/inpaint_small.tensors"
#define SMALL_LCM_TENSORS "tests/golden/lcm_small.tensors"
#define SMALL_SD2_TENSORS "tests/golden/sd2_small.tensors"
#define SMALL_SDXL_TENSORS "tests/golden/sdxl_small.tensors"

enum small_model_format {
    SMALL_MODEL_SAFETENSORS, /* all F32 */
    SMALL_MODEL_TORCH, /* all F32, under "state_dict", as training programs leave it */
    SMALL_MODEL_GGUF,  /* Q8_0 where rows allow it, else F16; kernels BF16, vectors F32
                       */
};

struct small_model {
    enum small_model_format format;
    const char
        *listing; /* NULL: SMALL_MODEL_TENSORS; another one only as safetensors */
    const char *without;        /* leaves this tensor out */
    const char *without_prefix; /* leaves all tensors out whose names begin so */
    const char *extra;          /* adds a tensor of this name, [1] */
    const char *doubled;        /* this tensor's first dimension is twice as large */
    const char *doubled_prefix; /* the same of all tensors whose names begin so */
    const char *broken;         /* this tensor's values are NaN */
    const char *zeroed;         /* this tensor's values are 0 */
    const char *metadata; /* JSON members: "\"mysti.prediction\":\"v\""; the heads of
                      SMALL_MODEL_TENSORS come before */
};

/* A file under /tmp; free() the path after unlink(). Fails the test that calls it. */
char *small_model_write(const struct small_model *options);
/* the same, in memory; free() it */
void *small_model_bytes(const struct small_model *options, unsigned long *ret_size);

#endif
