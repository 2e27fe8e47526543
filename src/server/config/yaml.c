/* The configuration file: one YAML mapping from option names to values. Read event by event, so that every
 * refusal names the line; anchors, nested mappings, tags and a second document have no meaning here and are
 * refused instead of being ignored. */
#include "server/config/options.h"

#include "base/file.h"
#include "base/mem.h"
#include "base/str.h"

#include <yaml.h>

#define FILE_MAX (256 * 1024)

struct source {
    struct config *c;
    const char *path;
    char *folder;
    yaml_parser_t parser;
    yaml_event_t event;
    bool has_event;
    bool *seen; /* by index in options[] */
    struct err *err;
};

static int next(struct source *s)
{
    if (s->has_event)
        yaml_event_delete(&s->event);
    s->has_event = false;
    if (!yaml_parser_parse(&s->parser, &s->event))
        return err_set(s->err, ERR_INVALID, "%s line %zu: %s", s->path,
                       s->parser.problem_mark.line + 1,
                       s->parser.problem ? s->parser.problem : "not YAML");
    s->has_event = true;
    return 0;
}

static size_t line_of(const struct source *s)
{
    return s->event.start_mark.line + 1;
}

static bool is_null(const yaml_event_t *e)
{
    const char *v = (const char *)e->data.scalar.value;

    return e->data.scalar.style == YAML_PLAIN_SCALAR_STYLE &&
           (!*v || !strcmp(v, "~") || !strcmp(v, "null"));
}

/* The scalar at hand into the option. */
static int take_value(struct source *s, const struct option *o, const char *as)
{
    const char *value = (const char *)s->event.data.scalar.value;
    bool is_path =
        o->type == OPTION_PATH || (o->type == OPTION_MODEL && strchr(value, '/'));
    char *joined;
    int rc;

    if (strlen(value) != s->event.data.scalar.length)
        return err_set(s->err, ERR_INVALID, "%s contains a NUL", as);
    if (!is_path || !*value || str_has_prefix(value, "~/"))
        return option_set(s->c, o, value, as, s->err);
    joined = file_join(s->folder, value);
    rc = option_set(s->c, o, joined, as, s->err);
    free(joined);
    return rc;
}

static int take_list(struct source *s, const struct option *o, const char *as)
{
    for (;;) {
        if (next(s))
            return -1;
        if (s->event.type == YAML_SEQUENCE_END_EVENT)
            return 0;
        if (s->event.type != YAML_SCALAR_EVENT)
            return err_set(s->err, ERR_INVALID, "%s must be a list of plain values",
                           as);
        if (take_value(s, o, as))
            return -1;
    }
}

static int take_pair(struct source *s)
{
    char name[80], *as;
    const struct option *o;
    int rc;

    if (s->event.type != YAML_SCALAR_EVENT)
        return err_set(s->err, ERR_INVALID,
                       "%s line %zu: expected the name of an option", s->path,
                       line_of(s));
    snprintf(name, sizeof(name), "%s", (const char *)s->event.data.scalar.value);
    as = mem_printf("%s line %zu: %s", s->path, line_of(s), name);
    o = option_find(name);
    if (!o || !strcmp(o->name, "config")) {
        rc = option_unknown(name, as, s->err);
        goto out;
    }
    rc = -1;
    if (s->seen[o - options]) {
        err_set(s->err, ERR_INVALID, "%s is there twice", as);
        goto out;
    }
    s->seen[o - options] = true;
    if (next(s))
        goto out;
    if (s->event.type == YAML_SCALAR_EVENT)
        rc = is_null(&s->event) ? 0 : take_value(s, o, as);
    else if (s->event.type == YAML_SEQUENCE_START_EVENT && o->type == OPTION_LIST)
        rc = take_list(s, o, as);
    else
        err_set(s->err, ERR_INVALID, "%s must be a plain value", as);
out:
    free(as);
    return rc;
}

static int take_document(struct source *s)
{
    if (next(s) || next(s)) /* stream start, then a document or the end */
        return -1;
    if (s->event.type == YAML_STREAM_END_EVENT)
        return 0;
    if (next(s))
        return -1;
    if (s->event.type == YAML_SCALAR_EVENT && is_null(&s->event))
        return 0; /* only comments */
    if (s->event.type != YAML_MAPPING_START_EVENT)
        return err_set(s->err, ERR_INVALID,
                       "%s line %zu: expected lines like \"listen-port: 1234\"",
                       s->path, line_of(s));
    for (;;) {
        if (next(s))
            return -1;
        if (s->event.type == YAML_MAPPING_END_EVENT)
            break;
        if (take_pair(s))
            return -1;
    }
    if (next(s) || next(s)) /* document end, then the stream's */
        return -1;
    if (s->event.type != YAML_STREAM_END_EVENT)
        return err_set(s->err, ERR_INVALID, "%s line %zu: a second document", s->path,
                       line_of(s));
    return 0;
}

int config_from_yaml(struct config *c, const char *path, struct err *err)
{
    struct source s = {.c = c, .path = path, .err = err};
    const char *name = file_name(path);
    struct buf text = {0};
    int rc = -1;

    if (file_read(path, FILE_MAX, &text, err)) {
        err_wrap(err, "--config");
        buf_release(&text);
        return -1;
    }
    s.folder = name == path ? mem_strdup("") : mem_strndup(path, (size_t)(name - path));
    s.seen = mem_zalloc(option_count * sizeof(*s.seen));
    if (!yaml_parser_initialize(&s.parser)) {
        err_set(err, ERR_NO_MEMORY, "no memory to read %s", path);
    } else {
        yaml_parser_set_input_string(&s.parser, (const unsigned char *)buf_str(&text),
                                     text.len);
        rc = take_document(&s);
        if (s.has_event)
            yaml_event_delete(&s.event);
        yaml_parser_delete(&s.parser);
    }
    free(s.seen);
    free(s.folder);
    buf_release(&text);
    return rc;
}
