/* The first bytes of a LoRA's file: nothing, or an object of short texts. */
#include "server/models/lora_words.h"

#include "fuzz.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    json_t *words = lora_words_read(data, size), *value, *tag;
    const char *key;
    size_t i;

    json_object_foreach(words, key, value)
    {
        if (strcmp(key, "tags") != 0 && !json_is_string(value))
            abort();
        if (json_array_size(value) > LORA_TAGS_SHOWN)
            abort();
        json_array_foreach(value, i, tag)
        {
            if (!*json_string_value(tag))
                abort();
        }
    }
    json_decref(words);
    return 0;
}
