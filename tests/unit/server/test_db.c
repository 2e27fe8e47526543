/* The database's thread: order, one transaction for many, a failure that takes no other along, files that are none of ours,
 * or of an older or newer Mysti, a disk that is full; and the jobs in it. */
#include "server/store/db.c" /* for the steps from version to version */
#include "server/store/jobs.h"

#include "unit.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sqlite3.h>
#include <sys/resource.h>
#include <unistd.h>
#include <uv.h>

static uv_loop_t loop;
static struct log *quiet;
static char folder[64];

static char *path(void)
{
    return file_join(folder, "test.db");
}

static struct db *open_db(void)
{
    char *p = path();
    struct db *db = db_open(&loop, quiet, p);

    free(p);
    return db;
}

static void close_db(struct db *db)
{
    db_close(db, NULL, NULL);
    uv_run(&loop, UV_RUN_DEFAULT);
}

/* ---- tasks ---- */

struct step {
    struct db_task task;
    const char *sql;
    bool failed;
    int at; /* when it was answered */
};

static int answers;

static int run_step(struct db_task *task, struct db *db, struct err *err)
{
    return db_run(db, db_statement(db, ((struct step *)task)->sql, err), err);
}

static void done_step(struct db_task *task, const struct err *err)
{
    struct step *s = (struct step *)task;

    s->failed = err != NULL;
    s->at = ++answers;
}

static void submit(struct db *db, struct step *s, const char *sql)
{
    *s = (struct step){.task = {.run = run_step, .done = done_step}, .sql = sql};
    db_submit(db, &s->task);
}

static void a_failure_takes_no_other_along(void **state)
{
    struct db *db = open_db();
    struct step s[4];

    (void)state;
    answers = 0;
    submit(db, &s[0], "CREATE TABLE t (x INTEGER PRIMARY KEY)");
    submit(db, &s[1], "INSERT INTO t VALUES (1)");
    submit(db, &s[2], "INSERT INTO t VALUES (1) -- again");
    submit(db, &s[3], "INSERT INTO t VALUES (2)");
    close_db(db);
    assert_false(s[0].failed || s[1].failed || s[3].failed);
    assert_true(s[2].failed);
    for (int i = 0; i < 4; i++)
        assert_int_equal(s[i].at, i + 1);
    /* and it is on disk */
    db = open_db();
    submit(db, &s[0], "INSERT INTO t VALUES (2) -- there already");
    submit(db, &s[1], "INSERT INTO t VALUES (3)");
    close_db(db);
    assert_true(s[0].failed);
    assert_false(s[1].failed);
}

static void write_file(const char *text)
{
    char *p = path();

    assert_int_equal(file_write_atomic(p, text, strlen(text), 0600, NULL), 0);
    free(p);
}

static int files_with(const char *part)
{
    DIR *dir = opendir(folder);
    int n = 0;

    for (struct dirent *d; (d = readdir(dir));)
        n += strstr(d->d_name, part) != NULL;
    closedir(dir);
    return n;
}

static void what_is_no_database_of_ours_is_set_aside(void **state)
{
    struct step s;
    struct db *db;
    sqlite3 *foreign;
    char *p = path();

    (void)state;
    write_file("no database at all, but as long as a header of one would be: "
               "0123456789012345678901234567890123456789");
    db = open_db();
    submit(db, &s, "CREATE TABLE t (x)");
    close_db(db);
    assert_false(s.failed);
    assert_int_equal(files_with("damaged"), 1);

    unlink(p);
    assert_int_equal(sqlite3_open(p, &foreign), SQLITE_OK);
    assert_int_equal(sqlite3_exec(foreign, "CREATE TABLE theirs (x)", NULL, NULL, NULL),
                     SQLITE_OK);
    sqlite3_close(foreign);
    db = open_db();
    submit(db, &s, "CREATE TABLE theirs (x)"); /* it is not there */
    close_db(db);
    assert_false(s.failed);
    assert_true(files_with("foreign") >= 1);
    free(p);
}

/* Bytes in the middle of a sound database are overwritten. */
static void a_damaged_one_is_set_aside(void **state)
{
    struct db *db = open_db();
    struct step s;
    char *p = path(), noise[4096];
    int fd;

    (void)state;
    submit(db, &s, "CREATE TABLE t (x)");
    close_db(db);
    memset(noise, 0x5a, sizeof(noise));
    fd = open(p, O_WRONLY);
    assert_int_equal(pwrite(fd, noise, sizeof(noise), 4096), sizeof(noise));
    close(fd);
    db = open_db();
    submit(db, &s, "CREATE TABLE t (x)");
    close_db(db);
    assert_false(s.failed);
    assert_true(files_with("damaged") >= 1);
    free(p);
}

static void a_full_disk_is_a_failure_and_passes(void **state)
{
    struct rlimit before, small;
    struct db *db = open_db();
    struct step s;

    (void)state;
    signal(SIGXFSZ, SIG_IGN);
    submit(db, &s, "CREATE TABLE t (x)");
    uv_run(&loop, UV_RUN_ONCE);
    getrlimit(RLIMIT_FSIZE, &before);
    small = before;
    small.rlim_cur = 64 * 1024;
    setrlimit(RLIMIT_FSIZE, &small);
    submit(db, &s, "INSERT INTO t VALUES (zeroblob(1000000))");
    uv_run(&loop, UV_RUN_ONCE);
    assert_true(s.failed);
    assert_int_equal(s.task.err.code, ERR_STORAGE);
    setrlimit(RLIMIT_FSIZE, &before);
    submit(db, &s, "INSERT INTO t VALUES (zeroblob(1000000)) -- now");
    close_db(db);
    assert_false(s.failed);
}

/* ---- versions ---- */

/* What version 1 left on the disk, written down as it was then: it is not to follow the program. */
static const char version_1[] =
    "CREATE TABLE job (  serial INTEGER PRIMARY KEY AUTOINCREMENT,  id TEXT NOT NULL "
    "UNIQUE,  kind TEXT NOT NULL,  request TEXT NOT NULL,  client TEXT NOT NULL,  key "
    "TEXT,  body INTEGER,  kept INTEGER NOT NULL,  step TEXT NOT NULL,  attempts "
    "INTEGER NOT NULL DEFAULT 0,  error TEXT,  created_ms INTEGER NOT NULL,  begun_ms "
    "INTEGER,  ended_ms INTEGER);"
    "CREATE UNIQUE INDEX job_key ON job (client, key) WHERE key IS NOT NULL;"
    "CREATE INDEX job_ended ON job (ended_ms);"
    "CREATE TABLE picture (  job TEXT NOT NULL,  number INTEGER NOT NULL,  file TEXT "
    "NOT NULL,  seed INTEGER NOT NULL,  width INTEGER NOT NULL,  height INTEGER NOT "
    "NULL,  PRIMARY KEY (job, number)) WITHOUT ROWID;"
    "INSERT INTO job (id, kind, request, client, kept, step, created_ms) VALUES "
    "('old', 'image', '{\"prompt\":\"a boat\"}', 'me', 1, 'waiting', 5);"
    "INSERT INTO job (id, kind, request, client, key, body, kept, step, created_ms, "
    "ended_ms) VALUES ('over', 'image', '{}', 'me', 'k', 7, 1, 'done', 3, 4);"
    "INSERT INTO picture VALUES ('over', 0, 'img-1.png', 42, 64, 48);"
    "PRAGMA user_version = 1; PRAGMA application_id = 1299805044;";

static sqlite3 *open_raw(const char *sql)
{
    char *p = path(), *why = NULL;
    sqlite3 *raw;

    assert_int_equal(sqlite3_open(p, &raw), SQLITE_OK);
    if (sql && sqlite3_exec(raw, sql, NULL, NULL, &why) != SQLITE_OK)
        fail_msg("%s", why);
    free(p);
    return raw;
}

static int64_t count(sqlite3 *raw, const char *sql)
{
    int64_t n = -1;

    (void)number_of(raw, sql, &n);
    return n;
}

/* All statements that made it; free() it. */
static char *schema(sqlite3 *raw)
{
    struct buf text = {0};
    sqlite3_stmt *s;

    sqlite3_prepare_v2(raw,
                       "SELECT sql FROM sqlite_master WHERE sql IS NOT NULL "
                       "AND name NOT LIKE 'sqlite%' ORDER BY name",
                       -1, &s, NULL);
    while (sqlite3_step(s) == SQLITE_ROW)
        buf_printf(&text, "%s\n", (const char *)sqlite3_column_text(s, 0));
    sqlite3_finalize(s);
    return buf_take(&text);
}

static void on_found(void *user, const struct err *err, json_t *jobs);
static void on_added(void *user, const struct err *err, const char *existing,
                     bool same_body);

struct added {
    char existing[40];
    bool same_body, failed;
};

static void add(struct db *db, const char *id, const char *key, uint64_t body,
                struct added *ret);

static void an_older_one_is_brought_up_to_date(void **state)
{
    struct db *db;
    struct added again;
    json_t *left, *over;
    sqlite3 *raw;

    (void)state;
    sqlite3_close(open_raw(version_1));
    db = open_db();
    job_store_unfinished(db, on_found, &left);
    job_store_get(db, "over", NULL, on_found, &over);
    add(db, "new", "k", 7, &again);
    close_db(db);
    assert_int_equal(json_array_size(left), 1);
    assert_string_equal(
        json_string_value(json_object_get(json_array_get(left, 0), "id")), "old");
    assert_int_equal(json_array_size(json_object_get(over, "pictures")), 1);
    assert_string_equal(again.existing, "over");
    json_decref(left);
    json_decref(over);
    raw = open_raw(NULL);
    assert_int_equal(count(raw, "PRAGMA user_version"), VERSION);
    assert_int_equal(count(raw, "SELECT count(*) FROM job"), 2);
    sqlite3_close(raw);
    assert_int_equal(files_with("damaged") + files_with("foreign"), 0);
}

/* A step that was released is on people's disks: changed, it would not be what they have. */
static void the_first_step_is_what_was_released(void **state)
{
    struct db db = {.path = path()};
    char *released, *now;
    struct err err = {0};

    (void)state;
    db.sqlite = open_raw(version_1);
    released = schema(db.sqlite);
    sqlite3_close(db.sqlite);
    unlink(db.path);
    db.sqlite = open_raw(NULL);
    assert_int_equal(migrate(&db, migrations, 1, &err), 0);
    now = schema(db.sqlite);
    assert_string_equal(now, released);
    sqlite3_close(db.sqlite);
    free(released);
    free(now);
    free(db.path);
}

static void a_step_that_fails_leaves_what_was_there(void **state)
{
    const char *const steps[] = {
        migrations[0],
        "ALTER TABLE job ADD COLUMN urgent INTEGER NOT NULL DEFAULT 7;",
        "UPDATE job SET urgent = 8; CREATE TABLE job (twice);",
    };
    struct db db = {.path = path(), .sqlite = open_raw(version_1)};
    struct err err = {0};

    (void)state;
    assert_int_equal(migrate(&db, steps, 3, &err), -1);
    assert_non_null(strstr(err.message, "already exists"));
    assert_int_equal(count(db.sqlite, "PRAGMA user_version"), 2);
    assert_int_equal(count(db.sqlite, "SELECT sum(urgent) FROM job"), 14);
    assert_int_equal(migrate(&db, steps, 2, &err), 0); /* it is there already */
    sqlite3_close(db.sqlite);
    free(db.path);
}

static void a_newer_one_is_left_alone(void **state)
{
    struct db *db;
    struct step s;
    struct err err = {0};
    char *p = path();
    sqlite3 *raw;

    (void)state;
    assert_int_equal(db_check(p, &err), 0); /* there is none */
    sqlite3_close(open_raw(version_1));
    assert_int_equal(db_check(p, &err), 0);
    sqlite3_close(open_raw("PRAGMA user_version = 99; CREATE TABLE later (x)"));
    assert_int_equal(db_check(p, &err), -1);
    assert_int_equal(err.code, ERR_CONFLICT);
    assert_non_null(strstr(err.message, p));
    assert_non_null(strstr(err.message, "newer Mysti (its version is 99"));
    db = open_db();
    submit(db, &s, "DELETE FROM job");
    close_db(db);
    assert_true(s.failed);
    assert_non_null(strstr(s.task.err.message, "newer Mysti"));
    raw = open_raw(NULL);
    assert_int_equal(count(raw, "SELECT count(*) FROM job"), 2);
    assert_int_equal(count(raw, "SELECT count(*) FROM later"), 0);
    sqlite3_close(raw);
    assert_int_equal(files_with("damaged") + files_with("foreign"), 0);
    free(p);
}

/* ---- jobs ---- */

static void on_added(void *user, const struct err *err, const char *existing,
                     bool same_body)
{
    struct added *a = user;

    a->failed = err != NULL;
    a->same_body = same_body;
    snprintf(a->existing, sizeof(a->existing), "%s", existing ? existing : "");
}

static void add(struct db *db, const char *id, const char *key, uint64_t body,
                struct added *ret)
{
    const struct job_row row = {.id = id,
                                .kind = "image",
                                .request = "{\"prompt\":\"a\"}",
                                .client = "me",
                                .key = key,
                                .body = body,
                                .kept = true,
                                .created_ms = 5};

    job_store_add(db, &row, on_added, ret);
}

static void on_found(void *user, const struct err *err, json_t *jobs)
{
    assert_null(err);
    *(json_t **)user = json_incref(jobs);
}

static void a_key_means_one_job(void **state)
{
    struct db *db = open_db();
    struct added a[4];

    (void)state;
    add(db, "j1", "k", 7, &a[0]);
    add(db, "j2", "k", 7, &a[1]);
    add(db, "j3", "k", 8, &a[2]);
    add(db, "j4", NULL, 7, &a[3]);
    close_db(db);
    assert_string_equal(a[0].existing, "");
    assert_string_equal(a[1].existing, "j1");
    assert_true(a[1].same_body);
    assert_string_equal(a[2].existing, "j1");
    assert_false(a[2].same_body);
    assert_string_equal(a[3].existing, "");
}

static void what_has_not_ended_is_found_in_its_order(void **state)
{
    struct db *db = open_db();
    struct added a;
    json_t *left, *one, *all, *with = json_pack("{s:[{s:s}]}", "loras", "name", "ink");

    (void)state;
    for (int i = 0; i < 5; i++) {
        char id[8];

        snprintf(id, sizeof(id), "j%d", i);
        add(db, id, NULL, 0, &a);
    }
    job_store_begun(db, quiet, "j1", 1);
    job_store_picture(db, quiet, "j1",
                      &(struct picture_row){0, "img-1.png", 42, 64, 48, with});
    json_decref(with);
    job_store_end(db, quiet, "j0", "done", NULL, 100);
    job_store_end(db, quiet, "j3", "failed", "{\"message\":\"no\"}", 100);
    job_store_unfinished(db, on_found, &left);
    job_store_get(db, "j3", NULL, on_found, &one);
    job_store_end(db, quiet, "j1", "done", NULL,
                  1); /* of the ended ones the newest stays */
    job_store_list(db, &(struct job_filter){.limit = 10}, on_found, &all);
    close_db(db);
    assert_int_equal(json_array_size(left), 3);
    assert_string_equal(
        json_string_value(json_object_get(json_array_get(left, 0), "id")), "j1");
    assert_int_equal(
        json_integer_value(json_object_get(json_array_get(left, 0), "attempts")), 1);
    assert_int_equal(
        json_array_size(json_object_get(json_array_get(left, 0), "pictures")), 1);
    with = json_object_get(json_array_get(left, 0), "pictures");
    with = json_object_get(json_array_get(with, 0), "loras");
    assert_string_equal(
        json_string_value(json_object_get(json_array_get(with, 0), "name")), "ink");
    assert_string_equal(
        json_string_value(json_object_get(json_object_get(one, "error"), "message")),
        "no");
    assert_int_equal(json_array_size(all), 3); /* j4, j3 (the newest that ended), j2 */
    json_decref(left);
    json_decref(one);
    json_decref(all);
}

static int set_up(void **state)
{
    (void)state;
    uv_loop_init(&loop);
    snprintf(folder, sizeof(folder), "/tmp/mysti-db-XXXXXX");
    assert_non_null(mkdtemp(folder));
    quiet = log_new(open("/dev/null", O_WRONLY), LOG_ERROR);
    return 0;
}

static int tear_down(void **state)
{
    char *command = mem_printf("rm -rf %s", folder);

    (void)state;
    uv_loop_close(&loop);
    log_free(quiet);
    assert_int_equal(system(command), 0);
    free(command);
    return 0;
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(a_failure_takes_no_other_along),
        TEST(what_is_no_database_of_ours_is_set_aside),
        TEST(a_damaged_one_is_set_aside),
        TEST(an_older_one_is_brought_up_to_date),
        TEST(the_first_step_is_what_was_released),
        TEST(a_step_that_fails_leaves_what_was_there),
        TEST(a_newer_one_is_left_alone),
        TEST(a_full_disk_is_a_failure_and_passes),
        TEST(a_key_means_one_job),
        TEST(what_has_not_ended_is_found_in_its_order),
    };

    return RUN_TESTS(tests);
}
