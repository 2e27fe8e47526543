/* What a client can offer its user for <lora:name:1>. Folders are disk work, so they are read on a worker thread. */
#include "base/file.h"
#include "base/lora_folder.h"
#include "base/mem.h"
#include "server/api/api.h"
#include "server/api/handlers.h"
#include "server/config/config.h"

#include <jansson.h>
#include <stdlib.h>

struct listing {
    uv_work_t work;
    struct later *later;
    char *folders[3];
    struct lora_list list;
};

static void read_now(uv_work_t *work)
{
    struct listing *l = work->data;

    lora_list_read(&l->list, l->folders);
}

static void after_read(uv_work_t *work, int status)
{
    struct listing *l = work->data;
    struct api *api;
    struct http_exchange *x = later_claim(l->later, &api);
    json_t *all = json_array();

    (void)status;
    for (size_t i = 0; i < l->list.count; i++) {
        const struct lora_file *file = &l->list.all[i];

        json_array_append_new(all, json_pack("{s:s, s:I, s:I}", "name", file->name,
                                             "size_bytes", (json_int_t)file->bytes,
                                             "modified", (json_int_t)file->modified));
    }
    if (x)
        http_respond_json(x, 200,
                          json_pack("{s:s, s:O}", "object", "list", "data", all));
    json_decref(all);
    lora_list_release(&l->list);
    for (size_t i = 0; l->folders[i]; i++)
        free(l->folders[i]);
    free(l);
}

void loras_list(struct api *api, struct http_exchange *x, const char *arg)
{
    const struct config *c = api->server->config;
    struct listing *l = mem_zalloc(sizeof(*l));

    (void)arg;
    l->work.data = l;
    l->later = later_new(api, x);
    l->folders[0] = mem_strdup(c->lora_dir);
    l->folders[1] = file_join(c->starters_dir, "loras");
    uv_queue_work(api->server->loop, &l->work, read_now, after_read);
}
