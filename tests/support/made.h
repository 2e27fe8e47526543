/* made: a safetensors file that a test makes tensor by tensor, all F32; every value is a hash of its tensor's name and
 * its index, so that a test can say what a result must be without reading the file.
 *
 *   struct made m = {0};
 *   PUT(&m, "lora_unet_x.lora_up.weight", 8, 2);
 *   file = made_open(&m);        or  path = made_write(&m);
 *   made_release(&m);
 */
#ifndef MYSTI_TESTS_MADE_H
#define MYSTI_TESTS_MADE_H

#include "base/buf.h"
#include "engine/files/weights.h"

struct made {
    struct buf header, data, bytes;
};

/* in [-1, 1), exactly a float */
double made_value(const char *name, int64_t i);
void made_put(struct made *m, const char *name, const char *dtype, int rank,
              const int64_t *dim);
#define PUT(m, name, ...)                                                              \
    made_put(m, name, "F32",                                                           \
             (int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)),                \
             (int64_t[]){__VA_ARGS__})
void made_scalar(struct made *m, const char *name, float v);
/* The last tensor's values times `by`. */
void made_scale(struct made *m, float by, int64_t count);
/* The file, in m's memory: close it before m is released. */
struct weights_file *made_open(struct made *m);
/* The file as folder/name; free() the path after unlink(). */
char *made_write(struct made *m, const char *folder, const char *name);
void made_release(struct made *m);

#endif
