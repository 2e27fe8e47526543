/* The sweep at the start leaves young files alone: the first requests may be on their way already, and theirs are wanted
 * though no job says so yet. */
#include "server/queue/inputs.h"

#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include <uv.h>

struct keeping {
    uv_work_t work;
    char *folder;
    struct buf bytes[2]; /* picture, mask */
    char *paths[2];
    struct err err;
    inputs_kept_fn *kept;
    void *user;
};

enum { YOUNG_S = 60 };

static char *name_file(const char *folder, const char *what)
{
    uint64_t random = 0;
    char name[80];

    if (getrandom(&random, sizeof(random), 0) != sizeof(random))
        random = 0;
    snprintf(name, sizeof(name), "%llx-%016llx-%s", (unsigned long long)clock_unix_us(),
             (unsigned long long)random, what);
    return file_join(folder, name);
}

static void write_files(uv_work_t *work)
{
    struct keeping *k = work->data;

    if (file_make_folder(k->folder, 0700, &k->err))
        return;
    for (int i = 0; i < 2 && !k->err.code; i++)
        if (k->paths[i])
            (void)!file_write_atomic(k->paths[i], k->bytes[i].data, k->bytes[i].len,
                                     0600, &k->err);
}

static void remove_file(const char *path)
{
    if (path)
        (void)unlink(path);
}

static void on_written(uv_work_t *work, int status)
{
    struct keeping *k = work->data;

    if (status && !k->err.code)
        err_set(&k->err, ERR_UNAVAILABLE, "the server is shutting down");
    if (k->err.code) {
        err_wrap(&k->err, "the picture that was sent could not be kept");
        for (int i = 0; i < 2; i++) {
            remove_file(k->paths[i]);
            free(k->paths[i]);
            k->paths[i] = NULL;
        }
    }
    k->kept(k->user, k->err.code ? &k->err : NULL, k->paths[0], k->paths[1]);
    buf_release(&k->bytes[0]);
    buf_release(&k->bytes[1]);
    free(k->folder);
    free(k);
}

void inputs_keep(struct uv_loop_s *loop, const char *home, struct buf image,
                 struct buf mask, inputs_kept_fn *kept, void *user)
{
    struct keeping *k = mem_zalloc(sizeof(*k));

    k->work.data = k;
    k->folder = file_join(home, "inputs");
    k->bytes[0] = image;
    k->bytes[1] = mask;
    k->paths[0] = name_file(k->folder, "image");
    if (mask.len)
        k->paths[1] = name_file(k->folder, "mask");
    k->kept = kept;
    k->user = user;
    uv_queue_work(loop, &k->work, write_files, on_written);
}

void inputs_drop(const struct image_request *r)
{
    remove_file(r->start.image);
    remove_file(r->start.mask);
}

void inputs_sweep(const char *home, bool (*is_wanted)(void *user, const char *path),
                  void *user)
{
    char *folder = file_join(home, "inputs");
    DIR *dir = opendir(folder);
    const struct dirent *entry;

    while (dir && (entry = readdir(dir))) {
        char *path = file_join(folder, entry->d_name);
        struct stat st;

        if (lstat(path, &st) == 0 && S_ISREG(st.st_mode) &&
            st.st_mtime + YOUNG_S < time(NULL) && !is_wanted(user, path))
            (void)unlink(path);
        free(path);
    }
    if (dir)
        closedir(dir);
    free(folder);
}
