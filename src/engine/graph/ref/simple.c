/* simple: the operations of the reference back end that are one short loop each. */
#include "engine/graph/ref/ref.h"

#include <assert.h>
#include <math.h>
#include <string.h>

static float gelu(float x)
{
    return 0.5F * x * (1 + erff(x * 0.70710678F));
}

float ref_activate(enum activation act, float x)
{
    switch (act) {
    case ACT_NONE:
        return x;
    case ACT_SILU:
        return x / (1 + expf(-x));
    case ACT_GELU:
        return gelu(x);
    case ACT_GELU_TANH:
        return 0.5F * x * (1 + tanhf(0.79788456F * (x + 0.044715F * x * x * x)));
    case ACT_QUICK_GELU:
        return x / (1 + expf(-1.702F * x));
    case ACT_LEAKY_RELU:
        return x < 0 ? 0.2F * x : x;
    case ACT_FIFTH:
        return 0.2F * x;
    case ACT_RELU:
        return x < 0 ? 0 : x;
    case ACT_SOFT_CLAMP:
        return 3 * tanhf(x / 3);
    case ACT_TO_UNIT:
        return 0.5F * x + 0.5F;
    case ACT_TO_SIGNED:
        return 2 * x - 1;
    }
    return x;
}

struct rows {
    const struct ref_call *call;
    const struct tensor *a, *b, *out; /* b may be NULL */
    const float *x, *y;
    float *ret;
    int64_t count, per_task, width;
};

/* row r of the output from the input's row */
static void one_row(const struct rows *p, int64_t r)
{
    const struct node *n = p->call->node;
    const float *x = p->x + r * p->a->pitch;
    float *ret = p->ret + r * p->width;
    int64_t left = shape_last(&p->a->shape);

    switch (n->op) {
    case OP_INPUT:
    case OP_OUTPUT:
        memcpy(ret, x, (size_t)p->width * sizeof(*ret));
        break;
    case OP_SLICE:
        memcpy(ret, x + n->from, (size_t)p->width * sizeof(*ret));
        break;
    case OP_CONCAT:
        memcpy(ret, x, (size_t)left * sizeof(*ret));
        memcpy(ret + left, p->y + r * p->b->pitch,
               (size_t)(p->width - left) * sizeof(*ret));
        break;
    case OP_ACTIVATE:
        for (int64_t i = 0; i < p->width; i++)
            ret[i] = ref_activate(n->act, x[i]);
        break;
    case OP_PRELU:
        for (int64_t i = 0; i < p->width; i++)
            ret[i] = x[i] < 0 ? x[i] * p->call->weights[i] : x[i];
        break;
    case OP_GEGLU:
        for (int64_t i = 0; i < p->width; i++)
            ret[i] = x[i] * gelu(x[p->width + i]);
        break;
    case OP_ADD: {
        int64_t row = r;

        if (shape_rows(&p->b->shape) !=
            p->count) /* one row per picture, or one for all */
            row = p->b->shape.dim[0] == 1 ? 0 : r / (p->count / p->b->shape.dim[0]);
        for (int64_t i = 0; i < p->width; i++)
            ret[i] = x[i] + p->y[row * p->b->pitch + i];
        break;
    }
    default:
        assert(!"not an operation on rows");
    }
}

static void some_rows(void *user, int index, int thread)
{
    const struct rows *p = user;
    int64_t first = index * p->per_task;

    (void)thread;
    for (int64_t r = first; r < first + p->per_task && r < p->count; r++)
        one_row(p, r);
}

static void run_rows(const struct ref_call *call)
{
    const struct node *n = call->node;
    struct rows p = {.call = call,
                     .a = ref_tensor(call, n->in[0]),
                     .out = ref_tensor(call, n->out),
                     .x = ref_address(call, n->in[0]),
                     .ret = ref_address(call, n->out)};

    if (n->in_count > 1) {
        p.b = ref_tensor(call, n->in[1]);
        p.y = ref_address(call, n->in[1]);
    }
    p.count = shape_rows(&p.out->shape);
    p.width = shape_last(&p.out->shape);
    p.per_task = 1 + 16384 / p.width;
    pool_run(call->pool, (int)((p.count + p.per_task - 1) / p.per_task), some_rows, &p);
}

static void upsample(const struct ref_call *call)
{
    const struct shape *small = &ref_tensor(call, call->node->in[0])->shape;
    const struct shape *s = &ref_tensor(call, call->node->out)->shape;
    const float *x = ref_address(call, call->node->in[0]);
    float *y = ref_address(call, call->node->out);
    size_t bytes = (size_t)s->dim[3] * sizeof(*y);

    for (int64_t n = 0; n < s->dim[0]; n++)
        for (int64_t row = 0; row < s->dim[1]; row++)
            for (int64_t column = 0; column < s->dim[2]; column++, y += s->dim[3])
                memcpy(
                    y,
                    x + ((n * small->dim[1] + row / 2) * small->dim[2] + column / 2) *
                            s->dim[3],
                    bytes);
}

static void border(const struct ref_call *call)
{
    const struct node *node = call->node;
    const struct shape *inner = &ref_tensor(call, node->in[0])->shape;
    const struct shape *s = &ref_tensor(call, node->out)->shape;
    const float *x = ref_address(call, node->in[0]);
    float *y = ref_address(call, node->out);
    int64_t high = inner->dim[1], wide = inner->dim[2];

    for (int64_t n = 0; n < s->dim[0]; n++)
        for (int64_t row = 0; row < s->dim[1]; row++)
            for (int64_t column = 0; column < s->dim[2]; column++, y += s->dim[3]) {
                int64_t from = (row - node->pad_top + high) % high;
                int64_t at = (column - node->pad_left + wide) % wide;

                memcpy(y, x + ((n * high + from) * wide + at) * s->dim[3],
                       (size_t)s->dim[3] * sizeof(*y));
            }
}

static void embed(const struct ref_call *call)
{
    const struct node *n = call->node;
    const struct weight *table = n->weights[0], *positions = n->biases[0];
    const struct shape *s = &ref_tensor(call, n->out)->shape;
    const int32_t *ids = (const int32_t *)(const void *)ref_address(call, n->in[0]);
    const float *own = n->in_count > 1 ? ref_address(call, n->in[1]) : NULL;
    float *y = ref_address(call, n->out);
    size_t channels = (size_t)s->dim[2];
    float place[256];

    for (int64_t row = 0; row < s->dim[0] * s->dim[1]; row++, y += channels) {
        int64_t behind = ids[row] - table->dim[0];

        assert(
            ids[row] >= 0 &&
            (behind < 0 || (own && behind < ref_tensor(call, n->in[1])->shape.dim[0])));
        if (behind < 0)
            weight_to_f32(table, (size_t)ids[row] * channels, channels, y);
        else
            memcpy(y, own + (size_t)behind * channels, channels * sizeof(*y));
        for (size_t c = 0; positions && c < channels; c += 256) {
            size_t count = channels - c < 256 ? channels - c : 256;

            weight_to_f32(positions, (size_t)(row % s->dim[1]) * channels + c, count,
                          place);
            for (size_t i = 0; i < count; i++)
                y[c + i] += place[i];
        }
    }
}

/* Cosines first, as SD's U-Net has them (Vaswani et al. 2017 with the order swapped).
 */
static void timestep(const struct ref_call *call)
{
    const struct shape *s = &ref_tensor(call, call->node->out)->shape;
    const float *t = ref_address(call, call->node->in[0]);
    float *y = ref_address(call, call->node->out);
    int64_t half = s->dim[1] / 2;

    for (int64_t n = 0; n < s->dim[0]; n++) {
        for (int64_t i = 0; i < half; i++) {
            double f = exp(-log(10000.0) * (double)i / (double)half);

            y[n * 2 * half + i] = (float)cos((double)t[n] * f);
            y[n * 2 * half + half + i] = (float)sin((double)t[n] * f);
        }
    }
}

void ref_simple(const struct ref_call *call)
{
    switch (call->node->op) {
    case OP_UPSAMPLE2X:
        upsample(call);
        break;
    case OP_BORDER:
        border(call);
        break;
    case OP_EMBEDDING:
        embed(call);
        break;
    case OP_TIMESTEP:
        timestep(call);
        break;
    default:
        if (call->node
                ->in_count) /* an input that is read where it lies has nothing to do */
            run_rows(call);
    }
}
