#include "engine/text/clip.h"

int clip_open(struct clip *ret_clip, const struct weights_file *file, int heads,
              struct err *err)
{
    static const char *const prefixes[] = {
        "cond_stage_model.transformer.text_model.",
        "cond_stage_model.transformer.", /* files of 2022 */
    };
    struct clip clip = {0};
    const struct weight *table = NULL, *positions;

    for (size_t i = 0; i < sizeof(prefixes) / sizeof(*prefixes) && !table; i++) {
        clip.prefix = prefixes[i];
        table = weights_file_find(
            file, NAME("%sembeddings.token_embedding.weight", clip.prefix));
    }
    if (!table)
        return err_set(err, ERR_BAD_FILE,
                       "has no text encoder of the SD 1.x family (tensor "
                       "%sembeddings.token_embedding.weight is missing)",
                       prefixes[0]);
    positions = weights_file_find(
        file, NAME("%sembeddings.position_embedding.weight", clip.prefix));
    if (!positions)
        return err_set(err, ERR_BAD_FILE,
                       "tensor %sembeddings.position_embedding.weight is missing",
                       clip.prefix);
    if (table->rank != 2 || positions->rank != 2 || positions->dim[0] < 1 ||
        positions->dim[0] > 4096)
        return err_set(err, ERR_BAD_FILE, "tensors %s and %s are no tables",
                       table->name, positions->name);
    clip.vocabulary = table->dim[0];
    clip.width = table->dim[1];
    clip.positions = positions->dim[0];
    clip.heads = heads > 0 ? heads : clip.width >= 64 ? (int)(clip.width / 64) : 1;
    while (weights_file_find(
        file, NAME("%sencoder.layers.%d.layer_norm1.weight", clip.prefix, clip.layers)))
        clip.layers++;
    if (clip.layers == 0)
        return err_set(err, ERR_BAD_FILE,
                       "tensor %sencoder.layers.0.layer_norm1.weight is missing",
                       clip.prefix);
    *ret_clip = clip;
    return 0;
}

/* x + out(attention(q, k, v of norm(x))), then x + fc2(quick_gelu(fc1(norm(x)))) */
static int layer(const struct clip *clip, struct build *b, int x, const char *name)
{
    struct attention_args args = {.heads = clip->heads, .is_causal = true};
    struct name q = name_format("%s.self_attn.q_proj", name);
    struct name k = name_format("%s.self_attn.k_proj", name);
    struct name v = name_format("%s.self_attn.v_proj", name);
    const char *const names[] = {q.text, k.text, v.text};
    struct graph *g = b->graph;
    int64_t width = clip->width;
    int h, qkv;

    h = build_layer_norm(b, x, NAME("%s.layer_norm1", name));
    qkv = build_linear_joined(b, h, names, 3, BUILD_BIAS);
    h = graph_attention(
        g, graph_slice(g, qkv, 0, width), graph_slice(g, qkv, width, width),
        graph_slice(g, qkv, 2 * width, width), NAME("%s.self_attn", name), &args);
    x = graph_add(g, x, build_linear(b, h, NAME("%s.self_attn.out_proj", name)));
    h = build_layer_norm(b, x, NAME("%s.layer_norm2", name));
    h = graph_activate(g, build_linear(b, h, NAME("%s.mlp.fc1", name)), ACT_QUICK_GELU);
    return graph_add(g, x, build_linear(b, h, NAME("%s.mlp.fc2", name)));
}

int clip_build(const struct clip *clip, struct build *b, int ids, int skipped)
{
    const char *prefix = clip->prefix;
    int x =
        graph_embedding(b->graph, ids, NAME("%sembeddings", prefix),
                        build_find(b, prefix, "embeddings.token_embedding.weight"),
                        build_find(b, prefix, "embeddings.position_embedding.weight"));

    for (int i = 0; i < clip->layers - skipped; i++)
        x = layer(clip, b, x, NAME("%sencoder.layers.%d", prefix, i));
    return build_layer_norm(b, x, NAME("%sfinal_layer_norm", prefix));
}
