/* The fields have A1111's names as second ones (upscaler_1, upscaling_resize). Whether there is such an upscaler is not
 * known here: its folder is the worker's to read, as that of the LoRAs is.
 *
 * If you add a field: docs/openapi.yaml (UpscaleRequest), struct image_upscale, sd_worker/request.c. */
#include "server/api/upscale_request.h"

#include "base/file.h"
#include "base/mem.h"
#include "server/api/body.h"

#include <string.h>
#include <strings.h>

#define NAME_MAX_BYTES 200

static int take_upscaler(const json_t *body, struct image_upscale *u, struct err *err)
{
    static const char *const names[] = {"upscaler", "upscaler_1", "model", NULL};
    const char *key = body_name(body, names), *name = NULL;

    if (body_text(body, key, NAME_MAX_BYTES, &name, err))
        return -1;
    if (!name || !*name || !strcasecmp(name, "lanczos"))
        name = "lanczos";
    else if (!strcasecmp(name, "nearest"))
        name = "nearest";
    else if (!file_is_confined(name))
        return err_set_param(err, ERR_INVALID, key,
                             "%s must be lanczos, nearest or the name of a file in the "
                             "upscaler folder, not a path to somewhere else",
                             key);
    u->upscaler = mem_strdup(name);
    return 0;
}

static int take_upscale(const json_t *body, struct image_upscale *u, struct err *err)
{
    static const char *const names[] = {"factor", "scale", "upscaling_resize", NULL};

    if (take_upscaler(body, u, err))
        return -1;
    return body_number(body, body_name(body, names), 1, UPSCALE_FACTOR_MAX, &u->factor,
                       err);
}

int upscale_ask_parse(const char *content_type, const char *data, size_t len,
                      struct image_ask *ret, struct edit_files *ret_files,
                      struct err *err)
{
    struct image_ask ask = {.request = IMAGE_REQUEST_DEFAULT};
    struct edit_files files;
    json_t *body = edit_body_read(content_type, data, len, &files, err);
    int rc;

    if (!body)
        return -1;
    ask.request.prompt = mem_strdup("");
    ask.request.seed = 0; /* nothing is drawn by chance */
    rc = files.mask.len
             ? err_set_param(err, ERR_INVALID, "mask",
                             "the whole picture is made larger: a mask has no "
                             "meaning here")
             : 0;
    if (rc || take_upscale(body, &ask.request.upscale, err) ||
        image_delivery_from_body(body, &ask, err)) {
        edit_files_release(&files);
        image_ask_release(&ask);
        rc = -1;
    } else {
        *ret = ask;
        *ret_files = files;
    }
    json_decref(body);
    return rc;
}
