#include "engine/text/clip.h"

#include "base/mem.h"

#include <stdlib.h>
#include <string.h>

struct clip_naming {
    const char *prefix;
    bool is_openclip;
    const char *tokens, *positions, *layers;
    const char *norm1, *attention, *norm2, *mlp1, *mlp2; /* within a layer */
    const char *last_norm;
    const char *projection; /* after the kind's prefix */
};

#define HUGGING_FACE                                                                   \
    .tokens = "embeddings.token_embedding.weight",                                     \
    .positions = "embeddings.position_embedding.weight", .layers = "encoder.layers",   \
    .norm1 = "layer_norm1", .attention = "self_attn", .norm2 = "layer_norm2",          \
    .mlp1 = "mlp.fc1", .mlp2 = "mlp.fc2", .last_norm = "final_layer_norm",             \
    .projection = "transformer.text_projection.weight"

static const struct clip_naming namings[] = {
    {.prefix = "transformer.text_model.", HUGGING_FACE},
    {.prefix = "transformer.", HUGGING_FACE}, /* files of 2022 */
    {.prefix = "model.",
     .is_openclip = true,
     .tokens = "token_embedding.weight",
     .positions = "positional_embedding",
     .layers = "transformer.resblocks",
     .norm1 = "ln_1",
     .attention = "attn",
     .norm2 = "ln_2",
     .mlp1 = "mlp.c_fc",
     .mlp2 = "mlp.c_proj",
     .last_norm = "ln_final",
     .projection = "model.text_projection"},
};

static const struct clip_naming *find_naming(const struct weights_file *file,
                                             const char *prefix)
{
    for (size_t i = 0; i < sizeof(namings) / sizeof(*namings); i++)
        if (weights_file_find(
                file, NAME("%s%s%s", prefix, namings[i].prefix, namings[i].tokens)))
            return &namings[i];
    return NULL;
}

const struct weight *clip_find(const struct weights_file *file, const char *prefix,
                               bool *ret_is_openclip)
{
    const struct clip_naming *naming = find_naming(file, prefix);

    if (!naming)
        return NULL;
    *ret_is_openclip = naming->is_openclip;
    return weights_file_find(file,
                             NAME("%s%s%s", prefix, naming->prefix, naming->tokens));
}

/* diffusers leaves OpenCLIP H's 24th layer out of its files, because no family uses it. */
static int skipped_of(const struct clip *clip)
{
    return !clip->naming->is_openclip && clip->layers == 23 ? 0 : clip->kind->skipped;
}

/* OpenCLIP's is [width, summary], a parameter that states are multiplied with; Hugging Face's the matrix of a linear layer,
 * [summary, width]. */
static int open_projection(struct clip *clip, const struct weights_file *file,
                           struct err *err)
{
    struct name name =
        name_format("%s%s", clip->kind->prefix, clip->naming->projection);
    const struct weight *w = weights_file_find(file, name.text);
    int in = clip->naming->is_openclip ? 0 : 1;

    if (!w)
        return err_set(err, ERR_BAD_FILE, "tensor %s is missing", name.text);
    if (w->rank != 2 || w->dim[in] != clip->width || w->dim[1 - in] < 1 ||
        w->type == WEIGHT_OTHER)
        return err_set(err, ERR_BAD_FILE,
                       "tensor %s does not fit a text encoder of %lld channels",
                       name.text, (long long)clip->width);
    clip->projection = w;
    clip->summary_width = w->dim[1 - in];
    return 0;
}

int clip_open(struct clip *ret_clip, const struct weights_file *file,
              const struct clip_kind *kind, int heads, struct err *err)
{
    struct clip clip = {.kind = kind, .naming = find_naming(file, kind->prefix)};
    const struct weight *table, *positions;

    if (!clip.naming)
        return err_set(err, ERR_BAD_FILE,
                       "has no text encoder (tensor %s%s%s is missing)", kind->prefix,
                       namings[0].prefix, namings[0].tokens);
    clip.prefix = name_format("%s%s", kind->prefix, clip.naming->prefix);
    table =
        weights_file_find(file, NAME("%s%s", clip.prefix.text, clip.naming->tokens));
    positions =
        weights_file_find(file, NAME("%s%s", clip.prefix.text, clip.naming->positions));
    if (!positions)
        return err_set(err, ERR_BAD_FILE, "tensor %s%s is missing", clip.prefix.text,
                       clip.naming->positions);
    if (table->rank != 2 || positions->rank != 2 || positions->dim[0] < 1 ||
        positions->dim[0] > 4096)
        return err_set(err, ERR_BAD_FILE, "tensors %s and %s are no tables",
                       table->name, positions->name);
    clip.vocabulary = table->dim[0];
    clip.width = table->dim[1];
    clip.positions = positions->dim[0];
    clip.heads = heads > 0 ? heads : clip.width >= 64 ? (int)(clip.width / 64) : 1;
    while (weights_file_find(file, NAME("%s%d.%s.weight", clip_layers(&clip).text,
                                        clip.layers, clip.naming->norm1)))
        clip.layers++;
    clip.skipped = skipped_of(&clip);
    if (clip.layers <= clip.skipped)
        return err_set(err, ERR_BAD_FILE, "tensor %s%d.%s.weight is missing",
                       clip_layers(&clip).text, clip.layers, clip.naming->norm1);
    if (kind->is_pooled && open_projection(&clip, file, err))
        return -1;
    *ret_clip = clip;
    return 0;
}

struct name clip_layers(const struct clip *clip)
{
    return name_format("%s%s.", clip->prefix.text, clip->naming->layers);
}

/* Queries, keys and values side by side. */
static int project(const struct clip *clip, struct build *b, int x, const char *name)
{
    struct name q = name_format("%s.q_proj", name), k = name_format("%s.k_proj", name);
    struct name v = name_format("%s.v_proj", name);
    const char *const names[] = {q.text, k.text, v.text};
    const struct weight *joined = build_find(b, name, ".in_proj_weight");

    if (!clip->naming->is_openclip)
        return build_linear_joined(b, x, names, 3, BUILD_BIAS);
    if (!joined)
        return graph_fail(b->graph, "tensor %s.in_proj_weight is missing", name);
    return graph_linear(b->graph, x, name, joined,
                        build_find(b, name, ".in_proj_bias"));
}

/* x + out(attention(q, k, v of norm(x))), then x + mlp2(activation(mlp1(norm(x)))) */
static int layer(const struct clip *clip, struct build *b, int x, const char *name)
{
    struct attention_args args = {.heads = clip->heads, .is_causal = true};
    const struct clip_naming *n = clip->naming;
    struct name attention = name_format("%s.%s", name, n->attention);
    struct graph *g = b->graph;
    int64_t width = clip->width;
    int h, qkv;

    h = build_layer_norm(b, x, NAME("%s.%s", name, n->norm1));
    qkv = project(clip, b, h, attention.text);
    h = graph_attention(g, graph_slice(g, qkv, 0, width),
                        graph_slice(g, qkv, width, width),
                        graph_slice(g, qkv, 2 * width, width), attention.text, &args);
    x = graph_add(g, x, build_linear(b, h, NAME("%s.out_proj", attention.text)));
    h = build_layer_norm(b, x, NAME("%s.%s", name, n->norm2));
    h = graph_activate(g, build_linear(b, h, NAME("%s.%s", name, n->mlp1)),
                       clip->kind->activation);
    return graph_add(g, x, build_linear(b, h, NAME("%s.%s", name, n->mlp2)));
}

int clip_build(const struct clip *clip, struct build *b, int ids, int skipped,
               int *ret_states)
{
    const struct clip_naming *n = clip->naming;
    const char *prefix = clip->prefix.text;
    struct name last_norm = name_format("%s%s", prefix, n->last_norm);
    int x = graph_embedding(b->graph, ids, NAME("%s%s", prefix, n->tokens),
                            build_find(b, prefix, n->tokens),
                            build_find(b, prefix, n->positions));
    int used = clip->layers - (skipped > clip->skipped ? skipped : clip->skipped);
    int hidden = x;

    for (int i = 0; i < (ret_states ? clip->layers : used); i++) {
        x = layer(clip, b, x, NAME("%s%d", clip_layers(clip).text, i));
        if (i < used)
            hidden = x;
    }
    if (ret_states) {
        *ret_states = build_layer_norm(b, x, last_norm.text);
        build_find(b, clip->projection->name, ""); /* read by clip_summarise */
    }
    return clip->kind->has_norm ? build_layer_norm(b, hidden, last_norm.text) : hidden;
}

/* A row at a time, in plain C: a million products once per text, against a copy of the matrix for the back end. */
void clip_summarise(const struct clip *clip, const float *state, float *ret)
{
    const struct weight *w = clip->projection;
    size_t rows = (size_t)w->dim[0], columns = (size_t)w->dim[1];
    float *row = mem_alloc(columns * sizeof(*row));

    memset(ret, 0, (size_t)clip->summary_width * sizeof(*ret));
    for (size_t r = 0; r < rows; r++) {
        weight_to_f32(w, r * columns, columns, row);
        for (size_t c = 0; c < columns; c++)
            if (clip->naming->is_openclip)
                ret[c] += state[r] * row[c];
            else
                ret[r] += state[c] * row[c];
    }
    free(row);
}
