/* compact: Real-ESRGAN's small network (SRVGGNetCompact: realesr-general-x4v3 and its "wdn", realesr-animevideov3, and
 * what people trained as "Compact"): convolutions of one width one behind the other, each with a slope of its own below
 * zero for every channel, all at the picture's own size. The last makes scale^2 values of each colour, which lie beside
 * each other in the larger picture (PyTorch's pixel_shuffle), and the picture itself, its pixels repeated, is added.
 *
 * That last part is no arithmetic: net_finish() does it on the output, so no back end needs operations for it.
 *
 * Layers are numbered: body.0, body.2, ... are convolutions, body.1, body.3, ... slopes. A network without slopes (they
 * may be built with another activation, which leaves no tensor) is refused: which one it was the file does not say. */
#include "engine/upscale/net.h"

enum { CONVS_MAX = 128, SCALE_MAX = 8 };

static struct name layer_name(const struct net *net, int layer)
{
    return name_format("%sbody.%d", net->prefix, layer);
}

static const struct weight *layer(const struct net *net, int number)
{
    return weights_file_find(net->file,
                             NAME("%s.weight", layer_name(net, number).text));
}

static int last_layer(const struct net *net)
{
    return 2 * net->blocks + 2;
}

static bool find(struct net *net)
{
    const struct weight *first = layer(net, 0), *third = layer(net, 2);

    return first && first->rank == 4 && third && third->rank == 4 &&
           !net_has(net, name_format("%sconv_first", net->prefix));
}

static int read_shape(struct net *net, struct err *err)
{
    const struct weight *first = layer(net, 0), *last;

    if (!layer(net, 1))
        return err_set(err, ERR_BAD_FILE,
                       "tensor %s.weight is missing: the slopes of its activations, "
                       "without which it is not known what they are",
                       layer_name(net, 1).text);
    if (first->dim[1] != 3)
        return err_set(err, ERR_BAD_FILE,
                       "its first convolution takes %lld channels, 3 are known "
                       "(pictures in colour)",
                       (long long)first->dim[1]);
    while (net->blocks <= CONVS_MAX && layer(net, last_layer(net) + 2))
        net->blocks++;
    if (net->blocks > CONVS_MAX)
        return err_set(err, ERR_BAD_FILE, "it has more than %d layers", CONVS_MAX);
    last = layer(net, last_layer(net));
    while (net->scale <= SCALE_MAX && last->dim[0] != 3 * net->scale * net->scale)
        net->scale++;
    if (net->scale > SCALE_MAX)
        return err_set(
            err, ERR_BAD_FILE,
            "its last convolution makes %lld channels: 3 times the square of "
            "a scale of 1 to %d were expected",
            (long long)last->dim[0], SCALE_MAX);
    net->shuffle = 1;
    return 0;
}

static int build_net(struct build *b, const struct net *net, int x)
{
    for (int i = 0; i < last_layer(net); i += 2) {
        x = build_conv(b, x, layer_name(net, i).text);
        x = build_prelu(b, x, layer_name(net, i + 1).text);
    }
    return build_conv(b, x, layer_name(net, last_layer(net)).text);
}

static int64_t channels(const struct net *net)
{
    return 3 * net->scale * net->scale;
}

static void finish(const struct net *net, const float *in, const float *made, int high,
                   int wide, float *ret)
{
    int s = net->scale;

    for (int y = 0; y < high * s; y++)
        for (int x = 0; x < wide * s; x++, ret += 3) {
            int64_t pixel = (int64_t)(y / s) * wide + x / s;
            const float *part = made + pixel * channels(net) + y % s * s + x % s;

            for (int c = 0; c < 3; c++)
                ret[c] = in[pixel * 3 + c] + part[c * s * s];
        }
}

const struct net_kind net_compact = {.family = "Real-ESRGAN's compact kind",
                                     .find = find,
                                     .read_shape = read_shape,
                                     .build = build_net,
                                     .channels = channels,
                                     .finish = finish};
