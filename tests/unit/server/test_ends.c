/* Why a process ended: the signs and the words, and the kernel's count of its kills in both versions of control groups. */
#include "unit.h"

#include "base/file.h"
#include "remove_tree.h"
#include "server/supervisor/ends.h"

#include <signal.h>
#include <stdlib.h>

static struct worker_exit of(int signal, int code, bool by_us, struct end_signs signs)
{
    struct process_exit how = {.signal = signal, .code = code, .by_us = by_us};

    return ends_of(&how, &signs);
}

static void the_signs_tell_the_ends_apart(void **state)
{
    static const struct {
        int signal, code;
        bool by_us;
        struct end_signs signs;
        enum worker_end end;
        bool own_fault;
        const char *words;
    } cases[] = {
        {SIGSEGV, 0, false, {0}, WORKER_END_SIGNAL, true, "killed by signal 11"},
        {0, 3, false, {0}, WORKER_END_EXITED, true, "exited with code 3"},
        {SIGKILL, 0, false, {0}, WORKER_END_KILLED, false, "from outside, perhaps"},
        {SIGTERM, 0, false, {0}, WORKER_END_KILLED, false, "from outside"},
        {SIGKILL, 0, true, {0}, WORKER_END_ASKED, false, "signal 9"},
        {0, 0, true, {0}, WORKER_END_ASKED, false, "code 0"},
        {SIGKILL,
         0,
         true,
         {.hung = true},
         WORKER_END_HUNG,
         true,
         "three health checks"},
        {SIGKILL,
         0,
         false,
         {.memory_kills = 1},
         WORKER_END_OUT_OF_MEMORY,
         true,
         "out of memory (killed by signal 9"},
        {SIGSEGV, 0, false, {.memory_kills = 1}, WORKER_END_SIGNAL, true, "signal 11"},
        {SIGABRT,
         0,
         false,
         {.log_says_memory = true},
         WORKER_END_OUT_OF_MEMORY,
         true,
         "out of memory (killed by signal 6"},
        {0,
         1,
         false,
         {.log_says_memory = true},
         WORKER_END_OUT_OF_MEMORY,
         true,
         "out of memory (exited"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        struct worker_exit e =
            of(cases[i].signal, cases[i].code, cases[i].by_us, cases[i].signs);
        char text[160];

        assert_int_equal(e.end, cases[i].end);
        assert_int_equal(e.is_own_fault, cases[i].own_fault);
        ends_text(&e, text, sizeof(text));
        assert_non_null(strstr(text, cases[i].words));
    }
}

static void lines_about_memory(void **state)
{
    (void)state;
    assert_true(ends_is_memory_line("what():  std::bad_alloc"));
    assert_true(ends_is_memory_line("ggml: failed to allocate CPU buffer of size 9"));
    assert_false(ends_is_memory_line("listening"));
}

static void put(const char *path, const char *text)
{
    struct err err = {0};
    char folder[128];

    snprintf(folder, sizeof(folder), "%.*s", (int)(strrchr(path, '/') - path), path);
    assert_int_equal(file_make_folder(folder, 0700, &err), 0);
    assert_int_equal(file_write_atomic(path, text, strlen(text), 0600, &err), 0);
}

static char root[64];

/* The file below root. */
static const char *in_root(const char *path)
{
    static char full[160];

    snprintf(full, sizeof(full), "%s%s", root, path);
    return full;
}

static void the_kernel_counts(void **state)
{
    (void)state;
    snprintf(root, sizeof(root), "/tmp/mysti-ends-XXXXXX");
    assert_non_null(mkdtemp(root));
    assert_int_equal(ends_memory_kills(root), 0); /* it does not say */
    put(in_root("/proc/self/cgroup"), "0::/a/b\n");
    put(in_root("/sys/fs/cgroup/a/b/memory.events"),
        "low 0\noom 5\noom_kill 3\noom_group_kill 0\n");
    assert_int_equal(ends_memory_kills(root), 3);
    put(in_root("/proc/self/cgroup"), "9:memory:/c\n3:cpu:/c\n");
    put(in_root("/sys/fs/cgroup/memory/c/memory.oom_control"),
        "oom_kill_disable 0\nunder_oom 0\noom_kill 7\n");
    assert_int_equal(ends_memory_kills(root), 7);
    put(in_root("/proc/vmstat"), "nr_free_pages 9\noom_kill 5\ndrop_pagecache 0\n");
    assert_int_equal(ends_memory_kills(root),
                     7); /* the group's own count is the better one */
    put(in_root("/proc/self/cgroup"), "0::/\n");
    assert_int_equal(ends_memory_kills(root), 5);
    remove_tree(root);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_signs_tell_the_ends_apart),
        cmocka_unit_test(lines_about_memory),
        cmocka_unit_test(the_kernel_counts),
    };

    return RUN_TESTS(tests);
}
