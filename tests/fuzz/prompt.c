/* Any bytes as a prompt, in both syntaxes: refused with a sentence, or whole chunks of ids of the vocabulary. And as
 * one that changes: refused, or every run of the U-Net has a text of the script. And as one with LoRAs: refused, or names
 * and strengths that can be used, and a text without them. */
#include "engine/text/prompt.h"
#include "engine/lora/tags.h"
#include "engine/text/editing.h"

#include "fuzz.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static void check(const char *text, enum prompt_syntax syntax)
{
    struct prompt p;
    struct err err = {0};

    if (prompt_read(&p, text, syntax, &err)) {
        if (err.code != ERR_INVALID && err.code != ERR_TOO_LARGE)
            abort();
        return;
    }
    if (p.count < 1 || p.count > PROMPT_CHUNKS_MAX)
        abort();
    for (int c = 0; c < p.count; c++) {
        const struct prompt_chunk *chunk = &p.chunks[c];

        if (chunk->ids[0] != TOKENIZER_BOS ||
            chunk->ids[TOKENIZER_CONTEXT - 1] != TOKENIZER_EOS)
            abort();
        for (int i = 0; i < TOKENIZER_CONTEXT; i++)
            if (chunk->ids[i] < 0 || chunk->ids[i] >= TOKENIZER_VOCABULARY ||
                isnan(chunk->weights[i]))
                abort();
    }
    prompt_release(&p);
}

/* Two words of 5 and of 75 vectors: each stands whole, in one chunk. */
static void check_words(const char *text, enum prompt_syntax syntax)
{
    static const int32_t ids[] = {320, 320}; /* "a a" */
    struct prompt_word all[] = {{"a", ids, 1, 0, 5, false},
                                {"x/b", ids, 2, 5, 75, false}};
    struct prompt_words words = {all, 2};
    struct prompt p;

    if (prompt_read_words(&p, text, syntax, &words, NULL))
        return;
    for (int c = 0; c < p.count; c++)
        for (int i = 1; i < TOKENIZER_CONTEXT; i++) {
            int32_t own = p.chunks[c].ids[i] - TOKENIZER_VOCABULARY;
            int32_t before = p.chunks[c].ids[i - 1] - TOKENIZER_VOCABULARY;

            if (own >= 80 || (own > 0 && own != 5 && before != own - 1) ||
                (own < 0 && before >= 0 && before != 4 && before != 79))
                abort();
        }
    prompt_release(&p);
}

static void check_script(const char *text)
{
    struct script s = {.steps = 5};
    struct err err = {0};

    if (script_add_prompt(&s, text, &err)) {
        if (err.code != ERR_INVALID)
            abort();
    } else {
        if (s.row_count < 1 || s.row_count > SCRIPT_PARTS_MAX || s.text_count < 1)
            abort();
        for (int row = 0; row < s.row_count; row++) {
            if (!(fabs(s.rows[row].weight) <= 100))
                abort();
            for (int call = 0; call <= s.steps; call++)
                if (script_text(&s, row, call) < 0 ||
                    script_text(&s, row, call) >= s.text_count)
                    abort();
        }
    }
    script_release(&s);
}

static void check_tags(const char *text)
{
    struct lora_tags tags = {0};
    struct err err = {0};
    char *rest = lora_tags_strip(text);

    if (lora_tags_read(&tags, text, &err)) {
        if (err.code != ERR_INVALID)
            abort();
    } else {
        for (int i = 0; i < tags.count; i++)
            if (!*tags.all[i].name || !(fabs(tags.all[i].strength.unet) <= 100) ||
                !(fabs(tags.all[i].strength.text) <= 100))
                abort();
        if ((tags.count == 0) != (strcmp(rest, text) == 0))
            abort();
    }
    lora_tags_release(&tags);
    free(rest);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = malloc(size + 1);

    if (!text)
        return 0;
    memcpy(text, data, size);
    text[size] = '\0';
    check(text, PROMPT_A1111);
    check(text, PROMPT_COMFY);
    check_words(text, PROMPT_A1111);
    check_words(text, PROMPT_COMFY);
    check_script(text);
    check_tags(text);
    free(text);
    return 0;
}
