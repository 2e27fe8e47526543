/* layout: weights into the layout that a primitive asked for, and which output each place of it belongs to. */
#include "engine/graph/dnnl/layout.h"

#include "base/mem.h"

#include <stdlib.h>
#include <string.h>

/* The plain layout that corresponds to the packed one: matrices are [I, O] to oneDNN and
 * [O, I] in the file, kernels are the same in both. */
static dnnl_status_t plain_layout(const_dnnl_memory_desc_t layout,
                                  dnnl_memory_desc_t *ret)
{
    const dnnl_dims_t *dims;
    dnnl_data_type_t type;
    int rank;

    dnnl_memory_desc_query(layout, dnnl_query_ndims_s32, &rank);
    dnnl_memory_desc_query(layout, dnnl_query_dims, (void *)&dims);
    dnnl_memory_desc_query(layout, dnnl_query_data_type, &type);
    return dnnl_memory_desc_create_with_tag(ret, rank, *dims, type,
                                            rank == 2 ? dnnl_ba : dnnl_abcd);
}

/* ---- with padding ----
 *
 * On some processors (seen on AMD's family 26 with oneDNN 3.7) the reorder that is generated for a layout that pads
 * writes zeros over values, and oneDNN offers no other one. So these are filled here. Where a value goes is a
 * sum of one number for each of its coordinates, which are kept in a table per dimension. */
struct places {
    int rank;
    dnnl_dims_t dims;
    int64_t *at[DNNL_MAX_NDIMS]; /* in elements */
};

static bool pads(const_dnnl_memory_desc_t layout)
{
    const dnnl_dims_t *dims, *padded;
    int rank;

    dnnl_memory_desc_query(layout, dnnl_query_ndims_s32, &rank);
    dnnl_memory_desc_query(layout, dnnl_query_dims, (void *)&dims);
    dnnl_memory_desc_query(layout, dnnl_query_padded_dims, (void *)&padded);
    return memcmp(*dims, *padded, (size_t)rank * sizeof((*dims)[0])) != 0;
}

/* A coordinate is divided by the blocks of its dimension, innermost first; what is left counts in strides. */
static int64_t place_of(int64_t i, int d, int blocks, const dnnl_dim_t *sizes,
                        const dnnl_dim_t *of, int64_t stride)
{
    int64_t place = 0, inner = 1;

    for (int k = blocks - 1; k >= 0; k--) {
        if (of[k] == d) {
            place += i % sizes[k] * inner;
            i /= sizes[k];
        }
        inner *= sizes[k];
    }
    return place + i * stride;
}

static void places_make(struct places *ret, const_dnnl_memory_desc_t layout)
{
    const dnnl_dims_t *dims, *strides, *sizes, *of;
    int blocks;

    dnnl_memory_desc_query(layout, dnnl_query_ndims_s32, &ret->rank);
    dnnl_memory_desc_query(layout, dnnl_query_dims, (void *)&dims);
    dnnl_memory_desc_query(layout, dnnl_query_strides, (void *)&strides);
    dnnl_memory_desc_query(layout, dnnl_query_inner_nblks_s32, &blocks);
    dnnl_memory_desc_query(layout, dnnl_query_inner_blks, (void *)&sizes);
    dnnl_memory_desc_query(layout, dnnl_query_inner_idxs, (void *)&of);
    memcpy(ret->dims, *dims, sizeof(ret->dims));
    for (int d = 0; d < ret->rank; d++) {
        ret->at[d] = mem_alloc((size_t)ret->dims[d] * sizeof(*ret->at[d]));
        for (int64_t i = 0; i < ret->dims[d]; i++)
            ret->at[d][i] = place_of(i, d, blocks, *sizes, *of, (*strides)[d]);
    }
}

/* count values, step bytes apart in `from`, to their places beyond `base` */
static void place_line(char *to, const char *from, const int64_t *at, int64_t count,
                       int64_t base, size_t size, size_t step)
{
    for (int64_t i = 0; i < count; i++)
        memcpy(to + (size_t)(base + at[i]) * size, from + (size_t)i * step, size);
}

/* plain: as plain_layout() says */
static void fill_padded(const struct dnnl_backend *b, const_dnnl_memory_desc_t layout,
                        const char *plain, void *to)
{
    struct places t = {0};
    size_t size = elem_bytes(b->act);

    places_make(&t, layout);
    memset(to, 0, dnnl_memory_desc_get_size(layout));
    if (t.rank == 2) {
#pragma omp parallel for
        for (int64_t o = 0; o < t.dims[1]; o++)
            place_line(to, plain + (size_t)(o * t.dims[0]) * size, t.at[0], t.dims[0],
                       t.at[1][o], size, size);
    } else {
        int64_t kernel = t.dims[2] * t.dims[3];

#pragma omp parallel for
        for (int64_t o = 0; o < t.dims[0]; o++)
            for (int64_t k = 0; k < kernel; k++)
                place_line(to, plain + (size_t)(o * t.dims[1] * kernel + k) * size,
                           t.at[1], t.dims[1],
                           t.at[0][o] + t.at[2][k / t.dims[3]] + t.at[3][k % t.dims[3]],
                           size, (size_t)kernel * size);
    }
    for (int d = 0; d < t.rank; d++)
        free(t.at[d]);
}

static int reorder(struct dnnl_backend *b, const_dnnl_memory_desc_t layout, void *plain,
                   void *to)
{
    dnnl_memory_desc_t from = NULL;
    dnnl_primitive_desc_t desc = NULL;
    dnnl_primitive_t primitive = NULL;
    dnnl_memory_t source = NULL, target = NULL;
    int result = -1;

    if (plain_layout(layout, &from) ||
        dnnl_memory_create(&source, from, b->engine, plain) ||
        dnnl_memory_create(&target, layout, b->engine, to) ||
        dnnl_reorder_primitive_desc_create(&desc, from, b->engine, layout, b->engine,
                                           NULL) ||
        dnnl_primitive_create(&primitive, desc))
        goto out;
    dnnl_exec_arg_t args[] = {{DNNL_ARG_FROM, source}, {DNNL_ARG_TO, target}};
    if (dnnl_primitive_execute(primitive, b->stream, 2, args) ||
        dnnl_stream_wait(b->stream))
        goto out;
    result = 0;
out:
    if (primitive)
        dnnl_primitive_destroy(primitive);
    if (desc)
        dnnl_primitive_desc_destroy(desc);
    if (source)
        dnnl_memory_destroy(source);
    if (target)
        dnnl_memory_destroy(target);
    if (from)
        dnnl_memory_desc_destroy(from);
    return result;
}

int layout_fill(struct dnnl_backend *b, const_dnnl_memory_desc_t layout, void *plain,
                void *to)
{
    if (!pads(layout))
        return reorder(b, layout, plain, to);
    fill_padded(b, layout, plain, to);
    return 0;
}

/* ---- which output a value belongs to ---- */

int layout_outputs(const_dnnl_memory_desc_t layout, struct output_lines *ret)
{
    const dnnl_dims_t *padded, *strides, *sizes, *of;
    int rank, blocks, first, d;
    dnnl_data_type_t type;
    int64_t block = 1;

    dnnl_memory_desc_query(layout, dnnl_query_ndims_s32, &rank);
    dnnl_memory_desc_query(layout, dnnl_query_data_type, &type);
    dnnl_memory_desc_query(layout, dnnl_query_padded_dims, (void *)&padded);
    dnnl_memory_desc_query(layout, dnnl_query_strides, (void *)&strides);
    dnnl_memory_desc_query(layout, dnnl_query_inner_nblks_s32, &blocks);
    dnnl_memory_desc_query(layout, dnnl_query_inner_blks, (void *)&sizes);
    dnnl_memory_desc_query(layout, dnnl_query_inner_idxs, (void *)&of);
    d = rank == 2 ? 1 : 0;
    for (first = 0; first < blocks && (*of)[first] != d; first++)
        continue;
    *ret = (struct output_lines){.in_line = 1, .period = 1};
    for (int k = 0; k < blocks; k++) {
        block *= (*sizes)[k];
        if ((*of)[k] == d)
            ret->in_line *= (*sizes)[k];
        if (k >= first)
            ret->period *= (*sizes)[k];
    }
    ret->lines = (*padded)[d] / ret->in_line;
    ret->run = (*strides)[d];
    ret->count =
        (int64_t)dnnl_memory_desc_get_size(layout) / (int64_t)dnnl_data_type_size(type);
    if (blocks == 0 && ret->run == 1) { /* outputs lie side by side */
        ret->in_line = ret->period = ret->run = ret->lines;
        ret->lines = 1;
    }
    ret->outputs = (int64_t *)mem_alloc((size_t)ret->period * sizeof(*ret->outputs));
    for (int64_t i = 0; i < ret->period; i++) {
        int64_t left = i, inner = 1, at = 0;

        for (int k = blocks - 1; k >= first; k--) {
            if ((*of)[k] == d) {
                at += left % (*sizes)[k] * inner;
                inner *= (*sizes)[k];
            }
            left /= (*sizes)[k];
        }
        ret->outputs[i] = blocks ? at : i;
    }
    if (ret->run > 0 && ret->run % ret->period == 0 &&
        ret->count % (ret->run * ret->lines) == 0)
        return 0;
    output_lines_release(ret);
    return -1;
}

void output_lines_release(struct output_lines *lines)
{
    free(lines->outputs);
    lines->outputs = NULL;
}
