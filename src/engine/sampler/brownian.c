/* A path W over [low, high] is known at its ends first: W(high) - W(low) is one normal number per element, from the
 * seed. Where a time in between is asked for, the interval is halved: the increment over the left half is the mean
 * given the whole (half of it, by time) plus a normal number from the node's own seed, the right half's is the rest;
 * and so on down, until the asked time is reached. Times are rounded to 1e-6, so that it ends (Levy's construction; Li
 * et al. 2020, "Scalable gradients for stochastic differential equations").
 *
 * A node's seed is numpy's SeedSequence over (seed, position in its row, row): written out here, because bit for bit
 * is the point. Each node draws from a generator of its own, seeded with the first of the four words it gets.
 *
 * torchsde keeps a cache of nodes; here a query walks down from the top each time, which costs some twenty fills of
 * one latent, nothing beside a run of the model, and needs four vectors whatever the depth. */
#include "engine/sampler/brownian.h"

#include <math.h>
#include <string.h>

enum { POOL = 24 };

static uint32_t hash_word(uint32_t value, uint32_t *constant)
{
    value ^= *constant;
    *constant *= 0x931e8875U;
    value *= *constant;
    return value ^ value >> 16;
}

static uint32_t mix_words(uint32_t x, uint32_t y)
{
    uint32_t mixed = 0xca01f9ddU * x - 0x4973f715U * y;

    return mixed ^ mixed >> 16;
}

uint32_t brownian_seed(uint64_t entropy, uint32_t key, int depth)
{
    uint32_t pool[POOL] = {(uint32_t)entropy, (uint32_t)(entropy >> 32)};
    uint32_t spawn[2] = {key, (uint32_t)depth}, constant = 0x43b0d7e5U;

    for (int i = 0; i < POOL; i++)
        pool[i] = hash_word(pool[i], &constant);
    for (int from = 0; from < POOL; from++)
        for (int to = 0; to < POOL; to++)
            if (from != to)
                pool[to] = mix_words(pool[to], hash_word(pool[from], &constant));
    for (int from = 0; depth >= 0 && from < 2; from++)
        for (int to = 0; to < POOL; to++)
            pool[to] = mix_words(pool[to], hash_word(spawn[from], &constant));

    uint32_t first = pool[0] ^ 0x8b51f9ddU; /* the first word of generate_state() */
    first *= 0x8b51f9ddU * 0x58f38dedU;
    return first ^ first >> 16;
}

/* Python's round(t, 6). The middle of two levels lies half way between two millionths again and again, so it matters
 * on which side of that the double is; the product's own rounding would hide it. */
static double to_grid(double t)
{
    double product = t * 1e6, error = fma(t, 1e6, -product);
    double below = floor(product), rest = product - below;
    bool goes_up = rest > 0.5 || (rest == 0.5 && error > 0) ||
                   (rest == 0.5 && error == 0 && fmod(below, 2) != 0);

    return (below + goes_up) / 1e6;
}

struct node {
    double start, end;
    uint32_t key;
    int depth;
};

static struct node child(const struct node *n, double middle, unsigned right)
{
    return (struct node){right ? middle : n->start, right ? n->end : middle,
                         2 * n->key + right, n->depth + 1};
}

static void draw(const struct brownian *tree, uint32_t seed, float *ret)
{
    struct noise noise;

    noise_init(&noise, tree->kind, seed);
    noise_fill(&noise, ret, tree->count);
}

/* w: the node's increment -> left: that of its left half */
static void halve(const struct brownian *tree, const struct node *n, double middle,
                  const float *w, float *left)
{
    double part = (middle - n->start) / (n->end - n->start);
    double deviation =
        sqrt((middle - n->start) * (n->end - middle) / (n->end - n->start));

    draw(tree, brownian_seed(tree->seed, n->key, n->depth), left);
    for (size_t i = 0; i < tree->count; i++)
        left[i] = (float)((double)w[i] * part + deviation * (double)left[i]);
}

static void add(float *sum, const float *w, size_t count)
{
    for (size_t i = 0; i < count; i++)
        sum[i] += w[i];
}

static void subtract(float *w, const float *left, size_t count)
{
    for (size_t i = 0; i < count; i++)
        w[i] -= left[i];
}

/* Adds the increment over [from, to], which lies in the node and touches one of its ends. */
static void add_end_part(const struct brownian *tree, struct node n, double from,
                         double to, float *w, float *sum)
{
    float *left = tree->memory + 2 * tree->count;

    while (from > n.start || to < n.end) {
        double middle = to_grid(0.5 * (n.start + n.end));

        halve(tree, &n, middle, w, left);
        if (from >= middle || from == n.start) {
            if (from == n.start && to <= middle) {
                memcpy(w, left, tree->count * sizeof(*w));
                n = child(&n, middle, 0);
                continue;
            }
            if (from == n.start) {
                add(sum, left, tree->count);
                from = middle;
            }
            subtract(w, left, tree->count);
            n = child(&n, middle, 1);
        } else { /* to is the node's end */
            subtract(w, left, tree->count);
            add(sum, w, tree->count);
            memcpy(w, left, tree->count * sizeof(*w));
            to = middle;
            n = child(&n, middle, 0);
        }
    }
    add(sum, w, tree->count);
}

static void add_part(const struct brownian *tree, double from, double to, float *sum)
{
    struct node n = {to_grid(tree->low), to_grid(tree->high), 0, 0};
    float *w = tree->memory, *right = w + tree->count, *left = right + tree->count;

    draw(tree, brownian_seed(tree->seed, 0, -1), w);
    for (size_t i = 0; i < tree->count; i++)
        w[i] = (float)((double)w[i] * sqrt(tree->high - tree->low));
    while (from > n.start && to < n.end) {
        double middle = to_grid(0.5 * (n.start + n.end));

        halve(tree, &n, middle, w, left);
        if (from < middle && to > middle) {
            struct node half = child(&n, middle, 1);

            memcpy(right, w, tree->count * sizeof(*w));
            subtract(right, left, tree->count);
            memcpy(w, left, tree->count * sizeof(*w));
            n = child(&n, middle, 0);
            add_end_part(tree, n, from, middle, w, sum);
            add_end_part(tree, half, middle, to, right, sum);
            return;
        }
        if (from >= middle)
            subtract(w, left, tree->count);
        else
            memcpy(w, left, tree->count * sizeof(*w));
        n = child(&n, middle, from >= middle);
    }
    add_end_part(tree, n, from, to, w, sum);
}

void brownian_noise(const struct brownian *tree, double sigma, double next, float *ret)
{
    double low = to_grid(tree->low), high = to_grid(tree->high);
    double from = fmin(fmax(to_grid(next), low), high);
    double to = fmin(fmax(to_grid(sigma), low), high);

    memset(ret, 0, tree->count * sizeof(*ret));
    if (from >= to)
        return;
    add_part(tree, from, to, ret);
    /* the path is walked from high to low, so the increment changes its sign */
    for (size_t i = 0; i < tree->count; i++)
        ret[i] = (float)(-(double)ret[i] / sqrt(sigma - next));
}
