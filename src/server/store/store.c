/* Pictures are saved off the loop: an fsync on a slow disk takes longer than a token. The bytes stay the
 * caller's until the answer comes, so nothing is copied. Names are made on the loop thread from one
 * clock that never goes back, so two pictures never get the same one.
 *
 * A failure is always ERR_STORAGE and names the folder, whatever the system called it: for the user "no permission",
 * "no space" and "is a file" are one matter with one way out.
 *
 * The history is read afresh for each request: a directory of ten thousand names is a few milliseconds on a
 * worker thread, and a cache would have to notice pictures that a user moves in or out. Rejected for now: SQLite;
 * it comes with the gallery.
 *
 * Life: a piece of work carries copies of all it needs, so that it outlives the store.
 */
#include "server/store/store.h"

#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "http/static.h"
#include "server/store/history.h"

#include <inttypes.h>
#include <stdlib.h>
#include <uv.h>

struct store {
    uv_loop_t *loop;
    char *folder;
    struct http_static *files;
    int64_t last_us;
};

struct saving {
    uv_work_t work;
    char *folder;
    char *name;
    const void *png;
    size_t size;
    struct err err; /* ERR_NONE: saved */
    store_saved_fn *on_saved;
    void *user;
};

struct listing {
    uv_work_t work;
    char *folder;
    char *before;
    size_t limit;
    json_t *pictures;
    struct err err;
    store_history_fn *on_history;
    void *user;
};

struct store *store_new(struct uv_loop_s *loop, const char *folder)
{
    struct store *s = mem_zalloc(sizeof(*s));

    s->loop = loop;
    s->folder = mem_strdup(folder);
    s->files = http_static_new(loop, folder);
    return s;
}

void store_free(struct store *s)
{
    if (!s)
        return;
    http_static_free(s->files);
    free(s->folder);
    free(s);
}

/* ---- saving ---- */

static void save_now(uv_work_t *work)
{
    struct saving *v = work->data;
    char *path = file_join(v->folder, v->name);
    struct err why = {0};

    if (file_make_folder(v->folder, 0755, &why) ||
        file_write_atomic(path, v->png, v->size, 0644, &why))
        err_set(
            &v->err, ERR_STORAGE,
            "the picture could not be saved in %s: %s; free some space, allow writing "
            "there, or choose another folder with --output-dir",
            v->folder, why.message);
    free(path);
}

static void after_save(uv_work_t *work, int status)
{
    struct saving *v = work->data;
    const struct err *err = v->err.code ? &v->err : NULL;

    (void)status; /* nobody cancels it */
    v->on_saved(v->user, err, err ? NULL : v->name);
    free(v->folder);
    free(v->name);
    free(v);
}

void store_save(struct store *s, const void *png, size_t size, int64_t seed,
                store_saved_fn *on_saved, void *user)
{
    struct saving *v = mem_zalloc(sizeof(*v));
    int64_t now = clock_unix_us();

    if (now <= s->last_us)
        now = s->last_us + 1;
    s->last_us = now;
    *v = (struct saving){
        .folder = mem_strdup(s->folder),
        .name = mem_printf("img-%016" PRId64 "-%" PRId64 ".png", now, seed),
        .png = png,
        .size = size,
        .on_saved = on_saved,
        .user = user,
    };
    v->work.data = v;
    uv_queue_work(s->loop, &v->work, save_now, after_save);
}

/* ---- history ---- */

static void list_now(uv_work_t *work)
{
    struct listing *l = work->data;

    l->pictures = history_read(l->folder, l->limit, l->before, &l->err);
}

static void after_list(uv_work_t *work, int status)
{
    struct listing *l = work->data;

    (void)status;
    l->on_history(l->user, l->pictures ? NULL : &l->err, l->pictures);
    json_decref(l->pictures);
    free(l->folder);
    free(l->before);
    free(l);
}

void store_history(struct store *s, size_t limit, const char *before,
                   store_history_fn *on_history, void *user)
{
    struct listing *l = mem_zalloc(sizeof(*l));

    *l = (struct listing){
        .folder = mem_strdup(s->folder),
        .before = before ? mem_strdup(before) : NULL,
        .limit = limit,
        .on_history = on_history,
        .user = user,
    };
    l->work.data = l;
    uv_queue_work(s->loop, &l->work, list_now, after_list);
}

void store_serve(struct store *s, struct http_exchange *x, const char *name)
{
    /* a picture's name is never used twice, so browsers may keep it */
    http_static_serve(s->files, x, name, "max-age=31536000, immutable");
}
