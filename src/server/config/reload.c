/* All or nothing: the new values go into a second struct config first, where a bad one is found, and only then into the one
 * that everybody reads. Values are compared and copied as text, which is what every option can be turned into.
 *
 * What may change is a column of the table of options and not a matter of this file: a value that somebody has copied at
 * the start (a port, a folder) is OPTION_AT_START, and changing it here would make the answer of GET /v1/config a lie. */
#include "server/config/reload.h"

#include "base/mem.h"
#include "server/config/options.h"

#include <stdlib.h>
#include <string.h>

void config_changes_init(struct config_changes *c)
{
    *c = (struct config_changes){json_array(), json_array(), json_array()};
}

void config_changes_release(struct config_changes *c)
{
    json_decref(c->now);
    json_decref(c->at_load);
    json_decref(c->at_start);
    *c = (struct config_changes){0};
}

static char *text_of(const struct config *c, const struct option *o)
{
    struct buf text = {0};

    option_print_value(c, o, &text);
    return buf_take(&text);
}

static bool is_same(const struct config *a, const struct config *b,
                    const struct option *o)
{
    char *x = text_of(a, o), *y = text_of(b, o);
    bool same = strcmp(x, y) == 0;

    free(x);
    free(y);
    return same;
}

/* One option's value from one config to another; both have passed their checks. */
static void copy_value(struct config *to, const struct config *from,
                       const struct option *o)
{
    const void *field = (const char *)from + o->offset;
    void *target = (char *)to + o->offset;
    const struct config_list *list = field;

    switch (o->type) {
    case OPTION_NUMBER:
    case OPTION_SIZE:
        *(int64_t *)target = *(const int64_t *)field;
        break;
    case OPTION_SWITCH:
        *(bool *)target = *(const bool *)field;
        break;
    case OPTION_LIST:
        option_reset_list(to, o);
        for (size_t i = 0; i < list->count; i++)
            ((struct config_list *)target)->items[i] = mem_strdup(list->items[i]);
        ((struct config_list *)target)->count = list->count;
        break;
    case OPTION_TEXT:
    case OPTION_PATH:
    case OPTION_MODEL:
    case OPTION_CHOICE:
        free(*(char **)target);
        *(char **)target = mem_strdup(*(char *const *)field);
        break;
    }
    to->sources[o - options] = from->sources[o - options];
}

static void take_over(struct config *c, const struct config *from,
                      struct config_changes *ret)
{
    for (size_t i = 0; i < option_count; i++) {
        const struct option *o = &options[i];
        json_t *list = o->applies == OPTION_LIVE      ? ret->now
                       : o->applies == OPTION_AT_LOAD ? ret->at_load
                                                      : ret->at_start;

        if (is_same(c, from, o)) {
            c->sources[i] = from->sources[i];
            continue;
        }
        json_array_append_new(list, json_string(o->name));
        if (o->applies != OPTION_AT_START)
            copy_value(c, from, o);
    }
}

/* A copy of all values, for trying something out. */
static void copy_all(struct config *to, const struct config *from)
{
    config_init(to);
    for (size_t i = 0; i < option_count; i++)
        copy_value(to, from, &options[i]);
}

int config_reread(struct config *c, int argc, char **argv, struct config_changes *ret,
                  struct err *err)
{
    struct config fresh;
    struct buf notes = {0};
    int rc = -1;

    config_init(&fresh);
    if (config_from_args(&fresh, argc, argv, err) == 0 &&
        config_resolve(&fresh, &notes, err) == 0) {
        for (size_t i = 0; i < option_count; i++)
            if (c->sources[i] == CONFIG_FROM_RUNTIME)
                copy_value(&fresh, c, &options[i]);
        take_over(c, &fresh, ret);
        rc = 0;
    }
    buf_release(&notes);
    config_release(&fresh);
    return rc;
}

/* JSON's value as the text that an option takes. */
static int value_text(const json_t *v, const char *name, struct buf *ret,
                      struct err *err)
{
    size_t i;
    json_t *item;

    if (json_is_string(v)) {
        buf_append_str(ret, json_string_value(v));
    } else if (json_is_integer(v)) {
        buf_printf(ret, "%lld", (long long)json_integer_value(v));
    } else if (json_is_boolean(v)) {
        buf_append_str(ret, json_is_true(v) ? "true" : "false");
    } else if (json_is_array(v)) {
        json_array_foreach(v, i, item)
        {
            if (!json_is_string(item) || strchr(json_string_value(item), ','))
                return err_set_param(err, ERR_INVALID, name,
                                     "%s must be a list of texts without commas", name);
            buf_printf(ret, "%s%s", i ? "," : "", json_string_value(item));
        }
    } else {
        return err_set_param(
            err, ERR_INVALID, name,
            "%s must be a text, a whole number, true, false or a list of "
            "texts",
            name);
    }
    return 0;
}

static int change_one(struct config *trial, const char *name, const json_t *value,
                      struct err *err)
{
    const struct option *o = option_find(name);
    struct buf text = {0};
    int rc = -1;

    if (!o)
        return option_unknown(name, name, err);
    if (o->applies == OPTION_AT_START)
        return err_set_param(err, ERR_INVALID, o->name,
                             "%s cannot change while the server runs: start it again "
                             "with --%s",
                             o->name, o->name);
    if (value_text(value, o->name, &text, err) == 0) {
        if (o->type == OPTION_LIST)
            option_reset_list(trial, o);
        rc = option_set(trial, o, buf_str(&text), o->name, err);
        if (rc && err)
            snprintf(err->param, sizeof(err->param), "%s", o->name);
    }
    buf_release(&text);
    return rc;
}

int config_change(struct config *c, const json_t *values, struct config_changes *ret,
                  struct err *err)
{
    struct config trial;
    const char *name;
    json_t *value;
    int rc = 0;

    copy_all(&trial, c);
    trial.setting = CONFIG_FROM_RUNTIME;
    json_object_foreach((json_t *)(uintptr_t)values, name, value)
    {
        if (rc == 0)
            rc = change_one(&trial, name, value, err);
    }
    if (rc == 0)
        take_over(c, &trial, ret);
    config_release(&trial);
    return rc;
}

static json_t *value_json(const struct config *c, const struct option *o)
{
    const void *field = (const char *)c + o->offset;
    const struct config_list *list = field;
    json_t *items;

    switch (o->type) {
    case OPTION_NUMBER:
    case OPTION_SIZE:
        return json_integer(*(const int64_t *)field);
    case OPTION_SWITCH:
        return json_boolean(*(const bool *)field);
    case OPTION_LIST:
        items = json_array();
        for (size_t i = 0; i < list->count; i++)
            json_array_append_new(items, json_string(list->items[i]));
        return items;
    default:
        return json_string(*(char *const *)field);
    }
}

json_t *config_json(const struct config *c)
{
    static const char *const sources[] = {
#define X(name, word) [CONFIG_FROM_##name] = word,
        CONFIG_SOURCES(X)
#undef X
    };
    json_t *list = json_array();

    for (size_t i = 0; i < option_count; i++)
        json_array_append_new(list, json_pack("{s:s, s:o, s:s, s:s, s:s}", "name",
                                              options[i].name, "value",
                                              value_json(c, &options[i]), "source",
                                              sources[c->sources[i]], "applies",
                                              option_applies_word(options[i].applies),
                                              "help", options[i].help));
    return list;
}
