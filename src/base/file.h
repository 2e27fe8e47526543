/* file: whole files in and out, and paths. Writing is atomic: a temporary name beside
 * the target, fsync, rename, fsync of the folder, so that a crash leaves the old file
 * or the new one. */
#ifndef MYSTI_BASE_FILE_H
#define MYSTI_BASE_FILE_H

#include "base/buf.h"
#include "base/err.h"

#include <stdbool.h>
#include <sys/types.h>

/* Reads all of a regular file of at most max_bytes into ret_data (appended). */
int file_read(const char *path, size_t max_bytes, struct buf *ret_data,
              struct err *err) MUST_CHECK;
int file_write_atomic(const char *path, const void *data, size_t len, mode_t mode,
                      struct err *err) MUST_CHECK;
/* mkdir -p */
int file_make_folder(const char *path, mode_t mode, struct err *err) MUST_CHECK;
bool file_exists(const char *path);
bool file_is_folder(const char *path);
/* "a/b" from folder and name; free() it. An absolute name is returned as it is. */
char *file_join(const char *folder, const char *name);
/* The part after the last slash. */
const char *file_name(const char *path);
/* Is `name` a relative path that stays below the folder it is joined to: not empty, not
 * absolute, no
 * "..", no empty or "." part, no backslash, no control character? Purely lexical. */
bool file_is_confined(const char *name);
/* The folder of the running program, for what ships beside it; free() it. */
char *file_program_folder(void);

#endif
