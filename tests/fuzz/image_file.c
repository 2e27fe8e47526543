/* Any bytes as a picture file: pixels within the limit, or one sentence. */
#include "engine/image/read.h"

#include "fuzz.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct image image = {0};
    struct err err = {0};
    int width = 0, height = 0;
    int known = image_read_size(data, size, &width, &height, &err);

    if ((known != 0) != (err.code != ERR_NONE))
        abort();
    /* a small file may claim a large picture: decoding some of those is enough */
    if (known || (int64_t)width * height > 1 << 20)
        return 0;
    err.code = ERR_NONE;
    if (image_read(data, size, &image, &err) == 0) {
        if (image.width != width || image.height != height || !image.rgba)
            abort();
        image_release(&image);
    } else if (err.code == ERR_NONE || image.rgba) {
        abort();
    }
    return 0;
}
