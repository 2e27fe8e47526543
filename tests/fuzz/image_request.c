/* The JSON body of a picture request into a job: whatever comes, the job that is handed on is within its limits, or
 * there is one sentence that says why not. */
#include "fuzz.h"

#include "base/str.h"
#include "server/api/image_request.h"

#include <stdlib.h>
#include <string.h>

static void must(bool holds)
{
    if (!holds)
        abort();
}

static bool is_side(int n, const struct image_limits *limits)
{
    return n == 0 || (n % 8 == 0 && n >= IMAGE_SIDE_MIN && n <= limits->max_side);
}

static bool is_text(const char *s)
{
    return !s || (*s && str_is_utf8(s, strlen(s)));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const struct image_limits limits = {
        .max_side = 2048, .max_count = 10, .max_steps = 150};
    struct image_ask ask = {0};
    struct err err = {0};

    if (image_ask_parse((const char *)data, size, &limits, &ask, &err)) {
        must(err.code != ERR_NONE && err.message[0]);
        must(str_is_utf8(err.message, strlen(err.message)));
        return 0;
    }
    const struct image_request *r = &ask.request;

    must(r->prompt && is_text(r->prompt) && is_text(r->negative_prompt));
    must(is_side(r->width, &limits) && is_side(r->height, &limits));
    must(r->count >= 1 && r->count <= limits.max_count);
    must(r->steps >= 0 && r->steps <= limits.max_steps);
    must(r->seed >= -1 && r->seed <= UINT32_MAX);
    must(r->cfg_scale >= -1 && r->cfg_scale <= 30);
    must(is_text(r->sampler) && is_text(r->scheduler) && is_text(ask.model));
    must(!r->model_path);
    image_ask_release(&ask);
    return 0;
}
