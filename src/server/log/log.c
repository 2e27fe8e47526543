/* The log: lines from three processes, one stream.
 *
 * Why a thread: standard output may be a pipe whose reader sleeps (`mysti_server | less`), a slow terminal,
 * or a full disk. A write from the loop would stop every token stream with it. Making the descriptor
 * non-blocking was rejected: the flag belongs to the open file and would reach the user's shell and every
 * other program that shares the terminal. So the loop only copies a line into memory, and one small thread
 * does the blocking writes.
 *
 * Flow: a line is formatted and cut outside the lock, appended to `pending` under the lock; the thread swaps
 * `pending` with an empty buffer and writes that. Lines stay whole and in order. The memory is bounded by
 * PENDING_MAX: beyond it lines are dropped and counted, and the count becomes a line as soon as there is
 * room, so that a reader knows that something is missing.
 *
 * Invariants: every line ends with exactly one newline and begins with its prefix; no control character of a
 * worker reaches the terminal (an engine that prints file names must not be able to move the cursor);
 * the buffers grow to what a burst needed and are given back when it is over, because an idle server's memory is
 * promised to be small. */
#include "server/log/log.h"

#include "base/buf.h"
#include "base/clock.h"
#include "base/mem.h"

#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define PENDING_MAX (1024 * 1024)
#define KEEP_MAX (16 * 1024) /* a buffer larger than this is given back when empty */
#define CLOSE_WAIT_MS 1000

struct log {
    int fd;
    atomic_int level;
    pthread_t thread;
    bool has_thread;
    pthread_mutex_t mutex; /* for all below */
    pthread_cond_t changed;
    struct buf pending;
    unsigned long dropped;
    log_heard_fn *heard;
    void *heard_data;
    bool closing;
    bool finished; /* the thread has written everything and ends */
};

static const char *const prefixes[] = {
    [LOG_ORCHESTRATOR] = "[Orchestrator] ",
    [LOG_SD] = "[SD] ",
    [LOG_LLM] = "[LLM] ",
};

static void write_all(int fd, const char *data, size_t len)
{
    while (len > 0) {
        ssize_t n = write(fd, data, len);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN) { /* somebody else made it non-blocking */
            struct timespec nap = {.tv_nsec = 10 * 1000 * 1000};

            nanosleep(&nap, NULL);
            continue;
        }
        if (n < 0)
            return; /* nobody to tell */
        data += n;
        len -= (size_t)n;
    }
}

static void *write_lines(void *arg)
{
    struct log *log = arg;
    struct buf writing = {0};

    pthread_mutex_lock(&log->mutex);
    for (;;) {
        struct buf swap;

        while (log->pending.len == 0 && !log->closing)
            pthread_cond_wait(&log->changed, &log->mutex);
        if (log->pending.len == 0)
            break;
        swap = writing;
        writing = log->pending;
        log->pending = swap;
        pthread_mutex_unlock(&log->mutex);
        write_all(log->fd, writing.data, writing.len);
        if (writing.cap > KEEP_MAX)
            buf_release(&writing);
        buf_clear(&writing);
        pthread_mutex_lock(&log->mutex);
    }
    log->finished = true;
    pthread_cond_broadcast(&log->changed);
    pthread_mutex_unlock(&log->mutex);
    buf_release(&writing);
    return NULL;
}

struct log *log_new(int fd, enum log_level level)
{
    struct log *log = mem_zalloc(sizeof(*log));
    pthread_condattr_t attributes;
    pthread_attr_t thread;

    log->fd = fd;
    atomic_init(&log->level, level);
    pthread_mutex_init(&log->mutex, NULL);
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&log->changed, &attributes);
    pthread_condattr_destroy(&attributes);
    pthread_attr_init(&thread);
    pthread_attr_setstacksize(&thread, 128 * 1024);
    log->has_thread = !pthread_create(&log->thread, &thread, write_lines, log);
    pthread_attr_destroy(&thread);
    return log;
}

void log_set_level(struct log *log, enum log_level level)
{
    atomic_store(&log->level, level);
}

void log_free(struct log *log)
{
    struct timespec until;
    bool finished;

    if (!log)
        return;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += CLOSE_WAIT_MS / 1000;
    pthread_mutex_lock(&log->mutex);
    log->closing = true;
    pthread_cond_broadcast(&log->changed);
    while (log->has_thread && !log->finished &&
           !pthread_cond_timedwait(&log->changed, &log->mutex, &until))
        ;
    finished = log->finished;
    pthread_mutex_unlock(&log->mutex);
    if (log->has_thread && !finished) {
        pthread_detach(log->thread); /* stuck in write(): it keeps its memory */
        return;
    }
    if (log->has_thread)
        pthread_join(log->thread, NULL);
    buf_release(&log->pending);
    pthread_cond_destroy(&log->changed);
    pthread_mutex_destroy(&log->mutex);
    free(log);
}

/* The text with control characters made visible, cut at LOG_LINE_MAX. */
static void append_clean(struct buf *out, const char *text, size_t len)
{
    size_t kept = len > LOG_LINE_MAX ? LOG_LINE_MAX : len;

    /* not in the middle of a UTF-8 sequence */
    while (kept < len && kept > 0 && ((unsigned char)text[kept] & 0xC0) == 0x80)
        kept--;
    for (size_t i = 0, start = 0; i <= kept; i++) {
        unsigned char c = i < kept ? (unsigned char)text[i] : 0;

        if (i < kept && (c >= 0x20 || c == '\t') && c != 0x7f)
            continue;
        buf_append(out, text + start, i - start);
        if (i < kept)
            buf_printf(out, "\\x%02x", c);
        start = i + 1;
    }
    if (kept < len)
        buf_printf(out, " ... [%zu bytes cut]", len - kept);
}

static void push(struct log *log, enum log_level level, enum log_source source,
                 const char *text, size_t len)
{
    struct buf line = {0};

    while (len > 0 && (text[len - 1] == '\n' || text[len - 1] == '\r'))
        len--;
    buf_append_str(&line, prefixes[source]);
    append_clean(&line, text, len);
    buf_append(&line, "\n", 1);

    pthread_mutex_lock(&log->mutex);
    if (log->heard) {
        size_t prefix = strlen(prefixes[source]);

        log->heard(log->heard_data, level, source, line.data + prefix,
                   line.len - prefix - 1);
    }
    if (!log->has_thread) {
        write_all(log->fd, line.data, line.len);
    } else if (log->pending.len + line.len > PENDING_MAX) {
        log->dropped++;
    } else {
        if (log->dropped) {
            buf_printf(&log->pending, "%s%lu lines were dropped: nobody read them\n",
                       prefixes[LOG_ORCHESTRATOR], log->dropped);
            log->dropped = 0;
        }
        buf_append(&log->pending, line.data, line.len);
        pthread_cond_signal(&log->changed);
    }
    pthread_mutex_unlock(&log->mutex);
    buf_release(&line);
}

static void push_format(struct log *log, enum log_level level, const char *format,
                        va_list ap) __attribute__((format(printf, 3, 0)));
static void push_format(struct log *log, enum log_level level, const char *format,
                        va_list ap)
{
    char text[LOG_LINE_MAX];
    int n;

    if (!log || (int)level > atomic_load_explicit(&log->level, memory_order_relaxed))
        return;
    n = vsnprintf(text, sizeof(text), format, ap);
    if (n < 0)
        return;
    push(log, level, LOG_ORCHESTRATOR, text,
         (size_t)n < sizeof(text) ? (size_t)n : sizeof(text) - 1);
}

#define DEFINE_LEVEL(name, level)                                                      \
    void name(struct log *log, const char *format, ...)                                \
    {                                                                                  \
        va_list ap;                                                                    \
        va_start(ap, format);                                                          \
        push_format(log, level, format, ap);                                           \
        va_end(ap);                                                                    \
    }

DEFINE_LEVEL(log_error, LOG_ERROR)
DEFINE_LEVEL(log_warning, LOG_WARNING)
DEFINE_LEVEL(log_info, LOG_INFO)
DEFINE_LEVEL(log_debug, LOG_DEBUG)

void log_line(struct log *log, enum log_source source, const char *line, size_t len)
{
    if (log)
        push(log, LOG_INFO, source, line, len);
}

void log_listen(struct log *log, log_heard_fn *heard, void *data)
{
    pthread_mutex_lock(&log->mutex);
    log->heard = heard;
    log->heard_data = data;
    pthread_mutex_unlock(&log->mutex);
}
