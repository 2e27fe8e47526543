/* How much a text model will take: against what llama-server's log and /proc say of the starter writer, and with files
 * that say little, or lie. */
#include "unit.h"

#include "server/memory/learned.h"
#include "server/memory/predict.h"

#include <string.h>

#define MIB (1024.0 * 1024)

static struct model_peek the_starter(void)
{
    struct model_peek m;
    struct err err = {0};

    assert_int_equal(
        model_peek(MYSTI_SOURCE_DIR "/models/starter/starter-writer.gguf", &m, &err),
        0);
    return m;
}

#define PROCESS 24 /* MiB of compute_bytes that are no buffers */
#define PROGRAM 16 /* of these, pages of programs and libraries */

static void assert_near(double got, double want, double share)
{
    if (got < want * (1 - share) || got > want * (1 + share))
        fail_msg("%.2f, not %.2f", got, want);
}

static void what_the_file_says(void **state)
{
    struct model_peek m = the_starter();

    (void)state;
    assert_int_equal(m.layers, 6);
    assert_int_equal(m.width, 256);
    assert_int_equal(m.feed_forward, 640);
    assert_int_equal(m.heads, 4);
    assert_int_equal(m.kv_heads, 24);
    assert_int_equal(m.vocabulary, 2048);
    assert_false(m.has_unknown_type);
    assert_near((double)(m.layer_bytes + m.other_bytes) / MIB, 5.13, 0.005);
}

/* "CPU_Mapped model buffer size", "CPU KV buffer size", "CPU compute buffer size" and RssAnon of llama-server */
static void as_llama_server_says(void **state)
{
    static const struct {
        struct predict_start start;
        double weights, cache, compute, anonymous; /* MiB */
    } runs[] = {{{512, 1, false, CACHE_F16}, 5.13, 3.00, 6.77, 19.4},
                {{8192, 2, false, CACHE_F16}, 5.13, 96.0, 14.27, 113.3}};
    struct model_peek m = the_starter();

    (void)state;
    for (size_t i = 0; i < sizeof(runs) / sizeof(runs[0]); i++) {
        struct prediction p;

        predict_text(&m, &runs[i].start, &p);
        assert_near((double)p.weight_bytes / MIB, runs[i].weights, 0.005);
        assert_near((double)p.cache_bytes / MIB, runs[i].cache, 0.0001);
        assert_near((double)p.compute_bytes / MIB - PROCESS, runs[i].compute, 0.05);
        assert_near((double)(p.cache_bytes + p.compute_bytes) / MIB - PROGRAM,
                    runs[i].anonymous, 0.1);
        assert_int_equal(p.total_bytes,
                         p.weight_bytes + p.cache_bytes + p.compute_bytes);
    }
}

/* the same of llama-server --embeddings --ubatch-size 1024 --ctx-size 1024, once with two slots. RssAnon is no measure
 * here: before the first text most of these buffers were never touched. */
static void vectors_take_a_batch_as_large_as_a_slot(void **state)
{
    struct model_peek m = the_starter();
    struct prediction p;

    (void)state;
    predict_text(&m, &(struct predict_start){1024, 1, true, CACHE_F16}, &p);
    assert_near((double)p.compute_bytes / MIB - PROCESS, 14.54, 0.05);
    assert_near((double)p.cache_bytes / MIB, 6, 0.0001);
    predict_text(&m, &(struct predict_start){1024, 2, true, CACHE_F16}, &p);
    assert_near((double)p.compute_bytes / MIB - PROCESS, 14.55, 0.05);
    assert_near((double)p.cache_bytes / MIB, 12, 0.0001);
}

static void heads_of_their_own_size(void **state)
{
    struct model_peek m = {.layers = 2,
                           .width = 64,
                           .heads = 4,
                           .kv_heads = 3, /* one layer with 1, one with 2 */
                           .key_length = 8,
                           .value_length = 4,
                           .size_bytes = 1000};
    struct prediction p;

    (void)state;
    predict_text(&m, &(struct predict_start){100, 1, false, CACHE_F16}, &p);
    assert_int_equal(p.cache_bytes, 100 * 3 * 12 * 2);
    assert_int_equal(p.weight_bytes, 1000);
    m.key_length = m.value_length = 0;
    predict_text(&m, &(struct predict_start){100, 1, false, CACHE_F16}, &p);
    assert_int_equal(p.cache_bytes, 100 * 3 * 32 * 2);
    m.keeps_no_values = true;
    predict_text(&m, &(struct predict_start){100, 1, false, CACHE_F16}, &p);
    assert_int_equal(p.cache_bytes, 100 * 3 * 16 * 2);
}

/* "KV buffer size" and "RS buffer size" of llama-server for small random models: Gemma 3 with one full layer of eight, Mamba with
 * eight layers, Jamba with two layers of attention and six of the other kind; 8192 tokens, two slots. */
static void a_smaller_type_is_a_smaller_cache(void **state)
{
    struct model_peek m = the_starter();
    struct predict_start start = {8192, 2, false, CACHE_Q8_0};
    struct prediction p;

    (void)state;
    predict_text(&m, &start, &p);
    assert_near((double)p.cache_bytes / MIB, 51.0, 0.0001); /* "CPU KV buffer size" */
    start.cache_type = CACHE_Q4_0;
    predict_text(&m, &start, &p);
    assert_near((double)p.cache_bytes / MIB, 27.0, 0.0001);
}

static void what_windows_and_states_take(void **state)
{
    struct model_peek m = {.layers = 8,
                           .width = 64,
                           .heads = 4,
                           .kv_heads = 16,
                           .window_heads = 14,
                           .sliding_window = 1024,
                           .key_length = 16,
                           .value_length = 16,
                           .size_bytes = 1000};
    struct prediction p;

    (void)state;
    predict_text(&m, &(struct predict_start){8192, 2, false, CACHE_F16}, &p);
    assert_near((double)p.cache_bytes / MIB, 2.00 + 2.62, 0.002);
    predict_text(&m, &(struct predict_start){1024, 2, false, CACHE_F16},
                 &p); /* all of it is seen */
    assert_int_equal(p.cache_bytes, 2 * 1024 * 16 * 32 * 2);
    m.window_key_length = 8; /* smaller heads where there is a window */
    m.window_value_length = 8;
    predict_text(&m, &(struct predict_start){8192, 2, false, CACHE_F16}, &p);
    assert_near((double)p.cache_bytes / MIB, 2.00 + 1.31, 0.002);
    m = (struct model_peek){.layers = 8, .is_recurrent = true, .state_bytes = 77824};
    predict_text(&m, &(struct predict_start){8192, 2, false, CACHE_F16}, &p);
    assert_near((double)p.cache_bytes / MIB, 0.15, 0.02);
    m.state_bytes = 58368;
    m.kv_heads = 4;
    m.width = 64;
    m.heads = 4;
    predict_text(&m, &(struct predict_start){8192, 2, false, CACHE_F16}, &p);
    assert_near((double)p.cache_bytes / MIB, 4.00 + 0.11, 0.002);
}

static void a_file_that_lies_does_not_wrap(void **state)
{
    struct model_peek m;
    struct prediction p;

    (void)state;
    memset(&m, 0x7f, sizeof(m));
    m.is_recurrent = m.has_unknown_type = m.keeps_no_values = false;
    predict_text(&m, &(struct predict_start){1 << 20, 64, false, CACHE_F16}, &p);
    assert_true(p.cache_bytes == UINT64_MAX && p.total_bytes == UINT64_MAX);
}

static void what_it_took_is_known_the_next_time(void **state)
{
    static const char before[] = "{\"a\": 1000, \"b\": -5, \"c\": \"x\"}";
    struct learned *l = learned_read(before, sizeof(before) - 1), *again;
    char *text, key[16];

    (void)state;
    assert_int_equal(learned_find(l, "a"), 1000);
    assert_int_equal(learned_find(l, "b"), 0);
    assert_false(learned_put(l, "a", 1009)); /* not worth a write */
    assert_int_equal(learned_find(l, "a"), 1000);
    assert_true(learned_put(l, "a", 900));
    for (int i = 0; i < LEARNED_MAX; i++) {
        snprintf(key, sizeof(key), "key %d", i);
        assert_true(learned_put(l, key, 5000));
    }
    assert_int_equal(learned_find(l, "a"), 0); /* not seen for longest */
    assert_int_equal(learned_find(l, "key 0"), 5000);
    text = learned_text(l);
    again = learned_read(text, strlen(text));
    assert_int_equal(learned_find(again, "key 255"), 5000);
    learned_free(again);
    again = learned_read("{\"a\": 1", 7); /* damaged */
    assert_int_equal(learned_find(again, "a"), 0);
    learned_free(again);
    free(text);
    learned_free(l);
}

/* 8 layers of 100, of which 40 are cache for 1000 tokens. */
static const struct prediction a_small_one = {.weight_bytes = 1000,
                                              .cache_bytes = 320,
                                              .compute_bytes = 50,
                                              .layer_bytes = 100,
                                              .layers = 8,
                                              .total_bytes = 1370};

static void a_shorter_context_takes_less(void **state)
{
    struct prediction p = a_small_one;

    (void)state;
    p.cache_bytes = 320000;
    assert_int_equal(predict_spare(&p, 1000, 250), 240000);
    assert_int_equal(predict_spare(&p, 1000, 1000), 0);
    assert_int_equal(predict_spare(&p, 0, 10), 0);
    p.total_bytes = 321050 + 50;
    p.layer_bytes = 40100;
    predict_shorten(&p, 1000, 250);
    assert_int_equal(p.cache_bytes, 80000);
    assert_int_equal(p.total_bytes, 81100);
    assert_int_equal(p.layer_bytes, 10100);
}

static void what_it_had_on_a_card_has_the_drivers_context_in_it(void **state)
{
    struct prediction p = a_small_one;

    (void)state;
    predict_measured_on_card(&p, 1300, -1);
    assert_true(p.is_learned);
    assert_int_equal(p.compute_bytes, 500); /* beside 8 layers */
    assert_int_equal(p.total_bytes, 1370 + 450);
    p = a_small_one;
    predict_measured_on_card(&p, 420, 4);
    assert_int_equal(p.compute_bytes, 20);
    assert_int_equal(p.total_bytes, 1370 - 30);
    p = a_small_one;
    predict_measured_on_card(&p, 700, 100); /* less than the layers: it cannot be */
    assert_false(p.is_learned);
    assert_int_equal(p.compute_bytes, 50);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_the_file_says),
        cmocka_unit_test(as_llama_server_says),
        cmocka_unit_test(vectors_take_a_batch_as_large_as_a_slot),
        cmocka_unit_test(heads_of_their_own_size),
        cmocka_unit_test(a_smaller_type_is_a_smaller_cache),
        cmocka_unit_test(what_windows_and_states_take),
        cmocka_unit_test(a_file_that_lies_does_not_wrap),
        cmocka_unit_test(what_it_took_is_known_the_next_time),
        cmocka_unit_test(a_shorter_context_takes_less),
        cmocka_unit_test(what_it_had_on_a_card_has_the_drivers_context_in_it),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
