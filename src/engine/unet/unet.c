/* unet: from the names in a file to two graphs.
 *
 * unet_open walks the names (input_blocks.1.0.in_layers.0.weight ...) in the order in
 * which the network runs and writes down a flat list of layers: convolution, residual
 * block, transformer, down, up, "keep this for later" and "join what was kept". Which
 * levels have attention and how deep, how many blocks a level has, where it halves and
 * whether there is a middle is thus whatever the file says; nothing assumes SD 1.5's
 * 12 + 1 + 12 blocks. Distilled networks leave blocks out, and many files keep the
 * numbers of the blocks that are left: a number that is missing is no end, and an output
 * block that is nothing but the way up joins nothing. Both graphs are made from the
 * list. Rejected: a table of sizes per known model (channels, multipliers, attention
 * levels), because small models of the same shape would each need a row.
 *
 * Two products are joined over the whole network: the time embedding's projections of
 * all residual blocks (one product per step, the blocks take slices), and per
 * cross-attention its keys and values.
 *
 * What SDXL is told beside the context is added to the time embedding, so it depends on
 * the prompt alone as well: its two products belong to the context graph.
 *
 * The keys and values come in as inputs in the order in which the transformers stand in
 * the list; that order is the contract between unet_build_context and unet_build_step.
 */
#include "engine/unet/unet.h"

#include "base/mem.h"

#define PREFIX "model.diffusion_model."
/* numbers that are looked at, on each side and within a block; SD 1.5 has 12 and 3 */
enum { BLOCKS_MAX = 64, PARTS_MAX = 4 };
#define RES_EPS 1e-5F
#define TRANSFORMER_EPS 1e-6F

enum layer_kind {
    LAYER_CONV,
    LAYER_RES,
    LAYER_TRANSFORMER,
    LAYER_DOWN,
    LAYER_UP,
    LAYER_KEEP, /* the result so far goes onto the stack of skips */
    LAYER_JOIN, /* the top of that stack is joined to it */
};

struct layer {
    enum layer_kind kind;
    struct name name;
};

struct cross {
    struct name name; /* "....attn2" */
    int64_t channels; /* keys and values side by side */
};

struct unet {
    struct cross *crosses; /* cross-attentions, in running order */
    int cross_count;
    struct layer *layers;
    int layer_count;
    struct unet_heads heads;
    int64_t time_channels; /* of the sinusoids, 320 */
    int64_t latent_channels;
    int64_t context_width;
    int64_t label_width, label_channels;
    int64_t guide_width;
    int kept; /* depth of the stack while the list is made */
};

/* ---- reading the names ---- */

static void add(struct unet *u, enum layer_kind kind, const char *name)
{
    u->layers =
        mem_realloc(u->layers, (size_t)(u->layer_count + 1) * sizeof(*u->layers));
    u->layers[u->layer_count++] = (struct layer){kind, name_format("%s", name)};
    u->kept += (kind == LAYER_KEEP) - (kind == LAYER_JOIN);
}

static bool has(const struct weights_file *file, const char *name, const char *part)
{
    return weights_file_find(file, NAME("%s%s", name, part)) != NULL;
}

/* What block `name` ("...input_blocks.4") consists of: its parts .0, .1, .2 each by the
 * tensors it has. Returns how many there are. */
static int add_block(struct unet *u, const struct weights_file *file, const char *name)
{
    int parts = 0;

    for (int i = 0; i < PARTS_MAX; i++) {
        struct name part = name_format("%s.%d", name, i);

        if (has(file, part.text, ".in_layers.0.weight"))
            add(u, LAYER_RES, part.text);
        else if (has(file, part.text, ".transformer_blocks.0.norm1.weight"))
            add(u, LAYER_TRANSFORMER, part.text);
        else if (has(file, part.text, ".op.weight"))
            add(u, LAYER_DOWN, part.text);
        else if (has(file, part.text, ".conv.weight"))
            add(u, LAYER_UP, part.text);
        else if (has(file, part.text, ".weight"))
            add(u, LAYER_CONV, part.text);
        else
            continue;
        parts++;
    }
    return parts;
}

static int add_blocks(struct unet *u, const struct weights_file *file, struct err *err)
{
    for (int i = 0; i < BLOCKS_MAX; i++)
        if (add_block(u, file, NAME(PREFIX "input_blocks.%d", i)))
            add(u, LAYER_KEEP, "");
    add_block(u, file, PREFIX "middle_block");
    for (int i = 0; i < BLOCKS_MAX; i++) {
        struct name name = name_format(PREFIX "output_blocks.%d", i);
        bool joins = has(file, name.text, ".0.in_layers.0.weight");

        if (joins && u->kept == 0)
            return err_set(err, ERR_BAD_FILE, "%s has no input block to join",
                           name.text);
        if (joins)
            add(u, LAYER_JOIN, "");
        add_block(u, file, name.text);
    }
    if (u->kept)
        return err_set(err, ERR_BAD_FILE,
                       "has %d input blocks more than output blocks: tensors of " PREFIX
                       "output_blocks are missing",
                       u->kept);
    return 0;
}

static int add_cross(struct unet *u, const struct weights_file *file, const char *name,
                     struct err *err)
{
    struct cross cross = {.name = name_format("%s.attn2", name)};
    const struct weight *k =
        weights_file_find(file, NAME("%s.to_k.weight", cross.name.text));
    const struct weight *v =
        weights_file_find(file, NAME("%s.to_v.weight", cross.name.text));

    if (!k || !v)
        return err_set(err, ERR_BAD_FILE, "tensor %s.%s.weight is missing",
                       cross.name.text, k ? "to_v" : "to_k");
    if (k->rank != 2 || v->rank != 2 || k->dim[0] != v->dim[0] || k->dim[0] < 1)
        return err_set(err, ERR_BAD_FILE, "tensors %s and %s do not fit together",
                       k->name, v->name);
    cross.channels = k->dim[0] + v->dim[0];
    u->context_width = k->dim[1];
    u->crosses =
        mem_realloc(u->crosses, (size_t)(u->cross_count + 1) * sizeof(*u->crosses));
    u->crosses[u->cross_count++] = cross;
    return 0;
}

static int find_crosses(struct unet *u, const struct weights_file *file,
                        struct err *err)
{
    for (int i = 0; i < u->layer_count; i++) {
        for (int depth = 0; u->layers[i].kind == LAYER_TRANSFORMER; depth++) {
            struct name name =
                name_format("%s.transformer_blocks.%d", u->layers[i].name.text, depth);

            if (!has(file, name.text, ".norm1.weight"))
                break;
            if (add_cross(u, file, name.text, err))
                return -1;
        }
    }
    if (u->cross_count == 0)
        return err_set(err, ERR_BAD_FILE,
                       "has no cross-attention: its U-Net cannot follow a prompt");
    return 0;
}

int unet_open(struct unet **ret_unet, const struct weights_file *file,
              struct unet_heads heads, struct err *err)
{
    const struct weight *first =
        weights_file_find(file, PREFIX "input_blocks.0.0.weight");
    const struct weight *time = weights_file_find(file, PREFIX "time_embed.0.weight");
    const struct weight *label = weights_file_find(file, PREFIX "label_emb.0.0.weight");
    const struct weight *guide =
        weights_file_find(file, PREFIX "time_embed.cond_proj.weight");
    struct unet *u;

    if (!first || !time)
        return err_set(err, ERR_BAD_FILE,
                       "is no Stable Diffusion model (tensor " PREFIX "%s is missing)",
                       first ? "time_embed.0.weight" : "input_blocks.0.0.weight");
    if (first->rank != 4 || time->rank != 2)
        return err_set(err, ERR_BAD_FILE, "tensors %s and %s have ranks %d and %d",
                       first->name, time->name, first->rank, time->rank);
    u = mem_zalloc(sizeof(*u));
    u->heads = heads;
    u->latent_channels = first->dim[1];
    u->time_channels = time->dim[1];
    if (guide && guide->rank == 2)
        u->guide_width = guide->dim[1];
    if (label && label->rank == 2) {
        u->label_width = label->dim[1];
        u->label_channels = time->dim[0];
    }
    if (add_blocks(u, file, err) || find_crosses(u, file, err)) {
        unet_free(u);
        return -1;
    }
    *ret_unet = u;
    return 0;
}

void unet_free(struct unet *unet)
{
    if (!unet)
        return;
    free(unet->layers);
    free(unet->crosses);
    free(unet);
}

int64_t unet_latent_channels(const struct unet *unet)
{
    return unet->latent_channels;
}

int64_t unet_context_width(const struct unet *unet)
{
    return unet->context_width;
}

int unet_context_count(const struct unet *unet)
{
    return unet->cross_count;
}

int64_t unet_context_channels(const struct unet *unet, int i)
{
    return unet->crosses[i].channels;
}

int64_t unet_label_width(const struct unet *unet)
{
    return unet->label_width;
}

int64_t unet_label_channels(const struct unet *unet)
{
    return unet->label_channels;
}

int64_t unet_guide_width(const struct unet *unet)
{
    return unet->guide_width;
}

/* ---- the context graph ---- */

void unet_build_context(const struct unet *unet, struct build *b, int context,
                        int label)
{
    for (int i = 0; i < unet->cross_count; i++) {
        struct name k = name_format("%s.to_k", unet->crosses[i].name.text);
        struct name v = name_format("%s.to_v", unet->crosses[i].name.text);
        const char *const names[] = {k.text, v.text};

        graph_output(b->graph, unet->crosses[i].name.text, TENSOR_ACT,
                     build_linear_joined(b, context, names, 2, BUILD_NO_BIAS));
    }
    if (unet->label_width == 0)
        return;
    label = build_linear(b, label, PREFIX "label_emb.0.0");
    label = build_linear(b, graph_activate(b->graph, label, ACT_SILU),
                         PREFIX "label_emb.0.2");
    if (label >= 0 && shape_last(graph_shape(b->graph, label)) != unet->label_channels)
        graph_fail(b->graph,
                   "tensor " PREFIX "label_emb.0.2.weight makes %lld numbers, the time "
                   "embedding has %lld",
                   (long long)shape_last(graph_shape(b->graph, label)),
                   (long long)unet->label_channels);
    graph_output(b->graph, "label", TENSOR_F32, label);
}

/* ---- the step graph ---- */

struct step {
    const struct unet *unet;
    struct build *build;
    struct graph *graph;
    int x;
    int times;         /* [1, all residual blocks' channels] */
    int64_t time_used; /* of them */
    int *contexts;     /* inputs */
    int contexts_used;
    int *kept; /* the stack of skips */
    int kept_count;
};

/* The next `channels` of the joined time projections. */
static int take_time(struct step *s, int64_t channels)
{
    int slice = graph_slice(s->graph, s->times, s->time_used, channels);

    s->time_used += channels;
    return slice;
}

static int64_t channels_of(const struct step *s, int x)
{
    return x < 0 ? 0 : shape_last(graph_shape(s->graph, x));
}

static void add_res(struct step *s, const char *name)
{
    struct graph *g = s->graph;
    struct build *b = s->build;
    int skip = s->x, h;

    /* first, so that the norm may work in place */
    if (build_has(b, name, ".skip_connection.weight"))
        skip = build_conv(b, skip, NAME("%s.skip_connection", name));
    h = build_group_norm(b, s->x, NAME("%s.in_layers.0", name), RES_EPS);
    h = build_conv(b, graph_activate(g, h, ACT_SILU), NAME("%s.in_layers.2", name));
    if (h < 0) {
        s->x = -1;
        return;
    }
    h = graph_add(g, h, take_time(s, channels_of(s, h)));
    h = build_group_norm(b, h, NAME("%s.out_layers.0", name), RES_EPS);
    h = graph_activate(g, h, ACT_SILU);
    h = build_conv(b, h, NAME("%s.out_layers.3", name));
    s->x = graph_add(g, skip, h);
}

static int heads_of(const struct step *s, int64_t channels)
{
    const struct unet_heads *heads = &s->unet->heads;

    if (heads->count)
        return heads->count;
    return channels < heads->width ? 1 : (int)(channels / heads->width);
}

/* softmax(q k) v over the picture's own tokens */
static int self_attention(struct step *s, int x, const char *name)
{
    struct name q = name_format("%s.to_q", name), k = name_format("%s.to_k", name);
    struct name v = name_format("%s.to_v", name);
    const char *const names[] = {q.text, k.text, v.text};
    int qkv = build_linear_joined(s->build, x, names, 3, BUILD_NO_BIAS);
    int64_t width = channels_of(s, qkv) / 3;
    struct attention_args args = {.heads = heads_of(s, width)};

    if (qkv < 0)
        return -1;
    return graph_attention(s->graph, graph_slice(s->graph, qkv, 0, width),
                           graph_slice(s->graph, qkv, width, width),
                           graph_slice(s->graph, qkv, 2 * width, width), name, &args);
}

/* softmax(q k) v over the prompt's tokens, whose k and v come in ready */
static int cross_attention(struct step *s, int x, const char *name)
{
    int q, kv = s->contexts[s->contexts_used++];
    int64_t width = channels_of(s, kv) / 2;
    struct attention_args args = {.heads = heads_of(s, width)};

    q = graph_linear(s->graph, x, name, build_find(s->build, name, ".to_q.weight"),
                     NULL);
    return graph_attention(s->graph, q, graph_slice(s->graph, kv, 0, width),
                           graph_slice(s->graph, kv, width, width), name, &args);
}

static int transformer_block(struct step *s, int x, const char *name)
{
    struct build *b = s->build;
    struct graph *g = s->graph;
    int h;

    h = self_attention(s, build_layer_norm(b, x, NAME("%s.norm1", name)),
                       NAME("%s.attn1", name));
    x = graph_add(g, x, build_linear(b, h, NAME("%s.attn1.to_out.0", name)));
    h = cross_attention(s, build_layer_norm(b, x, NAME("%s.norm2", name)),
                        NAME("%s.attn2", name));
    x = graph_add(g, x, build_linear(b, h, NAME("%s.attn2.to_out.0", name)));
    h = build_linear(b, build_layer_norm(b, x, NAME("%s.norm3", name)),
                     NAME("%s.ff.net.0.proj", name));
    h = build_linear(b, graph_geglu(g, h), NAME("%s.ff.net.2", name));
    return graph_add(g, x, h);
}

static void add_transformer(struct step *s, const char *name)
{
    struct build *b = s->build;
    struct shape picture;
    int h;

    if (s->x < 0)
        return;
    picture = *graph_shape(s->graph, s->x);
    h = build_group_norm(b, s->x, NAME("%s.norm", name), TRANSFORMER_EPS);
    h = build_conv(b, h, NAME("%s.proj_in", name));
    if (h < 0) {
        s->x = -1;
        return;
    }
    picture.dim[3] = channels_of(s, h);
    h = graph_reshape(
        s->graph, h,
        shape3(picture.dim[0], picture.dim[1] * picture.dim[2], picture.dim[3]));
    for (int depth = 0; h >= 0; depth++) {
        struct name block = name_format("%s.transformer_blocks.%d", name, depth);

        if (!build_has(b, block.text, ".norm1.weight"))
            break;
        h = transformer_block(s, h, block.text);
    }
    h = graph_reshape(s->graph, h, picture);
    s->x = graph_add(s->graph, s->x, build_conv(b, h, NAME("%s.proj_out", name)));
}

/* To the size of the skip that will be joined next: an odd size was halved rounding up.
 */
static void add_up(struct step *s, const char *name)
{
    const struct shape *target;
    int h;

    if (s->x < 0)
        return;
    if (s->kept_count == 0) {
        graph_fail(s->graph, "%s: there is no skip to grow to", name);
        s->x = -1;
        return;
    }
    target = graph_shape(s->graph, s->kept[s->kept_count - 1]);
    if ((target->dim[1] + 1) / 2 != graph_shape(s->graph, s->x)->dim[1] ||
        (target->dim[2] + 1) / 2 != graph_shape(s->graph, s->x)->dim[2]) {
        graph_fail(s->graph, "%s does not lead to the size of the skip it meets", name);
        s->x = -1;
        return;
    }
    h = graph_upsample2x(s->graph, s->x, target->dim[1], target->dim[2]);
    s->x = build_conv(s->build, h, NAME("%s.conv", name));
}

static void add_layer(struct step *s, const struct layer *layer)
{
    switch (layer->kind) {
    case LAYER_CONV:
        s->x = build_conv(s->build, s->x, layer->name.text);
        break;
    case LAYER_RES:
        add_res(s, layer->name.text);
        break;
    case LAYER_TRANSFORMER:
        add_transformer(s, layer->name.text);
        break;
    case LAYER_DOWN:
        s->x = build_conv_stride2(s->build, s->x, NAME("%s.op", layer->name.text));
        break;
    case LAYER_UP:
        add_up(s, layer->name.text);
        break;
    case LAYER_KEEP:
        s->kept[s->kept_count++] = s->x;
        break;
    case LAYER_JOIN:
        s->x = graph_concat(s->graph, s->x, s->kept[--s->kept_count]);
        break;
    }
}

/* times [1, C] for every row of label [N, C] */
static int add_label(struct graph *g, int times, int label)
{
    struct shape rows = *graph_shape(g, label);

    label = graph_reshape(g, label, shape3(rows.dim[0], 1, rows.dim[1]));
    return graph_reshape(g, graph_add(g, label, times), rows);
}

/* t -> sinusoids (-> plus a linear of guide) -> two linears (-> plus label) -> silu -> the projections of all
 * residual blocks as one product */
static int build_times(const struct unet *u, struct build *b, int t, int label,
                       int guide)
{
    struct name *names = mem_alloc((size_t)u->layer_count * sizeof(*names));
    const char **list = mem_alloc((size_t)u->layer_count * sizeof(*list));
    int count = 0, x;

    for (int i = 0; i < u->layer_count; i++) {
        if (u->layers[i].kind != LAYER_RES)
            continue;
        names[count] = name_format("%s.emb_layers.1", u->layers[i].name.text);
        list[count] = names[count].text;
        count++;
    }
    x = graph_timestep(b->graph, t, u->time_channels);
    if (guide >= 0) {
        guide =
            graph_linear(b->graph, guide, PREFIX "time_embed.cond_proj",
                         build_find(b, PREFIX "time_embed.cond_proj", ".weight"), NULL);
        x = graph_add(b->graph, x, guide);
    }
    x = build_linear(b, x, PREFIX "time_embed.0");
    x = build_linear(b, graph_activate(b->graph, x, ACT_SILU), PREFIX "time_embed.2");
    if (label >= 0)
        x = add_label(b->graph, x, label);
    x = graph_activate(b->graph, x, ACT_SILU);
    if (count)
        x = build_linear_joined(b, x, list, count, BUILD_BIAS);
    free(names);
    free(list);
    return x;
}

void unet_build_step(const struct unet *unet, struct build *b,
                     const struct unet_size *size)
{
    struct step s = {.unet = unet, .build = b, .graph = b->graph};
    int t, label = -1, guide = -1;

    s.contexts = mem_alloc((size_t)(unet->cross_count + 1) * sizeof(*s.contexts));
    s.kept = mem_alloc((size_t)(unet->layer_count + 1) * sizeof(*s.kept));
    s.x =
        graph_input(b->graph, "latent", TENSOR_F32,
                    shape4(size->batch, size->high, size->wide, unet->latent_channels));
    t = graph_input(b->graph, "t", TENSOR_F32, shape1(1));
    for (int i = 0; i < unet->cross_count; i++)
        s.contexts[i] =
            graph_input(b->graph, unet->crosses[i].name.text, TENSOR_ACT,
                        shape3(size->batch, size->tokens, unet->crosses[i].channels));
    if (unet->label_width)
        label = graph_input(b->graph, "label", TENSOR_F32,
                            shape2(size->batch, unet->label_channels));
    if (unet->guide_width)
        guide =
            graph_input(b->graph, "guide", TENSOR_F32, shape2(1, unet->guide_width));
    s.times = build_times(unet, b, t, label, guide);
    for (int i = 0; i < unet->layer_count; i++)
        add_layer(&s, &unet->layers[i]);
    s.x = build_group_norm(b, s.x, PREFIX "out.0", RES_EPS);
    s.x = build_conv(b, graph_activate(b->graph, s.x, ACT_SILU), PREFIX "out.2");
    graph_output(b->graph, "prediction", TENSOR_F32, s.x);
    free(s.contexts);
    free(s.kept);
}
