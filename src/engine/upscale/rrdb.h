/* rrdb: the network of the ESRGAN family (RRDBNet: Wang et al. 2018, arXiv:1809.00219; Real-ESRGAN, arXiv:2107.10833),
 * understood from a file's tensors, whichever of its three sets of names they have.
 *
 *   if (weights_file_open(&file, path, &err) || rrdb_read(&net, file, &err)) return -1;
 *   struct graph *g = rrdb_graph(net, high, wide);
 *   rrdb_close(net);
 *
 * Graphs borrow from the file. */
#ifndef MYSTI_ENGINE_UPSCALE_RRDB_H
#define MYSTI_ENGINE_UPSCALE_RRDB_H

#include "engine/graph/build.h"

enum rrdb_naming { RRDB_REAL_ESRGAN, RRDB_ESRGAN, RRDB_NUMBERED };

struct rrdb {
    const struct weights_file *file;
    struct weights_file *owned; /* the same; NULL: somebody else's */
    enum rrdb_naming naming;
    char *prefix;     /* of every tensor: "", "params_ema." */
    int blocks;       /* 23, 6 */
    int doublings;    /* in the network */
    int shuffle;      /* pixels per input pixel of the network, each way: 1, 2, 4 */
    int scale;        /* of the whole: 2^doublings / shuffle */
    uint64_t weights; /* numbers */
};

/* Takes over the file, also when it fails. */
int rrdb_read(struct rrdb **ret, struct weights_file *file, struct err *err) MUST_CHECK;
/* What a file is, for a person; false: nothing of the kind. trouble: why it cannot be used, else ERR_NONE. */
struct rrdb_look {
    int scale, blocks; /* 0: not known */
    struct err trouble;
};
bool rrdb_look(const struct weights_file *file, struct rrdb_look *ret);
void rrdb_close(struct rrdb *net); /* NULL is fine */

/* high, wide: picture pixels, multiples of shuffle. Input 0: [1, high / shuffle, wide / shuffle, 3 shuffle^2] f32,
 * 0..1, channel (c * shuffle + y) * shuffle + x (PyTorch's pixel_unshuffle). Output 0: [1, high * scale,
 * wide * scale, 3] f32, 0..1 and a little beyond. */
struct graph *rrdb_graph(const struct rrdb *net, int high, int wide);

#endif
