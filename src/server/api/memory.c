/* GET /v1/memory: what there is, and who of us has how much of it: foreseen before it was started, and measured now. The
 * two are shown side by side because their difference is the interesting part. What is measured as `file` are pages of model
 * files: they count as available to the kernel, but a model is only fast while they stay. */
#include "server/memory/memory.h"
#include "server/api/handlers.h"

#include <unistd.h>

static json_t *measured_json(int pid)
{
    struct memory_use use;

    if (pid <= 0 || memory_use_of_process("", pid, &use))
        return json_null();
    return json_pack("{s:I, s:I, s:I, s:I}", "resident", (json_int_t)use.resident,
                     "anonymous", (json_int_t)use.anonymous, "file",
                     (json_int_t)use.file, "swapped", (json_int_t)use.swapped);
}

static json_t *predicted_json(const struct worker_snapshot *w)
{
    const struct prediction *p = w->predicted;
    json_t *resident = json_object_get(w->details, "resident_bytes");

    if (p)
        return json_pack("{s:I, s:I, s:I, s:I}", "total", (json_int_t)p->total_bytes,
                         "weights", (json_int_t)p->weight_bytes, "cache",
                         (json_int_t)p->cache_bytes, "compute",
                         (json_int_t)p->compute_bytes);
    if (w->model && json_is_integer(resident))
        return json_pack("{s:O, s:O, s:i, s:i}", "total", resident, "weights", resident,
                         "cache", 0, "compute", 0);
    return json_null();
}

static json_t *resident_json(struct api *api, const struct worker_snapshot *w)
{
    return json_pack("{s:s, s:s, s:s?, s:s, s:b, s:o, s:o}", "worker", w->name, "type",
                     w->kind == WORKER_SD ? "image" : "text", "model",
                     w->wanted ? catalog_id(api->catalog, w->wanted) : NULL, "state",
                     w->state_name, "pinned", w->is_pinned, "predicted",
                     predicted_json(w), "measured", measured_json(w->pid));
}

static json_t *residents_json(struct api *api)
{
    const struct supervisor *s = api->server->supervisor;
    json_t *list = json_array();

    for (int id = 0; id < supervisor_count(s); id++) {
        struct worker_snapshot w;

        if (!supervisor_is_shown(s, id))
            continue;
        supervisor_snapshot(s, id, &w);
        json_array_append_new(list, resident_json(api, &w));
    }
    return list;
}

void memory_show(struct api *api, struct http_exchange *x, const char *arg)
{
    struct memory_now now;

    (void)arg;
    if (memory_read("", &now)) {
        http_respond_error(x, ERR_INTERNAL, NULL,
                           "this machine does not say how much memory it has "
                           "(/proc/meminfo)");
        return;
    }
    http_respond_json(
        x, 200,
        json_pack("{s:{s:I, s:I, s:o}, s:o, s:o, s:o}", "ram", "total",
                  (json_int_t)now.total, "available", (json_int_t)now.available,
                  "limit",
                  now.limit ? json_integer((json_int_t)now.limit) : json_null(), "gpus",
                  memory_gpus_json(""), "residents", residents_json(api), "server",
                  measured_json(getpid())));
}
