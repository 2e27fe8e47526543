/* store: packing, and who already has what.
 *
 * A source is converted row by row (f16, bf16, q8_0, f32 -> f32 -> the back end's type)
 * into a plain matrix, which one reorder primitive lays out as the product wants it. The
 * plain copy is the only temporary, one weight large (59 MB at SD 1.5), and lives
 * while nothing else of a run does. f16, which most files are, has a vector path. Reordering straight from the file's f16 was rejected:
 * oneDNN has no quick path from f16 to packed bf16, and rounding twice must not happen.
 *
 * Memory comes as one block per call of store_pack: its size is known, a failed block
 * changes nothing, and huge pages want large pieces. Blocks are freed with the store.
 * What an edit touches is packed again in its place: the store never grows by it, and
 * programs keep their addresses. The price is that whatever an edit touches is in memory
 * once more as f32 while it is packed, one source at a time.
 *
 * Items are found by linear search: a U-Net has about 700, and searching happens only
 * while a program is compiled. */
#include "engine/graph/dnnl/store.h"

#include "base/mem.h"
#include "base/pages.h"
#include "engine/graph/dnnl/layout.h"

#include <stdint.h>
#include <string.h>

struct block {
    void *data;
    size_t bytes;
};

struct weight_store {
    struct dnnl_backend *backend;
    enum store_weights weights;
    struct packed **items;
    int count, cap;
    struct block *blocks;
    int block_count;
    const struct weight_edit *edit; /* borrowed; NULL: none */
};

enum { ITEM_ALIGN = 64 };

static size_t round_up(size_t n, size_t to)
{
    return (n + to - 1) / to * to;
}

struct weight_store *store_new(struct backend *backend, enum store_weights weights)
{
    struct weight_store *s = mem_zalloc(sizeof(*s));

    s->backend = (struct dnnl_backend *)backend;
    s->weights = weights;
    return s;
}

void store_free(struct weight_store *s)
{
    if (!s)
        return;
    for (int i = 0; i < s->count; i++) {
        if (s->items[i]->memory)
            dnnl_memory_destroy(s->items[i]->memory);
        if (s->items[i]->layout)
            dnnl_memory_desc_destroy(s->items[i]->layout);
        int8_free(s->items[i]->int8);
        free(s->items[i]->sources);
        free(s->items[i]->lengths);
        free(s->items[i]);
    }
    for (int i = 0; i < s->block_count; i++)
        pages_free(s->blocks[i].data, s->blocks[i].bytes);
    free(s->blocks);
    free(s->items);
    free(s);
}

size_t store_bytes(const struct weight_store *s)
{
    size_t bytes = 0;

    for (int i = 0; i < s->block_count; i++)
        bytes += s->blocks[i].bytes;
    return bytes;
}

/* ---- who has what ---- */

static bool is_from(const struct packed *p, const struct weight *const *sources,
                    int count)
{
    if (p->source_count != count)
        return false;
    for (int i = 0; i < count; i++)
        if (p->sources[i] != sources[i])
            return false;
    return true;
}

static struct packed *add_item(struct weight_store *s,
                               const struct weight *const *sources, int count)
{
    struct packed *p = mem_zalloc(sizeof(*p));

    p->sources = mem_alloc((size_t)count * sizeof(*p->sources));
    memcpy(p->sources, sources, (size_t)count * sizeof(*p->sources));
    p->lengths = mem_zalloc((size_t)count * sizeof(*p->lengths));
    p->source_count = count;
    if (s->count == s->cap) {
        s->cap = s->cap ? 2 * s->cap : 64;
        s->items = mem_realloc(s->items, (size_t)s->cap * sizeof(struct packed *));
    }
    s->items[s->count++] = p;
    return p;
}

struct packed *store_find(const struct weight_store *s,
                          const struct weight *const *sources, int count,
                          enum packed_form form)
{
    for (int i = 0; i < s->count; i++)
        if (s->items[i]->layout && s->items[i]->form == form &&
            is_from(s->items[i], sources, count))
            return s->items[i];
    return NULL;
}

/* The first and the last layers of a network have few inputs or outputs; they stay, because what they round away nothing
 * makes good, and they are small. */
static bool may_be_bytes(const struct packed *p)
{
    enum { FEWEST = 16 };

    for (int i = 0; i < p->source_count; i++)
        if (p->sources[i]->dim[0] < FEWEST || p->sources[i]->dim[1] < FEWEST)
            return false;
    return true;
}

struct packed *store_weights(struct weight_store *s,
                             const struct weight *const *sources, int count,
                             enum packed_form form, const_dnnl_memory_desc_t layout)
{
    struct packed *p;

    for (int i = 0; i < s->count; i++)
        if (s->items[i]->layout && s->items[i]->form == form &&
            is_from(s->items[i], sources, count) &&
            dnnl_memory_desc_equal(s->items[i]->layout, layout))
            return s->items[i];
    p = add_item(s, sources, count);
    p->form = form;
    for (int i = 0; i < count; i++)
        p->lengths[i] = sources[i]->dim[0];
    dnnl_memory_desc_clone(&p->layout, layout);
    if (s->weights == STORE_INT8 && may_be_bytes(p))
        p->int8 = int8_new(layout);
    p->bytes = p->int8 ? int8_bytes(p->int8) : dnnl_memory_desc_get_size(layout);
    return p;
}

struct packed *store_vector(struct weight_store *s, const struct weight *const *sources,
                            const int64_t *lengths, int count)
{
    struct packed *p;

    for (int i = 0; i < s->count; i++)
        if (!s->items[i]->layout && is_from(s->items[i], sources, count) &&
            !memcmp(s->items[i]->lengths, lengths, (size_t)count * sizeof(*lengths)))
            return s->items[i];
    p = add_item(s, sources, count);
    memcpy(p->lengths, lengths, (size_t)count * sizeof(*lengths));
    for (int i = 0; i < count; i++)
        p->bytes += (size_t)lengths[i] * sizeof(float);
    return p;
}

/* ---- packing ---- */

static int pack_vector(struct packed *p, const struct weight_edit *edit,
                       struct err *err)
{
    float *to = p->data;

    for (int i = 0; i < p->source_count; i++) {
        if (p->sources[i]) {
            struct edited room;
            const struct weight *source = edited_make(&room, edit, p->sources[i], err);

            if (!source)
                return -1;
            weight_to_f32(source, 0, (size_t)p->lengths[i], to);
            edited_release(&room);
        }
        to += p->lengths[i];
    }
    return 0;
}

/* values of a source's row (one output channel), and of the same row as it is packed */
static int64_t source_length(const struct packed *p)
{
    return (int64_t)weight_count(p->sources[0]) / p->sources[0]->dim[0];
}

static int64_t row_length(const struct packed *p)
{
    return p->form == FORM_DOUBLED ? source_length(p) / 9 * 16 : source_length(p);
}

static int64_t room_for_row(const struct packed *p)
{
    return p->form == FORM_DOUBLED ? source_length(p) + row_length(p)
                                   : source_length(p);
}

/* Tap t of the 3x3 kernel reads x[(p + t - 1) / 2] (rounded down) for y[p]; tap a of the
 * transposed one carries x[i] to y[2i + a - 1]. Equal where t is 2 - a or 3 - a. */
static void double_kernels(const float *from, int64_t count, float *to)
{
    for (int64_t k = 0; k < count; k++, from += 9, to += 16)
        for (int a = 0; a < 4; a++)
            for (int b = 0; b < 4; b++) {
                float sum = 0;

                for (int t = a < 2 ? 2 - a : 0; t <= 2 && t <= 3 - a; t++)
                    for (int u = b < 2 ? 2 - b : 0; u <= 2 && u <= 3 - b; u++)
                        sum += from[3 * t + u];
                to[4 * a + b] = sum;
            }
}

static void convert_row(const struct dnnl_backend *b, const struct packed *p,
                        const struct weight *source, int64_t r, void *out, float *room)
{
    int64_t length = source_length(p);

    if (source->type == WEIGHT_F16 && p->form == FORM_PLAIN) {
        b->kernels->convert_half_row(source->data + 2 * r * length, out, b->act,
                                     length);
        return;
    }
    weight_to_f32(source, (size_t)(r * length), (size_t)length, room);
    if (p->form == FORM_DOUBLED) {
        double_kernels(room, length / 9, room + length);
        room += length;
    }
    b->kernels->convert_row(room, out, b->act, row_length(p));
}

/* All rows of all sources, plain, in the back end's type. */
static int convert_rows(const struct dnnl_backend *b, const struct packed *p,
                        const struct weight_edit *edit, void *plain, float *rows,
                        struct err *err)
{
    int64_t length = row_length(p), room = room_for_row(p);
    size_t row = 0;

    for (int i = 0; i < p->source_count; i++) {
        struct edited edited;
        const struct weight *source = edited_make(&edited, edit, p->sources[i], err);

        if (!source)
            return -1;
#pragma omp parallel for
        for (int64_t r = 0; r < p->lengths[i]; r++) {
            size_t to = (row + (size_t)r) * (size_t)length;

            convert_row(b, p, source, r, (char *)plain + to * elem_bytes(b->act),
                        rows + dnnl_thread() * room);
        }
        edited_release(&edited);
        row += (size_t)p->lengths[i];
    }
    return 0;
}

/* Room for the largest item's plain copy, per thread one row in f32, and what becomes bytes as values; for all items of one
 * call, because fresh pages cost more than what is written to them. */
struct plain {
    void *rows;
    float *row;
    void *values;
    float *largest; /* of each output */
};

/* Bytes of each. */
struct plain_size {
    size_t rows, row, values, largest;
};

static size_t count_rows(const struct packed *p)
{
    size_t rows = 0;

    for (int i = 0; i < p->source_count; i++)
        rows += (size_t)p->lengths[i];
    return rows;
}

static void at_least(size_t *size, size_t bytes)
{
    *size = bytes > *size ? bytes : *size;
}

static void make_room_for(struct plain_size *size, const struct dnnl_backend *b,
                          const struct packed *p)
{
    if (!p->layout)
        return;
    at_least(&size->rows, count_rows(p) * (size_t)row_length(p) * elem_bytes(b->act));
    at_least(&size->row, (size_t)b->threads * (size_t)room_for_row(p) * sizeof(float));
    if (!p->int8)
        return;
    at_least(&size->values, int8_value_bytes(p->int8));
    at_least(&size->largest, count_rows(p) * sizeof(float));
}

static size_t plain_size_bytes(const struct plain_size *size)
{
    return size->rows + size->row + size->values + size->largest;
}

static void plain_release(struct plain *plain)
{
    free(plain->rows);
    free(plain->row);
    free(plain->values);
    free(plain->largest);
}

static int plain_alloc(struct plain *plain, const struct dnnl_backend *b,
                       struct packed *const *items, int count, struct err *err)
{
    struct plain_size size = {0};

    for (int i = 0; i < count; i++)
        make_room_for(&size, b, items[i]);
    plain->rows = mem_try_alloc(size.rows);
    plain->row = mem_try_alloc(size.row);
    plain->values = size.values ? mem_try_alloc(size.values) : NULL;
    plain->largest = size.values ? mem_try_alloc(size.largest) : NULL;
    if (!plain->rows || !plain->row ||
        (size.values && (!plain->values || !plain->largest)))
        return err_set(err, ERR_NO_MEMORY, "no memory to pack a weight of %zu MiB",
                       size.rows >> 20);
    return 0;
}

static void measure_rows(const struct dnnl_backend *b, const struct packed *p,
                         const struct plain *plain)
{
    int64_t rows = (int64_t)count_rows(p), length = row_length(p);

#pragma omp parallel for
    for (int64_t r = 0; r < rows; r++)
        plain->largest[r] = b->kernels->largest(
            (const char *)plain->rows + (size_t)(r * length) * elem_bytes(b->act),
            b->act, length);
}

static int pack_weights(struct dnnl_backend *b, struct packed *p,
                        const struct weight_edit *edit, const struct plain *plain,
                        struct err *err)
{
    if (!p->memory && dnnl_memory_create(&p->memory, p->layout, b->engine, p->data))
        return err_set(err, ERR_NO_MEMORY, "oneDNN has no memory to describe tensor %s",
                       p->sources[0]->name);
    if (convert_rows(b, p, edit, plain->rows, plain->row, err))
        return -1;
    if (layout_fill(b, p->layout, plain->rows, p->int8 ? plain->values : p->data))
        return err_set(err, ERR_INTERNAL, "oneDNN cannot lay out tensor %s",
                       p->sources[0]->name);
    if (p->int8) {
        measure_rows(b, p, plain);
        int8_pack(p->int8, b, plain->values, plain->largest, (int64_t)count_rows(p),
                  p->data);
    }
    return 0;
}

size_t store_values_bytes(const struct packed *p)
{
    return p->int8 ? int8_value_bytes(p->int8) : 0;
}

void store_values(const struct weight_store *s, const struct packed *p, void *room)
{
    if (!p->int8)
        return;
    int8_unpack(p->int8, s->backend, p->data, room);
    (void)dnnl_memory_set_data_handle(p->memory, room);
}

static void unpack(struct packed *p)
{
    if (p->memory)
        dnnl_memory_destroy(p->memory);
    p->memory = NULL;
    p->data = NULL;
    p->is_edited = p->is_stale = false;
}

static int pack(struct weight_store *s, struct packed *p, const struct plain *plain,
                struct err *err)
{
    p->is_stale = true; /* until it is done */
    p->is_edited |= edit_touches(s->edit, p->sources, p->source_count);
    if (p->layout ? pack_weights(s->backend, p, s->edit, plain, err)
                  : pack_vector(p, s->edit, err))
        return -1;
    p->is_stale = false;
    p->is_edited = edit_touches(s->edit, p->sources, p->source_count);
    return 0;
}

/* Those without data first; ret_missing: how many these are. */
static int find_wanted(struct packed *const *items, int count, struct packed **ret,
                       int *ret_missing)
{
    int wanted = 0;

    for (int i = 0; i < count; i++) {
        if (items[i]->data)
            continue;
        items[i]->data = items[i]; /* seen; its real place follows */
        ret[wanted++] = items[i];
    }
    *ret_missing = wanted;
    for (int i = 0; i < count; i++)
        if (items[i]->is_stale)
            ret[wanted++] = items[i];
    for (int i = 0; i < *ret_missing; i++)
        ret[i]->data = NULL;
    return wanted;
}

size_t store_room(const struct packed *p)
{
    return round_up(p->bytes, ITEM_ALIGN);
}

/* One new block for items without a place. */
static int block_alloc(struct block *ret, struct packed *const *items, int count,
                       struct err *err)
{
    *ret = (struct block){0};
    for (int i = 0; i < count; i++)
        ret->bytes += store_room(items[i]);
    if (count && !(ret->data = pages_alloc(ret->bytes)))
        return err_set(err, ERR_NO_MEMORY, "no memory for %zu MiB of weights",
                       ret->bytes >> 20);
    return 0;
}

/* Those of `wanted` that have no place yet, the first ones, get it when their turn comes: what has none is missing, and by
 * that a load's progress is told. */
static int pack_all(struct weight_store *s, struct packed *const *wanted, int total,
                    int missing, const struct block *block, struct stop *stop,
                    struct err *err)
{
    struct plain plain = {0};
    char *place = block->data;
    int result = plain_alloc(&plain, s->backend, wanted, total, err);

    for (int i = 0; i < total && !result; i++) {
        if (stop && stop_ask(stop)) {
            result = err_set(err, ERR_CANCELLED, "cancelled");
            break;
        }
        if (i < missing) {
            wanted[i]->data = place;
            place += store_room(wanted[i]);
        }
        result = pack(s, wanted[i], &plain, err);
    }
    plain_release(&plain);
    return result;
}

int store_pack(struct weight_store *s, struct packed *const *items, int count,
               struct stop *stop, struct err *err)
{
    struct packed **wanted = mem_alloc(((size_t)count + 1) * sizeof(struct packed *));
    struct block block;
    int missing, total = find_wanted(items, count, wanted, &missing);
    int result = block_alloc(&block, wanted, missing, err);

    if (!result)
        result = pack_all(s, wanted, total, missing, &block, stop, err);
    if (result) {
        for (int i = 0; i < missing; i++)
            unpack(wanted[i]);
        pages_free(block.data, block.bytes);
    } else if (missing) {
        s->blocks =
            mem_realloc(s->blocks, (size_t)(s->block_count + 1) * sizeof(*s->blocks));
        s->blocks[s->block_count++] = block;
    }
    free(wanted);
    return result;
}

static bool is_in(const struct block *b, const struct packed *p)
{
    const char *begin = b->data, *at = p->data;

    return at && at >= begin && at < begin + b->bytes;
}

static bool has_only(const struct weight_store *s, const struct block *b,
                     struct packed *const *items, int count)
{
    int there = 0, ours = 0;

    for (int i = 0; i < s->count; i++)
        there += is_in(b, s->items[i]);
    for (int i = 0; i < count; i++)
        ours += is_in(b, items[i]);
    return there == ours;
}

void store_unpack(struct weight_store *s, struct packed *const *items, int count)
{
    int kept = 0;

    for (int k = 0; k < s->block_count; k++) {
        struct block block = s->blocks[k];

        if (!has_only(s, &block, items, count)) {
            s->blocks[kept++] = block;
            continue;
        }
        for (int i = 0; i < count; i++)
            if (is_in(&block, items[i]))
                unpack(items[i]);
        pages_free(block.data, block.bytes);
    }
    s->block_count = kept;
}

/* ---- edits ---- */

/* Does it have to be packed again, if this edit comes next? */
static bool is_in_the_way(const struct packed *p, const struct weight_edit *edit)
{
    return p->data && (p->is_stale || p->is_edited ||
                       edit_touches(edit, p->sources, p->source_count));
}

void store_edit(struct weight_store *s, const struct weight_edit *edit)
{
    for (int i = 0; i < s->count; i++)
        s->items[i]->is_stale = is_in_the_way(s->items[i], edit);
    s->edit = edit;
}

/* the largest of its sources that is made anew in f32 */
static size_t edited_bytes(const struct packed *p, const struct weight_edit *edit)
{
    size_t most = 0;

    for (int k = 0; k < p->source_count; k++)
        if (edit_touches(edit, &p->sources[k], 1) && weight_count(p->sources[k]) > most)
            most = weight_count(p->sources[k]);
    return most * sizeof(float);
}

size_t store_packing_bytes(const struct weight_store *s, struct packed *const *items,
                           int count, const struct weight_edit *edit)
{
    struct plain_size size = {0};
    size_t edited = 0;

    for (int i = 0; i < count; i++) {
        size_t bytes = edited_bytes(items[i], edit);

        if (items[i]->data && !is_in_the_way(items[i], edit))
            continue;
        make_room_for(&size, s->backend, items[i]);
        edited = bytes > edited ? bytes : edited;
    }
    return plain_size_bytes(&size) + edited;
}
