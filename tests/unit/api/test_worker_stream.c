#include "unit.h"

#include "base/mem.h"
#include "server/queue/worker_stream.h"

struct seen {
    struct buf words; /* names of events; pictures as their bytes in brackets */
};

static void on_event(void *user, const char *name, const json_t *event)
{
    struct seen *seen = user;

    (void)event;
    buf_printf(&seen->words, "%s ", name);
}

static void on_picture(void *user, const json_t *head, unsigned char *png, size_t size)
{
    struct seen *seen = user;

    buf_printf(&seen->words, "%d[%.*s] ",
               (int)json_integer_value(json_object_get(head, "seed")), (int)size,
               (const char *)png);
    free(png);
}

static int feed(struct seen *seen, const char *text, size_t piece, struct err *err)
{
    struct worker_stream s = {
        .on_event = on_event, .on_picture = on_picture, .user = seen};
    size_t len = strlen(text);
    int rc = 0;

    for (size_t at = 0; at < len && !rc; at += piece)
        rc =
            worker_stream_feed(&s, text + at, len - at < piece ? len - at : piece, err);
    worker_stream_release(&s);
    return rc;
}

static void events_and_pictures_in_any_pieces(void **state)
{
    static const char text[] =
        "{\"event\":\"phase\",\"phase\":\"encode\"}\n"
        "{\"event\":\"image\",\"seed\":7,\"bytes\":12}\nbytes\nand {}\n"
        "{\"event\":\"image\",\"seed\":8,\"bytes\":1}\nx\n{\"event\":\"done\"}\n";

    (void)state;
    for (size_t piece = 1; piece <= sizeof(text); piece++) {
        struct seen seen = {0};
        struct err err = {0};

        assert_int_equal(feed(&seen, text, piece, &err), 0);
        assert_string_equal(buf_str(&seen.words), "phase 7[bytes\nand {}] 8[x] done ");
        buf_release(&seen.words);
    }
}

static void nonsense_is_one_sentence(void **state)
{
    static const char *const cases[] = {
        "not json\n",
        "\n",
        "[]\n",
        "{}\n",
        "{\"event\":7}\n",
        "{\"event\":\"image\"}\n",
        "{\"event\":\"image\",\"bytes\":-5}\n",
        "{\"event\":\"image\",\"bytes\":0}\n",
        "{\"event\":\"image\",\"bytes\":1e300}\n",
        "{\"event\":\"image\",\"bytes\":9223372036854775807}\n",
        "{\"event\":\"image\",\"bytes\":2}\nabX",
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct seen seen = {0};
        struct err err = {0};

        assert_int_equal(feed(&seen, cases[i], 1000, &err), -1);
        assert_int_equal(err.code, ERR_BAD_GATEWAY);
        buf_release(&seen.words);
    }
}

static void an_endless_line_is_not_kept(void **state)
{
    char *text = mem_zalloc(WORKER_LINE_MAX + 100);
    struct seen seen = {0};
    struct err err = {0};

    (void)state;
    memset(text, 'a', WORKER_LINE_MAX + 99);
    assert_int_equal(feed(&seen, text, 4096, &err), -1);
    free(text);
}

static void no_memory_for_a_picture_is_said(void **state)
{
    struct seen seen = {0};
    struct err err = {0};

    (void)state;
    mem_fail_after(1);
    assert_int_equal(feed(&seen, "{\"event\":\"image\",\"bytes\":1000}\n", 1000, &err),
                     -1);
    mem_fail_after(0);
    assert_int_equal(err.code, ERR_NO_MEMORY);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(events_and_pictures_in_any_pieces),
        cmocka_unit_test(nonsense_is_one_sentence),
        cmocka_unit_test(an_endless_line_is_not_kept),
        cmocka_unit_test(no_memory_for_a_picture_is_said),
    };

    return RUN_TESTS(tests);
}
