/* LoRAs in prompts: how they are written and where they are looked for; and that a model with LoRAs over it draws, bit
 * for bit, what one draws whose file has the changes in it, before and after anything that can happen in between. On
 * every back end. */
#include "base/file.h"
#include "base/mem.h"
#include "base/named_files.h"
#include "engine/engine.h"
#include "engine/files/reader.h"
#include "engine/lora/lora.h"
#include "engine/lora/tags.h"
#include "engine/model.h"

#include "made.h"
#include "small_engine.h"
#include "unit.h"

#include <math.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- tags ---- */

static void expect_tag(const char *text, const char *name, double te, double unet)
{
    struct lora_tags tags = {0};
    struct err err = {0};

    check(lora_tags_read(&tags, text, &err), &err);
    assert_int_equal(tags.count, 1);
    assert_string_equal(tags.all[0].name, name);
    if (tags.all[0].strength.text != te || tags.all[0].strength.unet != unet)
        fail_msg("%s: %g and %g", text, tags.all[0].strength.text,
                 tags.all[0].strength.unet);
    lora_tags_release(&tags);
}

static void expect_no_tag(const char *text, const char *sentence)
{
    struct lora_tags tags = {0};
    struct err err = {0};

    assert_int_equal(lora_tags_read(&tags, text, &err), -1);
    assert_int_equal(err.code, ERR_INVALID);
    assert_string_equal(err.param, "prompt");
    if (!strstr(err.message, sentence))
        fail_msg("'%s' lacks '%s'", err.message, sentence);
    lora_tags_release(&tags);
}

static void test_tags(void **state)
{
    (void)state;
    expect_tag("<lora:ink>", "ink", 1, 1);
    expect_tag("a boat <lora:ink:0.5>, the sea", "ink", 0.5, 0.5);
    expect_tag("<lora:ink:0.5:-1.25>", "ink", 0.5, -1.25);
    expect_tag("<LoRA: ink v2 : 1e-1 : 2 >", "ink v2", 0.1, 2);
    expect_tag("<lyco:styles/ink:.3>", "styles/ink", 0.3, 0.3);
    expect_tag("<lora:ink:te=0.2:unet=0.4>", "ink", 0.2, 0.4);
    expect_tag("<lora:ink:unet=0.4>", "ink", 1, 0.4);
    expect_tag("<lora:ink:0.2:unet=0.4>", "ink", 0.2, 0.4);
    expect_tag("<lora:ink:te=0.2>", "ink", 0.2, 0.2);
    expect_tag("<3 <lora:ink:0.5> <lora:unclosed", "ink", 0.5, 0.5);
    expect_no_tag("<lora:>", "no name");
    expect_no_tag("<lora: :1>", "no name");
    expect_no_tag("<lora:ink:much>", "strength 'much'");
    expect_no_tag("<lora:ink:1:>", "strength ''");
    expect_no_tag("<lora:ink:1x>", "strength '1x'");
    expect_no_tag("<lora:ink:nan>", "strength 'nan'");
    expect_no_tag("<lora:ink:101>", "-100 to 100");
    expect_no_tag("<lora:ink:1:1:1>", "more than two");
    expect_no_tag("<lora:ink:0.000000000000000000000000000000000001>", "strength");
}

static void test_many_tags(void **state)
{
    struct buf text = {0};

    (void)state;
    for (int i = 0; i <= LORA_TAGS_MAX; i++)
        buf_append_str(&text, "<lora:ink:1>");
    expect_no_tag(text.data, "more than 32");
    buf_release(&text);
}

static void expect_rest(const char *text, const char *rest)
{
    char *stripped = lora_tags_strip(text);

    assert_string_equal(stripped, rest);
    free(stripped);
}

static void test_strip(void **state)
{
    (void)state;
    expect_rest("", "");
    expect_rest("a boat", "a boat");
    expect_rest("<lora:ink:1>", "");
    expect_rest("a <lora:ink:1>boat<LYCO:x:much>, blue", "a boat, blue");
    expect_rest("I <3 boats <hypernet:x:1> <lora:open",
                "I <3 boats <hypernet:x:1> <lora:open");
}

/* ---- the folder ---- */

static char *folders[3]; /* the second is the starters', as it were */
static const struct named_search search = {folders, "LoRA", "prompt"};

static void expect_file(const char *name, const char *folder, const char *file)
{
    struct err err = {0};
    char *path, *wanted = file_join(folder, file);

    check(named_file_find(&search, name, &path, &err), &err);
    assert_string_equal(path, wanted);
    free(path);
    free(wanted);
}

static void expect_no_file(const char *name, const char *sentence)
{
    struct err err = {0};
    char *path;

    assert_int_equal(named_file_find(&search, name, &path, &err), -1);
    assert_int_equal(err.code, ERR_INVALID);
    assert_string_equal(err.param, "prompt");
    if (!strstr(err.message, sentence))
        fail_msg("'%s' lacks '%s'", err.message, sentence);
}

static void test_folder(void **state)
{
    (void)state;
    expect_file("ink", folders[0], "ink.safetensors");
    expect_file("ink.safetensors", folders[0], "ink.safetensors");
    expect_file("styles/wash", folders[0], "styles/wash.safetensors");
    expect_file("wash", folders[0], "styles/wash.safetensors");
    expect_file("shipped", folders[1], "shipped.safetensors");
    expect_no_file("inc",
                   "no LoRA 'inc' in the LoRA folder, which has 6; perhaps 'ink'");
    expect_no_file("notes", "no LoRA 'notes'"); /* notes.txt is there */
    expect_no_file("styles", "no LoRA");
    expect_no_file("gone", "no LoRA 'gone'"); /* a link to nothing */
    expect_no_file("../loras-of-others/secret", "not a path to somewhere else");
    expect_no_file("/etc/passwd", "not a path to somewhere else");
    expect_no_file("styles/../ink", "not a path to somewhere else");
    expect_no_file("", "not a path to somewhere else");
}

/* ---- files ---- */

#define UNET "lora_unet_"
#define UP ".lora_up.weight"
#define DOWN ".lora_down.weight"
#define TEXT "lora_te_text_model_encoder_layers_0_"

static void put_pair(struct made *m, const char *stem, int64_t rows, int64_t cols,
                     int64_t kernel, float alpha)
{
    char name[160];

    snprintf(name, sizeof(name), "%s" UP, stem);
    PUT(m, name, rows, 4, 1, 1);
    snprintf(name, sizeof(name), "%s" DOWN, stem);
    PUT(m, name, 4, cols, kernel, kernel);
    snprintf(name, sizeof(name), "%s.alpha", stem);
    made_scalar(m, name, alpha);
}

/* Joined products, a kernel, one that the quick back end packs doubled, biases, norms, the text encoder, and a key of
 * somebody else's. */
static void put_ink(struct made *m)
{
    put_pair(m, UNET "down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q", 32,
             32, 1, 0.5F);
    put_pair(m, UNET "up_blocks_2_attentions_0_transformer_blocks_0_attn2_to_k", 32, 48,
             1, 0.5F);
    put_pair(m, UNET "down_blocks_0_resnets_0_conv1", 32, 32, 3, 0.5F);
    PUT(m, UNET "up_blocks_0_upsamplers_0_conv.diff", 64, 64, 3, 3);
    made_scale(m, 0.05F, 64 * 64 * 9);
    PUT(m, UNET "down_blocks_0_resnets_0_conv1.diff_b", 32);
    PUT(m, UNET "down_blocks_0_resnets_0_norm1.diff", 32);
    made_scale(m, 0.2F, 32);
    put_pair(m, TEXT "self_attn_q_proj", 48, 48, 1, 1);
    PUT(m, "lora_te_text_model_embeddings_token_embedding.diff", 4, 4);
}

static void put_wash(struct made *m)
{
    put_pair(m, UNET "down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q", 32,
             32, 1, 0.8F);
    made_scale(m, 1.5F, 1);
    put_pair(m, UNET "down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_k", 32,
             32, 1, 0.8F);
}

/* fits in shape, and has a value that is no number */
static void put_broken(struct made *m)
{
    put_pair(m, UNET "down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q", 32,
             32, 1, 0.5F);
    PUT(m, UNET "up_blocks_2_resnets_0_conv1.diff_b", 32);
    made_scale(m, NAN, 1);
}

static void put_stranger(struct made *m)
{
    put_pair(m, UNET "input_blocks_4_1_transformer_blocks_9_attn1_to_q", 640, 640, 1,
             1);
}

static void write_lora(void put(struct made *m), const char *folder, const char *name)
{
    struct made m = {0};

    put(&m);
    free(made_write(&m, folder, name));
    made_release(&m);
}

static char *root;

static int set_up(void **state)
{
    char pattern[] = "/tmp/mysti-loras-XXXXXX";
    struct err err = {0};
    char *path;

    (void)state;
    root = mem_strdup(mkdtemp(pattern));
    folders[0] = file_join(root, "loras");
    folders[1] = file_join(root, "shipped");
    path = file_join(folders[0], "styles");
    check(file_make_folder(path, 0700, &err), &err);
    check(file_make_folder(folders[1], 0700, &err), &err);
    write_lora(put_ink, folders[0], "ink.safetensors");
    write_lora(put_wash, path, "wash.safetensors");
    write_lora(put_broken, folders[0], "broken.safetensors");
    write_lora(put_stranger, folders[0], "stranger.safetensors");
    write_lora(put_wash, folders[0], "replaced.safetensors");
    write_lora(put_wash, folders[1], "shipped.safetensors");
    free(path);
    path = file_join(folders[0], "gone.safetensors");
    assert_int_equal(symlink("nothing.safetensors", path), 0);
    free(path);
    path = file_join(folders[0], "notes.txt");
    check(file_write_atomic(path, "hello", 5, 0600, &err), &err);
    free(path);
    return 0;
}

static void remove_file(const char *folder, const char *name)
{
    char *path = file_join(folder, name);

    unlink(path);
    free(path);
}

static int tear_down(void **state)
{
    char *styles = file_join(folders[0], "styles");

    (void)state;
    remove_file(styles, "wash.safetensors");
    remove_file(folders[0], "ink.safetensors");
    remove_file(folders[0], "broken.safetensors");
    remove_file(folders[0], "stranger.safetensors");
    remove_file(folders[0], "replaced.safetensors");
    remove_file(folders[0], "notes.txt");
    remove_file(folders[0], "gone.safetensors");
    remove_file(folders[1], "shipped.safetensors");
    rmdir(styles);
    rmdir(folders[0]);
    rmdir(folders[1]);
    rmdir(root);
    free(styles);
    free(folders[0]);
    free(folders[1]);
    free(root);
    return 0;
}

/* ---- drawing ---- */

struct back_end {
    const char *name, *precision, *weights;
};

/* What comes of one job. */
struct drawn {
    uint8_t rgb[48 * 32 * 3];
    int images, asked, cancel_after; /* 0: never */
    int loras;
    struct engine_lora last;
    char unmatched[100];
};

static bool on_image(void *user, const struct engine_image *image, struct err *err)
{
    struct drawn *d = user;

    (void)err;
    d->images++;
    memcpy(d->rgb, image->rgb, (size_t)image->width * (size_t)image->height * 3);
    return true;
}

static void on_lora(void *user, const struct engine_lora *lora)
{
    struct drawn *d = user;

    d->loras++;
    d->last = *lora;
    snprintf(d->unmatched, sizeof(d->unmatched), "%s",
             lora->first_unmatched ? lora->first_unmatched : "");
}

static bool is_cancelled(void *user)
{
    struct drawn *d = user;

    return ++d->asked == d->cancel_after;
}

static int draw_at(const char *prompt, const char *negative, int height,
                   struct drawn *ret, struct err *err)
{
    struct engine_job job;
    int cancel_after = ret->cancel_after;

    *ret = (struct drawn){.cancel_after = cancel_after};
    engine_job_defaults(model, &job);
    job.prompt = prompt;
    job.negative_prompt = negative;
    job.width = 32;
    job.height = height;
    job.steps = 2;
    job.seed = 5;
    return engine_generate(model, &job,
                           &(struct engine_events){.on_image = on_image,
                                                   .on_lora = on_lora,
                                                   .is_cancelled = is_cancelled,
                                                   .user = ret},
                           err);
}

static struct drawn draw(const char *prompt)
{
    struct drawn d = {0};
    struct err err = {0};

    check(draw_at(prompt, "", 32, &d, &err), &err);
    assert_int_equal(d.images, 1);
    return d;
}

static bool is_like(const struct drawn *a, const struct drawn *b)
{
    return memcmp(a->rgb, b->rgb, sizeof(a->rgb)) == 0;
}

static void open_engine(const struct back_end *b)
{
    struct engine_options options = {.backend = b->name,
                                     .precision = b->precision,
                                     .weights = b->weights,
                                     .threads = 2,
                                     .lora_folders = {folders[0], folders[1]}};
    struct err err = {0};

    check(engine_open(&engine, &options, &err), &err);
}

/* w's values in the file's bytes, which need not be aligned */
static void change(const struct weight *w, const struct lora *lora,
                   struct lora_strength strength, char *bytes)
{
    size_t count = weight_count(w);
    float *values = mem_alloc(count * sizeof(*values));
    struct err err = {0};

    weight_to_f32(w, 0, count, values);
    check(
        lora_add_delta(lora, w, strength, engine->backend->ops->multiply, values, &err),
        &err);
    memcpy(bytes + (w->data - (unsigned char *)bytes), values, count * sizeof(*values));
    free(values);
}

/* The small model with these LoRAs' changes in its file. */
static struct engine_model *load_merged(const char *const *files,
                                        const struct lora_strength *strengths)
{
    static const struct small_model plain;
    struct err err = {0};
    unsigned long size;
    char *bytes = small_model_bytes(&plain, &size);
    char *path = file_join(root, "merged.safetensors");
    struct weights_file *base;
    struct engine_model *merged;

    check(weights_memory_open(&base, bytes, size, &err), &err);
    for (int i = 0; files[i]; i++) {
        char *file = file_join(folders[0], files[i]);
        struct lora *lora;

        check(lora_open(&lora, file, base, &err), &err);
        for (size_t k = 0; k < weights_file_count(base); k++)
            change(weights_file_at(base, k), lora, strengths[i], bytes);
        lora_close(lora);
        free(file);
    }
    check(file_write_atomic(path, bytes, size, 0600, &err), &err);
    weights_file_close(base);
    check(engine_model_load(&merged, engine, path, NULL, &err), &err);
    unlink(path);
    free(path);
    free(bytes);
    return merged;
}

static struct drawn draw_with(struct engine_model *other, const char *prompt,
                              int height)
{
    struct engine_model *mine = model;
    struct drawn d = {0};
    struct err err = {0};

    model = other;
    check(draw_at(prompt, "", height, &d, &err), &err);
    model = mine;
    return d;
}

static uint64_t resident(void)
{
    struct engine_model_info info;

    engine_model_info(model, &info);
    return info.resident_bytes;
}

/* On and off, one and two, another size: always what the merged file draws. */
static void expect_merged(void)
{
    const struct lora_strength strengths[] = {{.unet = 1.2, .text = 0.7}, {1, 1}};
    struct engine_model *one =
        load_merged((const char *const[]){"ink.safetensors", NULL}, strengths);
    struct engine_model *two = load_merged(
        (const char *const[]){"ink.safetensors", "styles/wash.safetensors", NULL},
        strengths);
    struct drawn plain = draw("a boat"), wanted = draw_with(one, "a boat", 32), tall = {0};
    struct drawn wanted_tall = draw_with(one, "a boat", 48),
                 wanted_two = draw_with(two, "a boat", 32);
    struct drawn inked = draw("a <lora:ink:0.7:1.2>boat"), again;
    struct err err = {0};
    uint64_t bytes = resident();

    assert_false(is_like(&plain, &inked));
    assert_true(is_like(&inked, &wanted));
    assert_int_equal(inked.loras, 1);
    assert_int_equal(inked.last.matched, 15);
    assert_int_equal(inked.last.unmatched, 1);
    assert_string_equal(inked.unmatched,
                        "lora_te_text_model_embeddings_token_embedding.diff");
    assert_true(inked.last.unet == 1.2 && inked.last.text == 0.7);

    again = draw("a boat");
    assert_true(is_like(&again, &plain));
    again = draw("a boat<lora:ink:0.7:1.2><lora:wash>");
    assert_true(is_like(&again, &wanted_two));
    assert_int_equal(again.loras, 2);
    check(draw_at("a boat<lora:ink:0.7:1.2>", "", 48, &tall, &err), &err);
    assert_true(is_like(&tall, &wanted_tall));
    check(draw_at("a boat", "<lora:ink:0.7:1.2>", 32, &again, &err), &err);
    assert_true(is_like(&again, &wanted));
    again = draw("a boat");
    assert_true(is_like(&again, &plain));
    assert_true(resident() >= bytes); /* the other size may have other layouts */
    again = draw("a boat<lora:ink:0.7:1.2>");
    assert_true(is_like(&again, &wanted));
    engine_model_free(one);
    engine_model_free(two);
}

static void expect_strengths(void)
{
    struct drawn plain = draw("a boat"), text = draw("a boat<lora:ink:0.5:0>"),
                 unet = draw("a boat<lora:ink:0:0.5>"),
                 both = draw("a boat<lora:ink:.5>"), none = draw("a boat<lora:ink:0>"),
                 minus = draw("a boat<lora:ink:-.5>");
    uint64_t bytes = resident();

    assert_false(is_like(&text, &plain) || is_like(&unet, &plain) ||
                 is_like(&text, &unet) || is_like(&both, &unet) ||
                 is_like(&both, &text) || is_like(&minus, &both));
    assert_true(is_like(&none, &plain));
    (void)draw("a boat<lora:ink><lora:wash:2><lora:ink:-.5>");
    assert_true(resident() == bytes); /* changed where they are */
}

/* Nothing that goes wrong on the way is seen in the next picture. */
static void expect_failures(void)
{
    struct drawn plain = draw("a boat"), inked = draw("a boat<lora:ink>"), d = {0};
    struct err err = {0};
    uint64_t whole = resident();

    assert_int_equal(draw_at("a boat<lora:broken>", "", 32, &d, &err), -1);
    assert_int_equal(err.code, ERR_BAD_FILE);
    assert_non_null(strstr(err.message, "the LoRA 'broken': "));
    assert_non_null(strstr(err.message, "up_blocks_2_resnets_0_conv1.diff_b"));
    d = draw("a boat");
    assert_true(is_like(&d, &plain));
    for (int after = 1; after < 12; after++) {
        d.cancel_after = after;
        err = (struct err){0};
        assert_int_equal(draw_at("a boat<lora:ink:0.9>", "", 32, &d, &err), -1);
        assert_int_equal(err.code, ERR_CANCELLED);
        /* what is out of memory is in the next estimate */
        assert_true(resident() + model_missing_bytes(model) == whole);
        d = draw(after % 2 ? "a boat" : "a boat<lora:ink>");
        assert_true(is_like(&d, after % 2 ? &plain : &inked));
    }
    err = (struct err){0};
    assert_int_equal(draw_at("a boat<lora:stranger>", "", 32, &d, &err), -1);
    assert_int_equal(err.code, ERR_BAD_FILE);
    assert_string_equal(err.param, "prompt");
    assert_non_null(strstr(err.message, "stranger"));
    assert_non_null(strstr(err.message, "none of its 3 keys"));
    d = draw("a boat<lora:ink>");
    assert_true(is_like(&d, &inked));
}

/* A file that was replaced is read again. */
static void expect_replaced(void)
{
    struct drawn before = draw("a boat<lora:replaced>"),
                 wash = draw("a boat<lora:wash>"), ink = draw("a boat<lora:ink>"),
                 after;

    assert_true(is_like(&before, &wash));
    (void)draw("a boat<lora:replaced>");
    write_lora(put_ink, folders[0], "replaced.safetensors");
    after = draw("a boat<lora:replaced>");
    assert_true(is_like(&after, &ink));
    write_lora(put_wash, folders[0], "replaced.safetensors");
}

static void expect_estimates(void)
{
    struct engine_estimate with, without;
    struct engine_job job;
    struct err err = {0};

    engine_job_defaults(model, &job);
    job.width = job.height = 16;
    job.prompt = "a boat";
    check(engine_estimate(model, &job, &without, &err), &err);
    job.prompt = "a boat<lora:ink>";
    check(engine_estimate(model, &job, &with, &err), &err);
    assert_true(with.peak_bytes >= without.peak_bytes);
    job.prompt = "a boat<lora:nobody>";
    assert_int_equal(engine_estimate(model, &job, &with, &err), -1);
    assert_int_equal(err.code, ERR_INVALID);
}

static void test_drawing(void **state)
{
    static const struct back_end all[] = {{"ref", NULL, NULL},
                                          {"dnnl", "f32", NULL},
                                          {"dnnl", NULL, NULL},
                                          {"dnnl", NULL, "int8"}};

    (void)state;
    for (size_t i = 0; i < sizeof(all) / sizeof(*all); i++) {
        if (!strstr(engine_backend_names(), all[i].name))
            continue;
        open_engine(&all[i]);
        model = small_engine_load(&(struct small_model){0});
        expect_merged();
        expect_strengths();
        expect_failures();
        expect_replaced();
        expect_estimates();
        engine_model_free(model);
        engine_close(engine);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tags),    cmocka_unit_test(test_many_tags),
        cmocka_unit_test(test_strip),   cmocka_unit_test(test_folder),
        cmocka_unit_test(test_drawing),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
