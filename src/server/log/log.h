/* log: one merged stream on standard output, every line with the prefix of the process
 * it comes from.
 *
 *   struct log *log = log_new(STDOUT_FILENO, LOG_INFO);
 *   log_info(log, "Starting Orchestrator on port %d...", port);   // [Orchestrator]
 * Starting ... log_line(log, LOG_SD, line);                                  // [SD]
 * ... log_free(log);                                                // what is left is
 * written out
 *
 * Writing never blocks the caller: lines go into a bounded memory from which one thread
 * writes; when nobody reads the other end and the memory is full, lines are dropped and
 * their number is said later. Call from any thread. Nothing here fails in a way that a
 * caller could repair. */
#ifndef MYSTI_SERVER_LOG_LOG_H
#define MYSTI_SERVER_LOG_LOG_H

#include <stddef.h>

enum log_level { LOG_ERROR, LOG_WARNING, LOG_INFO, LOG_DEBUG };

/* prefix of a line: who speaks */
enum log_source { LOG_ORCHESTRATOR, LOG_SD, LOG_LLM };

#define LOG_LINE_MAX 4096 /* bytes; the rest of a longer line is cut, with a mark */

struct log;

struct log *log_new(int fd, enum log_level level);
/* from now on; any thread */
void log_set_level(struct log *log, enum log_level level);
void log_free(
    struct log *log); /* waits up to a second for the reader at the other end */

void log_error(struct log *log, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
void log_warning(struct log *log, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
void log_info(struct log *log, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* only with --verbose */
void log_debug(struct log *log, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* Every line that is written is also handed to `heard`: clean, without prefix and newline, from whichever thread
 * wrote it, so it must be short and must not log. A worker's lines count as LOG_INFO. NULL ends it: once this has
 * returned, nobody is in `heard`. */
typedef void log_heard_fn(void *data, enum log_level level, enum log_source source,
                          const char *text, size_t len);
void log_listen(struct log *log, log_heard_fn *heard, void *data);
/* one line of a worker, as it is (control characters are made visible) */
void log_line(struct log *log, enum log_source source, const char *line, size_t len);

#endif
