/* Memory for one picture, before it is drawn. How much is the engine's to say, which knows it to the byte from the plan of the
 * model at that size; whether there is that much, and who gives way, the supervisor's. The worker is asked each time, because
 * the answer is what it compiles for the job in any case, and keeps.
 *
 * Where it does not fit at once, the worker is asked what the picture takes when it is drawn in pieces, and the job is sent with
 * the room that was given as its budget.
 *
 * A worker that cannot say it (a job that is wrong, a worker about to go) is sent the job all the same: what is wrong comes
 * out there, with the sentences and the second chances that belong to it.
 */
#include "server/queue/run.h"

#include "http/client.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define QUESTION_LIMIT_MS 120000 /* a size is compiled on the first question */

static void on_room(void *user, const struct err *err)
{
    struct job_queue *q = user;

    if (q->run.stage != RUN_ROOM)
        return;
    if (err) {
        run_fail(q, err);
    } else if (supervisor_is_ready(q->o.supervisor, WORKER_SD, run_need(q->run.job))) {
        uint64_t given = supervisor_picture_bytes(q->o.supervisor);

        q->run.job->budget_bytes = given < q->run.needed ? given : 0;
        run_send(q);
    } else { /* the worker was lost meanwhile, or gave way itself: its room is not kept for it */
        run_leave_room(q);
        run_ask_again(q);
    }
}

/* 0: it could not be told */
static uint64_t growth_of(const struct err *err, int status, const char *body,
                          size_t len)
{
    json_t *answer = err || status != 200 ? NULL : json_loadb(body, len, 0, NULL);
    json_int_t peak = json_integer_value(json_object_get(answer, "peak_bytes"));
    json_int_t resident = json_integer_value(json_object_get(answer, "resident_bytes"));

    json_decref(answer);
    return peak > resident ? (uint64_t)(peak - resident) : 0;
}

/* The answer to a question. False: there is none in it, and the job goes its way without. */
static bool take_growth(struct job_queue *q, const struct err *err, int status,
                        const char *body, size_t len, uint64_t *ret)
{
    q->run.question = NULL;
    q->run.job->budget_bytes = 0;
    *ret = growth_of(err, status, body, len);
    if (status == 409)
        run_ask_again(q);
    else if (!*ret)
        run_send(q);
    return status != 409 && *ret;
}

static void ask_for_room(struct job_queue *q, uint64_t least)
{
    q->run.stage = RUN_ROOM;
    supervisor_picture_room(q->o.supervisor, q->run.needed, least, on_room, q);
}

static void on_least(void *user, const struct err *err, int status, const char *body,
                     size_t len)
{
    struct job_queue *q = user;
    uint64_t least;

    if (take_growth(q, err, status, body, len, &least))
        ask_for_room(q, least);
}

static void ask(struct job_queue *q, http_on_fetched_fn *on_answer)
{
    struct worker_snapshot worker;
    char *body = run_job_body(q->run.job);

    supervisor_snapshot(q->o.supervisor, WORKER_SD, &worker);
    const struct http_fetch_options o = {.host = "127.0.0.1",
                                         .port = worker.port,
                                         .method = "POST",
                                         .target = "/internal/estimate",
                                         .bearer = worker.token,
                                         .body = body,
                                         .body_len = strlen(body),
                                         .timeout_ms = QUESTION_LIMIT_MS};

    q->run.stage = RUN_ASKING;
    q->run.question = http_fetch_start(q->o.client, &o, on_answer, q);
    free(body);
}

static void on_needs(void *user, const struct err *err, int status, const char *body,
                     size_t len)
{
    struct job_queue *q = user;

    if (!take_growth(q, err, status, body, len, &q->run.needed))
        return;
    if (supervisor_picture_fits(q->o.supervisor, q->run.needed)) {
        ask_for_room(q, 0);
    } else { /* no budget at all: the answer is what the way takes that takes least */
        q->run.job->budget_bytes = 1;
        ask(q, on_least);
    }
}

void run_ask_room(struct job_queue *q)
{
    q->run.job->budget_bytes = 0;
    ask(q, on_needs);
}

void run_leave_room(struct job_queue *q)
{
    if (q->run.question)
        http_fetch_cancel(q->run.question);
    q->run.question = NULL;
    supervisor_picture_over(q->o.supervisor);
}
