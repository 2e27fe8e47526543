/* history: the pictures of one folder, newest first. Blocking; called on a worker thread. */
#ifndef MYSTI_SERVER_STORE_HISTORY_H
#define MYSTI_SERVER_STORE_HISTORY_H

#include "base/err.h"

#include <jansson.h>
#include <stddef.h>

/* At most `limit` pictures after the one named `before` (NULL: from the newest). NULL with err when the folder
 * cannot be read or `before` names none of its pictures; a folder that does not exist is empty. A new reference. */
json_t *history_read(const char *folder, size_t limit, const char *before,
                     struct err *err);

#endif
