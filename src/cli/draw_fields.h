/* draw_fields: what a picture request may say, as options of a command and as JSON. Private to cli/. */
#ifndef MYSTI_CLI_DRAW_FIELDS_H
#define MYSTI_CLI_DRAW_FIELDS_H

#include "base/err.h"
#include "cli/args.h"

#include <jansson.h>

enum { DRAW_FIELDS_MAX = 64 };

/* One for each field; those that are not given are left out of the request. */
union draw_value {
    const char *text;
    int64_t whole;
    double number;
    bool flag;
};

struct draw_values {
    union draw_value of[DRAW_FIELDS_MAX];
};

/* Nothing is given. */
void draw_values_init(struct draw_values *values);
/* The options, for values that lie `at` bytes into the command's struct; returns how many. */
int draw_field_options(size_t at, struct args_option *ret_options);
/* Puts what is given into the request; the pictures to begin with are read. *ret_is_edit: there is one. */
int draw_fields_put(const struct draw_values *values, json_t *body, bool *ret_is_edit,
                    struct err *err) MUST_CHECK;

#endif
