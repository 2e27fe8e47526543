/* The saved contexts of text models: their files, whose they are, how many there may be, and the record of them.
 *
 * A file is llama-server's (park.c says when it is written); what it belongs to stands in contexts.json in the state folder:
 * the model's file as it was then, the options it was started with, the slot, tokens and bytes. So a context outlives the
 * server, killed or not. The order makes it safe: a file is synced before the record names it, no name is used
 * twice, and what the record does not name, or names with another size, is removed at the start. A context that is kept and
 * does not fit any more is found out when it is to be restored, as it always was.
 *
 * They hold what people wrote: readable by the owner alone, gone with the unload of their model, bounded by --kv-limit
 * and --kv-files; the oldest go first. Names come from a file, so they are looked at before anything is done with them.
 *
 * Rejected: the record of wishes (desired.json) for it, because that changes with loads and is read as a whole or not at all:
 * a context that cannot be read must not cost the wish. */
#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "server/config/config.h"
#include "server/supervisor/worker.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sys/stat.h>
#include <unistd.h>

#define RECORD_MAX (1024 * 1024)
#define RECORD_VERSION 1

static char *kv_folder(const struct supervisor *s)
{
    return file_join(s->config->home, "kv");
}

void kv_new_name(const struct worker *w, int slot, char *ret, size_t size)
{
    snprintf(ret, size, "w%d-%" PRIx64 "-%d.kv", w->id, w->kv.stamp, slot);
}

/* ---- the record ---- */

static void on_stored(void *data, const struct err *err)
{
    struct supervisor *s = data;

    if (err)
        log_warning(s->log, "Saved contexts could not be recorded: %s", err->message);
    supervisor_wake(s); /* an end may wait for this */
}

static void store(struct supervisor *s)
{
    json_t *root, *list = json_array();

    for (int id = WORKER_LLM; id < s->worker_count; id++) {
        const struct worker *w = s->workers[id];

        if (w->kv.count && w->wanted.path)
            json_array_append_new(list, kv_json(w->wanted.path, &w->kv));
    }
    root = json_pack("{s:i, s:o}", "version", RECORD_VERSION, "contexts", list);
    record_write(s->contexts, json_dumps(root, JSON_INDENT(1)), on_stored, s);
    json_decref(root);
}

/* ---- files ---- */

static void on_removed(uv_fs_t *request)
{
    uv_fs_req_cleanup(request);
    free(request);
}

void kv_remove_file(struct supervisor *s, const char *name)
{
    uv_fs_t *request = mem_zalloc(sizeof(*request));
    char *folder = kv_folder(s), *path = file_join(folder, name);

    if (uv_fs_unlink(s->loop, request, path, on_removed))
        on_removed(request);
    free(path);
    free(folder);
}

void kv_forget_slot(struct worker *w, int i)
{
    kv_remove_file(w->s, w->kv.slots[i].file);
    w->kv.slots[i] = w->kv.slots[--w->kv.count];
    store(w->s);
}

void kv_forget(struct worker *w)
{
    while (w->kv.count)
        kv_forget_slot(w, 0);
}

int64_t kv_tokens(const struct worker *w)
{
    int64_t tokens = 0;

    for (int i = 0; i < w->kv.count; i++)
        tokens += w->kv.slots[i].tokens;
    return tokens;
}

uint64_t kv_bytes(const struct worker *w)
{
    uint64_t bytes = 0;

    for (int i = 0; i < w->kv.count; i++)
        bytes += w->kv.slots[i].bytes;
    return bytes;
}

/* The oldest go until the rest is within the bounds. */
void kv_keep_bounds(struct supervisor *s)
{
    for (;;) {
        struct worker *oldest = NULL;
        int64_t bytes = 0, files = 0;
        int at = 0;

        for (int id = WORKER_LLM; id < s->worker_count; id++) {
            struct worker *w = s->workers[id];

            for (int i = 0; i < w->kv.count; i++) {
                bytes += (int64_t)w->kv.slots[i].bytes;
                files++;
                if (!oldest ||
                    w->kv.slots[i].saved_us < oldest->kv.slots[at].saved_us) {
                    oldest = w;
                    at = i;
                }
            }
        }
        if (!oldest || (bytes <= s->config->kv_limit && files <= s->config->kv_files))
            return;
        log_info(s->log,
                 "Saved context %s is removed: %" PRId64 " files with %" PRId64
                 " bytes are more than --kv-files or --kv-limit allow",
                 oldest->kv.slots[at].file, files, bytes);
        kv_forget_slot(oldest, at);
    }
}

/* ---- to the disk, then into the record ---- */

struct syncing {
    uv_work_t work;
    struct worker *worker;
    char file[KV_NAME_SIZE];
    char *path;
    bool failed;
};

static void sync_file(uv_work_t *work)
{
    struct syncing *y = work->data;
    int fd = open(y->path, O_RDONLY | O_CLOEXEC);

    y->failed = fd < 0 || fsync(fd);
    if (fd >= 0)
        close(fd);
}

static void on_synced(uv_work_t *work, int status)
{
    struct syncing *y = work->data;
    struct worker *w = y->worker;

    (void)status;                         /* never cancelled */
    for (int i = 0; i < w->kv.count; i++) /* unless it was forgotten meanwhile */
        if (strcmp(w->kv.slots[i].file, y->file) == 0) {
            w->kv.slots[i].is_synced = !y->failed;
            store(w->s);
        }
    w->s->contexts_syncing--;
    supervisor_wake(w->s); /* an end may wait for this */
    free(y->path);
    free(y);
}

void kv_sync(struct worker *w, const struct kv_slot *slot)
{
    struct syncing *y = mem_zalloc(sizeof(*y));
    char *folder = kv_folder(w->s);

    y->work.data = y;
    y->worker = w;
    snprintf(y->file, sizeof(y->file), "%s", slot->file);
    y->path = file_join(folder, slot->file);
    free(folder);
    w->s->contexts_syncing++;
    if (uv_queue_work(w->s->loop, &y->work, sync_file, on_synced))
        abort(); /* only for a missing function */
}

bool kv_is_writing(const struct supervisor *s)
{
    return s->contexts_syncing || record_is_writing(s->contexts);
}

/* ---- at the start ---- */

void kv_prepare(struct supervisor *s)
{
    char *folder = kv_folder(s), *path = file_join(s->config->home, "contexts.json");
    struct err err = {0};

    if (file_make_folder(folder, 0700, &err) || chmod(folder, 0700))
        log_warning(s->log, "Contexts cannot be saved in %s%s%s", folder,
                    *err.message ? ": " : "", err.message);
    s->contexts = record_new(s->loop, path);
    free(path);
    free(folder);
}

/* Is it there as it was written, and nobody else's business? */
static bool is_as_recorded(int folder, const struct kv_slot *slot)
{
    struct stat st;

    return !fstatat(folder, slot->file, &st, AT_SYMLINK_NOFOLLOW) &&
           S_ISREG(st.st_mode) && st.st_uid == geteuid() &&
           (uint64_t)st.st_size == slot->bytes &&
           ((st.st_mode & 0777) == 0600 || !fchmodat(folder, slot->file, 0600, 0));
}

static struct worker *worker_with(struct supervisor *s, const char *model)
{
    for (int id = WORKER_LLM; id < s->worker_count; id++) {
        struct worker *w = s->workers[id];

        if (w->wanted.path && !w->kv.count && strcmp(w->wanted.path, model) == 0)
            return w;
    }
    return NULL;
}

static void take(struct supervisor *s, int folder, const json_t *entry)
{
    const char *model;
    struct worker *w;
    struct kv kv;

    if (kv_from_json(entry, &model, &kv) || !(w = worker_with(s, model)))
        return;
    for (int i = kv.count; i-- > 0;)
        if (!is_as_recorded(folder, &kv.slots[i]))
            kv.slots[i] = kv.slots[--kv.count];
    w->kv = kv;
}

static bool is_named(const struct supervisor *s, const char *name)
{
    for (int id = WORKER_LLM; id < s->worker_count; id++)
        for (int i = 0; i < s->workers[id]->kv.count; i++)
            if (strcmp(s->workers[id]->kv.slots[i].file, name) == 0)
                return true;
    return false;
}

static void remove_strays(const struct supervisor *s, DIR *dir)
{
    for (struct dirent *e; (e = readdir(dir));)
        if (e->d_name[0] != '.' && !is_named(s, e->d_name))
            (void)unlinkat(dirfd(dir), e->d_name, 0);
}

static json_t *read_record(const struct supervisor *s)
{
    char *path = file_join(s->config->home, "contexts.json");
    struct buf text = {0};
    json_t *root = NULL;

    if (!file_read(path, RECORD_MAX, &text, NULL)) /* there may be none */
        root = json_loadb(buf_str(&text), text.len, 0, NULL);
    if (json_integer_value(json_object_get(root, "version")) != RECORD_VERSION) {
        json_decref(root);
        root = NULL;
    }
    buf_release(&text);
    free(path);
    return root;
}

void kv_begin(struct supervisor *s)
{
    char *folder = kv_folder(s);
    DIR *dir = opendir(folder);
    json_t *root = read_record(s), *entry;
    size_t i;

    if (dir) {
        json_array_foreach(json_object_get(root, "contexts"), i, entry)
        {
            take(s, dirfd(dir), entry);
        }
        remove_strays(s, dir);
        closedir(dir);
    }
    json_decref(root);
    kv_keep_bounds(s);
    for (int id = WORKER_LLM; id < s->worker_count; id++) {
        const struct worker *w = s->workers[id];

        if (w->kv.count)
            log_info(s->log,
                     "The context of %s was saved before: %" PRId64
                     " tokens in %d slots",
                     file_name(w->wanted.path), kv_tokens(w), w->kv.count);
    }
    free(folder);
}
