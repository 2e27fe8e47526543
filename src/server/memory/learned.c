#include "server/memory/learned.h"

#include "base/mem.h"

#include <jansson.h>
#include <stdlib.h>

struct learned {
    json_t *bytes; /* by key; jansson keeps the order, so the first is the oldest */
};

struct learned *learned_read(const char *text, size_t len)
{
    struct learned *l = mem_zalloc(sizeof(*l));
    json_t *read = len ? json_loadb(text, len, JSON_REJECT_DUPLICATES, NULL) : NULL;
    const char *key;
    json_t *value;

    l->bytes = json_object();
    json_object_foreach(read, key, value)
    {
        if (json_integer_value(value) > 0)
            (void)learned_put(l, key, (uint64_t)json_integer_value(value));
    }
    json_decref(read);
    return l;
}

void learned_free(struct learned *l)
{
    if (l)
        json_decref(l->bytes);
    free(l);
}

uint64_t learned_find(const struct learned *l, const char *key)
{
    return (uint64_t)json_integer_value(json_object_get(l->bytes, key));
}

bool learned_put(struct learned *l, const char *key, uint64_t bytes)
{
    uint64_t before = learned_find(l, key);
    uint64_t apart = bytes > before ? bytes - before : before - bytes;

    if (before && apart < before / 100)
        return false;
    json_object_del(l->bytes, key); /* the newest is the last */
    json_object_set_new(l->bytes, key, json_integer((json_int_t)bytes));
    while (json_object_size(l->bytes) > LEARNED_MAX)
        json_object_del(l->bytes, json_object_iter_key(json_object_iter(l->bytes)));
    return true;
}

char *learned_text(const struct learned *l)
{
    return json_dumps(l->bytes, JSON_INDENT(1));
}
