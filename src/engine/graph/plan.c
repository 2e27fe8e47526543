/* plan: from the graph as a model wrote it to what a back end runs.
 *
 * The flow: copy the nodes and tensors -> fold neighbours together (fuse) -> turn
 * reshapes and slices into views -> let operations write over an input that dies there
 * -> drop what is gone -> life times -> places.
 *
 * Why fusing is decided here and not in the back ends: both then run the same list, so
 * a tensor that exists in one exists in the other and can be compared; and the peak is
 * computed from the same list. Why by patterns and not by richer operations in the
 * models: a model reads like its diagram, and a test can run the unfused plan against
 * the fused one.
 *
 * Places: tensors sorted by size, largest first, each at the lowest offset where it
 * overlaps no tensor that is placed already and alive at the same time (the "greedy by
 * size" of Pisarchyk and Lee 2020). First fit in order of time was rejected: it leaves
 * holes below the skip tensors of a U-Net. Scratch of a node is one more block that
 * lives during that node only.
 *
 * Invariants: a view's base is no view. A tensor with memory of its own is written by
 * exactly one node, except that in-place results share their base's block, whose life
 * then covers both. Inputs bound by the caller are never written. */
#include "engine/graph/plan.h"

#include "base/mem.h"

#include <assert.h>
#include <string.h>

struct fuser {
    struct plan *plan;
    int *readers;  /* per tensor: how many times it is read */
    int *maker;    /* per tensor: index of the node that writes it now */
    bool *is_gone; /* per node */
};

size_t plan_element_bytes(const struct plan *p, enum tensor_type type)
{
    return type == TENSOR_ACT ? p->act_bytes : 4;
}

static bool is_product(const struct node *n)
{
    return n->op == OP_LINEAR || n->op == OP_CONV2D;
}

/* The node that writes tensor t, if t has this one reader only and is not bound from
 * outside. */
static struct node *sole_maker(const struct fuser *f, int t)
{
    if (f->readers[t] != 1 || f->maker[t] < 0)
        return NULL;
    return &f->plan->nodes[f->maker[t]];
}

/* `into` now writes what `node` wrote; node is no more. */
static void take_over(struct fuser *f, struct node *into, struct node *node)
{
    f->readers[into->out] = 0;
    f->maker[into->out] = -1;
    f->maker[node->out] = (int)(into - f->plan->nodes);
    f->plan->tensors[node->out].maker = f->maker[node->out];
    into->out = node->out;
    f->is_gone[node - f->plan->nodes] = true;
}

/* A fused node runs where the later of the two stood, so that everything it reads
 * exists. */
static void move_to(struct fuser *f, struct node *from, struct node *to)
{
    *to = *from;
    f->maker[to->out] = (int)(to - f->plan->nodes);
    f->plan->tensors[to->out].maker = f->maker[to->out];
    f->is_gone[from - f->plan->nodes] = true;
    f->is_gone[to - f->plan->nodes] = false;
}

static bool is_channel_add(const struct plan *p, const struct node *add)
{
    return p->tensors[add->in[1]].shape.rank == 2 &&
           p->tensors[add->in[0]].shape.rank > 2;
}

/* Can the addition of in[1 - side] ride on the product that makes in[side]? */
static struct node *product_to_ride_on(const struct fuser *f, const struct node *add,
                                       int side)
{
    struct node *made = sole_maker(f, add->in[side]);

    if (!made || !is_product(made) || made->act != ACT_NONE || made->residual >= 0 ||
        add->in[0] == add->in[1])
        return NULL;
    if (is_channel_add(f->plan, add) && (side == 1 || made->channel_add >= 0))
        return NULL;
    return made;
}

/* Of two products the later one takes the addition: it then runs where it stood, while
 * the earlier one, moved down to the addition, would keep its input alive. */
static void fuse_add(struct fuser *f, struct node *add)
{
    struct node *first = product_to_ride_on(f, add, 0);
    struct node *second = product_to_ride_on(f, add, 1);
    int side = !first || (second && second > first);
    struct node *made = side ? second : first;

    if (!made)
        return;
    if (is_channel_add(f->plan, add))
        made->channel_add = add->in[1];
    else
        made->residual = add->in[1 - side];
    take_over(f, made, add);
    move_to(f, made, add);
}

static void fuse_activation(struct fuser *f, struct node *activate)
{
    struct node *made = sole_maker(f, activate->in[0]);

    if (!made || made->act != ACT_NONE)
        return;
    if (!is_product(made) && !(made->op == OP_GROUP_NORM && activate->act == ACT_SILU))
        return;
    made->act = activate->act;
    take_over(f, made, activate);
    move_to(f, made, activate);
}

static void fuse_upsample(struct fuser *f, struct node *conv)
{
    struct node *made = sole_maker(f, conv->in[0]);
    const struct shape *small, *large;

    if (!made || made->op != OP_UPSAMPLE2X || conv->stride != 1)
        return;
    small = &f->plan->tensors[made->in[0]].shape;
    large = &f->plan->tensors[made->out].shape;
    if (large->dim[1] != 2 * small->dim[1] || large->dim[2] != 2 * small->dim[2])
        return;
    f->readers[conv->in[0]] = 0;
    f->is_gone[f->maker[conv->in[0]]] = true;
    f->maker[conv->in[0]] = -1;
    conv->in[0] = made->in[0];
    conv->upsample = 2;
}

static void fuse_output(struct fuser *f, struct node *output)
{
    struct node *made = sole_maker(f, output->in[0]);

    if (made && is_product(made) && f->plan->tensors[output->out].type == TENSOR_F32)
        f->plan->tensors[output->in[0]].type = TENSOR_F32;
}

static void fuse(struct fuser *f)
{
    for (int i = 0; i < f->plan->node_count; i++) {
        struct node *n = &f->plan->nodes[i];

        if (n->op == OP_ADD)
            fuse_add(f, n);
        else if (n->op == OP_ACTIVATE)
            fuse_activation(f, n);
        else if (n->op == OP_CONV2D)
            fuse_upsample(f, n);
        else if (n->op == OP_OUTPUT)
            fuse_output(f, n);
    }
}

/* ---- views ---- */

static void count_reads(const struct node *n, int *readers)
{
    for (int i = 0; i < n->in_count; i++)
        readers[n->in[i]]++;
    if (n->residual >= 0)
        readers[n->residual]++;
    if (n->channel_add >= 0)
        readers[n->channel_add]++;
}

/* Can every reader of a slice cope with rows that lie apart? */
static bool readers_take_pitch(const struct fuser *f, int t)
{
    for (int i = 0; i < f->plan->node_count; i++) {
        const struct node *n = &f->plan->nodes[i];

        if (f->is_gone[i] || n->op == OP_ATTENTION)
            continue;
        if (n->residual == t)
            return false;
        for (int k = 0; k < n->in_count; k++)
            if (n->in[k] == t)
                return false;
    }
    return true;
}

static void make_view(struct plan *p, int t, int of, int64_t from)
{
    struct tensor *view = &p->tensors[t];
    const struct tensor *base = &p->tensors[of];

    view->base = base->base >= 0 ? base->base : of;
    view->offset = base->offset + from;
    view->pitch = base->pitch;
    view->type = base->type;
}

static void make_views(struct fuser *f)
{
    struct plan *p = f->plan;

    for (int i = 0; i < p->node_count; i++) {
        struct node *n = &p->nodes[i];

        if (f->is_gone[i])
            continue;
        if (n->op == OP_RESHAPE ||
            (n->op == OP_SLICE && readers_take_pitch(f, n->out))) {
            make_view(p, n->out, n->in[0], n->op == OP_SLICE ? n->from : 0);
            f->is_gone[i] = true;
        }
    }
}

static int root_of(const struct plan *p, int t)
{
    return p->tensors[t].base >= 0 ? p->tensors[t].base : t;
}

/* These read f32 as the caller has it. */
static bool reads_f32(const struct node *n)
{
    return n->op == OP_TIMESTEP || n->op == OP_EMBEDDING;
}

/* Does anything else read the memory of `root`, through whichever view? */
static bool has_reader(const struct plan *p, int root)
{
    for (int i = 0; i < p->node_count; i++) {
        const struct node *n = &p->nodes[i];

        if (reads_f32(n))
            continue;
        for (int k = 0; k < n->in_count; k++)
            if (root_of(p, n->in[k]) == root)
                return true;
        if ((n->residual >= 0 && root_of(p, n->residual) == root) ||
            (n->channel_add >= 0 && root_of(p, n->channel_add) == root))
            return true;
    }
    return false;
}

static void replace(int *tensor, int from, int to)
{
    if (*tensor == from)
        *tensor = to;
}

/* An f32 picture or latent is first brought into a tensor of our own, `input` fills it.
 */
static void own_input(struct plan *p, struct node *input)
{
    int bound = input->out, own = p->tensor_count++; /* room was made in plan_new */

    p->tensors[own] = p->tensors[bound];
    p->tensors[own].type = TENSOR_ACT;
    for (int t = 0; t < p->tensor_count; t++) {
        if (p->tensors[t].base == bound) {
            p->tensors[t].base = own;
            p->tensors[t].type = TENSOR_ACT;
        }
    }
    for (int i = 0; i < p->node_count; i++) {
        struct node *n = &p->nodes[i];

        if (reads_f32(n))
            continue;
        for (int k = 0; k < n->in_count; k++)
            replace(&n->in[k], bound, own);
        replace(&n->residual, bound, own);
        replace(&n->channel_add, bound, own);
    }
    input->in[0] = bound;
    input->in_count = 1;
    input->out = own;
}

/* Memory bound by the caller is what the graph reads wherever that can be (see plan.h).
 */
static void bind_memory(struct plan *p, const struct graph *g)
{
    for (int i = 0; i < g->output_count; i++) {
        int bound = g->nodes[g->outputs[i]].out;

        p->places[bound].kind = PLACE_OUTPUT;
        p->places[bound].slot = i;
    }
    for (int i = 0; i < g->input_count; i++) {
        int bound = g->inputs[i];

        p->places[bound].kind = PLACE_INPUT;
        p->places[bound].slot = i;
        if (p->tensors[bound].type != TENSOR_F32 || !has_reader(p, bound))
            continue;
        for (int k = 0; k < p->node_count; k++)
            if (p->nodes[k].op == OP_INPUT && p->nodes[k].out == bound)
                own_input(p, &p->nodes[k]);
    }
}

/* ---- in place ---- */

/* The last node that reads the memory of `root`, through whichever view. */
static int last_read(const struct plan *p, int root)
{
    int last = -1;

    for (int i = 0; i < p->node_count; i++) {
        const struct node *n = &p->nodes[i];
        int reads[GRAPH_MAX_IN + 2] = {n->residual, n->channel_add};

        memcpy(reads + 2, n->in, sizeof(n->in));
        for (int k = 0; k < GRAPH_MAX_IN + 2; k++)
            if (reads[k] >= 0 && root_of(p, reads[k]) == root)
                last = i;
    }
    return last;
}

static bool reads_twice(const struct plan *p, const struct node *n, int root)
{
    int count = 0;

    for (int k = 0; k < n->in_count; k++)
        count += root_of(p, n->in[k]) == root;
    count += n->residual >= 0 && root_of(p, n->residual) == root;
    count += n->channel_add >= 0 && root_of(p, n->channel_add) == root;
    return count > 1;
}

static int overwritten_input(const struct node *n)
{
    switch (n->op) {
    case OP_LINEAR:
    case OP_CONV2D:
        return n->residual;
    case OP_ADD:
    case OP_ACTIVATE:
    case OP_PRELU:
    case OP_GROUP_NORM:
    case OP_LAYER_NORM:
        return n->in[0];
    default:
        return -1;
    }
}

static void work_in_place(struct plan *p)
{
    for (int i = 0; i < p->node_count; i++) {
        struct node *n = &p->nodes[i];
        int x = overwritten_input(n);
        int root;

        if (x < 0)
            continue;
        root = root_of(p, x);
        if (p->places[root].kind == PLACE_INPUT || last_read(p, root) != i ||
            reads_twice(p, n, root) || p->tensors[x].type != p->tensors[n->out].type ||
            p->tensors[x].pitch != shape_last(&p->tensors[x].shape) ||
            shape_elements(&p->tensors[x].shape) !=
                shape_elements(&p->tensors[root].shape))
            continue;
        p->tensors[n->out].base = root;
        p->tensors[n->out].offset = 0;
        p->tensors[n->out].pitch = shape_last(&p->tensors[n->out].shape);
        /* views of this result were made before it had a base */
        for (int t = 0; t < p->tensor_count; t++)
            if (p->tensors[t].base == n->out)
                p->tensors[t].base = root;
    }
}

/* ---- putting it together ---- */

static void drop_gone_nodes(struct fuser *f)
{
    struct plan *p = f->plan;
    int kept = 0;

    for (int i = 0; i < p->node_count; i++)
        if (!f->is_gone[i])
            p->nodes[kept++] = p->nodes[i];
    p->node_count = kept;
}

static void touch(struct plan *p, int t, int node)
{
    struct plan_tensor_place *place;

    if (t < 0)
        return;
    place = &p->places[root_of(p, t)];
    if (place->first < 0)
        place->first = node;
    place->last = node;
}

static void find_lives(struct plan *p)
{
    for (int t = 0; t < p->tensor_count; t++)
        p->places[t].first = p->places[t].last = -1;
    for (int i = 0; i < p->node_count; i++) {
        const struct node *n = &p->nodes[i];

        for (int k = 0; k < GRAPH_MAX_IN; k++)
            touch(p, n->in[k], i);
        touch(p, n->residual, i);
        touch(p, n->channel_add, i);
        touch(p, n->out, i);
        p->tensors[n->out].maker = i;
    }
    for (int t = 0; t < p->tensor_count; t++) {
        const struct tensor *x = &p->tensors[t];
        struct plan_tensor_place *place = &p->places[t];

        place->bytes = 0;
        if (x->base < 0 && place->first >= 0 && place->kind == PLACE_ARENA)
            place->bytes =
                (size_t)shape_elements(&x->shape) * plan_element_bytes(p, x->type);
    }
}

struct plan *plan_new(const struct graph *g, const struct plan_options *options)
{
    struct plan *p = mem_zalloc(sizeof(*p));
    size_t nodes = (size_t)g->node_count, tensors = (size_t)g->tensor_count;
    size_t room = tensors + (size_t)g->input_count;
    struct fuser f = {.plan = p};

    assert(g->err.code == ERR_NONE &&
           (options->act_bytes == 2 || options->act_bytes == 4));
    p->act_bytes = options->act_bytes;
    p->nodes = mem_zalloc(nodes * sizeof(*p->nodes));
    p->tensors = mem_zalloc(room * sizeof(*p->tensors));
    p->places = mem_zalloc(room * sizeof(*p->places));
    p->scratch_offset = mem_zalloc(nodes * sizeof(*p->scratch_offset));
    p->scratch_bytes = mem_zalloc(nodes * sizeof(*p->scratch_bytes));
    memcpy(p->nodes, g->nodes, nodes * sizeof(*p->nodes));
    memcpy(p->tensors, g->tensors, tensors * sizeof(*p->tensors));
    p->node_count = g->node_count;
    p->tensor_count = g->tensor_count;
    p->input_count = g->input_count;
    p->output_count = g->output_count;

    f.readers = mem_zalloc(tensors * sizeof(*f.readers));
    f.maker = mem_alloc(tensors * sizeof(*f.maker));
    f.is_gone = mem_zalloc(nodes * sizeof(*f.is_gone));
    for (int i = 0; i < p->node_count; i++) {
        count_reads(&p->nodes[i], f.readers);
        f.maker[p->nodes[i].out] = p->nodes[i].op == OP_INPUT ? -1 : i;
    }
    if (options->fusing == PLAN_FUSE)
        fuse(&f);
    make_views(&f);
    drop_gone_nodes(&f);
    free(f.readers);
    free(f.maker);
    free(f.is_gone);
    bind_memory(p, g);
    work_in_place(p);
    find_lives(p);
    plan_place(p, NULL);
    return p;
}

void plan_free(struct plan *p)
{
    if (!p)
        return;
    free(p->nodes);
    free(p->tensors);
    free(p->places);
    free(p->scratch_offset);
    free(p->scratch_bytes);
    free(p);
}

/* ---- places ---- */

struct block {
    size_t bytes, offset;
    int first, last;
    size_t *ret_offset;
};

static int by_size_descending(const void *a, const void *b)
{
    const struct block *x = a, *y = b;

    if (x->bytes != y->bytes)
        return x->bytes < y->bytes ? 1 : -1;
    return x->first != y->first ? (x->first < y->first ? -1 : 1) : 0;
}

static int by_offset(const void *a, const void *b)
{
    const struct block *const *x = a, *const *y = b;

    return (*x)->offset < (*y)->offset ? -1 : (*x)->offset > (*y)->offset;
}

/* The lowest gap that is wide enough between the placed blocks that are alive together
 * with `b`. */
static size_t lowest_gap(const struct block *placed, size_t count,
                         const struct block *b, const struct block **alive)
{
    size_t alive_count = 0, offset = 0;

    for (size_t i = 0; i < count; i++)
        if (placed[i].first <= b->last && b->first <= placed[i].last)
            alive[alive_count++] = &placed[i];
    qsort(alive, alive_count, sizeof(*alive), by_offset);
    for (size_t i = 0; i < alive_count; i++) {
        if (alive[i]->offset >= offset + b->bytes)
            break;
        if (alive[i]->offset + alive[i]->bytes > offset)
            offset = alive[i]->offset + alive[i]->bytes;
    }
    return offset;
}

static size_t align_up(size_t n)
{
    return (n + PLAN_ALIGN - 1) / PLAN_ALIGN * PLAN_ALIGN;
}

void plan_place(struct plan *p, const size_t *scratch)
{
    size_t room = (size_t)p->tensor_count + (size_t)p->node_count, count = 0;
    struct block *blocks = mem_zalloc(room * sizeof(*blocks));
    const struct block **alive = mem_alloc(room * sizeof(*alive));

    for (int t = 0; t < p->tensor_count; t++)
        if (p->places[t].bytes)
            blocks[count++] =
                (struct block){align_up(p->places[t].bytes), 0, p->places[t].first,
                               p->places[t].last, &p->places[t].offset};
    for (int i = 0; i < p->node_count; i++) {
        p->scratch_bytes[i] = scratch ? scratch[i] : 0;
        p->scratch_offset[i] = 0;
        if (p->scratch_bytes[i])
            blocks[count++] = (struct block){align_up(p->scratch_bytes[i]), 0, i, i,
                                             &p->scratch_offset[i]};
    }
    qsort(blocks, count, sizeof(*blocks), by_size_descending);
    p->arena_bytes = 0;
    for (size_t i = 0; i < count; i++) {
        blocks[i].offset = lowest_gap(blocks, i, &blocks[i], alive);
        *blocks[i].ret_offset = blocks[i].offset;
        if (blocks[i].offset + blocks[i].bytes > p->arena_bytes)
            p->arena_bytes = blocks[i].offset + blocks[i].bytes;
    }
    free(blocks);
    free(alive);
}

void *plan_address(const struct plan *p, int t, void *arena, void *const *inputs,
                   void *const *outputs)
{
    const struct tensor *x = &p->tensors[t];
    const struct plan_tensor_place *place = &p->places[root_of(p, t)];
    size_t offset = (size_t)x->offset * plan_element_bytes(p, x->type);

    if (place->kind == PLACE_INPUT)
        return (char *)inputs[place->slot] + offset;
    if (place->kind == PLACE_OUTPUT)
        return (char *)outputs[place->slot] + offset;
    return (char *)arena + place->offset + offset;
}
