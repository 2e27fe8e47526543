/* Any bytes as a request's body: what the scanner takes jansson takes, too, and finds the same. */
#include "server/api/body_scan.h"

#include "fuzz.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

static void must(bool holds)
{
    if (!holds)
        abort();
}

static enum scan_kind kind_of(const json_t *v)
{
    if (!v)
        return SCAN_ABSENT;
    switch (json_typeof(v)) {
    case JSON_NULL:
        return SCAN_NULL;
    case JSON_TRUE:
        return SCAN_TRUE;
    case JSON_FALSE:
        return SCAN_FALSE;
    case JSON_STRING:
        return SCAN_TEXT;
    case JSON_ARRAY:
        return SCAN_ARRAY;
    case JSON_OBJECT:
        return SCAN_OBJECT;
    default:
        return SCAN_NUMBER;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct scanned found[] = {{.key = "model"}, {.key = "stream"}, {.key = "messages"}};

    if (!body_scan((const char *)data, size, found, 3))
        return 0;
    json_t *body = json_loadb((const char *)data, size, 0, NULL);

    must(json_is_object(body));
    for (int i = 0; i < 3; i++) {
        const json_t *v = json_object_get(body, found[i].key);

        must(found[i].kind == kind_of(v));
        if (json_is_string(v))
            must(json_string_length(v) == found[i].len &&
                 !memcmp(json_string_value(v), found[i].text, found[i].len));
        if (json_is_array(v))
            must((json_array_size(v) == 0) == found[i].is_empty);
        if (json_is_object(v))
            must((json_object_size(v) == 0) == found[i].is_empty);
    }
    json_decref(body);
    return 0;
}
