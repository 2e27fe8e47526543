/* body_scan: a few top-level values of a JSON object in one pass, without building a tree.
 *
 *   struct scanned found[] = {{.key = "model"}, {.key = "stream"}};
 *   if (body_scan(data, len, found, 2)) ... found[0].kind, found[0].text ...
 *   else ... body_parse(), which also has the sentence ...
 *
 * True only when the text is certainly JSON, as jansson has it, and every value that was asked for can be told
 * without decoding; whatever is unusual (escapes in a value that was asked for, deep nesting, numbers with large
 * exponents, escaped surrogates) is left to jansson by saying false. */
#ifndef MYSTI_SERVER_API_BODY_SCAN_H
#define MYSTI_SERVER_API_BODY_SCAN_H

#include <stdbool.h>
#include <stddef.h>

enum scan_kind {
    SCAN_ABSENT,
    SCAN_NULL,
    SCAN_TRUE,
    SCAN_FALSE,
    SCAN_NUMBER,
    SCAN_TEXT,
    SCAN_ARRAY,
    SCAN_OBJECT,
};

struct scanned {
    const char *key;
    enum scan_kind kind;
    const char
        *text; /* of a text: what stands between the quotes, in the body itself */
    size_t len;
    bool is_empty; /* an array or an object without anything in it */
};

bool body_scan(const char *data, size_t len, struct scanned *found, size_t count);

#endif
