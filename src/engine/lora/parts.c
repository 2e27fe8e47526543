/* parts: what a tensor's name says, in all spellings, and the tensors of one stem
 * together.
 *
 * Two tables know the endings. What stands before one, the stem, is left as it is: what
 * it means depends on the base (names.c). Tensors of one stem do not always stand beside
 * each other in a sorted file, so they are sorted once more, by stem.
 *
 * IA3's scales are called "<stem>.weight", as everything in a checkpoint is; they are
 * known by the "<stem>.on_input" beside them. */
#include "engine/lora/parts.h"

#include "base/mem.h"
#include "engine/lora/bundle.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NAME_ROOM = 300 }; /* names in a file have at most 256 bytes */

struct key {
    const struct weight *weight;
    size_t stem_len;
    enum lora_part part;
};

struct suffix {
    const char *text;
    enum lora_part part;
};

/* kohya, PEFT and diffusers, diffusers of 2023 (attention processors, "_lora"; all else,
 * ".lora"; text, ".lora_linear_layer"), LyCORIS. */
static const struct suffix suffixes[] = {
    {".lora_up.weight", LORA_UP},
    {".lora_down.weight", LORA_DOWN},
    {".lora_mid.weight", LORA_MID},
    {".alpha", LORA_ALPHA},
    {".dora_scale", LORA_DORA},
    {".lora_B.weight", LORA_UP},
    {".lora_A.weight", LORA_DOWN},
    {".lora_B", LORA_UP},
    {".lora_A", LORA_DOWN},
    {".lora_magnitude_vector.weight", LORA_MAGNITUDE},
    {".lora_magnitude_vector", LORA_MAGNITUDE},
    {".lora_linear_layer.up.weight", LORA_UP},
    {".lora_linear_layer.down.weight", LORA_DOWN},
    {".lora.up.weight", LORA_UP},
    {".lora.down.weight", LORA_DOWN},
    {"_lora.up.weight", LORA_UP},
    {"_lora.down.weight", LORA_DOWN},
    {"_lora.alpha", LORA_ALPHA},
    {".hada_w1_a", LORA_HADA_W1_A},
    {".hada_w1_b", LORA_HADA_W1_B},
    {".hada_w2_a", LORA_HADA_W2_A},
    {".hada_w2_b", LORA_HADA_W2_B},
    {".hada_t1", LORA_HADA_T1},
    {".hada_t2", LORA_HADA_T2},
    {".lokr_w1", LORA_LOKR_W1},
    {".lokr_w1_a", LORA_LOKR_W1_A},
    {".lokr_w1_b", LORA_LOKR_W1_B},
    {".lokr_w2", LORA_LOKR_W2},
    {".lokr_w2_a", LORA_LOKR_W2_A},
    {".lokr_w2_b", LORA_LOKR_W2_B},
    {".lokr_t2", LORA_LOKR_T2},
    {".a1.weight", LORA_GLORA_A1},
    {".a2.weight", LORA_GLORA_A2},
    {".b1.weight", LORA_GLORA_B1},
    {".b2.weight", LORA_GLORA_B2},
    {".bm.weight", LORA_GLORA_BM},
    {".oft_blocks", LORA_OFT_BLOCKS},
    {".oft_diag", LORA_OFT_DIAG},
    {".rescale", LORA_RESCALE},
    {".on_input", LORA_IA3_ON_INPUT},
    {".set_weight", LORA_SET},
    {".diff", LORA_DIFF},
    {".diff_b", LORA_DIFF_BIAS},
    {".w_norm", LORA_DIFF},
    {".b_norm", LORA_DIFF_BIAS},
};

/* PEFT puts the adapter's name before ".weight": "<stem>.lora_A.default.weight". */
static const struct suffix adapters[] = {
    {".lora_B.", LORA_UP},
    {".lora_A.", LORA_DOWN},
    {".lora_magnitude_vector.", LORA_MAGNITUDE},
};

static size_t length_before(const char *name, const char *suffix)
{
    size_t len = strlen(name), tail = strlen(suffix);

    return len > tail && strcmp(name + len - tail, suffix) == 0 ? len - tail : 0;
}

/* the longest suffix wins, because ".alpha" ends "_lora.alpha" too */
static size_t longest_suffix(struct key *key, const char *name)
{
    size_t best = 0;

    for (size_t i = 0; i < sizeof(suffixes) / sizeof(*suffixes); i++) {
        size_t stem = length_before(name, suffixes[i].text);

        if (stem && (!best || stem < best)) {
            best = stem;
            key->part = suffixes[i].part;
        }
    }
    return best;
}

static size_t adapter_suffix(struct key *key, const char *name)
{
    static const char end[] = ".weight";

    for (size_t i = 0; i < sizeof(adapters) / sizeof(*adapters); i++) {
        const char *at = strstr(name, adapters[i].text);
        const char *adapter = at ? at + strlen(adapters[i].text) : NULL;

        if (!at || at == name || strcspn(adapter, ".") == 0 ||
            strcmp(adapter + strcspn(adapter, "."), end) != 0)
            continue;
        key->part = adapters[i].part;
        return (size_t)(at - name);
    }
    return 0;
}

static size_t ia3_suffix(struct key *key, const struct weights_file *file,
                         const char *name)
{
    size_t stem = length_before(name, ".weight");
    char beside[NAME_ROOM];

    if (!stem || stem + sizeof(".on_input") > sizeof(beside))
        return 0;
    snprintf(beside, sizeof(beside), "%.*s.on_input", (int)stem, name);
    if (!weights_file_find(file, beside))
        return 0;
    key->part = LORA_IA3;
    return stem;
}

/* false when the name is none of a LoRA's */
static bool read_key(struct key *ret_key, const struct weights_file *file,
                     const struct weight *w)
{
    ret_key->weight = w;
    ret_key->stem_len = longest_suffix(ret_key, w->name);
    if (!ret_key->stem_len)
        ret_key->stem_len = adapter_suffix(ret_key, w->name);
    if (!ret_key->stem_len)
        ret_key->stem_len = ia3_suffix(ret_key, file, w->name);
    return ret_key->stem_len > 0;
}

/* ---- groups ---- */

static int by_stem(const void *a, const void *b)
{
    const struct key *x = a, *y = b;
    size_t shorter = x->stem_len < y->stem_len ? x->stem_len : y->stem_len;
    int order = memcmp(x->weight->name, y->weight->name, shorter);

    if (order == 0 && x->stem_len != y->stem_len)
        order = x->stem_len < y->stem_len ? -1 : 1;
    return order ? order : (int)x->part - (int)y->part;
}

static int add_key(struct lora_groups *g, const struct key *key, struct err *err)
{
    struct lora_group *last = g->count ? &g->all[g->count - 1] : NULL;

    if (!last || last->stem_len != key->stem_len ||
        memcmp(last->stem, key->weight->name, key->stem_len) != 0) {
        last = &g->all[g->count++];
        *last =
            (struct lora_group){.stem = key->weight->name, .stem_len = key->stem_len};
    }
    if (last->parts.of[key->part])
        return err_set(err, ERR_BAD_FILE,
                       "tensors %s and %s say the same of one weight",
                       last->parts.of[key->part]->name, key->weight->name);
    last->parts.of[key->part] = key->weight;
    return 0;
}

int lora_groups_read(struct lora_groups *ret_groups, const struct weights_file *file,
                     struct err *err)
{
    size_t total = weights_file_count(file), count = 0;
    struct key *keys = mem_alloc((total + 1) * sizeof(*keys));
    int result = 0;

    ret_groups->all = mem_alloc((total + 1) * sizeof(*ret_groups->all));
    ret_groups->strangers = mem_alloc((total + 1) * sizeof(*ret_groups->strangers));
    ret_groups->count = ret_groups->stranger_count = ret_groups->bundled_count = 0;
    for (size_t i = 0; i < total; i++) {
        if (lora_bundle_name(weights_file_at(file, i)->name))
            ret_groups->bundled_count++;
        else if (read_key(&keys[count], file, weights_file_at(file, i)))
            count++;
        else
            ret_groups->strangers[ret_groups->stranger_count++] =
                weights_file_at(file, i)->name;
    }
    qsort(keys, count, sizeof(*keys), by_stem);
    for (size_t i = 0; i < count && !result; i++)
        result = add_key(ret_groups, &keys[i], err);
    free(keys);
    if (result)
        lora_groups_release(ret_groups);
    return result;
}

void lora_groups_release(struct lora_groups *groups)
{
    free(groups->all);
    free(groups->strangers);
    *groups = (struct lora_groups){0};
}
