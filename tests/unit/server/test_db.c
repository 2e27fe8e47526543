/* The database's thread: order, one transaction for many, a failure that takes no other along, files that are none of ours,
 * a disk that is full; and the jobs in it. */
#include "base/file.h"
#include "base/mem.h"
#include "server/log/log.h"
#include "server/store/db.h"
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
    assert_true(files_with("damaged") >= 2);
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

/* ---- jobs ---- */

struct added {
    char existing[40];
    bool same_body, failed;
};

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
    json_t *left, *one, *all;

    (void)state;
    for (int i = 0; i < 5; i++) {
        char id[8];

        snprintf(id, sizeof(id), "j%d", i);
        add(db, id, NULL, 0, &a);
    }
    job_store_begun(db, quiet, "j1", 1);
    job_store_picture(db, quiet, "j1",
                      &(struct picture_row){0, "img-1.png", 42, 64, 48});
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
        TEST(a_full_disk_is_a_failure_and_passes),
        TEST(a_key_means_one_job),
        TEST(what_has_not_ended_is_found_in_its_order),
    };

    return RUN_TESTS(tests);
}
