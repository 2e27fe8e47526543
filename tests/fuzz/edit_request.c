/* A request to change a picture, and the same as one to make it larger: the first line is its Content-Type, the rest its body. */
#include "fuzz.h"

#include "base/mem.h"
#include "server/api/upscale_request.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

static void must(bool holds)
{
    if (!holds)
        abort();
}

static void make_larger(const char *type, const char *body, size_t len)
{
    struct image_ask ask;
    struct edit_files files;
    struct err err = {0};

    if (upscale_ask_parse(type, body, len, &ask, &files, &err)) {
        must(err.code && err.message[0]);
        return;
    }
    must(files.image.len > 0 && !files.mask.len);
    must(ask.request.upscale.upscaler && ask.request.upscale.upscaler[0] != '/');
    must(ask.request.upscale.factor >= 0 &&
         ask.request.upscale.factor <= UPSCALE_FACTOR_MAX);
    image_ask_release(&ask);
    edit_files_release(&files);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct image_limits limits = {
        .max_side = 2048, .max_count = 10, .max_steps = 150};
    const uint8_t *end = memchr(data, '\n', size);
    struct image_ask ask;
    struct edit_files files;
    struct err err = {0};

    if (!end)
        return 0;
    char *type = mem_strndup((const char *)data, (size_t)(end - data));

    if (edit_ask_parse(type, (const char *)end + 1, size - (size_t)(end + 1 - data),
                       &limits, &ask, &files, &err)) {
        must(err.code && err.message[0]);
    } else {
        must(files.image.len > 0);
        must(ask.request.prompt && ask.request.prompt[0]);
        must(ask.request.start.strength <= 1 && !ask.request.start.image);
        image_ask_release(&ask);
        edit_files_release(&files);
    }
    make_larger(type, (const char *)end + 1, size - (size_t)(end + 1 - data));
    free(type);
    return 0;
}
