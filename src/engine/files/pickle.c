/* pickle: a stack, a memo, and the opcodes that Python's protocol 2 writes.
 *
 * Source: the description of the opcodes in CPython's Lib/pickletools.py. torch.save
 * writes protocol 2 unless told otherwise, and its own restricted reader knows the same
 * opcodes as this one. Left out is what protocols 0, 1, 3 and 4 add, above all
 * STACK_GLOBAL, which takes the name of a global from the stack, where it need not
 * stand as text in the file.
 *
 * Every opcode is one row of a table: a function and a number for it, the width of an
 * operand or a count. A mark is a NULL on the stack. Values are made in blocks that
 * never move and live until the pickle is freed; that is also how a million calls of
 * EMPTY_DICT cannot take more than MAX_VALUES of them. An integer of more than 64 bits
 * is refused: nobody counts steps so far. */
#include "engine/files/pickle.h"

#include "base/mem.h"
#include "base/str.h"

#include <stdlib.h>
#include <string.h>

#define MAX_BYTES ((size_t)8 << 20)  /* SD 1.5 with its EMA copy has 0.3 MB */
#define MAX_VALUES ((size_t)1 << 20) /* and 40,000 of these */
#define BLOCK 1024

struct pickle {
    struct pickle_value **blocks; /* of BLOCK values */
    size_t count;
    const struct pickle_value *root;
};

struct machine {
    const unsigned char *data;
    size_t size, at;
    const struct pickle_global *known;
    struct pickle *pickle;
    struct pickle_value **stack;
    size_t depth, stack_cap;
    struct pickle_value **memo;
    size_t memo_cap;
};

typedef int op_fn(struct machine *m, int operand, struct err *err);

static void *grow(void *list, size_t wanted, size_t *cap)
{
    if (wanted <= *cap)
        return list;
    *cap = wanted < 128 ? 256 : 2 * wanted;
    return mem_realloc(list, *cap * sizeof(void *));
}

/* ---- bytes ---- */

static const unsigned char *take(struct machine *m, size_t bytes, struct err *err)
{
    const unsigned char *p = m->data + m->at;

    if (bytes > m->size - m->at) {
        err_set(err, ERR_BAD_FILE, "its pickle ends in the middle");
        return NULL;
    }
    m->at += bytes;
    return p;
}

/* Little endian, as everything but BINFLOAT is. At most 8 bytes. */
static int take_number(struct machine *m, size_t bytes, uint64_t *ret, struct err *err)
{
    const unsigned char *p = take(m, bytes, err);

    if (!p)
        return -1;
    *ret = 0;
    while (bytes-- > 0)
        *ret = *ret << 8 | p[bytes];
    return 0;
}

/* A word up to the end of its line, as GLOBAL has two. */
static int take_line(struct machine *m, const char **ret, size_t *ret_len,
                     struct err *err)
{
    const unsigned char *p = m->data + m->at;
    const unsigned char *end = memchr(p, '\n', m->size - m->at);

    if (!end)
        return err_set(err, ERR_BAD_FILE, "its pickle ends in the middle");
    *ret = (const char *)p;
    *ret_len = (size_t)(end - p);
    m->at += *ret_len + 1;
    return 0;
}

/* ---- values and the stack ---- */

static void push(struct machine *m, struct pickle_value *value)
{
    m->stack = grow(m->stack, m->depth + 1, &m->stack_cap);
    m->stack[m->depth++] = value;
}

/* A value of this kind, on the stack. */
static struct pickle_value *make(struct machine *m, enum pickle_kind kind,
                                 struct err *err)
{
    struct pickle *p = m->pickle;
    struct pickle_value *value;

    if (p->count == MAX_VALUES) {
        err_set(err, ERR_BAD_FILE, "its pickle has more than %zu values", MAX_VALUES);
        return NULL;
    }
    if (p->count % BLOCK == 0) {
        p->blocks = mem_realloc(p->blocks, (p->count / BLOCK + 1) * sizeof(*p->blocks));
        p->blocks[p->count / BLOCK] = mem_zalloc(BLOCK * sizeof(**p->blocks));
    }
    value = &p->blocks[p->count / BLOCK][p->count % BLOCK];
    p->count++;
    value->kind = kind;
    push(m, value);
    return value;
}

static struct pickle_value *top(const struct machine *m, struct err *err)
{
    if (m->depth && m->stack[m->depth - 1])
        return m->stack[m->depth - 1];
    err_set(err, ERR_BAD_FILE, "its pickle uses a value that is not there (byte %zu)",
            m->at);
    return NULL;
}

static struct pickle_value *pop(struct machine *m, struct err *err)
{
    struct pickle_value *value = top(m, err);

    if (value)
        m->depth--;
    return value;
}

static void append(struct pickle_value *to, struct pickle_value *item)
{
    size_t cap = to->cap;

    if (to->count == to->cap) {
        cap = cap ? 2 * cap : 4;
        to->items = mem_realloc(to->items, cap * sizeof(struct pickle_value *));
        to->cap = (uint32_t)cap;
    }
    to->items[to->count++] = item;
}

/* How many values lie above the last mark. */
static int above_mark(const struct machine *m, size_t *ret_count, struct err *err)
{
    size_t at = m->depth;

    while (at && m->stack[at - 1])
        at--;
    if (!at)
        return err_set(err, ERR_BAD_FILE,
                       "its pickle looks for a mark that is not there (byte %zu)",
                       m->at);
    *ret_count = m->depth - at;
    return 0;
}

/* ---- opcodes ---- */

static int op_proto(struct machine *m, int operand, struct err *err)
{
    uint64_t version;

    (void)operand;
    if (take_number(m, 1, &version, err))
        return -1;
    if (version != 2)
        return err_set(err, ERR_BAD_FILE,
                       "its pickle is of protocol %d, 2 can be read: save it again "
                       "with torch.save's default",
                       (int)version);
    return 0;
}

static int op_simple(struct machine *m, int kind, struct err *err)
{
    return make(m, (enum pickle_kind)kind, err) ? 0 : -1;
}

static int op_bool(struct machine *m, int is_true, struct err *err)
{
    struct pickle_value *value = make(m, PICKLE_BOOL, err);

    if (!value)
        return -1;
    value->number = is_true;
    return 0;
}

static int push_int(struct machine *m, size_t bytes, bool is_signed, struct err *err)
{
    struct pickle_value *value;
    uint64_t raw;

    if (take_number(m, bytes, &raw, err) || !(value = make(m, PICKLE_INT, err)))
        return -1;
    if (is_signed && bytes && bytes < 8 && raw >> (8 * bytes - 1))
        raw |= UINT64_MAX << (8 * bytes);
    value->number = (int64_t)raw;
    return 0;
}

static int op_int(struct machine *m, int bytes, struct err *err)
{
    return push_int(m, (size_t)bytes, bytes == 4, err); /* the shorter are unsigned */
}

static int op_long(struct machine *m, int operand, struct err *err)
{
    uint64_t bytes;

    (void)operand;
    if (take_number(m, 1, &bytes, err))
        return -1;
    if (bytes > 8)
        return err_set(err, ERR_BAD_FILE, "its pickle has a number of %d bytes",
                       (int)bytes);
    return push_int(m, (size_t)bytes, true, err);
}

static int op_real(struct machine *m, int operand, struct err *err)
{
    const unsigned char *p = take(m, 8, err);
    struct pickle_value *value = p ? make(m, PICKLE_REAL, err) : NULL;
    uint64_t bits = 0;

    (void)operand;
    if (!value)
        return -1;
    for (int i = 0; i < 8; i++) /* big endian */
        bits = bits << 8 | p[i];
    memcpy(&value->real, &bits, sizeof(bits));
    return 0;
}

static int op_text(struct machine *m, int width, struct err *err)
{
    struct pickle_value *value;
    const unsigned char *p;
    uint64_t len;

    if (take_number(m, (size_t)width, &len, err) || !(p = take(m, (size_t)len, err)) ||
        !(value = make(m, PICKLE_TEXT, err)))
        return -1;
    value->text = (const char *)p;
    value->len = (size_t)len;
    return 0;
}

static int op_mark(struct machine *m, int operand, struct err *err)
{
    (void)operand;
    (void)err;
    push(m, NULL);
    return 0;
}

/* Of the `count` topmost values; -1: of those above the mark, which goes too. */
static int op_tuple(struct machine *m, int count, struct err *err)
{
    struct pickle_value *value;
    size_t n = 0, first;

    if (count < 0 && above_mark(m, &n, err))
        return -1;
    for (; count > 0 && n < (size_t)count; n++)
        if (n == m->depth || !m->stack[m->depth - 1 - n])
            return err_set(err, ERR_BAD_FILE,
                           "its pickle makes a tuple of values that are not there");
    first = m->depth - n;
    value = make(m, PICKLE_TUPLE, err);
    if (!value)
        return -1;
    for (size_t i = 0; i < n; i++)
        append(value, m->stack[first + i]);
    m->depth = first - (count < 0);
    push(m, value);
    return 0;
}

/* APPEND takes one value, APPENDS those above the mark; SETITEM and SETITEMS take pairs
 * likewise. `unit` 1 or 2, negative: with a mark. */
static int op_fill(struct machine *m, int unit, struct err *err)
{
    bool has_mark = unit < 0;
    size_t n = (size_t)abs(unit), below;
    struct pickle_value *to;

    unit = abs(unit);
    if (has_mark && above_mark(m, &n, err))
        return -1;
    below = n + (has_mark ? 1 : 0);
    to = m->depth > below ? m->stack[m->depth - below - 1] : NULL;
    for (size_t i = 0; to && i < n; i++)
        if (!m->stack[m->depth - 1 - i])
            to = NULL;
    if (!to || n % (size_t)unit)
        return err_set(err, ERR_BAD_FILE,
                       "its pickle fills a container with values that are not there");
    if (unit == 1 ? to->kind != PICKLE_LIST
                  : to->kind != PICKLE_DICT && to->kind != PICKLE_CALL)
        return err_set(err, ERR_BAD_FILE, "its pickle fills what is no container");
    for (size_t i = 0; i < n; i++)
        append(to, m->stack[m->depth - n + i]);
    m->depth -= below;
    return 0;
}

static bool is_word(const char *text, size_t len, const char *word)
{
    return len == strlen(word) && memcmp(text, word, len) == 0;
}

static int op_global(struct machine *m, int operand, struct err *err)
{
    const char *module = NULL, *name = NULL;
    size_t module_len = 0, name_len = 0;
    struct pickle_value *value;

    (void)operand;
    if (take_line(m, &module, &module_len, err) || take_line(m, &name, &name_len, err))
        return -1;
    for (const struct pickle_global *g = m->known; g->module; g++) {
        if (!is_word(module, module_len, g->module) ||
            !is_word(name, name_len, g->name))
            continue;
        value = make(m, PICKLE_GLOBAL, err);
        if (!value)
            return -1;
        value->global = g;
        return 0;
    }
    if (module_len > 80 || name_len > 80 || !str_is_utf8(module, module_len) ||
        !str_is_utf8(name, name_len))
        return err_set(err, ERR_BAD_FILE,
                       "its pickle asks for something without a "
                       "proper name, which was not run");
    return err_set(err, ERR_BAD_FILE,
                   "its pickle asks for %.*s.%.*s, which weights do not need and which "
                   "was not run: take a safetensors file of this model",
                   (int)module_len, module, (int)name_len, name);
}

/* REDUCE calls a function, NEWOBJ makes an object of a class: both are written down. */
static int op_call(struct machine *m, int operand, struct err *err)
{
    struct pickle_value *arguments = pop(m, err);
    struct pickle_value *function = arguments ? pop(m, err) : NULL;
    struct pickle_value *value = function ? make(m, PICKLE_CALL, err) : NULL;

    (void)operand;
    if (!value)
        return -1;
    value->function = function;
    value->arguments = arguments;
    return 0;
}

static int op_persistent(struct machine *m, int operand, struct err *err)
{
    struct pickle_value *arguments = pop(m, err);
    struct pickle_value *value = arguments ? make(m, PICKLE_PERSISTENT, err) : NULL;

    (void)operand;
    if (!value)
        return -1;
    value->arguments = arguments;
    return 0;
}

/* Attributes of an object. A state_dict has some (_metadata) on which no weight hangs; a module's parameters are among
 * its own. */
static int op_build(struct machine *m, int operand, struct err *err)
{
    struct pickle_value *state = pop(m, err);
    struct pickle_value *object = state ? top(m, err) : NULL;

    (void)operand;
    if (!object)
        return -1;
    if (object->kind == PICKLE_CALL)
        object->state = state;
    return 0;
}

static int op_put(struct machine *m, int width, struct err *err)
{
    size_t cap = m->memo_cap;
    uint64_t index;

    if (take_number(m, (size_t)width, &index, err) || !top(m, err))
        return -1;
    if (index >= MAX_VALUES)
        return err_set(err, ERR_BAD_FILE, "its pickle remembers a value as number %llu",
                       (unsigned long long)index);
    m->memo = grow(m->memo, (size_t)index + 1, &m->memo_cap);
    memset(m->memo + cap, 0, (m->memo_cap - cap) * sizeof(*m->memo));
    m->memo[index] = m->stack[m->depth - 1];
    return 0;
}

static int op_get(struct machine *m, int width, struct err *err)
{
    uint64_t index;

    if (take_number(m, (size_t)width, &index, err))
        return -1;
    if (index >= m->memo_cap || !m->memo[index])
        return err_set(err, ERR_BAD_FILE,
                       "its pickle asks for value number %llu, which it never made",
                       (unsigned long long)index);
    push(m, m->memo[index]);
    return 0;
}

static const struct {
    op_fn *run;
    int operand;
} ops[256] = {
    [0x80] = {op_proto, 0},
    ['N'] = {op_simple, PICKLE_NONE},
    [')'] = {op_simple, PICKLE_TUPLE},
    [']'] = {op_simple, PICKLE_LIST},
    ['}'] = {op_simple, PICKLE_DICT},
    [0x88] = {op_bool, 1},
    [0x89] = {op_bool, 0},
    ['K'] = {op_int, 1},
    ['M'] = {op_int, 2},
    ['J'] = {op_int, 4},
    [0x8a] = {op_long, 0},
    ['G'] = {op_real, 0},
    ['X'] = {op_text, 4},
    ['T'] = {op_text, 4}, /* Python 2's bytes */
    ['U'] = {op_text, 1},
    ['('] = {op_mark, 0},
    ['t'] = {op_tuple, -1},
    [0x85] = {op_tuple, 1},
    [0x86] = {op_tuple, 2},
    [0x87] = {op_tuple, 3},
    ['a'] = {op_fill, 1},
    ['e'] = {op_fill, -1},
    ['s'] = {op_fill, 2},
    ['u'] = {op_fill, -2},
    ['c'] = {op_global, 0},
    ['R'] = {op_call, 0},
    [0x81] = {op_call, 0},
    ['Q'] = {op_persistent, 0},
    ['b'] = {op_build, 0},
    ['q'] = {op_put, 1},
    ['r'] = {op_put, 4},
    ['h'] = {op_get, 1},
    ['j'] = {op_get, 4},
};

/* ---- reading ---- */

static int run(struct machine *m, struct err *err)
{
    const unsigned char *op;

    while ((op = take(m, 1, err))) {
        if (*op == '.') {
            m->pickle->root = top(m, err);
            return m->pickle->root ? 0 : -1;
        }
        if (!ops[*op].run)
            return err_set(err, ERR_BAD_FILE,
                           "its pickle has opcode 0x%02x at byte %zu, which torch.save "
                           "does not write",
                           *op, m->at - 1);
        if (ops[*op].run(m, ops[*op].operand, err))
            return -1;
    }
    return -1;
}

int pickle_read(struct pickle **ret_pickle, const void *data, size_t size,
                const struct pickle_global *known, struct err *err)
{
    struct machine m = {.data = data, .size = size, .known = known};
    int result;

    if (size > MAX_BYTES)
        return err_set(err, ERR_BAD_FILE, "its pickle of %zu bytes is too large", size);
    m.pickle = mem_zalloc(sizeof(*m.pickle));
    result = run(&m, err);
    free(m.stack);
    free(m.memo);
    if (result)
        pickle_free(m.pickle);
    else
        *ret_pickle = m.pickle;
    return result;
}

void pickle_free(struct pickle *pickle)
{
    if (!pickle)
        return;
    for (size_t i = 0; i < pickle->count; i++)
        free(pickle->blocks[i / BLOCK][i % BLOCK].items);
    for (size_t i = 0; i * BLOCK < pickle->count; i++)
        free(pickle->blocks[i]);
    free(pickle->blocks);
    free(pickle);
}

const struct pickle_value *pickle_root(const struct pickle *pickle)
{
    return pickle->root;
}

size_t pickle_count(const struct pickle *pickle)
{
    return pickle->count;
}

bool pickle_is_text(const struct pickle_value *value, const char *text)
{
    return value->kind == PICKLE_TEXT && is_word(value->text, value->len, text);
}

bool pickle_is_call(const struct pickle_value *value, int meaning)
{
    return value->kind == PICKLE_CALL && value->function->kind == PICKLE_GLOBAL &&
           value->function->global->meaning == meaning;
}
