/* rrdb: the network of the ESRGAN family (RRDBNet: Wang et al. 2018, arXiv:1809.00219; Real-ESRGAN, arXiv:2107.10833): a
 * convolution, N blocks, a convolution around which its input goes past, then for each doubling a nearest upsampling
 * and a convolution, and two convolutions at the full size. A block is three dense parts; in each, five convolutions
 * see everything that came before them in that part. Parts and blocks add a fifth of what they make to
 * what they were given.
 *
 * Three sets of names are about: Real-ESRGAN's, ESRGAN's own, and that of the training code before, which numbers
 * the layers of a torch Sequential; most files that people share have the last one. There the layers after the blocks
 * are up, convolution, activation for each doubling, then convolution, activation, convolution, so the highest number
 * says how many doublings there are.
 *
 * x2 and x1 networks of Real-ESRGAN look at 2x2 or 4x4 pixels at once (12 or 48 input channels) and double twice all the
 * same. */
#include "engine/upscale/net.h"

#include "base/mem.h"

#include <stdlib.h>

enum naming { RRDB_REAL_ESRGAN, RRDB_ESRGAN, RRDB_NUMBERED };
enum { CONVS = 5, PARTS = 3, BLOCKS_MAX = 64, DOUBLINGS_MAX = 3 };

/* ---- names ---- */

static struct name first_name(const struct net *net)
{
    return name_format("%s%s", net->prefix,
                       net->naming == RRDB_NUMBERED ? "model.0" : "conv_first");
}

static struct name conv_name(const struct net *net, int block, int part, int conv)
{
    switch ((enum naming)net->naming) {
    case RRDB_REAL_ESRGAN:
        return name_format("%sbody.%d.rdb%d.conv%d", net->prefix, block, part, conv);
    case RRDB_ESRGAN:
        return name_format("%sRRDB_trunk.%d.RDB%d.conv%d", net->prefix, block, part,
                           conv);
    case RRDB_NUMBERED:
        break;
    }
    return name_format("%smodel.1.sub.%d.RDB%d.conv%d.0", net->prefix, block, part,
                       conv);
}

/* the convolution after the blocks */
static struct name trunk_name(const struct net *net)
{
    if (net->naming == RRDB_NUMBERED)
        return name_format("%smodel.1.sub.%d", net->prefix, net->blocks);
    return name_format("%s%s", net->prefix,
                       net->naming == RRDB_ESRGAN ? "trunk_conv" : "conv_body");
}

/* doubling: from 1 */
static struct name up_name(const struct net *net, int doubling)
{
    if (net->naming == RRDB_NUMBERED)
        return name_format("%smodel.%d", net->prefix, 3 * doubling);
    return name_format("%s%s%d", net->prefix,
                       net->naming == RRDB_ESRGAN ? "upconv" : "conv_up", doubling);
}

static struct name hr_name(const struct net *net)
{
    if (net->naming == RRDB_NUMBERED)
        return name_format("%smodel.%d", net->prefix, 3 * net->doublings + 2);
    return name_format("%s%s", net->prefix,
                       net->naming == RRDB_ESRGAN ? "HRconv" : "conv_hr");
}

static struct name last_name(const struct net *net)
{
    if (net->naming == RRDB_NUMBERED)
        return name_format("%smodel.%d", net->prefix, 3 * net->doublings + 4);
    return name_format("%sconv_last", net->prefix);
}

/* ---- the graph ---- */

static int dense_part(struct build *b, const struct net *net, int x, int block,
                      int part)
{
    int all = x, h = x;

    for (int conv = 1; conv <= CONVS; conv++) {
        h = build_conv(b, all, conv_name(net, block, part, conv).text);
        if (conv == CONVS)
            break;
        h = graph_activate(b->graph, h, ACT_LEAKY_RELU);
        all = graph_concat(b->graph, all, h);
    }
    return graph_add(b->graph, x, graph_activate(b->graph, h, ACT_FIFTH));
}

static int one_block(struct build *b, const struct net *net, int x, int block)
{
    int h = x;

    for (int part = 1; part <= PARTS; part++)
        h = dense_part(b, net, h, block, part);
    return graph_add(b->graph, x, graph_activate(b->graph, h, ACT_FIFTH));
}

static int build_net(struct build *b, const struct net *net, int x)
{
    struct graph *g = b->graph;
    int h, first = build_conv(b, x, first_name(net).text);

    h = first;
    for (int i = 0; i < net->blocks; i++)
        h = one_block(b, net, h, i);
    h = graph_add(g, first, build_conv(b, h, trunk_name(net).text));
    for (int i = 1; i <= net->doublings; i++) {
        const struct shape *s = h < 0 ? NULL : graph_shape(g, h);

        if (s)
            h = graph_upsample2x(g, h, 2 * s->dim[1], 2 * s->dim[2]);
        h = graph_activate(g, build_conv(b, h, up_name(net, i).text), ACT_LEAKY_RELU);
    }
    h = graph_activate(g, build_conv(b, h, hr_name(net).text), ACT_LEAKY_RELU);
    return build_conv(b, h, last_name(net).text);
}

/* ---- recognising ---- */

static bool find(struct net *net)
{
    for (net->naming = RRDB_REAL_ESRGAN; net->naming <= RRDB_NUMBERED; net->naming++)
        if (net_has(net, first_name(net)) && net_has(net, conv_name(net, 0, 1, 1)))
            return true;
    return false;
}

static int read_shape(struct net *net, struct err *err)
{
    const struct weight *first =
        weights_file_find(net->file, NAME("%s.weight", first_name(net).text));
    int64_t channels = first->rank == 4 ? first->dim[1] : 0;

    net->shuffle = channels == 3 ? 1 : channels == 12 ? 2 : channels == 48 ? 4 : 0;
    if (!net->shuffle)
        return err_set(err, ERR_BAD_FILE,
                       "its first convolution takes %lld channels: 3, 12 and 48 are "
                       "known (pictures in colour)",
                       (long long)channels);
    while (net->blocks <= BLOCKS_MAX && net_has(net, conv_name(net, net->blocks, 1, 1)))
        net->blocks++;
    if (net->blocks > BLOCKS_MAX)
        return err_set(err, ERR_BAD_FILE, "it has more than %d blocks", BLOCKS_MAX);
    if (net->naming == RRDB_NUMBERED) {
        while (net->doublings < DOUBLINGS_MAX && !net_has(net, last_name(net)))
            net->doublings++;
    } else {
        while (net->doublings < DOUBLINGS_MAX &&
               net_has(net, up_name(net, net->doublings + 1)))
            net->doublings++;
    }
    net->scale = (1 << net->doublings) / net->shuffle;
    if (!net->scale)
        return err_set(err, ERR_BAD_FILE, "it makes pictures smaller");
    return 0;
}

static int64_t channels(const struct net *net)
{
    (void)net;
    return 3;
}

const struct net_kind net_rrdb = {.family = "the ESRGAN family",
                                  .find = find,
                                  .read_shape = read_shape,
                                  .build = build_net,
                                  .channels = channels};
