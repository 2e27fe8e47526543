/* Prompts to pieces, pieces to chunks, weights to numbers. The A1111 cases are the ones its own documentation of the
 * syntax gives; those of ComfyUI follow from its rules by hand. */
#include "engine/text/prompt.h"

#include "base/buf.h"
#include "base/mem.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

struct want {
    const char *text;
    enum prompt_syntax syntax;
    const char *pieces; /* text*weight|text*weight, "-" for a break */
};

static const struct want wants[] = {
    {"normal text", PROMPT_A1111, "normal text*1"},
    {"an (important) word", PROMPT_A1111, "an *1|important*1.1| word*1"},
    {"(unbalanced", PROMPT_A1111, "unbalanced*1.1"},
    {"\\(literal\\]", PROMPT_A1111, "(literal]*1"},
    {"(unnecessary)(parens)", PROMPT_A1111, "unnecessaryparens*1.1"},
    {"a (((house:1.3)) [on] a (hill:0.5), sun, (((sky))).", PROMPT_A1111,
     "a *1|house*1.573| *1.1|on*1| a *1.1|hill*0.55|, sun, *1.1|sky*1.4641|.*1.1"},
    {"", PROMPT_A1111, "*1"},
    {"a)b]c:d", PROMPT_A1111, "a)b]c:d*1"},
    {"a:1.2)", PROMPT_A1111, "a:1.2)*1"},
    {"(a:1..2)", PROMPT_A1111, "a:1..2*1.1"},
    {"(a: 1.5 )", PROMPT_A1111, "a*1.5"},
    {"[a]", PROMPT_A1111, "a*0.909091"},
    {"a BREAK b", PROMPT_A1111, "a*1|-|b*1"},
    {"BREAKFAST, a_BREAK", PROMPT_A1111, "BREAKFAST, a_BREAK*1"},
    {"(a BREAK b:2)", PROMPT_A1111, "a*2|-|b*2"},
    {"a\\b\\\\c", PROMPT_A1111, "ab\\c*1"},

    {"normal [text]", PROMPT_COMFY, "normal [text]*1"},
    {"an (important) word", PROMPT_COMFY, "an *1|important*1.1| word*1"},
    {"((a:1.5) b:2)", PROMPT_COMFY, "a*1.5| b*2"},
    {"((a))", PROMPT_COMFY, "a*1.21"},
    {"\\(literal\\)", PROMPT_COMFY, "(literal)*1"},
    {"(a:b)", PROMPT_COMFY, "a:b*1.1"},
    {"(a:b:1.5)", PROMPT_COMFY, "a:b*1.5"},
    {"(unbalanced", PROMPT_COMFY, "(unbalanced*1"},
    {"a)(b", PROMPT_COMFY, "a)(b*1"},
    {"(:2)", PROMPT_COMFY, ":2*1.1"},
    {"(a:nan)", PROMPT_COMFY, "a:nan*1.1"},
};

static char *show(const struct prompt_pieces *p)
{
    struct buf text = {0};

    for (int i = 0; i < p->count; i++) {
        buf_append_str(&text, i ? "|" : "");
        if (p->items[i].is_break)
            buf_append_str(&text, "-");
        else
            buf_printf(&text, "%s*%g", p->items[i].text, p->items[i].weight);
    }
    buf_append(&text, "", 1);
    return buf_take(&text);
}

static void test_pieces(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(wants) / sizeof(*wants); i++) {
        struct prompt_pieces p;

        assert_int_equal(prompt_split(&p, wants[i].text, wants[i].syntax, NULL), 0);
        char *got = show(&p);

        assert_string_equal(got, wants[i].pieces);
        free(got);
        prompt_pieces_release(&p);
    }
}

static struct prompt read(const char *text, enum prompt_syntax syntax)
{
    struct prompt p;
    struct err err = {0};

    if (prompt_read(&p, text, syntax, &err))
        fail_msg("%s", err.message);
    return p;
}

/* ids of a chunk between BOS and the first EOS */
static int length(const struct prompt_chunk *c)
{
    int n = 0;

    assert_int_equal(c->ids[0], TOKENIZER_BOS);
    assert_int_equal(c->ids[TOKENIZER_CONTEXT - 1], TOKENIZER_EOS);
    while (c->ids[n + 1] != TOKENIZER_EOS)
        n++;
    return n;
}

/* `count` words of one token each, then the rest */
static char *words(int count, const char *rest)
{
    struct buf text = {0};

    for (int i = 0; i < count; i++)
        buf_append_str(&text, i ? " cat" : "cat");
    buf_append_str(&text, rest);
    buf_append(&text, "", 1);
    return buf_take(&text);
}

static void check_lengths(const char *text, enum prompt_syntax syntax, int first,
                          int second)
{
    struct prompt p = read(text, syntax);

    assert_int_equal(p.count, second < 0 ? 1 : 2);
    assert_int_equal(length(&p.chunks[0]), first);
    if (second >= 0)
        assert_int_equal(length(&p.chunks[1]), second);
    prompt_release(&p);
}

static void check_words(int count, const char *rest, enum prompt_syntax syntax,
                        int first, int second)
{
    char *text = words(count, rest);

    check_lengths(text, syntax, first, second);
    free(text);
}

static void test_chunk(void **state)
{
    const int32_t want[] = {49406, 320, 736, 7117, 49407, 49407};
    struct prompt p = read("a red circle", PROMPT_A1111);

    (void)state;
    assert_int_equal(p.count, 1);
    assert_memory_equal(p.chunks[0].ids, want, sizeof(want));
    for (int i = 4; i < TOKENIZER_CONTEXT; i++)
        assert_int_equal(p.chunks[0].ids[i], TOKENIZER_EOS);
    prompt_release(&p);
}

static void test_chunks(void **state)
{
    (void)state;
    check_lengths("", PROMPT_A1111, 0, -1);
    check_lengths("", PROMPT_COMFY, 0, -1);
    check_words(75, "", PROMPT_A1111, 75, -1);
    check_words(76, "", PROMPT_A1111, 75, 1);
    /* the phrase after the comma goes on in the next chunk, all of it */
    check_words(70, ", dog dog dog dog dog dog", PROMPT_A1111, 71, 6);
    /* not when it is longer than 20 */
    check_words(50,
                ", dog dog dog dog dog dog dog dog dog dog dog dog dog dog dog dog dog "
                "dog dog dog dog dog dog dog dog dog",
                PROMPT_A1111, 75, 2);
    check_words(3, " BREAK dog", PROMPT_A1111, 3, 1);
    check_words(3, " BREAK dog", PROMPT_COMFY, 5, -1);
    check_words(76, "", PROMPT_COMFY, 75, 1);
    /* a word of several tokens stays whole, a comma means nothing */
    check_words(74, " xqzjv", PROMPT_COMFY, 74, 4);
    check_words(70, ", dog dog dog dog dog dog", PROMPT_COMFY, 75, 2);
}

static void test_weights_of_tokens(void **state)
{
    struct prompt p = read("cat (dog:1.5) cat", PROMPT_A1111);
    const float want[] = {1, 1, 1.5f, 1, 1};

    (void)state;
    assert_true(p.chunks[0].is_weighted);
    assert_memory_equal(p.chunks[0].weights, want, sizeof(want));
    prompt_release(&p);
    p = read("(cat:1) dog", PROMPT_A1111);
    assert_false(p.chunks[0].is_weighted);
    prompt_release(&p);
}

static void test_weigh_a1111(void **state)
{
    struct prompt p = read("(cat:2)", PROMPT_A1111);
    float z[TOKENIZER_CONTEXT * 2];
    double before = 0, after = 0;

    (void)state;
    for (int i = 0; i < TOKENIZER_CONTEXT * 2; i++) {
        z[i] = (float)(1 + i % 5);
        before += (double)z[i];
    }
    float first = z[0], cat = z[2];

    prompt_weigh(&p.chunks[0], PROMPT_A1111,
                 &(struct prompt_hidden){.values = z, .width = 2, .pitch = 2});
    for (int i = 0; i < TOKENIZER_CONTEXT * 2; i++)
        after += (double)z[i];
    assert_true(fabs(after - before) < 1e-3); /* as loud as before */
    assert_true(fabs((double)z[2] / (double)z[0] / ((double)cat / (double)first) - 2) <
                1e-5);
    prompt_release(&p);
}

/* Two encoders side by side are weighed each for itself. */
static void test_weigh_beside(void **state)
{
    struct prompt p = read("(cat:2)", PROMPT_A1111);
    float z[TOKENIZER_CONTEXT * 3], alone[TOKENIZER_CONTEXT * 2];

    (void)state;
    for (int i = 0; i < TOKENIZER_CONTEXT * 3; i++)
        z[i] = (float)(1 + i % 7);
    for (int t = 0; t < TOKENIZER_CONTEXT; t++)
        memcpy(&alone[t * 2], &z[t * 3 + 1], 2 * sizeof(*z));
    prompt_weigh(&p.chunks[0], PROMPT_A1111,
                 &(struct prompt_hidden){.values = alone, .width = 2, .pitch = 2});
    prompt_weigh(&p.chunks[0], PROMPT_A1111,
                 &(struct prompt_hidden){.values = z + 1, .width = 2, .pitch = 3});
    for (int t = 0; t < TOKENIZER_CONTEXT; t++) {
        assert_true(z[t * 3] == (float)(1 + t * 3 % 7));
        assert_memory_equal(&alone[t * 2], &z[t * 3 + 1], 2 * sizeof(*z));
    }
    prompt_release(&p);
}

static void test_weigh_comfy(void **state)
{
    struct prompt p = read("(cat:3)", PROMPT_COMFY);
    float z[TOKENIZER_CONTEXT], empty[TOKENIZER_CONTEXT];

    (void)state;
    for (int i = 0; i < TOKENIZER_CONTEXT; i++) {
        z[i] = (float)i + 2;
        empty[i] = (float)i;
    }
    prompt_weigh(&p.chunks[0], PROMPT_COMFY, &(struct prompt_hidden){z, empty, 1, 1});
    assert_true(z[1] == 1 + 3 * 2); /* empty + 3 (z - empty) */
    assert_true(z[0] == 2 && z[2] == 4 && z[76] == 78);
    prompt_release(&p);
}

static void refused(const char *text, enum prompt_syntax syntax, const char *reason)
{
    struct prompt p;
    struct err err = {0};

    assert_int_equal(prompt_read(&p, text, syntax, &err), -1);
    assert_string_equal(err.param, "prompt");
    assert_non_null(strstr(err.message, reason));
}

static int own_ids(const struct prompt_chunk *chunk)
{
    int count = 0;

    for (int i = 0; i < TOKENIZER_CONTEXT; i++)
        count += chunk->ids[i] >= TOKENIZER_VOCABULARY;
    return count;
}

static struct prompt read_words(const char *text, enum prompt_syntax syntax,
                                struct prompt_words *own)
{
    struct prompt p;
    struct err err = {0};

    if (prompt_read_words(&p, text, syntax, own, &err))
        fail_msg("%s", err.message);
    return p;
}

/* "cat" and "cat red": the longer one is meant where it stands, and neither is cut by the end of a chunk. */
static void test_words_with_vectors(void **state)
{
    static const int32_t ids[] = {2368, 736};
    struct prompt_word all[] = {{"cat", ids, 1, 0, 3, false},
                                {"cat red", ids, 2, 3, 75, false}};
    struct prompt_words own = {all, 2};
    struct prompt p = read_words("a (cat:1.5), red", PROMPT_A1111, &own);
    char *text;

    (void)state;
    assert_int_equal(p.count, 1);
    assert_int_equal(length(&p.chunks[0]), 6);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(p.chunks[0].ids[2 + i], TOKENIZER_VOCABULARY + i);
        assert_float_equal(p.chunks[0].weights[2 + i], 1.5, 1e-6);
    }
    assert_true(all[0].is_used && !all[1].is_used);
    prompt_release(&p);

    p = read_words("a cat red", PROMPT_A1111, &own);
    assert_int_equal(p.count, 2);
    assert_int_equal(length(&p.chunks[0]), 1);
    assert_int_equal(own_ids(&p.chunks[1]), 75);
    assert_int_equal(p.chunks[1].ids[1], TOKENIZER_VOCABULARY + 3);
    assert_true(all[1].is_used);
    prompt_release(&p);

    own.count = 1;
    text = words(26, ""); /* 78 vectors: 25 words and one */
    p = read_words(text, PROMPT_A1111, &own);
    assert_int_equal(p.count, 2);
    assert_int_equal(own_ids(&p.chunks[0]), 75);
    assert_int_equal(own_ids(&p.chunks[1]), 3);
    prompt_release(&p);
    free(text);

    p = read_words("cat embedding:cat red", PROMPT_COMFY, &own);
    assert_int_equal(own_ids(&p.chunks[0]), 3);
    assert_int_equal(length(&p.chunks[0]), 5);
    prompt_release(&p);
}

static void test_refused(void **state)
{
    char deep[400], *text = words(33 * 75, "");

    (void)state;
    memset(deep, '(', sizeof(deep) - 1);
    deep[sizeof(deep) - 1] = '\0';
    refused(deep, PROMPT_A1111, "brackets inside");
    for (int i = 200; i < 399; i++)
        deep[i] = ')';
    refused(deep, PROMPT_COMFY, "brackets inside");
    refused(text, PROMPT_A1111, "longer than 32 chunks");
    refused(text, PROMPT_COMFY, "longer than 32 chunks");
    refused("\xff", PROMPT_A1111, "UTF-8");
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pieces),      cmocka_unit_test(test_chunk),
        cmocka_unit_test(test_chunks),      cmocka_unit_test(test_weights_of_tokens),
        cmocka_unit_test(test_weigh_a1111), cmocka_unit_test(test_weigh_beside),
        cmocka_unit_test(test_weigh_comfy), cmocka_unit_test(test_words_with_vectors),
        cmocka_unit_test(test_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
