/* The index of the API: every route there is, once. What a route takes and answers is in docs/openapi.yaml, which
 * the tests compare with this table. */
#include "server/api/handlers.h"

const struct route routes[] = {
    /* the server */
    {"GET", "/health", SCOPE_PUBLIC, about_health,
     "is the server well, and each worker?"},
    {"GET", "/v1", SCOPE_PUBLIC, about_index, "this list"},
    {"GET", "/v1/system", SCOPE_ADMIN, about_system,
     "processor, memory as it is now, graphics cards"},
    {"GET", "/v1/events", SCOPE_ADMIN, events_follow,
     "everything that happens, as one stream of events"},
    {"GET", "/v1/config", SCOPE_ADMIN, config_show,
     "every option, its value, and where that comes from"},
    {"POST", "/v1/config", SCOPE_ADMIN, config_set, "change options while it runs"},
    {"GET", "/v1/workers", SCOPE_ADMIN, workers_list, "all worker processes"},
    {"GET", "/v1/workers/{name}", SCOPE_ADMIN, workers_show,
     "one worker, with its last log lines"},
    {"POST", "/v1/workers/{name}/start", SCOPE_ADMIN, workers_start,
     "start a stopped worker"},
    {"POST", "/v1/workers/{name}/stop", SCOPE_ADMIN, workers_stop, "stop a worker"},
    {"POST", "/v1/workers/{name}/restart", SCOPE_ADMIN, workers_restart,
     "restart a worker"},
    {"POST", "/v1/workers/{name}/park", SCOPE_ADMIN, workers_park,
     "a text model leaves memory with its context, until it is wanted"},
    {"POST", "/v1/workers/{name}/unpark", SCOPE_ADMIN, workers_unpark,
     "and comes back"},

    /* models */
    {"GET", "/v1/models", SCOPE_INFER, models_list,
     "all models, the active ones marked"},
    {"POST", "/v1/models/load", SCOPE_ADMIN, models_load,
     "load a model of either kind"},
    {"POST", "/v1/models/unload", SCOPE_ADMIN, models_unload,
     "unload the picture model"},
    {"GET", "/v1/llm/models", SCOPE_INFER, models_list_text, "the text models"},
    {"POST", "/v1/llm/load", SCOPE_ADMIN, models_load_text,
     "load a text model, beside the others if it may"},
    {"POST", "/v1/llm/unload", SCOPE_ADMIN, models_unload_text, "unload a text model"},

    /* text */
    {"POST", "/v1/chat/completions", SCOPE_INFER, text_chat, "answer a conversation"},
    {"POST", "/v1/completions", SCOPE_INFER, text_completions, "continue a text"},
    {"POST", "/v1/tokenize", SCOPE_INFER, text_tokenize, "text to token ids"},
    {"POST", "/v1/detokenize", SCOPE_INFER, text_detokenize, "token ids to text"},
    {"POST", "/v1/embeddings", SCOPE_INFER, text_embeddings, "texts to vectors"},
    {"POST", "/v1/rerank", SCOPE_INFER, text_rerank,
     "how well do documents answer a query?"},

    /* pictures */
    {"POST", "/v1/images/generations", SCOPE_INFER, images_generate, "draw pictures"},
    {"POST", "/v1/images/edits", SCOPE_INFER, images_edit,
     "change a picture, or the masked part of it"},
    {"POST", "/v1/jobs", SCOPE_INFER, jobs_add,
     "draw pictures without waiting for them"},
    {"GET", "/v1/jobs", SCOPE_INFER, jobs_list, "the jobs, newest first"},
    {"GET", "/v1/jobs/{id}", SCOPE_INFER, jobs_show, "one job"},
    {"GET", "/v1/jobs/{id}/events", SCOPE_INFER, jobs_follow,
     "its progress, to its end"},
    {"DELETE", "/v1/jobs/{id}", SCOPE_INFER, jobs_cancel, "cancel a job"},
    {"GET", "/v1/queue", SCOPE_INFER, queue_show,
     "what runs and what waits, text and pictures"},
    {"GET", "/v1/options/samplers", SCOPE_INFER, samplers_list,
     "the samplers and schedules that a picture can ask for"},
    {"POST", "/v1/images/cancel", SCOPE_INFER, pictures_cancel, "cancel a picture"},
    {"GET", "/v1/progress", SCOPE_INFER, pictures_progress,
     "where the running picture is"},
    {"GET", "/v1/stream/progress", SCOPE_INFER, pictures_stream, "the same as events"},
    {"GET", "/v1/history/images", SCOPE_INFER, pictures_history,
     "what was drawn, newest first"},
    {"GET", "/outputs/*", SCOPE_INFER, pictures_file, "a picture's file"},
};
const size_t route_count = sizeof(routes) / sizeof(routes[0]);
