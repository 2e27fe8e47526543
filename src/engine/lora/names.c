/* names: from "lora_unet_down_blocks_0_attentions_0_proj_in" to
 * model.diffusion_model.input_blocks.1.1.proj_in.weight.
 *
 * Names joined by underscores cannot be taken apart again (is "to_out_0" one word or
 * three?), so nothing is: all names that the base's own weights could have are written
 * down, with dots made underscores, and a key is looked up among them. That makes one
 * lookup serve kohya's underscores and PEFT's dots.
 *
 * A weight of the U-Net has two names, CompVis' (its own) and diffusers'. The second
 * comes from walking the base's blocks in the order in which they run, as unet/unet.c
 * does: a residual block is "resnets.N", N counts within a level, a level ends where the
 * picture is halved or doubled. So a distilled U-Net with fewer blocks, or SDXL with a
 * level less, needs no table of its own. What the walk makes is a list of pairs "names
 * that begin so begin there so"; see add_blocks.
 *
 * Weights of text encoders are known by Hugging Face's names; OpenCLIP's are translated,
 * its joint q, k, v is three places with a third of the rows each.
 *
 * An alias is the network's digit and the name: "0down_blocks_0_attentions_0_proj_in". */
#include "engine/lora/names.h"

#include "base/mem.h"
#include "base/str.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define UNET "model.diffusion_model."
#define MAX_STEM 300 /* names in a file have at most 256 bytes */
/* numbers that are looked at, as in unet/unet.c: some may be missing */
enum { BLOCKS_MAX = 64, PARTS_MAX = 4 };

struct pair {
    char ours[80], theirs[80];
};

struct alias {
    char *name;
    struct lora_place place;
};

struct lora_names {
    const struct weights_file *base;
    struct alias *aliases; /* sorted by name */
    size_t count, cap;
    struct pair *pairs; /* of the U-Net, CompVis to diffusers */
    size_t pair_count;
};

/* ---- the U-Net's blocks ---- */

static void add_pair(struct lora_names *n, const char *ours, const char *theirs)
{
    struct pair *pair;

    n->pairs = mem_realloc(n->pairs, (n->pair_count + 1) * sizeof(*n->pairs));
    pair = &n->pairs[n->pair_count++];
    snprintf(pair->ours, sizeof(pair->ours), "%s", ours);
    snprintf(pair->theirs, sizeof(pair->theirs), "%s", theirs);
}

static bool has(const struct lora_names *n, const char *part, const char *rest)
{
    char name[MAX_STEM];

    snprintf(name, sizeof(name), UNET "%s%s", part, rest);
    return weights_file_find(n->base, name) != NULL;
}

static void add_resnet(struct lora_names *n, const char *ours, const char *theirs)
{
    static const char *const inside[][2] = {
        {"in_layers.0", "norm1"},          {"in_layers.2", "conv1"},
        {"emb_layers.1", "time_emb_proj"}, {"out_layers.0", "norm2"},
        {"out_layers.3", "conv2"},         {"skip_connection", "conv_shortcut"},
    };
    char from[80], to[80];

    for (size_t i = 0; i < sizeof(inside) / sizeof(*inside); i++) {
        snprintf(from, sizeof(from), "%.60s.%s", ours, inside[i][0]);
        snprintf(to, sizeof(to), "%.60s.%s", theirs, inside[i][1]);
        add_pair(n, from, to);
    }
}

struct level {
    int number;  /* -1 in the middle, which has none */
    int resnets; /* met in it so far; a resnet's attention has the resnet's number */
};

static void level_name(char ret[64], const char *side, const struct level *level,
                       const char *list, int index)
{
    if (level->number < 0)
        snprintf(ret, 64, "%s.%s.%d", side, list, index);
    else
        snprintf(ret, 64, "%s.%d.%s.%d", side, level->number, list, index);
}

/* The parts .0, .1, ... of one block ("input_blocks.4"), those that are there. */
static void add_block(struct lora_names *n, const char *block, const char *side,
                      struct level *level)
{
    char ours[64], theirs[64], longer[80];

    for (int part = 0; part < PARTS_MAX; part++) {
        snprintf(ours, sizeof(ours), "%.40s.%d", block, part);
        if (has(n, ours, ".in_layers.0.weight")) {
            level_name(theirs, side, level, "resnets", level->resnets++);
            add_resnet(n, ours, theirs);
        } else if (has(n, ours, ".proj_in.weight")) {
            level_name(theirs, side, level, "attentions",
                       level->resnets ? level->resnets - 1 : 0);
            add_pair(n, ours, theirs);
        } else if (has(n, ours, ".op.weight") || has(n, ours, ".conv.weight")) {
            bool halves = has(n, ours, ".op.weight");

            level_name(theirs, side, level, halves ? "downsamplers" : "upsamplers", 0);
            snprintf(longer, sizeof(longer), "%s.conv", theirs);
            snprintf(theirs, sizeof(theirs), "%.40s.%s", ours, halves ? "op" : "conv");
            add_pair(n, theirs, longer);
            *level = (struct level){.number = level->number + 1};
        } /* else conv_in, see add_blocks, or nothing */
    }
}

static void add_side(struct lora_names *n, const char *blocks, const char *side)
{
    struct level level = {0};
    char block[40];

    for (int i = 0; i < BLOCKS_MAX; i++) {
        snprintf(block, sizeof(block), "%s.%d", blocks, i);
        add_block(n, block, side, &level);
    }
}

static void add_blocks(struct lora_names *n)
{
    static const char *const outside[][2] = {
        {"input_blocks.0.0", "conv_in"},
        {"time_embed.0", "time_embedding.linear_1"},
        {"time_embed.2", "time_embedding.linear_2"},
        {"label_emb.0.0", "add_embedding.linear_1"},
        {"label_emb.0.2", "add_embedding.linear_2"},
        {"out.0", "conv_norm_out"},
        {"out.2", "conv_out"},
    };
    struct level middle = {.number = -1};

    for (size_t i = 0; i < sizeof(outside) / sizeof(*outside); i++)
        add_pair(n, outside[i][0], outside[i][1]);
    add_side(n, "input_blocks", "down_blocks");
    add_block(n, "middle_block", "mid_block", &middle);
    add_side(n, "output_blocks", "up_blocks");
}

/* ---- aliases ---- */

static void underscores(char *name)
{
    for (; *name; name++)
        if (*name == '.')
            *name = '_';
}

static void add_alias(struct lora_names *n, const char *name,
                      const struct lora_place *place)
{
    if (n->count == n->cap) {
        n->cap = n->cap ? 2 * n->cap : 1024;
        n->aliases = mem_realloc(n->aliases, n->cap * sizeof(*n->aliases));
    }
    n->aliases[n->count].name = mem_printf("%d%s", (int)place->network, name);
    underscores(n->aliases[n->count].name);
    n->aliases[n->count++].place = *place;
}

/* Attention processors called to_out.0 "to_out". */
static void add_with_processor(struct lora_names *n, const char *name,
                               const struct lora_place *place)
{
    char shorter[MAX_STEM];

    add_alias(n, name, place);
    if (!str_has_suffix(name, ".to_out.0"))
        return;
    snprintf(shorter, sizeof(shorter), "%.*s", (int)(strlen(name) - 2), name);
    add_alias(n, shorter, place);
}

static void add_unet(struct lora_names *n, const char *stem,
                     const struct lora_place *place)
{
    char name[MAX_STEM];

    add_with_processor(n, stem, place);
    for (size_t i = 0; i < n->pair_count; i++) {
        size_t len = strlen(n->pairs[i].ours);

        if (strncmp(stem, n->pairs[i].ours, len) != 0 ||
            (stem[len] && stem[len] != '.'))
            continue;
        snprintf(name, sizeof(name), "%s%s", n->pairs[i].theirs, stem + len);
        add_with_processor(n, name, place);
        return;
    }
}

/* Hugging Face's name, and that of diffusers' first attention processors, which called
 * q_proj "to_q" in text encoders too. */
static void add_text(struct lora_names *n, const char *stem,
                     const struct lora_place *place)
{
    const char *begin = str_has_prefix(stem, "text_model.") ? "" : "text_model.";
    const char *last = strrchr(stem, '.');
    char name[MAX_STEM];

    snprintf(name, sizeof(name), "%s%s", begin, stem);
    add_alias(n, name, place);
    if (!last || !str_has_suffix(last, "_proj"))
        return;
    snprintf(name, sizeof(name), "%s%.*s.to_%.*s", begin, (int)(last - stem), stem,
             (int)(strlen(last) - strlen("._proj")), last + 1);
    add_alias(n, name, place);
}

/* "transformer.resblocks.3.mlp.c_fc" -> "text_model.encoder.layers.3.mlp.fc1" */
static void add_openclip(struct lora_names *n, const char *stem,
                         const struct lora_place *place)
{
    static const char blocks[] = "transformer.resblocks.";
    static const char *const inside[][2] = {
        {".ln_1", ".layer_norm1"},
        {".ln_2", ".layer_norm2"},
        {".mlp.c_fc", ".mlp.fc1"},
        {".mlp.c_proj", ".mlp.fc2"},
        {".attn.out_proj", ".self_attn.out_proj"},
        {".attn.q_proj", ".self_attn.q_proj"},
        {".attn.k_proj", ".self_attn.k_proj"},
        {".attn.v_proj", ".self_attn.v_proj"},
    };
    char name[MAX_STEM];

    if (strcmp(stem, "ln_final") == 0)
        add_text(n, "final_layer_norm", place);
    for (size_t i = 0; i < sizeof(inside) / sizeof(*inside); i++) {
        const char *number = stem + strlen(blocks);

        if (!str_has_prefix(stem, blocks) || !str_has_suffix(stem, inside[i][0]))
            continue;
        snprintf(name, sizeof(name), "encoder.layers.%.*s%s",
                 (int)(strlen(number) - strlen(inside[i][0])), number, inside[i][1]);
        add_text(n, name, place);
    }
}

/* q, k and v, one above the other: [3 width, width] and [3 width] */
static void add_joint(struct lora_names *n, const char *stem,
                      const struct lora_place *place)
{
    static const char which[] = "qkv";
    struct lora_place third = *place;
    char name[MAX_STEM];

    third.rows = place->rows / 3;
    for (int i = 0; place->rows % 3 == 0 && i < 3; i++) {
        third.first_row = i * third.rows;
        snprintf(name, sizeof(name), "%s.%c_proj", stem, which[i]);
        add_openclip(n, name, &third);
    }
}

/* ---- the base's networks ---- */

typedef void add_names_fn(struct lora_names *n, const char *stem,
                          const struct lora_place *place);

static const struct {
    const char *prefix;
    enum lora_network network;
    add_names_fn *add;
} networks[] = {
    {UNET, LORA_UNET, add_unet},
    {"cond_stage_model.transformer.", LORA_TEXT, add_text},
    {"cond_stage_model.model.", LORA_TEXT, add_openclip},
    {"conditioner.embedders.0.transformer.", LORA_TEXT, add_text},
    {"conditioner.embedders.0.model.", LORA_TEXT, add_openclip},
    {"conditioner.embedders.1.model.", LORA_TEXT2, add_openclip},
    {"conditioner.embedders.1.transformer.", LORA_TEXT2, add_text},
};

/* the bias beside "<stem><weight>" is "<stem><bias>" */
static void add_weight(struct lora_names *n, const struct weight *w, const char *ending,
                       const char *bias)
{
    char stem[MAX_STEM], name[MAX_STEM];
    struct lora_place place = {.weight = w, .rows = w->dim[0]};

    /* tables are read row by row, never packed: nothing could be laid over them */
    if (str_has_suffix(w->name, "_embedding.weight"))
        return;
    snprintf(stem, sizeof(stem), "%.*s", (int)(strlen(w->name) - strlen(ending)),
             w->name);
    snprintf(name, sizeof(name), "%s%s", stem, bias);
    place.bias = weights_file_find(n->base, name);
    if (place.bias && (place.bias->rank != 1 || place.bias->dim[0] != w->dim[0]))
        place.bias = NULL;
    for (size_t i = 0; i < sizeof(networks) / sizeof(*networks); i++) {
        if (!str_has_prefix(stem, networks[i].prefix))
            continue;
        place.network = networks[i].network;
        if (strcmp(ending, ".weight") == 0)
            networks[i].add(n, stem + strlen(networks[i].prefix), &place);
        else if (networks[i].add == add_openclip)
            add_joint(n, stem + strlen(networks[i].prefix), &place);
    }
}

static int by_name(const void *a, const void *b)
{
    const struct alias *x = a, *y = b;

    return strcmp(x->name, y->name);
}

struct lora_names *lora_names_new(const struct weights_file *base)
{
    struct lora_names *n = mem_zalloc(sizeof(*n));

    n->base = base;
    add_blocks(n);
    for (size_t i = 0; i < weights_file_count(base); i++) {
        const struct weight *w = weights_file_at(base, i);

        if (w->rank < 1 || w->type == WEIGHT_OTHER || weight_count(w) == 0)
            continue;
        if (str_has_suffix(w->name, ".weight"))
            add_weight(n, w, ".weight", ".bias");
        else if (str_has_suffix(w->name, ".attn.in_proj_weight"))
            add_weight(n, w, ".in_proj_weight", ".in_proj_bias");
    }
    if (n->count)
        qsort(n->aliases, n->count, sizeof(*n->aliases), by_name);
    return n;
}

void lora_names_free(struct lora_names *names)
{
    if (!names)
        return;
    for (size_t i = 0; i < names->count; i++)
        free(names->aliases[i].name);
    free(names->aliases);
    free(names->pairs);
    free(names);
}

/* ---- looking up ---- */

/* What the file may put before a name. WRAPPER: another prefix may follow. */
enum { WRAPPER = -1 };

static const struct {
    const char *text;
    int network;
} prefixes[] = {
    {"base_model.model.", WRAPPER}, /* PEFT, around any model */
    {"lycoris_", WRAPPER},
    {"text_encoders.", WRAPPER}, /* ComfyUI */
    {"lora_unet_", LORA_UNET},
    {"oft_unet_", LORA_UNET}, /* kohya's OFT */
    {"lora_te1_", LORA_TEXT},
    {"lora_te2_", LORA_TEXT2},
    {"lora_te_", LORA_TEXT},
    {"unet.", LORA_UNET},
    {"text_encoder.", LORA_TEXT},
    {"text_encoder_2.", LORA_TEXT2},
    {UNET, LORA_UNET},
    {"diffusion_model.", LORA_UNET},
    {"cond_stage_model.transformer.", LORA_TEXT},
    {"conditioner.embedders.0.transformer.", LORA_TEXT},
    {"clip_l.transformer.", LORA_TEXT},
    {"clip_g.transformer.", LORA_TEXT2},
    {"text_model", LORA_TEXT}, /* bare; it is a part of the name */
};

static const char *without_prefix(const char *stem, enum lora_network *ret_network)
{
    *ret_network = LORA_UNET;
    for (size_t i = 0; i < sizeof(prefixes) / sizeof(*prefixes); i++) {
        if (!str_has_prefix(stem, prefixes[i].text))
            continue;
        if (strcmp(prefixes[i].text, "text_model") != 0)
            stem += strlen(prefixes[i].text);
        if (prefixes[i].network == WRAPPER)
            continue;
        *ret_network = (enum lora_network)prefixes[i].network;
        break;
    }
    return stem;
}

/* "....attn1.processor.to_q" is about "....attn1.to_q" */
static void drop_processor(char *name)
{
    static const char word[] = ".processor.";
    char *at = strstr(name, word);

    if (at)
        memmove(at, at + strlen(word) - 1, strlen(at + strlen(word) - 1) + 1);
}

const struct lora_place *lora_names_find(const struct lora_names *names,
                                         const char *stem, size_t len)
{
    char text[MAX_STEM], name[MAX_STEM + 1];
    enum lora_network network;
    struct alias key = {.name = name}, *found;
    const char *rest;

    if (len >= sizeof(text) || names->count == 0)
        return NULL;
    memcpy(text, stem, len);
    text[len] = '\0';
    drop_processor(text);
    rest = without_prefix(text, &network);
    snprintf(name, sizeof(name), "%d%s", (int)network, rest);
    underscores(name);
    found = bsearch(&key, names->aliases, names->count, sizeof(key), by_name);
    return found ? &found->place : NULL;
}
