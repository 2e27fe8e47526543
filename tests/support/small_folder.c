#include "small_folder.h"

#include "base/buf.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/str.h"
#include "engine/files/weights.h"

#include "remove_tree.h"
#include "small_model.h"
#include "torch_file.h"
#include "unit.h"

#include <unistd.h>

#define UNET "model.diffusion_model."
#define VAE "first_stage_model."
#define TEXT "cond_stage_model.transformer."
#define FIRST "conditioner.embedders.0.transformer."
#define SECOND "conditioner.embedders.1.model."

/* Written down by hand for these models, and not computed as the reader does it. */
static const char *const blocks[][2] = {
    {"label_emb.0.0.", "add_embedding.linear_1."},
    {"label_emb.0.2.", "add_embedding.linear_2."},
    {"input_blocks.7.1.", "down_blocks.2.attentions.0."},
    {"input_blocks.8.1.", "down_blocks.2.attentions.1."},
    {"output_blocks.0.1.", "up_blocks.0.attentions.0."},
    {"output_blocks.1.1.", "up_blocks.0.attentions.1."},
    {"output_blocks.2.1.conv.", "up_blocks.0.upsamplers.0.conv."},
    {"output_blocks.2.1.", "up_blocks.0.attentions.2."},
    {"output_blocks.2.2.conv.", "up_blocks.0.upsamplers.0.conv."},
    {"time_embed.0.", "time_embedding.linear_1."},
    {"time_embed.2.", "time_embedding.linear_2."},
    {"out.0.", "conv_norm_out."},
    {"out.2.", "conv_out."},
    {"input_blocks.0.0.", "conv_in."},
    {"input_blocks.1.0.", "down_blocks.0.resnets.0."},
    {"input_blocks.1.1.", "down_blocks.0.attentions.0."},
    {"input_blocks.2.0.", "down_blocks.0.resnets.1."},
    {"input_blocks.2.1.", "down_blocks.0.attentions.1."},
    {"input_blocks.3.0.op.", "down_blocks.0.downsamplers.0.conv."},
    {"input_blocks.4.0.", "down_blocks.1.resnets.0."},
    {"input_blocks.4.1.", "down_blocks.1.attentions.0."},
    {"input_blocks.5.0.", "down_blocks.1.resnets.1."},
    {"input_blocks.5.1.", "down_blocks.1.attentions.1."},
    {"input_blocks.6.0.op.", "down_blocks.1.downsamplers.0.conv."},
    {"input_blocks.7.0.", "down_blocks.2.resnets.0."},
    {"input_blocks.8.0.", "down_blocks.2.resnets.1."},
    {"middle_block.0.", "mid_block.resnets.0."},
    {"middle_block.1.", "mid_block.attentions.0."},
    {"middle_block.2.", "mid_block.resnets.1."},
    {"output_blocks.0.0.", "up_blocks.0.resnets.0."},
    {"output_blocks.1.0.", "up_blocks.0.resnets.1."},
    {"output_blocks.2.0.", "up_blocks.0.resnets.2."},
    {"output_blocks.3.0.", "up_blocks.1.resnets.0."},
    {"output_blocks.3.1.", "up_blocks.1.attentions.0."},
    {"output_blocks.4.0.", "up_blocks.1.resnets.1."},
    {"output_blocks.4.1.", "up_blocks.1.attentions.1."},
    {"output_blocks.5.0.", "up_blocks.1.resnets.2."},
    {"output_blocks.5.1.", "up_blocks.1.attentions.2."},
    {"output_blocks.5.2.conv.", "up_blocks.1.upsamplers.0.conv."},
    {"output_blocks.6.0.", "up_blocks.2.resnets.0."},
    {"output_blocks.6.1.", "up_blocks.2.attentions.0."},
    {"output_blocks.7.0.", "up_blocks.2.resnets.1."},
    {"output_blocks.7.1.", "up_blocks.2.attentions.1."},
    {"output_blocks.8.0.", "up_blocks.2.resnets.2."},
    {"output_blocks.8.1.", "up_blocks.2.attentions.2."},
};
static const char *const openclip[][2] = {
    {"ln_1.", "layer_norm1."},
    {"ln_2.", "layer_norm2."},
    {"mlp.c_fc.", "mlp.fc1."},
    {"mlp.c_proj.", "mlp.fc2."},
    {"attn.out_proj.", "self_attn.out_proj."},
};
static const char *const openclip_once[][2] = {
    {"positional_embedding", "text_model.embeddings.position_embedding.weight"},
    {"token_embedding.", "text_model.embeddings.token_embedding."},
    {"ln_final.", "text_model.final_layer_norm."},
};
static const char *const resnet[][2] = {
    {"in_layers.0.", "norm1."},          {"in_layers.2.", "conv1."},
    {"emb_layers.1.", "time_emb_proj."}, {"out_layers.0.", "norm2."},
    {"out_layers.3.", "conv2."},         {"skip_connection.", "conv_shortcut."},
};
static const char *const vae[][2] = {
    {"encoder.mid.block_1.", "encoder.mid_block.resnets.0."},
    {"encoder.mid.attn_1.", "encoder.mid_block.attentions.0."},
    {"encoder.mid.block_2.", "encoder.mid_block.resnets.1."},
    {"decoder.mid.block_1.", "decoder.mid_block.resnets.0."},
    {"decoder.mid.attn_1.", "decoder.mid_block.attentions.0."},
    {"decoder.mid.block_2.", "decoder.mid_block.resnets.1."},
    {"encoder.norm_out.", "encoder.conv_norm_out."},
    {"decoder.norm_out.", "decoder.conv_norm_out."},
};
static const char *const vae_words[][2] = {
    {"nin_shortcut.", "conv_shortcut."},
    {"norm.", "group_norm."},
    {"q.", "to_q."},
    {"k.", "to_k."},
    {"v.", "to_v."},
    {"proj_out.", "to_out.0."},
};

/* The first of words[count] that begins *name is appended in its other form. */
static bool translate(const char **name, const char *const (*words)[2], size_t count,
                      struct buf *ret)
{
    for (size_t i = 0; i < count; i++)
        if (str_has_prefix(*name, words[i][0])) {
            buf_append_str(ret, words[i][1]);
            *name += strlen(words[i][0]);
            return true;
        }
    return false;
}

#define TRANSLATE(name, words, ret)                                                    \
    translate(name, words, sizeof(words) / sizeof((words)[0]), ret)

static void unet_name(const char *name, struct buf *ret)
{
    assert_true(TRANSLATE(&name, blocks, ret));
    if (strstr(buf_str(ret), "resnets"))
        assert_true(TRANSLATE(&name, resnet, ret));
    buf_append_str(ret, name);
}

static void vae_name(const char *name, struct buf *ret)
{
    int level, block, used = 0;

    if (sscanf(name, "encoder.down.%d.block.%d.%n", &level, &block, &used) == 2 && used)
        buf_printf(ret, "encoder.down_blocks.%d.resnets.%d.", level, block);
    else if (sscanf(name, "encoder.down.%d.downsample.%n", &level, &used) == 1 && used)
        buf_printf(ret, "encoder.down_blocks.%d.downsamplers.0.", level);
    else if (sscanf(name, "decoder.up.%d.block.%d.%n", &level, &block, &used) == 2 &&
             used)
        buf_printf(ret, "decoder.up_blocks.%d.resnets.%d.", 3 - level, block);
    else if (sscanf(name, "decoder.up.%d.upsample.%n", &level, &used) == 1 && used)
        buf_printf(ret, "decoder.up_blocks.%d.upsamplers.0.", 3 - level);
    name += used;
    if (used || TRANSLATE(&name, vae, ret))
        (void)TRANSLATE(&name, vae_words, ret);
    buf_append_str(ret, name);
}

/* ---- files ---- */

struct tensors {
    struct buf header, data;
    unsigned count;
};

static void add(struct tensors *t, const char *name, const struct weight *w)
{
    int rank = w->rank;

    if (rank == 4 && strstr(name, "attentions.") && str_has_prefix(name, "decoder."))
        rank = 2; /* as diffusers has the VAE's attention */
    buf_printf(&t->header, "%s\"%s\":{\"dtype\":\"F32\",\"shape\":[",
               t->header.len ? "," : "{", name);
    for (int i = 0; i < rank; i++)
        buf_printf(&t->header, "%s%lld", i ? "," : "", (long long)w->dim[i]);
    buf_printf(&t->header, "],\"data_offsets\":[%zu,%zu]}", t->data.len,
               t->data.len + w->bytes);
    buf_append(&t->data, w->data, w->bytes);
    t->count++;
}

static void put_file(const char *folder, const char *name, const void *data, size_t len)
{
    char *path = file_join(folder, name);
    struct err err = {0};

    if (file_write_atomic(path, data, len, 0600, &err))
        fail_msg("%s", err.message);
    free(path);
}

void small_folder_put(const char *folder, const char *name, const char *text)
{
    put_file(folder, name, text, strlen(text));
}

static void write_tensors(const char *folder, const char *name, struct tensors *t)
{
    struct buf all = {0};
    uint64_t length;

    buf_append_str(&t->header, "}");
    length = t->header.len;
    buf_append(&all, &length, sizeof(length));
    buf_append(&all, t->header.data, t->header.len);
    buf_append(&all, t->data.data, t->data.len);
    put_file(folder, name, all.data, all.len);
    buf_release(&all);
    buf_release(&t->header);
    buf_release(&t->data);
}

static void write_unet(const char *folder, const struct weights_file *file)
{
    static const char *const names[] = {SMALL_FOLDER_SHARD_1, SMALL_FOLDER_SHARD_2};
    struct tensors shards[2] = {0};
    struct buf index = {0};

    buf_append_str(&index, "{\"metadata\":{\"total_size\":1},\"weight_map\":{");
    for (size_t i = 0; i < weights_file_count(file); i++) {
        const struct weight *w = weights_file_at(file, i);
        struct buf name = {0};

        if (str_has_prefix(w->name, UNET)) {
            unet_name(w->name + strlen(UNET), &name);
            buf_printf(&index, "%s\"%s\":\"%s\"",
                       shards[0].count + shards[1].count ? "," : "", buf_str(&name),
                       names[i % 2]);
            add(&shards[i % 2], buf_str(&name), w);
        }
        buf_release(&name);
    }
    buf_append_str(&index, "}}");
    put_file(folder, SMALL_FOLDER_INDEX, index.data, index.len);
    write_tensors(folder, "unet/" SMALL_FOLDER_SHARD_1, &shards[0]);
    write_tensors(folder, "unet/" SMALL_FOLDER_SHARD_2, &shards[1]);
    buf_release(&index);
}

static void write_vae(const char *folder, const struct weights_file *file)
{
    struct tensors all = {0};

    for (size_t i = 0; i < weights_file_count(file); i++) {
        const struct weight *w = weights_file_at(file, i);
        struct buf name = {0};

        if (str_has_prefix(w->name, VAE)) {
            vae_name(w->name + strlen(VAE), &name);
            add(&all, buf_str(&name), w);
        }
        buf_release(&name);
    }
    write_tensors(folder, "vae/diffusion_pytorch_model.safetensors", &all);
}

static void add_storage(struct buf *pickle, struct zip_writer *zip,
                        const struct weight *w, unsigned number)
{
    unsigned long size[4];
    char key[16], entry[40];
    struct torch_tensor described = {.storage = "FloatStorage",
                                     .key = key,
                                     .numbers = weight_count(w),
                                     .rank = w->rank,
                                     .size = size};

    for (int i = 0; i < 4; i++)
        size[i] = (unsigned long)w->dim[i];
    snprintf(key, sizeof(key), "%u", number);
    snprintf(entry, sizeof(entry), "archive/data/%u", number);
    put_pickle_text(pickle, w->name + strlen(TEXT));
    put_torch_tensor(pickle, &described);
    zip_writer_add(zip, entry, w->data, w->bytes);
}

static void write_text_encoder(const char *folder, const struct weights_file *file)
{
    struct zip_writer zip = {0};
    struct buf pickle = {0}, all;

    buf_append_str(&pickle, PICKLE_BEGIN PICKLE_DICT_BEGIN);
    for (size_t i = 0; i < weights_file_count(file); i++)
        if (str_has_prefix(weights_file_at(file, i)->name, TEXT))
            add_storage(&pickle, &zip, weights_file_at(file, i), (unsigned)i);
    buf_append_str(&pickle, "u.");
    zip_writer_add(&zip, "archive/data.pkl", pickle.data, pickle.len);
    all = zip_writer_end(&zip);
    put_file(folder, "text_encoder/pytorch_model.bin", all.data, all.len);
    buf_release(&all);
    buf_release(&pickle);
}

/* q, k and v are one matrix there. */
static void add_thirds(struct tensors *t, const char *layer, const struct weight *w)
{
    struct weight third = *w;

    third.dim[0] /= 3;
    third.bytes /= 3;
    for (int i = 0; i < 3; i++) {
        char *name = mem_printf("%sself_attn.%c_proj.%s", layer, "qkv"[i],
                                w -> rank == 2 ? "weight" : "bias");

        third.data = w->data + (size_t)i * third.bytes;
        add(t, name, &third);
        free(name);
    }
}

/* The other way round there. */
static void add_turned(struct tensors *t, const char *name, const struct weight *w)
{
    size_t high = (size_t)w->dim[0], wide = (size_t)w->dim[1];
    float *from = mem_alloc(w->bytes), *to = mem_alloc(w->bytes);
    struct weight turned = *w;

    weight_to_f32(w, 0, high * wide, from);
    for (size_t y = 0; y < high; y++)
        for (size_t x = 0; x < wide; x++)
            to[x * high + y] = from[y * wide + x];
    turned.dim[0] = w->dim[1];
    turned.dim[1] = w->dim[0];
    turned.data = (const unsigned char *)to;
    add(t, name, &turned);
    free(from);
    free(to);
}

static void add_openclip(struct tensors *t, const struct weight *w)
{
    const char *name = w->name + strlen(SECOND);
    struct buf theirs = {0};
    int layer, used = 0;

    if (strcmp(name, "logit_scale") == 0)
        return;
    if (strcmp(name, "text_projection") == 0) {
        add_turned(t, "text_projection.weight", w);
        return;
    }
    if (sscanf(name, "transformer.resblocks.%d.%n", &layer, &used) == 1 && used)
        buf_printf(&theirs, "text_model.encoder.layers.%d.", layer);
    name += used;
    if (str_has_prefix(name, "attn.in_proj_")) {
        add_thirds(t, buf_str(&theirs), w);
    } else {
        assert_true(used ? TRANSLATE(&name, openclip, &theirs)
                         : TRANSLATE(&name, openclip_once, &theirs));
        buf_append_str(&theirs, name);
        add(t, buf_str(&theirs), w);
    }
    buf_release(&theirs);
}

static void write_two_encoders(const char *folder, const struct weights_file *file)
{
    struct tensors first = {0}, second = {0};

    for (size_t i = 0; i < weights_file_count(file); i++) {
        const struct weight *w = weights_file_at(file, i);

        if (str_has_prefix(w->name, FIRST))
            add(&first, w->name + strlen(FIRST), w);
        else if (str_has_prefix(w->name, SECOND))
            add_openclip(&second, w);
    }
    write_tensors(folder, "text_encoder/model.safetensors", &first);
    write_tensors(folder, "text_encoder_2/model.safetensors", &second);
    small_folder_put(folder, "text_encoder/config.json", "{\"num_attention_heads\":1}");
    small_folder_put(folder, "unet/config.json", "{\"attention_head_dim\":[1,2,2]}");
}

static void write_one_encoder(const char *folder, const struct weights_file *file)
{
    write_text_encoder(folder, file);
    small_folder_put(folder, "unet/config.json", "{\"attention_head_dim\":4}");
    small_folder_put(folder, "text_encoder/config.json", "{\"num_attention_heads\":3}");
}

static char *write_folder(const struct small_model *what)
{
    static const char *const parts[] = {"unet", "vae", "text_encoder", "text_encoder_2",
                                        "scheduler"};
    char *folder = mem_strdup("/tmp/mysti-folder-XXXXXX");
    char *single = small_model_write(what);
    struct weights_file *file;
    struct err err = {0};

    assert_non_null(mkdtemp(folder));
    for (size_t i = 0; i < 5; i++) {
        char *part = file_join(folder, parts[i]);

        assert_int_equal(file_make_folder(part, 0700, NULL), 0);
        free(part);
    }
    if (weights_file_open(&file, single, &err))
        fail_msg("%s", err.message);
    write_unet(folder, file);
    write_vae(folder, file);
    if (what->listing)
        write_two_encoders(folder, file);
    else
        write_one_encoder(folder, file);
    weights_file_close(file);
    unlink(single);
    free(single);
    small_folder_put(folder, "model_index.json",
                     "{\"_class_name\":\"StableDiffusionPipeline\"}");
    small_folder_put(folder, "scheduler/scheduler_config.json",
                     "{\"prediction_type\":\"epsilon\"}");
    return folder;
}

char *small_folder_write(void)
{
    return write_folder(&(struct small_model){0});
}

char *small_folder_write_sdxl(void)
{
    return write_folder(&(struct small_model){.listing = SMALL_SDXL_TENSORS});
}

void small_folder_remove(char *path)
{
    remove_tree(path);
    free(path);
}
