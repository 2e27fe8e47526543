/* One thread, one connection, one list of tasks. The list is taken as a whole, run inside one transaction (each task inside a
 * savepoint, so that its failure undoes its own work alone), committed, and handed back through an uv_async.
 *
 * Rejected: libuv's worker threads for it (no order among tasks, and a statement belongs to one thread at a time), and a
 * commit per task (a thousand waiting jobs would be a thousand syncs).
 *
 * When the commit itself fails (the disk is full), every task of that transaction has failed, with the same sentence.
 * When the database cannot be opened at all, every task gets that sentence, and opening is tried again with the next
 * ones: a disk that was full may have room again. */
#include "server/store/db.h"

#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "server/log/log.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

#define APPLICATION_ID 0x4d797374 /* "Myst" */
#define STATEMENTS_MAX 32
#define BUSY_MS 5000

struct db {
    struct log *log;
    char *path;
    uv_async_t bell;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t news;
    struct db_task *first, **last;     /* to be run */
    struct db_task *over, **over_last; /* to be handed back */
    bool closing, closed;
    void (*on_closed)(void *user);
    void *user;
    /* the thread's own */
    sqlite3 *sqlite;
    struct {
        const char *sql;
        sqlite3_stmt *statement;
    } statements[STATEMENTS_MAX];
    int statement_count;
};

/* What each version of the database needs after the one before. Never change one that was released: add one. */
static const char *const migrations[] = {
    "CREATE TABLE job ("
    "  serial INTEGER PRIMARY KEY AUTOINCREMENT,"
    "  id TEXT NOT NULL UNIQUE,"
    "  kind TEXT NOT NULL,"
    "  request TEXT NOT NULL," /* JSON */
    "  client TEXT NOT NULL,"
    "  key TEXT,"              /* Idempotency-Key */
    "  body INTEGER,"          /* hash of the request's body that came with the key */
    "  kept INTEGER NOT NULL," /* 1: goes on without its client */
    "  step TEXT NOT NULL,"
    "  attempts INTEGER NOT NULL DEFAULT 0,"
    "  error TEXT," /* JSON, as clients get it */
    "  created_ms INTEGER NOT NULL,"
    "  begun_ms INTEGER,"
    "  ended_ms INTEGER);"
    "CREATE UNIQUE INDEX job_key ON job (client, key) WHERE key IS NOT NULL;"
    "CREATE INDEX job_ended ON job (ended_ms);"
    "CREATE TABLE picture ("
    "  job TEXT NOT NULL,"
    "  number INTEGER NOT NULL,"
    "  file TEXT NOT NULL,"
    "  seed INTEGER NOT NULL,"
    "  width INTEGER NOT NULL,"
    "  height INTEGER NOT NULL,"
    "  PRIMARY KEY (job, number)) WITHOUT ROWID;",
    "ALTER TABLE picture ADD COLUMN drawn_with TEXT;", /* JSON: LoRAs, textual inversions */
};
#define VERSION ((int)(sizeof(migrations) / sizeof(*migrations)))

static int trouble(struct db *db, const char *what, struct err *err)
{
    return err_set(err, ERR_STORAGE, "%s: %s (%s)", what, sqlite3_errmsg(db->sqlite),
                   db->path);
}

/* ---- opening, on the thread ---- */

static int number_of(sqlite3 *sqlite, const char *sql, int64_t *ret)
{
    sqlite3_stmt *s = NULL;
    int rc = sqlite3_prepare_v2(sqlite, sql, -1, &s, NULL);

    if (rc == SQLITE_OK)
        rc = sqlite3_step(s);
    if (rc == SQLITE_ROW)
        *ret = sqlite3_column_int64(s, 0);
    sqlite3_finalize(s);
    return rc == SQLITE_ROW ? 0 : -1;
}

static bool is_newer(sqlite3 *sqlite, int64_t *ret_version)
{
    int64_t id = 0;

    return !number_of(sqlite, "PRAGMA application_id", &id) && id == APPLICATION_ID &&
           !number_of(sqlite, "PRAGMA user_version", ret_version) &&
           *ret_version > VERSION;
}

/* What SQLite thinks of it, "ok" or what is wrong; NULL: it could not be asked. */
static char *quick_check(struct db *db)
{
    sqlite3_stmt *s = NULL;
    char *said = NULL;

    if (sqlite3_prepare_v2(db->sqlite, "PRAGMA quick_check(1)", -1, &s, NULL) ==
            SQLITE_OK &&
        sqlite3_step(s) == SQLITE_ROW)
        said = mem_strdup((const char *)sqlite3_column_text(s, 0));
    sqlite3_finalize(s);
    return said;
}

/* A disk that does not answer is no damage: it passes. */
static int is_damage_or_trouble(struct db *db, char **ret_why, struct err *err)
{
    int code = sqlite3_errcode(db->sqlite) & 0xff;

    if (code != SQLITE_CORRUPT && code != SQLITE_NOTADB)
        return trouble(db, "the database cannot be read", err);
    *ret_why = mem_strdup(sqlite3_errmsg(db->sqlite));
    return 0;
}

/* Is it another program's (*ret_is_foreign), or damaged (*ret_why, to be freed)? Neither: it can be used. */
static int examine(struct db *db, bool *ret_is_foreign, char **ret_why, struct err *err)
{
    int64_t id = 0, tables = 0;

    if (number_of(db->sqlite, "PRAGMA application_id", &id) ||
        number_of(db->sqlite, "SELECT count(*) FROM sqlite_master", &tables))
        return is_damage_or_trouble(db, ret_why, err);
    *ret_is_foreign = id != APPLICATION_ID && (id || tables);
    if (*ret_is_foreign)
        return 0;
    *ret_why = quick_check(db);
    if (!*ret_why)
        return is_damage_or_trouble(db, ret_why, err);
    if (strcmp(*ret_why, "ok") == 0) {
        free(*ret_why);
        *ret_why = NULL;
    }
    return 0;
}

static int set_newer(const char *path, int64_t version, struct err *err)
{
    return err_set(err, ERR_CONFLICT,
                   "the database %s was written by a newer Mysti (its version is "
                   "%" PRId64 ", this one knows %d): start that one, choose another "
                   "--home, or move the file away, and its jobs with it",
                   path, version, VERSION);
}

static void forget_connection(struct db *db)
{
    for (int i = 0; i < db->statement_count; i++)
        sqlite3_finalize(db->statements[i].statement);
    db->statement_count = 0;
    sqlite3_close(db->sqlite);
    db->sqlite = NULL;
}

/* why: what is wrong with it; NULL: it is another program's. */
static void set_aside(struct db *db, const char *why)
{
    static const char *const endings[] = {"", "-wal", "-shm"};
    int64_t now = clock_unix_us();
    char *aside =
        mem_printf("%s.%s-%" PRId64, db->path, why ? "damaged" : "foreign", now);

    forget_connection(db);
    for (size_t i = 0; i < sizeof(endings) / sizeof(*endings); i++) {
        char *from = mem_printf("%s%s", db->path, endings[i]);
        char *to = mem_printf("%s%s", aside, endings[i]);

        (void)rename(from, to);
        free(from);
        free(to);
    }
    if (why)
        log_error(db->log,
                  "The database %s is damaged (%s): it was set aside as %s, and a new "
                  "one begun. Jobs that waited are lost with it, pictures are not; "
                  "\"sqlite3 %s .recover\" shows what can still be read",
                  db->path, why, aside, aside);
    else
        log_error(db->log,
                  "The database %s is not Mysti's: it was set aside as %s, and a new "
                  "one begun",
                  db->path, aside);
    free(aside);
}

static int run_text(struct db *db, const char *sql, struct err *err)
{
    if (sqlite3_exec(db->sqlite, sql, NULL, NULL, NULL) == SQLITE_OK)
        return 0;
    return trouble(db, "the database cannot be written", err);
}

/* Step by step, each in a transaction of its own: one that fails leaves the database as the one before it left it. */
static int migrate(struct db *db, const char *const *steps, int count, struct err *err)
{
    int64_t version = 0;

    if (number_of(db->sqlite, "PRAGMA user_version", &version))
        return trouble(db, "the database cannot be read", err);
    for (; version < count; version++) {
        char *sql = mem_printf("BEGIN IMMEDIATE; %s PRAGMA user_version = %d; "
                               "PRAGMA application_id = %d; COMMIT",
                               steps[version], (int)version + 1, APPLICATION_ID);
        int rc = run_text(db, sql, err);

        free(sql);
        if (rc) {
            sqlite3_exec(db->sqlite, "ROLLBACK", NULL, NULL, NULL);
            return -1;
        }
    }
    return 0;
}

static int connect_once(struct db *db, struct err *err)
{
    int rc = sqlite3_open_v2(
        db->path, &db->sqlite,
        SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX, NULL);

    if (rc == SQLITE_OK) {
        sqlite3_busy_timeout(db->sqlite, BUSY_MS);
        sqlite3_extended_result_codes(db->sqlite, 1);
        return 0;
    }
    trouble(db, "the database cannot be opened", err);
    forget_connection(db);
    return -1;
}

static int prepare(struct db *db, struct err *err)
{
    bool is_foreign = false;
    int64_t version;
    char *why = NULL;

    if (is_newer(db->sqlite, &version))
        return set_newer(db->path, version, err);
    if (examine(db, &is_foreign, &why, err))
        return -1;
    if (is_foreign || why) {
        set_aside(db, why);
        free(why);
        if (connect_once(db, err))
            return -1;
    }
    if (run_text(db, "PRAGMA journal_mode = WAL", err) ||
        run_text(db, "PRAGMA synchronous = FULL", err))
        return -1;
    return migrate(db, migrations, VERSION, err);
}

/* Opens it unless it is open. */
static int connect_thread(struct db *db, struct err *err)
{
    if (db->sqlite)
        return 0;
    if (connect_once(db, err))
        return -1;
    if (prepare(db, err)) {
        forget_connection(db);
        return -1;
    }
    return 0;
}

/* ---- statements ---- */

sqlite3_stmt *db_statement(struct db *db, const char *sql, struct err *err)
{
    sqlite3_stmt *statement = NULL;

    for (int i = 0; i < db->statement_count; i++)
        if (db->statements[i].sql == sql) {
            sqlite3_reset(db->statements[i].statement);
            sqlite3_clear_bindings(db->statements[i].statement);
            return db->statements[i].statement;
        }
    if (db->statement_count == STATEMENTS_MAX)
        abort(); /* more literals than this program has */
    if (sqlite3_prepare_v3(db->sqlite, sql, -1, SQLITE_PREPARE_PERSISTENT, &statement,
                           NULL) != SQLITE_OK) {
        trouble(db, "the database does not take a statement", err);
        return NULL;
    }
    db->statements[db->statement_count].sql = sql;
    db->statements[db->statement_count++].statement = statement;
    return statement;
}

int db_run(struct db *db, sqlite3_stmt *statement, struct err *err)
{
    int rc = statement ? sqlite3_step(statement) : SQLITE_ERROR;

    if (!statement)
        return -1; /* err was set when it was prepared */
    if (rc != SQLITE_DONE && rc != SQLITE_ROW)
        trouble(db, "the database could not be changed", err);
    sqlite3_reset(statement);
    return rc == SQLITE_DONE || rc == SQLITE_ROW ? 0 : -1;
}

bool db_row(struct db *db, sqlite3_stmt *statement, struct err *err)
{
    int rc = sqlite3_step(statement);

    if (rc == SQLITE_ROW)
        return true;
    if (rc != SQLITE_DONE)
        trouble(db, "the database could not be read", err);
    sqlite3_reset(statement);
    return false;
}

int db_changes(struct db *db)
{
    return sqlite3_changes(db->sqlite);
}

/* ---- the thread ---- */

static void fail_task(struct db_task *t, const struct err *err)
{
    t->failed = true;
    t->err = *err;
}

static void run_task(struct db *db, struct db_task *t)
{
    struct err err = {0};

    if (run_text(db, "SAVEPOINT task", &err)) {
        fail_task(t, &err);
        return;
    }
    if (t->run(t, db, &err)) {
        fail_task(t, &err);
        sqlite3_exec(db->sqlite, "ROLLBACK TO task", NULL, NULL, NULL);
    }
    sqlite3_exec(db->sqlite, "RELEASE task", NULL, NULL, NULL);
}

static void run_all(struct db *db, struct db_task *first)
{
    struct err err = {0};
    bool open = !connect_thread(db, &err) && !run_text(db, "BEGIN IMMEDIATE", &err);

    for (struct db_task *t = first; t; t = t->next)
        if (open)
            run_task(db, t);
        else
            fail_task(t, &err);
    if (open && run_text(db, "COMMIT", &err)) {
        /* a full disk ends the transaction in the middle: the first to meet it has the reason */
        for (struct db_task *t = first; t; t = t->next)
            if (t->failed) {
                err = t->err;
                break;
            }
        sqlite3_exec(db->sqlite, "ROLLBACK", NULL, NULL, NULL);
        for (struct db_task *t = first; t; t = t->next)
            if (!t->failed)
                fail_task(t, &err);
    }
}

static void *thread_main(void *data)
{
    struct db *db = data;

    pthread_mutex_lock(&db->lock);
    for (;;) {
        while (!db->first && !db->closing)
            pthread_cond_wait(&db->news, &db->lock);
        if (!db->first)
            break;
        struct db_task *first = db->first, **end = db->last;

        db->first = NULL;
        db->last = &db->first;
        pthread_mutex_unlock(&db->lock);
        run_all(db, first);
        pthread_mutex_lock(&db->lock);
        *db->over_last = first;
        db->over_last = end;
        uv_async_send(&db->bell);
    }
    db->closed = true;
    pthread_mutex_unlock(&db->lock);
    forget_connection(db);
    uv_async_send(&db->bell);
    return NULL;
}

/* ---- before all that ---- */

int db_check(const char *path, struct err *err)
{
    sqlite3 *sqlite = NULL;
    int64_t version;
    int rc = 0;

    if (sqlite3_open_v2(path, &sqlite, SQLITE_OPEN_READONLY, NULL) == SQLITE_OK &&
        is_newer(sqlite, &version))
        rc = set_newer(path, version, err);
    sqlite3_close(sqlite);
    return rc;
}

/* ---- the loop's side ---- */

static void on_handle_closed(uv_handle_t *handle)
{
    struct db *db = handle->data;
    void (*on_closed)(void *user) = db->on_closed;
    void *user = db->user;

    pthread_mutex_destroy(&db->lock);
    pthread_cond_destroy(&db->news);
    free(db->path);
    free(db);
    if (on_closed)
        on_closed(user);
}

static void on_bell(uv_async_t *bell)
{
    struct db *db = bell->data;
    struct db_task *over;
    bool closed;

    pthread_mutex_lock(&db->lock);
    over = db->over;
    db->over = NULL;
    db->over_last = &db->over;
    closed = db->closed;
    pthread_mutex_unlock(&db->lock);
    while (over) {
        struct db_task *t = over;

        over = t->next;
        t->done(t, t->failed ? &t->err : NULL);
    }
    if (!closed || uv_is_closing((uv_handle_t *)bell))
        return;
    pthread_join(db->thread, NULL);
    uv_close((uv_handle_t *)bell, on_handle_closed);
}

struct db *db_open(struct uv_loop_s *loop, struct log *log, const char *path)
{
    struct db *db = mem_zalloc(sizeof(*db));

    db->log = log;
    db->path = mem_strdup(path);
    db->last = &db->first;
    db->over_last = &db->over;
    pthread_mutex_init(&db->lock, NULL);
    pthread_cond_init(&db->news, NULL);
    uv_async_init(loop, &db->bell, on_bell);
    db->bell.data = db;
    if (pthread_create(&db->thread, NULL, thread_main, db))
        abort(); /* a machine that cannot start one thread more */
    return db;
}

void db_submit(struct db *db, struct db_task *task)
{
    task->next = NULL;
    task->failed = false;
    pthread_mutex_lock(&db->lock);
    *db->last = task;
    db->last = &task->next;
    pthread_cond_signal(&db->news);
    pthread_mutex_unlock(&db->lock);
}

void db_close(struct db *db, void (*on_closed)(void *user), void *user)
{
    db->on_closed = on_closed;
    db->user = user;
    pthread_mutex_lock(&db->lock);
    db->closing = true;
    pthread_cond_signal(&db->news);
    pthread_mutex_unlock(&db->lock);
}
