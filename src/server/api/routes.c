/* The index of the API: every route there is, once. What a route takes and answers is in docs/openapi.yaml, which
 * the tests compare with this table. */
#include "server/api/handlers.h"

const struct route routes[] = {
    /* the server */
    {"GET", "/health", about_health, "is the server well, and each worker?"},
    {"GET", "/v1", about_index, "this list"},
    {"GET", "/v1/system", about_system,
     "processor, memory as it is now, graphics cards"},
    {"GET", "/v1/workers", workers_list, "both worker processes"},
    {"GET", "/v1/workers/{kind}", workers_show, "one worker, with its last log lines"},
    {"POST", "/v1/workers/{kind}/start", workers_start, "start a stopped worker"},
    {"POST", "/v1/workers/{kind}/stop", workers_stop, "stop a worker"},
    {"POST", "/v1/workers/{kind}/restart", workers_restart, "restart a worker"},

    /* models */
    {"GET", "/v1/models", models_list, "all models, the active ones marked"},
    {"POST", "/v1/models/load", models_load, "load a model of either kind"},
    {"POST", "/v1/models/unload", models_unload, "unload the picture model"},
    {"GET", "/v1/llm/models", models_list_text, "the text models"},
    {"POST", "/v1/llm/load", models_load_text, "load a text model"},
    {"POST", "/v1/llm/unload", models_unload_text, "unload the text model"},

    /* text */
    {"POST", "/v1/chat/completions", text_chat, "answer a conversation"},
    {"POST", "/v1/completions", text_completions, "continue a text"},
    {"POST", "/v1/tokenize", text_tokenize, "text to token ids"},
    {"POST", "/v1/detokenize", text_detokenize, "token ids to text"},
    {"POST", "/v1/embeddings", text_embeddings, "not served yet (501)"},

    /* pictures */
    {"POST", "/v1/images/generations", images_generate, "draw pictures"},
    {"POST", "/v1/images/cancel", pictures_cancel, "cancel a picture"},
    {"GET", "/v1/progress", pictures_progress, "where the running picture is"},
    {"GET", "/v1/stream/progress", pictures_stream, "the same as events"},
    {"GET", "/v1/history/images", pictures_history, "what was drawn, newest first"},
    {"GET", "/outputs/*", pictures_file, "a picture's file"},
};
const size_t route_count = sizeof(routes) / sizeof(routes[0]);
