/* rrdb: a convolution, N blocks, a convolution around which its input goes past, then for each doubling a nearest
 * upsampling and a convolution, and two convolutions at the full size. A block is three dense parts; in each, five
 * convolutions see everything that came before them in that part. Parts and blocks add a fifth of what they make to
 * what they were given.
 *
 * Three sets of names are about: Real-ESRGAN's, ESRGAN's own, and that of the training code before, which numbers
 * the layers of a torch Sequential; most files that people share have the last one. There the layers after the blocks
 * are up, convolution, activation for each doubling, then convolution, activation, convolution, so the highest number
 * says how many doublings there are.
 *
 * x2 and x1 networks of Real-ESRGAN look at 2x2 or 4x4 pixels at once (12 or 48 input channels) and double twice all the
 * same.
 *
 * A network that has more than this (ESRGAN+ with its 1x1 convolutions) is refused by the name of the tensor: left out
 * silently it would give a wrong picture. */
#include "engine/upscale/rrdb.h"

#include "base/mem.h"
#include "base/str.h"

#include <string.h>

enum { CONVS = 5, PARTS = 3, BLOCKS_MAX = 64, DOUBLINGS_MAX = 3 };

/* ---- names ---- */

static struct name first_name(const struct rrdb *net)
{
    return name_format("%s%s", net->prefix,
                       net->naming == RRDB_NUMBERED ? "model.0" : "conv_first");
}

static struct name conv_name(const struct rrdb *net, int block, int part, int conv)
{
    switch (net->naming) {
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
static struct name trunk_name(const struct rrdb *net)
{
    if (net->naming == RRDB_NUMBERED)
        return name_format("%smodel.1.sub.%d", net->prefix, net->blocks);
    return name_format("%s%s", net->prefix,
                       net->naming == RRDB_ESRGAN ? "trunk_conv" : "conv_body");
}

/* doubling: from 1 */
static struct name up_name(const struct rrdb *net, int doubling)
{
    if (net->naming == RRDB_NUMBERED)
        return name_format("%smodel.%d", net->prefix, 3 * doubling);
    return name_format("%s%s%d", net->prefix,
                       net->naming == RRDB_ESRGAN ? "upconv" : "conv_up", doubling);
}

static struct name hr_name(const struct rrdb *net)
{
    if (net->naming == RRDB_NUMBERED)
        return name_format("%smodel.%d", net->prefix, 3 * net->doublings + 2);
    return name_format("%s%s", net->prefix,
                       net->naming == RRDB_ESRGAN ? "HRconv" : "conv_hr");
}

static struct name last_name(const struct rrdb *net)
{
    if (net->naming == RRDB_NUMBERED)
        return name_format("%smodel.%d", net->prefix, 3 * net->doublings + 4);
    return name_format("%sconv_last", net->prefix);
}

static bool has(const struct rrdb *net, struct name name)
{
    return weights_file_find(net->file, NAME("%s.weight", name.text)) != NULL;
}

/* ---- the graph ---- */

static int dense_part(struct build *b, const struct rrdb *net, int x, int block,
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

static int one_block(struct build *b, const struct rrdb *net, int x, int block)
{
    int h = x;

    for (int part = 1; part <= PARTS; part++)
        h = dense_part(b, net, h, block, part);
    return graph_add(b->graph, x, graph_activate(b->graph, h, ACT_FIFTH));
}

static int build_net(struct build *b, const struct rrdb *net, int x)
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

static struct graph *make_graph(const struct rrdb *net, int high, int wide, bool *used)
{
    struct graph *g = graph_new("upscale");
    struct build b = {g, net->file, used};
    int x = graph_input(g, "picture", TENSOR_F32,
                        shape4(1, high / net->shuffle, wide / net->shuffle,
                               3 * net->shuffle * net->shuffle));
    int y = build_net(&b, net, x);

    if (y >= 0 && graph_shape(g, y)->dim[3] != 3)
        graph_fail(g, "its pictures have %lld channels, 3 were expected",
                   (long long)graph_shape(g, y)->dim[3]);
    graph_output(g, "larger", TENSOR_F32, y);
    return g;
}

struct graph *rrdb_graph(const struct rrdb *net, int high, int wide)
{
    return make_graph(net, high, wide, NULL);
}

/* ---- recognising ---- */

static int find_naming(struct rrdb *net, struct err *err)
{
    static const char *const prefixes[] = {"", "params_ema.", "params.", "module."};

    for (size_t i = 0; i < sizeof(prefixes) / sizeof(*prefixes); i++) {
        free(net->prefix);
        net->prefix = mem_strdup(prefixes[i]);
        for (int naming = RRDB_REAL_ESRGAN; naming <= RRDB_NUMBERED; naming++) {
            net->naming = (enum rrdb_naming)naming;
            if (has(net, first_name(net)) && has(net, conv_name(net, 0, 1, 1)))
                return 0;
        }
    }
    return err_set(
        err, ERR_BAD_FILE,
        "is no upscaler of the ESRGAN family (it has neither body.0.rdb1.conv1 nor "
        "RRDB_trunk.0.RDB1.conv1 nor model.1.sub.0.RDB1.conv1.0)");
}

static int find_shape(struct rrdb *net, struct err *err)
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
    while (net->blocks <= BLOCKS_MAX && has(net, conv_name(net, net->blocks, 1, 1)))
        net->blocks++;
    if (net->blocks > BLOCKS_MAX)
        return err_set(err, ERR_BAD_FILE, "it has more than %d blocks", BLOCKS_MAX);
    if (net->naming == RRDB_NUMBERED) {
        while (net->doublings < DOUBLINGS_MAX && !has(net, last_name(net)))
            net->doublings++;
    } else {
        while (net->doublings < DOUBLINGS_MAX &&
               has(net, up_name(net, net->doublings + 1)))
            net->doublings++;
    }
    net->scale = (1 << net->doublings) / net->shuffle;
    if (!net->scale)
        return err_set(err, ERR_BAD_FILE, "it makes pictures smaller");
    return 0;
}

/* Every layer is there and fits, and nothing is left over. */
static int check_tensors(struct rrdb *net, struct err *err)
{
    size_t count = weights_file_count(net->file);
    bool *used = mem_zalloc(count * sizeof(*used));
    struct graph *g = make_graph(net, 4 * net->shuffle, 4 * net->shuffle, used);
    int rc = graph_check(g, err);

    for (size_t i = 0; rc == 0 && i < count; i++) {
        const struct weight *w = weights_file_at(net->file, i);

        if (used[i])
            net->weights += weight_count(w);
        else if (str_has_prefix(w->name, net->prefix))
            rc = err_set(err, ERR_BAD_FILE,
                         "tensor %s belongs to no ESRGAN that is known", w->name);
    }
    graph_free(g);
    free(used);
    return rc;
}

int rrdb_read(struct rrdb **ret, struct weights_file *file, struct err *err)
{
    struct rrdb *net = mem_zalloc(sizeof(*net));

    net->file = net->owned = file;
    if (find_naming(net, err) || find_shape(net, err) || check_tensors(net, err)) {
        rrdb_close(net);
        return -1;
    }
    *ret = net;
    return 0;
}

bool rrdb_look(const struct weights_file *file, struct rrdb_look *ret)
{
    struct rrdb net = {.file = file};
    bool is_one = find_naming(&net, NULL) == 0;

    *ret = (struct rrdb_look){0};
    if (is_one && find_shape(&net, &ret->trouble) == 0)
        (void)!check_tensors(&net, &ret->trouble);
    ret->scale = net.scale;
    ret->blocks = net.blocks;
    free(net.prefix);
    return is_one;
}

void rrdb_close(struct rrdb *net)
{
    if (!net)
        return;
    weights_file_close(net->owned);
    free(net->prefix);
    free(net);
}
