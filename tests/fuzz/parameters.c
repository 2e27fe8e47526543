/* The text that a picture says about itself: any text gives an object that can be written as JSON. */
#include "fuzz.h"

#include "base/mem.h"
#include "base/str.h"
#include "server/store/parameters.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = mem_strndup((const char *)data, size);

    if (str_is_utf8(text, strlen(text))) {
        json_t *params = parameters_parse(text);
        char *dump = json_dumps(params, JSON_COMPACT);

        if (!json_is_object(params) || !dump)
            abort();
        free(dump);
        json_decref(params);
    }
    free(text);
    return 0;
}
