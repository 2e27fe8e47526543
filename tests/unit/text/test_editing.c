/* What a prompt says at each step. The cases of ten steps are those that AUTOMATIC1111's own description of the syntax
 * gives, but for the one it says not to handle; the others follow from its grammar by hand. */
#include "engine/text/editing.h"

#include "base/mem.h"

#include "unit.h"

#include <stdlib.h>
#include <string.h>

struct want {
    const char *text;
    const char *said; /* "3:a b/10:a c": until step 3, until step 10 */
};

static const struct want wants[] = {
    {"test", "10:test"},
    {"", "10:"},
    {"a [b:3]", "3:a /10:a b"},
    {"a [b: 3]", "3:a /10:a b"},
    {"a [b:3 ]", "3:a /10:a b"},
    {"a [[[b]]:2]", "2:a /10:a [[b]]"},
    {"[(a:2):3]", "3:/10:(a:2)"},
    {"a [b : c : 1] d", "1:a b  d/10:a  c  d"},
    {"a[b:[c:d:2]:1]e", "1:abe/2:ace/10:ade"},
    {"a [unbalanced", "10:a [unbalanced"},
    {"a [b:.5] c", "5:a  c/10:a b c"},
    {"((a][:b:c [d:3]", "3:((a][:b:c /10:((a][:b:c d"},
    {"[a|(b:1.1)]",
     "1:a/2:(b:1.1)/3:a/4:(b:1.1)/5:a/6:(b:1.1)/7:a/8:(b:1.1)/9:a/10:(b:1.1)"},
    {"[fe|]male", "1:female/2:male/3:female/4:male/5:female/6:male/7:female/8:male/"
                  "9:female/10:male"},
    {"[fe|||]male", "1:female/4:male/5:female/8:male/9:female/10:male"},

    {"[a::3]", "3:a/10:"},
    {"[a:b:0]", "10:b"},
    {"[a:b:0.0]", "10:b"},
    {"[a:b:-2]", "10:b"},
    {"[a:b:1]", "1:a/10:b"},
    {"[a:b:1.0]", "10:a"}, /* a point makes it a fraction: all of the steps */
    {"[a:b:0.29]", "2:a/10:b"},
    {"[a:b:99]", "10:a"},
    {"[a:1:2]", "2:a/10:1"},
    {"[a]", "10:[a]"},
    {"[3]", "10:[3]"},
    {"[a:b]", "10:[a:b]"},
    {"[a:b:c:3]", "10:[a:b:c:3]"},
    {"[a:b:x3]", "10:[a:b:x3]"},
    {"(a [b:3]:1.2)", "3:(a :1.2)/10:(a b:1.2)"},
    {"[[a|b]:c:2]", "1:a/2:b/10:c"},
    {"[[a:b:1]|c]", "1:a/2:c/3:b/4:c/5:b/6:c/7:b/8:c/9:b/10:c"},
    {"\\[a:b:3\\]", "10:\\[a:b:3\\]"},
    {"[a\\:b:3]", "3:/10:a\\:b"},
    {"[a:b:3] | c", "10:[a:b:3] | c"}, /* a bar outside: all of it is plain */
    {"[a:b:3] \\", "10:[a:b:3] \\"},
    {"[a|b:3]", "10:[a|b:3]"},
    {"(a|b) [c:3]", "10:(a|b) [c:3]"},
    {"(a:b:c) [d:3]", "3:(a:b:c) /10:(a:b:c) d"},
    {"a BREAK [b:3]", "3:a BREAK /10:a BREAK b"},
    {"[a [b:3] [c [d:5]", "3:[a  [c /5:[a b [c /10:[a b [c d"},
};

static void say(struct buf *ret, int steps, const char *text)
{
    struct buf now = {0}, last = {0};

    for (int step = 1; step <= steps + 1; step++) {
        buf_clear(&now);
        if (step <= steps)
            assert_int_equal(editing_at(text, steps, step, &now, NULL), 0);
        if (step > 1 && (step > steps || strcmp(buf_str(&now), buf_str(&last))))
            buf_printf(ret, "%s%d:%s", ret->len ? "/" : "", step - 1, buf_str(&last));
        buf_clear(&last);
        buf_append(&last, buf_str(&now), now.len);
    }
    buf_release(&now);
    buf_release(&last);
}

static void test_steps(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(wants) / sizeof(*wants); i++) {
        struct buf said = {0};

        say(&said, 10, wants[i].text);
        assert_string_equal(buf_str(&said), wants[i].said);
        buf_release(&said);
    }
}

/* Run 0 and run 1 are both the first step's. */
static void test_runs(void **state)
{
    static const int turns[] = {0, 0, 1, 0, 1, 0, 1}, edit[] = {2, 2, 2, 2, 3, 3, 3};
    struct script s = {.steps = 6};

    (void)state;
    assert_int_equal(script_add_text(&s, "[a|b]", NULL), 0);
    assert_int_equal(script_add_text(&s, "[c:d:0.5]", NULL), 0);
    assert_int_equal(script_add_text(&s, "[a|a]", NULL), 0);
    assert_int_equal(s.row_count, 3);
    assert_int_equal(s.text_count, 4);
    for (int call = 0; call <= 6; call++) {
        assert_int_equal(script_text(&s, 0, call), turns[call]);
        assert_int_equal(script_text(&s, 1, call), edit[call]);
        assert_int_equal(script_text(&s, 2, call), 0);
    }
    assert_int_equal(script_text(&s, 0, 9), 1);
    assert_true(script_changes(&s));
    script_release(&s);

    s = (struct script){.steps = 6};
    assert_int_equal(script_add_plain(&s, "[a|b] AND c", NULL), 0);
    assert_int_equal(s.text_count, 1);
    assert_string_equal(s.texts[0], "[a|b] AND c");
    assert_false(script_changes(&s));
    script_release(&s);
}

static void test_parts(void **state)
{
    static const struct {
        const char *prompt, *parts; /* "text*weight|text*weight" */
    } cases[] = {
        {"a boat", "a boat*1"},
        {"at 12:30", "at 12:30*1"}, /* a weight is only where parts are joined */
        {"a boat AND a house", "a boat*1| a house*1"},
        {"a :0.7 AND b:2. AND c : -.5 ", "a*0.7| b*2| c*-0.5"},
        {"a:+1.5 AND b:1.2.3 AND c:", "a*1.5| b:1.2.3*1| c:*1"},
        {"a AND", "a*1|*1"},
        {"BAND ANDY AND_x and", "BAND ANDY AND_x and*1"},
        {"(a AND b:0.5)", "(a*1| b:0.5)*1"},
        {"[a:b:0] AND [c|c]:3", "b*1| c*3"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        struct script s = {.steps = 4};
        struct buf got = {0};

        assert_int_equal(script_add_prompt(&s, cases[i].prompt, NULL), 0);
        for (int row = 0; row < s.row_count; row++)
            buf_printf(&got, "%s%s*%g", row ? "|" : "",
                       s.texts[script_text(&s, row, 0)], s.rows[row].weight);
        assert_string_equal(buf_str(&got), cases[i].parts);
        buf_release(&got);
        script_release(&s);
    }
    struct script s = {.steps = 4}; /* as in a negative prompt */

    assert_int_equal(script_add_text(&s, "a AND b :2", NULL), 0);
    assert_string_equal(s.texts[0], "a AND b :2");
    script_release(&s);
}

static void refused(const char *prompt, int steps, const char *sentence)
{
    struct script s = {.steps = steps};
    struct err err = {0};

    assert_int_equal(script_add_prompt(&s, prompt, &err), -1);
    assert_int_equal(err.code, ERR_INVALID);
    assert_string_equal(err.param, "prompt");
    if (!strstr(err.message, sentence))
        fail_msg("'%s' lacks '%s'", err.message, sentence);
    script_release(&s);
}

static void test_bounds(void **state)
{
    struct buf turns = {0};

    (void)state;
    buf_append_str(&turns, "x [a");
    for (int i = 1; i < SCRIPT_CHOICES_MAX; i++)
        buf_printf(&turns, "|%d", i);
    size_t len = turns.len;

    buf_append_str(&turns, "]");
    struct script s = {.steps = SCRIPT_TEXTS_MAX};

    assert_int_equal(script_add_prompt(&s, buf_str(&turns), NULL), 0);
    assert_int_equal(s.text_count, SCRIPT_TEXTS_MAX);
    script_release(&s);
    refused(buf_str(&turns), SCRIPT_TEXTS_MAX + 1, "more than 128 different things");
    turns.len = len;
    buf_append_str(&turns, "|one more]");
    refused(buf_str(&turns), 4, "more than 1000 alternatives");
    buf_release(&turns);
    refused("a AND b AND c AND d AND e AND f AND g AND h AND i", 4,
            "more than 8 parts");
    refused("a AND b:101", 4, "weight 101");
    refused("a AND b:99999999999999999999999999999999999999999999", 4, "weight");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_steps),
        cmocka_unit_test(test_runs),
        cmocka_unit_test(test_parts),
        cmocka_unit_test(test_bounds),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
