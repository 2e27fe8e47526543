/* options: the table behind config. One row per option; flags, environment variables, keys of the YAML file,
 * --help, --print-config and docs all come from it. A new option is a field in struct config and a row. */
#ifndef MYSTI_SERVER_CONFIG_OPTIONS_H
#define MYSTI_SERVER_CONFIG_OPTIONS_H

#include "server/config/config.h"

enum option_type {
    OPTION_TEXT,
    OPTION_PATH,   /* text; "~/" is the home folder; in the file relative to the file */
    OPTION_MODEL,  /* a path or a name, made one by config_resolve(), or "none" */
    OPTION_CHOICE, /* one of the words in `choices` */
    OPTION_NUMBER,
    OPTION_SIZE, /* bytes; K, M, G and T are 1024, 1024^2 ... */
    OPTION_SWITCH,
    OPTION_LIST, /* repeatable, or separated by commas; a sequence in the file */
};

/* When a new value counts while the server runs. */
enum option_applies {
    OPTION_AT_START, /* of the server */
    OPTION_AT_LOAD,  /* when a worker is started or a model loaded the next time */
    OPTION_LIVE,     /* at once */
};

struct option {
    const char *name;
    const char *alias; /* another spelling on the command line, with its dashes; NULL */
    enum option_type type;
    size_t offset; /* of the field in struct config */
    int64_t min, max;
    const char *standard; /* the default, as text */
    const char *choices;  /* "auto|dnnl|ref" */
    const char *value;    /* what --help calls the value; NULL: by type */
    const char *help;
    const char *group; /* heading before it in --help; NULL: as the one before */
    enum option_applies applies;
};

extern const struct option options[];
extern const size_t option_count;

/* "listen-port"; '_' counts as '-'. NULL when there is none. */
const struct option *option_find(const char *name);
/* err names the nearest option; `as` is how it was written */
int option_unknown(const char *name, const char *as, struct err *err);
/* Puts the value into c; `as` ("--listen-port", "MYSTI_LISTEN_PORT", "mysti.yaml line 3: listen-port") begins
 * the sentence when it is refused. Lists grow. */
int option_set(struct config *c, const struct option *o, const char *value,
               const char *as, struct err *err) MUST_CHECK;
void option_reset_list(struct config *c, const struct option *o);
const char *
option_applies_word(enum option_applies applies); /* "start", "load", "now" */
/* The current value as text, appended. */
void option_print_value(const struct config *c, const struct option *o,
                        struct buf *out);

/* yaml.c: the file; relative paths in it belong to its folder */
int config_from_yaml(struct config *c, const char *path, struct err *err) MUST_CHECK;

#endif
