/* db: the server's database (SQLite), on a thread of its own, so that the loop never waits for a disk.
 *
 *   struct db *db = db_open(loop, log, "/home/me/mysti.db");        opened by the thread; returns at once
 *   task->run = insert; task->done = on_inserted; db_submit(db, task);
 *   db_close(db, on_closed, me);                                    after all that was submitted
 *
 * Tasks run in their order. What waits is done in one transaction, so that many small changes cost one sync; done() comes on
 * the loop after the commit (WAL, synchronous FULL: a power cut takes nothing back), or with the error that kept the
 * task from being stored. A task that fails takes no other with it.
 *
 * A database that is damaged or not ours is set aside under another name, and a new one begun; the log says so. One of an
 * older version is brought up to date, one of a newer version is left alone: db_check() says so before anything is started. */
#ifndef MYSTI_SERVER_STORE_DB_H
#define MYSTI_SERVER_STORE_DB_H

#include "base/err.h"

#include <stdbool.h>

struct db;
struct log;
struct sqlite3_stmt;
struct uv_loop_s;

/* Embedded first in what the caller needs; its memory is the caller's again in done(), and must live until then. */
struct db_task {
    /* on the database's thread, inside a transaction */
    int (*run)(struct db_task *task, struct db *db, struct err *err);
    /* on the loop; err NULL: committed */
    void (*done)(struct db_task *task, const struct err *err);
    struct err err;
    bool failed;
    struct db_task *next;
};

/* ERR_CONFLICT with a sentence when this database is of a newer version. Before the loop runs. */
int db_check(const char *path, struct err *err) MUST_CHECK;
struct db *db_open(struct uv_loop_s *loop, struct log *log, const char *path);
void db_submit(struct db *db, struct db_task *task);
void db_close(struct db *db, void (*on_closed)(void *user), void *user);

/* ---- for run() ---- */

/* A statement, prepared once for each text (compared by address: give a literal), reset and without bindings. NULL with a
 * sentence when it cannot be. */
struct sqlite3_stmt *db_statement(struct db *db, const char *sql, struct err *err);
/* Runs to the end a statement that returns no rows. */
int db_run(struct db *db, struct sqlite3_stmt *statement, struct err *err) MUST_CHECK;
/* true: a row is there; false: no more, or an error (then err says it) */
bool db_row(struct db *db, struct sqlite3_stmt *statement, struct err *err);
int db_changes(struct db *db); /* rows that the last statement changed */

#endif
