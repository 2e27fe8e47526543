/* Any bytes as a PNG file: found or not, the text that comes out is UTF-8 and no longer than what went in. */
#include "base/png_text.h"

#include "base/str.h"
#include "fuzz.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct buf text = {0};
    struct err err = {0};
    int found = png_text_read(data, size, "parameters", &text, &err);

    if (text.len > 2 * size || !str_is_utf8(buf_str(&text), text.len))
        abort();
    if ((found < 0) != (err.code != ERR_NONE) || (found <= 0 && text.len))
        abort();
    buf_release(&text);
    return 0;
}
