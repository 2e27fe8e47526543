/* feed: everything that happens in this server as one numbered stream, kept for a while so that a client whose
 * connection broke misses nothing: GET /v1/events.
 *
 *   struct feed *f = feed_new(loop, log);
 *   feed_add(f, FEED_WORKER, json);                       // takes the JSON; lines of the log come by themselves
 *   feed_subscribe(f, x, &wish, snapshot, me);            // until the client leaves
 *
 * An event is `id: BOOT-NUMBER`, `event: worker|job|queue|memory|move|log`, `data: JSON`. The numbers rise by one; BOOT is
 * new with each start of the server. A client without Last-Event-ID is first told everything as it is (`snapshot`);
 * one with it gets what came since. Where that is not kept any more, or was another server's, `gap` says so and
 * `snapshot` follows. Loop thread only.
 */
#ifndef MYSTI_SERVER_EVENTS_FEED_H
#define MYSTI_SERVER_EVENTS_FEED_H

#include "base/err.h"
#include "server/log/log.h"

#include <jansson.h>
#include <stdbool.h>

struct feed;
struct http_exchange;
struct uv_loop_s;

#define FEED_TOPICS(X)                                                                 \
    X(WORKER, "worker") /* a worker as it is now */                                    \
    X(JOB, "job")       /* a picture job: where it is, how it ended */                 \
    X(QUEUE, "queue")   /* how many run and wait */                                    \
    X(MEMORY, "memory") /* while somebody listens */                                   \
    X(MOVE, "move")     /* somebody gave way for memory, or came back */               \
    X(LOG, "log")                                                                      \
    X(PREVIEW, "preview") /* of a picture that is drawn; only for who names it */

enum feed_topic {
#define X(name, word) FEED_##name,
    FEED_TOPICS(X)
#undef X
        FEED_TOPIC_COUNT
};

struct feed_wish {
    bool wants[FEED_TOPIC_COUNT];
    enum log_level level; /* lines of the log up to this */
    const char *after;    /* Last-Event-ID; NULL: none */
};

/* Everything as it is now, at most once per subscription and from inside it or from the loop. A new reference. */
typedef json_t *feed_snapshot_fn(void *user);

struct feed *feed_new(struct uv_loop_s *loop, struct log *log);
/* Ends every stream, frees when its handles are closed (the loop has to turn once more). */
void feed_free(struct feed *f);
void feed_add(struct feed *f, enum feed_topic topic, json_t *data);
/* To who is there and wants it, without a number: it is neither kept nor told again. Takes the JSON. */
void feed_tell(struct feed *f, enum feed_topic topic, json_t *data);
bool feed_wants(const struct feed *f, enum feed_topic topic);
/* Is anybody there for whom it is worth the trouble to look? */
bool feed_is_heard(const struct feed *f);
/* types: "worker,job" or NULL for all but previews; level: "error" ... "debug" or NULL for "info". The sentence lists the words. */
int feed_wish_read(struct feed_wish *ret, const char *types, const char *level,
                   struct err *err) MUST_CHECK;
void feed_subscribe(struct feed *f, struct http_exchange *x,
                    const struct feed_wish *wish, feed_snapshot_fn *snapshot,
                    void *user);

#endif
