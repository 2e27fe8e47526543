/* Textual inversions: a file whose vectors are rows of the model's own token table draws what the words of these rows draw,
 * bit for bit, in every format, syntax and family; and what cannot be used is text or a sentence. */
#include "base/buf.h"
#include "base/file.h"
#include "base/mem.h"
#include "engine/engine.h"
#include "engine/files/weights.h"
#include "engine/text/tokenizer.h"

#include "made.h"
#include "remove_tree.h"
#include "small_engine.h"
#include "torch_file.h"
#include "unit.h"

#include <math.h>
#include <unistd.h>

static char folder[] = "/tmp/mysti-embeddings-XXXXXX";
static char loras[] = "/tmp/mysti-loras-XXXXXX";

/* ---- files ---- */

static void put_file(const char *name, const void *data, size_t len)
{
    char *path = file_join(folder, name);
    struct err err = {0};

    check(file_write_atomic(path, data, len, 0600, &err), &err);
    free(path);
}

struct vectors {
    const char *name; /* of the tensor */
    int rank, count, width;
    const float *values;
};

static void put_safetensors(const char *file, const struct vectors *v, int tensors)
{
    struct buf header = {0}, data = {0}, all = {0};
    uint64_t length;

    for (int i = 0; i < tensors; i++) {
        size_t bytes = (size_t)(v[i].count * v[i].width) * sizeof(float);

        buf_printf(&header, "%s\"%s\":{\"dtype\":\"F32\",\"shape\":[", i ? "," : "{",
                   v[i].name);
        if (v[i].rank == 2)
            buf_printf(&header, "%d,", v[i].count);
        buf_printf(&header, "%d],\"data_offsets\":[%zu,%zu]}", v[i].width, data.len,
                   data.len + bytes);
        buf_append(&data, v[i].values, bytes);
    }
    buf_append_str(&header, "}");
    length = header.len;
    buf_append(&all, &length, sizeof(length));
    buf_append(&all, header.data, header.len);
    buf_append(&all, data.data, data.len);
    put_file(file, all.data, all.len);
    buf_release(&header);
    buf_release(&data);
    buf_release(&all);
}

/* As A1111 trains them; or as the first trainers did, in a module whose parameters are among its attributes. */
static void put_torch(const char *file, const struct vectors *v, bool is_module)
{
    unsigned long size[2] = {(unsigned long)v->count, (unsigned long)v->width};
    struct torch_tensor described = {.storage = "FloatStorage",
                                     .key = "0",
                                     .numbers = size[0] * size[1],
                                     .rank = 2,
                                     .size = size};
    struct zip_writer zip = {0};
    struct buf pickle = {0}, all;

    buf_append_str(&pickle, PICKLE_BEGIN PICKLE_DICT_BEGIN);
    put_pickle_text(&pickle, "string_to_token");
    buf_append_str(&pickle, PICKLE_DICT_BEGIN);
    put_pickle_text(&pickle, "*");
    put_pickle_int(&pickle, 265);
    buf_append_str(&pickle, "u");
    put_pickle_text(&pickle, "string_to_param");
    if (is_module) {
        buf_append_str(
            &pickle,
            "ctorch.nn.modules.container\nParameterDict\n)\x81" PICKLE_DICT_BEGIN);
        put_pickle_text(&pickle, "training");
        buf_append_str(&pickle, "\x88");
        put_pickle_text(&pickle, "_parameters");
    }
    buf_append_str(&pickle, PICKLE_DICT_BEGIN);
    put_pickle_text(&pickle, "*");
    put_torch_tensor(&pickle, &described);
    buf_append_str(&pickle, is_module ? "uub" : "u");
    put_pickle_text(&pickle, "name");
    put_pickle_text(&pickle, "another name");
    buf_append_str(&pickle, "u.");
    zip_writer_add(&zip, "archive/data.pkl", pickle.data, pickle.len);
    zip_writer_add(&zip, "archive/data/0", v->values,
                   described.numbers * sizeof(float));
    all = zip_writer_end(&zip);
    put_file(file, all.data, all.len);
    buf_release(&pickle);
    buf_release(&all);
}

/* Rows of a token table, for these words, one token each; free() them. */
static float *rows_of(const struct small_model *what, const char *table,
                      const char *words, int *ret_width)
{
    char *path = small_model_write(what);
    struct weights_file *file;
    const struct weight *w;
    struct err err = {0};
    int32_t ids[8];
    size_t count;
    float *rows;

    check(weights_file_open(&file, path, &err), &err);
    w = weights_file_find(file, table);
    assert_non_null(w);
    check(tokenizer_ids(words, strlen(words), ids, 8, &count, &err), &err);
    *ret_width = (int)w->dim[1];
    rows = mem_alloc(count * (size_t)w->dim[1] * sizeof(*rows));
    for (size_t i = 0; i < count; i++)
        weight_to_f32(w, (size_t)ids[i] * (size_t)w->dim[1], (size_t)w->dim[1],
                      rows + i * (size_t)w->dim[1]);
    weights_file_close(file);
    unlink(path);
    free(path);
    return rows;
}

/* ---- drawing ---- */

static bool on_image(void *user, const struct engine_image *image, struct err *err)
{
    uint64_t *sum = user;

    (void)err;
    for (int i = 0; i < image->width * image->height * 3; i++)
        *sum = (*sum ^ image->rgb[i]) * 1099511628211U;
    return true;
}

static struct engine_job job_of(const char *prompt, const char *dialect)
{
    struct engine_job job;

    engine_job_defaults(model, &job);
    job.prompt = prompt;
    job.dialect = dialect;
    job.width = job.height = 32;
    job.steps = 2;
    job.seed = 5;
    return job;
}

static uint64_t draw_job(const struct engine_job *job)
{
    uint64_t sum = 14695981039346656037U;
    struct engine_events events = {.on_image = on_image, .user = &sum};
    struct err err = {0};

    check(engine_generate(model, job, &events, &err), &err);
    return sum;
}

static uint64_t draw(const char *prompt, const char *dialect)
{
    struct engine_job job = job_of(prompt, dialect);

    return draw_job(&job);
}

static void expect_same(const char *with, const char *without, const char *dialect)
{
    if (draw(with, dialect) != draw(without, dialect))
        fail_msg("'%s' does not draw what '%s' does", with, without);
}

static void refuse(const char *prompt, const char *dialect, enum err_code code,
                   const char *sentence)
{
    struct engine_job job = job_of(prompt, dialect);
    struct err err = {0};

    assert_int_equal(engine_job_check(model, &job, &err), -1);
    assert_int_equal(err.code, code);
    assert_string_equal(err.param, "prompt");
    if (!strstr(err.message, sentence))
        fail_msg("'%s' lacks '%s'", err.message, sentence);
}

/* ---- tests ---- */

#define TABLE                                                                          \
    "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight"

static void put_words(void)
{
    int width;
    float *rows = rows_of(&(struct small_model){0}, TABLE, "red circle", &width);
    float wrong[3 * 64] = {0};

    put_safetensors("Ink.safetensors",
                    &(struct vectors){"emb_params", 2, 1, width, rows}, 1);
    put_torch("two words.pt", &(struct vectors){NULL, 2, 2, width, rows}, false);
    put_torch("ancient.pt", &(struct vectors){NULL, 2, 2, width, rows}, true);
    put_safetensors("sub/deep.bin", &(struct vectors){"<deep>", 1, 1, width, rows}, 1);
    put_safetensors("wide.safetensors",
                    &(struct vectors){"emb_params", 2, 3, 64, wrong}, 1);
    put_file("broken.pt", "this is no model", 16);
    rows[3] = NAN;
    put_safetensors("spoilt.safetensors",
                    &(struct vectors){"emb_params", 2, 1, width, rows}, 1);
    free(rows);
}

/* Products of two matrices, for SDXL. */
static void put_pair(struct made *m, const char *stem, int64_t rows, int64_t cols)
{
    char name[120];

    snprintf(name, sizeof(name), "%s.lora_up.weight", stem);
    PUT(m, name, rows, 4);
    snprintf(name, sizeof(name), "%s.lora_down.weight", stem);
    PUT(m, name, 4, cols);
    snprintf(name, sizeof(name), "%s.alpha", stem);
    made_scalar(m, name, 2);
}

static void put_lora(const char *file, bool first, bool second, bool unet)
{
    struct made m = {0};

    if (first)
        put_pair(&m, "lora_te1_text_model_encoder_layers_0_self_attn_q_proj", 64, 64);
    if (second)
        put_pair(&m, "lora_te2_text_model_encoder_layers_0_self_attn_v_proj", 128, 128);
    if (unet)
        put_pair(&m, "lora_unet_input_blocks_4_1_transformer_blocks_0_attn2_to_k", 128,
                 192);
    free(made_write(&m, loras, file));
    made_release(&m);
}

/* A LoRA that changes nothing and brings words. */
static void put_bundle(const char *file, const struct vectors *v, int tensors)
{
    char *from = file_join(folder, file), *to = file_join(loras, file);

    put_safetensors(file, v, tensors);
    assert_int_equal(rename(from, to), 0);
    free(from);
    free(to);
}

#define NORM1 "text_model_encoder_layers_0_layer_norm1.w_norm"

static int set_up(void **state)
{
    char *sub;
    struct err err = {0};

    (void)state;
    assert_non_null(mkdtemp(folder));
    assert_non_null(mkdtemp(loras));
    put_lora("first.safetensors", true, false, false);
    put_lora("second.safetensors", false, true, false);
    put_lora("all.safetensors", true, true, true);
    sub = file_join(folder, "sub");
    assert_int_equal(file_make_folder(sub, 0700, NULL), 0);
    free(sub);
    put_words();
    check(engine_open(&engine,
                      &(struct engine_options){.backend = "ref",
                                               .threads = 2,
                                               .embedding_folder = folder,
                                               .lora_folders = {loras}},
                      &err),
          &err);
    model = small_engine_load(&(struct small_model){0});
    return 0;
}

static int tear_down(void **state)
{
    remove_tree(folder);
    remove_tree(loras);
    return small_engine_tear_down(state);
}

static void a_word_is_its_vectors(void **state)
{
    (void)state;
    assert_true(draw("a red circle", "a1111") != draw("a blue circle", "a1111"));
    expect_same("a ink circle", "a red circle", "a1111");
    expect_same("a (INK:1.4) circle", "a (red:1.4) circle", "a1111");
    expect_same("a two words, large", "a red circle, large", "a1111");
    expect_same("an ancient, large", "an red circle, large", "a1111");
    expect_same("deep circle", "red circle", "a1111");
    expect_same("[ink:blue:0.5] and deep AND two words",
                "[red:blue:0.5] and red AND red circle", "a1111");
    /* "two" and "words" alone are words like others */
    assert_true(draw("two", "a1111") != draw("red", "a1111"));
}

static void negative_prompts_and_several_at_once(void **state)
{
    struct engine_job with = job_of("a ink boat", "a1111"), without = with;

    (void)state;
    with.negative_prompt = "two words, deep";
    without.prompt = "a red boat";
    without.negative_prompt = "red circle, red";
    assert_true(draw_job(&with) == draw_job(&without));
}

static void words_by_name(void **state)
{
    (void)state;
    expect_same("a embedding:Ink circle", "a red circle", "comfy");
    expect_same("a (embedding:Ink.safetensors:1.3) circle", "a (red:1.3) circle",
                "comfy");
    expect_same("embedding:sub/deep, large", "red, large", "comfy");
    expect_same("embedding:deep,, large", "red,, large", "comfy");
    /* without the word before it, a name is text; and with it, text in A1111's syntax */
    assert_true(draw("a ink circle", "comfy") != draw("a red circle", "comfy"));
    assert_true(draw("a embedding:Ink circle", "a1111") !=
                draw("a red circle", "a1111"));
    refuse("embedding:Inc", "comfy", ERR_INVALID,
           "there is no textual inversion 'Inc' among the 7 in the folder; perhaps "
           "'Ink'");
    refuse("embedding:wide", "comfy", ERR_INVALID, "is for another family");
}

static void what_does_not_fit_is_text(void **state)
{
    uint64_t before = draw("a wide circle", "a1111");
    char *path = file_join(folder, "wide.safetensors");

    (void)state;
    assert_int_equal(unlink(path), 0);
    assert_true(draw("a wide circle", "a1111") == before);
    free(path);
}

static void broken_files(void **state)
{
    (void)state;
    refuse("a broken circle", "a1111", ERR_BAD_FILE,
           "the textual inversion 'broken': ");
    refuse("spoilt", "a1111", ERR_BAD_FILE, "no finite number");
    (void)draw("unbroken", "a1111"); /* a part of a word is none */
}

static void the_estimate_knows(void **state)
{
    struct engine_job with = job_of("a ink circle", "a1111"), without = with;
    struct engine_estimate a, b;
    struct err err = {0};

    (void)state;
    without.prompt = "a red circle";
    check(engine_estimate(model, &without, &b, &err), &err);
    check(engine_estimate(model, &with, &a, &err), &err);
    assert_true(a.peak_bytes >= b.peak_bytes + 48 * sizeof(float));
    expect_growth(&with);
}

static void on_embedding(void *user, const struct engine_embedding *embedding)
{
    struct buf *told = user;

    buf_printf(told, "%s %d; ", embedding->name, embedding->vectors);
}

/* Once each, of a job with two walks too; nothing of those that are not said. */
static void they_are_told(void **state)
{
    struct engine_job job = job_of("a ink boat, two words, ink", "a1111");
    struct buf told = {0};
    struct engine_events events = {.on_embedding = on_embedding, .user = &told};
    struct err err = {0};

    (void)state;
    job.negative_prompt = "deep";
    job.hires = (struct engine_hires){.scale = 2, .strength = 0.5};
    for (int i = 0; i < 2; i++) {
        job.hires.scale *= i;
        buf_clear(&told);
        check(engine_generate(model, &job, &events, &err), &err);
        assert_int_equal(strlen(buf_str(&told)),
                         strlen("Ink 1; two words 2; deep 1; "));
        assert_non_null(strstr(buf_str(&told), "Ink 1; "));
        assert_non_null(strstr(buf_str(&told), "two words 2; "));
        assert_non_null(strstr(buf_str(&told), "deep 1; "));
    }
    buf_release(&told);
}

static void words_in_a_lora(void **state)
{
    static const float nothing[128] = {0};
    int width;
    float *rows = rows_of(&(struct small_model){0}, TABLE, "red circle", &width);
    const struct vectors v[] = {
        {"lora_te_" NORM1, 1, 1, width, nothing},
        {"bundle_emb.brought.string_to_param.*", 2, 2, width, rows},
        {"bundle_emb.Ink.emb_params", 2, 1, width,
         rows + width}, /* the folder has it */
        {"bundle_emb.narrow.emb_params", 2, 1, 5, nothing}};
    uint64_t without = draw("a brought boat", "a1111");

    (void)state;
    put_bundle("bundle.safetensors", v, 4);
    expect_same("a (brought:1.3) boat <lora:bundle:1>", "a (red circle:1.3) boat",
                "a1111");
    expect_same("a embedding:brought boat <lora:bundle:1>", "a red circle boat",
                "comfy");
    expect_same("a ink boat <lora:bundle:0>", "a red boat", "a1111");
    expect_same("a narrow boat <lora:bundle:1>", "a narrow boat", "a1111");
    assert_true(without != draw("a red circle boat", "a1111"));
    assert_true(without == draw("a brought boat", "a1111"));
    refuse("embedding:brought", "comfy", ERR_INVALID, "no textual inversion 'brought'");
    free(rows);
}

/* "red circle" as both of SDXL's text encoders have it; free() the values. */
static void red_circle_of(const struct small_model *sdxl, struct vectors ret[2])
{
    static const char *const tables[] = {
        "conditioner.embedders.0.transformer.text_model.embeddings.token_embedding."
        "weight",
        "conditioner.embedders.1.model.token_embedding.weight"};
    static const char *const names[] = {"clip_l", "clip_g"};

    for (int i = 0; i < 2; i++) {
        int width;
        float *rows = rows_of(sdxl, tables[i], "red circle", &width);

        ret[i] = (struct vectors){names[i], 2, 2, width, rows};
    }
}

static void both_encoders_of_sdxl(void **state)
{
    const struct small_model sdxl = {.listing = SMALL_SDXL_TENSORS};
    struct engine_model *first = model;
    static const float nothing[128] = {0};
    struct vectors both[2];
    struct vectors uneven[2];

    (void)state;
    red_circle_of(&sdxl, both);
    memcpy(uneven, both, sizeof(uneven));
    uneven[1].count = 1;
    put_safetensors("large.safetensors", both, 2);
    put_safetensors("uneven.safetensors", uneven, 2);
    put_safetensors("half.safetensors", both, 1);
    put_bundle("pair.safetensors",
               (const struct vectors[]){
                   {"lora_te1_" NORM1, 1, 1, both[0].width, nothing},
                   {"bundle_emb.pair.clip_l", 2, 2, both[0].width, both[0].values},
                   {"bundle_emb.pair.clip_g", 2, 2, both[1].width, both[1].values}},
               3);
    model = small_engine_load(&sdxl);
    expect_same("a pair boat <lora:pair>", "a red circle boat", "a1111");
    expect_same("a large boat", "a red circle boat", "a1111");
    expect_same("a (embedding:large:1.2) boat", "a (red circle:1.2) boat", "comfy");
    refuse("uneven", "a1111", ERR_BAD_FILE, "2 vectors for one text encoder and 1");
    refuse("embedding:half", "comfy", ERR_INVALID, "is for another family");
    refuse("embedding:Ink", "comfy", ERR_INVALID, "is for another family");
    engine_model_free(model);
    model = first;
    refuse("embedding:large", "comfy", ERR_INVALID, "is for another family");
    free((float *)(uintptr_t)both[0].values);
    free((float *)(uintptr_t)both[1].values);
}

/* A word, what changes on the way, weights, LoRAs of both text encoders and the U-Net, a hires fix and little memory: the
 * vectors' own words draw the same, and everything counts. */
static void expect_all_at_once(const char *dialect, const char *ink, const char *red)
{
    static const char *const tags[] = {"", " <lora:first:0.9:0>",
                                       " <lora:second:0.9:0>",
                                       " <lora:all:0.3:1.1> <lora:first:-0.2>"};
    uint64_t sums[4];

    for (int i = 0; i < 4; i++) {
        char *with = mem_printf("%s%s", ink, tags[i]);
        char *without = mem_printf("%s%s", red, tags[i]);
        struct engine_job job = job_of(with, dialect);
        struct engine_estimate e;
        struct err err = {0};

        job.negative_prompt = "blue";
        job.hires = (struct engine_hires){.scale = 2, .strength = 0.6};
        sums[i] = draw_job(&job);
        for (int k = 0; k < i; k++)
            assert_true(sums[k] != sums[i]);
        job.prompt = without;
        assert_true(draw_job(&job) == sums[i]);
        job.prompt = with;
        job.budget_bytes = 1;
        check(engine_estimate(model, &job, &e, &err), &err);
        assert_string_equal(e.way, "released");
        job.budget_bytes = e.peak_bytes - e.resident_bytes;
        assert_true(draw_job(&job) == sums[i]); /* and leaves the encoders out */
        job.budget_bytes = 0;
        assert_true(draw_job(&job) == sums[i]);
        free(with);
        free(without);
    }
}

static void all_at_once(void **state)
{
    const struct small_model sdxl = {.listing = SMALL_SDXL_TENSORS};
    struct engine_model *first = model;
    struct vectors both[2];

    (void)state;
    red_circle_of(&sdxl, both);
    put_safetensors("large.safetensors", both, 2);
    model = small_engine_load(&sdxl);
    expect_all_at_once("a1111", "a [(large:1.2):blue:0.5] boat",
                       "a [(red circle:1.2):blue:0.5] boat");
    expect_all_at_once("comfy", "a (embedding:large:1.2) boat",
                       "a (red circle:1.2) boat");
    engine_model_free(model);
    model = first;
    free((float *)(uintptr_t)both[0].values);
    free((float *)(uintptr_t)both[1].values);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_word_is_its_vectors),
        cmocka_unit_test(negative_prompts_and_several_at_once),
        cmocka_unit_test(words_by_name),
        cmocka_unit_test(what_does_not_fit_is_text),
        cmocka_unit_test(broken_files),
        cmocka_unit_test(the_estimate_knows),
        cmocka_unit_test(they_are_told),
        cmocka_unit_test(words_in_a_lora),
        cmocka_unit_test(both_encoders_of_sdxl),
        cmocka_unit_test(all_at_once),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
