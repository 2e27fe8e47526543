/* learned: how many bytes a model took the last time it was started so. A prediction is made from a file's head; what the engine
 * really does with it (weights turned into other layouts, buffers of a card's library) shows only when it runs.
 *
 *   l = learned_read(text, len);                      NULL: an empty one
 *   bytes = learned_find(l, key);                     0: not known
 *   if (learned_put(l, key, bytes)) write(learned_text(l))
 *
 * A key says everything that the bytes depend on; it is the caller's. Bounded: what was not seen for longest is forgotten.
 */
#ifndef MYSTI_SERVER_MEMORY_LEARNED_H
#define MYSTI_SERVER_MEMORY_LEARNED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LEARNED_MAX 256

struct learned;

/* A damaged text is as good as none: everything in it can be learned again. */
struct learned *learned_read(const char *text, size_t len);
void learned_free(struct learned *l);
uint64_t learned_find(const struct learned *l, const char *key);
/* true: it differs from what was known by a hundredth or more, and is worth writing */
bool learned_put(struct learned *l, const char *key, uint64_t bytes);
/* Release with free(). */
char *learned_text(const struct learned *l);

#endif
