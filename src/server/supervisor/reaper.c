/* What a killed server leaves behind, and how the next one finds it.
 *
 * The workers die with their server by themselves (parent-death signal). This is the second net: for a worker that
 * had no chance to ask for that signal, for one that hangs in the kernel while it dies, and for programs that
 * stand in for a worker. `workers.json` in the state folder lists them; it is written anew (temporary name,
 * rename) at every start and end of a worker. It is not synced: after a power cut there is nothing to reap.
 *
 * Numbers of processes are used again, and killing a stranger would be far worse than leaving an orphan. So a
 * process is ours only when the boot, its number, its start time and its name all are what was written down.
 * The name is looked for in the whole command line, because a script shows its interpreter first.
 *
 * `lock` in the folder is held by flock() as long as the server lives, whatever ends it. Two servers on one
 * folder would overwrite each other's state and reap each other's workers; so the second one is refused. The
 * descriptor is not inherited, so a worker that outlives the server does not hold the lock. */
#include "server/supervisor/reaper.h"

#include "base/buf.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/str.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/file.h>
#include <time.h>
#include <unistd.h>

#define CHILDREN_MAX 8
#define GONE_WAIT_MS 3000
#define LOCK_WAIT_MS 500 /* a server that was just killed may still be going */

struct child {
    int pid;
    unsigned long long start;
    char name[64];
};

struct reaper {
    int lock;
    char *path;
    char boot[64];
    struct child children[CHILDREN_MAX];
    size_t count;
    size_t found;
};

static void nap_ms(long ms)
{
    struct timespec t = {.tv_nsec = ms * 1000000};

    nanosleep(&t, NULL);
}

/* A small file of /proc; "" when it cannot be read. */
static void read_proc(const char *path, struct buf *ret)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = 0;

    buf_clear(ret);
    if (fd < 0)
        return;
    do {
        ret->len += (size_t)n;
        n = read(fd, buf_reserve(ret, 4096), 4096);
    } while (n > 0 && ret->len < 1 << 20);
    buf_reserve(ret, 1);
    ret->data[ret->len] = '\0';
    close(fd);
}

unsigned long long reaper_start_time(int pid)
{
    char path[64];
    struct buf text = {0};
    unsigned long long start = 0;
    char *at;

    snprintf(path, sizeof(path), "/proc/%d/stat", pid);
    read_proc(path, &text);
    at = text.len ? strrchr(text.data, ')') : NULL; /* the name may hold anything */
    /* the field behind ')' is the 3rd, the start time the 22nd (proc(5)); a zombie is gone */
    if (at && at[1] == ' ' && at[2] != 'Z' && at[2] != 'X') {
        at += 2;
        for (int field = 3; field < 22 && at; field++)
            at = strchr(at + 1, ' ');
        if (at)
            start = strtoull(at, NULL, 10);
    }
    buf_release(&text);
    return start;
}

static bool has_name(int pid, const char *name)
{
    char path[64];
    struct buf line = {0};
    bool found = false;

    snprintf(path, sizeof(path), "/proc/%d/cmdline", pid);
    read_proc(path, &line);
    for (size_t at = 0; at < line.len && !found; at += strlen(line.data + at) + 1)
        found = strcmp(file_name(line.data + at), name) == 0;
    buf_release(&line);
    return found;
}

static void read_boot(char *ret, size_t size)
{
    struct buf text = {0};

    read_proc("/proc/sys/kernel/random/boot_id", &text);
    snprintf(ret, size, "%s", buf_str(&text));
    ret[strcspn(ret, "\n")] = '\0';
    buf_release(&text);
}

static int take_lock(struct reaper *r, const char *home, struct err *err)
{
    char *path = file_join(home, "lock");
    uint64_t until = clock_ms() + LOCK_WAIT_MS;
    char pid[32] = "";
    int rc = -1;

    r->lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (r->lock < 0) {
        err_set(err, ERR_STORAGE, "cannot write the state folder %s: %s", home,
                strerror(errno));
        goto out;
    }
    while ((rc = flock(r->lock, LOCK_EX | LOCK_NB)) && errno == EWOULDBLOCK &&
           clock_ms() < until)
        nap_ms(20);
    if (rc) {
        ssize_t n = pread(r->lock, pid, sizeof(pid) - 1, 0);

        pid[n > 0 ? n : 0] = '\0';
        pid[strcspn(pid, "\n")] = '\0';
        err_set(
            err, ERR_CONFLICT,
            "another mysti_server (pid %s) uses the state folder %s: stop it, or give "
            "this one its own with --home",
            *pid ? pid : "unknown", home);
        goto out;
    }
    snprintf(pid, sizeof(pid), "%d\n", (int)getpid());
    if (ftruncate(r->lock, 0) || pwrite(r->lock, pid, strlen(pid), 0) < 0)
        rc = err_set(err, ERR_STORAGE, "cannot write %s: %s", path, strerror(errno));
out:
    free(path);
    return rc;
}

static bool is_ours(const char *boot, const json_t *entry, const char *our_boot)
{
    int pid = (int)json_integer_value(json_object_get(entry, "pid"));
    const char *name = json_string_value(json_object_get(entry, "name"));
    unsigned long long start =
        (unsigned long long)json_integer_value(json_object_get(entry, "start"));

    return pid > 1 && name && start > 0 && boot && !strcmp(boot, our_boot) &&
           reaper_start_time(pid) == start && has_name(pid, name);
}

/* Ends what the file names and is still there, and waits until it is gone. */
static void reap(struct reaper *r)
{
    json_t *root = json_load_file(r->path, 0, NULL);
    const char *boot = json_string_value(json_object_get(root, "boot"));
    uint64_t until = clock_ms() + GONE_WAIT_MS;
    json_t *entry;
    size_t i;

    json_array_foreach(json_object_get(root, "workers"), i, entry)
    {
        int pid = (int)json_integer_value(json_object_get(entry, "pid"));
        bool counted = false;

        while (is_ours(boot, entry, r->boot) && clock_ms() < until) {
            r->found += !counted;
            counted = true;
            kill(-pid, SIGKILL);
            kill(pid, SIGKILL);
            nap_ms(10);
        }
    }
    json_decref(root);
}

static void save(const struct reaper *r)
{
    json_t *workers = json_array();
    json_t *root;
    char *temporary = mem_printf("%s.new", r->path);

    for (size_t i = 0; i < r->count; i++)
        json_array_append_new(workers,
                              json_pack("{s:s, s:i, s:I}", "name", r->children[i].name,
                                        "pid", r->children[i].pid, "start",
                                        (json_int_t)r->children[i].start));
    root = json_pack("{s:s, s:i, s:o}", "boot", r->boot, "server", (int)getpid(),
                     "workers", workers);
    /* failing is not worth more than the net being a little wider meshed */
    if (!json_dump_file(root, temporary, JSON_COMPACT))
        (void)!rename(temporary, r->path);
    json_decref(root);
    free(temporary);
}

int reaper_new(const char *home, struct reaper **ret, struct err *err)
{
    struct reaper *r = mem_zalloc(sizeof(*r));

    r->lock = -1;
    if (file_make_folder(home, 0700, err) || take_lock(r, home, err)) {
        reaper_free(r);
        return -1;
    }
    r->path = file_join(home, "workers.json");
    read_boot(r->boot, sizeof(r->boot));
    reap(r);
    save(r);
    *ret = r;
    return 0;
}

void reaper_free(struct reaper *r)
{
    if (!r)
        return;
    if (r->lock >= 0)
        close(r->lock);
    free(r->path);
    free(r);
}

size_t reaper_found(const struct reaper *r)
{
    return r->found;
}

void reaper_add(struct reaper *r, const char *name, int pid)
{
    struct child *c;

    if (r->count == CHILDREN_MAX)
        return;
    c = &r->children[r->count++];
    c->pid = pid;
    c->start = reaper_start_time(pid);
    snprintf(c->name, sizeof(c->name), "%s", name);
    save(r);
}

void reaper_remove(struct reaper *r, int pid)
{
    for (size_t i = 0; i < r->count; i++) {
        if (r->children[i].pid == pid) {
            r->children[i] = r->children[--r->count];
            save(r);
            return;
        }
    }
}
