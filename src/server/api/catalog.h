/* catalog: which models there are, and which of them a name means.
 *
 *   catalog_ask(c, on_listed, me);             // the folders are read on a worker thread
 *   static void on_listed(void *user) { ... catalog_find(c, "painter", MODEL_PICTURE, &err) ... }
 *
 * Models are the .gguf, .safetensors, .ckpt and .pt files and diffusers' folders below --model-dir and the starter models. An id is the path below
 * its folder, with slashes; what was loaded from elsewhere has its whole path as its id. Loop thread only.
 */
#ifndef MYSTI_SERVER_API_CATALOG_H
#define MYSTI_SERVER_API_CATALOG_H

#include "base/err.h"
#include "server/models/peek.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct catalog;
struct config;
struct uv_loop_s;

struct catalog_entry {
    char *id;
    char *path; /* absolute */
    enum model_kind kind;
    uint64_t size_bytes;
    int64_t modified; /* seconds since 1970 */
    dev_t device;
    ino_t inode;
    char *trouble; /* not a model: why, in a sentence; else NULL */
};

struct catalog *catalog_new(struct uv_loop_s *loop, const struct config *config);
void catalog_free(struct catalog *c);

typedef void catalog_fn(void *user);
/* Calls back once from the loop when the list is fresh. One question per user at a time. */
void catalog_ask(struct catalog *c, catalog_fn *on_listed, void *user);
/* Takes the question back; fine when there is none. */
void catalog_forget(struct catalog *c, const void *user);

/* The list as of the last answer, in the order of ids; those with trouble too. */
size_t catalog_count(const struct catalog *c);
const struct catalog_entry *catalog_at(const struct catalog *c, size_t i);

/* The entry that a name means (its id, its file name, either without the extension), which is a usable model of
 * that kind. NULL with ERR_NO_MODEL that names the nearest, or ERR_INVALID: leads out of the folder, a folder, the
 * other kind, no model. MODEL_UNKNOWN takes both kinds. */
const struct catalog_entry *catalog_find(const struct catalog *c, const char *name,
                                         enum model_kind kind, struct err *err);
/* Does the name mean this file? Needs no fresh list. */
bool catalog_means(const struct catalog *c, const char *name, const char *path);
/* The id of a file; points into path. */
const char *catalog_id(const struct catalog *c, const char *path);

#endif
