/* net: a network that makes pictures larger, understood from a file's tensors. Two kinds are known: that of the ESRGAN
 * family (rrdb.c) and Real-ESRGAN's compact one (compact.c).
 *
 *   if (weights_file_open(&file, path, &err) || net_read(&net, file, &err)) return -1;
 *   struct graph *g = net_graph(net, high, wide);
 *   ... run it ...
 *   if (net_made_bytes(net, high, wide)) net_finish(net, in, made, high, wide, larger);
 *   net_close(net);
 *
 * Graphs borrow from the file. */
#ifndef MYSTI_ENGINE_UPSCALE_NET_H
#define MYSTI_ENGINE_UPSCALE_NET_H

#include "engine/graph/build.h"

struct net_kind;

struct net {
    const struct weights_file *file;
    struct weights_file *owned; /* the same; NULL: somebody else's */
    const struct net_kind *kind;
    int naming;   /* rrdb.c's */
    char *prefix; /* of every tensor: "", "params_ema." */
    int blocks; /* 23, 6; of a compact one its convolutions between the first and the last */
    int doublings;    /* in the network; rrdb.c's */
    int shuffle;      /* pixels per input pixel of the network, each way: 1, 2, 4 */
    int scale;        /* of the whole */
    uint64_t weights; /* numbers */
};

/* Takes over the file, also when it fails: ERR_BAD_FILE, with what it is instead where that can be told. */
int net_read(struct net **ret, struct weights_file *file, struct err *err) MUST_CHECK;
void net_close(struct net *net); /* NULL is fine */
const char *net_family(
    const struct net *net); /* "the ESRGAN family", "Real-ESRGAN's compact kind" */

/* What a file is, for a person; false: nothing of the kind. trouble: why it cannot be used, else ERR_NONE. */
struct net_look {
    const char *family;
    int scale, blocks; /* 0: not known */
    struct err trouble;
};
bool net_look(const struct weights_file *file, struct net_look *ret);
/* What a file is that makes pictures larger or better in a way that is not known here ("a SwinIR or HAT network"), or
 * something else that people put into the folder of upscalers; NULL: nothing that is known. */
const char *net_other_kind(const struct weights_file *file);

/* high, wide: picture pixels, multiples of shuffle. Input 0: [1, high / shuffle, wide / shuffle, 3 shuffle^2] f32,
 * 0..1, channel (c * shuffle + y) * shuffle + x (PyTorch's pixel_unshuffle). Output 0 is [1, high * scale,
 * wide * scale, 3] f32, 0..1 and a little beyond, if net_made_bytes() is 0; else as much of what net_finish() takes. */
struct graph *net_graph(const struct net *net, int high, int wide);
size_t net_made_bytes(const struct net *net, int high, int wide);
/* in: as the graph took it; made: as it left it -> ret [high * scale, wide * scale, 3] */
void net_finish(const struct net *net, const float *in, const float *made, int high,
                int wide, float *ret);

/* ---- for the kinds alone ---- */

struct net_kind {
    const char *family;
    /* Is it one? Sets prefix and naming. */
    bool (*find)(struct net *net);
    /* Sets the numbers. */
    int (*read_shape)(struct net *net, struct err *err);
    int (*build)(struct build *b, const struct net *net, int x);
    int64_t (*channels)(const struct net *net); /* of the output */
    void (*finish)(const struct net *net, const float *in, const float *made, int high,
                   int wide, float *ret); /* NULL: nothing is left to do */
};

extern const struct net_kind net_rrdb, net_compact;

bool net_has(const struct net *net, struct name name); /* "<name>.weight" */

#endif
