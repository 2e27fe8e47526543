/* image_request: OpenAI's picture request, with the extensions that local servers have agreed on, into the
 * queue's struct image_request. Pure: bytes in, struct or sentence out. */
#ifndef MYSTI_SERVER_API_IMAGE_REQUEST_H
#define MYSTI_SERVER_API_IMAGE_REQUEST_H

#include "server/queue/job.h"

#include <jansson.h>

#define IMAGE_SIDE_MIN 64
#define IMAGE_PARTIAL_MAX 16 /* OpenAI: 3 */
#define IMAGE_PROMPT_MAX ((size_t)16 * 1024)

struct image_limits {
    int max_side;  /* pixels */
    int max_count; /* pictures of one request */
    int max_steps;
    bool needs_no_prompt; /* a picture says what is wanted */
};

enum image_delivery { IMAGE_AS_BASE64, IMAGE_AS_URL };

struct image_ask {
    struct image_request request; /* model_path is left NULL: the name is below */
    char *model;                  /* as the client wrote it; NULL: the active one */
    enum image_delivery delivery;
    bool stream;
    int partial_images; /* previews in a stream, of each picture, at most */
};

/* How it is to be answered, alone. */
int image_delivery_from_body(const json_t *body, struct image_ask *ret,
                             struct err *err) MUST_CHECK;
/* The same from JSON that is read already. */
int image_ask_from_body(const json_t *body, const struct image_limits *limits,
                        struct image_ask *ret, struct err *err) MUST_CHECK;
int image_ask_parse(const char *data, size_t len, const struct image_limits *limits,
                    struct image_ask *ret, struct err *err) MUST_CHECK;
void image_ask_release(struct image_ask *ask);

#endif
