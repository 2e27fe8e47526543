/* sharing: who goes first when text and pictures want the same processor, in the words of the option --sharing, and
 * what each side does for it. One table for the three programs: the server passes the word on, each worker takes its
 * own place.
 *
 *   sharing_parse("text-first", "--sharing", &sharing, &err);
 *   place = sharing_picture_place(sharing);        the picture worker's compute threads
 *   sharing_rest_percent(sharing, SHARING_ON_GPU)  of the time, between two steps, while text runs
 *   sharing_text_gives_way(sharing)                the text worker's compute threads
 *
 * No side can be starved: places are weights, never "only when nobody else wants", and nobody rests longer than
 * it works times SHARING_REST_MAX_PERCENT / (100 - SHARING_REST_MAX_PERCENT). */
#ifndef MYSTI_BASE_SHARING_H
#define MYSTI_BASE_SHARING_H

#include "base/err.h"

#include <stdbool.h>

enum sharing { SHARING_TEXT_FIRST, SHARING_EQUAL, SHARING_IMAGE_FIRST };

/* The words as an option's choices. */
#define SHARING_WORDS "text-first|equal|image-first"
#define SHARING_REST_MAX_PERCENT 90

const char *sharing_word(enum sharing sharing);
/* `as` begins the sentence when the word is none of the three. */
int sharing_parse(const char *word, const char *as, enum sharing *ret,
                  struct err *err) MUST_CHECK;

struct sharing_place {
    int nice;
    bool is_batch; /* does not cut in when it wakes */
};

/* Of the threads that compute pictures. */
struct sharing_place sharing_picture_place(enum sharing sharing);

enum sharing_device { SHARING_ON_CPU, SHARING_ON_GPU };

/* How much of the time between two steps of a picture is left to text while text is being written. */
int sharing_rest_percent(enum sharing sharing, enum sharing_device device);
/* Are the threads that compute text to be the lower ones? */
bool sharing_text_gives_way(enum sharing sharing);

#endif
