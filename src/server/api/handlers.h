/* handlers: what the files of this folder share. Not for outside: that is api.h. */
#ifndef MYSTI_SERVER_API_HANDLERS_H
#define MYSTI_SERVER_API_HANDLERS_H

#include "http/cors.h"
#include "http/http.h"
#include "http/static.h"
#include "server/api/access.h"
#include "server/api/api.h"
#include "server/api/catalog.h"
#include "server/server.h"
#include "server/supervisor/supervisor.h"

struct job_feeds;
struct text_gate;
struct watch;

struct api {
    struct server *server;
    struct catalog *catalog;
    struct text_gate *gate;
    struct http_static *page;    /* NULL: there is none */
    struct watch *watch;         /* tells /v1/events what the parts say */
    struct job_feeds *job_feeds; /* the events of jobs that are followed */
    json_t *processor;           /* what cannot change, read once */
};

/* arg: what stood at the pattern's {...} or *, decoded; "" when it has none. */
typedef void handler_fn(struct api *api, struct http_exchange *x, const char *arg);

struct route {
    const char *method;
    const char *path; /* "/v1/workers/{name}/start"; a "*" at the end takes the rest */
    enum key_scope scope; /* of the key that it wants, where keys are asked for */
    handler_fn *handle;
    const char *help;
};

extern const struct route routes[];
extern const size_t route_count;

/* about.c */
handler_fn about_health, about_system, about_index;
/* configuration.c */
handler_fn config_show, config_set;
/* text.c */
handler_fn text_chat, text_completions, text_tokenize, text_detokenize, text_embeddings,
    text_rerank;
/* images.c */
handler_fn images_generate, images_edit, images_vary, images_upscale, jobs_add;
/* jobs.c */
handler_fn jobs_list, jobs_show, jobs_cancel, queue_show;
json_t *queue_json(struct api *api);
struct job_preview;
struct job_progress;
void jobs_respond_accepted(struct api *api, struct http_exchange *x,
                           const struct job_progress *now);
/* The job as it is on disk, now or a moment later. */
void jobs_respond_one(struct api *api, struct http_exchange *x, const char *id,
                      int status);
void jobs_respond_unknown(struct http_exchange *x, const char *id);
/* a row of the database as docs/openapi.yaml calls it a Job */
json_t *jobs_row_json(struct api *api, const json_t *row);
/* job_events.c */
handler_fn jobs_follow;
struct job_feeds *job_feeds_new(struct api *api);
void job_feeds_free(struct job_feeds *all);
/* memory.c */
handler_fn memory_show, memory_plan, memory_leave;
json_t *move_json(struct api *api, const struct supervisor_move *m);
/* named_files.c */
handler_fn loras_list, upscalers_list, vaes_list;
/* samplers.c */
handler_fn samplers_list;
/* pictures.c */
handler_fn pictures_cancel, pictures_progress, pictures_stream, pictures_history,
    pictures_file;
/* models.c */
handler_fn models_list, models_list_text, models_load, models_load_text, models_unload,
    models_unload_text;
/* what a load of a text model may say */
int models_read_options(const json_t *body, struct worker_load_options *ret,
                        struct err *err) MUST_CHECK;
/* workers.c */
handler_fn workers_list, workers_show, workers_start, workers_stop, workers_restart,
    workers_park, workers_unpark, workers_pin;
json_t *worker_json(struct api *api, int id);
json_t *workers_json(struct api *api);
/* memory.c */
/* a picture on its way, in base64 */
json_t *preview_json(const struct job_preview *p);
/* the devices, with what is foreseen to lie on each */
json_t *memory_devices_json(struct api *api);

/* watch.c */
handler_fn events_follow;
struct watch *watch_new(struct api *api);
void watch_free(struct watch *w);

/* ---- answers that come later (later.c) ----
 *
 *   struct later *l = later_new(api, x);
 *   start(..., on_done, l);                       // calls back exactly once, whenever
 *   static void on_done(void *user, ...)
 *   {
 *       struct api *api;
 *       struct http_exchange *x = later_claim(user, &api);   // NULL: the client has left
 *       if (x) http_respond...(x, ...);
 *   }
 */
struct later;
struct later *later_new(struct api *api, struct http_exchange *x);
/* A few words for the one who answers. */
void later_note(struct later *l, int number, const char *text);
int later_number(const struct later *l);
const char *later_text(const struct later *l);
/* Ends the later; what later_text gave is gone with it. */
struct http_exchange *later_claim(struct later *l, struct api **ret_api);

/* Collects the body and hands it, parsed, to the handler; answers itself when it is no JSON object. An empty body is
 * an empty object when optional. The body is borrowed. */
enum body_need { BODY_REQUIRED, BODY_OPTIONAL };
typedef void with_body_fn(struct api *api, struct http_exchange *x, const char *arg,
                          const json_t *body);
void with_body(struct api *api, struct http_exchange *x, const char *arg,
               enum body_need need, with_body_fn *handle);

/* "force" from the body or the query */
int read_force(struct http_exchange *x, const json_t *body, enum supervisor_force *ret,
               struct err *err) MUST_CHECK;

#endif
