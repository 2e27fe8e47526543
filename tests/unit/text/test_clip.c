/* OpenCLIP's encoder under both names it is found under: the same weights are the same vectors, bit for bit, and the layer
 * that diffusers leaves out is not left out twice. What an encoder computes is tests/golden. */
#include "engine/graph/backend.h"
#include "engine/text/clip.h"

#include "made.h"
#include "unit.h"

#include <stdlib.h>
#include <string.h>

enum { WIDTH = 8, SUMMARY = 6, WORDS = 16, POSITIONS = 4, LAYERS = 3 };

#define PREFIX "conditioner.embedders.1."

static const struct clip_kind kind = {.prefix = PREFIX,
                                      .activation = ACT_GELU,
                                      .skipped = 1,
                                      .has_norm = true,
                                      .is_pooled = true};

/* A tensor called `name` with the values of the one called `values` in the other file, from `first` on. */
static void put_as(struct made *m, const char *name, const char *values, int64_t first,
                   int64_t rows, int64_t columns)
{
    const int64_t dim[] = {rows, columns};
    int64_t count = rows * (columns ? columns : 1);
    float *at;

    made_put(m, name, "F32", columns ? 2 : 1, dim);
    at = (float *)(void *)(m->data.data + m->data.len) - count;
    for (int64_t i = 0; i < count; i++)
        at[i] = (float)made_value(values, first + i);
}

static void put_pair(struct made *m, const char *name, const char *values,
                     int64_t outputs, int64_t inputs)
{
    put_as(m, NAME("%s.weight", name), NAME("%s.weight", values), 0, outputs, inputs);
    put_as(m, NAME("%s.bias", name), NAME("%s.bias", values), 0, outputs, 0);
}

static const char *const inside[][2] = {{"ln_1", "layer_norm1"},
                                        {"ln_2", "layer_norm2"},
                                        {"attn.out_proj", "self_attn.out_proj"},
                                        {"mlp.c_fc", "mlp.fc1"},
                                        {"mlp.c_proj", "mlp.fc2"}};

static void put_layer(struct made *m, int layer, bool is_openclip)
{
    struct name ours = name_format(PREFIX "model.transformer.resblocks.%d", layer);
    struct name theirs =
        name_format(PREFIX "transformer.text_model.encoder.layers.%d", layer);
    const char *name = is_openclip ? ours.text : theirs.text;
    struct name joined = name_format("%s.attn.in_proj_", ours.text);

    for (size_t i = 0; i < sizeof(inside) / sizeof(*inside); i++) {
        bool is_fc = strstr(inside[i][0], "c_fc"),
             is_proj = strstr(inside[i][0], "c_p");

        put_pair(m, NAME("%s.%s", name, inside[i][!is_openclip]),
                 NAME("%s.%s", ours.text, inside[i][0]), is_fc ? 4 * WIDTH : WIDTH,
                 i < 2     ? 0
                 : is_proj ? 4 * WIDTH
                           : WIDTH);
    }
    for (int i = 0; i < 3 && !is_openclip; i++) {
        struct name part = name_format("%s.self_attn.%c_proj", name, "qkv"[i]);

        put_as(m, NAME("%s.weight", part.text), NAME("%sweight", joined.text),
               (int64_t)i * WIDTH * WIDTH, WIDTH, WIDTH);
        put_as(m, NAME("%s.bias", part.text), NAME("%sbias", joined.text), i * WIDTH,
               WIDTH, 0);
    }
    if (!is_openclip)
        return;
    put_as(m, NAME("%sweight", joined.text), NAME("%sweight", joined.text), 0,
           3 * WIDTH, WIDTH);
    put_as(m, NAME("%sbias", joined.text), NAME("%sbias", joined.text), 0, 3 * WIDTH,
           0);
}

/* Hugging Face's projection is OpenCLIP's on its side. */
static void put_projection(struct made *m, bool is_openclip)
{
    const char *name = PREFIX "model.text_projection";
    float *at;

    if (is_openclip) {
        put_as(m, name, name, 0, WIDTH, SUMMARY);
        return;
    }
    put_as(m, PREFIX "transformer.text_projection.weight", name, 0, SUMMARY, WIDTH);
    at = (float *)(void *)(m->data.data + m->data.len) - WIDTH * SUMMARY;
    for (int o = 0; o < SUMMARY; o++)
        for (int i = 0; i < WIDTH; i++)
            at[o * WIDTH + i] = (float)made_value(name, i * SUMMARY + o);
}

static struct weights_file *open_file(struct made *m, bool is_openclip, int layers)
{
    const char *model =
        is_openclip ? PREFIX "model." : PREFIX "transformer.text_model.";

    put_as(m,
           NAME("%s%s", model,
                is_openclip ? "token_embedding.weight"
                            : "embeddings.token_embedding.weight"),
           "tokens", 0, WORDS, WIDTH);
    put_as(m,
           NAME("%s%s", model,
                is_openclip ? "positional_embedding"
                            : "embeddings.position_embedding.weight"),
           "positions", 0, POSITIONS, WIDTH);
    put_pair(m, NAME("%s%s", model, is_openclip ? "ln_final" : "final_layer_norm"),
             "last", WIDTH, 0);
    put_projection(m, is_openclip);
    for (int i = 0; i < layers; i++)
        put_layer(m, i, is_openclip);
    return made_open(m);
}

static void *aligned(size_t bytes)
{
    return aligned_alloc(64, (bytes + 63) / 64 * 64);
}

struct result {
    float hidden[POSITIONS * WIDTH], states[POSITIONS * WIDTH], summary[SUMMARY];
};

static void encode(bool is_openclip, struct result *ret)
{
    struct made m = {0};
    struct weights_file *file = open_file(&m, is_openclip, LAYERS);
    struct build b = {graph_new("text"), file, NULL};
    struct backend *backend;
    struct program *program;
    float *hidden = aligned(sizeof(ret->hidden)),
          *states = aligned(sizeof(ret->states));
    int32_t *ids = aligned(POSITIONS * 4);
    struct program_run run = {.inputs = (void *[]){ids},
                              .outputs = (void *[]){hidden, states}};
    struct clip clip;
    int input, last;

    assert_int_equal(clip_open(&clip, file, &kind, 2, NULL), 0);
    assert_int_equal(clip.summary_width, SUMMARY);
    input = graph_input(b.graph, "ids", TENSOR_I32, shape2(1, POSITIONS));
    graph_output(b.graph, "hidden", TENSOR_F32, clip_build(&clip, &b, input, 0, &last));
    graph_output(b.graph, "states", TENSOR_F32, last);
    assert_int_equal(
        backend_open("ref", &(struct backend_options){.threads = 1}, &backend, NULL),
        0);
    struct weight_store *store = backend->ops->store_new(backend, STORE_AS_COMPUTED);

    assert_int_equal(backend->ops->compile(backend, b.graph, store, &program, NULL), 0);
    assert_int_equal(backend->ops->load(program, NULL, NULL), 0);
    run.arena = aligned(program->arena_bytes + 64);
    for (int i = 0; i < POSITIONS; i++)
        ids[i] = 3 * i + 1;
    assert_int_equal(backend->ops->run(program, &run, NULL), 0);
    memcpy(ret->hidden, hidden, sizeof(ret->hidden));
    memcpy(ret->states, states, sizeof(ret->states));
    clip_summarise(&clip, states + (POSITIONS - 1) * WIDTH, ret->summary);
    free(run.arena);
    free(hidden);
    free(states);
    free(ids);
    backend->ops->program_free(program);
    backend->ops->store_free(store);
    backend_close(backend);
    graph_free(b.graph);
    weights_file_close(file);
    made_release(&m);
}

static void both_namings_are_one_encoder(void **state)
{
    struct result ours, theirs;

    (void)state;
    encode(true, &ours);
    encode(false, &theirs);
    assert_memory_equal(ours.hidden, theirs.hidden, sizeof(ours.hidden));
    assert_memory_equal(ours.states, theirs.states, sizeof(ours.states));
    assert_memory_not_equal(ours.hidden, ours.states, sizeof(ours.hidden));
    for (int i = 0; i < SUMMARY; i++) { /* added up in one order in both */
        assert_true(ours.summary[i] == theirs.summary[i]);
        assert_true(ours.summary[i] != 0);
    }
}

/* 24 layers, of which the last is never read; diffusers' files have 23. */
static void the_layer_that_is_not_there_is_not_skipped(void **state)
{
    static const struct {
        bool is_openclip;
        int layers, skipped;
    } cases[] = {{true, 24, 1}, {false, 24, 1}, {false, 23, 0}, {true, 23, 1}};

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        struct made m = {0};
        struct weights_file *file =
            open_file(&m, cases[i].is_openclip, cases[i].layers);
        struct clip clip;

        assert_int_equal(clip_open(&clip, file, &kind, 0, NULL), 0);
        assert_int_equal(clip.layers, cases[i].layers);
        assert_int_equal(clip.skipped, cases[i].skipped);
        weights_file_close(file);
        made_release(&m);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(both_namings_are_one_encoder),
        cmocka_unit_test(the_layer_that_is_not_there_is_not_skipped),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
