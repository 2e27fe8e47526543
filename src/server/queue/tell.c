/* Who hears of a job: those who wait for it, the listener to "where is the running picture", and the one who follows all
 * jobs. The running job is told with each step; a waiting one only to those who wait for it, once a second. */
#include "base/clock.h"
#include "server/queue/run.h"

#include <stdlib.h>

void job_tell(struct job *job)
{
    struct job_progress now;

    if (job->ended || !job->is_stored)
        return;
    job_progress_get(job, &now);
    job->told_ms = clock_ms();
    for (struct job_watch *w = job->watches, *next; w; w = next) {
        next = w->next;
        if (w->on.on_change)
            w->on.on_change(w->user, &now);
    }
}

void queue_tell(struct job_queue *q)
{
    if (q->changed)
        q->changed(q->changed_user);
}

void job_told(struct job *job, const struct err *err)
{
    struct job_queue *q = job->queue;
    struct job_progress now;

    if (!q->told || !job->is_stored)
        return;
    job_progress_get(job, &now);
    q->told(q->told_user, &now, err);
}

void job_changed(struct job *job)
{
    struct job_queue *q = job->queue;

    job_tell(job);
    job_told(job, NULL);
    if (job == q->first)
        queue_tell(q);
}

char *job_queue_progress_text(const struct job_queue *q)
{
    struct job_progress p = {.eta_ms = -1};
    bool idle = !q->first;

    if (!idle)
        job_progress_get(q->first, &p);
    json_t *eta = p.eta_ms < 0 ? json_null() : json_integer(p.eta_ms);
    json_t *state = json_pack(
        "{s:i, s:i, s:f, s:s, s:s, s:i, s:i, s:s?, s:o, s:I}", "step", p.sample_step,
        "steps", p.sample_steps, "time", (double)p.time_ms / 1000.0, "phase",
        idle ? "idle" : job_step_word(p.step), "label",
        idle ? "Idle" : job_step_label(p.step), "image", p.image, "images", p.images,
        "job", p.id, "eta_ms", eta, "waiting", (json_int_t)job_queue_waiting(q));
    char *text = json_dumps(state, JSON_COMPACT | JSON_REAL_PRECISION(6));

    json_decref(state);
    return text;
}

void job_queue_listen(struct job_queue *q, void (*changed)(void *user), void *user)
{
    q->changed = changed;
    q->changed_user = user;
}

void job_queue_follow(struct job_queue *q, job_told_fn *told, void *user)
{
    q->told = told;
    q->told_user = user;
}

void job_queue_follow_previews(struct job_queue *q,
                               const struct job_preview_follower *follower)
{
    q->previews = *follower;
}
