/* POST /v1/images/generations, POST /v1/images/edits, /variations and /upscale, which begin with a picture
 * (edit_request.c, upscale_request.c; kept as a file, inputs.h), and POST /v1/jobs, which is the first without waiting. The request becomes a job
 * (image_request.c), its model's name a path (catalog), and from then on the queue calls: accepted, where the job is, each
 * picture, the end.
 *
 *   body -> ask -> (catalog) -> queue -> on_accepted -> on_change ... on_picture ... on_end -> answer
 *                                             |
 *                                             +-- POST /v1/jobs is answered here: 202
 *
 * Without a stream nothing is sent before the end, so the answer has its true status. With one, the head goes
 * out when the worker has taken the job up, or as soon as it is certain that the client has to wait; what it learns
 * before its pictures are comments, which every client library ignores. A failure after the head is an error event.
 *
 * A client that leaves takes its job with it, unless it sent an Idempotency-Key: then the job goes on, and the same request
 * with the same key is given it, running or ended. OpenAI's own libraries say when they try again (x-stainless-retry-count);
 * such a retry joins a job of the same client with the same body, if one is there. A picture that could not be saved is still delivered as base64, with
 * the reason in `warning`; as a URL it cannot be delivered, so that is an error (507).
 *
 * x-should-retry: OpenAI's own libraries repeat a request after 5xx; a job that has brought the worker down twice
 * or met a full disk must not come back by itself two more times.
 */
#include "base/base64.h"
#include "base/clock.h"
#include "base/mem.h"
#include "server/api/edit_request.h"
#include "server/api/handlers.h"
#include "server/api/image_request.h"
#include "server/api/upscale_request.h"
#include "server/config/config.h"
#include "server/queue/inputs.h"
#include "server/queue/queue.h"
#include "server/store/jobs.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum how { DRAW, DRAW_LATER, EDIT, VARY, UPSCALE };

struct drawing {
    struct api *api;
    struct http_exchange *x;
    struct image_ask ask;
    enum how how;
    bool is_keeping;         /* that is being written to disk */
    uint64_t body;           /* hash of the request's */
    struct job_watch *watch; /* NULL before it is in the queue */
    json_t *data;            /* the pictures of a whole answer */
    struct err save_error;   /* of the last picture that could not be saved */
    char *model;             /* the id that the answer names */
    int width;
    int height;
    int previewed; /* partial pictures that were sent of `image` */
    int image;
};

static void drawing_free(struct drawing *d)
{
    inputs_drop(&d->ask.request); /* still here: no job has taken them over */
    image_ask_release(&d->ask);
    json_decref(d->data);
    free(d->model);
    free(d);
}

/* The answer's last words: the exchange ends by itself from here. */
static struct http_exchange *drawing_over(struct drawing *d)
{
    struct http_exchange *x = d->x;

    http_set_user(x, NULL, NULL);
    drawing_free(d);
    return x;
}

static void on_client_left(struct http_exchange *x, void *user,
                           enum http_outcome outcome)
{
    struct drawing *d = user;

    (void)x;
    (void)outcome;
    d->x = NULL;
    if (d->is_keeping)
        return; /* on_kept frees */
    if (d->watch) {
        struct job_watch *watch = d->watch;

        drawing_free(d);
        job_leave(watch);
        return;
    }
    catalog_forget(d->api->catalog, d);
    drawing_free(d);
}

/* ---- the queue's calls ---- */

static void on_change(void *user, const struct job_progress *now)
{
    struct drawing *d = user;
    char text[200];

    if (!d->ask.stream || d->how == DRAW_LATER)
        return;
    switch (now->step) {
    case JOB_WAITING:
        if (now->eta_ms >= 0)
            snprintf(text, sizeof(text), "queue position=%d eta_ms=%lld", now->position,
                     (long long)now->eta_ms);
        else
            snprintf(text, sizeof(text), "queue position=%d", now->position);
        break;
    case JOB_PREPARING:
        if (!now->detail[0])
            return;
        snprintf(text, sizeof(text), "%s", now->detail);
        break;
    case JOB_UPSCALING:
        if (!now->sample_step)
            snprintf(text, sizeof(text), "upscaling");
        else
            snprintf(text, sizeof(text), "tile %d/%d", now->sample_step,
                     now->sample_steps);
        break;
    case JOB_SAMPLING:
        if (!now->sample_step) {
            snprintf(text, sizeof(text), "sampling");
            break;
        }
        snprintf(text, sizeof(text), "picture %d/%d step %d/%d", now->image + 1,
                 now->images, now->sample_step, now->sample_steps);
        break;
    default:
        snprintf(text, sizeof(text), "%s", job_step_word(now->step));
    }
    if (!http_sse_started(d->x))
        http_sse_start(d->x);
    http_sse_comment(d->x, text);
}

/* "http://host:port/outputs/name", as the client reaches us */
static json_t *picture_url(const struct drawing *d, const char *file)
{
    const struct config *config = d->api->server->config;
    const char *host = http_header(d->x, "Host");
    char *url;

    if (host && *host &&
        strspn(host, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
                     ".-_:[]") == strlen(host))
        url = mem_printf("http://%s/outputs/%s", host, file);
    else
        url = mem_printf("http://%s:%d/outputs/%s", config->listen_ip,
                         d->api->server->port, file);
    json_t *text = json_string(url);

    free(url);
    return text;
}

/* A variation is an edit to those who listen: OpenAI streams none. */
static bool is_edit(const struct drawing *d)
{
    return d->how == EDIT || d->how == VARY;
}

static json_t *picture_json(const struct drawing *d, const struct job_picture *p)
{
    json_t *picture =
        json_pack("{s:I, s:s?}", "seed", (json_int_t)p->seed, "file", p->file);

    json_object_update(picture, p->drawn_with);

    if (d->ask.delivery == IMAGE_AS_URL) {
        if (p->file)
            json_object_set_new(picture, "url", picture_url(d, p->file));
        return picture;
    }
    struct buf text = {0};

    base64_append(&text, p->png, p->size);
    json_object_set_new(picture, "b64_json",
                        json_stringn_nocheck(buf_str(&text), text.len));
    buf_release(&text);
    return picture;
}

static void stream_picture(struct drawing *d, const struct job_picture *p,
                           json_t *picture)
{
    char size[32];

    snprintf(size, sizeof(size), "%dx%d", p->width, p->height);
    const char *event = d->how == UPSCALE ? "image_upscale.completed"
                        : is_edit(d)      ? "image_edit.completed"
                                          : "image_generation.completed";

    json_object_set_new(picture, "type", json_string(event));
    json_object_set_new(picture, "created_at", json_integer(clock_unix()));
    json_object_set_new(picture, "size", json_string(size));
    json_object_set_new(picture, "quality", json_string("auto"));
    json_object_set_new(picture, "background", json_string("opaque"));
    json_object_set_new(picture, "output_format", json_string("png"));
    json_object_set_new(picture, "index", json_integer(p->index));
    if (p->save_error)
        json_object_set_new(picture, "warning", json_string(p->save_error->message));
    if (!http_sse_started(d->x))
        http_sse_start(d->x);
    http_sse_json(d->x, event, picture);
}

/* As many as were asked for, spread over the steps; fewer when the steps go by too fast. */
static void on_preview(void *user, const struct job_preview *p)
{
    struct drawing *d = user;
    struct buf text = {0};
    char size[32];

    if (p->image != d->image)
        d->previewed = 0;
    d->image = p->image;
    if (d->previewed >= d->ask.partial_images ||
        p->step * (d->ask.partial_images + 1) < p->steps * (d->previewed + 1))
        return;
    base64_append(&text, p->png, p->size);
    snprintf(size, sizeof(size), "%dx%d", p->width, p->height);
    const char *event =
        is_edit(d) ? "image_edit.partial_image" : "image_generation.partial_image";
    json_t *partial = json_pack(
        "{s:s, s:s%, s:i, s:I, s:s, s:s, s:s, s:s, s:i}", "type", event, "b64_json",
        buf_str(&text), text.len, "partial_image_index", d->previewed++, "created_at",
        (json_int_t)clock_unix(), "size", size, "quality", "auto", "background",
        "opaque", "output_format", "png", "index", p->image);

    buf_release(&text);
    if (!http_sse_started(d->x))
        http_sse_start(d->x);
    http_sse_json(d->x, event, partial);
}

static void on_picture(void *user, const struct job_picture *p)
{
    struct drawing *d = user;
    struct worker_snapshot worker;

    if (p->save_error)
        d->save_error = *p->save_error;
    if (p->save_error && d->ask.delivery == IMAGE_AS_URL)
        return;
    d->width = p->width;
    d->height = p->height;
    if (!d->model) {
        supervisor_snapshot(d->api->server->supervisor, WORKER_SD, &worker);
        d->model =
            mem_strdup(worker.model ? catalog_id(d->api->catalog, worker.model) : "");
    }
    json_t *picture = picture_json(d, p);

    if (d->ask.stream)
        stream_picture(d, p, picture);
    else
        json_array_append_new(d->data, picture);
}

static void respond_failure(struct http_exchange *x, const struct err *err)
{
    int status = err_http_status(err->code);

    if (!http_started(x) && status != 503 && status != 429)
        http_set_header(x, "x-should-retry", "false");
    http_respond_err(x, err);
}

static json_t *whole_answer(struct drawing *d)
{
    char size[32];

    snprintf(size, sizeof(size), "%dx%d", d->width, d->height);
    json_t *answer =
        json_pack("{s:I, s:O, s:s, s:s, s:s, s:s?}", "created",
                  (json_int_t)clock_unix(), "data", d->data, "output_format", "png",
                  "background", "opaque", "size", size, "model", d->model);

    if (d->save_error.code)
        json_object_set_new(answer, "warning", json_string(d->save_error.message));
    return answer;
}

static void on_end(void *user, const struct err *err)
{
    struct drawing *d = user;
    struct err save_error = d->save_error;

    d->watch = NULL;
    if (!err && save_error.code && d->ask.delivery == IMAGE_AS_URL)
        err = &save_error;
    if (err) {
        respond_failure(drawing_over(d), err);
    } else if (d->ask.stream) {
        http_end(drawing_over(d));
    } else {
        json_t *answer = whole_answer(d);

        http_respond_json(drawing_over(d), 200, answer);
    }
}

/* ---- the way into the queue ---- */

static void on_accepted(void *user)
{
    struct drawing *d = user;
    struct job_watch *watch = d->watch;
    struct job_progress now;

    job_progress_get(job_watched(watch), &now);
    if (d->how != DRAW_LATER) {
        http_set_header(d->x, "X-Mysti-Job", now.id);
        if (now.position > 0)
            on_change(d, &now); /* it is certain to wait, so a stream begins at once */
        return;
    }
    jobs_respond_accepted(d->api, d->x, &now);
    drawing_over(d);
    job_leave(watch); /* it is kept */
}

static void deliver_ended(struct drawing *d, int index, const json_t *p)
{
    const char *file = json_string_value(json_object_get(p, "file"));
    const struct job_picture kept = {
        .index = index,
        .width = (int)json_integer_value(json_object_get(p, "width")),
        .height = (int)json_integer_value(json_object_get(p, "height"))};
    json_t *picture = json_pack(
        "{s:O, s:s, s:o*, s:O*, s:O*, s:O*}", "seed", json_object_get(p, "seed"),
        "file", file, "url",
        d->ask.delivery == IMAGE_AS_URL ? picture_url(d, file) : NULL, "b64_json",
        json_object_get(p, "b64_json"), "loras", json_object_get(p, "loras"),
        "embeddings", json_object_get(p, "embeddings"));

    d->width = kept.width;
    d->height = kept.height;
    if (d->ask.stream)
        stream_picture(d, &kept, picture);
    else
        json_array_append_new(d->data, picture);
}

/* A job that had ended before it was asked for again. */
static void on_ended_found(void *user, const struct err *err, json_t *job)
{
    struct drawing *d = user;
    struct http_exchange *x = d->x;
    size_t i;
    json_t *p;

    if (!x) {
        drawing_free(d);
        return;
    }
    if (err || !json_is_object(job)) {
        struct err why = {0};

        err_set(&why, ERR_NOT_FOUND, "the job of this Idempotency-Key is forgotten");
        http_respond_err(drawing_over(d), err ? err : &why);
        return;
    }
    json_array_foreach(json_object_get(job, "pictures"), i, p)
    {
        deliver_ended(d, (int)i, p);
    }
    if (json_is_object(json_object_get(job, "error"))) {
        struct err why = {0};
        const json_t *e = json_object_get(job, "error");

        err_set(&why,
                err_code_from_slug(json_string_value(json_object_get(e, "code")),
                                   ERR_BAD_GATEWAY),
                "%s", json_string_value(json_object_get(e, "message")));
        respond_failure(drawing_over(d), &why);
        return;
    }
    if (d->ask.stream && http_sse_started(x)) {
        http_end(drawing_over(d));
        return;
    }
    const char *model =
        json_string_value(json_object_get(json_object_get(job, "request"), "model"));

    if (!d->model) /* else it is the upscaler */
        d->model = mem_strdup(model ? catalog_id(d->api->catalog, model) : "");
    json_t *answer = whole_answer(d);

    http_respond_json(drawing_over(d), 200, answer);
}

static void on_left_late(struct http_exchange *x, void *user, enum http_outcome outcome)
{
    struct drawing *d = user;

    (void)x;
    (void)outcome;
    d->x = NULL; /* the answer of the database frees */
}

static void watch(struct drawing *d, struct job *job);

/* The Idempotency-Key was used before, with the same body. */
static void on_joined(void *user, const char *id)
{
    struct drawing *d = user;
    struct job *job = job_queue_find(d->api->server->queue, id);

    d->watch = NULL;
    http_set_header(d->x, "X-Mysti-Job", id);
    if (d->how == DRAW_LATER) {
        struct http_exchange *x = d->x;
        struct api *api = d->api;

        drawing_over(d);
        jobs_respond_one(api, x, id, 200);
    } else if (job) {
        watch(d, job);
    } else {
        http_set_user(d->x, d, on_left_late);
        job_store_get(
            d->api->server->db, id,
            d->ask.delivery == IMAGE_AS_URL ? NULL : d->api->server->config->output_dir,
            on_ended_found, d);
    }
}

static const struct job_handlers handlers = {.on_accepted = on_accepted,
                                             .on_joined = on_joined,
                                             .on_change = on_change,
                                             .on_picture = on_picture,
                                             .on_end = on_end};

static struct job_handlers handlers_of(const struct drawing *d)
{
    struct job_handlers on = handlers;

    if (d->ask.stream && d->how != DRAW_LATER && d->ask.partial_images > 0)
        on.on_preview = on_preview;
    return on;
}

static void watch(struct drawing *d, struct job *job)
{
    const struct job_handlers on = handlers_of(d);

    d->watch = job_watch(job, &on, d);
}

/* Seconds after which there should be room again, from what the pictures before took. */
static void set_retry_after(struct drawing *d)
{
    int64_t ms = job_queue_wait_ms(d->api->server->queue);
    char text[24];
    int64_t seconds = ms < 0 ? 5 : ms / 1000 + 1;

    snprintf(text, sizeof(text), "%lld", (long long)(seconds > 120 ? 120 : seconds));
    http_set_header(d->x, "Retry-After", text);
}

static bool is_retry(struct http_exchange *x)
{
    const char *count = http_header(x, "x-stainless-retry-count");

    return count && *count >= '1' && *count <= '9';
}

static void enqueue(struct drawing *d)
{
    struct job_queue *queue = d->api->server->queue;
    const char *key = http_header(d->x, "idempotency-key");
    const struct job_new new = {.request = &d->ask.request,
                                .client = access_client(d->api, d->x),
                                .key = key && *key ? key : NULL,
                                .body = d->body,
                                .kept = d->how == DRAW_LATER || (key && *key)};
    struct job *same = !new.key && d->how != DRAW_LATER &&is_retry(d->x)
                           ? job_queue_find_same(queue, new.client, new.body)
                           : NULL;
    struct err err = {0};

    if (same) {
        http_set_header(d->x, "X-Mysti-Job", job_id(same));
        watch(d, same);
        return;
    }
    const struct job_handlers on = handlers_of(d);

    d->watch = job_queue_add(queue, &new, &on, d, &err);
    if (d->watch)
        return;
    if (err.code == ERR_RATE_LIMIT)
        set_retry_after(d);
    http_respond_err(drawing_over(d), &err);
}

static void on_listed(void *user)
{
    struct drawing *d = user;
    struct err err = {0};
    const struct catalog_entry *entry =
        catalog_find(d->api->catalog, d->ask.model, MODEL_PICTURE, &err);

    if (!entry) {
        http_respond_err(drawing_over(d), &err);
        return;
    }
    d->ask.request.model_path = mem_strdup(entry->path);
    enqueue(d);
}

/* As for text: a name that means the active model needs no look at the disk. */
static void find_model(struct drawing *d)
{
    struct worker_snapshot worker;

    supervisor_snapshot(d->api->server->supervisor, WORKER_SD, &worker);
    const char *active = worker.wanted ? worker.wanted : worker.model;

    if (!d->ask.model) {
        enqueue(d);
    } else if (active && catalog_means(d->api->catalog, d->ask.model, active)) {
        d->ask.request.model_path = mem_strdup(active);
        enqueue(d);
    } else {
        catalog_ask(d->api->catalog, on_listed, d);
    }
}

#define HASH_START UINT64_C(14695981039346656037) /* FNV-1a */

static uint64_t hash(uint64_t so_far, const void *data, size_t len)
{
    const unsigned char *bytes = data;

    for (size_t i = 0; i < len; i++)
        so_far = (so_far ^ bytes[i]) * UINT64_C(1099511628211);
    return so_far;
}

/* Of what a form says, not of the form: a library that sends it again draws another boundary. */
static uint64_t hash_edit(const struct image_ask *ask, const struct edit_files *files)
{
    const struct image_request *r = &ask->request;
    json_t *request = image_request_json(r);
    char *text = json_dumps(request, JSON_COMPACT | JSON_SORT_KEYS);
    const struct image_start *s = &r->start;
    const double numbers[] = {s->strength, s->mask_blur, s->padding, s->is_cropped,
                              s->only_masked};
    uint64_t sum = hash(HASH_START, text, strlen(text));

    sum = hash(sum, numbers, sizeof(numbers));
    sum = hash(sum, files->image.data, files->image.len);
    sum = hash(sum, files->mask.data, files->mask.len);
    if (ask->model) /* the request has its path, and not yet */
        sum = hash(sum, ask->model, strlen(ask->model));
    free(text);
    json_decref(request);
    return s->fill ? hash(sum, s->fill, strlen(s->fill)) : sum;
}

static void on_kept(void *user, const struct err *err, char *image, char *mask)
{
    struct drawing *d = user;

    d->is_keeping = false;
    d->ask.request.start.image = image;
    d->ask.request.start.mask = mask;
    if (!d->x)
        drawing_free(d);
    else if (err)
        http_respond_err(drawing_over(d), err);
    else
        find_model(d);
}

static int parse(struct drawing *d, const char *data, size_t len,
                 const struct image_limits *limits, struct edit_files *files,
                 struct err *err)
{
    const char *type = http_header(d->x, "Content-Type");

    if (is_edit(d))
        return edit_ask_parse(type, data, len, limits, &d->ask, files, err);
    if (d->how != UPSCALE)
        return image_ask_parse(data, len, limits, &d->ask, err);
    if (upscale_ask_parse(type, data, len, &d->ask, files, err))
        return -1;
    d->model = mem_strdup(d->ask.request.upscale.upscaler); /* what the answer names */
    return 0;
}

static void on_body(struct http_exchange *x, void *user, const char *data, size_t len)
{
    struct drawing *d = user;
    const struct config *config = d->api->server->config;
    const struct image_limits limits = {
        .max_side = (int)config->max_image_side,
        .max_count = (int)config->max_image_count,
        .max_steps = (int)config->max_steps,
        .needs_no_prompt = d->how == VARY,
    };
    struct edit_files files = {0};
    struct err err = {0};

    (void)x;
    if (parse(d, data, len, &limits, &files, &err)) {
        http_respond_err(drawing_over(d), &err);
    } else if (files.image.len) {
        d->body = hash_edit(&d->ask, &files);
        d->is_keeping = true;
        inputs_keep(d->api->server->loop, config->home, files.image, files.mask,
                    on_kept, d);
    } else {
        d->body = hash(HASH_START, data, len);
        find_model(d);
    }
}

static void begin(struct api *api, struct http_exchange *x, enum how how)
{
    struct drawing *d = mem_zalloc(sizeof(*d));

    d->api = api;
    d->x = x;
    d->how = how;
    d->data = json_array();
    http_set_user(x, d, on_client_left);
    http_collect_body(x, 0, on_body);
}

void images_generate(struct api *api, struct http_exchange *x, const char *arg)
{
    (void)arg;
    begin(api, x, DRAW);
}

void jobs_add(struct api *api, struct http_exchange *x, const char *arg)
{
    (void)arg;
    begin(api, x, DRAW_LATER);
}

void images_edit(struct api *api, struct http_exchange *x, const char *arg)
{
    (void)arg;
    begin(api, x, EDIT);
}

void images_vary(struct api *api, struct http_exchange *x, const char *arg)
{
    (void)arg;
    begin(api, x, VARY);
}

void images_upscale(struct api *api, struct http_exchange *x, const char *arg)
{
    (void)arg;
    begin(api, x, UPSCALE);
}
