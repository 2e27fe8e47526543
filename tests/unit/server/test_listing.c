/* The question to the text engine which cards it can use, asked of small scripts: what it says, that it says nothing, that it does not
 * end. */
#include "unit.h"

#define LIMIT_MS 500
#include "server/supervisor/listing.c"

#include "base/file.h"

#include <sys/stat.h>

static struct {
    int cards;
    char lines[512];
    char program[64];
} it;

int devices_gpus(const struct devices *d, const char *root, struct gpu *ret, int max)
{
    (void)d;
    (void)root;
    (void)ret;
    assert_int_equal(max, 1);
    return it.cards;
}

void devices_take_listed(struct devices *d, const char *line)
{
    (void)d;
    snprintf(it.lines + strlen(it.lines), sizeof(it.lines) - strlen(it.lines), "%s|",
             line);
}

char *worker_program(const struct worker *w)
{
    (void)w;
    return mem_strdup(it.program);
}

static void ask(int cards, const char *script)
{
    char llama_server[] = "/opt/llama-server";
    struct config config = {.llama_server = llama_server};
    struct worker w = {.id = 0};
    struct supervisor s = {
        .config = &config,
        .log = log_new(open("/dev/null", O_WRONLY | O_CLOEXEC), LOG_INFO),
        .workers = {&w}};

    it.cards = cards;
    it.lines[0] = '\0';
    snprintf(it.program, sizeof(it.program), "/tmp/mysti-listing-%d", (int)getpid());
    if (script)
        assert_int_equal(
            file_write_atomic(it.program, script, strlen(script), 0700, NULL), 0);
    listing_ask(&s);
    (void)unlink(it.program);
    log_free(s.log);
}

static void what_it_says_is_taken_line_by_line(void **state)
{
    (void)state;
    ask(1, "#!/bin/sh\necho \"$@\"\necho pid $MYSTI_SERVER_PID\necho noise >&2\n"
           "sleep 0.1\nprintf '  Vulkan0: one'\n");
    char expected[128];

    snprintf(expected, sizeof(expected),
             "--list-devices --llama-server /opt/llama-server|pid %d|  Vulkan0: one|",
             (int)getpid());
    assert_string_equal(it.lines, expected);
}

static void without_a_card_nobody_is_asked(void **state)
{
    (void)state;
    ask(0, "#!/bin/sh\necho '  Vulkan0: one'\n");
    assert_string_equal(it.lines, "");
}

static void half_an_answer_is_none(void **state)
{
    uint64_t from = clock_ms();

    (void)state;
    ask(1, "#!/bin/sh\necho '  Vulkan0: one'\nsleep 30\n");
    assert_string_equal(it.lines, "");
    assert_true(clock_ms() - from < 20000); /* it was ended, not waited for */
}

static void a_program_that_is_not_there(void **state)
{
    (void)state;
    ask(1, NULL);
    assert_string_equal(it.lines, "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_it_says_is_taken_line_by_line),
        cmocka_unit_test(without_a_card_nobody_is_asked),
        cmocka_unit_test(half_an_answer_is_none),
        cmocka_unit_test(a_program_that_is_not_there),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
