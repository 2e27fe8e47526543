/* Reading folders and the heads of files is disk work, so it happens on a worker thread, on a copy of the folders'
 * names; the loop gets a finished list and swaps it in. Questions that come while a list is being made are answered
 * by that list: it is at most a few milliseconds old.
 *
 * What a file is (text, picture) is read from the file, not guessed from its folder or extension. That costs an open
 * and a read per file, so the previous list travels along: a file with the same path, size and time is not looked
 * at again.
 *
 * A folder as diffusers writes it is one model; what is in it is not listed.
 *
 * Files that are no models, and other folders, are kept in the list with the reason, so that a request for one of them can
 * be told the reason instead of "not found"; they are not shown as models.
 */
#include "server/api/catalog.h"

#include "base/file.h"
#include "base/mem.h"
#include "base/model_folder.h"
#include "base/str.h"
#include "server/config/config.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <uv.h>

#define DEPTH_MAX 6
#define ENTRIES_MAX 10000

struct list {
    struct catalog_entry *entries;
    size_t count;
};

struct question {
    catalog_fn *on_listed;
    void *user;
    struct question *next;
};

struct catalog {
    uv_loop_t *loop;
    char *folders[2]; /* the user's, the starters' */
    struct list list;
    struct question *questions;
    struct scan *scan; /* under way, or NULL */
};

struct scan {
    uv_work_t work;
    struct catalog *catalog; /* NULL: it is gone */
    char *folders[2];
    struct list known; /* the previous list */
    struct list found;
};

static void list_release(struct list *l)
{
    for (size_t i = 0; i < l->count; i++) {
        free(l->entries[i].id);
        free(l->entries[i].path);
        free(l->entries[i].trouble);
    }
    free(l->entries);
    *l = (struct list){0};
}

/* ---- on the worker thread ---- */

static const struct catalog_entry *known_entry(const struct list *l, const char *path,
                                               const struct stat *st)
{
    for (size_t i = 0; i < l->count; i++) {
        const struct catalog_entry *e = &l->entries[i];

        if (e->size_bytes == (uint64_t)st->st_size &&
            e->modified == (int64_t)st->st_mtime && !strcmp(e->path, path))
            return e;
    }
    return NULL;
}

/* The starters' folder may lie below the user's, and files may be linked. */
static bool is_listed(const struct list *l, const struct stat *st)
{
    for (size_t i = 0; i < l->count; i++)
        if (l->entries[i].inode == st->st_ino && l->entries[i].device == st->st_dev)
            return true;
    return false;
}

/* Takes path over. */
static void add(struct scan *s, const char *id, char *path, const struct stat *st)
{
    struct list *l = &s->found;

    if (l->count >= ENTRIES_MAX || is_listed(l, st)) {
        free(path);
        return;
    }
    if (l->count % 64 == 0)
        l->entries = mem_realloc(l->entries, (l->count + 64) * sizeof(*l->entries));
    struct catalog_entry *e = &l->entries[l->count++];
    const struct catalog_entry *known = known_entry(&s->known, path, st);

    *e = (struct catalog_entry){.id = mem_strdup(id),
                                .path = path,
                                .size_bytes = (uint64_t)st->st_size,
                                .modified = (int64_t)st->st_mtime,
                                .device = st->st_dev,
                                .inode = st->st_ino};
    if (S_ISDIR(st->st_mode) && !model_folder_is(path)) {
        e->trouble = mem_printf("'%s' is a folder, not a model file", id);
    } else if (known) {
        e->kind = known->kind;
        e->trouble = known->trouble ? mem_strdup(known->trouble) : NULL;
    } else {
        struct model_peek peek = {0};
        struct err err = {0};

        if (model_peek(path, &peek, &err))
            e->trouble = mem_strdup(err.message);
        else if (peek.kind == MODEL_UNKNOWN)
            e->trouble =
                mem_printf("'%s' holds neither a text model nor a picture model", id);
        e->kind = peek.kind;
    }
}

static bool is_model_name(const char *name)
{
    return str_has_suffix(name, ".gguf") || str_has_suffix(name, ".safetensors") ||
           str_has_suffix(name, ".ckpt") || str_has_suffix(name, ".pt");
}

/* Size and time of what is in it: the folder's own do not tell that a file changed. */
static void describe_folder(const char *path, struct stat *st)
{
    uint64_t bytes;
    int64_t modified;

    model_folder_size(path, &bytes, &modified);
    st->st_size = (off_t)bytes;
    st->st_mtime = (time_t)modified;
}

static void scan_folder(struct scan *s, const char *folder, const char *below,
                        int depth)
{
    char *here = *below ? file_join(folder, below) : mem_strdup(folder);
    DIR *dir = depth < DEPTH_MAX ? opendir(here) : NULL;

    for (struct dirent *d; dir && (d = readdir(dir));) {
        struct stat st;

        if (d->d_name[0] == '.' || !str_is_utf8(d->d_name, strlen(d->d_name)))
            continue;
        char *id = *below ? file_join(below, d->d_name) : mem_strdup(d->d_name);
        char *path = file_join(folder, id);

        if (stat(path, &st))
            free(path);
        else if (S_ISDIR(st.st_mode)) {
            bool is_model = model_folder_is(path);

            if (is_model)
                describe_folder(path, &st);
            add(s, id, path, &st);
            if (!is_model)
                scan_folder(s, folder, id, depth + 1);
        } else if (is_model_name(d->d_name)) {
            add(s, id, path, &st);
        } else {
            free(path);
        }
        free(id);
    }
    if (dir)
        closedir(dir);
    free(here);
}

static int by_id(const void *a, const void *b)
{
    const struct catalog_entry *x = a, *y = b;

    return strcmp(x->id, y->id);
}

static void scan_now(uv_work_t *work)
{
    struct scan *s = work->data;

    for (size_t i = 0; i < 2; i++)
        if (*s->folders[i])
            scan_folder(s, s->folders[i], "", 0);
    if (s->found.count)
        qsort(s->found.entries, s->found.count, sizeof(*s->found.entries), by_id);
}

/* ---- on the loop ---- */

static void after_scan(uv_work_t *work, int status)
{
    struct scan *s = work->data;
    struct catalog *c = s->catalog;

    (void)status;
    list_release(&s->known);
    if (c) {
        struct question *q = c->questions;

        c->scan = NULL;
        c->list = s->found;
        /* one by one from the list, so that an answer may take another question back */
        while ((q = c->questions)) {
            struct question now = *q;

            c->questions = q->next;
            free(q);
            now.on_listed(now.user);
            if (c->scan)
                break; /* asked again by that answer; the rest comes with that scan */
        }
    } else {
        list_release(&s->found);
    }
    for (size_t i = 0; i < 2; i++)
        free(s->folders[i]);
    free(s);
}

void catalog_ask(struct catalog *c, catalog_fn *on_listed, void *user)
{
    struct question **last = &c->questions;
    struct question *q = mem_zalloc(sizeof(*q));

    q->on_listed = on_listed;
    q->user = user;
    while (*last)
        last = &(*last)->next;
    *last = q;
    if (c->scan)
        return;
    struct scan *s = mem_zalloc(sizeof(*s));

    s->work.data = s;
    s->catalog = c;
    s->known = c->list;
    c->list = (struct list){0};
    for (size_t i = 0; i < 2; i++)
        s->folders[i] = mem_strdup(c->folders[i]);
    c->scan = s;
    uv_queue_work(c->loop, &s->work, scan_now, after_scan);
}

void catalog_forget(struct catalog *c, const void *user)
{
    for (struct question **at = &c->questions; *at;) {
        struct question *q = *at;

        if (q->user == user) {
            *at = q->next;
            free(q);
        } else {
            at = &q->next;
        }
    }
}

static char *without_slash(const char *folder)
{
    size_t n = strlen(folder);

    while (n > 1 && folder[n - 1] == '/')
        n--;
    return mem_strndup(folder, n);
}

struct catalog *catalog_new(struct uv_loop_s *loop, const struct config *config)
{
    struct catalog *c = mem_zalloc(sizeof(*c));

    c->loop = loop;
    c->folders[0] = without_slash(config->model_dir);
    c->folders[1] = without_slash(config->starters_dir);
    return c;
}

void catalog_free(struct catalog *c)
{
    if (!c)
        return;
    if (c->scan)
        c->scan->catalog = NULL;
    while (c->questions) {
        struct question *q = c->questions;

        c->questions = q->next;
        free(q);
    }
    list_release(&c->list);
    for (size_t i = 0; i < 2; i++)
        free(c->folders[i]);
    free(c);
}

size_t catalog_count(const struct catalog *c)
{
    return c->list.count;
}

const struct catalog_entry *catalog_at(const struct catalog *c, size_t i)
{
    return &c->list.entries[i];
}

/* ---- names ---- */

const char *catalog_id(const struct catalog *c, const char *path)
{
    for (size_t i = 0; i < 2; i++) {
        size_t n = strlen(c->folders[i]);

        if (n && !strncmp(path, c->folders[i], n) && path[n] == '/')
            return path + n + 1;
    }
    return path;
}

/* "starter/painter.gguf" is meant by itself, by "painter.gguf", and by both without ".gguf" */
static bool name_means(const char *name, const char *id)
{
    const char *file = file_name(id), *dot = strrchr(file, '.');
    size_t n = strlen(name);

    if (!strcmp(name, id) || !strcmp(name, file))
        return true;
    if (!dot)
        return false;
    return (n == (size_t)(dot - id) && !memcmp(name, id, n)) ||
           (n == (size_t)(dot - file) && !memcmp(name, file, n));
}

bool catalog_means(const struct catalog *c, const char *name, const char *path)
{
    return !strcmp(name, path) || name_means(name, catalog_id(c, path));
}

/* The id that somebody who mistyped probably meant; NULL when none is near. Compared are ids and bare names. */
static const char *nearest_id(const struct catalog *c, const char *name,
                              enum model_kind kind, const char **ret_any)
{
    size_t count = 0, room = c->list.count * 2 + 1;
    const char **names = mem_alloc(room * sizeof(*names));
    const char **ids = mem_alloc(room * sizeof(*ids));
    char **bare = mem_zalloc(room * sizeof(*bare));
    const char *found = NULL;

    for (size_t i = 0; i < c->list.count; i++) {
        const struct catalog_entry *e = &c->list.entries[i];

        if (e->trouble || (kind != MODEL_UNKNOWN && e->kind != kind))
            continue;
        const char *file = file_name(e->id), *dot = strrchr(file, '.');

        bare[count] = mem_strndup(file, dot ? (size_t)(dot - file) : strlen(file));
        for (int k = 0; k < 2; k++, count++) {
            names[count] = k ? e->id : bare[count];
            ids[count] = e->id;
        }
    }
    const char *nearest = str_nearest(name, names, count);

    for (size_t i = 0; i < count; i++) {
        if (names[i] == nearest)
            found = ids[i];
        free(bare[i]);
    }
    *ret_any = count ? ids[0] : NULL;
    free(names);
    free(ids);
    free(bare);
    return found;
}

static const struct catalog_entry *not_found(const struct catalog *c, const char *name,
                                             enum model_kind kind, struct err *err)
{
    const char *any, *nearest = nearest_id(c, name, kind, &any);

    if (nearest)
        err_set_param(err, ERR_NO_MODEL, "model",
                      "there is no model '%.200s'; did you mean '%s'?", name, nearest);
    else
        err_set_param(err, ERR_NO_MODEL, "model",
                      "there is no model '%.200s': GET /v1/models lists those that are "
                      "there%s%s",
                      name, any ? ", for example " : "", any ? any : "");
    return NULL;
}

const struct catalog_entry *catalog_find(const struct catalog *c, const char *name,
                                         enum model_kind kind, struct err *err)
{
    const struct catalog_entry *found = NULL;

    for (size_t i = 0; i < c->list.count && !found; i++)
        if (!strcmp(name, c->list.entries[i].id) ||
            !strcmp(name, c->list.entries[i].path))
            found = &c->list.entries[i];
    for (size_t i = 0; i < c->list.count && !found; i++) {
        const struct catalog_entry *e = &c->list.entries[i];

        if (!e->trouble && (kind == MODEL_UNKNOWN || e->kind == kind) &&
            name_means(name, e->id))
            found = e;
    }
    if (!found && !file_is_confined(name)) {
        err_set_param(err, ERR_INVALID, "model",
                      "model must be an id from GET /v1/models, a path below the model "
                      "folder, not '%.200s'",
                      name);
        return NULL;
    }
    if (!found)
        return not_found(c, name, kind, err);
    if (found->trouble) {
        err_set_param(err, ERR_INVALID, "model", "%s", found->trouble);
        return NULL;
    }
    if (kind != MODEL_UNKNOWN && found->kind != kind) {
        err_set_param(err, ERR_INVALID, "model", "'%s' is a %s model, not a %s model",
                      found->id, found->kind == MODEL_TEXT ? "text" : "picture",
                      kind == MODEL_TEXT ? "text" : "picture");
        return NULL;
    }
    return found;
}
