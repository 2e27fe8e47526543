/* norms and attention of the reference back end, written as their formulas stand.
 *
 * Statistics: the mean first, then the mean of squared distances from it, both in
 * double: E[x^2] - E[x]^2 loses everything when the mean is large (and it is, in a
 * VAE's deep levels). Softmax subtracts the largest score. Attention goes one query at
 * a time with one row of scores; a score matrix is never made, which at 512x512 would
 * be 4,096 x 4,096 per head. */
#include "engine/graph/ref/ref.h"

#include <assert.h>
#include <math.h>

/* ---- norms ---- */

struct norm {
    const struct ref_call *call;
    const float *x;
    float *y;
    int64_t pixels, channels, group; /* per picture; channels per group */
};

static void normalise_group(void *user, int index, int thread)
{
    const struct norm *m = user;
    const struct node *n = m->call->node;
    int64_t picture = index / n->groups, first = index % n->groups * m->group;
    const float *x = m->x + picture * m->pixels * m->channels + first;
    float *y = m->y + picture * m->pixels * m->channels + first;
    double sum = 0, squares = 0, count = (double)(m->pixels * m->group), mean, scale;

    (void)thread;
    for (int64_t p = 0; p < m->pixels; p++)
        for (int64_t c = 0; c < m->group; c++)
            sum += (double)x[p * m->channels + c];
    mean = sum / count;
    for (int64_t p = 0; p < m->pixels; p++) {
        for (int64_t c = 0; c < m->group; c++) {
            double d = (double)x[p * m->channels + c] - mean;

            squares += d * d;
        }
    }
    scale = 1 / sqrt(squares / count + (double)n->eps);
    for (int64_t p = 0; p < m->pixels; p++) {
        for (int64_t c = 0; c < m->group; c++) {
            int64_t at = p * m->channels + c;
            float v = (float)(((double)x[at] - mean) * scale);

            v = v * m->call->weights[first + c] + m->call->biases[first + c];
            y[at] = ref_activate(n->act, v);
        }
    }
}

void ref_group_norm(const struct ref_call *call)
{
    const struct node *n = call->node;
    const struct shape *s = &ref_tensor(call, n->in[0])->shape;
    struct norm m = {call,
                     ref_address(call, n->in[0]),
                     ref_address(call, n->out),
                     s->dim[1] * s->dim[2],
                     s->dim[3],
                     s->dim[3] / n->groups};

    pool_run(call->pool, (int)s->dim[0] * n->groups, normalise_group, &m);
}

void ref_layer_norm(const struct ref_call *call)
{
    const struct node *n = call->node;
    const struct shape *s = &ref_tensor(call, n->in[0])->shape;
    int64_t rows = shape_rows(s), channels = shape_last(s);
    const float *x = ref_address(call, n->in[0]);
    float *y = ref_address(call, n->out);

    for (int64_t r = 0; r < rows; r++, x += channels, y += channels) {
        double sum = 0, squares = 0, mean, scale;

        for (int64_t c = 0; c < channels; c++)
            sum += (double)x[c];
        mean = sum / (double)channels;
        for (int64_t c = 0; c < channels; c++)
            squares += ((double)x[c] - mean) * ((double)x[c] - mean);
        scale = 1 / sqrt(squares / (double)channels + (double)n->eps);
        for (int64_t c = 0; c < channels; c++)
            y[c] = (float)(((double)x[c] - mean) * scale) * call->weights[c] +
                   call->biases[c];
    }
}

/* ---- attention ---- */

enum { TASK_QUERIES = 16 };

struct attention {
    const struct ref_call *call;
    const float *q, *k, *v;
    float *y;
    int64_t q_pitch, k_pitch, v_pitch, y_pitch;
    int64_t queries, keys, size; /* size: channels of one head */
    int query_tasks;
};

REF_CLONES
static float dot(const float *a, const float *b, int64_t count)
{
    float lanes[16] = {0}, sum = 0;
    int64_t i = 0;

    for (; i + 16 <= count; i += 16)
        for (int lane = 0; lane < 16; lane++)
            lanes[lane] += a[i + lane] * b[i + lane];
    for (; i < count; i++)
        sum += a[i] * b[i];
    for (int lane = 0; lane < 16; lane++)
        sum += lanes[lane];
    return sum;
}

REF_CLONES
static void add_scaled(float *y, const float *x, float scale, int64_t count)
{
    for (int64_t i = 0; i < count; i++)
        y[i] += scale * x[i];
}

/* One query of one head: y = softmax(q k / sqrt(size)) v over the first `keys` keys. */
static void attend(const struct attention *a, const float *q, const float *k,
                   const float *v, float *y, int64_t keys, float *scores)
{
    float scale = 1 / sqrtf((float)a->size), largest = -INFINITY;
    double sum = 0;

    for (int64_t j = 0; j < keys; j++) {
        scores[j] = dot(q, k + j * a->k_pitch, a->size) * scale;
        largest = fmaxf(largest, scores[j]);
    }
    for (int64_t j = 0; j < keys; j++) {
        scores[j] = expf(scores[j] - largest);
        sum += (double)scores[j];
    }
    for (int64_t c = 0; c < a->size; c++)
        y[c] = 0;
    for (int64_t j = 0; j < keys; j++)
        add_scaled(y, v + j * a->v_pitch, (float)((double)scores[j] / sum), a->size);
}

static void attend_task(void *user, int index, int thread)
{
    const struct attention *a = user;
    const struct node *n = a->call->node;
    int64_t first = (int64_t)(index % a->query_tasks) * TASK_QUERIES;
    int64_t head = index / a->query_tasks % n->heads;
    int64_t picture = index / a->query_tasks / n->heads;
    float *scores = a->call->scratch + (size_t)thread * a->call->scratch_floats;

    for (int64_t i = first; i < first + TASK_QUERIES && i < a->queries; i++)
        attend(a, a->q + (picture * a->queries + i) * a->q_pitch + head * a->size,
               a->k + picture * a->keys * a->k_pitch + head * a->size,
               a->v + picture * a->keys * a->v_pitch + head * a->size,
               a->y + (picture * a->queries + i) * a->y_pitch + head * a->size,
               n->is_causal ? i + 1 : a->keys, scores);
}

void ref_attention(const struct ref_call *call)
{
    const struct node *n = call->node;
    const struct tensor *q = ref_tensor(call, n->in[0]),
                        *k = ref_tensor(call, n->in[1]),
                        *v = ref_tensor(call, n->in[2]), *y = ref_tensor(call, n->out);
    struct attention a = {.call = call,
                          .q = ref_address(call, n->in[0]),
                          .k = ref_address(call, n->in[1]),
                          .v = ref_address(call, n->in[2]),
                          .y = ref_address(call, n->out),
                          .q_pitch = q->pitch,
                          .k_pitch = k->pitch,
                          .v_pitch = v->pitch,
                          .y_pitch = y->pitch,
                          .queries = q->shape.dim[1],
                          .keys = k->shape.dim[1],
                          .size = shape_last(&q->shape) / n->heads};

    a.query_tasks = (int)((a.queries + TASK_QUERIES - 1) / TASK_QUERIES);
    pool_run(call->pool, a.query_tasks * n->heads * (int)q->shape.dim[0], attend_task,
             &a);
}
