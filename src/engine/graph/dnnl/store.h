/* store: the weights of one model in the form the primitives read.
 *
 *   struct packed *p = store_matrix(store, sources, count, 0, md);   wanted, not yet there
 *   ... store_pack(store, wanted, count, err) ...                    now p->data is
 *
 * An item is what was asked for once: joined matrices in a primitive's own layout, or
 * joined vectors in f32. Programs of one model share items whose sources and layout are
 * the same, so a second picture size adds bytes only where oneDNN wants another layout.
 * The memory of all items that a call packs is one block of huge pages. Items live as
 * long as the store. An edit (graph/edit.h) marks items as stale; they are packed again where they are. */
#ifndef MYSTI_ENGINE_GRAPH_DNNL_STORE_H
#define MYSTI_ENGINE_GRAPH_DNNL_STORE_H

#include "engine/graph/dnnl/int8.h"

#include <oneapi/dnnl/dnnl.h>

enum packed_form {
    FORM_PLAIN,
    /* A 3x3 kernel that reads x upsampled twofold, as the 4x4 kernel of a transposed
     * convolution with stride 2 on x itself: sums of what falls on the same pixel. */
    FORM_DOUBLED,
};

struct packed {
    enum packed_form form;
    const struct weight **sources; /* an entry of a vector may be NULL: zeros */
    int64_t *lengths;              /* of each source: rows of a matrix, or values */
    int source_count;
    dnnl_memory_desc_t layout; /* of matrices and kernels; NULL for vectors */
    struct int8_weights *
        int8; /* the data are bytes, see store_values(); NULL: they are as the layout says */
    size_t bytes;
    void *data;           /* NULL until packed */
    dnnl_memory_t memory; /* the data, or where they were unpacked last */
    bool is_edited;       /* holds what an edit made, at least in parts */
    bool is_stale;        /* holds something else than the store's edit makes */
};

struct weight_store *store_new(struct backend *backend, enum store_weights weights);
void store_free(struct weight_store *store);
size_t store_bytes(const struct weight_store *store);
void store_edit(struct weight_store *store, const struct weight_edit *edit);

/* Matrices [O_k, I] one below the other, or one kernel [O, I, KH, KW], to be laid out as
 * `layout` says (copied). */
struct packed *store_weights(struct weight_store *store,
                             const struct weight *const *sources, int count,
                             enum packed_form form, const_dnnl_memory_desc_t layout);
/* The item with these sources in whichever layout was packed or asked for first. */
struct packed *store_find(const struct weight_store *store,
                          const struct weight *const *sources, int count,
                          enum packed_form form);
/* Vectors one after the other as f32; a source that is NULL stands for lengths[k] zeros.
 */
struct packed *store_vector(struct weight_store *store,
                            const struct weight *const *sources, const int64_t *lengths,
                            int count);
/* What store_values wants of room; 0: nothing. */
size_t store_values_bytes(const struct packed *item);
/* The item's memory holds its values, unpacked to `room` where the data are bytes. */
void store_values(const struct weight_store *store, const struct packed *item,
                  void *room);

/* Bytes that a packed item takes. */
size_t store_room(const struct packed *item);
/* What store_pack allocates for a while beside the items, at most, when `edit` is laid before it. */
size_t store_packing_bytes(const struct weight_store *store,
                           struct packed *const *items, int count,
                           const struct weight_edit *edit);
/* Packs those of `items` that are not packed yet, or stale, and asks `stop` before each. When it fails, what was not
 * packed is not packed, and what was stale still is. */
int store_pack(struct weight_store *store, struct packed *const *items, int count,
               struct stop *stop, struct err *err) MUST_CHECK;

/* Gives back the memory of calls of store_pack that packed nothing but some of these. */
void store_unpack(struct weight_store *store, struct packed *const *items, int count);

#endif
