#include "engine/lora/bundle.h"

#include "base/str.h"

#include <string.h>

size_t lora_bundle_name(const char *tensor)
{
    const char *name;
    size_t len;

    if (!str_has_prefix(tensor, LORA_BUNDLE))
        return 0;
    name = tensor + strlen(LORA_BUNDLE);
    len = strcspn(name, ".");
    return name[len] == '.' ? len : 0;
}
