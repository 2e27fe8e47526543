/* What a client can offer its user for <lora:name:1>, for "vae" and for POST /v1/images/upscale. Folders are disk work, so they are read on a
 * worker thread. */
#include "base/named_files.h"
#include "base/file.h"
#include "base/mem.h"
#include "server/api/api.h"
#include "server/api/handlers.h"
#include "server/config/config.h"
#include "server/models/lora_words.h"

#include <jansson.h>
#include <stdlib.h>

struct listing {
    uv_work_t work;
    struct later *later;
    char *folders[3];
    json_t *data; /* the answer's list, with what comes before the files */
    struct named_list files;
    json_t *(*about)(
        const char *path); /* what a file says of itself; NULL: not asked */
    json_t **said;         /* [files.count]; NULL where one says nothing */
};

static void read_now(uv_work_t *work)
{
    struct listing *l = work->data;

    named_list_read(&l->files, l->folders);
    l->said = mem_zalloc((l->files.count + 1) * sizeof(*l->said));
    for (size_t i = 0; l->about && i < l->files.count; i++)
        l->said[i] = l->about(l->files.all[i].path);
}

static void after_read(uv_work_t *work, int status)
{
    struct listing *l = work->data;
    struct api *api;
    struct http_exchange *x = later_claim(l->later, &api);

    (void)status;
    for (size_t i = 0; i < l->files.count; i++) {
        const struct named_file *file = &l->files.all[i];

        json_t *one =
            json_pack("{s:s, s:I, s:I}", "name", file->name, "size_bytes",
                      (json_int_t)file->bytes, "modified", (json_int_t)file->modified);

        json_object_update(one, l->said[i]);
        json_decref(l->said[i]);
        json_array_append_new(l->data, one);
    }
    if (x)
        http_respond_json(x, 200,
                          json_pack("{s:s, s:O}", "object", "list", "data", l->data));
    json_decref(l->data);
    named_list_release(&l->files);
    free(l->said);
    for (size_t i = 0; l->folders[i]; i++)
        free(l->folders[i]);
    free(l);
}

/* Takes the list and the folders; the second may be NULL. */
static struct listing *listing_new(json_t *data, char *first, char *second)
{
    struct listing *l = mem_zalloc(sizeof(*l));

    l->work.data = l;
    l->data = data;
    l->folders[0] = first;
    l->folders[1] = second;
    return l;
}

static void list(struct listing *l, struct api *api, struct http_exchange *x)
{
    l->later = later_new(api, x);
    uv_queue_work(api->server->loop, &l->work, read_now, after_read);
}

void loras_list(struct api *api, struct http_exchange *x, const char *arg)
{
    const struct config *c = api->server->config;
    struct listing *l = listing_new(json_array(), mem_strdup(c->lora_dir),
                                    file_join(c->starters_dir, "loras"));

    (void)arg;
    l->about = lora_words;
    list(l, api, x);
}

void upscalers_list(struct api *api, struct http_exchange *x, const char *arg)
{
    (void)arg;
    list(listing_new(json_pack("[{s:s}, {s:s}]", "name", "lanczos", "name", "nearest"),
                     mem_strdup(api->server->config->upscaler_dir), NULL),
         api, x);
}

void vaes_list(struct api *api, struct http_exchange *x, const char *arg)
{
    (void)arg;
    list(listing_new(json_pack("[{s:s}]", "name", "automatic"),
                     mem_strdup(api->server->config->vae_dir), NULL),
         api, x);
}
