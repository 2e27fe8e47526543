/* networks: what the names of a checkpoint's tensors say.
 *
 * The names are CompVis', Hugging Face's CLIP and OpenCLIP, with the prefixes of whole
 * checkpoints; a U-Net or a VAE alone in a file has none. A network is a list of modules,
 * and a module a list of words: a tensor "<stem>.<word>.weight" says that there is such a
 * module at <stem>, and then each of its words must be there. Marks before a word:
 *     ?  may be absent     -  has no bias     =  is a tensor's whole name, no ".weight"
 * The first list of a network is of what it has once, at its root.
 *
 * Rejected: asking the graph builder. It stops at the first tensor that is not there,
 * because all shapes behind it hang in the air; here the question is how many lack. And
 * it knows the families that are drawn, this the ones that exist. */
#include "engine/inspect/networks.h"

#include "base/mem.h"
#include "base/str.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NAME_ROOM 600

static const char *const unet_modules[] = {
    "time_embed.0 time_embed.2 input_blocks.0.0 out.0 out.2 ?label_emb.0.0 "
    "?label_emb.0.2",
    "in_layers.0 in_layers.2 emb_layers.1 out_layers.0 out_layers.3 ?skip_connection",
    "norm proj_in proj_out",
    "norm1 norm2 norm3 -attn1.to_q -attn1.to_k -attn1.to_v attn1.to_out.0 -attn2.to_q "
    "-attn2.to_k -attn2.to_v attn2.to_out.0 ff.net.0.proj ff.net.2",
    "op",
    "conv",
    NULL};
static const char *const encoder_modules[] = {
    "encoder.conv_in encoder.norm_out encoder.conv_out ?quant_conv",
    "norm1 conv1 norm2 conv2 ?nin_shortcut", "norm q k v proj_out", "conv", NULL};
static const char *const decoder_modules[] = {
    "decoder.conv_in decoder.norm_out decoder.conv_out ?post_quant_conv",
    "norm1 conv1 norm2 conv2 ?nin_shortcut", "norm q k v proj_out", "conv", NULL};
static const char *const clip_modules[] = {
    "-embeddings.token_embedding -embeddings.position_embedding final_layer_norm "
    "?=embeddings.position_ids",
    "layer_norm1 layer_norm2 self_attn.q_proj self_attn.k_proj self_attn.v_proj "
    "self_attn.out_proj mlp.fc1 mlp.fc2",
    NULL};
/* what Hugging Face keeps beside the text model */
static const char *const projection_modules[] = {"-text_projection", NULL};
static const char *const openclip_modules[] = {
    "=positional_embedding -token_embedding ln_final ?=text_projection ?=logit_scale",
    "ln_1 ln_2 =attn.in_proj_weight =attn.in_proj_bias attn.out_proj mlp.c_fc "
    "mlp.c_proj",
    NULL};

/* The first that fits counts. `only`: names that begin so; NULL: all. `witness`: only in
 * a file with this tensor, because other models use these words too; NULL: in any. */
static const struct naming {
    const char *prefix, *only;
    enum network network;
    const char *const *modules;
    const char *witness;
} namings[] = {
    {"model.diffusion_model.", NULL, NETWORK_UNET, unet_modules, NULL},
    {"first_stage_model.", "encoder. quant_conv.", NETWORK_ENCODER, encoder_modules,
     NULL},
    {"first_stage_model.", "decoder. post_quant_conv.", NETWORK_DECODER,
     decoder_modules, NULL},
    {"cond_stage_model.transformer.text_model.", NULL, NETWORK_TEXT, clip_modules,
     NULL},
    {"cond_stage_model.transformer.", NULL, NETWORK_TEXT, clip_modules, NULL},
    {"cond_stage_model.model.", NULL, NETWORK_TEXT, openclip_modules, NULL},
    {"conditioner.embedders.0.transformer.text_model.", NULL, NETWORK_TEXT,
     clip_modules, NULL},
    {"conditioner.embedders.0.model.", NULL, NETWORK_TEXT, openclip_modules, NULL},
    {"conditioner.embedders.1.model.", NULL, NETWORK_TEXT2, openclip_modules, NULL},
    {"conditioner.embedders.1.transformer.text_model.", NULL, NETWORK_TEXT2,
     clip_modules, NULL}, /* of a diffusers folder */
    {"conditioner.embedders.1.transformer.", NULL, NETWORK_TEXT2, projection_modules,
     NULL},
    {"text_model.", NULL, NETWORK_TEXT, clip_modules, NULL},
    {"", "input_blocks. middle_block. output_blocks. time_embed. label_emb. out.",
     NETWORK_UNET, unet_modules, "input_blocks.0.0.weight"},
    {"", "encoder. quant_conv.", NETWORK_ENCODER, encoder_modules,
     "encoder.conv_in.weight"},
    {"", "decoder. post_quant_conv.", NETWORK_DECODER, decoder_modules,
     "decoder.conv_in.weight"},
};
enum { NAMINGS = sizeof(namings) / sizeof(namings[0]) };

const char *network_title(enum network network)
{
    static const char *const titles[] = {"U-Net", "text encoder", "second text encoder",
                                         "VAE encoder", "VAE decoder"};

    return titles[network];
}

/* ---- lists of names ---- */

static void list_add(struct name_list *l, const char *name)
{
    if (l->count % 64 == 0)
        l->names = mem_realloc(l->names, (l->count + 64) * sizeof(*l->names));
    l->names[l->count++] = mem_strdup(name);
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static void list_sort(struct name_list *l)
{
    size_t kept = 0;

    if (l->count)
        qsort(l->names, l->count, sizeof(*l->names), by_text);
    for (size_t i = 0; i < l->count; i++) {
        if (kept && strcmp(l->names[kept - 1], l->names[i]) == 0)
            free(l->names[i]);
        else
            l->names[kept++] = l->names[i];
    }
    l->count = kept;
}

static void list_release(struct name_list *l)
{
    for (size_t i = 0; i < l->count; i++)
        free(l->names[i]);
    free(l->names);
}

/* ---- words ---- */

struct word {
    char text[40];
    bool is_optional, has_no_bias, is_whole;
};

/* The next word of *list; false at the end. */
static bool next_word(const char **list, struct word *ret)
{
    const char *at = *list + strspn(*list, " ");
    size_t len;

    *ret = (struct word){0};
    for (; *at && strchr("?-=", *at); at++) {
        ret->is_optional |= *at == '?';
        ret->has_no_bias |= *at == '-';
        ret->is_whole |= *at == '=';
    }
    len = strcspn(at, " ");
    snprintf(ret->text, sizeof(ret->text), "%.*s", (int)len, at);
    *list = at + len;
    return len > 0;
}

/* Does rest [len], a name without its network, end with this word? Then *ret_stem is the
 * length of what stands before, without the dot. */
static bool ends_with(const char *rest, const struct word *w, bool at_root,
                      size_t *ret_stem)
{
    size_t len = strlen(rest), word = strlen(w->text);

    if (!w->is_whole && str_has_suffix(rest, ".weight"))
        len -= strlen(".weight");
    else if (!w->is_whole && !w->has_no_bias && str_has_suffix(rest, ".bias"))
        len -= strlen(".bias");
    else if (!w->is_whole)
        return false;
    if (len < word || memcmp(rest + len - word, w->text, word) != 0)
        return false;
    if (at_root || len == word) {
        *ret_stem = 0;
        return at_root && len == word;
    }
    *ret_stem = len - word - 1;
    return rest[len - word - 1] == '.';
}

/* ---- what lacks ---- */

struct reading {
    struct networks *networks;
    const struct weights_file *file;
    bool counts[NAMINGS];             /* this naming, in this file */
    char last[NAMINGS][8][NAME_ROOM]; /* the module's stem looked at last */
};

/* Is there a tensor whose name begins so? */
static bool has_any(const struct weights_file *file, const char *prefix)
{
    size_t from = 0, to = weights_file_count(file);

    while (from < to) { /* to the first name not below it */
        size_t middle = from + (to - from) / 2;

        if (strcmp(weights_file_at(file, middle)->name, prefix) < 0)
            from = middle + 1;
        else
            to = middle;
    }
    return from < weights_file_count(file) &&
           str_has_prefix(weights_file_at(file, from)->name, prefix);
}

static void want(struct reading *r, const char *stem, const char *word,
                 const char *ending)
{
    char name[NAME_ROOM];

    snprintf(name, sizeof(name), "%.300s%.39s%.7s", stem, word, ending);
    if (!weights_file_find(r->file, name))
        list_add(&r->networks->missing, name);
}

static void want_module(struct reading *r, const char *stem, const char *words)
{
    char name[NAME_ROOM];
    struct word w;

    while (next_word(&words, &w)) {
        snprintf(name, sizeof(name), "%.300s%.39s.", stem, w.text);
        if (w.is_optional && (w.is_whole || !has_any(r->file, name)))
            continue;
        want(r, stem, w.text, w.is_whole ? "" : ".weight");
        if (!w.is_whole && !w.has_no_bias)
            want(r, stem, w.text, ".bias");
    }
}

/* Of "...input_blocks.5.1." also "...input_blocks.4." should be there, and "....5.0.". */
static void find_gaps(struct reading *r, const char *stem)
{
    for (const char *dot = strchr(stem, '.'); dot; dot = strchr(dot + 1, '.')) {
        char name[NAME_ROOM];
        int64_t number;
        size_t digits = strspn(dot + 1, "0123456789");

        if (!digits || digits > 4 || dot[1 + digits] != '.')
            continue;
        snprintf(name, sizeof(name), "%.*s", (int)digits, dot + 1);
        if (str_to_int(name, "number", 1, 9999, &number, NULL))
            continue; /* 0 */
        snprintf(name, sizeof(name), "%.*s.%d.", (int)(dot - stem), stem,
                 (int)number - 1);
        if (has_any(r->file, name))
            continue;
        snprintf(name, sizeof(name), "%.*s.%d.*", (int)(dot - stem), stem,
                 (int)number - 1);
        list_add(&r->networks->gaps, name);
    }
}

/* The module that has this tensor, looked at once for all of its tensors; false when
 * there is none. */
static bool find_module(struct reading *r, size_t naming, const char *rest)
{
    const char *prefix = namings[naming].prefix;
    const char *const *modules = namings[naming].modules;

    for (size_t m = 0; modules[m]; m++) {
        const char *words = modules[m];
        char stem[NAME_ROOM];
        struct word w;
        size_t len;

        while (next_word(&words, &w)) {
            if (!ends_with(rest, &w, m == 0, &len))
                continue;
            snprintf(stem, sizeof(stem), "%s%.*s%s", prefix, (int)len, rest,
                     len ? "." : "");
            if (strcmp(r->last[naming][m], stem) != 0) {
                snprintf(r->last[naming][m], sizeof(r->last[naming][m]), "%s", stem);
                want_module(r, stem, modules[m]);
                find_gaps(r, stem);
            }
            return true;
        }
    }
    return false;
}

/* ---- reading ---- */

static bool begins_so(const struct naming *n, const char *rest)
{
    const char *only = n->only ? n->only : "";
    struct word beginning;

    while (next_word(&only, &beginning))
        if (str_has_prefix(rest, beginning.text))
            return true;
    return !n->only;
}

/* NAMINGS when it belongs to none */
static size_t naming_of(const struct reading *r, const char *name)
{
    for (size_t i = 0; i < NAMINGS; i++)
        if (r->counts[i] && str_has_prefix(name, namings[i].prefix) &&
            begins_so(&namings[i], name + strlen(namings[i].prefix)))
            return i;
    return NAMINGS;
}

static void read_tensor(struct reading *r, const struct weight *w)
{
    size_t i = naming_of(r, w->name);
    struct network_size *size =
        i < NAMINGS ? &r->networks->of[namings[i].network] : NULL;

    if (size) {
        size->tensors++;
        size->bytes += w->bytes;
        if (w->type != WEIGHT_OTHER)
            size->parameters += weight_count(w);
        if (namings[i].network == NETWORK_UNET)
            r->networks->unet = namings[i].prefix;
    }
    if (!size || !find_module(r, i, w->name + strlen(namings[i].prefix)))
        list_add(&r->networks->left_over, w->name);
}

void networks_read(struct networks *ret, const struct weights_file *file)
{
    struct reading *r = mem_zalloc(sizeof(*r));

    *ret = (struct networks){0};
    *r = (struct reading){.networks = ret, .file = file};
    for (size_t i = 0; i < NAMINGS; i++)
        r->counts[i] =
            !namings[i].witness || weights_file_find(file, namings[i].witness);
    for (size_t i = 0; i < weights_file_count(file); i++)
        read_tensor(r, weights_file_at(file, i));
    list_sort(&ret->missing);
    list_sort(&ret->left_over);
    free(r);
}

void networks_count_gaps(struct networks *n)
{
    for (size_t i = 0; i < n->gaps.count; i++)
        list_add(&n->missing, n->gaps.names[i]);
    list_sort(&n->missing);
}

void networks_release(struct networks *n)
{
    list_release(&n->gaps);
    list_release(&n->missing);
    list_release(&n->left_over);
}
