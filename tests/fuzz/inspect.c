/* Any file that opens can be described, in JSON that can be read again. */
#include "engine/inspect/inspect.h"
#include "engine/files/reader.h"

#include "fuzz.h"

#include <jansson.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct weights_file *file;
    char *text;
    json_t *report;

    if (weights_memory_open(&file, data, size, NULL))
        return 0;
    text = inspect_report(file);
    report = text ? json_loads(text, 0, NULL) : NULL;
    if (!json_string_value(json_object_get(report, "kind")) ||
        !json_string_value(json_object_get(report, "summary")))
        abort();
    json_decref(report);
    free(text);
    weights_file_close(file);
    return 0;
}
