/* frame: what the golden tests have in common: the vectors that PyTorch made, a graph run by one back end, how far the two are
 * apart, and a picture drawn through the engine's own door.
 *
 *   struct golden g = {.name = "sd2", .backend_name = "dnnl", .precision = "bf16", .tolerance_picture = 0.3};
 *   golden_open(&g, "tests/golden/sd2_small.safetensors");
 *   golden_run(&g, graph, inputs, outputs);
 *   golden_compare(&g, "unet.out", outputs[0], 5e-2);
 *   golden_draw(&g, "picture", path, &(struct golden_picture){.negative = "blurry"});
 *   golden_close(&g);
 *
 * Whatever fails, fails the test that called it. */
#ifndef MYSTI_TESTS_GOLDEN_FRAME_H
#define MYSTI_TESTS_GOLDEN_FRAME_H

#include "base/buf.h"
#include "engine/engine.h"
#include "engine/files/weights.h"
#include "engine/graph/backend.h"

struct golden {
    const char *name; /* of the model, for messages */
    const char *backend_name, *precision;
    const char *weights; /* "int8"; NULL: as computed with */
    double tolerance_picture;
    struct weights_file *vectors;
    struct backend *backend;
    struct weight_store *store;
};

void golden_open(struct golden *g, const char *vectors_path);
void golden_close(struct golden *g);

void golden_check(int result, const struct err *err);
void *golden_memory(size_t bytes); /* aligned; free() it */
/* f32; free() it */
float *golden_vector(const struct golden *g, const char *name, size_t *ret_count);
struct shape golden_shape(const struct golden *g, const char *name);
/* The root mean square of the difference over that of the vector is at most the tolerance. */
void golden_compare(const struct golden *g, const char *name, const float *got,
                    double tolerance);
/* Compiles, loads and runs the graph in memory full of NaN, and frees it. */
void golden_run(const struct golden *g, struct graph *graph, void *const *inputs,
                void *const *outputs);

/* "a red circle on a blue background", 32 x 40, four steps of Euler with seed 42 */
struct golden_picture {
    const char *negative;
    struct buf start, mask; /* PNGs to begin with; empty: none */
};
void golden_draw(const struct golden *g, const char *vector, const char *model_path,
                 const struct golden_picture *picture);
/* The vector "start.bytes" as a PNG, and a mask with a hole in its left half; buf_release() both. */
void golden_start(const struct golden *g, struct buf *ret_start, struct buf *ret_mask);

#endif
