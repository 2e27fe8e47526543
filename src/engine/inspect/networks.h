/* networks: the parts of a picture model in a file, how large each is, which tensors
 * they lack and which belong to none. Private to inspect/.
 *
 *   networks_read(&n, file);
 *   n.of[NETWORK_UNET].tensors ... n.missing.names[0] ...
 *   networks_release(&n);
 *
 * What must be there is not a list per model: a residual block of which one tensor is
 * there must have the others. Numbers that are left out are told apart: distilled models
 * may keep the numbers of the blocks that they kept. */
#ifndef MYSTI_ENGINE_INSPECT_NETWORKS_H
#define MYSTI_ENGINE_INSPECT_NETWORKS_H

#include "engine/files/weights.h"

enum network {
    NETWORK_UNET,
    NETWORK_TEXT,
    NETWORK_TEXT2,   /* SDXL's second text encoder */
    NETWORK_ENCODER, /* of the VAE */
    NETWORK_DECODER,
    NETWORKS,
};

struct network_size {
    size_t tensors;
    uint64_t parameters, bytes;
};

struct name_list {
    char **names; /* sorted, no two alike */
    size_t count;
};

struct networks {
    struct network_size of[NETWORKS];
    const char *unet; /* the prefix of its names, "" included; NULL: there is none */
    struct name_list missing, gaps, left_over;
};

void networks_read(struct networks *ret, const struct weights_file *file);
/* The gaps are missing, too. */
void networks_count_gaps(struct networks *n);
void networks_release(struct networks *n);
const char *network_title(enum network network); /* "U-Net" */

#endif
