/* options: the command line of mysti_sd_worker. */
#ifndef MYSTI_SD_WORKER_OPTIONS_H
#define MYSTI_SD_WORKER_OPTIONS_H

#include "base/sharing.h"
#include "engine/engine.h"

#include <stdbool.h>

struct options {
    int listen_port;              /* 0: any free one */
    const char *model;            /* loaded at once; NULL: none */
    const char *inspect;          /* say what this file is and end; NULL: be a worker */
    const char *backend;          /* NULL: the best that is built in */
    const char *weights;          /* "auto", "int8"; NULL: auto */
    const char *embedding_folder; /* of textual inversions; NULL: none */
    const char *vae_folder;       /* NULL: none */
    const char *vae;              /* NULL: the model's own */
    const char *preview_method;   /* NULL: the engine's own */
    const char *lora_folders[ENGINE_LORA_FOLDERS]; /* NULL: no more */
    const char *upscaler_folder;                   /* NULL: none */
    int threads;          /* 0: one per physical core that this process may use */
    enum sharing sharing; /* until the server says something else */
    bool verbose;
};

/* -1: go on; else exit with that code: help and version were printed (0), or a sentence
 * about the mistake (2). Strings are argv's own. */
int options_parse(struct options *ret, int argc, char **argv);

#endif
