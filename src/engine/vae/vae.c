#include "engine/vae/vae.h"
#include "engine/vae/taesd.h"

#define PREFIX "first_stage_model."
#define DECODER PREFIX "decoder."
#define ENCODER PREFIX "encoder."
#define EPS 1e-6F

int vae_open(struct vae *ret_vae, const struct weights_file *file, struct err *err)
{
    const struct weight *first = weights_file_find(file, DECODER "conv_in.weight");
    struct vae vae = {.file = file, .scale = 1};

    if (!first && taesd_is(file))
        return taesd_open(ret_vae, file, err);
    if (!first)
        return err_set(err, ERR_BAD_FILE,
                       "has no decoder (tensor " DECODER "conv_in.weight is missing)");
    while (
        weights_file_find(file, NAME(DECODER "up.%d.block.0.norm1.weight", vae.levels)))
        vae.levels++;
    if (vae.levels < 1 || vae.levels > 6)
        return err_set(err, ERR_BAD_FILE,
                       "its decoder has %d levels (tensors " DECODER "up.N.block.0)",
                       vae.levels);
    for (int level = 0; level < vae.levels; level++)
        if (weights_file_find(file, NAME(DECODER "up.%d.upsample.conv.weight", level)))
            vae.scale *= 2;
    if (first->rank != 4)
        return err_set(err, ERR_BAD_FILE, "tensor %s has rank %d, 4 was expected",
                       first->name, first->rank);
    vae.latent_channels = first->dim[1];
    vae.has_encoder = weights_file_find(file, ENCODER "conv_in.weight") != NULL;
    *ret_vae = vae;
    return 0;
}

int64_t vae_moments(const struct vae *vae)
{
    return vae->is_taesd ? vae->latent_channels : 2 * vae->latent_channels;
}

double vae_latent_scale(const struct vae *vae, double family_scale)
{
    return vae->is_taesd ? 1 : family_scale;
}

static int residual(struct build *b, int x, const char *name)
{
    struct graph *g = b->graph;
    int skip = x, h;

    /* first, so that the norm may work in place */
    if (build_has(b, name, ".nin_shortcut.weight"))
        skip = build_conv(b, x, NAME("%s.nin_shortcut", name));
    h = graph_activate(g, build_group_norm(b, x, NAME("%s.norm1", name), EPS),
                       ACT_SILU);
    h = build_conv(b, h, NAME("%s.conv1", name));
    h = graph_activate(g, build_group_norm(b, h, NAME("%s.norm2", name), EPS),
                       ACT_SILU);
    return graph_add(g, skip, build_conv(b, h, NAME("%s.conv2", name)));
}

/* one head over all pixels */
static int attention(struct build *b, int x, const char *name)
{
    struct name q = name_format("%s.q", name), k = name_format("%s.k", name);
    struct name v = name_format("%s.v", name);
    const char *const names[] = {q.text, k.text, v.text};
    struct attention_args args = {.heads = 1};
    struct graph *g = b->graph;
    struct shape s;
    int64_t width;
    int h, qkv;

    qkv = build_linear_joined(b, build_group_norm(b, x, NAME("%s.norm", name), EPS),
                              names, 3, BUILD_BIAS);
    if (qkv < 0)
        return -1;
    s = *graph_shape(g, qkv);
    width = s.dim[3] / 3;
    qkv = graph_reshape(g, qkv, shape3(s.dim[0], s.dim[1] * s.dim[2], s.dim[3]));
    h = graph_attention(g, graph_slice(g, qkv, 0, width),
                        graph_slice(g, qkv, width, width),
                        graph_slice(g, qkv, 2 * width, width), name, &args);
    h = graph_reshape(g, h, shape4(s.dim[0], s.dim[1], s.dim[2], width));
    return graph_add(g, x, build_conv(b, h, NAME("%s.proj_out", name)));
}

static int upsample(struct build *b, int x, const char *name)
{
    const struct shape *s;

    if (x < 0)
        return -1;
    s = graph_shape(b->graph, x);
    return build_conv(b, graph_upsample2x(b->graph, x, 2 * s->dim[1], 2 * s->dim[2]),
                      name);
}

/* Between the ways down and up: two blocks and, in every SD, attention between them. */
static int middle(struct build *b, int x, const char *name)
{
    struct name attn = name_format("%smid.attn_1", name);

    x = residual(b, x, NAME("%smid.block_1", name));
    if (build_has(b, attn.text, ".norm.weight"))
        x = attention(b, x, attn.text);
    return residual(b, x, NAME("%smid.block_2", name));
}

/* The blocks of one level: "<name>.block.0", 1, ... as many as the file has. */
static int blocks(struct build *b, int x, const char *name)
{
    for (int i = 0; build_has(b, NAME("%s.block.%d", name, i), ".norm1.weight"); i++)
        x = residual(b, x, NAME("%s.block.%d", name, i));
    return x;
}

static int end(struct build *b, int x, const char *name)
{
    x = graph_activate(b->graph, build_group_norm(b, x, NAME("%snorm_out", name), EPS),
                       ACT_SILU);
    return build_conv(b, x, NAME("%sconv_out", name));
}

void vae_build_decoder(const struct vae *vae, struct build *b, int64_t batch,
                       int64_t high, int64_t wide)
{
    int x = graph_input(b->graph, "latent", TENSOR_F32,
                        shape4(batch, high, wide, vae->latent_channels));

    if (vae->is_taesd) {
        graph_output(b->graph, "picture", TENSOR_F32, taesd_build_decoder(b, x));
        return;
    }
    if (build_has(b, PREFIX "post_quant_conv", ".weight"))
        x = build_conv(b, x, PREFIX "post_quant_conv");
    x = middle(b, build_conv(b, x, DECODER "conv_in"), DECODER);
    for (int level = vae->levels - 1; level >= 0; level--) {
        x = blocks(b, x, NAME(DECODER "up.%d", level));
        if (build_has(b, NAME(DECODER "up.%d.upsample.conv", level), ".weight"))
            x = upsample(b, x, NAME(DECODER "up.%d.upsample.conv", level));
    }
    graph_output(b->graph, "picture", TENSOR_F32, end(b, x, DECODER));
}

/* Half the size; SD's own training code pads below and on the right only. */
static int downsample(struct build *b, int x, const char *name)
{
    static const struct conv_args args = {.stride = 2, .pad_extra_bottom_right = 1};

    return graph_conv2d(b->graph, x, name, build_find(b, name, ".weight"),
                        build_find(b, name, ".bias"), &args);
}

void vae_build_encoder(const struct vae *vae, struct build *b, int64_t batch,
                       int64_t high, int64_t wide)
{
    int x = graph_input(b->graph, "picture", TENSOR_F32, shape4(batch, high, wide, 3));

    if (vae->is_taesd) {
        graph_output(b->graph, "latent", TENSOR_F32, taesd_build_encoder(b, x));
        return;
    }
    x = build_conv(b, x, ENCODER "conv_in");
    for (int level = 0; level < vae->levels; level++) {
        x = blocks(b, x, NAME(ENCODER "down.%d", level));
        if (build_has(b, NAME(ENCODER "down.%d.downsample.conv", level), ".weight"))
            x = downsample(b, x, NAME(ENCODER "down.%d.downsample.conv", level));
    }
    x = end(b, middle(b, x, ENCODER), ENCODER);
    if (build_has(b, PREFIX "quant_conv", ".weight"))
        x = build_conv(b, x, PREFIX "quant_conv");
    graph_output(b->graph, "moments", TENSOR_F32, x);
}
