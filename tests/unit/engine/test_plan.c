/* The plan: nothing that is still wanted is written over, known little graphs need what
 * they need, and what should be fused is. The graphs of a whole small model serve as
 * the hard case. */
#include "engine/graph/plan.h"
#include "engine/text/clip.h"
#include "engine/unet/unet.h"
#include "engine/vae/vae.h"

#include "small_model.h"
#include "unit.h"

#include <string.h>
#include <unistd.h>

#define WEIGHT(...)                                                                    \
    (&(struct weight){.name = "w",                                                     \
                      .type = WEIGHT_F32,                                              \
                      .data = (const unsigned char *)"",                               \
                      __VA_ARGS__})
#define VECTOR(n) WEIGHT(.rank = 1, .dim = {n, 1, 1, 1})
#define MATRIX(o, i) WEIGHT(.rank = 2, .dim = {o, i, 1, 1})

static int root(const struct plan *p, int t)
{
    return p->tensors[t].base >= 0 ? p->tensors[t].base : t;
}

/* ---- an independent look at who overwrites whom ---- */

static bool overlaps(size_t a, size_t a_bytes, size_t b, size_t b_bytes)
{
    return a < b + b_bytes && b < a + a_bytes;
}

/* Runs the plan on paper: each root remembers whether its bytes are still its own. */
static void walk(const struct plan *p)
{
    bool *is_own = calloc((size_t)p->tensor_count, sizeof(*is_own));

    for (int i = 0; i < p->node_count; i++) {
        const struct node *n = &p->nodes[i];
        int reads[GRAPH_MAX_IN + 2] = {n->residual, n->channel_add, n->in[0], n->in[1],
                                       n->in[2]};
        int out = root(p, n->out);

        for (int k = 0; k < GRAPH_MAX_IN + 2; k++) {
            int r = reads[k] >= 0 ? root(p, reads[k]) : -1;

            if (r < 0 || p->places[r].kind != PLACE_ARENA)
                continue;
            if (!is_own[r])
                fail_msg("node %d (%s) reads what was overwritten", i, n->name);
            assert_true(p->places[r].offset + p->places[r].bytes <= p->arena_bytes);
            if (p->scratch_bytes[i])
                assert_false(overlaps(p->places[r].offset, p->places[r].bytes,
                                      p->scratch_offset[i], p->scratch_bytes[i]));
            /* an input may only be written over by a result of the same block */
            if (r != out && p->places[out].kind == PLACE_ARENA)
                assert_false(overlaps(p->places[r].offset, p->places[r].bytes,
                                      p->places[out].offset, p->places[out].bytes));
        }
        for (int t = 0; t < p->tensor_count; t++) {
            const struct plan_tensor_place *at = &p->places[t];

            if (!is_own[t] || t == out)
                continue;
            if (p->places[out].kind == PLACE_ARENA &&
                overlaps(at->offset, at->bytes, p->places[out].offset,
                         p->places[out].bytes))
                is_own[t] = false;
            if (p->scratch_bytes[i] &&
                overlaps(at->offset, at->bytes, p->scratch_offset[i],
                         p->scratch_bytes[i]))
                is_own[t] = false;
        }
        if (p->places[out].kind == PLACE_ARENA) {
            assert_int_equal(p->places[out].offset % PLAN_ALIGN, 0);
            assert_true(p->places[out].bytes > 0);
            is_own[out] = true;
        }
    }
    free(is_own);
}

static size_t sum_of_tensors(const struct plan *p)
{
    size_t sum = 0;

    for (int t = 0; t < p->tensor_count; t++)
        sum += p->places[t].bytes;
    return sum;
}

static int count_ops(const struct plan *p, enum graph_op op)
{
    int count = 0;

    for (int i = 0; i < p->node_count; i++)
        count += p->nodes[i].op == op;
    return count;
}

/* Frees the graph; returns the plan's arena. */
static size_t check_graph(struct graph *g, size_t act_bytes, enum plan_fusing fusing)
{
    struct plan *p = plan_new(g, &(struct plan_options){act_bytes, fusing});
    size_t *scratch = calloc((size_t)p->node_count, sizeof(*scratch));
    size_t without, with;

    walk(p);
    without = p->arena_bytes;
    for (int i = 0; i < p->node_count; i++)
        scratch[i] = (size_t)(i * 7919 % 5) * 10007;
    plan_place(p, scratch);
    walk(p);
    with = p->arena_bytes;
    assert_true(with >= without && with <= without + 4 * 10007 + PLAN_ALIGN);
    plan_place(p, NULL);
    assert_int_equal(p->arena_bytes, without);
    if (fusing == PLAN_FUSE) {
        assert_int_equal(count_ops(p, OP_ADD), 0);
        assert_int_equal(count_ops(p, OP_ACTIVATE), 0);
        assert_int_equal(count_ops(p, OP_SLICE), 0);
    }
    assert_int_equal(count_ops(p, OP_RESHAPE), 0);
    free(scratch);
    print_message(
        "  %-8s %s %zu-byte activations: %3d nodes, %zu bytes for tensors of %zu\n",
        g->name, fusing == PLAN_FUSE ? "fused" : "plain", act_bytes, p->node_count,
        without, sum_of_tensors(p));
    plan_free(p);
    graph_free(g);
    return without;
}

static void test_whole_model(void **state)
{
    char *path = small_model_write(&(struct small_model){0});
    struct weights_file *file;
    static const struct clip_kind kind = {.prefix = "cond_stage_model.",
                                          .activation = ACT_QUICK_GELU};
    struct clip clip;
    struct unet *unet;
    struct vae vae;

    (void)state;
    assert_int_equal(weights_file_open(&file, path, NULL), 0);
    assert_int_equal(clip_open(&clip, file, &kind, 3, NULL), 0);
    assert_int_equal(unet_open(&unet, file, (struct unet_heads){.count = 4}, NULL), 0);
    assert_int_equal(vae_open(&vae, file, NULL), 0);
    for (int round = 0; round < 4; round++) {
        size_t act_bytes = round & 1 ? 4 : 2;
        enum plan_fusing fusing = round & 2 ? PLAN_PLAIN : PLAN_FUSE;
        struct build b = {graph_new("encode"), file, NULL};
        int ids = graph_input(b.graph, "ids", TENSOR_I32, shape2(2, 77));

        unet_build_context(unet, &b, clip_build(&clip, &b, ids, 0, NULL), -1);
        check_graph(b.graph, act_bytes, fusing);
        b.graph = graph_new("step");
        unet_build_step(unet, &b, &(struct unet_size){2, 16, 15, 77});
        check_graph(b.graph, act_bytes, fusing);
        b.graph = graph_new("decode");
        vae_build_decoder(&vae, &b, 1, 16, 15);
        check_graph(b.graph, act_bytes, fusing);
    }
    unet_free(unet);
    weights_file_close(file);
    unlink(path);
    free(path);
}

/* ---- little graphs whose need is known ---- */

static void test_chain_needs_two(void **state)
{
    struct graph *g = graph_new("chain");
    int x = graph_input(g, "x", TENSOR_ACT, shape2(16, 64));
    struct plan *p;

    (void)state;
    for (int i = 0; i < 10; i++)
        x = graph_linear(g, x, "l", MATRIX(64, 64), NULL);
    graph_output(g, "y", TENSOR_ACT, x);
    p = plan_new(g, &(struct plan_options){4, PLAN_FUSE});
    walk(p);
    /* ten results, never more than two at once */
    assert_int_equal(p->arena_bytes, 2 * 16 * 64 * 4);
    plan_free(p);
    graph_free(g);
}

static void test_works_in_place(void **state)
{
    struct graph *g = graph_new("in place");
    int x = graph_input(g, "x", TENSOR_F32, shape4(1, 4, 4, 32)), h;
    struct plan *p;

    (void)state;
    /* a residual block: the sum is written over x, the norm over its input */
    h = graph_activate(g, graph_group_norm(g, x, "n", VECTOR(32), VECTOR(32), 4, 1e-5F),
                       ACT_SILU);
    h = graph_linear(g, h, "l", MATRIX(32, 32), NULL);
    h = graph_group_norm(g, h, "n", VECTOR(32), VECTOR(32), 4, 1e-5F);
    h = graph_linear(g, h, "l", MATRIX(32, 32), NULL);
    graph_output(g, "y", TENSOR_ACT, graph_add(g, x, h));
    p = plan_new(g, &(struct plan_options){2, PLAN_FUSE});
    walk(p);
    /* INPUT, norm+silu, linear, norm (over the linear's result), linear+add (over x),
     * OUTPUT */
    assert_int_equal(p->node_count, 6);
    assert_int_equal(p->arena_bytes, 3 * 4 * 4 * 32 * 2);
    assert_int_equal(root(p, p->nodes[3].out), root(p, p->nodes[3].in[0]));
    assert_int_equal(root(p, p->nodes[4].out), root(p, p->nodes[0].out));
    assert_int_equal(p->nodes[1].act, ACT_SILU);
    assert_true(p->nodes[4].residual >= 0);
    plan_free(p);
    graph_free(g);
}

/* A block with a shortcut: the addition rides on the later product, so that the input
 * dies at the norm and the norm works over it: shortcut, input, one result; not four.
 */
static void test_later_product_takes_the_addition(void **state)
{
    struct graph *g = graph_new("shortcut");
    int x = graph_input(g, "x", TENSOR_F32, shape4(1, 4, 4, 32)), skip, h;
    struct plan *p;

    (void)state;
    skip = graph_linear(g, x, "skip", MATRIX(32, 32), NULL);
    h = graph_group_norm(g, x, "n", VECTOR(32), VECTOR(32), 4, 1e-5F);
    h = graph_linear(g, h, "one", MATRIX(32, 32), NULL);
    h = graph_linear(g, h, "two", MATRIX(32, 32), NULL);
    graph_output(g, "y", TENSOR_ACT, graph_add(g, skip, h));
    p = plan_new(g, &(struct plan_options){2, PLAN_FUSE});
    walk(p);
    assert_string_equal(p->nodes[1].name, "skip");
    assert_int_equal(p->nodes[1].residual, -1);
    assert_string_equal(p->nodes[4].name, "two");
    assert_int_equal(p->nodes[4].residual, p->nodes[1].out);
    assert_int_equal(p->arena_bytes, 3 * 4 * 4 * 32 * 2);
    plan_free(p);
    graph_free(g);
}

/* What another reader still wants is neither fused away nor written over. */
static void test_second_reader_prevents(void **state)
{
    struct graph *g = graph_new("readers");
    int x = graph_input(g, "x", TENSOR_ACT, shape2(8, 16));
    int a = graph_linear(g, x, "a", MATRIX(16, 16), NULL);
    struct plan *p;

    (void)state;
    graph_output(g, "act", TENSOR_ACT, graph_activate(g, a, ACT_SILU));
    graph_output(g, "sum", TENSOR_ACT, graph_add(g, a, a));
    graph_output(g, "raw", TENSOR_F32, a);
    p = plan_new(g, &(struct plan_options){2, PLAN_FUSE});
    walk(p);
    assert_int_equal(count_ops(p, OP_ACTIVATE), 1);
    assert_int_equal(count_ops(p, OP_ADD), 1);
    assert_int_equal(p->tensors[a].type, TENSOR_ACT);
    assert_int_equal(p->tensors[a].base, -1);
    plan_free(p);
    graph_free(g);
}

/* The caller's memory is read, never written, and a slice of it needs no copy. */
static void test_bound_memory(void **state)
{
    struct graph *g = graph_new("bound");
    int kv = graph_input(g, "kv", TENSOR_ACT, shape3(1, 77, 64));
    int q = graph_input(g, "q", TENSOR_ACT, shape3(1, 10, 32)), y;
    struct plan *p;
    char arena[8192] __attribute__((aligned(64))), bound_kv[128], bound_q[8],
        bound_y[8];
    void *const inputs[] = {bound_kv, bound_q}, *const outputs[] = {bound_y};

    (void)state;
    y = graph_attention(g, q, graph_slice(g, kv, 0, 32), graph_slice(g, kv, 32, 32),
                        "a", &(struct attention_args){4, false});
    graph_output(g, "y", TENSOR_ACT,
                 graph_activate(g, graph_activate(g, y, ACT_SILU), ACT_GELU));
    p = plan_new(g, &(struct plan_options){2, PLAN_FUSE});
    walk(p);
    assert_int_equal(p->arena_bytes, 10 * 32 * 2); /* both activations in place */
    for (int i = 0; i < p->node_count; i++) {
        const struct node *n = &p->nodes[i];

        if (n->op == OP_ATTENTION) {
            assert_ptr_equal(plan_address(p, n->in[0], arena, inputs, outputs),
                             bound_q);
            assert_ptr_equal(plan_address(p, n->in[1], arena, inputs, outputs),
                             bound_kv);
            assert_ptr_equal(plan_address(p, n->in[2], arena, inputs, outputs),
                             bound_kv + 64);
            assert_int_equal(p->tensors[n->in[2]].pitch, 64);
        }
        if (n->op == OP_OUTPUT)
            assert_ptr_equal(plan_address(p, n->out, arena, inputs, outputs), bound_y);
    }
    plan_free(p);
    graph_free(g);
}

static void test_keeps_f32_to_the_output(void **state)
{
    struct graph *g = graph_new("f32");
    int x = graph_input(g, "x", TENSOR_F32, shape4(1, 4, 4, 8));
    int y = graph_upsample2x(g, graph_linear(g, x, "l", MATRIX(8, 8), NULL), 8, 8);
    const struct weight *w = WEIGHT(.rank = 4, .dim = {3, 8, 3, 3});
    struct plan *p;

    (void)state;
    y = graph_conv2d(g, y, "c", w, NULL, &(struct conv_args){1, 1, 0});
    graph_output(g, "y", TENSOR_F32, y);
    p = plan_new(g, &(struct plan_options){2, PLAN_FUSE});
    walk(p);
    assert_int_equal(count_ops(p, OP_UPSAMPLE2X), 0);
    assert_int_equal(p->tensors[y].type, TENSOR_F32);
    /* the f32 input is brought into a tensor of the activation type */
    assert_int_equal(p->nodes[0].op, OP_INPUT);
    assert_int_equal(p->nodes[0].in_count, 1);
    assert_int_equal(p->tensors[p->nodes[0].out].type, TENSOR_ACT);
    plan_free(p);
    graph_free(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_chain_needs_two),
        cmocka_unit_test(test_works_in_place),
        cmocka_unit_test(test_later_product_takes_the_addition),
        cmocka_unit_test(test_second_reader_prevents),
        cmocka_unit_test(test_bound_memory),
        cmocka_unit_test(test_keeps_f32_to_the_output),
        cmocka_unit_test(test_whole_model),
    };

    return RUN_TESTS(tests);
}
