/* zip: the list of what a zip archive in memory holds. Private to files/.
 *
 *   if (zip_read(&zip, map, size, err)) return -1;
 *   const struct zip_entry *e = zip_find(&zip, "archive/data.pkl", 16);
 *   zip_release(&zip);
 *
 * Nothing is unpacked: every entry must be stored as it is, so that its bytes lie in the
 * archive and can be used in place. Names and data point into the archive. */
#ifndef MYSTI_ENGINE_FILES_ZIP_H
#define MYSTI_ENGINE_FILES_ZIP_H

#include "base/err.h"

#include <stddef.h>
#include <stdint.h>

struct zip_entry {
    const char *name; /* not ended by NUL */
    size_t name_len;
    const unsigned char *data; /* in bounds, shared with no other entry */
    size_t size;
};

struct zip {
    struct zip_entry *entries; /* sorted by name; no two have the same */
    size_t count;
};

int zip_read(struct zip *ret_zip, const void *archive, size_t size,
             struct err *err) MUST_CHECK;
void zip_release(struct zip *zip);
/* NULL when there is none */
const struct zip_entry *zip_find(const struct zip *zip, const char *name,
                                 size_t name_len);

#endif
