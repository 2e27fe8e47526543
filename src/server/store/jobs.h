/* jobs: picture jobs in the database: what was asked for, how far it came, what came out.
 *
 *   job_store_add(db, &row, on_added, me);              the row is copied
 *   job_store_picture(db, id, &picture); job_store_end(db, id, "done", NULL);
 *   job_store_get(db, id, 0, on_found, me);             as JSON, docs/openapi.yaml, Job
 *
 * Answers come on the loop, in the order of the questions. Writes without a callback are logged when they fail. */
#ifndef MYSTI_SERVER_STORE_JOBS_H
#define MYSTI_SERVER_STORE_JOBS_H

#include "base/err.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct db;
struct log;

/* A job as it is accepted. Text is borrowed by job_store_add. */
struct job_row {
    const char *id;
    const char *kind;    /* "image" */
    const char *request; /* JSON */
    const char *client;  /* a key's name, or an address */
    const char *key;     /* Idempotency-Key; NULL: none */
    uint64_t body;       /* hash of the body that came with it */
    bool kept;           /* goes on without its client */
    int64_t created_ms;
};

/* existing: this client has used the key before, for this job and (same_body) this body; nothing was added. */
typedef void job_added_fn(void *user, const struct err *err, const char *existing,
                          bool same_body);
void job_store_add(struct db *db, const struct job_row *row, job_added_fn *added,
                   void *user);

struct picture_row {
    int number;
    const char *file;
    int64_t seed;
    int width, height;
    const json_t *drawn_with; /* an object, or NULL */
};

void job_store_begun(struct db *db, struct log *log, const char *id, int attempts);
void job_store_picture(struct db *db, struct log *log, const char *id,
                       const struct picture_row *picture);
/* error: JSON as clients get it, or NULL. Old ended jobs beyond `keep` are forgotten. */
void job_store_end(struct db *db, struct log *log, const char *id, const char *step,
                   const char *error, int keep);

typedef void job_found_fn(void *user, const struct err *err, json_t *jobs);
/* One job, or JSON null; bytes: 1 puts each picture's file into `b64_json`, read from folder. Borrowed. */
void job_store_get(struct db *db, const char *id, const char *folder_for_bytes,
                   job_found_fn *found, void *user);
/* A list, newest first. step: only those, NULL: all; before: an id to go on after, NULL: from the newest. */
struct job_filter {
    const char *step;
    const char *client; /* NULL: everybody's */
    const char *before;
    int limit;
};
void job_store_list(struct db *db, const struct job_filter *filter, job_found_fn *found,
                    void *user);
/* What was accepted and has not ended, in its order, with its requests: {id, kind, request (object), client, kept,
 * attempts, created_ms, pictures}. */
void job_store_unfinished(struct db *db, job_found_fn *found, void *user);

#endif
