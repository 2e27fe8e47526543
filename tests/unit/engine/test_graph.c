/* The graph builder: what fits, and the sentence for what does not. */
#include "engine/graph/build.h"

#include "unit.h"

#include <string.h>

#define WEIGHT(...)                                                                    \
    (&(struct weight){.name = "w",                                                     \
                      .type = WEIGHT_F32,                                              \
                      .data = (const unsigned char *)"",                               \
                      __VA_ARGS__})
#define VECTOR(n) WEIGHT(.rank = 1, .dim = {n, 1, 1, 1})
#define MATRIX(o, i) WEIGHT(.rank = 2, .dim = {o, i, 1, 1})
#define KERNEL(o, i, h, w) WEIGHT(.rank = 4, .dim = {o, i, h, w})

static void expect(struct graph *g, const char *sentence)
{
    struct err err = {0};

    assert_int_equal(graph_check(g, &err), -1);
    assert_int_equal(err.code, ERR_BAD_FILE);
    if (!strstr(err.message, sentence))
        fail_msg("'%s' lacks '%s'", err.message, sentence);
    graph_free(g);
}

static int picture(struct graph *g, int64_t channels)
{
    return graph_input(g, "x", TENSOR_F32, shape4(1, 8, 6, channels));
}

static void test_shapes(void **state)
{
    struct graph *g = graph_new("test");
    int x = picture(g, 4), y, tokens, qkv;
    const struct weight *const two[] = {MATRIX(5, 8), MATRIX(3, 8)};

    (void)state;
    y = graph_conv2d(g, x, "c", KERNEL(8, 4, 3, 3), VECTOR(8),
                     &(struct conv_args){2, 1, 0});
    assert_int_equal(graph_shape(g, y)->dim[1], 4);
    assert_int_equal(graph_shape(g, y)->dim[2], 3);
    assert_int_equal(graph_shape(g, y)->dim[3], 8);
    /* the encoder's padding: nothing above and left, one below and right */
    assert_int_equal(graph_shape(g, graph_conv2d(g, x, "c", KERNEL(8, 4, 3, 3), NULL,
                                                 &(struct conv_args){2, 0, 1}))
                         ->dim[1],
                     4);
    assert_int_equal(
        graph_shape(g, graph_linear_joined(g, y, "l", two, NULL, 2))->dim[3], 8);
    assert_int_equal(graph_shape(g, graph_upsample2x(g, y, 7, 6))->dim[1], 7);
    tokens = graph_reshape(g, y, shape3(1, 12, 8));
    qkv = graph_linear(g, tokens, "l", MATRIX(24, 8), NULL);
    y = graph_attention(g, graph_slice(g, qkv, 0, 8), graph_slice(g, qkv, 8, 8),
                        graph_slice(g, qkv, 16, 8), "a",
                        &(struct attention_args){2, false});
    assert_int_equal(shape_last(graph_shape(g, y)), 8);
    assert_int_equal(shape_last(graph_shape(g, graph_geglu(g, y))), 4);
    assert_int_equal(shape_last(graph_shape(g, graph_concat(g, y, qkv))), 32);
    assert_int_equal(graph_check(g, NULL), 0);
    graph_free(g);
}

static void test_misfits(void **state)
{
    struct graph *g;
    const struct conv_args same = {1, 1, 0};

    (void)state;
    g = graph_new("test");
    graph_conv2d(g, picture(g, 4), "in.0", NULL, NULL, &same);
    expect(g, "tensor in.0.weight is missing");
    g = graph_new("test");
    graph_conv2d(g, picture(g, 4), "c", KERNEL(8, 5, 3, 3), NULL, &same);
    expect(g, "takes 5 channels, it is given 4");
    g = graph_new("test");
    graph_conv2d(g, picture(g, 4), "c", KERNEL(8, 4, 3, 3), VECTOR(7), &same);
    expect(g, "has 7 values, 8 were expected");
    g = graph_new("test");
    graph_conv2d(g, picture(g, 4), "c", KERNEL(8, 4, 30, 3), NULL, &same);
    expect(g, "does not fit");
    g = graph_new("test");
    graph_linear(g, picture(g, 4), "l", VECTOR(4), NULL);
    expect(g, "a matrix was expected");
    g = graph_new("test");
    graph_linear(g, picture(g, 4), "l", WEIGHT(.rank = 2, .dim = {4, 0, 1, 1}), NULL);
    expect(g, "is empty");
    g = graph_new("test");
    graph_linear(g, picture(g, 4), "l",
                 &(struct weight){.name = "w", .type = WEIGHT_OTHER}, NULL);
    expect(g, "type that is not supported");
    g = graph_new("test");
    graph_group_norm(g, picture(g, 6), "n", VECTOR(6), VECTOR(6), 4, 1e-5F);
    expect(g, "do not divide into 4 groups");
    g = graph_new("test");
    graph_group_norm(g, picture(g, 6), "n", VECTOR(6), NULL, 2, 1e-5F);
    expect(g, "tensor n.bias is missing");
    g = graph_new("test");
    graph_add(g, picture(g, 6), picture(g, 7));
    expect(g, "cannot be added");
    g = graph_new("test");
    graph_slice(g, picture(g, 6), 4, 3);
    expect(g, "3 from 4 on");
    g = graph_new("test");
    graph_input(g, "x", TENSOR_F32, shape4((int64_t)1 << 30, 1 << 20, 1, 1));
    expect(g, "too large");
    g = graph_new("test");
    graph_linear(g, picture(g, 4), "l", MATRIX((int64_t)1 << 40, 4), NULL);
    expect(g, "too large");
}

/* Only the first sentence stays, and nothing after it runs into trouble. */
static void test_first_sentence_stays(void **state)
{
    struct graph *g = graph_new("test");
    int x = graph_linear(g, picture(g, 4), "first", NULL, NULL);

    (void)state;
    assert_int_equal(x, -1);
    x = graph_activate(g, graph_add(g, x, x), ACT_SILU);
    x = graph_group_norm(g, x, "second", NULL, NULL, 3, 1);
    x = graph_reshape(g, graph_upsample2x(g, x, 3, 3), shape1(1));
    assert_int_equal(graph_output(g, "y", TENSOR_F32, x), -1);
    expect(g, "tensor first.weight is missing");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shapes),
        cmocka_unit_test(test_misfits),
        cmocka_unit_test(test_first_sentence_stays),
    };

    return RUN_TESTS(tests);
}
