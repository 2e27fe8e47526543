/* store: the pictures on disk.
 *
 *   struct store *store = store_new(loop, "/home/me/outputs");
 *   store_save(store, png, size, seed, on_saved, me);
 *   store_history(store, 200, NULL, on_history, me);
 *
 * A picture is written whole or not at all (temporary name, rename), under img-<microseconds>-<seed>.png; the
 * folder is made with the first one. Disk is touched on libuv's worker threads only, with copies of what they
 * need; callbacks come on the loop. Nothing outside the folder is ever opened.
 */
#ifndef MYSTI_SERVER_STORE_STORE_H
#define MYSTI_SERVER_STORE_STORE_H

#include "base/err.h"

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

struct store;
struct http_exchange;
struct uv_loop_s;

struct store *store_new(struct uv_loop_s *loop, const char *folder);
/* What is under way ends by itself, and its callbacks still come. */
void store_free(struct store *s);

/* name: the file's, without folder; NULL when err says why it was not saved (ERR_STORAGE, names the folder). */
typedef void store_saved_fn(void *user, const struct err *err, const char *name);
/* The bytes stay the caller's and must stay there until on_saved. */
void store_save(struct store *s, const void *png, size_t size, int64_t seed,
                store_saved_fn *on_saved, void *user);

#define STORE_HISTORY_MAX 1000
#define STORE_HISTORY_DEFAULT 200

/* pictures: an array (docs/openapi.yaml, HistoryEntry), newest first; a borrowed reference. A folder that is not
 * there yet is an empty history. */
typedef void store_history_fn(void *user, const struct err *err, json_t *pictures);
/* limit: 1 ... STORE_HISTORY_MAX; before: the name after which to go on, or NULL. */
void store_history(struct store *s, size_t limit, const char *before,
                   store_history_fn *on_history, void *user);

/* Answers the exchange with one file of the folder. name: below /outputs/, decoded. */
void store_serve(struct store *s, struct http_exchange *x, const char *name);

#endif
