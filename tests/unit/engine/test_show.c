/* Previews by TAESD: what is shown after the first step is, bit for bit, the picture that one step makes with TAESD as its VAE,
 * because that step's latent is the same; without the file, with another family's alone and in tiles there are colours; and its
 * weights are counted. */
#include "base/buf.h"
#include "base/file.h"
#include "base/mem.h"

#include "remove_tree.h"
#include "small_engine.h"
#include "small_taesd.h"
#include "unit.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { SIDE = 64, LARGE = 296, COUNT = SIDE * SIDE * 3 };

static char folder[] = "/tmp/mysti-show-XXXXXX";

/* ---- the engine ---- */

static void open_with(const char *method, const struct small_model *what)
{
    const struct engine_options options = {
        .backend = "ref", .threads = 2, .vae_folder = folder, .preview_method = method};
    struct err err = {0};

    check(engine_open(&engine, &options, &err), &err);
    model = small_engine_load(what);
}

static void close_all(void)
{
    engine_model_free(model);
    engine_close(engine);
}

static void remove_file(const char *name)
{
    char *path = file_join(folder, name);

    assert_int_equal(unlink(path), 0);
    free(path);
}

struct seen {
    uint8_t picture[COUNT], preview[COUNT];
    int width, height, previews; /* of the first preview; how many there were */
};

static bool on_image(void *user, const struct engine_image *image, struct err *err)
{
    struct seen *s = user;

    (void)err;
    if (image->width == SIDE)
        memcpy(s->picture, image->rgb, COUNT);
    return true;
}

static bool wants_preview(void *user, int image, int step, int steps)
{
    (void)user;
    (void)image;
    (void)step;
    (void)steps;
    return true;
}

static void on_preview(void *user, const struct engine_preview *p)
{
    struct seen *s = user;

    assert_true(p->png_bytes > 0);
    if (s->previews++)
        return;
    s->width = p->width;
    s->height = p->height;
    if (p->width == SIDE)
        memcpy(s->preview, p->rgb, COUNT);
}

static struct engine_job job_of(int side, int steps)
{
    struct engine_job job;

    engine_job_defaults(model, &job);
    job.prompt = "a boat";
    job.width = job.height = side;
    job.steps = steps;
    job.sampler = "euler";
    job.scheduler = "normal";
    job.seed = 5;
    return job;
}

static void draw(const struct engine_job *job, struct seen *ret)
{
    struct engine_events events = {
        .on_image = on_image, .wants_preview = wants_preview, .on_preview = on_preview};
    struct err err = {0};

    *ret = (struct seen){0};
    events.user = ret;
    check(engine_generate(model, job, &events, &err), &err);
}

static uint64_t resident(void)
{
    struct engine_model_info info;

    engine_model_info(model, &info);
    return info.resident_bytes;
}

/* ---- tests ---- */

static void they_are_what_taesd_decodes(void **state)
{
    static struct seen plain, shown, one;
    struct engine_job job;
    uint64_t bytes;

    (void)state;
    open_with(NULL, &(struct small_model){0});
    bytes = resident();
    job = job_of(SIDE, 2);
    draw(&job, &plain);
    assert_int_equal(plain.width, SIDE / 8);
    close_all();
    open_with("taesd", &(struct small_model){0});
    assert_true(resident() > bytes);
    job = job_of(SIDE, 2);
    draw(&job, &shown);
    assert_int_equal(shown.previews, 1);
    assert_int_equal(shown.width, SIDE);
    assert_int_equal(shown.height, SIDE);
    assert_memory_equal(shown.picture, plain.picture, COUNT);
    job = job_of(SIDE, 1);
    job.vae = "taesd";
    draw(&job, &one);
    assert_int_equal(one.previews, 0); /* the last step is shown by the picture */
    assert_memory_equal(shown.preview, one.picture, COUNT);
    close_all();
}

static void each_family_has_its_own(void **state)
{
    static const struct small_model xl = {.listing = SMALL_SDXL_TENSORS};
    static struct seen shown;
    struct engine_job job;

    (void)state;
    open_with("taesd", &xl);
    job = job_of(SIDE, 2);
    draw(&job, &shown);
    assert_int_equal(shown.width, SIDE / 8); /* taesd alone is there */
    close_all();
    small_taesd_write(folder, "taesdxl_decoder.pth",
                      &(struct small_taesd){TAESD_ORIGINAL, .only = "decoder"});
    open_with("taesd", &xl);
    job = job_of(SIDE, 2);
    draw(&job, &shown);
    assert_int_equal(shown.width, SIDE);
    close_all();
    remove_file("taesdxl_decoder.pth");
}

static void tiles_have_none(void **state)
{
    static struct seen shown;
    struct engine_job job;
    struct engine_estimate e;
    struct err err = {0};

    (void)state;
    open_with("taesd", &(struct small_model){0});
    job = job_of(LARGE, 2);
    job.budget_bytes = 1;
    check(engine_estimate(model, &job, &e, &err), &err);
    assert_non_null(strstr(e.way, "tiles"));
    job.budget_bytes = e.peak_bytes - e.resident_bytes;
    draw(&job, &shown);
    assert_int_equal(shown.width, LARGE / 8);
    close_all();
}

static void what_does_not_fit_is_told_at_once(void **state)
{
    char *path = small_model_write(&(struct small_model){0});
    const struct engine_options strange = {.backend = "ref", .preview_method = "auto"},
                                taesd = {.backend = "ref",
                                         .vae_folder = folder,
                                         .preview_method = "taesd"};
    struct err err = {0};

    (void)state;
    assert_int_equal(engine_open(&engine, &strange, &err), -1);
    assert_non_null(strstr(err.message, "latent2rgb and taesd are known"));
    small_taesd_write(folder, "taesd.safetensors",
                      &(struct small_taesd){.channels = 16});
    check(engine_open(&engine, &taesd, &err), &err);
    assert_int_equal(engine_model_load(&model, engine, path, NULL, &err), -1);
    assert_non_null(strstr(err.message,
                           "the VAE 'taesd', for previews: reads latents of "
                           "16 channels"));
    remove_file("taesd.safetensors");
    check(engine_model_load(&model, engine, path, NULL, &err), &err);
    close_all();
    unlink(path);
    free(path);
}

/* ---- the program ---- */

static int set_up(void **state)
{
    (void)state;
    assert_non_null(mkdtemp(folder));
    small_taesd_write(folder, "taesd.safetensors", &(struct small_taesd){0});
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    remove_tree(folder);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(they_are_what_taesd_decodes),
        cmocka_unit_test(each_family_has_its_own),
        cmocka_unit_test(tiles_have_none),
        cmocka_unit_test(what_does_not_fit_is_told_at_once),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
