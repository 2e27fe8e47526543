/* diffusers: block numbers and words.
 *
 * CompVis numbers the U-Net's blocks in the order in which they run, a level's resnets and
 * then what halves or doubles the picture; diffusers counts within each level. So the
 * number of a block is a sum over the levels before it, and how many blocks these have is
 * learned from the names: a distilled U-Net with fewer needs no table of its own. The VAE
 * differs in words alone, but that its decoder's levels are counted from the other end.
 *
 * lora/names.c goes the other way, from a checkpoint that is there to the names that
 * others could use; the two share no code because this one has no checkpoint yet. */
#include "engine/files/diffusers.h"

#include "base/str.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct words {
    const char *theirs, *ours;
};

/* ---- a name, taken apart ---- */

enum list { LIST_RESNETS, LIST_ATTENTIONS, LIST_SCALERS };
enum side { SIDE_DOWN, SIDE_MIDDLE, SIDE_UP };

/* "down_blocks.1.resnets.0.conv1.weight": where it stands, and "conv1.weight" */
struct place {
    enum side side;
    int level; /* 0 in the middle */
    enum list list;
    int index;
    const char *rest;
};

/* A number and a dot at *at, below `limit`; moves behind them. */
static bool take_number(const char **at, int limit, int *ret)
{
    size_t digits = strspn(*at, "0123456789");
    int number = 0;

    if (digits < 1 || digits > 3 || (*at)[digits] != '.')
        return false;
    for (size_t i = 0; i < digits; i++)
        number = 10 * number + ((*at)[i] - '0');
    if (number >= limit)
        return false;
    *ret = number;
    *at += digits + 1;
    return true;
}

static bool take_word(const char **at, const char *word)
{
    if (!str_has_prefix(*at, word))
        return false;
    *at += strlen(word);
    return true;
}

/* false: it stands in no block. */
static bool find_place(const char *name, struct place *ret)
{
    *ret = (struct place){.rest = name};
    if (take_word(&ret->rest, "mid_block."))
        ret->side = SIDE_MIDDLE;
    else if (take_word(&ret->rest, "down_blocks."))
        ret->side = SIDE_DOWN;
    else if (take_word(&ret->rest, "up_blocks."))
        ret->side = SIDE_UP;
    else
        return false;
    if (ret->side != SIDE_MIDDLE &&
        !take_number(&ret->rest, DIFFUSERS_LEVELS, &ret->level))
        return false;
    if (take_word(&ret->rest, "resnets."))
        ret->list = LIST_RESNETS;
    else if (take_word(&ret->rest, "attentions."))
        ret->list = LIST_ATTENTIONS;
    else if (take_word(&ret->rest, "downsamplers.") ||
             take_word(&ret->rest, "upsamplers."))
        ret->list = LIST_SCALERS;
    else
        return false;
    return take_number(&ret->rest, DIFFUSERS_BLOCKS, &ret->index);
}

/* Appends `rest` with its first words replaced. */
static void append_replaced(const char *rest, const struct words *words, size_t count,
                            struct buf *ret)
{
    for (size_t i = 0; i < count; i++) {
        size_t len = strlen(words[i].theirs);

        if (strncmp(rest, words[i].theirs, len) != 0 || (rest[len] && rest[len] != '.'))
            continue;
        buf_append_str(ret, words[i].ours);
        buf_append_str(ret, rest + len);
        return;
    }
    buf_append_str(ret, rest);
}

#define COUNT(list) (sizeof(list) / sizeof((list)[0]))

/* ---- the U-Net ---- */

static struct diffusers_level *level_of(struct diffusers_blocks *u,
                                        const struct place *p)
{
    return p->side == SIDE_MIDDLE ? &u->middle
           : p->side == SIDE_DOWN ? &u->down[p->level]
                                  : &u->up[p->level];
}

void diffusers_learn(struct diffusers_blocks *blocks, const char *name)
{
    bool is_decoder = take_word(&name, "decoder.");
    struct diffusers_level *level;
    struct place place;

    if (!find_place(name, &place))
        return;
    if (is_decoder && place.side == SIDE_UP && place.level >= blocks->decoder_levels)
        blocks->decoder_levels = place.level + 1;
    if (is_decoder)
        return;
    level = level_of(blocks, &place);
    if (place.list == LIST_SCALERS)
        level->is_scaled = true;
    else if (place.list == LIST_ATTENTIONS)
        level->attentions |= (uint32_t)1 << place.index;
    else if (place.index >= level->resnets)
        level->resnets = place.index + 1;
}

static bool has_attention(const struct diffusers_level *level, int resnet)
{
    return resnet >= 0 && (level->attentions >> resnet & 1);
}

/* "middle_block": resnets with their attentions between them, in one row */
static int place_in_middle(const struct diffusers_level *middle, const struct place *p)
{
    int before = p->index;

    for (int i = 0; i < p->index; i++)
        before += has_attention(middle, i);
    return before + (p->list == LIST_ATTENTIONS);
}

/* The block's number, counted through all levels before. */
static int block_number(const struct diffusers_blocks *u, const struct place *p)
{
    const struct diffusers_level *levels = p->side == SIDE_DOWN ? u->down : u->up;
    int number = p->side == SIDE_DOWN; /* input_blocks.0 is conv_in */

    for (int i = 0; i < p->level; i++) {
        number += levels[i].resnets;
        if (p->side == SIDE_DOWN)
            number += levels[i].is_scaled;
    }
    if (p->list != LIST_SCALERS)
        return number + p->index;
    return number + levels[p->level].resnets - (p->side == SIDE_UP);
}

static void unet_block(const struct diffusers_blocks *u, const struct place *p,
                       struct buf *ret)
{
    static const struct words resnet[] = {
        {"norm1", "in_layers.0"},          {"conv1", "in_layers.2"},
        {"time_emb_proj", "emb_layers.1"}, {"norm2", "out_layers.0"},
        {"conv2", "out_layers.3"},         {"conv_shortcut", "skip_connection"},
    };
    static const struct words halved[] = {{"conv", "op"}};
    const struct diffusers_level *up = &u->up[p->level];
    int part = p->list == LIST_ATTENTIONS;

    if (p->side == SIDE_MIDDLE) {
        buf_printf(ret, "middle_block.%d.", place_in_middle(&u->middle, p));
    } else {
        if (p->list == LIST_SCALERS && p->side == SIDE_UP)
            part = has_attention(up, up->resnets - 1) ? 2 : 1;
        buf_printf(ret, "%s.%d.%d.",
                   p->side == SIDE_DOWN ? "input_blocks" : "output_blocks",
                   block_number(u, p), part);
    }
    if (p->list == LIST_RESNETS)
        append_replaced(p->rest, resnet, COUNT(resnet), ret);
    else if (p->list == LIST_SCALERS && p->side == SIDE_DOWN)
        append_replaced(p->rest, halved, COUNT(halved), ret);
    else
        buf_append_str(ret, p->rest);
}

static void unet_name(const struct diffusers_blocks *u, const char *name,
                      struct buf *ret)
{
    static const struct words outside[] = {
        {"conv_in", "input_blocks.0.0"},
        {"conv_norm_out", "out.0"},
        {"conv_out", "out.2"},
        {"time_embedding.linear_1", "time_embed.0"},
        {"time_embedding.linear_2", "time_embed.2"},
        {"time_embedding.cond_proj", "time_embed.cond_proj"},
        {"add_embedding.linear_1", "label_emb.0.0"},
        {"add_embedding.linear_2", "label_emb.0.2"},
    };
    struct place place;

    if (find_place(name, &place))
        unet_block(u, &place, ret);
    else
        append_replaced(name, outside, COUNT(outside), ret);
}

/* ---- the VAE ---- */

/* The decoder's levels are counted from the small end there, from the large one here. */
static void vae_block(const struct diffusers_blocks *blocks, const struct place *p,
                      struct buf *ret)
{
    static const struct words resnet[] = {{"conv_shortcut", "nin_shortcut"}};
    static const struct words attention[] = {
        {"group_norm", "norm"},
        {"to_q", "q"},
        {"to_k", "k"},
        {"to_v", "v"},
        {"query", "q"},
        {"key", "k"},
        {"value", "v"},
        {"to_out.0", "proj_out"},
        {"proj_attn", "proj_out"},
    };
    int level = p->side == SIDE_UP ? blocks->decoder_levels - 1 - p->level : p->level;

    if (p->side == SIDE_MIDDLE && p->list == LIST_ATTENTIONS)
        buf_printf(ret, "mid.attn_%d.", p->index + 1);
    else if (p->side == SIDE_MIDDLE)
        buf_printf(ret, "mid.block_%d.", p->index + 1);
    else if (p->list == LIST_SCALERS)
        buf_printf(ret, "%s.%d.%s.", p->side == SIDE_DOWN ? "down" : "up", level,
                   p->side == SIDE_DOWN ? "downsample" : "upsample");
    else
        buf_printf(ret, "%s.%d.%s.%d.", p->side == SIDE_DOWN ? "down" : "up", level,
                   p->list == LIST_RESNETS ? "block" : "attn", p->index);
    if (p->list == LIST_RESNETS)
        append_replaced(p->rest, resnet, COUNT(resnet), ret);
    else if (p->list == LIST_ATTENTIONS)
        append_replaced(p->rest, attention, COUNT(attention), ret);
    else
        buf_append_str(ret, p->rest);
}

static void vae_name(const struct diffusers_blocks *blocks, const char *name,
                     struct buf *ret)
{
    static const struct words outside[] = {{"conv_norm_out", "norm_out"}};
    const char *rest = name;
    struct place place;

    if (!take_word(&rest, "encoder.") && !take_word(&rest, "decoder.")) {
        buf_append_str(ret, name);
        return;
    }
    buf_append(ret, name, (size_t)(rest - name));
    if (find_place(rest, &place))
        vae_block(blocks, &place, ret);
    else
        append_replaced(rest, outside, COUNT(outside), ret);
}

void diffusers_name(enum diffusers_part part, const struct diffusers_blocks *blocks,
                    const char *name, struct buf *ret)
{
    if (part == DIFFUSERS_UNET)
        unet_name(blocks, name, ret);
    else if (part == DIFFUSERS_VAE)
        vae_name(blocks, name, ret);
    else
        buf_append_str(ret, name);
}
