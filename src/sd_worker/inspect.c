#include "sd_worker/inspect.h"

#include "engine/engine.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

static char *error_json(const struct err *err)
{
    json_t *error = json_pack("{s:{s:s, s:s, s:s}}", "error", "message", err->message,
                              "type", err_type(err->code), "code", err_slug(err->code));
    char *text = error ? json_dumps(error, JSON_INDENT(2)) : NULL;

    json_decref(error);
    return text;
}

int inspect(const char *path)
{
    struct err err = {0};
    char *text = NULL;
    int failed = engine_inspect(&text, path, &err);

    if (failed)
        text = error_json(&err);
    printf("%s\n", text ? text : "{}");
    free(text);
    return failed || fflush(stdout) ? 1 : 0;
}
