/* upscale_request: a request to make a picture larger, as a form or as JSON, into an image_ask and the bytes of the
 * picture. Pure: bytes in, structs or a sentence out. */
#ifndef MYSTI_SERVER_API_UPSCALE_REQUEST_H
#define MYSTI_SERVER_API_UPSCALE_REQUEST_H

#include "server/api/edit_request.h"

#define UPSCALE_FACTOR_MAX 8

/* content_type: the request's, NULL is JSON. */
int upscale_ask_parse(const char *content_type, const char *data, size_t len,
                      struct image_ask *ret, struct edit_files *ret_files,
                      struct err *err) MUST_CHECK;

#endif
