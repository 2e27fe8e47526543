/* parts: the tensors of a LoRA's file, put together to what each says about one weight.
 * Private to lora/. */
#ifndef MYSTI_ENGINE_LORA_PARTS_H
#define MYSTI_ENGINE_LORA_PARTS_H

#include "engine/files/weights.h"

/* Shapes in terms of the changed weight [O, I, K...]; r is the rank. */
enum lora_part {
    LORA_UP,        /* [O, r] */
    LORA_DOWN,      /* [r, I, K...]; with a mid [r, I] */
    LORA_MID,       /* Tucker's core [r, r, K...] */
    LORA_ALPHA,     /* one number: the change counts alpha / r */
    LORA_DORA,      /* lengths of the result's rows [O] or columns [1, I] */
    LORA_MAGNITUDE, /* PEFT's name for it, always of rows */
    LORA_HADA_W1_A, /* LoHa: [O, r]; with a core [r, O] */
    LORA_HADA_W1_B, /* [r, I, K...]; with a core [r, I] */
    LORA_HADA_W2_A,
    LORA_HADA_W2_B,
    LORA_HADA_T1, /* cores [r, r, K...] */
    LORA_HADA_T2,
    LORA_LOKR_W1,   /* LoKr: w1 [A, B] and w2 [C, D, K...] with A C = O, B D = I, */
    LORA_LOKR_W1_A, /* each whole or as a product */
    LORA_LOKR_W1_B,
    LORA_LOKR_W2,
    LORA_LOKR_W2_A,
    LORA_LOKR_W2_B,
    LORA_LOKR_T2,
    LORA_GLORA_A1, /* GLoRA, W A + B: A = a1 a2 [I, r] [r, I], B = b1 b2 [O, r] */
    LORA_GLORA_A2, /* [r, I, K...]; LyCORIS' first files have A = a2 a1, B = b2 b1 */
    LORA_GLORA_B1,
    LORA_GLORA_B2,
    LORA_GLORA_BM,     /* Tucker's core of B */
    LORA_OFT_BLOCKS,   /* OFT [k, n, n], k n = O; BOFT [m, k, n, n] */
    LORA_OFT_DIAG,     /* the rotations themselves [k, n, n] */
    LORA_RESCALE,      /* [O]: factors of the rows after either */
    LORA_IA3,          /* [O] or [I]: what of a row or column is added to it */
    LORA_IA3_ON_INPUT, /* one number: 1 if LORA_IA3 is [I] */
    LORA_SET,          /* [O, I, K...]: the weight itself */
    LORA_DIFF,         /* [O, I, K...]: the change itself */
    LORA_DIFF_BIAS,    /* [O], to the bias */
    LORA_PARTS,
};

struct lora_parts {
    const struct weight *of[LORA_PARTS]; /* NULL: the file has none */
};

/* The tensors whose names say that they are parts of one thing: "<stem>.lora_up.weight",
 * "<stem>.alpha", ... */
struct lora_group {
    const char *stem; /* not terminated; lies in a tensor's name */
    size_t stem_len;
    struct lora_parts parts;
};

struct lora_groups {
    struct lora_group *all; /* sorted by stem */
    size_t count;
    const char **strangers; /* names that are none of a LoRA's */
    size_t stranger_count;
    size_t bundled_count; /* tensors of textual inversions, see bundle.h */
};

/* ERR_BAD_FILE when a part is there twice. The file must stay open. */
int lora_groups_read(struct lora_groups *ret_groups, const struct weights_file *file,
                     struct err *err) MUST_CHECK;
void lora_groups_release(struct lora_groups *groups);

#endif
