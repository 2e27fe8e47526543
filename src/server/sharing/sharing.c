/* What the picture worker has been told last is kept together with the start (generation) of the process that was
 * told; whenever the supervisor reports a change, that is compared with what is so now, and a difference is sent. One
 * message at a time: what changes meanwhile is seen when the answer is there. A worker that does not answer
 * is the supervisor's business and is told again with the next change.
 *
 * A new process knows the policy from its arguments and takes text as not running. So while nothing is being drawn nothing
 * is said: it does not matter then, and text requests cost no message. (The policy alone is said at any time.)
 *
 * A chat is a row of requests with short gaps, and a picture gains nothing from a gap: the end of text is told
 * only after HOLD_MS without any.
 */
#include "server/sharing/sharing.h"

#include "base/mem.h"
#include "http/client.h"
#include "server/log/log.h"
#include "server/supervisor/supervisor.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HOLD_MS 300
#define ANSWER_LIMIT_MS 5000

struct state {
    unsigned generation; /* of the process that this holds for */
    enum sharing sharing;
    bool text_runs;
};

struct sharing_watch {
    struct http_client *client;
    struct supervisor *supervisor;
    struct log *log;
    enum sharing sharing;
    struct state told, telling;
    struct http_fetch *fetch; /* NULL: nothing is under way */
    uv_timer_t *hold;
    bool held; /* text has ended, and nobody was told so far */
};

static void look(struct sharing_watch *w);

static void on_told(void *user, const struct err *err, int status, const char *body,
                    size_t len)
{
    struct sharing_watch *w = user;

    (void)body;
    (void)len;
    w->fetch = NULL;
    if (err || status != 200) {
        log_debug(w->log, "The picture worker did not hear about sharing: %s",
                  err ? err->message : "it refused");
        return;
    }
    w->told = w->telling;
    look(w);
}

static void tell(struct sharing_watch *w, const struct worker_snapshot *sd,
                 const struct state *now)
{
    char body[96];
    int len = snprintf(body, sizeof(body), "{\"policy\":\"%s\",\"text_running\":%s}",
                       sharing_word(now->sharing), now->text_runs ? "true" : "false");
    const struct http_fetch_options o = {
        .port = sd->port,
        .method = "POST",
        .target = "/internal/sharing",
        .bearer = sd->token,
        .body = body,
        .body_len = (size_t)len,
        .timeout_ms = ANSWER_LIMIT_MS,
    };

    w->telling = *now;
    w->fetch = http_fetch_start(w->client, &o, on_told, w);
}

static void on_hold_over(uv_timer_t *timer)
{
    struct sharing_watch *w = timer->data;

    w->held = true;
    look(w);
}

/* Does text run, with a short gap counted as running? */
static bool text_runs(struct sharing_watch *w)
{
    if (supervisor_text_running(w->supervisor)) {
        w->held = false;
        uv_timer_stop(w->hold);
        return true;
    }
    if (!w->told.text_runs || w->held)
        return false;
    if (!uv_is_active((uv_handle_t *)w->hold))
        uv_timer_start(w->hold, on_hold_over, HOLD_MS, 0);
    return true;
}

static void look(struct sharing_watch *w)
{
    struct worker_snapshot sd;
    struct state now;

    supervisor_snapshot(w->supervisor, WORKER_SD, &sd);
    if (w->fetch || (sd.state != WORKER_READY && sd.state != WORKER_BUSY))
        return;
    if (w->told.generation != sd.generation)
        w->told =
            (struct state){.generation = sd.generation, .sharing = w->told.sharing};
    now = (struct state){.generation = sd.generation,
                         .sharing = w->sharing,
                         .text_runs = w->told.text_runs};
    if (sd.state == WORKER_BUSY)
        now.text_runs = text_runs(w);
    if (now.text_runs != w->told.text_runs || now.sharing != w->told.sharing)
        tell(w, &sd, &now);
}

static void on_change(void *user, int id)
{
    (void)id;
    look(user);
}

struct sharing_watch *sharing_watch_new(struct http_client *client,
                                        struct supervisor *supervisor, struct log *log,
                                        enum sharing sharing)
{
    struct sharing_watch *w = mem_zalloc(sizeof(*w));

    w->client = client;
    w->supervisor = supervisor;
    w->log = log;
    w->sharing = w->told.sharing = sharing;
    w->hold = mem_zalloc(sizeof(*w->hold));
    uv_timer_init(http_client_loop(client), w->hold);
    w->hold->data = w;
    supervisor_listen(supervisor, on_change, w);
    return w;
}

static void on_timer_closed(uv_handle_t *timer)
{
    free(timer);
}

void sharing_watch_free(struct sharing_watch *w)
{
    if (!w)
        return;
    if (w->fetch)
        http_fetch_cancel(w->fetch);
    uv_close((uv_handle_t *)w->hold, on_timer_closed);
    free(w);
}

enum sharing sharing_watch_get(const struct sharing_watch *w)
{
    return w->sharing;
}

void sharing_watch_set(struct sharing_watch *w, enum sharing sharing)
{
    bool text_moves =
        sharing_text_gives_way(w->sharing) != sharing_text_gives_way(sharing);

    if (w->sharing == sharing)
        return;
    w->sharing = sharing;
    log_info(w->log, "Sharing: %s from now on%s", sharing_word(sharing),
             text_moves ? "; the text worker takes its new place when it is restarted "
                          "(POST /v1/workers/llm/restart)"
                        : "");
    look(w);
}
