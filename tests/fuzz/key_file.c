/* Any bytes as a file of keys: keys that can be found again, or one sentence without a secret in it. */
#include "server/keys/keys.h"

#include "base/str.h"
#include "fuzz.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct keys keys;
    struct err err = {0};
    int rc = keys_parse((const char *)data, size, "keys", &keys, &err);

    if ((rc == 0) != (err.code == ERR_NONE) || (rc && keys.count))
        abort();
    for (size_t i = 0; i < keys.count; i++) {
        const struct key *found = keys_find(&keys, keys.items[i].secret);

        if (!found || strcmp(found->secret, keys.items[i].secret) != 0 ||
            keys.items[i].scope == SCOPE_PUBLIC)
            abort();
    }
    keys_release(&keys);
    return 0;
}
