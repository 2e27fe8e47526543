/* Any bytes as a prompt: refused or cut into ids of the vocabulary, the frame always whole. */
#include "engine/text/tokenizer.h"

#include "fuzz.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct tokens t;
    struct err err = {0};

    if (tokenizer_encode((const char *)data, size, &t, &err)) {
        if (err.code != ERR_INVALID && err.code != ERR_TOO_LARGE)
            abort();
        return 0;
    }
    if (t.ids[0] != TOKENIZER_BOS || t.ids[t.eos] != TOKENIZER_EOS ||
        t.used != t.eos + 1)
        abort();
    for (int i = 0; i < TOKENIZER_CONTEXT; i++)
        if (t.ids[i] < 0 || t.ids[i] >= TOKENIZER_VOCABULARY)
            abort();
    return 0;
}
