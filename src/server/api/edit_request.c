/* A form's fields become the JSON that a JSON request would have sent, so that both are checked by the same code: a field that
 * reads as a number, true or false is one, but for those that are text. Pictures are parts with a file name (image, image[],
 * mask), in JSON they are base64, bare or as a data: URL.
 *
 * One picture: a model that looks at several at once is another kind than the ones there are here, and to leave
 * some of them out silently would be a lie. */
#include "server/api/edit_request.h"

#include "base/base64.h"
#include "base/mem.h"
#include "server/api/body.h"
#include "server/api/multipart.h"

#include <string.h>

#define VARIATION_STRENGTH 0.5

static int put_picture(struct buf *ret, const char *key, const void *data, size_t len,
                       struct err *err)
{
    if (ret->len)
        return err_set_param(err, ERR_INVALID, key,
                             "there is more than one %s, one is taken", key);
    if (!len)
        return err_set_param(err, ERR_INVALID, key, "%s is an empty file", key);
    buf_append(ret, data, len);
    return 0;
}

/* ---- a form ---- */

static bool is_text(const char *name)
{
    static const char *const names[] = {
        "prompt",  "negative_prompt", "model",    "size", "user",
        "sampler", "scheduler",       "upscaler", "vae"};

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (strcmp(name, names[i]) == 0)
            return true;
    return false;
}

static json_t *field_value(const struct multipart_part *part)
{
    json_t *value = is_text(part->name)
                        ? NULL
                        : json_loadb(part->data, part->len, JSON_DECODE_ANY, NULL);

    if (json_is_number(value) || json_is_boolean(value))
        return value;
    json_decref(value);
    return json_stringn(part->data, part->len);
}

static int take_part(const struct multipart_part *part, json_t *body,
                     struct edit_files *files, struct err *err)
{
    bool is_image = !strcmp(part->name, "image") || !strcmp(part->name, "image[]");

    if (is_image || !strcmp(part->name, "mask"))
        return put_picture(is_image ? &files->image : &files->mask,
                           is_image ? "image" : "mask", part->data, part->len, err);
    json_t *value = field_value(part);

    if (!value)
        return err_set_param(err, ERR_INVALID, part->name, "%s is not UTF-8 text",
                             part->name);
    json_object_set_new(body, part->name, value);
    return 0;
}

static json_t *read_form(const char *content_type, const char *data, size_t len,
                         struct edit_files *files, struct err *err)
{
    json_t *body = json_object();
    struct multipart form;
    struct multipart_part part;
    int more = multipart_begin(&form, content_type, data, len, err) ? -1 : 1;

    while (more > 0 && (more = multipart_next(&form, &part, err)) > 0)
        if (take_part(&part, body, files, err))
            more = -1;
    if (more == 0)
        return body;
    json_decref(body);
    return NULL;
}

/* ---- JSON ---- */

/* "...", "data:...;base64,...", [one of them], {"image_url": one of them} */
static int take_base64(const json_t *value, const char *key, struct buf *ret,
                       struct err *err)
{
    const char *text, *comma;
    struct buf bytes = {0};
    int rc;

    if (json_is_array(value) && json_array_size(value) > 1)
        return err_set_param(err, ERR_INVALID, key,
                             "there are %zu pictures in %s, one is taken",
                             json_array_size(value), key);
    if (json_is_array(value))
        value = json_array_get(value, 0);
    if (json_is_object(value))
        value = json_object_get(value, "image_url");
    text = json_string_value(value);
    if (!text)
        return err_set_param(err, ERR_INVALID, key, "%s must be a picture in base64",
                             key);
    comma = strncmp(text, "data:", 5) == 0 ? strchr(text, ',') : NULL;
    if (base64_decode(comma ? comma + 1 : text, &bytes, NULL))
        rc = err_set_param(err, ERR_INVALID, key, "%s is not base64", key);
    else
        rc = put_picture(ret, key, bytes.data, bytes.len, err);
    buf_release(&bytes);
    return rc;
}

static json_t *read_json(const char *data, size_t len, struct edit_files *files,
                         struct err *err)
{
    static const char *const names[] = {"image", "image[]", "images", NULL};
    json_t *body = body_parse(data, len, err);
    const json_t *image, *mask;

    if (!body)
        return NULL;
    image = json_object_get(body, body_name(body, names));
    mask = json_object_get(body, "mask");
    if ((image && take_base64(image, "image", &files->image, err)) ||
        (mask && !json_is_null(mask) && take_base64(mask, "mask", &files->mask, err))) {
        json_decref(body);
        return NULL;
    }
    return body;
}

/* ---- what is to be done with the picture ---- */

static int take_fill(const json_t *body, struct image_start *s, struct err *err)
{
    static const char *const known[] = {"original", "fill", "latent noise",
                                        "latent nothing"};
    const char *fill = NULL;

    if (body_text(body, "fill", 0, &fill, err))
        return -1;
    for (size_t i = 0; fill && i < sizeof(known) / sizeof(known[0]); i++)
        if (strcmp(fill, known[i]) == 0)
            s->fill = mem_strdup(fill);
    if (!fill || s->fill)
        return 0;
    return err_set_param(err, ERR_INVALID, "fill",
                         "fill must be one of original, fill, latent noise, latent "
                         "nothing, not \"%.40s\"",
                         fill);
}

static int take_start(const json_t *body, struct image_start *s, struct err *err)
{
    static const char *const names[] = {"strength", "denoising_strength", NULL};
    bool is_cropped = true;
    int64_t padding = -1;

    if (body_number(body, body_name(body, names), 0, 1, &s->strength, err) ||
        body_number(body, "mask_blur", 0, 256, &s->mask_blur, err) ||
        body_whole(body, "padding", 0, 2048, &padding, err) ||
        body_bool(body, "crop", &is_cropped, err) ||
        body_bool(body, "only_masked", &s->only_masked, err) || take_fill(body, s, err))
        return -1;
    s->padding = (int)padding;
    s->is_cropped = is_cropped;
    return 0;
}

json_t *edit_body_read(const char *content_type, const char *data, size_t len,
                       struct edit_files *ret_files, struct err *err)
{
    struct edit_files files = {0};
    json_t *body = multipart_is(content_type)
                       ? read_form(content_type, data, len, &files, err)
                       : read_json(data, len, &files, err);

    if (body && !files.image.len) {
        (void)err_set_param(err, ERR_INVALID, "image",
                            "image is missing: send the picture that is to be changed");
        json_decref(body);
        body = NULL;
    }
    if (body)
        *ret_files = files;
    else
        edit_files_release(&files);
    return body;
}

int edit_ask_parse(const char *content_type, const char *data, size_t len,
                   const struct image_limits *limits, struct image_ask *ret,
                   struct edit_files *ret_files, struct err *err)
{
    struct edit_files files;
    json_t *body = edit_body_read(content_type, data, len, &files, err);

    if (!body)
        return -1;
    if (image_ask_from_body(body, limits, ret, err))
        goto fail;
    if (take_start(body, &ret->request.start, err)) {
        image_ask_release(ret);
        goto fail;
    }
    if (limits->needs_no_prompt && ret->request.start.strength < 0)
        ret->request.start.strength = VARIATION_STRENGTH;
    json_decref(body);
    *ret_files = files;
    return 0;

fail:
    json_decref(body);
    edit_files_release(&files);
    return -1;
}

void edit_files_release(struct edit_files *files)
{
    buf_release(&files->image);
    buf_release(&files->mask);
}
