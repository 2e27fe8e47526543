/* attention_body: attention for processors without tiles. Part of kernels_body.h.
 *
 * 16 queries at a time, one per lane: scores are computed transposed (a row of scores
 * belongs to one key), so maximum and sum over the keys are plain vector operations without
 * any shuffling inside a vector. Scores live for 64 keys; the running maximum rescales the
 * result when it grows (online softmax, Milakov and Gimelshein 2018; the blocking is
 * FlashAttention's, Dao 2022). A head's keys and values are unpacked to f32 once per thread. */
enum { KEY_BLOCK = 64 };
#ifdef __AVX512F__
enum { AT_ONCE = 8 }; /* keys, or result channels, that share a pass: registers allow */
#else
enum { AT_ONCE = 4 };
#endif

struct head {
    int64_t keys, size;
    float *k, *v;     /* [S, D] */
    lanes *q, *y;     /* [D] */
    lanes *scores;    /* [KEY_BLOCK] */
    lanes max, total; /* per query; max in the exponent's unit */
};

/* scores[j] = k[j] . q for n keys, n <= AT_ONCE */
INLINE void score_keys(const struct head *h, const float *k, int n, lanes *scores)
{
    lanes acc[AT_ONCE];

    for (int j = 0; j < AT_ONCE; j++)
        acc[j] = lanes_of(0);
    if (n == AT_ONCE) {
        for (int64_t d = 0; d < h->size; d++)
            for (int j = 0; j < AT_ONCE; j++)
                acc[j] += h->q[d] * k[j * h->size + d];
    } else {
        for (int64_t d = 0; d < h->size; d++)
            for (int j = 0; j < n; j++)
                acc[j] += h->q[d] * k[j * h->size + d];
    }
    for (int j = 0; j < n; j++)
        scores[j] = acc[j];
}

/* y[d] += sum over n keys of p[j] v[j][d] */
INLINE void add_values(const struct head *h, const float *v, int64_t n)
{
    for (int64_t d = 0; d < h->size; d += AT_ONCE) {
        int64_t m = h->size - d < AT_ONCE ? h->size - d : AT_ONCE;
        lanes acc[AT_ONCE];

        if (m == AT_ONCE) {
            for (int i = 0; i < AT_ONCE; i++)
                acc[i] = h->y[d + i];
            for (int64_t j = 0; j < n; j++)
                for (int i = 0; i < AT_ONCE; i++)
                    acc[i] += h->scores[j] * v[j * h->size + d + i];
            for (int i = 0; i < AT_ONCE; i++)
                h->y[d + i] = acc[i];
        } else {
            for (int64_t i = 0; i < m; i++)
                for (int64_t j = 0; j < n; j++)
                    h->y[d + i] += h->scores[j] * v[j * h->size + d + i];
        }
    }
}

/* The next n keys (at most KEY_BLOCK) for the 16 queries that begin at first_query. */
INLINE void attend_block(struct head *h, int64_t from, int64_t n, int64_t first_query,
                         bool is_causal)
{
    lanes max = h->max, factor;
    lanes_int query;

    for (int i = 0; i < LANES; i++)
        query[i] = (int32_t)first_query + i;
    for (int64_t j = 0; j < n; j += AT_ONCE)
        score_keys(h, h->k + (from + j) * h->size,
                   (int)(n - j < AT_ONCE ? n - j : AT_ONCE), h->scores + j);
    for (int64_t j = 0; j < n; j++) {
        if (is_causal) {
            lanes_int seen = query >= (int32_t)(from + j);

            h->scores[j] = lanes_pick(seen, h->scores[j], lanes_of(-1e30f));
        }
        max = lanes_max(max, h->scores[j]);
    }
    factor = lanes_exp(h->max - max);
    h->max = max;
    h->total *= factor;
    for (int64_t d = 0; d < h->size; d++)
        h->y[d] *= factor;
    for (int64_t j = 0; j < n; j++) {
        h->scores[j] = lanes_exp(h->scores[j] - max);
        h->total += h->scores[j];
    }
    add_values(h, h->v + from * h->size, n);
}

INLINE void attend_queries(const struct attend_args *a, struct head *h, enum elem type,
                           const void *q, void *y, int64_t first)
{
    int64_t count = a->queries - first < LANES ? a->queries - first : LANES;
    int64_t keys = a->keys;
    float scale = 1.0f / sqrtf((float)h->size);

    for (int64_t d = 0; d < h->size; d++) {
        h->q[d] = h->y[d] = lanes_of(0);
        for (int64_t i = 0; i < count; i++)
            h->q[d][i] = get(q, (first + i) * a->q_pitch + d, type) * scale;
    }
    h->max = lanes_of(-1e30f);
    h->total = lanes_of(0);
    if (a->is_causal && first + count < keys)
        keys = first + count;
    for (int64_t from = 0; from < keys; from += KEY_BLOCK)
        attend_block(h, from, keys - from < KEY_BLOCK ? keys - from : KEY_BLOCK, first,
                     a->is_causal);
    for (int64_t d = 0; d < h->size; d++) {
        lanes out = h->y[d] / h->total;

        for (int64_t i = 0; i < count; i++)
            put(y, (first + i) * a->y_pitch + d, type, out[i]);
    }
}

INLINE void attention_typed(const struct attend_args *a, enum elem type)
{
    struct attention_tasks tasks = attention_tasks(a, LANES);
    int64_t size = a->head_size, blocks = (a->queries + LANES - 1) / LANES;
    int64_t parts = tasks.parts;

#pragma omp parallel num_threads(a->threads)
    {
        char *mine = (char *)a->scratch + omp_get_thread_num() * attention_scratch(a);
        struct head h = {.keys = a->keys, .size = size};
        int64_t packed = -1;

        h.q = (lanes *)mine;
        h.y = h.q + size;
        h.scores = h.y + size;
        h.k = (float *)(h.scores + KEY_BLOCK);
        h.v = h.k + a->keys * size;
#pragma omp for schedule(dynamic, tasks.chunk)
        for (int64_t task = 0; task < tasks.count; task++) {
            int64_t head = task / parts, part = task % parts;
            int64_t n = head / a->heads, from = head % a->heads * size;
            const void *k = at(a->k, n * a->keys * a->k_pitch + from, type);
            const void *v = at(a->v, n * a->keys * a->v_pitch + from, type);
            const void *q = at(a->q, n * a->queries * a->q_pitch + from, type);
            void *y = at_mut(a->y, n * a->queries * a->y_pitch + from, type);

            if (!attention_goes_on(a))
                continue;
            for (int64_t s = 0; packed != head && s < a->keys; s++)
                for (int64_t d = 0; d < size; d++) {
                    h.k[s * size + d] = get(k, s * a->k_pitch + d, type);
                    h.v[s * size + d] = get(v, s * a->v_pitch + d, type);
                }
            packed = head;
            for (int64_t b = blocks * part / parts;
                 b < blocks * (part + 1) / parts && attention_goes_on(a); b++)
                attend_queries(a, &h, type, q, y, b * LANES);
        }
    }
}

static void attention(const struct attend_args *a)
{
    if (a->type == ELEM_BF16)
        attention_typed(a, ELEM_BF16);
    else
        attention_typed(a, ELEM_F32);
}
