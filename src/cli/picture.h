/* picture: what the commands share that wait for a picture. */
#ifndef MYSTI_CLI_PICTURE_H
#define MYSTI_CLI_PICTURE_H

#include "base/err.h"

#include <jansson.h>

/* Ctrl-C says so and ends the process, and with it the job. */
void picture_catch_interrupt(void);
/* The picture of a "...completed" event, into a file; path "-": standard output. */
int picture_write(const json_t *event, const char *path, struct err *err) MUST_CHECK;

#endif
