/* config: what the server was told, from one table of options (config/options.h): name,
 * type, range, default, help. Every option is a command-line flag (--listen-port 1234),
 * an environment variable (MYSTI_LISTEN_PORT) and a key of the YAML file (listen-port:
 * 1234). The command line wins over the environment, the environment over the file, the
 * file over the default.
 *
 *   struct config config;
 *   config_init(&config);
 *   if (config_from_args(&config, argc, argv, &err)) -> print err.message, exit 2
 *   switch (config.action) ...
 *   config_release(&config);
 *
 * Plain data afterwards: read it from anywhere; while the server runs, reload.h alone
 * changes it. Unknown names and bad values are refused with the nearest known name. Text is owned by the config. */
#ifndef MYSTI_SERVER_CONFIG_CONFIG_H
#define MYSTI_SERVER_CONFIG_CONFIG_H

#include "base/buf.h"
#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum config_action {
    CONFIG_RUN,
    CONFIG_SHOW_HELP,
    CONFIG_SHOW_VERSION,
    CONFIG_SHOW_CONFIG, /* --print-config: the effective configuration as YAML */
    CONFIG_SD_WORKER,   /* --mode sd-worker: become that program with `rest` as its
                           arguments */
    CONFIG_LLM_WORKER,
    CONFIG_NEW_KEY, /* --new-key NAME SCOPE: rest[0], rest[1] */
};

/* Where a value comes from; later ones win. */
#define CONFIG_SOURCES(X)                                                              \
    X(DEFAULT, "default")                                                              \
    X(FILE, "file")                                                                    \
    X(ENVIRONMENT, "environment")                                                      \
    X(ARGUMENT, "argument")                                                            \
    X(RUNTIME, "runtime") /* POST /v1/config */

enum config_source {
#define X(name, word) CONFIG_FROM_##name,
    CONFIG_SOURCES(X)
#undef X
};

#define CONFIG_LIST_MAX 32

struct config_list {
    char *items[CONFIG_LIST_MAX];
    size_t count;
};

struct config {
    enum config_action action;
    unsigned char *sources;     /* one per option: enum config_source */
    enum config_source setting; /* of what is being set just now */
    char **rest; /* points into argv: what follows, for the worker modes */
    int rest_count;

    char *listen_ip;
    int64_t listen_port; /* 0: any free port, here and below */
    int64_t sd_port;
    int64_t llm_port;

    /* folders and files; absolute after config_resolve() */
    char *home;      /* state */
    char *model_dir; /* where the user keeps models; starters_dir is searched as well */
    char *upscaler_dir;   /* ESRGAN files */
    char *embedding_dir;  /* his textual inversions */
    char *vae_dir;        /* the VAEs that requests name */
    char *preview_method; /* latent2rgb, taesd */
    char *vae;            /* which of them is for requests that name none; "": none */
    char *lora_dir;       /* his LoRAs; those in starters_dir/loras are found as well */
    char *output_dir;     /* pictures */
    char *public_dir;     /* the page; "" when there is none */
    char *starters_dir;   /* models/starter beside the program */
    char *llm_model;      /* "" : not given, then the stored state, then the starter */
    char *diffusion_model; /* likewise */
    char *model; /* emptied by config_resolve(): moved to one of the two above */
    char *config_file;

    int64_t llm_threads; /* 0: physical cores */
    int64_t llm_context; /* tokens per slot; 0: what the model was trained for, at most
                            8192 */
    int64_t llm_slots;
    char *llm_cache_type;       /* a word of memory/cache_type.h */
    int64_t llm_idle_timeout_s; /* a text model that nobody uses is parked; 0: never */
    int64_t kv_limit;           /* bytes of saved contexts */
    int64_t kv_files;           /* how many of them */
    int64_t llm_resident;       /* text models in memory at the same time */
    int64_t llm_gpu_layers;     /* -1: as many as fit */
    char *llama_server;         /* "": found by mysti_llm_worker */
    int64_t sd_threads;         /* 0: physical cores */
    char *sd_backend;           /* auto, dnnl, ref */
    char *sd_weights;           /* auto, int8 */
    char *sharing;              /* a word of base/sharing.h */

    char *memory_policy;    /* automatic, ask, manual */
    int64_t memory_margin;  /* bytes kept free on each device */
    int64_t memory_quiet_s; /* before something that gave way comes back */
    struct config_list simulated_devices; /* "ram=8G", "card=4G" */

    int64_t first_byte_timeout_s; /* how long a worker's answer may take to begin */
    int64_t head_timeout_s;       /* a client's request head */
    int64_t idle_timeout_s;       /* a kept-alive connection without a request */
    int64_t body_limit;           /* bytes of a request body */
    int64_t header_limit;         /* bytes of a request head */
    int64_t max_connections;
    int64_t queue_limit; /* pictures waiting; one more is 429 */
    int64_t client_queue_limit;
    int64_t queue_age_s;      /* how long a picture may be overtaken */
    int64_t job_history;      /* ended jobs that are remembered */
    int64_t text_queue_limit; /* text requests waiting for one model; one more is 429 */
    int64_t text_queue_age_s; /* after which nobody overtakes who waits for a load */
    int64_t max_image_side;   /* pixels */
    int64_t max_image_count;  /* pictures of one request */
    int64_t max_steps;
    struct config_list cors_origins; /* besides loopback; "*" allows all */
    struct config_list
        allowed_hosts; /* names this server answers to, besides its own */
    char *key_file;    /* "keys" in home */

    bool verbose;

    /* for tests */
    char *sd_worker_program;  /* "": mysti_sd_worker beside this program */
    char *llm_worker_program; /* likewise */
};

void config_init(struct config *c); /* the defaults */
void config_release(struct config *c);
/* File (when --config or MYSTI_CONFIG names one), environment, command line. */
int config_from_args(struct config *c, int argc, char **argv,
                     struct err *err) MUST_CHECK;
/* Makes paths absolute, fills in the folders that depend on the machine, checks that
 * models which were named exist, and moves --model to the side it belongs to.
 * `ret_notes` receives lines for the log. */
int config_resolve(struct config *c, struct buf *ret_notes, struct err *err) MUST_CHECK;

void config_print_help(struct buf *out, const char *program);
void config_print(const struct config *c, struct buf *out); /* as YAML with comments */

#endif
