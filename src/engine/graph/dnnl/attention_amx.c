/* attention_amx: softmax(q k^T / sqrt(D)) v on tile registers, never the score matrix.
 *
 * Everything is computed transposed. A block of scores is S^T = K Q^T: one row per key, one
 * column per query, so 16 queries lie in the 16 lanes of a vector, and maximum, exponential
 * and sum over the keys need no shuffling inside a vector. P^T in bf16, two keys
 * interleaved, is just what the tile product wants on its right side for Y^T = V^T P^T.
 * With S instead, every row would cost a horizontal maximum and sum, and P a repacking.
 *
 * For one head:  pack K into tiles [keys/16][D/32][16 keys][32], zero padded
 *                pack V^T into tiles [keys/32][D/16][16 channels][32 keys]
 * per 32 queries: Q^T into tiles [D/32][2][16 pairs][16 queries][2]
 * per 64 keys:    S^T = K Q^T  ->  P^T = 2^(S^T c - m)  ->  Y^T += V^T P^T
 * at the end:     y = Y^T / sums, transposed back.
 * All of a head's packed K and V (0.9 MB at 4,096 tokens of 40) stays in L2; scores, P and
 * Y^T stay in L1.
 *
 * Softmax: c = log2(e) / sqrt(D) turns exp into 2^x, computed as 2^floor(x) times a cubic
 * in the fraction (relative error 1e-4; P is rounded to bf16, 4e-3, anyhow). The running
 * maximum m is only moved, and Y^T only rescaled, when a score exceeds it by more than
 * 8 in the exponent: 2^8 does no harm in bf16 or f32, and it almost never happens after the
 * first block. When D leaves a free column in the last tile of V^T, that column is 1 and the
 * product itself adds up the sums.
 *
 * Rejected: oneDNN's micro-kernels (dnnl_brgemm_*), which compute S and want P packed
 * between the products; its graph API, which would not compile the pattern for a joined
 * q, k, v; matmul, softmax and matmul as primitives, which write the score matrix and take
 * four times as long. docs/bench-engine.md has the numbers, and what did not help here.
 *
 * Tile configuration is per thread: set at the beginning of each thread's part, released
 * at its end, as oneDNN's own kernels do. */
#include "engine/graph/dnnl/attention_amx.h"

#ifdef MYSTI_DNNL_X86

#include <immintrin.h>
#include <math.h>
#include <omp.h>
#include <sys/syscall.h>
#include <unistd.h>

#define INLINE static inline __attribute__((always_inline))

enum { QUERIES = 32, KEYS = 64, TILE = 512 }; /* of a block; elements of a bf16 tile */

typedef uint16_t bf16;

struct block_space { /* one thread's scratch */
    bf16 *k, *v;     /* a packed head */
    bf16 *q;         /* [D/32][2] tiles */
    bf16 *p;         /* [KEYS/32][2] tiles */
    float *s;        /* [KEYS][32] */
    float *y;        /* [channels][32] */
};

struct head {
    int size, keys, queries;
    int steps;     /* of 32 along D */
    int columns;   /* tiles of 16 along D, and along the column of ones */
    bool has_ones; /* V^T has a row of ones at `size` */
    float factor;  /* log2(e) / sqrt(D) */
    bool is_causal;
};

/* per query: maximum in units of the exponent, sum (without a column of ones) */
struct running {
    __m512 max[2], sum[2];
};

static int round_up(int n, int to)
{
    return (n + to - 1) / to * to;
}

bool attention_amx_init(void)
{
    enum { ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_XTILEDATA = 18 };

    return syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0;
}

static struct head head_of(const struct attend_args *a)
{
    struct head h = {.size = (int)a->head_size,
                     .keys = (int)a->keys,
                     .queries = (int)a->queries,
                     .is_causal = a->is_causal};

    h.has_ones = h.size % 16 != 0;
    h.steps = round_up(h.size, 32) / 32;
    h.columns = round_up(h.size, 16) / 16;
    h.factor = 1.44269504f / sqrtf((float)h.size);
    return h;
}

/* Cuts one thread's scratch into its parts; returns the bytes. base NULL: only counts. */
static size_t cut_scratch(const struct head *h, char *base, struct block_space *b)
{
    size_t keys = (size_t)round_up(h->keys, 32), steps = (size_t)h->steps;
    size_t columns = (size_t)h->columns, at = 0;

    b->k = (bf16 *)(base + at);
    at += keys * steps * 64;
    b->v = (bf16 *)(base + at);
    at += keys * columns * 32;
    b->q = (bf16 *)(base + at);
    at += steps * 2 * TILE * sizeof(bf16);
    b->p = (bf16 *)(base + at);
    at += KEYS * QUERIES * sizeof(bf16);
    b->s = (float *)(base + at);
    at += KEYS * QUERIES * sizeof(float);
    b->y = (float *)(base + at);
    return at + columns * 16 * QUERIES * sizeof(float);
}

size_t attention_amx_scratch(const struct attend_args *a)
{
    struct head h = head_of(a);
    struct block_space ignored;
    static char nowhere[1];

    return cut_scratch(&h, nowhere, &ignored);
}

/* ---- packing ---- */

/* out[j] lane i = in[i] lane j, 16 x 16 words of 32 bits */
static void transpose16(__m512i r[16])
{
    __m512i t[16];

    for (int i = 0; i < 8; i++) {
        t[2 * i] = _mm512_unpacklo_epi32(r[2 * i], r[2 * i + 1]);
        t[2 * i + 1] = _mm512_unpackhi_epi32(r[2 * i], r[2 * i + 1]);
    }
    for (int i = 0; i < 4; i++) {
        r[4 * i] = _mm512_unpacklo_epi64(t[4 * i], t[4 * i + 2]);
        r[4 * i + 1] = _mm512_unpackhi_epi64(t[4 * i], t[4 * i + 2]);
        r[4 * i + 2] = _mm512_unpacklo_epi64(t[4 * i + 1], t[4 * i + 3]);
        r[4 * i + 3] = _mm512_unpackhi_epi64(t[4 * i + 1], t[4 * i + 3]);
    }
    for (int i = 0; i < 4; i++) {
        t[i] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0x88);
        t[i + 4] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0xdd);
        t[i + 8] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0x88);
        t[i + 12] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0xdd);
    }
    for (int i = 0; i < 4; i++) {
        r[i] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0x88);
        r[i + 8] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0xdd);
        r[i + 4] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0x88);
        r[i + 12] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0xdd);
    }
}

INLINE int at_most(int n, int limit)
{
    return n < limit ? (n > 0 ? n : 0) : limit;
}

INLINE __m512i load32(const bf16 *row, int count)
{
    return _mm512_maskz_loadu_epi16(count >= 32 ? ~0u : (1u << count) - 1, row);
}

INLINE __m512i load16_wide(const bf16 *row, int count)
{
    __mmask16 mask = (__mmask16)((1u << count) - 1);

    return _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, row));
}

static void pack_keys(const struct head *h, const bf16 *k, int64_t pitch, bf16 *out)
{
    for (int tile = 0; tile < round_up(h->keys, 32); tile += 16)
        for (int s = 0; s < h->steps; s++)
            for (int key = tile; key < tile + 16; key++) {
                __m512i row = _mm512_setzero_si512();

                if (key < h->keys)
                    row =
                        load32(k + key * pitch + s * 32, at_most(h->size - s * 32, 32));
                _mm512_store_si512(out, row);
                out += 32;
            }
}

/* 32 keys of 16 channels: pairs of keys side by side, then transposed */
static void pack_values(const struct head *h, const bf16 *v, int64_t pitch, bf16 *out)
{
    const __m512i ones = _mm512_set1_epi32(0x3f803f80); /* two times 1.0 */

    for (int from = 0; from < h->keys; from += 32)
        for (int c = 0; c < h->columns; c++) {
            int count = at_most(h->size - c * 16, 16);
            __m512i pairs[16];

            for (int i = 0; i < 16; i++) {
                int key = from + 2 * i;
                __m512i even = _mm512_setzero_si512(), odd = even;

                if (key < h->keys)
                    even = load16_wide(v + key * pitch + c * 16, count);
                if (key + 1 < h->keys)
                    odd = load16_wide(v + (key + 1) * pitch + c * 16, count);
                pairs[i] = _mm512_or_si512(even, _mm512_slli_epi32(odd, 16));
                if (count < 16)
                    pairs[i] =
                        _mm512_mask_mov_epi32(pairs[i], (__mmask16)(1u << count), ones);
            }
            transpose16(pairs);
            for (int i = 0; i < 16; i++)
                _mm512_store_si512(out + i * 32, pairs[i]);
            out += TILE;
        }
}

/* 32 queries: pairs of channels are already side by side, the words are transposed */
static void pack_queries(const struct head *h, const bf16 *q, int64_t pitch, int count,
                         bf16 *out)
{
    for (int s = 0; s < h->steps; s++)
        for (int half = 0; half < 2; half++) {
            __m512i rows[16];

            for (int i = 0; i < 16; i++) {
                rows[i] = _mm512_setzero_si512();
                if (half * 16 + i < count)
                    rows[i] = load32(q + (half * 16 + i) * pitch + s * 32,
                                     at_most(h->size - s * 32, 32));
            }
            transpose16(rows);
            for (int i = 0; i < 16; i++)
                _mm512_store_si512(out + i * 32, rows[i]);
            out += TILE;
        }
}

/* ---- one block of keys ---- */

/* gcc 12 does not know that tile loads read memory: what vectors stored must be there. */
INLINE void order_memory(void)
{
    __asm__ volatile("" ::: "memory");
}

/* s [count][32] = K Q^T; count is a multiple of 32 */
INLINE void score_block(const struct head *h, const bf16 *k, const bf16 *q, int count,
                        float *s)
{
    order_memory();
    for (int key = 0; key < count; key += 32) {
        const bf16 *k0 = k + key / 16 * h->steps * TILE, *k1 = k0 + h->steps * TILE;

        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
        for (int i = 0; i < h->steps; i++) {
            _tile_loadd(4, k0 + i * TILE, 64);
            _tile_loadd(6, q + 2 * i * TILE, 64);
            _tile_dpbf16ps(0, 4, 6);
            _tile_loadd(5, k1 + i * TILE, 64);
            _tile_loadd(7, q + (2 * i + 1) * TILE, 64);
            _tile_dpbf16ps(1, 5, 6);
            _tile_dpbf16ps(2, 4, 7);
            _tile_dpbf16ps(3, 5, 7);
        }
        _tile_stored(0, s + key * QUERIES, 4 * QUERIES);
        _tile_stored(1, s + (key + 16) * QUERIES, 4 * QUERIES);
        _tile_stored(2, s + key * QUERIES + 16, 4 * QUERIES);
        _tile_stored(3, s + (key + 16) * QUERIES + 16, 4 * QUERIES);
    }
}

/* 2^x for x <= 8 or so: 2^floor(x) times a cubic in the fraction */
INLINE __m512 exp2_of(__m512 x)
{
    __m512 f = _mm512_reduce_ps(x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
    __m512 p =
        _mm512_fmadd_ps(f, _mm512_set1_ps(0.0789807f), _mm512_set1_ps(0.2245087f));

    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0.6961096f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0.99990f));
    return _mm512_scalef_ps(p, x);
}

/* Queries of lane 0..15 see keys up to themselves: the others' scores become -infinity. */
static void mask_future(float *s, int from, int count, int first_query)
{
    for (int key = 0; key < count; key++)
        for (int half = 0; half < 2; half++) {
            int hidden = from + key - (first_query + half * 16); /* lanes below it */
            __mmask16 mask = (__mmask16)((1u << at_most(hidden, 16)) - 1);

            _mm512_mask_store_ps(s + key * QUERIES + half * 16, mask,
                                 _mm512_set1_ps(-INFINITY));
        }
}

/* Moves the maximum where a score is more than 2^8 above it, and Y^T with it. */
INLINE void move_maximum(const struct head *h, const float *s, int count, bool is_first,
                         struct running *r, float *y)
{
    for (int half = 0; half < 2; half++) {
        const float *x = s + half * 16;
        __m512 a = _mm512_set1_ps(-INFINITY), b = a, max, factor;
        int key = 0;

        for (; key + 2 <= count; key += 2) {
            a = _mm512_max_ps(a, _mm512_load_ps(x + key * QUERIES));
            b = _mm512_max_ps(b, _mm512_load_ps(x + (key + 1) * QUERIES));
        }
        if (key < count)
            a = _mm512_max_ps(a, _mm512_load_ps(x + key * QUERIES));
        max = _mm512_mul_ps(_mm512_max_ps(a, b), _mm512_set1_ps(h->factor));
        if (is_first) {
            r->max[half] = max;
            continue;
        }
        if (!_mm512_cmp_ps_mask(max, _mm512_add_ps(r->max[half], _mm512_set1_ps(8)),
                                _CMP_GT_OQ))
            continue;
        max = _mm512_max_ps(max, r->max[half]);
        factor = exp2_of(_mm512_sub_ps(r->max[half], max));
        r->max[half] = max;
        r->sum[half] = _mm512_mul_ps(r->sum[half], factor);
        for (int c = 0; c < h->columns * 16; c++) {
            float *row = y + c * QUERIES + half * 16;

            _mm512_store_ps(row, _mm512_mul_ps(factor, _mm512_load_ps(row)));
        }
    }
}

/* two keys' probabilities of 16 queries, interleaved per query, rounded to bf16 */
INLINE void store_pair(bf16 *p, __m512 even, __m512 odd)
{
    const __m512i interleave =
        _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8,
                         23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    __m512i both = (__m512i)_mm512_cvtne2ps_pbh(odd, even);

    _mm512_store_si512(p, _mm512_permutexvar_epi16(interleave, both));
}

/* p = 2^(s c - max); rows from `count` to the next multiple of 32 are zero */
INLINE void exp_block(const struct head *h, const float *s, int count,
                      struct running *r, bf16 *p)
{
    const __m512 factor = _mm512_set1_ps(h->factor), zero = _mm512_setzero_ps();
    __m512 max0 = r->max[0], max1 = r->max[1], sum0 = r->sum[0], sum1 = r->sum[1];

    for (int key = 0; key < round_up(count, 32); key += 2) {
        const float *x = s + key * QUERIES;
        bf16 *to = p + key / 32 * 2 * TILE + key % 32 * 16;
        __m512 a0 = zero, a1 = zero, b0 = zero, b1 = zero;

        if (key < count) {
            a0 = exp2_of(_mm512_fmsub_ps(_mm512_load_ps(x), factor, max0));
            a1 = exp2_of(_mm512_fmsub_ps(_mm512_load_ps(x + 16), factor, max1));
        }
        if (key + 1 < count) {
            b0 = exp2_of(_mm512_fmsub_ps(_mm512_load_ps(x + QUERIES), factor, max0));
            b1 = exp2_of(
                _mm512_fmsub_ps(_mm512_load_ps(x + QUERIES + 16), factor, max1));
        }
        if (!h->has_ones) {
            sum0 = _mm512_add_ps(sum0, _mm512_add_ps(a0, b0));
            sum1 = _mm512_add_ps(sum1, _mm512_add_ps(a1, b1));
        }
        store_pair(to, a0, b0);
        store_pair(to + TILE, a1, b1);
    }
    r->sum[0] = sum0;
    r->sum[1] = sum1;
}

/* Y^T [columns * 16][32] += V^T P^T, three column tiles by two query tiles at a time: six
 * accumulators, one tile for each side. A tile number must be a constant, hence the macros
 * (gone at the end of this function). */
#define ADD(y_tile, row)                                                               \
    do {                                                                               \
        _tile_loadd(7, v + (row)*TILE, 64);                                            \
        _tile_dpbf16ps(y_tile, 7, 6);                                                  \
    } while (0)
#define OPEN(tile, at)                                                                 \
    do {                                                                               \
        if (is_first)                                                                  \
            _tile_zero(tile);                                                          \
        else                                                                           \
            _tile_loadd(tile, at, 4 * QUERIES);                                        \
    } while (0)
INLINE void add_columns(const bf16 *v, int v_step, int n, const bf16 *p, int keys,
                        bool is_first, float *y)
{
    enum { ROW = 16 * QUERIES };

    order_memory();
    OPEN(0, y);
    OPEN(1, y + 16);
    if (n > 1) {
        OPEN(2, y + ROW);
        OPEN(3, y + ROW + 16);
    }
    if (n > 2) {
        OPEN(4, y + 2 * ROW);
        OPEN(5, y + 2 * ROW + 16);
    }
    for (int key = 0; key < keys; key += 32) {
        _tile_loadd(6, p, 64);
        ADD(0, 0);
        if (n > 1)
            ADD(2, 1);
        if (n > 2)
            ADD(4, 2);
        _tile_loadd(6, p + TILE, 64);
        ADD(1, 0);
        if (n > 1)
            ADD(3, 1);
        if (n > 2)
            ADD(5, 2);
        v += v_step;
        p += 2 * TILE;
    }
    _tile_stored(0, y, 4 * QUERIES);
    _tile_stored(1, y + 16, 4 * QUERIES);
    if (n > 1) {
        _tile_stored(2, y + ROW, 4 * QUERIES);
        _tile_stored(3, y + ROW + 16, 4 * QUERIES);
    }
    if (n > 2) {
        _tile_stored(4, y + 2 * ROW, 4 * QUERIES);
        _tile_stored(5, y + 2 * ROW + 16, 4 * QUERIES);
    }
}
#undef ADD
#undef OPEN

INLINE void value_block(const struct head *h, const bf16 *v, const bf16 *p, int keys,
                        bool is_first, float *y)
{
    int step = h->columns * TILE;

    for (int c = 0; c < h->columns; c += 3) {
        const bf16 *at = v + c * TILE;
        float *to = y + c * 16 * QUERIES;

        if (h->columns - c >= 3)
            add_columns(at, step, 3, p, keys, is_first, to);
        else if (h->columns - c == 2)
            add_columns(at, step, 2, p, keys, is_first, to);
        else
            add_columns(at, step, 1, p, keys, is_first, to);
    }
}

/* ---- one block of queries ---- */

/* y [count][size] = (Y^T / sums)^T */
static void store_result(const struct head *h, const struct block_space *b,
                         const struct running *r, int count, bf16 *y, int64_t pitch)
{
    for (int half = 0; half < 2; half++) {
        const float *from = b->y + half * 16;
        __m512 sum =
            h->has_ones ? _mm512_load_ps(from + h->size * QUERIES) : r->sum[half];
        __m512 inverse = _mm512_div_ps(_mm512_set1_ps(1), sum);

        for (int c = 0; c < h->size; c += 16) {
            __mmask16 mask = (__mmask16)((1u << at_most(h->size - c, 16)) - 1);
            __m512i rows[16];

            for (int i = 0; i < 16; i++)
                rows[i] = (__m512i)_mm512_mul_ps(
                    inverse, _mm512_load_ps(from + (c + i) * QUERIES));
            transpose16(rows);
            for (int i = 0; i < at_most(count - half * 16, 16); i++)
                _mm256_mask_storeu_epi16(y + (half * 16 + i) * pitch + c, mask,
                                         (__m256i)_mm512_cvtneps_pbh((__m512)rows[i]));
        }
    }
}

static void attend_queries(const struct head *h, const struct block_space *b,
                           const bf16 *q, int64_t q_pitch, bf16 *y, int64_t y_pitch,
                           int first)
{
    int count = at_most(h->queries - first, QUERIES), keys = h->keys;
    struct running r = {.sum = {_mm512_setzero_ps(), _mm512_setzero_ps()}};

    pack_queries(h, q + first * q_pitch, q_pitch, count, b->q);
    if (h->is_causal)
        keys = at_most(first + QUERIES, keys);
    for (int from = 0; from < keys; from += KEYS) {
        int n = at_most(keys - from, KEYS), padded = round_up(n, 32);

        score_block(h, b->k + from / 16 * h->steps * TILE, b->q, padded, b->s);
        if (h->is_causal)
            mask_future(b->s, from, n, first);
        move_maximum(h, b->s, n, from == 0, &r, b->y);
        exp_block(h, b->s, n, &r, b->p);
        value_block(h, b->v + from / 32 * h->columns * TILE, b->p, padded, from == 0,
                    b->y);
    }
    store_result(h, b, &r, count, y + first * y_pitch, y_pitch);
}

/* ---- all of it ---- */

static void configure_tiles(void)
{
    /* palette 1; eight tiles of 16 rows of 64 bytes */
    static const struct {
        uint8_t palette, start_row, reserved[14];
        uint16_t row_bytes[16];
        uint8_t rows[16];
    } config = {.palette = 1,
                .row_bytes = {64, 64, 64, 64, 64, 64, 64, 64},
                .rows = {16, 16, 16, 16, 16, 16, 16, 16}};

    _tile_loadconfig(&config);
}

void attention_amx(const struct attend_args *a)
{
    struct head h = head_of(a);
    struct attention_tasks tasks = attention_tasks(a, QUERIES);
    int64_t blocks = (a->queries + QUERIES - 1) / QUERIES, parts = tasks.parts;
    size_t per_thread = attention_amx_scratch(a);

#pragma omp parallel num_threads(a->threads)
    {
        struct block_space b;
        int64_t packed = -1;

        cut_scratch(&h, (char *)a->scratch + omp_get_thread_num() * per_thread, &b);
        configure_tiles();
#pragma omp for schedule(dynamic, tasks.chunk)
        for (int64_t task = 0; task < tasks.count; task++) {
            int64_t head = task / parts, part = task % parts;
            int64_t n = head / a->heads, at = head % a->heads * h.size;
            const bf16 *q = (const bf16 *)a->q + n * a->queries * a->q_pitch + at;
            const bf16 *k = (const bf16 *)a->k + n * a->keys * a->k_pitch + at;
            const bf16 *v = (const bf16 *)a->v + n * a->keys * a->v_pitch + at;
            bf16 *y = (bf16 *)a->y + n * a->queries * a->y_pitch + at;

            if (!attention_goes_on(a))
                continue;
            if (packed != head) {
                pack_keys(&h, k, a->k_pitch, b.k);
                pack_values(&h, v, a->v_pitch, b.v);
                packed = head;
            }
            for (int64_t i = blocks * part / parts;
                 i < blocks * (part + 1) / parts && attention_goes_on(a); i++)
                attend_queries(&h, &b, q, a->q_pitch, y, a->y_pitch, (int)i * QUERIES);
        }
        _tile_release();
    }
}

#else /* no AMX on this kind of processor: never called */

bool attention_amx_init(void)
{
    return false;
}

size_t attention_amx_scratch(const struct attend_args *a)
{
    (void)a;
    return 0;
}

void attention_amx(const struct attend_args *a)
{
    (void)a;
}

#endif
