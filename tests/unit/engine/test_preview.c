/* The factors of a preview: Stable Diffusion's own for its autoencoder and for one that cannot be asked; learned from the
 * encoder otherwise, so that a picture's latent shows the picture. */
#include "base/mem.h"
#include "engine/model.h"
#include "engine/preview.c"

#include "small_engine.h"
#include "unit.h"

#include <string.h>

#define STARTER "models/starter/starter-painter.safetensors"

static void without_an_encoder_they_are_the_known_ones(void **state)
{
    struct engine_model *loaded = small_engine_load(
        &(struct small_model){.without_prefix = "first_stage_model.encoder."});
    const float latent[4] = {1, 0, 0, 0}, zero[4] = {0};
    uint8_t rgb[3];

    (void)state;
    preview_learn(loaded);
    assert_true(loaded->preview.is_known);
    preview_draw(&loaded->preview, latent, 4, rgb);
    assert_int_equal(rgb[0], 172); /* (0.3512 + 1) * 127.5 */
    assert_int_equal(rgb[1], 157);
    assert_int_equal(rgb[2], 169);
    preview_draw(&loaded->preview, zero, 4, rgb);
    assert_int_equal(rgb[0], 128);
    engine_model_free(loaded);
}

static void sdxl_has_its_own(void **state)
{
    struct engine_model *loaded = small_engine_load(&(struct small_model){
        .listing = SMALL_SDXL_TENSORS, .without_prefix = "first_stage_model.encoder."});
    const float latent[4] = {1, 0, 0, 0};
    uint8_t rgb[3];

    (void)state;
    preview_learn(loaded);
    preview_draw(&loaded->preview, latent, 4, rgb);
    assert_int_equal(rgb[0], 188); /* (0.3651 + 0.1084 + 1) * 127.5 */
    assert_int_equal(rgb[1], 179);
    assert_int_equal(rgb[2], 183);
    engine_model_free(loaded);
}

/* The starter painter's latents hold the mean colours of their pixels, in a way of its own: its factors show them, Stable
 * Diffusion's do not. */
static double error_of(const struct preview *p, const float *latents,
                       const float *colours)
{
    double sum = 0;

    for (int i = 0; i < 64; i++) {
        uint8_t rgb[3];

        preview_draw(p, latents + 4 * i, 4, rgb);
        for (int c = 0; c < 3; c++) {
            double d = rgb[c] / 127.5 - 1 - (double)colours[3 * i + c];

            sum += d * d;
        }
    }
    return sum;
}

static void they_are_learned_from_the_encoder(void **state)
{
    struct engine_model *loaded;
    struct preview known = {.is_known = true, .channels = 4};
    struct picture_size size = {
        .width = 64, .height = 64, .batch = 1, .starts = 1, .chunks = 1};
    struct program *program = NULL;
    float *picture = aligned_alloc(64, 64 * 64 * 3 * 4), *moments;
    float latents[64 * 4], colours[64 * 3];
    struct err err = {0};

    (void)state;
    for (int i = 0; i < 64 * 64 * 3; i++) { /* other patches than it learns from */
        int x = i / 3 % 64 / 8, y = i / 3 / 64 / 8, c = i % 3;
        float v = (float)((x * 5 + y * 3 + c * 7 + x * y) % 8) / 3.5F - 1;

        picture[i] = v;
        colours[(y * 8 + x) * 3 + c] = v;
    }
    moments = aligned_alloc(64, 64 * 8 * 4);
    check(engine_model_load(&loaded, engine, STARTER, NULL, &err), &err);
    const struct backend_ops *ops = loaded->engine->backend->ops;
    struct graph *graph = checkpoint_start_graph(loaded->checkpoint, &size);

    check(ops->compile(loaded->engine->backend, graph, loaded->store, &program, &err),
          &err);
    check(ops->load(program, NULL, &err), &err);
    struct program_run run = {.inputs = (void *[]){picture},
                              .outputs = (void *[]){moments}};
    run.arena = aligned_alloc(64, program->arena_bytes + 64);
    check(ops->run(program, &run, &err), &err);
    for (int i = 0; i < 64 * 4; i++)
        latents[i] = moments[i / 4 * 8 + i % 4] * 0.18215F;
    preview_learn(loaded);
    memcpy(known.factors, standard[0], sizeof(standard[0]));
    print_message("  rms %.3f, with the known factors %.3f\n",
                  sqrt(error_of(&loaded->preview, latents, colours) / 192),
                  sqrt(error_of(&known, latents, colours) / 192));
    assert_true(error_of(&loaded->preview, latents, colours) < 192 * 0.2 * 0.2);
    assert_true(error_of(&known, latents, colours) > 192 * 0.3 * 0.3);
    free(run.arena);
    ops->program_free(program);
    graph_free(graph);
    free(picture);
    free(moments);
    engine_model_free(loaded);
}

static int set_up(void **state)
{
    (void)state;
    small_engine_open();
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_an_encoder_they_are_the_known_ones),
        cmocka_unit_test(sdxl_has_its_own),
        cmocka_unit_test(they_are_learned_from_the_encoder),
    };

    return cmocka_run_group_tests(tests, set_up, small_engine_tear_down);
}
