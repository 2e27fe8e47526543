/* delta: the change that a LoRA makes to one weight, as a matrix [rows, cols]: a weight
 * [O, I, K...] is the matrix [O, I K...], so that a 1x1 convolution and a linear layer
 * are one case. Private to lora/. */
#ifndef MYSTI_ENGINE_LORA_DELTA_H
#define MYSTI_ENGINE_LORA_DELTA_H

#include "engine/lora/lora.h"
#include "engine/lora/parts.h"

/* A matrix [rows, cols] that the file has whole (b is NULL), as a product a b, or with a
 * Tucker core between the two. */
struct lora_factor {
    const struct weight *a, *b, *core;
    bool a_is_turned; /* a is [inner, rows] */
    int64_t rows, inner, cols;
};

enum lora_join {
    LORA_ALONE,     /* f[0] */
    LORA_HADAMARD,  /* f[0] and f[1] multiplied element by element */
    LORA_KRONECKER, /* f[1] once for each element of f[0], times it */
    /* what depends on the weight W itself: */
    LORA_GENERAL,  /* f[0] + W f[1], f[1] over inputs: GLoRA */
    LORA_SCALED,   /* W with its rows or columns times f[0].a: IA3 */
    LORA_REPLACED, /* f[0] - W, at any strength but 0 */
    LORA_ROTATED,  /* rotate.c: OFT and BOFT */
};

struct lora_rotation {
    const struct weight *blocks;  /* [stages, blocks, size, size] */
    const struct weight *rescale; /* [rows], or NULL */
    int64_t stages, block_count, size;
    enum {
        LORA_ROTATION_OFT,    /* R transposed, rows as they lie */
        LORA_ROTATION_BOFT,   /* R, rows shuffled, a stage after the other */
        LORA_ROTATION_WRITTEN /* as OFT, and blocks are R, not what makes it */
    } kind;
    double longest; /* |Q| at most; 0: no limit */
};

struct lora_delta {
    enum lora_join join;
    struct lora_factor f[2];
    struct lora_rotation rotation; /* LORA_ROTATED */
    bool scales_inputs;            /* LORA_SCALED */
    double scale;                  /* alpha / rank */
    const struct weight *norms;    /* DoRA: lengths; NULL without */
    bool norms_are_of_rows;
    int64_t rows, cols;
};

/* The rows of a base's weight that are changed, as a matrix. */
struct lora_view {
    int64_t rows, cols;
    int64_t inputs; /* I: columns in groups of cols / inputs */
};

/* Do these parts say how a weight changes? Not if they are an alpha alone. */
bool lora_delta_is_there(const struct lora_parts *parts);
/* Only if so. ERR_BAD_FILE: a part is missing or they do not fit together, or into the
 * view; without one (NULL) rows and cols are 0 where the parts do not say them. */
int lora_delta_read(struct lora_delta *ret_delta, const struct lora_parts *parts,
                    const struct lora_view *view, struct err *err) MUST_CHECK;
/* The change of a bias, or of a weight that the file has as it is. */
int lora_delta_whole(struct lora_delta *ret_delta, const struct weight *diff,
                     struct err *err) MUST_CHECK;
/* Settles whose lengths DoRA's are; -1 when their number is none of the view's, or the
 * change is of a kind that has none. The view's rows and cols are the delta's. */
int lora_delta_set_norms(struct lora_delta *delta, const struct lora_parts *parts,
                         const struct lora_view *view, struct err *err) MUST_CHECK;

/* values [rows, cols] += strength * delta, see lora_add_delta() */
int lora_delta_add(const struct lora_delta *delta, const struct lora_view *view,
                   double strength, lora_multiply_fn *multiply, float *values,
                   struct err *err) MUST_CHECK;

/* The same of LORA_ROTATED alone. rotate.c */
int lora_rotate(const struct lora_rotation *rotation, const struct lora_view *view,
                double strength, lora_multiply_fn *multiply, float *values,
                struct err *err) MUST_CHECK;
size_t lora_rotate_room(const struct lora_rotation *rotation, int64_t rows,
                        int64_t cols);
/* Numbers of a tensor, on the heap; NULL: no memory, and err says so. */
float *lora_floats(size_t count, struct err *err);
float *lora_load(const struct weight *weight, struct err *err);

/* Bytes that this allocates, at most. */
size_t lora_delta_room(const struct lora_delta *delta);

#endif
