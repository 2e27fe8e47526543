#include "server/supervisor/record.h"

#include "base/file.h"
#include "base/mem.h"

#include <stdlib.h>
#include <string.h>

struct record {
    uv_loop_t *loop;
    char *path;
    uv_work_t work;
    bool writing;
    char *text; /* being written */
    char *next; /* waiting; NULL: none */
    struct err err;
    int rc;
    record_done_fn *done, *next_done;
    void *data, *next_data;
};

struct record *record_new(uv_loop_t *loop, const char *path)
{
    struct record *r = mem_zalloc(sizeof(*r));

    r->loop = loop;
    r->path = mem_strdup(path);
    r->work.data = r;
    return r;
}

static void write_record(uv_work_t *work)
{
    struct record *r = work->data;

    r->rc = file_write_atomic(r->path, r->text, strlen(r->text), 0600, &r->err);
}

static void start(struct record *r);

static void on_written(uv_work_t *work, int status)
{
    struct record *r = work->data;
    record_done_fn *done = r->done;
    void *data = r->data;
    struct err err = r->err;
    int rc = r->rc;

    (void)status; /* never cancelled */
    r->writing = false;
    free(r->text);
    r->text = NULL;
    if (r->next)
        start(r);
    if (done)
        done(data, rc ? &err : NULL);
}

static void start(struct record *r)
{
    r->text = r->next;
    r->done = r->next_done;
    r->data = r->next_data;
    r->next = NULL;
    r->err = (struct err){0};
    r->writing = true;
    if (uv_queue_work(r->loop, &r->work, write_record, on_written))
        abort(); /* only for a missing function */
}

void record_write(struct record *r, char *text, record_done_fn *done, void *data)
{
    free(r->next);
    r->next = text;
    r->next_done = done;
    r->next_data = data;
    if (!r->writing)
        start(r);
}

bool record_is_writing(const struct record *r)
{
    return r->writing;
}

void record_free(struct record *r)
{
    if (!r)
        return;
    free(r->next);
    free(r->path);
    free(r);
}
