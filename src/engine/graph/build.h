/* build: graph operations by the name of their tensors in a model file.
 *
 *   struct build b = {.graph = g, .file = file, .used = used};
 *   int h = build_conv(&b, x, NAME("%s.in_layers.2", block));
 *
 * finds "<name>.weight" and "<name>.bias", notes both as used, and adds the operation.
 * What is missing becomes the graph's sticky sentence, so a model is written without an
 * `if` per line. */
#ifndef MYSTI_ENGINE_GRAPH_BUILD_H
#define MYSTI_ENGINE_GRAPH_BUILD_H

#include "engine/graph/graph.h"

struct build {
    struct graph *graph;
    const struct weights_file *file;
    bool *used; /* one per tensor of the file; may be NULL */
};

struct name {
    char text[200];
};

struct name name_format(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* lives to the end of the expression it stands in */
#define NAME(...) (name_format(__VA_ARGS__).text)

/* "<name><part>" as part of the model, NULL when the file has none */
const struct weight *build_find(const struct build *b, const char *name,
                                const char *part);
bool build_has(const struct build *b, const char *name, const char *part);

/* with weight and bias */
int build_linear(struct build *b, int x, const char *name);
/* names[count] as one product; biases: every one has a bias, or none has */
enum build_bias { BUILD_BIAS, BUILD_NO_BIAS };
int build_linear_joined(struct build *b, int x, const char *const *names, int count,
                        enum build_bias bias);
/* A square kernel with padding that keeps the size; a 1x1 kernel becomes a linear. */
int build_conv(struct build *b, int x, const char *name);
/* slopes of an activation, one for each channel, in "<name>.weight" */
int build_prelu(struct build *b, int x, const char *name);
int build_conv_stride2(struct build *b, int x, const char *name); /* pad 1 */
/* without a bias, whatever the file has; stride 1 or 2 */
int build_conv_unbiased(struct build *b, int x, const char *name, int stride);
/* 32 groups at every real width; at small ones the largest divisor of C that is at most
 * C / 4 */
int build_group_norm(struct build *b, int x, const char *name, float eps);
int build_layer_norm(struct build *b, int x, const char *name);

#endif
