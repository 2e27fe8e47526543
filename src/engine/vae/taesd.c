/* Both halves are one list of layers each, and a layer says by its tensors what it is: three convolutions with a skip
 * ("conv.0", "conv.2", "conv.4"), a convolution with a bias, or one without, which is where the picture doubles in the
 * decoder (nearest, then the convolution) and halves in the encoder (its stride is 2). So a network of another depth or
 * width needs nothing here. Only the first convolution of the decoder has a ReLU behind it.
 *
 * Weights that are no numbers are looked for when the file is opened: oneDNN's ReLU makes 0 of them, and then the picture
 * would be wrong without a word. It is a few megabytes. */
#include "engine/vae/taesd.h"

#include "base/str.h"

#include <math.h>

#define DECODER "first_stage_model.decoder.layers."
#define ENCODER "first_stage_model.encoder.layers."

enum { LAYERS_MAX = 64, DOUBLINGS_MAX = 6 };

enum layer { LAYER_NONE, LAYER_BLOCK, LAYER_CONV, LAYER_SCALE };

static enum layer layer_of(const struct weights_file *file, const char *prefix,
                           int index)
{
    if (weights_file_find(file, NAME("%s%d.conv.0.weight", prefix, index)))
        return LAYER_BLOCK;
    if (!weights_file_find(file, NAME("%s%d.weight", prefix, index)))
        return LAYER_NONE;
    return weights_file_find(file, NAME("%s%d.bias", prefix, index)) ? LAYER_CONV
                                                                     : LAYER_SCALE;
}

/* The number of the first layer with weights; LAYERS_MAX: there is none. */
static int first_layer(const struct weights_file *file, const char *prefix)
{
    int i = 0;

    while (i < LAYERS_MAX && layer_of(file, prefix, i) == LAYER_NONE)
        i++;
    return i;
}

bool taesd_is(const struct weights_file *file)
{
    return first_layer(file, DECODER) < LAYERS_MAX ||
           first_layer(file, ENCODER) < LAYERS_MAX;
}

static int refuse_damaged(const struct weight *w, struct err *err)
{
    size_t count = w->type == WEIGHT_OTHER ? 0 : weight_count(w);
    float some[256];

    for (size_t first = 0; first < count; first += 256) {
        size_t n = count - first < 256 ? count - first : 256;

        weight_to_f32(w, first, n, some);
        for (size_t i = 0; i < n; i++)
            if (!isfinite(some[i]))
                return err_set(err, ERR_BAD_FILE,
                               "tensor %s holds what is no finite number", w->name);
    }
    return 0;
}

static int check_weights(const struct weights_file *file, struct err *err)
{
    for (size_t i = 0; i < weights_file_count(file); i++) {
        const struct weight *w = weights_file_at(file, i);

        if ((str_has_prefix(w->name, DECODER) || str_has_prefix(w->name, ENCODER)) &&
            refuse_damaged(w, err))
            return -1;
    }
    return 0;
}

int taesd_open(struct vae *ret_vae, const struct weights_file *file, struct err *err)
{
    int first = first_layer(file, DECODER);
    struct vae vae = {.file = file, .is_taesd = true, .levels = 1, .scale = 1};
    const struct weight *conv =
        weights_file_find(file, NAME(DECODER "%d.weight", first));

    if (first == LAYERS_MAX)
        return err_set(err, ERR_BAD_FILE,
                       "is the encoder of a TAESD alone: choose its decoder, which "
                       "takes along an encoder that lies beside it");
    if (!conv || conv->rank != 4)
        return err_set(err, ERR_BAD_FILE,
                       "is a TAESD whose decoder does not begin with a convolution "
                       "(tensor " DECODER "%d.weight)",
                       first);
    for (int i = first; i < LAYERS_MAX; i++)
        vae.levels += layer_of(file, DECODER, i) == LAYER_SCALE;
    if (vae.levels - 1 > DOUBLINGS_MAX)
        return err_set(err, ERR_BAD_FILE,
                       "is a TAESD that doubles %d times, more "
                       "than %d",
                       vae.levels - 1, DOUBLINGS_MAX);
    if (check_weights(file, err))
        return -1;
    vae.scale <<= vae.levels - 1;
    vae.latent_channels = conv->dim[1];
    vae.has_encoder = first_layer(file, ENCODER) < LAYERS_MAX;
    *ret_vae = vae;
    return 0;
}

static int block(struct build *b, int x, const char *name)
{
    struct graph *g = b->graph;
    int skip = x, h;

    if (build_has(b, name, ".skip.weight"))
        skip = build_conv_unbiased(b, x, NAME("%s.skip", name), 1);
    h = graph_activate(g, build_conv(b, x, NAME("%s.conv.0", name)), ACT_RELU);
    h = graph_activate(g, build_conv(b, h, NAME("%s.conv.2", name)), ACT_RELU);
    h = build_conv(b, h, NAME("%s.conv.4", name));
    return graph_activate(g, graph_add(g, skip, h), ACT_RELU);
}

static int double_size(struct build *b, int x)
{
    const struct shape *s = x < 0 ? NULL : graph_shape(b->graph, x);

    return s ? graph_upsample2x(b->graph, x, 2 * s->dim[1], 2 * s->dim[2]) : -1;
}

int taesd_build_decoder(struct build *b, int x)
{
    int first = first_layer(b->file, DECODER);

    x = graph_activate(b->graph, x, ACT_SOFT_CLAMP);
    for (int i = first; i < LAYERS_MAX; i++) {
        struct name name = name_format(DECODER "%d", i);
        enum layer layer = layer_of(b->file, DECODER, i);

        if (layer == LAYER_BLOCK)
            x = block(b, x, name.text);
        else if (layer == LAYER_CONV)
            x = build_conv(b, x, name.text);
        else if (layer == LAYER_SCALE)
            x = build_conv_unbiased(b, double_size(b, x), name.text, 1);
        if (i == first)
            x = graph_activate(b->graph, x, ACT_RELU);
    }
    return graph_activate(b->graph, x, ACT_TO_SIGNED);
}

int taesd_build_encoder(struct build *b, int x)
{
    x = graph_activate(b->graph, x, ACT_TO_UNIT);
    for (int i = 0; i < LAYERS_MAX; i++) {
        struct name name = name_format(ENCODER "%d", i);
        enum layer layer = layer_of(b->file, ENCODER, i);

        if (layer == LAYER_BLOCK)
            x = block(b, x, name.text);
        else if (layer == LAYER_CONV)
            x = build_conv(b, x, name.text);
        else if (layer == LAYER_SCALE)
            x = build_conv_unbiased(b, x, name.text, 2);
    }
    return x;
}
