/* The record of what should be loaded.
 *
 * A structured record rather than the body of the last load request: a request may be refused, may name only a part,
 * and means something else after an update; the record says what is in memory. */
#include "server/supervisor/desired.h"

#include "base/file.h"
#include "base/mem.h"

#define RECORD_MAX (64 * 1024)
#define RECORD_VERSION 2 /* 1: "llm" is one model or null instead of the list "text" */

void wish_set(struct wish *w, const char *path,
              const struct worker_load_options *options)
{
    struct worker_load_options standard = WORKER_LOAD_OPTIONS_DEFAULT;
    char *copy = path ? mem_strdup(path) : NULL; /* it may be w's own */
    struct worker_load_options copied = options ? *options : standard;

    wish_release(w);
    *w = (struct wish){.known = true, .path = copy, .options = copied};
}

void wish_release(struct wish *w)
{
    free(w->path);
    *w = (struct wish){0};
}

bool load_options_are_same(const struct worker_load_options *a,
                           const struct worker_load_options *b)
{
    return a->gpu_layers == b->gpu_layers && a->context == b->context &&
           a->slots == b->slots && a->task == b->task && a->cache_type == b->cache_type;
}

bool wish_is_same(const struct wish *a, const struct wish *b)
{
    if (!a->path || !b->path)
        return a->path == b->path;
    return strcmp(a->path, b->path) == 0 &&
           load_options_are_same(&a->options, &b->options);
}

void desired_wishes_release(struct desired_wishes *d)
{
    wish_release(&d->sd);
    for (int i = 0; i < d->text_count; i++)
        wish_release(&d->text[i]);
    *d = (struct desired_wishes){0};
}

static int read_wish(const json_t *entry, struct wish *ret)
{
    struct worker_load_options o = WORKER_LOAD_OPTIONS_DEFAULT;
    const char *path, *task = "auto", *cache_type = "auto";
    int pinned = 0, parked = 0, gave_way = 0;
    struct err ignored;

    if (!entry) /* not in the record: nobody has decided */
        return 0;
    if (json_is_null(entry)) {
        wish_set(ret, NULL, NULL);
        return 0;
    }
    if (json_unpack((json_t *)(uintptr_t)entry,
                    "{s:s, s?i, s?i, s?i, s?s, s?s, s?i, s?b, s?b, s?b}", "model",
                    &path, "gpu_layers", &o.gpu_layers, "context", &o.context, "slots",
                    &o.slots, "task", &task, "cache_type", &cache_type, "idle_timeout",
                    &o.idle_timeout_s, "pinned", &pinned, "parked", &parked, "gave_way",
                    &gave_way) ||
        worker_task_from_name(task, &o.task, &ignored) ||
        cache_type_from_name(cache_type, &o.cache_type, &ignored) || path[0] != '/')
        return -1;
    o.is_pinned = pinned;
    wish_set(ret, path, &o);
    ret->is_parked = parked;
    ret->gave_way = gave_way;
    return 0;
}

static int read_text(const json_t *list, struct desired_wishes *ret)
{
    size_t i;
    json_t *entry;

    if (!list)
        return 0;
    if (!json_is_array(list) || json_array_size(list) > WORKERS_MAX - 1)
        return -1;
    ret->text_known = true;
    json_array_foreach(list, i, entry)
    {
        if (!json_is_object(entry) || read_wish(entry, &ret->text[ret->text_count]))
            return -1;
        ret->text_count++;
    }
    return 0;
}

/* The one text model of version 1. */
static int read_text_of_old(const json_t *entry, struct desired_wishes *ret)
{
    if (read_wish(entry, &ret->text[0]))
        return -1;
    ret->text_known = ret->text[0].known;
    ret->text_count = ret->text[0].path != NULL;
    return 0;
}

static int read_record(const json_t *root, struct desired_wishes *ret)
{
    json_int_t version = json_integer_value(json_object_get(root, "version"));

    if (read_wish(json_object_get(root, "sd"), &ret->sd))
        return -1;
    if (version == 1)
        return read_text_of_old(json_object_get(root, "llm"), ret);
    if (version == RECORD_VERSION)
        return read_text(json_object_get(root, "text"), ret);
    return -1;
}

int desired_read(const char *path, struct desired_wishes *ret, struct err *err)
{
    struct buf text = {0};
    json_error_t problem;
    json_t *root;
    int rc = 0;

    if (!file_exists(path))
        return 0;
    if (file_read(path, RECORD_MAX, &text, err)) {
        buf_release(&text);
        return -1;
    }
    root = json_loadb(buf_str(&text), text.len, 0, &problem);
    buf_release(&text);
    if (!root)
        return err_set(err, ERR_BAD_FILE, "%s is damaged (line %d: %s)", path,
                       problem.line, problem.text);
    if (read_record(root, ret)) {
        desired_wishes_release(ret);
        rc = err_set(err, ERR_BAD_FILE, "%s is not a record of this version", path);
    }
    json_decref(root);
    return rc;
}

static json_t *wish_json(const struct wish *w)
{
    json_t *entry;

    if (!w->path)
        return json_null();
    entry =
        json_pack("{s:s, s:i, s:i, s:i, s:s, s:s, s:i, s:b}", "model", w->path,
                  "gpu_layers", w->options.gpu_layers, "context", w->options.context,
                  "slots", w->options.slots, "task", worker_task_name(w->options.task),
                  "cache_type", cache_type_name(w->options.cache_type), "idle_timeout",
                  w->options.idle_timeout_s, "pinned", w->options.is_pinned);
    if (w->is_parked)
        json_object_set_new(entry, "parked", json_true());
    if (w->gave_way)
        json_object_set_new(entry, "gave_way", json_true());
    return entry;
}

char *desired_text(const struct desired_wishes *wishes)
{
    json_t *root = json_pack("{s:i}", "version", RECORD_VERSION);
    char *text;

    if (wishes->sd.known)
        json_object_set_new(root, "sd", wish_json(&wishes->sd));
    if (wishes->text_known) {
        json_t *list = json_array();

        for (int i = 0; i < wishes->text_count; i++)
            json_array_append_new(list, wish_json(&wishes->text[i]));
        json_object_set_new(root, "text", list);
    }
    text = json_dumps(root, JSON_INDENT(2));
    json_decref(root);
    return text;
}
