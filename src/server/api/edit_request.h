/* edit_request: a request to change a picture, as OpenAI's form or as JSON, into an image_ask and the bytes of the
 * pictures it begins with. Pure: bytes in, structs or a sentence out. */
#ifndef MYSTI_SERVER_API_EDIT_REQUEST_H
#define MYSTI_SERVER_API_EDIT_REQUEST_H

#include "base/buf.h"
#include "server/api/image_request.h"

/* PNG, JPEG or WebP as they came; nobody has looked inside yet. */
struct edit_files {
    struct buf image, mask;
};

/* A form or JSON as one JSON, and its pictures, of which there is at least one to begin with. A new reference; NULL
 * with a sentence. content_type NULL is JSON. */
json_t *edit_body_read(const char *content_type, const char *data, size_t len,
                       struct edit_files *ret_files, struct err *err);

/* limits->needs_no_prompt: a variation, which changes less when nothing says how much. content_type: the request's, NULL is
 * JSON. The request's start is filled in but for the paths. */
int edit_ask_parse(const char *content_type, const char *data, size_t len,
                   const struct image_limits *limits, struct image_ask *ret,
                   struct edit_files *ret_files, struct err *err) MUST_CHECK;
void edit_files_release(struct edit_files *files);

#endif
