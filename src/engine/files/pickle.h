/* pickle: what a Python pickle says, as a tree of values. Nothing in it is executed.
 * Private to files/.
 *
 *   static const struct pickle_global known[] = {{"collections", "OrderedDict", MY_DICT, 0}, {0}};
 *   if (pickle_read(&pickle, bytes, size, known, err)) return -1;
 *   ... pickle_root(pickle) ...
 *   pickle_free(pickle);
 *
 * A pickle is a program for a machine that may import and call anything. This reader
 * writes a call down as a value of its own (PICKLE_CALL) and leaves it to the caller to
 * know what it means; a global that is not in the caller's table makes the pickle
 * refused. Texts point into the bytes, which must live as long. The tree may share
 * branches and lead in circles: whoever walks it bounds the depth. */
#ifndef MYSTI_ENGINE_FILES_PICKLE_H
#define MYSTI_ENGINE_FILES_PICKLE_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct pickle_global {
    const char *module, *name; /* NULL ends the table */
    int meaning, detail;       /* the caller's */
};

enum pickle_kind {
    PICKLE_NONE,
    PICKLE_BOOL,
    PICKLE_INT,
    PICKLE_REAL,
    PICKLE_TEXT,
    PICKLE_TUPLE,
    PICKLE_LIST,
    PICKLE_DICT,
    PICKLE_GLOBAL,
    PICKLE_CALL,       /* of `function` with `arguments` */
    PICKLE_PERSISTENT, /* something outside, which `arguments` name */
};

struct pickle_value {
    enum pickle_kind kind;
    uint32_t count, cap; /* of items; cap is the reader's */
    union {
        int64_t number; /* INT, BOOL */
        double real;
        const char *text; /* not ended by NUL */
        const struct pickle_global *global;
        const struct pickle_value *function; /* any value, a GLOBAL where it is right */
    };
    union {
        size_t len; /* TEXT */
        const struct pickle_value *arguments;
    };
    /* TUPLE, LIST: values; DICT, and a CALL whose result was used as one: key, value,
     * key, value, ... */
    struct pickle_value **items;
    const struct pickle_value
        *state; /* CALL: the attributes that it got last, or NULL */
};

struct pickle;

int pickle_read(struct pickle **ret_pickle, const void *data, size_t size,
                const struct pickle_global *known, struct err *err) MUST_CHECK;
void pickle_free(struct pickle *pickle); /* NULL is fine */

const struct pickle_value *pickle_root(const struct pickle *pickle);
size_t pickle_count(const struct pickle *pickle); /* values in it */

/* Is this the text? */
bool pickle_is_text(const struct pickle_value *value, const char *text);
/* Is this a call of a global with this meaning? */
bool pickle_is_call(const struct pickle_value *value, int meaning);

#endif
