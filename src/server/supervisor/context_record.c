/* An entry of contexts.json: whose saved contexts, and which files. The names are used to open and to remove files, so none is
 * taken that could lead out of the folder. */
#include "server/supervisor/worker.h"

#include <string.h>

#define NAME_LETTERS "0123456789abcdefghijklmnopqrstuvwxyz-."

static json_t *slot_json(const struct kv_slot *slot)
{
    return json_pack("{s:i, s:s, s:I, s:I, s:I}", "slot", slot->slot, "file",
                     slot->file, "tokens", slot->tokens, "bytes",
                     (json_int_t)slot->bytes, "saved_us", (json_int_t)slot->saved_us);
}

json_t *kv_json(const char *model, const struct kv *kv)
{
    const struct kv_owner *o = &kv->owner;
    json_t *slots = json_array();

    for (int i = 0; i < kv->count; i++)
        if (kv->slots[i].is_synced)
            json_array_append_new(slots, slot_json(&kv->slots[i]));
    return json_pack("{s:s, s:I, s:I, s:I, s:[I, I], s:i, s:i, s:s, s:s, s:o}", "model",
                     model, "device", (json_int_t)o->device, "inode",
                     (json_int_t)o->inode, "size", (json_int_t)o->size, "modified",
                     (json_int_t)o->modified.tv_sec, (json_int_t)o->modified.tv_nsec,
                     "context", o->options.context, "slots", o->options.slots, "task",
                     worker_task_name(o->options.task), "cache_type",
                     cache_type_name(o->options.cache_type), "saved", slots);
}

static int read_slot(const json_t *entry, struct kv_slot *ret)
{
    const char *file;
    json_int_t bytes, saved;

    if (json_unpack((json_t *)(uintptr_t)entry, "{s:i, s:s, s:I, s:I, s:I}", "slot",
                    &ret->slot, "file", &file, "tokens", &ret->tokens, "bytes", &bytes,
                    "saved_us", &saved) ||
        strlen(file) >= sizeof(ret->file) || file[0] != 'w' ||
        file[strspn(file, NAME_LETTERS)] || ret->slot < 0 || ret->tokens <= 0 ||
        bytes < 0)
        return -1;
    snprintf(ret->file, sizeof(ret->file), "%s", file);
    ret->bytes = (uint64_t)bytes;
    ret->saved_us = saved;
    ret->is_synced = true;
    return 0;
}

int kv_from_json(const json_t *entry, const char **ret_model, struct kv *ret)
{
    struct kv_owner *o = &ret->owner;
    json_int_t device, inode, size, s, ns;
    const char *task, *cache_type = "f16"; /* older records do not say it */
    struct err ignored;
    json_t *slots, *slot;
    size_t i;

    *ret = (struct kv){0};
    if (json_unpack((json_t *)(uintptr_t)entry,
                    "{s:s, s:I, s:I, s:I, s:[I, I], s:i, s:i, s:s, s?s, s:o}", "model",
                    ret_model, "device", &device, "inode", &inode, "size", &size,
                    "modified", &s, &ns, "context", &o->options.context, "slots",
                    &o->options.slots, "task", &task, "cache_type", &cache_type,
                    "saved", &slots) ||
        cache_type_from_name(cache_type, &o->options.cache_type, &ignored) ||
        worker_task_from_name(task, &o->options.task, &ignored) ||
        json_array_size(slots) > KV_SLOTS_MAX)
        return -1;
    o->device = (dev_t)device;
    o->inode = (ino_t)inode;
    o->size = (off_t)size;
    o->modified = (struct timespec){.tv_sec = s, .tv_nsec = ns};
    json_array_foreach(slots, i, slot)
    {
        if (read_slot(slot, &ret->slots[ret->count]))
            return -1;
        ret->count++;
    }
    return 0;
}
