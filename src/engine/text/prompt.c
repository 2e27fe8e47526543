/* Two steps: text to pieces with weights (the two syntaxes differ), pieces to chunks of 77 ids (the two differ in where a
 * chunk may end). Brackets multiply: A1111 goes through the text once and multiplies everything since a bracket when it
 * closes, so an unclosed one counts to the end; ComfyUI goes into each outermost pair, and a number replaces what was
 * there. Both are kept as they are, oddities included, because prompts are traded with the pictures they made. */
#include "engine/text/prompt.h"

#include "base/mem.h"
#include "base/str.h"

#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { TEXT_IDS = TOKENIZER_CONTEXT - 2 };

/* ---- pieces ---- */

static struct prompt_piece *add_piece(struct prompt_pieces *p, const char *text,
                                      size_t len, double weight)
{
    p->items = mem_realloc(p->items, (size_t)(p->count + 1) * sizeof(*p->items));
    p->items[p->count] =
        (struct prompt_piece){.text = mem_strndup(text, len), .weight = weight};
    return &p->items[p->count++];
}

void prompt_pieces_release(struct prompt_pieces *p)
{
    for (int i = 0; i < p->count; i++)
        free(p->items[i].text);
    free(p->items);
    *p = (struct prompt_pieces){0};
}

static int too_deep(struct err *err)
{
    return err_set_param(err, ERR_INVALID, "prompt",
                         "the prompt has brackets inside more than %d others; \\( "
                         "and \\[ are brackets that are meant as such",
                         PROMPT_DEPTH_MAX);
}

/* Neighbours of one weight are one piece: a word may have stood across them. */
static void merge(struct prompt_pieces *p)
{
    int kept = 0;

    for (int i = 1; i < p->count; i++) {
        struct prompt_piece *last = &p->items[kept], *next = &p->items[i];

        if (last->is_break || next->is_break || last->weight != next->weight) {
            p->items[++kept] = *next;
            continue;
        }
        char *joined = mem_printf("%s%s", last->text, next->text);

        free(last->text);
        free(next->text);
        last->text = joined;
    }
    p->count = kept + 1;
}

/* ---- A1111 ---- */

struct open_brackets {
    int round[PROMPT_DEPTH_MAX], square[PROMPT_DEPTH_MAX]; /* first piece inside */
    int rounds, squares;
};

static void multiply_from(struct prompt_pieces *p, int from, double by)
{
    for (int i = from; i < p->count; i++)
        p->items[i].weight *= by;
}

/* ":1.3)" at the beginning of text: its length, and the number; 0: something else stands there */
static size_t read_weight(const char *text, double *ret)
{
    const char *at = text + 1;
    char *end;

    at += strspn(at, " \t\r\n\f\v");
    size_t len = strspn(at, "+-.0123456789");

    *ret = strtod(at, &end);
    if (len == 0 || end != at + len)
        return 0;
    end += strspn(end, " \t\r\n\f\v");
    return *end == ')' ? (size_t)(end + 1 - text) : 0;
}

static bool is_word(char c)
{
    return isalnum((unsigned char)c) || c == '_' || (unsigned char)c >= 0x80;
}

const char *prompt_find_word(const char *text, const char *word, const char *begin)
{
    for (const char *at = text; (at = strstr(at, word)); at++)
        if ((at == begin || !is_word(at[-1])) && !is_word(at[strlen(word)]))
            return at;
    return NULL;
}

/* Text without brackets; BREAK and the space around it end the chunk. */
static void add_plain(struct prompt_pieces *p, const char *text, size_t len)
{
    char *copy = mem_strndup(text, len);
    const char *from = copy, *at;

    while ((at = prompt_find_word(from, "BREAK", copy))) {
        const char *end = at;

        while (end > from && isspace((unsigned char)end[-1]))
            end--;
        add_piece(p, from, (size_t)(end - from), 1);
        add_piece(p, "", 0, 1)->is_break = true;
        from = at + 5 + strspn(at + 5, " \t\r\n\f\v");
    }
    add_piece(p, from, strlen(from), 1);
    free(copy);
}

/* One token of the syntax; returns its length. */
static size_t take_a1111(struct prompt_pieces *p, struct open_brackets *open,
                         const char *text)
{
    double weight;
    size_t len;

    switch (*text) {
    case '\\':
        len = text[1] && strchr("()[]\\", text[1]) ? 2 : 1;
        add_piece(p, text + 1, len - 1, 1); /* a lone one is nothing */
        return len;
    case '(':
        open->round[open->rounds++] = p->count;
        return 1;
    case '[':
        open->square[open->squares++] = p->count;
        return 1;
    case ')':
        if (open->rounds)
            multiply_from(p, open->round[--open->rounds], 1.1);
        else
            add_piece(p, text, 1, 1);
        return 1;
    case ']':
        if (open->squares)
            multiply_from(p, open->square[--open->squares], 1 / 1.1);
        else
            add_piece(p, text, 1, 1);
        return 1;
    case ':':
        len = read_weight(text, &weight);
        if (len && open->rounds)
            multiply_from(p, open->round[--open->rounds], weight);
        else
            add_piece(p, text, len ? len : 1, 1);
        return len ? len : 1;
    default:
        len = strcspn(text, "\\()[]:");
        add_plain(p, text, len);
        return len;
    }
}

static int split_a1111(struct prompt_pieces *p, const char *text, struct err *err)
{
    struct open_brackets open = {.rounds = 0};

    while (*text) {
        text += take_a1111(p, &open, text);
        if (open.rounds == PROMPT_DEPTH_MAX || open.squares == PROMPT_DEPTH_MAX)
            return too_deep(err);
    }
    while (open.rounds)
        multiply_from(p, open.round[--open.rounds], 1.1);
    while (open.squares)
        multiply_from(p, open.square[--open.squares], 1 / 1.1);
    return 0;
}

/* ---- ComfyUI ---- */

/* Escaped brackets stand as these two while the others are looked for; no text has them. */
enum { HELD_OPEN = '\1', HELD_CLOSE = '\2' };

static char *hold_escapes(const char *text)
{
    char *held = mem_strdup(text), *to = held;

    for (const char *from = text; *from; from++) {
        if (from[0] == '\\' && (from[1] == '(' || from[1] == ')'))
            *to++ = *++from == '(' ? HELD_OPEN : HELD_CLOSE;
        else if (*from != HELD_OPEN && *from != HELD_CLOSE)
            *to++ = *from;
    }
    *to = '\0';
    return held;
}

static void add_held(struct prompt_pieces *p, const char *text, size_t len,
                     double weight)
{
    char *out = add_piece(p, text, len, weight)->text;

    for (; *out; out++)
        *out = *out == HELD_OPEN ? '(' : *out == HELD_CLOSE ? ')' : *out;
}

/* The end of the group or of the text between groups that begins here. */
static size_t group_length(const char *text, size_t len)
{
    int level = 0;

    for (size_t i = 0; i < len; i++) {
        if (text[i] == '(' && level++ == 0 && i > 0)
            return i;
        if (text[i] == ')' && --level == 0)
            return i + 1;
    }
    return len;
}

static int split_comfy(struct prompt_pieces *p, const char *text, size_t len,
                       double weight, int depth, struct err *err)
{
    if (depth == PROMPT_DEPTH_MAX)
        return too_deep(err);
    while (len > 0) {
        size_t group = group_length(text, len), inner = group - 2;
        double own = weight * 1.1;

        if (group < 2 || text[0] != '(' || text[group - 1] != ')') {
            add_held(p, text, group, weight);
        } else {
            const char *colon = memrchr(text + 1, ':', inner);
            char *end = NULL;

            if (colon > text + 1) {
                char *number =
                    mem_strndup(colon + 1, (size_t)(text + group - 1 - colon - 1));
                double value = strtod(number, &end);

                if (end != number && !end[strspn(end, " \t\r\n")] && isfinite(value)) {
                    own = value;
                    inner = (size_t)(colon - text - 1);
                }
                free(number);
            }
            if (split_comfy(p, text + 1, inner, own, depth + 1, err))
                return -1;
        }
        text += group;
        len -= group;
    }
    return 0;
}

int prompt_split(struct prompt_pieces *ret, const char *text, enum prompt_syntax syntax,
                 struct err *err)
{
    struct prompt_pieces p = {0};
    int result;

    if (syntax == PROMPT_COMFY) {
        char *held = hold_escapes(text);

        result = split_comfy(&p, held, strlen(held), 1, 0, err);
        free(held);
    } else {
        result = split_a1111(&p, text, err);
    }
    if (result) {
        prompt_pieces_release(&p);
        return -1;
    }
    if (p.count == 0)
        add_piece(&p, "", 0, 1);
    if (syntax == PROMPT_A1111)
        merge(&p);
    *ret = p;
    return 0;
}

/* ---- chunks ---- */

struct filling {
    struct prompt *prompt;
    int32_t ids[TEXT_IDS];
    float weights[TEXT_IDS];
    int used;
    int comma; /* where the newest comma of this chunk is; -1: none */
    int32_t comma_id;
    struct prompt_words *words;
    bool is_full; /* more chunks than there may be */
};

static void end_chunk(struct filling *f)
{
    struct prompt *p = f->prompt;

    if (p->count == PROMPT_CHUNKS_MAX) {
        f->is_full = true;
        f->used = 0;
        return;
    }
    p->chunks = mem_realloc(p->chunks, (size_t)(p->count + 1) * sizeof(*p->chunks));
    struct prompt_chunk *chunk = &p->chunks[p->count++];

    *chunk = (struct prompt_chunk){.is_weighted = false};
    for (int i = 0; i < TOKENIZER_CONTEXT; i++) {
        bool is_text = i > 0 && i <= f->used;

        chunk->ids[i] = i == 0    ? TOKENIZER_BOS
                        : is_text ? f->ids[i - 1]
                                  : TOKENIZER_EOS;
        chunk->weights[i] = is_text ? f->weights[i - 1] : 1;
        chunk->is_weighted |= chunk->weights[i] != 1;
    }
    f->used = 0;
    f->comma = -1;
}

static void put(struct filling *f, int32_t id, double weight)
{
    f->ids[f->used] = id;
    f->weights[f->used++] = (float)weight;
}

/* The phrase after the last comma goes to the next chunk, if it is no longer than this. */
enum { PHRASE_MAX = 20 };

static void end_chunk_at_comma(struct filling *f)
{
    int32_t ids[PHRASE_MAX];
    float weights[PHRASE_MAX];
    int from = f->comma + 1, count = f->used - from;

    memcpy(ids, f->ids + from, (size_t)count * sizeof(*ids));
    memcpy(weights, f->weights + from, (size_t)count * sizeof(*weights));
    f->used = from;
    end_chunk(f);
    for (int i = 0; i < count; i++)
        put(f, ids[i], (double)weights[i]);
}

/* The longest word whose ids stand here; NULL: none. */
static struct prompt_word *word_at(const struct filling *f, const int32_t *ids,
                                   size_t count)
{
    struct prompt_word *best = NULL;

    for (int i = 0; i < f->words->count; i++) {
        struct prompt_word *w = &f->words->all[i];

        if (w->count && w->count <= count && (!best || w->count > best->count) &&
            memcmp(ids, w->ids, w->count * sizeof(*ids)) == 0)
            best = w;
    }
    return best;
}

/* All vectors of a word lie in one chunk. */
static void put_word(struct filling *f, struct prompt_word *word, double weight)
{
    word->is_used = true;
    if (f->used + word->vectors > TEXT_IDS)
        end_chunk(f);
    for (int i = 0; i < word->vectors && !f->is_full; i++)
        put(f, TOKENIZER_VOCABULARY + word->first + i, weight);
}

static void fill_a1111(struct filling *f, const int32_t *ids, size_t count,
                       double weight)
{
    for (size_t i = 0; i < count && !f->is_full; i++) {
        struct prompt_word *word = word_at(f, ids + i, count - i);

        if (ids[i] == f->comma_id)
            f->comma = f->used;
        else if (f->used == TEXT_IDS && f->comma >= 0 &&
                 f->used - f->comma <= PHRASE_MAX)
            end_chunk_at_comma(f);
        if (f->used == TEXT_IDS)
            end_chunk(f);
        if (word) {
            put_word(f, word, weight);
            i += word->count - 1;
        } else {
            put(f, ids[i], weight);
        }
    }
}

/* A word that does not fit goes to the next chunk, unless it is a long one. */
enum { WORD_MAX = 8 };

static void fill_word(struct filling *f, const int32_t *ids, size_t count,
                      double weight)
{
    if ((size_t)f->used + count > TEXT_IDS && count < WORD_MAX)
        end_chunk(f);
    for (size_t i = 0; i < count && !f->is_full; i++) {
        if (f->used == TEXT_IDS)
            end_chunk(f);
        put(f, ids[i], weight);
    }
}

static struct prompt_word *word_called(const struct filling *f, const char *name,
                                       size_t len)
{
    for (int i = 0; i < f->words->count; i++) {
        struct prompt_word *w = &f->words->all[i];
        const char *end = w->name + strlen(w->name);

        if (strlen(w->name) == len && memcmp(w->name, name, len) == 0)
            return w;
        /* without the folders before it */
        if (strlen(w->name) > len && end[-(ptrdiff_t)len - 1] == '/' &&
            memcmp(end - len, name, len) == 0)
            return w;
    }
    return NULL;
}

static int unknown_word(const struct filling *f, const char *name, size_t len,
                        struct err *err)
{
    const char **names = mem_alloc((size_t)(f->words->count + 1) * sizeof(*names));
    char *wanted = mem_strndup(name, len);
    const char *near;

    for (int i = 0; i < f->words->count; i++)
        names[i] = f->words->all[i].name;
    near = str_nearest(wanted, names, (size_t)f->words->count);
    err_set_param(
        err, ERR_INVALID, "prompt",
        "there is no textual inversion '%.100s' among the %d in the folder%s%.100s%s",
        wanted, f->words->count, near ? "; perhaps '" : "", near ? near : "",
        near ? "'" : "");
    free(wanted);
    free(names);
    return -1;
}

/* ... with its ending or without */
static struct prompt_word *word_like(const struct filling *f, const char *name,
                                     size_t len)
{
    struct prompt_word *word = word_called(f, name, len);
    const char *dot = memrchr(name, '.', len);

    return word || !dot ? word : word_called(f, name, (size_t)(dot - name));
}

/* "embedding:name" at the beginning of a word [*len] of ComfyUI's syntax, put into the chunk; *len is what remains behind
 * it. A comma at its end is no part of the name unless a file is called so. */
static int take_named(struct filling *f, const char **text, size_t *len, double weight,
                      struct err *err)
{
    static const char begin[] = "embedding:";
    const size_t skip = sizeof(begin) - 1;
    struct prompt_word *word;
    size_t name;

    if (*len <= skip || memcmp(*text, begin, skip) != 0)
        return 0;
    name = *len - skip;
    word = word_like(f, *text + skip, name);
    while (!word && name && (*text)[skip + name - 1] == ',')
        word = word_like(f, *text + skip, --name);
    if (!word)
        return unknown_word(f, *text + skip, name, err);
    put_word(f, word, weight);
    *text += skip + name;
    *len -= skip + name;
    return 0;
}

/* The ids of a text; ret_ids is to be freed. */
static int ids_of(const char *text, size_t len, int32_t **ret_ids, size_t *ret_count,
                  struct err *err)
{
    size_t room = len * 4 + 4; /* composing may lengthen a text */

    *ret_ids = mem_alloc(room * sizeof(**ret_ids));
    if (!tokenizer_ids(text, len, *ret_ids, room, ret_count, err)) {
        if (*ret_count <= room)
            return 0;
        err_set_param(err, ERR_TOO_LARGE, "prompt", "the prompt is too long");
    }
    free(*ret_ids);
    return -1;
}

static int fill_piece(struct filling *f, const struct prompt_piece *piece,
                      enum prompt_syntax syntax, struct err *err)
{
    const char *text = piece->text;

    do {
        size_t len = syntax == PROMPT_COMFY ? strcspn(text, " \n") : strlen(text);
        size_t count;
        int32_t *ids;

        if (syntax == PROMPT_COMFY && take_named(f, &text, &len, piece->weight, err))
            return -1;
        if (ids_of(text, len, &ids, &count, err))
            return -1;
        if (syntax == PROMPT_COMFY)
            fill_word(f, ids, count, piece->weight);
        else
            fill_a1111(f, ids, count, piece->weight);
        free(ids);
        text += len + (text[len] != '\0');
    } while (*text && !f->is_full);
    return 0;
}

int prompt_read(struct prompt *ret, const char *text, enum prompt_syntax syntax,
                struct err *err)
{
    return prompt_read_words(ret, text, syntax, &(struct prompt_words){0}, err);
}

int prompt_read_words(struct prompt *ret, const char *text, enum prompt_syntax syntax,
                      struct prompt_words *words, struct err *err)
{
    struct prompt p = {0};
    struct filling f = {.prompt = &p, .comma = -1, .words = words};
    struct prompt_pieces pieces;
    size_t count;
    int result = 0;

    /* of the whole text first: too long, or no UTF-8 */
    if (tokenizer_ids(text, strlen(text), NULL, 0, &count, err) ||
        tokenizer_ids(",", 1, &f.comma_id, 1, &count, err) ||
        prompt_split(&pieces, text, syntax, err))
        return -1;
    for (int i = 0; i < pieces.count && !result && !f.is_full; i++) {
        if (pieces.items[i].is_break)
            end_chunk(&f);
        else
            result = fill_piece(&f, &pieces.items[i], syntax, err);
    }
    prompt_pieces_release(&pieces);
    if (!result && (f.used || p.count == 0))
        end_chunk(&f);
    if (!result && f.is_full)
        result = err_set_param(err, ERR_INVALID, "prompt",
                               "the prompt is longer than %d chunks of %d tokens",
                               PROMPT_CHUNKS_MAX, TEXT_IDS);
    if (result)
        prompt_release(&p);
    else
        *ret = p;
    return result;
}

void prompt_release(struct prompt *p)
{
    free(p->chunks);
    *p = (struct prompt){0};
}

/* ---- weights ---- */

static double mean_of(const struct prompt_hidden *h)
{
    double sum = 0;

    for (int64_t t = 0; t < TOKENIZER_CONTEXT; t++)
        for (int64_t i = 0; i < h->width; i++)
            sum += (double)h->values[t * h->pitch + i];
    return sum / (double)(TOKENIZER_CONTEXT * h->width);
}

/* z w, then as loud as before on the average */
static void weigh_a1111(const struct prompt_chunk *chunk, const struct prompt_hidden *h)
{
    double before = mean_of(h), after;

    for (int64_t t = 0; t < TOKENIZER_CONTEXT; t++)
        for (int64_t i = 0; i < h->width; i++)
            h->values[t * h->pitch + i] *= chunk->weights[t];
    after = mean_of(h);
    if (after == 0)
        return;
    for (int64_t t = 0; t < TOKENIZER_CONTEXT; t++)
        for (int64_t i = 0; i < h->width; i++) {
            float *z = &h->values[t * h->pitch + i];

            *z = (float)((double)*z * (before / after));
        }
}

void prompt_weigh(const struct prompt_chunk *chunk, enum prompt_syntax syntax,
                  const struct prompt_hidden *hidden)
{
    if (!chunk->is_weighted)
        return;
    if (syntax == PROMPT_A1111) {
        weigh_a1111(chunk, hidden);
        return;
    }
    for (int64_t t = 0; t < TOKENIZER_CONTEXT; t++)
        for (int64_t i = 0; i < hidden->width; i++) {
            int64_t at = t * hidden->pitch + i;

            hidden->values[at] =
                (hidden->values[at] - hidden->empty[at]) * chunk->weights[t] +
                hidden->empty[at];
        }
}
