/* Child processes, the record of them, and the records of what should be loaded and of saved contexts. */
#include "unit.h"

#include "base/buf.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "server/supervisor/desired.h"
#include "server/supervisor/process.h"
#include "server/supervisor/reaper.h"
#include "server/supervisor/record.h"
#include "server/supervisor/worker.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>
#include <uv.h>

struct seen {
    struct buf lines;
    struct process *process;
    struct process_exit how;
    int exits;
};

static void see_line(void *data, enum process_stream stream, const char *line,
                     size_t len)
{
    struct seen *s = data;

    (void)len;
    assert_int_equal(s->exits, 0); /* last words before the end */
    buf_printf(&s->lines, "%d:%s|", (int)stream, line);
}

static void see_exit(void *data, const struct process_exit *how)
{
    struct seen *s = data;

    s->how = *how;
    s->exits++;
    process_close(s->process);
}

static void run_shell(uv_loop_t *loop, struct seen *s, const char *script)
{
    char *argv[] = {mem_strdup("sh"), mem_strdup("-c"), mem_strdup(script), NULL};
    char path[] = "PATH=/usr/bin:/bin";
    char *env[] = {path, NULL};
    struct process_options o = {.loop = loop,
                                .program = "/bin/sh",
                                .argv = argv,
                                .env = env,
                                .on_line = see_line,
                                .on_exit = see_exit,
                                .data = s};
    struct err err = {0};

    if (process_start(&o, &s->process, &err))
        fail_msg("%s", err.message);
    for (int i = 0; i < 3; i++)
        free(argv[i]);
}

static void lines_and_end_are_told(void **state)
{
    uv_loop_t loop;
    struct seen s = {0};
    char text[64];

    (void)state;
    uv_loop_init(&loop);
    run_shell(&loop, &s,
              "echo one; echo two >&2; sleep 0.05; printf 'last words'; exit 7");
    uv_run(&loop, UV_RUN_DEFAULT);
    assert_int_equal(s.exits, 1);
    assert_int_equal(s.how.code, 7);
    assert_non_null(strstr(buf_str(&s.lines), "0:one|"));
    assert_non_null(strstr(buf_str(&s.lines), "1:two|"));
    assert_non_null(strstr(buf_str(&s.lines), "0:last words|"));
    process_exit_text(&s.how, text, sizeof(text));
    assert_string_equal(text, "exited with code 7");
    buf_release(&s.lines);
    assert_int_equal(uv_loop_close(&loop), 0);
}

static void the_whole_group_ends(void **state)
{
    uv_loop_t loop;
    struct seen s = {0};
    char text[64];
    int grandchild;

    (void)state;
    uv_loop_init(&loop);
    run_shell(&loop, &s, "exec setsid sh -c 'sleep 1000 & echo $!; wait'");
    while (s.lines.len == 0)
        uv_run(&loop, UV_RUN_ONCE);
    grandchild = (int)strtol(buf_str(&s.lines) + 2, NULL, 10);
    assert_int_equal(kill(grandchild, 0), 0);
    process_signal(s.process, SIGTERM);
    uv_run(&loop, UV_RUN_DEFAULT);
    assert_int_equal(s.how.signal, SIGTERM);
    assert_true(s.how.by_us);
    process_exit_text(&s.how, text, sizeof(text));
    assert_string_equal(text, "killed by signal 15 (Terminated)");
    for (int i = 0; i < 200 && reaper_start_time(grandchild); i++)
        usleep(10000);
    assert_int_equal(reaper_start_time(grandchild), 0);
    buf_release(&s.lines);
    assert_int_equal(uv_loop_close(&loop), 0);
}

static void a_missing_program_is_a_sentence(void **state)
{
    uv_loop_t loop;
    char name[] = "x";
    char *argv[] = {name, NULL};
    struct process_options o = {.loop = &loop,
                                .program = "/nowhere/x",
                                .argv = argv,
                                .on_line = see_line,
                                .on_exit = see_exit};
    struct process *p = NULL;
    struct err err = {0};

    (void)state;
    uv_loop_init(&loop);
    assert_int_equal(process_start(&o, &p, &err), -1);
    assert_string_equal(err.message,
                        "cannot start /nowhere/x: no such file or directory");
    uv_run(&loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&loop), 0);
}

static void tokens_differ(void **state)
{
    char a[PROCESS_TOKEN_SIZE], b[PROCESS_TOKEN_SIZE];

    (void)state;
    process_random_token(a);
    process_random_token(b);
    assert_int_equal(strlen(a), 64);
    assert_int_equal(strspn(a, "0123456789abcdef"), 64);
    assert_string_not_equal(a, b);
}

/* A server that is killed leaves its file; the next one ends what the file names, and nothing else. */
static void leftovers_are_ended_strangers_are_not(void **state)
{
    char home[] = "/tmp/mysti-test-reaper-XXXXXX";
    struct reaper *r;
    struct err err = {0};
    pid_t server, ours, stranger;
    int ends[2], status;
    char *file, *lock;

    (void)state;
    assert_non_null(mkdtemp(home));
    assert_int_equal(pipe(ends), 0);
    stranger = fork();
    if (stranger == 0) {
        execl("/bin/sleep", "sleep", "1000", (char *)NULL);
        _exit(127);
    }
    server = fork();
    if (server == 0) { /* "the server": claims the folder, starts a worker, is killed */
        pid_t worker = fork();

        if (worker == 0) {
            setpgid(0, 0);
            execl("/bin/sleep", "mysti_sd_worker", "1000", (char *)NULL);
            _exit(127);
        }
        usleep(100000); /* until it has become what its name says */
        if (reaper_new(home, &r, NULL))
            _exit(1);
        reaper_add(r, "mysti_sd_worker", worker);
        reaper_add(r, "mysti_llm_worker", stranger); /* the name does not fit */
        (void)!write(ends[1], &worker, sizeof(worker));
        kill(getpid(), SIGKILL);
    }
    assert_int_equal(read(ends[0], &ours, sizeof(ours)), sizeof(ours));
    waitpid(server, &status, 0);
    assert_true(reaper_start_time(ours) > 0);
    assert_int_equal(reaper_new(home, &r, &err), 0);
    assert_int_equal(reaper_found(r), 1);
    assert_int_equal(reaper_start_time(ours), 0);
    assert_true(reaper_start_time(stranger) > 0);
    kill(stranger, SIGKILL);
    waitpid(stranger, &status, 0);
    reaper_free(r);
    file = file_join(home, "workers.json");
    lock = file_join(home, "lock");
    unlink(file);
    unlink(lock);
    rmdir(home);
    free(file);
    free(lock);
    close(ends[0]);
    close(ends[1]);
}

static void one_server_per_folder(void **state)
{
    char home[] = "/tmp/mysti-test-lock-XXXXXX";
    struct reaper *first, *second = NULL;
    struct err err = {0};
    char *file, *lock;

    (void)state;
    assert_non_null(mkdtemp(home));
    assert_int_equal(reaper_new(home, &first, &err), 0);
    assert_int_equal(reaper_new(home, &second, &err), -1);
    assert_int_equal(err.code, ERR_CONFLICT);
    assert_non_null(strstr(err.message, "another mysti_server (pid "));
    reaper_free(first);
    assert_int_equal(reaper_new(home, &second, &err), 0);
    reaper_free(second);
    file = file_join(home, "workers.json");
    lock = file_join(home, "lock");
    unlink(file);
    unlink(lock);
    rmdir(home);
    free(file);
    free(lock);
}

static void count_done(void *data, const struct err *err)
{
    assert_null(err);
    ++*(int *)data;
}

static void wishes_survive(void **state)
{
    char path[64];
    struct desired_wishes wishes = {0}, back = {0};
    struct worker_load_options o = {.gpu_layers = 12, .context = 512, .slots = 3};
    struct record *d;
    struct err err = {0};
    uv_loop_t loop;
    int done = 0;

    (void)state;
    snprintf(path, sizeof(path), "/tmp/mysti-desired-%d.json", (int)getpid());
    unlink(path);
    uv_loop_init(&loop);
    assert_int_equal(desired_read(path, &back, &err), 0); /* none yet: nothing known */
    assert_false(back.sd.known);
    assert_false(back.text_known);
    d = record_new(&loop, path);
    wishes.text_known = true;
    wishes.text_count = 1;
    wish_set(&wishes.text[0], "/a/b.gguf", NULL);
    record_write(d, desired_text(&wishes), count_done, &done);
    wish_set(&wishes.text[0], "/a/c.gguf", NULL);
    record_write(d, desired_text(&wishes), count_done,
                 &done); /* overtaken by the next */
    wish_set(&wishes.text[0], "/a/d \"x\".gguf", &o);
    wishes.text_count = 2;
    wish_set(&wishes.text[1], "/a/e.gguf", NULL);
    wishes.text[1].is_parked = wishes.text[1].gave_way = true;
    record_write(d, desired_text(&wishes), count_done, &done);
    uv_run(&loop, UV_RUN_DEFAULT);
    assert_int_equal(done, 2);
    assert_int_equal(desired_read(path, &back, &err), 0);
    assert_false(back.sd.known); /* nobody has decided about pictures */
    assert_int_equal(back.text_count, 2);
    assert_true(wish_is_same(&back.text[0], &wishes.text[0]));
    assert_true(wish_is_same(&back.text[1], &wishes.text[1]));
    assert_false(back.text[0].is_parked || back.text[0].gave_way);
    assert_true(back.text[1].is_parked && back.text[1].gave_way);
    desired_wishes_release(&back);
    desired_wishes_release(&wishes);
    wish_set(&wishes.sd, NULL, NULL); /* unloaded: that is a decision */
    wishes.text_known = true;
    record_write(d, desired_text(&wishes), NULL, NULL);
    uv_run(&loop, UV_RUN_DEFAULT);
    assert_int_equal(desired_read(path, &back, &err), 0);
    assert_true(back.sd.known);
    assert_null(back.sd.path);
    assert_true(back.text_known);
    assert_int_equal(back.text_count, 0);
    record_free(d);
    assert_int_equal(uv_loop_close(&loop), 0);
    unlink(path);
}

static int read_record_of(const char *text, struct desired_wishes *ret, struct err *err)
{
    char path[64];
    int rc;

    snprintf(path, sizeof(path), "/tmp/mysti-record-%d.json", (int)getpid());
    assert_int_equal(file_write_atomic(path, text, strlen(text), 0600, err), 0);
    rc = desired_read(path, ret, err);
    if (rc)
        assert_non_null(strstr(err->message, path));
    unlink(path);
    return rc;
}

/* What the versions before the list have left on the disk. */
static void the_record_of_version_1_is_read(void **state)
{
    struct desired_wishes back = {0};
    struct err err = {0};

    (void)state;
    assert_int_equal(
        read_record_of("{\"version\":1,\"sd\":null,\"llm\":{\"model\":\"/a/"
                       "b.gguf\",\"slots\":4}}",
                       &back, &err),
        0);
    assert_true(back.sd.known);
    assert_int_equal(back.text_count, 1);
    assert_string_equal(back.text[0].path, "/a/b.gguf");
    assert_int_equal(back.text[0].options.slots, 4);
    desired_wishes_release(&back);
    assert_int_equal(read_record_of("{\"version\":1,\"llm\":null}", &back, &err), 0);
    assert_true(back.text_known);
    assert_int_equal(back.text_count, 0);
    desired_wishes_release(&back);
    assert_int_equal(read_record_of("{\"version\":1}", &back, &err), 0);
    assert_false(back.text_known);
}

static void a_damaged_record_is_said_and_ignored(void **state)
{
    static const char *const texts[] = {
        "",
        "{",
        "[]",
        "{\"version\":3}",
        "{\"version\":1,\"sd\":{\"model\":\"relative\"}}",
        "{\"version\":1,\"llm\":{\"model\":5}}",
        "{\"version\":2,\"text\":{\"model\":\"/a\"}}",
        "{\"version\":2,\"text\":[{\"model\":\"/a\"},{\"model\":5}]}",
        "{\"version\":2,\"text\":[null]}",
    };

    (void)state;
    for (size_t i = 0; i < sizeof(texts) / sizeof(*texts); i++) {
        struct desired_wishes back = {0};
        struct err err = {0};

        assert_int_equal(read_record_of(texts[i], &back, &err), -1);
        assert_false(back.sd.known);
        assert_false(back.text_known);
        assert_int_equal(back.text_count, 0);
    }
}

static void saved_contexts_survive(void **state)
{
    struct kv kv = {.owner = {.device = 3,
                              .inode = 4,
                              .size = 5,
                              .modified = {.tv_sec = 6, .tv_nsec = 7},
                              .options = {.context = 512,
                                          .slots = 2,
                                          .task = TASK_CHAT}},
                    .count = 2,
                    .slots = {{.slot = 0, .file = "w1-ab-0.kv", .tokens = 1},
                              {.slot = 1,
                               .file = "w1-ab-1.kv",
                               .tokens = 40,
                               .bytes = 1 << 20,
                               .saved_us = 9,
                               .is_synced = true}}},
              back;
    json_t *entry = kv_json("/a/b.gguf", &kv);
    const char *model;

    (void)state;
    assert_int_equal(kv_from_json(entry, &model, &back), 0);
    assert_string_equal(model, "/a/b.gguf");
    assert_int_equal(back.count, 1); /* the other one may not be on the disk */
    assert_string_equal(back.slots[0].file, "w1-ab-1.kv");
    assert_int_equal(back.slots[0].slot, 1);
    assert_int_equal(back.slots[0].tokens, 40);
    assert_int_equal(back.slots[0].bytes, 1 << 20);
    assert_int_equal(back.owner.inode, 4);
    assert_int_equal(back.owner.modified.tv_nsec, 7);
    assert_true(load_options_are_same(&back.owner.options, &kv.owner.options));
    json_decref(entry);
}

static void names_that_lead_elsewhere_are_not_taken(void **state)
{
    static const char *const names[] = {
        "w/../../x", "/etc/passwd",
        "..",        "",
        "w1\\x",     "w-a-name-that-is-longer-than-any-of-ours-could-be"};
    struct kv kv = {.count = 1,
                    .slots = {{.file = "w1.kv", .tokens = 1, .is_synced = true}}},
              back;
    json_t *entry = kv_json("/a", &kv), *slot;
    const char *model;

    (void)state;
    assert_int_equal(kv_from_json(entry, &model, &back), 0);
    slot = json_array_get(json_object_get(entry, "saved"), 0);
    for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
        json_object_set_new(slot, "file", json_string(names[i]));
        assert_int_equal(kv_from_json(entry, &model, &back), -1);
    }
    json_object_set_new(entry, "saved", json_null());
    assert_int_equal(kv_from_json(entry, &model, &back), 0);
    assert_int_equal(back.count, 0);
    assert_int_equal(kv_from_json(json_null(), &model, &back), -1);
    json_decref(entry);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lines_and_end_are_told),
        cmocka_unit_test(the_whole_group_ends),
        cmocka_unit_test(a_missing_program_is_a_sentence),
        cmocka_unit_test(tokens_differ),
        cmocka_unit_test(leftovers_are_ended_strangers_are_not),
        cmocka_unit_test(one_server_per_folder),
        cmocka_unit_test(wishes_survive),
        cmocka_unit_test(the_record_of_version_1_is_read),
        cmocka_unit_test(a_damaged_record_is_said_and_ignored),
        cmocka_unit_test(saved_contexts_survive),
        cmocka_unit_test(names_that_lead_elsewhere_are_not_taken),
    };

    return RUN_TESTS(tests);
}
