/* names: which weight of the base the stem of a LoRA's key means. Private to lora/. */
#ifndef MYSTI_ENGINE_LORA_NAMES_H
#define MYSTI_ENGINE_LORA_NAMES_H

#include "engine/files/weights.h"

enum lora_network {
    LORA_UNET,
    LORA_TEXT,  /* the only text encoder, or SDXL's first */
    LORA_TEXT2, /* SDXL's second */
};

/* Rows [first_row, first_row + rows) of a weight, and of its bias. All rows, except
 * where OpenCLIP has q, k and v in one weight. */
struct lora_place {
    enum lora_network network;
    const struct weight *weight; /* of the base; rank at least 1 */
    const struct weight *bias;   /* NULL: it has none, or it is of another length */
    int64_t first_row, rows;
};

struct lora_names;

/* Every name under which the base's weights may be called. The base must stay open. */
struct lora_names *lora_names_new(const struct weights_file *base);
void lora_names_free(struct lora_names *names);
/* stem [len], as it stands in the file, with its network's prefix if it has one; NULL
 * when the base has no such weight */
const struct lora_place *lora_names_find(const struct lora_names *names,
                                         const char *stem, size_t len);

#endif
