/* The text is read once for each step and written out as it stands there; no tree is kept, because a read takes
 * microseconds and a step of the U-Net seconds. Brackets that are emphasis, escapes and BREAK go through as they are:
 * prompt.c reads them afterwards.
 *
 * A pair of square brackets means something only when all of it is well formed:
 *   [x]            emphasis, left alone
 *   [x:when] [x::when] [x:y:when]     when is a number; one with a point is a fraction of the steps
 *   [x|y|...]      takes turns, one a step
 * If not, its first bracket is a character and reading goes on behind it. A '|' that is in no such pair makes all of the
 * prompt plain text. Both are what AUTOMATIC1111's grammar comes to, and so is that the first text of a prompt is used
 * for one run longer than its number says: runs count from 0, steps from 1. */
#include "engine/text/editing.h"

#include "base/mem.h"
#include "engine/text/prompt.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define SPACES " \t\r\n\f\v"

/* ---- one step ---- */

struct reader {
    const char *text, *at;
    bool *is_none; /* by place: a bracket that begins no pair, not to be tried again */
    int steps, step;
    int depth;
    bool has_too_many; /* alternatives */
    struct buf *out;
};

static void take(struct reader *r, size_t len)
{
    buf_append(r->out, r->at, len);
    r->at += len;
}

static bool take_pair(struct reader *r);

/* Up to a bracket, colon or bar that belongs to somebody else; false: there is a pair in it that is none. */
static bool take_prompt(struct reader *r)
{
    for (;;) {
        switch (*r->at) {
        case '(':
        case '[':
            if (!take_pair(r))
                return false;
            break;
        case '\\':
            if (r->at[1] == '\0' || r->at[1] == '\n')
                return false;
            take(r, 2);
            break;
        case '\0':
        case ')':
        case ']':
        case ':':
        case '|':
            return true;
        default:
            take(r, strcspn(r->at, "\\()[]:|"));
        }
    }
}

/* "(x)" or "(x:y)" */
static bool take_round(struct reader *r)
{
    take(r, 1);
    if (!take_prompt(r))
        return false;
    if (*r->at == ':') {
        take(r, 1);
        if (!take_prompt(r))
            return false;
    }
    if (*r->at != ')')
        return false;
    take(r, 1);
    return true;
}

/* What stands between separators: where its text begins and ends in `out`, and where it was written. */
struct piece {
    size_t from, to;
    const char *source;
};

struct pieces {
    struct piece *items;
    int count;
    char separator; /* ':' or '|'; 0: there is one piece */
};

/* The pieces of "[...]", one behind the other in `out`; reading ends at the bracket. */
static bool take_pieces(struct reader *r, struct pieces *p)
{
    do {
        struct piece piece = {.from = r->out->len, .source = ++r->at};

        if (!take_prompt(r))
            return false;
        if (p->count == SCRIPT_CHOICES_MAX) {
            r->has_too_many = true;
            return false;
        }
        piece.to = r->out->len;
        p->items = mem_realloc(p->items, (size_t)(p->count + 1) * sizeof(*p->items));
        p->items[p->count++] = piece;
        if (*r->at == ']')
            return true;
        if (p->count == 1)
            p->separator = *r->at;
    } while (*r->at == p->separator && (*r->at == ':' || *r->at == '|'));
    return false;
}

/* " 3 ]", " .5 ]": the step after which the text changes */
static bool read_when(const char *text, int steps, double *ret)
{
    const char *from = text + strspn(text, SPACES);
    size_t len = strspn(from, "+-.0123456789eE");
    char *end;
    double value = strtod(from, &end);

    if (len == 0 || end != from + len || end[strspn(end, SPACES)] != ']' ||
        !isfinite(value))
        return false;
    *ret = trunc(memchr(from, '.', len) ? value * steps : value);
    return true;
}

/* Which of the pieces is said at this step; -1: none of them; false: the brackets are no such. */
static bool choose(const struct reader *r, const struct pieces *p, int *ret)
{
    double when;

    if (p->separator == '|') {
        *ret = (r->step - 1) % p->count;
        return true;
    }
    if (p->count > 3 || !read_when(p->items[p->count - 1].source, r->steps, &when))
        return false;
    *ret = r->step <= when ? p->count - 3 : p->count - 2;
    return true;
}

static void keep_only(struct buf *out, size_t from, const struct piece *piece)
{
    size_t len = piece ? piece->to - piece->from : 0;

    if (len)
        memmove(out->data + from, out->data + piece->from, len);
    out->len = from + len;
}

static bool take_square(struct reader *r)
{
    size_t from = r->out->len;
    struct pieces p = {0};
    bool is_whole;
    int chosen;

    buf_append(r->out, "[", 1);
    is_whole = take_pieces(r, &p);
    if (is_whole && p.count == 1) {
        buf_append(r->out, "]", 1);
    } else if (is_whole) {
        is_whole = choose(r, &p, &chosen);
        if (is_whole)
            keep_only(r->out, from, chosen < 0 ? NULL : &p.items[chosen]);
    }
    free(p.items);
    if (is_whole)
        r->at++;
    return is_whole;
}

/* The pair that begins here; false: it is none, and what was written means nothing. */
static bool take_pair(struct reader *r)
{
    bool *is_none = &r->is_none[r->at - r->text];
    bool is_pair = !*is_none && r->depth < PROMPT_DEPTH_MAX;

    r->depth++;
    if (is_pair)
        is_pair = *r->at == '(' ? take_round(r) : take_square(r);
    r->depth--;
    *is_none = !is_pair;
    return is_pair;
}

/* All of it; false: it is plain text. */
static bool take_all(struct reader *r)
{
    while (*r->at) {
        const char *at = r->at;
        size_t len = r->out->len;

        if (strchr("()[]:", *at)) {
            if ((*at == '(' || *at == '[') && take_pair(r))
                continue;
            if (r->has_too_many)
                return false;
            r->at = at;
            r->out->len = len;
            take(r, 1);
        } else if (*at == '|' || (*at == '\\' && (!at[1] || at[1] == '\n'))) {
            return false;
        } else {
            take(r, *at == '\\' ? 2 : strcspn(at, "\\()[]:|"));
        }
    }
    return true;
}

int editing_at(const char *text, int steps, int step, struct buf *ret, struct err *err)
{
    struct reader r = {.text = text,
                       .at = text,
                       .is_none = mem_zalloc((strlen(text) + 1) * sizeof(bool)),
                       .steps = steps,
                       .step = step,
                       .out = ret};
    size_t from = ret->len;
    bool is_read = take_all(&r);

    free(r.is_none);
    if (!is_read) {
        if (r.has_too_many)
            return err_set_param(err, ERR_INVALID, "prompt",
                                 "the prompt has more than %d alternatives in one pair "
                                 "of brackets",
                                 SCRIPT_CHOICES_MAX);
        ret->len = from;
        buf_append_str(ret, text);
    }
    *buf_reserve(ret, 1) = '\0';
    return 0;
}

/* ---- the script ---- */

static int add_to_texts(struct script *s, const char *text, struct err *err)
{
    for (int i = s->text_count - 1; i >= 0; i--)
        if (strcmp(s->texts[i], text) == 0)
            return i;
    if (s->text_count == SCRIPT_TEXTS_MAX)
        return err_set_param(err, ERR_INVALID, "prompt",
                             "the prompts say more than %d different things in %d "
                             "steps: let them change less often, or take fewer steps",
                             SCRIPT_TEXTS_MAX, s->steps);
    s->texts = mem_realloc(s->texts, (size_t)(s->text_count + 1) * sizeof(*s->texts));
    s->texts[s->text_count] = mem_strdup(text);
    return s->text_count++;
}

static struct script_row *add_row(struct script *s)
{
    struct script_row *row = &s->rows[s->row_count++];

    row->weight = 1;
    row->texts = mem_zalloc((size_t)(s->steps + 1) * sizeof(*row->texts));
    return row;
}

int script_add_text(struct script *s, const char *text, struct err *err)
{
    struct script_row *row = add_row(s);
    struct buf said = {0};
    int number = 0;

    for (int call = 0; call <= s->steps && number >= 0; call++) {
        buf_clear(&said);
        number = editing_at(text, s->steps, call ? call : 1, &said, err);
        if (number == 0)
            number = add_to_texts(s, buf_str(&said), err);
        row->texts[call] = (int16_t)number;
    }
    buf_release(&said);
    return number < 0 ? -1 : 0;
}

int script_add_plain(struct script *s, const char *text, struct err *err)
{
    struct script_row *row = add_row(s);
    int number = add_to_texts(s, text, err);

    for (int call = 0; call <= s->steps; call++)
        row->texts[call] = (int16_t)number;
    return number < 0 ? -1 : 0;
}

/* "x : 0.7 " -> 0.7, and len is that of "x"; 1 where there is no such end */
static double cut_weight(const char *text, size_t *len)
{
    size_t end = *len, from, colon;
    double sign = 1;
    char *number, *after;
    double value;

    while (end && strchr(SPACES, text[end - 1]))
        end--;
    *len = end;
    for (from = end; from && strchr(".0123456789", text[from - 1]);)
        from--;
    if (from == end)
        return 1;
    number = mem_strndup(text + from, end - from);
    value = strtod(number, &after);
    bool is_number = *after == '\0';

    free(number);
    if (from && strchr("+-", text[from - 1]))
        sign = text[--from] == '-' ? -1 : 1;
    while (from && strchr(SPACES, text[from - 1]))
        from--;
    if (!is_number || from == 0 || text[from - 1] != ':')
        return 1;
    colon = from - 1;
    while (colon && strchr(SPACES, text[colon - 1]))
        colon--;
    *len = colon;
    return sign * value;
}

static int add_part(struct script *s, const char *text, size_t len, struct err *err)
{
    double weight = cut_weight(text, &len);
    char *part;
    int result;

    if (s->row_count == SCRIPT_PARTS_MAX)
        return err_set_param(err, ERR_INVALID, "prompt",
                             "the prompt has more than %d parts joined by AND",
                             SCRIPT_PARTS_MAX);
    if (!(fabs(weight) <= 100))
        return err_set_param(err, ERR_INVALID, "prompt",
                             "a part of the prompt has the weight %g, -100 to 100 are "
                             "possible",
                             weight);
    part = mem_strndup(text, len);
    result = script_add_text(s, part, err);
    s->rows[s->row_count - 1].weight = weight;
    free(part);
    return result;
}

int script_add_prompt(struct script *s, const char *prompt, struct err *err)
{
    const char *from = prompt, *at;

    if (!prompt_find_word(prompt, "AND", prompt))
        return script_add_text(s, prompt, err);
    while ((at = prompt_find_word(from, "AND", prompt))) {
        if (add_part(s, from, (size_t)(at - from), err))
            return -1;
        from = at + strlen("AND");
    }
    return add_part(s, from, strlen(from), err);
}

void script_release(struct script *s)
{
    for (int i = 0; i < s->text_count; i++)
        free(s->texts[i]);
    for (int i = 0; i < s->row_count; i++)
        free(s->rows[i].texts);
    free(s->texts);
    *s = (struct script){0};
}

int script_text(const struct script *s, int row, int call)
{
    return s->rows[row].texts[call < s->steps ? call : s->steps];
}

bool script_changes(const struct script *s)
{
    for (int i = 0; i < s->row_count; i++)
        for (int call = 1; call <= s->steps; call++)
            if (s->rows[i].texts[call] != s->rows[i].texts[0])
                return true;
    return false;
}
