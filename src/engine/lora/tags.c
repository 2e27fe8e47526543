/* A tag ends at the first '>'. Without one it is text like any other, as are "<3" and the tags of other things
 * ("<hypernet:...>"): nobody's words should vanish because they are not known here. */
#include "engine/lora/tags.h"

#include "base/buf.h"
#include "base/mem.h"
#include "base/str.h"

#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define STRENGTH_MAX 100.0

struct part {
    const char *text;
    size_t len;
};

/* The next tag from text on; what it says lies between ret_inside and ret_end. NULL: none. */
static const char *find_tag(const char *text, const char **ret_inside,
                            const char **ret_end)
{
    for (const char *at = text; (at = strchr(at, '<')); at++) {
        const char *inside = at + strlen("<lora:"), *end;

        if (strncasecmp(at, "<lora:", 6) != 0 && strncasecmp(at, "<lyco:", 6) != 0)
            continue;
        end = strchr(inside, '>');
        if (!end)
            return NULL;
        *ret_inside = inside;
        *ret_end = end;
        return at;
    }
    return NULL;
}

/* The part before the next colon, without the spaces around it; *at goes on behind the colon, or is NULL after the last.
 */
static struct part next_part(const char **at, const char *end)
{
    const char *colon = memchr(*at, ':', (size_t)(end - *at));
    const char *to = colon ? colon : end, *from = *at;

    *at = colon ? colon + 1 : NULL;
    while (from < to && isspace((unsigned char)*from))
        from++;
    while (to > from && isspace((unsigned char)to[-1]))
        to--;
    return (struct part){from, (size_t)(to - from)};
}

static int read_number(const struct lora_tag *tag, struct part part, double *ret,
                       struct err *err)
{
    char text[32], *end = text;

    if (part.len > 0 && part.len < sizeof(text)) {
        memcpy(text, part.text, part.len);
        text[part.len] = '\0';
        *ret = strtod(text, &end);
    }
    if (end == text || *end || !isfinite(*ret) || fabs(*ret) > STRENGTH_MAX)
        return err_set_param(err, ERR_INVALID, "prompt",
                             "the LoRA '%.60s' has the strength '%.*s': numbers from "
                             "%g to %g are possible, as in <lora:%.60s:0.8>",
                             tag->name, part.len > 40 ? 40 : (int)part.len, part.text,
                             -STRENGTH_MAX, STRENGTH_MAX, tag->name);
    return 0;
}

/* "te=0.5" for the word "te" */
static bool is_named(struct part *part, const char *word)
{
    size_t len = strlen(word);

    if (part->len <= len || strncasecmp(part->text, word, len) != 0 ||
        part->text[len] != '=')
        return false;
    part->text += len + 1;
    part->len -= len + 1;
    return true;
}

static int read_strengths(struct lora_tag *tag, const char *at, const char *end,
                          struct err *err)
{
    double te = 1, unet = NAN;
    int position = 0;

    while (at) {
        struct part part = next_part(&at, end);
        double *to = is_named(&part, "te")     ? &te
                     : is_named(&part, "unet") ? &unet
                     : position == 0           ? &te
                                               : &unet;

        if (position++ == 2)
            return err_set_param(err, ERR_INVALID, "prompt",
                                 "the LoRA '%.60s' has more than two strengths: the "
                                 "first is the text encoder's, the second the U-Net's",
                                 tag->name);
        if (read_number(tag, part, to, err))
            return -1;
    }
    tag->strength = (struct lora_strength){.unet = isnan(unet) ? te : unet, .text = te};
    return 0;
}

int lora_tags_read(struct lora_tags *tags, const char *text, struct err *err)
{
    const char *inside, *end;

    for (; (text = find_tag(text, &inside, &end)); text = end + 1) {
        struct part name = next_part(&inside, end);
        struct lora_tag *tag = &tags->all[tags->count];

        if (!name.len)
            return err_set_param(err, ERR_INVALID, "prompt",
                                 "a LoRA in the prompt has no name: <lora:name:0.8> is "
                                 "how one is written");
        if (tags->count == LORA_TAGS_MAX)
            return err_set_param(err, ERR_INVALID, "prompt",
                                 "the prompt asks for more than %d LoRAs",
                                 LORA_TAGS_MAX);
        tag->name = mem_strndup(name.text, name.len);
        tags->count++;
        if (read_strengths(tag, inside, end, err))
            return -1;
    }
    return 0;
}

void lora_tags_release(struct lora_tags *tags)
{
    for (int i = 0; i < tags->count; i++)
        free(tags->all[i].name);
    tags->count = 0;
}

char *lora_tags_strip(const char *text)
{
    struct buf rest = {0};
    const char *inside, *end, *tag;

    for (; (tag = find_tag(text, &inside, &end)); text = end + 1)
        buf_append(&rest, text, (size_t)(tag - text));
    buf_append_str(&rest, text);
    return rest.data ? buf_take(&rest) : mem_strdup("");
}
