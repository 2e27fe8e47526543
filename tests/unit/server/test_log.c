/* The merged log and the splitter of workers' output. */
#include "unit.h"

#include "base/buf.h"
#include "base/clock.h"
#include "server/log/lines.h"
#include "server/log/log.h"

#include <pthread.h>
#include <stdbool.h>
#include <unistd.h>

static void collect(void *data, const char *line, size_t len)
{
    struct buf *out = data;

    assert_int_equal(strlen(line), len);
    buf_append(out, line, len);
    buf_append(out, "|", 1);
}

static void lines_come_out_once_however_they_arrive(void **state)
{
    static const char text[] = "one\r\ntwo\n\n 33%\r 66%\rthree";

    (void)state;
    for (size_t step = 1; step <= sizeof(text); step++) {
        struct line_splitter l = {0};
        struct buf out = {0};

        for (size_t at = 0; at < sizeof(text) - 1; at += step) {
            size_t n = sizeof(text) - 1 - at < step ? sizeof(text) - 1 - at : step;

            lines_feed(&l, text + at, n, collect, &out);
        }
        lines_finish(&l, collect, &out);
        assert_string_equal(buf_str(&out), "one|two| 33%| 66%|three|");
        lines_release(&l);
        buf_release(&out);
    }
}

static void count(void *data, const char *line, size_t len)
{
    size_t *sums = data;

    (void)line;
    sums[0]++;
    if (len > sums[1])
        sums[1] = len;
}

static void a_line_without_end_is_cut(void **state)
{
    struct line_splitter l = {0};
    size_t sums[2] = {0};
    char block[1000];

    (void)state;
    memset(block, 'x', sizeof(block));
    for (int i = 0; i < 1000; i++)
        lines_feed(&l, block, sizeof(block), count, sums);
    lines_feed(&l, "\nshort\n", 7, count, sums);
    assert_int_equal(sums[0], 2);
    assert_int_equal(sums[1], LOG_LINE_MAX);
    assert_true(l.partial.cap <= 3 * LOG_LINE_MAX);
    lines_release(&l);
}

static void the_ring_keeps_the_newest(void **state)
{
    struct line_ring r = {0};
    const char *lines[LINES_KEPT];

    (void)state;
    assert_int_equal(line_ring_tail(&r, lines, LINES_KEPT), 0);
    for (int i = 0; i < 120; i++) {
        char line[16];
        int n = snprintf(line, sizeof(line), "%d", i);

        line_ring_add(&r, line, (size_t)n);
    }
    assert_int_equal(line_ring_tail(&r, lines, LINES_KEPT), LINES_KEPT);
    assert_string_equal(lines[0], "70");
    assert_string_equal(lines[LINES_KEPT - 1], "119");
    assert_int_equal(line_ring_tail(&r, lines, 2), 2);
    assert_string_equal(lines[0], "118");
    line_ring_release(&r);
}

static char *read_all(int fd)
{
    struct buf text = {0};
    ssize_t n;

    while ((n = read(fd, buf_reserve(&text, 4096), 4096)) > 0)
        text.len += (size_t)n;
    buf_reserve(&text, 1);
    text.data[text.len] = '\0';
    return buf_take(&text);
}

static void every_line_has_its_prefix(void **state)
{
    int ends[2];
    struct log *log;
    char *text;

    (void)state;
    assert_int_equal(pipe(ends), 0);
    log = log_new(ends[1], LOG_INFO);
    log_info(log, "Starting Orchestrator on port %d...", 1234);
    log_debug(log, "not shown");
    log_line(log, LOG_SD, "step 1\n", 7);
    log_line(log, LOG_LLM, "\x1b[31mred\a", 9);
    log_free(log);
    close(ends[1]);
    text = read_all(ends[0]);
    assert_string_equal(text, "[Orchestrator] Starting Orchestrator on port 1234...\n"
                              "[SD] step 1\n[LLM] \\x1b[31mred\\x07\n");
    free(text);
    close(ends[0]);
}

struct reader {
    int fd;
    pthread_mutex_t mutex;
    struct buf text;
};

static void *read_on(void *arg)
{
    struct reader *r = arg;
    char part[65536];
    ssize_t n;

    while ((n = read(r->fd, part, sizeof(part))) > 0) {
        pthread_mutex_lock(&r->mutex);
        buf_append(&r->text, part, (size_t)n);
        pthread_mutex_unlock(&r->mutex);
    }
    return NULL;
}

static bool has_read(struct reader *r, const char *what)
{
    bool found;

    pthread_mutex_lock(&r->mutex);
    found = strstr(buf_str(&r->text), what) != NULL;
    pthread_mutex_unlock(&r->mutex);
    return found;
}

/* Nobody reads: the caller goes on, the memory is bounded, and what is missing is counted. */
static void a_sleeping_reader_stops_nobody(void **state)
{
    struct reader r = {.mutex = PTHREAD_MUTEX_INITIALIZER};
    uint64_t begun = clock_ms();
    pthread_t thread;
    struct log *log;
    int ends[2];

    (void)state;
    assert_int_equal(pipe(ends), 0);
    log = log_new(ends[1], LOG_INFO);
    for (int i = 0; i < 40000; i++)
        log_info(log, "%d %0100d", i, 0);
    assert_true(clock_ms() - begun < 5000);
    r.fd = ends[0];
    assert_int_equal(pthread_create(&thread, NULL, read_on, &r), 0); /* it wakes up */
    for (int i = 0; i < 1000 && !has_read(&r, "lines were dropped: nobody read them");
         i++) {
        log_info(log, "awake");
        usleep(10000);
    }
    log_free(log);
    close(ends[1]);
    pthread_join(thread, NULL);
    close(ends[0]);
    assert_true(
        has_read(&r, " lines were dropped: nobody read them\n[Orchestrator] awake\n"));
    assert_true(r.text.len < 3 << 20); /* of 4.5 MB: two buffers and the pipe */
    buf_release(&r.text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lines_come_out_once_however_they_arrive),
        cmocka_unit_test(a_line_without_end_is_cut),
        cmocka_unit_test(the_ring_keeps_the_newest),
        cmocka_unit_test(every_line_has_its_prefix),
        cmocka_unit_test(a_sleeping_reader_stops_nobody),
    };

    return RUN_TESTS(tests);
}
