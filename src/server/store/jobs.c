/* Each question is a task with copies of what it needs, and each answer that shows something is made as JSON on the database's
 * thread: rows never travel as anything else, so that nothing of SQLite is seen outside of this folder. */
#include "server/store/jobs.h"

#include "base/base64.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "server/log/log.h"
#include "server/store/db.h"

#include <sqlite3.h>
#include <stdlib.h>
#include <string.h>

#define PICTURE_MAX_BYTES ((size_t)512 * 1024 * 1024)

static void bind_text(sqlite3_stmt *s, int at, const char *text)
{
    if (text)
        sqlite3_bind_text(s, at, text, -1, SQLITE_TRANSIENT);
}

static char *copy_or_null(const char *s)
{
    return s ? mem_strdup(s) : NULL;
}

/* ---- adding ---- */

struct adding {
    struct db_task task;
    char *id, *kind, *request, *client, *key;
    uint64_t body;
    bool kept;
    int64_t created_ms;
    char *existing;
    bool same_body;
    job_added_fn *added;
    void *user;
};

/* The job that has this client's key already. */
static int find_key(struct adding *a, struct db *db, struct err *err)
{
    sqlite3_stmt *s = db_statement(
        db, "SELECT id, body FROM job WHERE client = ?1 AND key = ?2", err);

    if (!s)
        return -1;
    bind_text(s, 1, a->client);
    bind_text(s, 2, a->key);
    if (db_row(db, s, err)) {
        a->existing = mem_strdup((const char *)sqlite3_column_text(s, 0));
        a->same_body = (uint64_t)sqlite3_column_int64(s, 1) == a->body;
    }
    sqlite3_reset(s);
    return err->code ? -1 : 0;
}

static int run_add(struct db_task *task, struct db *db, struct err *err)
{
    struct adding *a = (struct adding *)task;
    sqlite3_stmt *s;

    if (a->key && (find_key(a, db, err) || a->existing))
        return err->code ? -1 : 0;
    s = db_statement(
        db,
        "INSERT INTO job (id, kind, request, client, key, body, kept, step, "
        "created_ms) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, 'waiting', ?8)",
        err);
    if (!s)
        return -1;
    bind_text(s, 1, a->id);
    bind_text(s, 2, a->kind);
    bind_text(s, 3, a->request);
    bind_text(s, 4, a->client);
    bind_text(s, 5, a->key);
    sqlite3_bind_int64(s, 6, (int64_t)a->body);
    sqlite3_bind_int(s, 7, a->kept);
    sqlite3_bind_int64(s, 8, a->created_ms);
    return db_run(db, s, err);
}

static void done_add(struct db_task *task, const struct err *err)
{
    struct adding *a = (struct adding *)task;

    a->added(a->user, err, a->existing, a->same_body);
    free(a->id);
    free(a->kind);
    free(a->request);
    free(a->client);
    free(a->key);
    free(a->existing);
    free(a);
}

void job_store_add(struct db *db, const struct job_row *row, job_added_fn *added,
                   void *user)
{
    struct adding *a = mem_zalloc(sizeof(*a));

    *a = (struct adding){.task = {.run = run_add, .done = done_add},
                         .id = mem_strdup(row->id),
                         .kind = mem_strdup(row->kind),
                         .request = mem_strdup(row->request),
                         .client = mem_strdup(row->client),
                         .key = copy_or_null(row->key),
                         .body = row->body,
                         .kept = row->kept,
                         .created_ms = row->created_ms,
                         .added = added,
                         .user = user};
    db_submit(db, &a->task);
}

/* ---- changes nobody waits for ---- */

struct change {
    struct db_task task;
    struct log *log;
    char *id, *text, *error, *drawn_with;
    int number;
    int64_t seed;
    int width, height;
};

static void done_change(struct db_task *task, const struct err *err)
{
    struct change *c = (struct change *)task;

    if (err)
        log_error(c->log, "%s: what became of it could not be stored: %s", c->id,
                  err->message);
    free(c->id);
    free(c->text);
    free(c->error);
    free(c->drawn_with);
    free(c);
}

static struct change *change_new(struct log *log, const char *id,
                                 int (*run)(struct db_task *, struct db *,
                                            struct err *))
{
    struct change *c = mem_zalloc(sizeof(*c));

    c->task = (struct db_task){.run = run, .done = done_change};
    c->log = log;
    c->id = mem_strdup(id);
    return c;
}

static int run_begun(struct db_task *task, struct db *db, struct err *err)
{
    struct change *c = (struct change *)task;
    sqlite3_stmt *s = db_statement(
        db,
        "UPDATE job SET step = 'preparing', attempts = ?2, "
        "begun_ms = coalesce(begun_ms, ?3) WHERE id = ?1 AND ended_ms IS NULL",
        err);

    if (!s)
        return -1;
    bind_text(s, 1, c->id);
    sqlite3_bind_int(s, 2, c->number);
    sqlite3_bind_int64(s, 3, clock_unix_us() / 1000);
    return db_run(db, s, err);
}

void job_store_begun(struct db *db, struct log *log, const char *id, int attempts)
{
    struct change *c = change_new(log, id, run_begun);

    c->number = attempts;
    db_submit(db, &c->task);
}

static int run_picture(struct db_task *task, struct db *db, struct err *err)
{
    struct change *c = (struct change *)task;
    sqlite3_stmt *s = db_statement(
        db, "INSERT OR REPLACE INTO picture VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)", err);

    if (!s)
        return -1;
    bind_text(s, 1, c->id);
    sqlite3_bind_int(s, 2, c->number);
    bind_text(s, 3, c->text);
    sqlite3_bind_int64(s, 4, c->seed);
    sqlite3_bind_int(s, 5, c->width);
    sqlite3_bind_int(s, 6, c->height);
    bind_text(s, 7, c->drawn_with);
    return db_run(db, s, err);
}

void job_store_picture(struct db *db, struct log *log, const char *id,
                       const struct picture_row *p)
{
    struct change *c = change_new(log, id, run_picture);

    c->text = mem_strdup(p->file);
    c->number = p->number;
    c->seed = p->seed;
    c->width = p->width;
    c->height = p->height;
    if (p->drawn_with)
        c->drawn_with = json_dumps(p->drawn_with, JSON_COMPACT);
    db_submit(db, &c->task);
}

static int forget_old(struct db *db, int keep, struct err *err)
{
    sqlite3_stmt *s = db_statement(
        db,
        "DELETE FROM job WHERE ended_ms IS NOT NULL AND serial <= (SELECT serial FROM "
        "job "
        "WHERE ended_ms IS NOT NULL ORDER BY serial DESC LIMIT 1 OFFSET ?1)",
        err);

    if (!s)
        return -1;
    sqlite3_bind_int(s, 1, keep);
    if (db_run(db, s, err))
        return -1;
    if (db_changes(db) == 0)
        return 0;
    s = db_statement(db, "DELETE FROM picture WHERE job NOT IN (SELECT id FROM job)",
                     err);
    return db_run(db, s, err);
}

static int run_end(struct db_task *task, struct db *db, struct err *err)
{
    struct change *c = (struct change *)task;
    sqlite3_stmt *s = db_statement(
        db, "UPDATE job SET step = ?2, error = ?3, ended_ms = ?4 WHERE id = ?1", err);

    if (!s)
        return -1;
    bind_text(s, 1, c->id);
    bind_text(s, 2, c->text);
    bind_text(s, 3, c->error);
    sqlite3_bind_int64(s, 4, clock_unix_us() / 1000);
    if (db_run(db, s, err))
        return -1;
    return forget_old(db, c->number, err);
}

void job_store_end(struct db *db, struct log *log, const char *id, const char *step,
                   const char *error, int keep)
{
    struct change *c = change_new(log, id, run_end);

    c->text = mem_strdup(step);
    c->error = copy_or_null(error);
    c->number = keep;
    db_submit(db, &c->task);
}

/* ---- questions ---- */

enum question_kind { ONE, LIST, UNFINISHED };

struct question {
    struct db_task task;
    enum question_kind kind;
    char *id, *step, *client, *folder;
    int limit;
    json_t *answer;
    job_found_fn *found;
    void *user;
};

static json_t *text_of(sqlite3_stmt *s, int column)
{
    const char *text = (const char *)sqlite3_column_text(s, column);

    return text ? json_string(text) : json_null();
}

static json_t *number_of(sqlite3_stmt *s, int column)
{
    return sqlite3_column_type(s, column) == SQLITE_NULL
               ? json_null()
               : json_integer(sqlite3_column_int64(s, column));
}

static json_t *json_of(sqlite3_stmt *s, int column)
{
    const char *text = (const char *)sqlite3_column_text(s, column);
    json_t *value = text ? json_loads(text, 0, NULL) : NULL;

    return value ? value : json_null();
}

static void add_bytes(json_t *picture, const char *folder, const char *file)
{
    char *path = file_join(folder, file);
    struct buf bytes = {0}, text = {0};

    if (file_read(path, PICTURE_MAX_BYTES, &bytes, NULL) == 0) {
        base64_append(&text, buf_str(&bytes), bytes.len);
        json_object_set_new(picture, "b64_json",
                            json_stringn_nocheck(buf_str(&text), text.len));
    }
    buf_release(&bytes);
    buf_release(&text);
    free(path);
}

static json_t *pictures_of(struct db *db, const char *id, const char *folder,
                           struct err *err)
{
    sqlite3_stmt *s =
        db_statement(db,
                     "SELECT file, seed, width, height, drawn_with FROM picture WHERE "
                     "job = ?1 ORDER BY number",
                     err);
    json_t *list = json_array();

    if (!s)
        return list;
    bind_text(s, 1, id);
    while (db_row(db, s, err)) {
        const char *file = (const char *)sqlite3_column_text(s, 0);
        json_t *picture =
            json_pack("{s:s, s:I, s:i, s:i}", "file", file, "seed",
                      (json_int_t)sqlite3_column_int64(s, 1), "width",
                      sqlite3_column_int(s, 2), "height", sqlite3_column_int(s, 3));

        json_t *drawn_with = json_of(s, 4);

        json_object_update(picture, drawn_with);
        json_decref(drawn_with);
        if (folder)
            add_bytes(picture, folder, file);
        json_array_append_new(list, picture);
    }
    return list;
}

#define COLUMNS                                                                        \
    "id, kind, request, client, kept, step, attempts, error, created_ms, begun_ms, "   \
    "ended_ms"

static json_t *row_json(struct db *db, sqlite3_stmt *s, const char *folder,
                        struct err *err)
{
    const char *id = (const char *)sqlite3_column_text(s, 0);

    return json_pack("{s:o, s:o, s:o, s:o, s:b, s:o, s:o, s:o, s:o, s:o, s:o, s:o}",
                     "id", text_of(s, 0), "kind", text_of(s, 1), "request",
                     json_of(s, 2), "client", text_of(s, 3), "kept",
                     sqlite3_column_int(s, 4), "state", text_of(s, 5), "attempts",
                     number_of(s, 6), "error", json_of(s, 7), "created_ms",
                     number_of(s, 8), "begun_ms", number_of(s, 9), "ended_ms",
                     number_of(s, 10), "pictures", pictures_of(db, id, folder, err));
}

static sqlite3_stmt *statement_of(const struct question *q, struct db *db,
                                  struct err *err)
{
    sqlite3_stmt *s;

    if (q->kind == ONE) {
        s = db_statement(db, "SELECT " COLUMNS " FROM job WHERE id = ?1", err);
        if (s)
            bind_text(s, 1, q->id);
        return s;
    }
    if (q->kind == UNFINISHED)
        return db_statement(
            db, "SELECT " COLUMNS " FROM job WHERE ended_ms IS NULL ORDER BY serial",
            err);
    s = db_statement(db,
                     "SELECT " COLUMNS " FROM job WHERE (?1 IS NULL OR step = ?1) AND "
                     "(?2 IS NULL OR client = ?2) AND (?3 IS NULL OR serial < (SELECT "
                     "serial FROM job WHERE id = ?3)) ORDER BY serial DESC LIMIT ?4",
                     err);
    if (s) {
        bind_text(s, 1, q->step);
        bind_text(s, 2, q->client);
        bind_text(s, 3, q->id);
        sqlite3_bind_int(s, 4, q->limit);
    }
    return s;
}

static int run_question(struct db_task *task, struct db *db, struct err *err)
{
    struct question *q = (struct question *)task;
    sqlite3_stmt *s = statement_of(q, db, err);

    if (!s)
        return -1;
    q->answer = q->kind == ONE ? NULL : json_array();
    while (db_row(db, s, err)) {
        json_t *row = row_json(db, s, q->folder, err);

        if (q->kind == ONE)
            q->answer = row;
        else
            json_array_append_new(q->answer, row);
        if (q->kind == ONE) {
            sqlite3_reset(s);
            break;
        }
    }
    if (!q->answer)
        q->answer = json_null();
    return err->code ? -1 : 0;
}

static void done_question(struct db_task *task, const struct err *err)
{
    struct question *q = (struct question *)task;

    q->found(q->user, err, q->answer);
    json_decref(q->answer);
    free(q->id);
    free(q->step);
    free(q->client);
    free(q->folder);
    free(q);
}

static struct question *question_new(enum question_kind kind, job_found_fn *found,
                                     void *user)
{
    struct question *q = mem_zalloc(sizeof(*q));

    q->task = (struct db_task){.run = run_question, .done = done_question};
    q->kind = kind;
    q->found = found;
    q->user = user;
    return q;
}

void job_store_get(struct db *db, const char *id, const char *folder,
                   job_found_fn *found, void *user)
{
    struct question *q = question_new(ONE, found, user);

    q->id = mem_strdup(id);
    q->folder = copy_or_null(folder);
    db_submit(db, &q->task);
}

void job_store_list(struct db *db, const struct job_filter *f, job_found_fn *found,
                    void *user)
{
    struct question *q = question_new(LIST, found, user);

    q->step = copy_or_null(f->step);
    q->client = copy_or_null(f->client);
    q->id = copy_or_null(f->before);
    q->limit = f->limit;
    db_submit(db, &q->task);
}

void job_store_unfinished(struct db *db, job_found_fn *found, void *user)
{
    db_submit(db, &question_new(UNFINISHED, found, user)->task);
}
