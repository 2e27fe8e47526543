#include "engine/graph/dnnl/pieces.h"

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* y[2i + k - 1] += x[i] w[k] for k = 0..3: the rows 2a to 2b - 1 of y read the rows a - 1 to b of x, and where the
 * first of them is there, y begins two rows later: at 3 instead of 1. */
static void cut_transposed(const struct window *w, struct piece *p)
{
    int64_t first = p->out_from / 2 - 1, end = (p->out_from + p->out_count) / 2 + 1;

    p->in_from = first < 0 ? 0 : first;
    p->in_count = least(end, w->in) - p->in_from;
    p->pad_before = first < 0 ? 1 : 3;
    p->pad_after = end > w->in ? 1 : 3;
}

/* y[o] = sum over k of x[stride o - pad + k] w[k] */
static void cut_plain(const struct window *w, struct piece *p)
{
    int64_t first = p->out_from * w->stride - w->pad_before;
    int64_t end =
        (p->out_from + p->out_count - 1) * w->stride - w->pad_before + w->kernel;

    p->in_from = first < 0 ? 0 : first;
    p->in_count = least(end, w->in) - p->in_from;
    p->pad_before = p->in_from - first;
    p->pad_after = end > w->in ? end - w->in : 0;
}

struct piece piece_of(const struct window *w, int64_t from, int64_t rows)
{
    struct piece p = {.out_from = from, .out_count = least(rows, w->out - from)};

    if (p.out_count ==
        w->out) { /* also the rows that nothing reads: with others oneDNN may add up in another order */
        p.in_count = w->in;
        p.pad_before = w->pad_before;
        p.pad_after = w->pad_after;
    } else if (w->is_transposed) {
        cut_transposed(w, &p);
    } else {
        cut_plain(w, &p);
    }
    return p;
}
