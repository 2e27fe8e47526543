#include "engine/graph/build.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define MAX_JOINED 256
#define LAYER_NORM_EPS 1e-5F

struct name name_format(const char *format, ...)
{
    struct name name;
    va_list args;

    va_start(args, format);
    vsnprintf(name.text, sizeof(name.text), format, args);
    va_end(args);
    return name;
}

const struct weight *build_find(const struct build *b, const char *name,
                                const char *part)
{
    const struct weight *w = weights_file_find(b->file, NAME("%s%s", name, part));

    if (w && b->used)
        b->used[w - weights_file_at(b->file, 0)] = true;
    return w;
}

bool build_has(const struct build *b, const char *name, const char *part)
{
    return weights_file_find(b->file, NAME("%s%s", name, part)) != NULL;
}

static const struct weight *find_bias(struct build *b, const char *name)
{
    const struct weight *w = build_find(b, name, ".bias");

    if (!w)
        graph_fail(b->graph, "tensor %s.bias is missing", name);
    return w;
}

int build_linear(struct build *b, int x, const char *name)
{
    return graph_linear(b->graph, x, name, build_find(b, name, ".weight"),
                        find_bias(b, name));
}

int build_linear_joined(struct build *b, int x, const char *const *names, int count,
                        enum build_bias bias)
{
    const struct weight *weights[MAX_JOINED], *biases[MAX_JOINED];

    if (count > MAX_JOINED)
        return graph_fail(b->graph, "%s: %d products of one input are more than %d",
                          names[0], count, MAX_JOINED);
    for (int i = 0; i < count; i++) {
        weights[i] = build_find(b, names[i], ".weight");
        if (!weights[i])
            return graph_fail(b->graph, "tensor %s.weight is missing", names[i]);
        biases[i] = bias == BUILD_BIAS ? find_bias(b, names[i]) : NULL;
    }
    return graph_linear_joined(b->graph, x, names[0], weights,
                               bias == BUILD_BIAS ? biases : NULL, count);
}

static int conv(struct build *b, int x, const char *name, int stride,
                const struct weight *bias)
{
    const struct weight *w = build_find(b, name, ".weight");
    struct conv_args args = {.stride = stride};

    if (w && stride == 1 &&
        (w->rank == 2 || (w->rank == 4 && w->dim[2] == 1 && w->dim[3] == 1)))
        return graph_linear(b->graph, x, name, w, bias);
    if (w && (w->rank != 4 || w->dim[2] != w->dim[3] || w->dim[2] % 2 == 0))
        return graph_fail(
            b->graph, "tensor %s is no convolution with a square kernel of odd size",
            w->name);
    if (w)
        args.pad = (int)(w->dim[2] / 2);
    return graph_conv2d(b->graph, x, name, w, bias, &args);
}

int build_conv(struct build *b, int x, const char *name)
{
    return conv(b, x, name, 1, find_bias(b, name));
}

int build_conv_stride2(struct build *b, int x, const char *name)
{
    return conv(b, x, name, 2, find_bias(b, name));
}

int build_conv_unbiased(struct build *b, int x, const char *name, int stride)
{
    return conv(b, x, name, stride, NULL);
}

int build_prelu(struct build *b, int x, const char *name)
{
    return graph_prelu(b->graph, x, name, build_find(b, name, ".weight"));
}

static int group_count(int64_t channels)
{
    int64_t most = channels / 4 < 32 ? channels / 4 : 32;

    for (int64_t groups = most; groups > 1; groups--)
        if (channels % groups == 0)
            return (int)groups;
    return 1;
}

int build_group_norm(struct build *b, int x, const char *name, float eps)
{
    const struct weight *gamma = build_find(b, name, ".weight");

    return graph_group_norm(b->graph, x, name, gamma, find_bias(b, name),
                            x < 0 ? 1 : group_count(graph_shape(b->graph, x)->dim[3]),
                            eps);
}

int build_layer_norm(struct build *b, int x, const char *name)
{
    return graph_layer_norm(b->graph, x, name, build_find(b, name, ".weight"),
                            find_bias(b, name), LAYER_NORM_EPS);
}
