/* What a file is said to be: its kind and family by shapes, what lacks, what is left over. */
#include "base/buf.h"
#include "base/file.h"
#include "base/mem.h"
#include "engine/engine.h"

#include "remove_tree.h"
#include "small_folder.h"
#include "small_model.h"
#include "small_taesd.h"
#include "small_upscaler.h"
#include "unit.h"

#include <jansson.h>
#include <unistd.h>

#define U "model.diffusion_model."
#define V "first_stage_model."

/* A tensor of zeros; dim ends with 0. */
struct entry {
    const char *name, *dtype;
    int dim[4];
};

static void append_entry(struct buf *header, size_t *at, const struct entry *e)
{
    size_t bytes = strcmp(e->dtype, "F16") == 0 ? 2 : strcmp(e->dtype, "I64") ? 4 : 8;

    buf_printf(header, ",\"%s\":{\"dtype\":\"%s\",\"shape\":[", e->name, e->dtype);
    for (int i = 0; i < 4 && e->dim[i]; i++) {
        buf_printf(header, "%s%d", i ? "," : "", e->dim[i]);
        bytes *= (size_t)e->dim[i];
    }
    buf_printf(header, "],\"data_offsets\":[%zu,%zu]}", *at, *at + bytes);
    *at += bytes;
}

/* entries end with a NULL name */
static char *write_file(const struct entry *entries, const char *metadata)
{
    char *path = mem_strdup("/tmp/mysti-inspect-XXXXXX");
    struct buf header = {0}, all = {0};
    size_t bytes = 0;
    uint64_t length;
    int fd = mkstemp(path);

    assert_true(fd >= 0);
    close(fd);
    buf_printf(&header, "{\"__metadata__\":{%s}", metadata ? metadata : "");
    for (; entries->name; entries++)
        append_entry(&header, &bytes, entries);
    buf_append_str(&header, "}");
    length = header.len;
    buf_append(&all, &length, sizeof(length));
    buf_append(&all, header.data, header.len);
    memset(buf_reserve(&all, bytes + 1), 0, bytes);
    all.len += bytes;
    assert_int_equal(file_write_atomic(path, all.data, all.len, 0600, NULL), 0);
    buf_release(&header);
    buf_release(&all);
    return path;
}

static json_t *inspect_path(const char *path)
{
    struct err err = {0};
    char *text;
    json_t *report;

    if (engine_inspect(&text, path, &err))
        fail_msg("%s", err.message);
    report = json_loads(text, 0, NULL);
    assert_non_null(report);
    free(text);
    return report;
}

/* Takes the path, and the file. */
static json_t *inspect_and_remove(char *path)
{
    json_t *report = inspect_path(path);

    unlink(path);
    free(path);
    return report;
}

static const char *text_at(const json_t *report, const char *key)
{
    const char *text = json_string_value(json_object_get(report, key));

    return text ? text : "";
}

static void expect_text(const json_t *report, const char *key, const char *part)
{
    if (!strstr(text_at(report, key), part))
        fail_msg("%s is '%s', not '%s'", key, text_at(report, key), part);
}

static void expect_list(const json_t *report, const char *key, int count,
                        const char *first)
{
    const json_t *list = json_object_get(report, key);
    const json_t *names = json_object_get(list, "first");

    assert_non_null(list);
    assert_int_equal(json_integer_value(json_object_get(list, "count")), count);
    if (first)
        assert_string_equal(json_string_value(json_array_get(names, 0)), first);
}

/* ---- whole models ---- */

static void a_model_that_draws(void **state)
{
    json_t *r = inspect_and_remove(small_model_write(&(struct small_model){0}));

    (void)state;
    expect_text(r, "kind", "checkpoint");
    expect_text(r, "format", "safetensors");
    assert_true(json_is_true(json_object_get(r, "draws")));
    assert_int_equal(json_array_size(json_object_get(r, "parts")), 4);
    assert_int_equal(json_array_size(json_object_get(r, "needs")), 0);
    expect_list(r, "missing", 0, NULL);
    expect_list(r, "left_over", 0, NULL);
    json_decref(r);
}

static void what_lacks_is_named(void **state)
{
    static const char gone[] = U "middle_block.0.out_layers.3.bias";
    struct small_model what = {.without = gone, .extra = "model_ema.decay"};
    json_t *r = inspect_and_remove(small_model_write(&what));

    (void)state;
    expect_list(r, "missing", 1, gone);
    expect_list(r, "left_over", 1, "model_ema.decay");
    assert_true(json_is_false(json_object_get(r, "draws")));
    expect_text(r, "trouble", gone);
    json_decref(r);

    what = (struct small_model){.without_prefix = U "input_blocks.1."};
    r = inspect_and_remove(small_model_write(&what));
    expect_list(r, "missing", 1, U "input_blocks.1.*");
    json_decref(r);

    what = (struct small_model){.without_prefix = "first_stage_model."};
    r = inspect_and_remove(small_model_write(&what));
    assert_string_equal(
        json_string_value(json_array_get(json_object_get(r, "needs"), 0)),
        "a VAE, named with each picture (\"vae\") or by --vae");
    assert_true(json_is_true(json_object_get(r, "draws"))); /* with that */
    json_decref(r);
}

static void other_formats(void **state)
{
    json_t *r = inspect_and_remove(
        small_model_write(&(struct small_model){.format = SMALL_MODEL_GGUF}));

    (void)state;
    expect_text(r, "format", "GGUF");
    expect_text(r, "kind", "checkpoint");
    assert_non_null(json_object_get(json_object_get(r, "types"), "Q8_0"));
    json_decref(r);
    r = inspect_and_remove(
        small_model_write(&(struct small_model){.format = SMALL_MODEL_TORCH}));
    expect_text(r, "format", "torch");
    expect_list(r, "missing", 0, NULL);
    json_decref(r);
}

static void expect_whole_folder(char *folder)
{
    char *text;
    struct err err = {0};
    json_t *r;

    if (engine_inspect(&text, folder, &err))
        fail_msg("%s", err.message);
    r = json_loads(text, 0, NULL);
    expect_text(r, "format", "diffusers folder");
    expect_text(r, "kind", "checkpoint");
    assert_true(json_is_true(json_object_get(r, "draws")));
    assert_true(json_integer_value(json_object_get(r, "bytes")) > 1000000);
    expect_list(r, "missing", 0, NULL);
    expect_list(r, "left_over", 0, NULL);
    json_decref(r);
    free(text);
    small_folder_remove(folder);
}

static void folders(void **state)
{
    (void)state;
    expect_whole_folder(small_folder_write());
    expect_whole_folder(small_folder_write_sdxl());
}

/* Blocks were left out, and the others keep their numbers. */
static void a_distilled_model(void **state)
{
    json_t *r = inspect_and_remove(
        small_model_write(&(struct small_model){.listing = SMALL_TINY_TENSORS}));

    (void)state;
    assert_true(json_is_true(json_object_get(r, "draws")));
    expect_list(r, "missing", 0, NULL);
    json_decref(r);
}

/* ---- families ---- */

static void families_by_their_shapes(void **state)
{
    static const struct {
        int channels, context;
        const char *family, *summary;
    } rows[] = {
        {4, 768, "SD 1.x", "distilled (1 of 16 cross-attentions)"},
        {9, 768, "SD 1.x", "for inpainting (9 input channels)"},
        {8, 768, "SD 1.x", "for editing by instruction"},
        {4, 1024, "SD 2.x", "SD 2.x"},
        {5, 1024, "SD 2.x", "guided by depth"},
        {4, 2048, "SDXL", "SDXL"},
        {4, 1280, "the SDXL refiner", "refiner"},
        {4, 96, "", "its text has 96 channels"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        for (int bare = 0; bare < 2; bare++) {
            const char *prefix = bare ? "" : U;
            char *first = mem_printf("%sinput_blocks.0.0.weight", prefix);
            char *k = mem_printf("%sinput_blocks.1.1.transformer_blocks.0.attn2.to_k."
                                 "weight",
                                 prefix);
            const struct entry entries[] = {{first, "F16", {8, rows[i].channels, 3, 3}},
                                            {k, "F16", {8, rows[i].context}},
                                            {0}};
            json_t *r = inspect_and_remove(write_file(entries, NULL));

            expect_text(r, "kind", "unet");
            assert_string_equal(text_at(r, "family"), rows[i].family);
            expect_text(r, "summary", rows[i].summary);
            assert_int_equal(json_integer_value(json_object_get(r, "input_channels")),
                             rows[i].channels);
            json_decref(r);
            free(first);
            free(k);
        }
}

#define KOHYA "lora_unet_input_blocks_4_1_transformer_blocks_0_attn2_to_k"

static void loras(void **state)
{
    static const struct entry kohya[] = {{KOHYA ".lora_down.weight", "F16", {4, 2048}},
                                         {KOHYA ".lora_up.weight", "F16", {640, 4}},
                                         {"bundle_emb.word.clip_l", "F16", {1, 768}},
                                         {"bundle_emb.word.clip_g", "F16", {1, 1280}},
                                         {"stranger.x", "F16", {1}},
                                         {"lora_te1_a.lora_down.weight", "F16", {4, 8}},
                                         {"lora_te1_a.lora_up.weight", "F16", {8, 4}},
                                         {0}};
    static const struct entry other[] = {{"a.hada_w1_a", "F32", {4, 2}}, {0}};
    json_t *r = inspect_and_remove(write_file(kohya, "\"ss_network_dim\":\"4\""));

    (void)state;
    expect_text(r, "kind", "lora");
    assert_string_equal(text_at(r, "family"), "SDXL");
    expect_text(r, "summary", "a LoRA for SDXL, changes 2 weights, rank 4, the text");
    expect_text(r, "summary", "; it brings the textual inversion word");
    expect_list(r, "left_over", 1, "stranger.x");
    assert_string_equal(text_at(json_object_get(r, "metadata"), "ss_network_dim"), "4");
    json_decref(r);
    r = inspect_and_remove(write_file(other, NULL));
    expect_text(r, "summary", "a LoHa for a model that it does not name");
    json_decref(r);
}

static void kinds_of_lora(void **state)
{
    static const struct {
        struct entry entries[3];
        const char *summary;
    } rows[] = {
        {{{KOHYA ".lora_down.weight", "F16", {4, 96}},
          {KOHYA ".lora_up.weight", "F16", {640, 4}}},
         "a LoRA for a model of no known family: it reads text of 96 channels"},
        {{{"a.a1.weight", "F32", {4, 2}}}, "a GLoRA for"},
        {{{"a.oft_blocks", "F32", {4, 2, 2}}}, "an OFT for"},
        {{{"a.weight", "F32", {4}}, {"a.on_input", "I64", {0}}}, "an IA3 for"},
        {{{"a.to_q.oft_R.weight", "F32", {4}}},
         "OFT as PEFT writes it (of inputs), which Mysti does not support"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        json_t *r = inspect_and_remove(write_file(rows[i].entries, NULL));

        expect_text(r, "summary", rows[i].summary);
        json_decref(r);
    }
}

static void small_and_foreign_files(void **state)
{
    static const struct {
        struct entry entry;
        const char *kind, *summary;
    } rows[] = {
        {{"emb_params", "F32", {3, 768}},
         "textual_inversion",
         "for SD 1.x, 3 vectors of 768"},
        {{"clip_g", "F32", {2, 1280}}, "textual_inversion", "for SDXL, 2 vectors"},
        {{"<cat-toy>", "F32", {1024}}, "textual_inversion", "SD 2.x, 1 vector of 1024"},
        {{"decoder.conv_in.weight", "F32", {8, 16, 3, 3}},
         "vae",
         "a VAE alone, for latents of 16 channels"},
        {{V "decoder.conv_in.weight", "F32", {8, 4, 3, 3}}, "vae", "of 4 channels"},
        {{"text_model.encoder.layers.0.mlp.fc1.weight", "F32", {8, 8}},
         "text_encoder",
         "alone"},
        {{U "double_blocks.0.x.weight", "F32", {8, 8}}, "checkpoint", "Flux"},
        {{"down_blocks.0.resnets.0.x.weight", "F32", {8, 8}}, "unet", "diffusers"},
        {{"decoder.layers.0.weight", "F32", {8, 8}}, "unknown", "nothing"},
        {{"counter", "I64", {2}}, "unknown", "nothing"},
        {{"layers.0.residual_group.blocks.0.a", "F32", {2}},
         "unknown",
         "a SwinIR network, which Mysti does not support"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        const struct entry entries[] = {rows[i].entry, {0}};
        json_t *r = inspect_and_remove(write_file(entries, NULL));

        expect_text(r, "kind", rows[i].kind);
        expect_text(r, "summary", rows[i].summary);
        json_decref(r);
    }
}

static json_t *inspect_taesd(const char *folder, const char *name,
                             const struct small_taesd *how)
{
    char *path = file_join(folder, name);
    json_t *r;

    small_taesd_write(folder, name, how);
    r = inspect_path(path);
    expect_text(r, "kind", "vae");
    free(path);
    return r;
}

static const char *need_at(const json_t *r, size_t index)
{
    return json_string_value(json_array_get(json_object_get(r, "needs"), index));
}

static void tiny_autoencoders(void **state)
{
    static const enum taesd_naming namings[] = {TAESD_DIFFUSERS, TAESD_COMFY};
    char folder[] = "/tmp/mysti-inspect-XXXXXX";
    char *config;
    json_t *r;

    (void)state;
    assert_non_null(mkdtemp(folder));
    for (int i = 0; i < 2; i++) {
        r = inspect_taesd(folder, "taesdxl.safetensors",
                          &(struct small_taesd){.naming = namings[i]});
        expect_text(r, "summary",
                    "a TAESD, the tiny VAE, both halves, for latents of 4");
        assert_null(json_object_get(r, "draws"));
        assert_non_null(strstr(need_at(r, 0), "no tensor tells (its name says SDXL)"));
        json_decref(r);
    }
    r = inspect_taesd(folder, "taesd_decoder.pth",
                      &(struct small_taesd){TAESD_ORIGINAL, .only = "decoder"});
    expect_text(r, "summary", "its decoder alone");
    assert_non_null(strstr(need_at(r, 0), "its encoder, for pictures that start"));
    assert_null(strstr(need_at(r, 1), "its name"));
    json_decref(r);
    r = inspect_taesd(folder, "taesd_encoder.pth",
                      &(struct small_taesd){TAESD_ORIGINAL, .only = "encoder"});
    expect_text(r, "summary", "its encoder alone");
    assert_non_null(strstr(need_at(r, 0), "its decoder beside it"));
    json_decref(r);
    r = inspect_taesd(folder, "torn.safetensors",
                      &(struct small_taesd){.without = "decoder.layers.3.conv.2.bias"});
    assert_true(json_is_false(json_object_get(r, "draws")));
    expect_text(r, "trouble", "decoder.layers.3.conv.2.bias is missing");
    json_decref(r);
    /* a folder of one network is what is in it */
    small_taesd_write(folder, "diffusion_pytorch_model.safetensors",
                      &(struct small_taesd){0});
    config = file_join(folder, "config.json");
    assert_int_equal(file_write_atomic(config, "{}", 2, 0600, NULL), 0);
    r = inspect_path(folder);
    expect_text(r, "summary", "a TAESD");
    json_decref(r);
    free(config);
    remove_tree(folder);
}

static void upscalers(void **state)
{
    json_t *r = inspect_and_remove(small_upscaler_write(
        &(struct small_upscaler){.names = NAMES_NUMBERED, .blocks = 2, .is_torch = 1}));

    (void)state;
    expect_text(r, "kind", "upscaler");
    expect_text(r, "summary", "of the ESRGAN family, 4 times, 2 blocks");
    json_decref(r);
    r = inspect_and_remove(small_upscaler_write(
        &(struct small_upscaler){.names = NAMES_COMPACT, .blocks = 2, .is_torch = 1}));
    expect_text(r, "kind", "upscaler");
    expect_text(r, "summary", "of Real-ESRGAN's compact kind, 4 times, 2 blocks");
    json_decref(r);
    r = inspect_and_remove(small_upscaler_write(
        &(struct small_upscaler){.shuffle = 2, .without = "conv_hr.bias"}));
    expect_text(r, "summary", "2 times, 1 block");
    assert_string_equal(
        json_string_value(json_array_get(json_object_get(r, "needs"), 0)),
        "tensor conv_hr.bias is missing");
    json_decref(r);
}

static void types_that_are_not_read_are_named(void **state)
{
    static const struct entry entries[] = {{"a", "F16", {2}},
                                           {"b", "I64", {2}},
                                           {"c", "F8_E4M3", {2}},
                                           {"d", "no \\u00e4", {2}},
                                           {0}};
    json_t *r = inspect_and_remove(write_file(entries, NULL));
    const json_t *types = json_object_get(r, "types");

    (void)state;
    assert_int_equal(json_object_size(types), 4);
    assert_true(
        json_is_true(json_object_get(json_object_get(types, "F16"), "is_read")));
    assert_true(
        json_is_false(json_object_get(json_object_get(types, "I64"), "is_read")));
    assert_non_null(json_object_get(types, "F8_E4M3"));
    assert_non_null(json_object_get(types, "other"));
    assert_int_equal(json_integer_value(json_object_get(r, "parameters")), 2);
    json_decref(r);
}

static void what_is_no_model_is_refused(void **state)
{
    struct err err = {0};
    char *text;

    (void)state;
    assert_int_equal(engine_inspect(&text, "/dev/null", &err), -1);
    assert_int_equal(err.code, ERR_BAD_FILE);
    assert_int_equal(engine_inspect(&text, "/tmp/mysti/nothing", &err), -1);
    assert_int_equal(err.code, ERR_NOT_FOUND);
    assert_int_equal(engine_inspect(&text, "/tmp/\xff", &err), -1);
    assert_int_equal(err.code, ERR_INVALID);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_model_that_draws),
        cmocka_unit_test(what_lacks_is_named),
        cmocka_unit_test(other_formats),
        cmocka_unit_test(folders),
        cmocka_unit_test(a_distilled_model),
        cmocka_unit_test(families_by_their_shapes),
        cmocka_unit_test(loras),
        cmocka_unit_test(kinds_of_lora),
        cmocka_unit_test(small_and_foreign_files),
        cmocka_unit_test(tiny_autoencoders),
        cmocka_unit_test(upscalers),
        cmocka_unit_test(types_that_are_not_read_are_named),
        cmocka_unit_test(what_is_no_model_is_refused),
    };

    return RUN_TESTS(tests);
}
