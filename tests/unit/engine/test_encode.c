/* Prompts that change while they are drawn, and prompts of several parts, as pictures. On the reference back end, whose
 * result for a row of a batch depends on nothing but that row, with the small model. */
#include "base/mem.h"
#include "engine/model.h"

#include "small_engine.h"
#include "unit.h"

#include <math.h>
#include <string.h>

enum { STEPS = 6, SIDE = 32, BYTES = SIDE * SIDE * 3 };

static struct engine_job a_job(const char *prompt, const char *negative)
{
    struct engine_job job;

    engine_job_defaults(model, &job);
    job.prompt = prompt;
    job.negative_prompt = negative;
    job.seed = 7;
    job.width = job.height = SIDE;
    job.steps = STEPS;
    job.cfg_scale = 7;
    job.sampler = "euler";
    return job;
}

/* A picture and the looks at it on the way: after step i. */
struct drawn {
    unsigned char rgb[BYTES];
    unsigned char looks[STEPS][BYTES];
};

static bool wants_preview(void *user, int image, int step, int steps)
{
    (void)user;
    (void)image;
    (void)step;
    (void)steps;
    return true;
}

static void on_preview(void *user, const struct engine_preview *preview)
{
    struct drawn *d = user;

    memcpy(d->looks[preview->step], preview->rgb,
           (size_t)preview->width * (size_t)preview->height * 3);
}

static bool on_image(void *user, const struct engine_image *image, struct err *err)
{
    struct drawn *d = user;

    (void)err;
    memcpy(d->rgb, image->rgb, BYTES);
    return true;
}

static struct drawn *draw(const struct engine_job *job)
{
    struct drawn *d = mem_zalloc(sizeof(*d));
    struct engine_events events = {.wants_preview = wants_preview,
                                   .on_preview = on_preview,
                                   .on_image = on_image,
                                   .user = d};
    struct err err = {0};

    check(engine_generate(model, job, &events, &err), &err);
    return d;
}

/* The steps until the two differ; STEPS: the pictures are the same too. */
static int same_steps(const struct engine_job *a, const struct engine_job *b)
{
    struct drawn *one = draw(a), *two = draw(b);
    int step = 1;

    while (step < STEPS && memcmp(one->looks[step], two->looks[step], BYTES) == 0)
        step++;
    if (step == STEPS && memcmp(one->rgb, two->rgb, BYTES))
        step = STEPS - 1;
    else if (step < STEPS)
        step--;
    free(one);
    free(two);
    return step;
}

static int same_until(const char *prompt, const char *plain)
{
    struct engine_job a = a_job(prompt, ""), b = a_job(plain, "");

    return same_steps(&a, &b);
}

static void test_ends_are_plain(void **state)
{
    (void)state;
    assert_int_equal(same_until("a boat", "a house"),
                     0); /* else nothing is shown here */
    assert_int_equal(same_until("[a boat:a house:0]", "a house"), STEPS);
    assert_int_equal(same_until("[a boat:a house:1.0]", "a boat"), STEPS);
    assert_int_equal(same_until("[a boat|a boat]", "a boat"), STEPS);
    assert_int_equal(same_until("[a boat:a house:6]", "a boat"), STEPS);
}

/* Of AUTOMATIC1111's runs, counted from 0, those up to the number are the first prompt's. */
static void test_changes_on_the_way(void **state)
{
    struct engine_job edited = a_job("[a boat:a house:0.5]", ""),
                      plain = a_job("a boat", "");

    (void)state;
    assert_int_equal(same_steps(&edited, &plain), 4);
    edited.prompt = "[a boat:a house:3]";
    assert_int_equal(same_steps(&edited, &plain), 4);
    edited.prompt = "[a boat|a house]";
    assert_int_equal(same_steps(&edited, &plain), 2);
    /* two runs a step: a whole number counts runs */
    edited.sampler = plain.sampler = "heun";
    edited.prompt = "[a boat:a house:3]";
    assert_int_equal(same_steps(&edited, &plain), 2);
    edited.prompt = "[a boat:a house:0.5]";
    assert_int_equal(same_steps(&edited, &plain), 4);
    /* the negative prompt as well, and brackets are text in the other dialect */
    edited = a_job("a tree", "[a boat:a house:2]");
    plain = a_job("a tree", "a boat");
    assert_int_equal(same_steps(&edited, &plain), 3);
    edited.dialect = plain.dialect = "comfy";
    assert_int_equal(same_steps(&edited, &plain), 0);
}

/* Each picture of a job begins with the first text again. */
static void test_every_picture_begins_anew(void **state)
{
    struct engine_job second = a_job("[a boat:a house:2]", ""), alone = second;

    (void)state;
    second.count = 2; /* the last one is what stays in `drawn` */
    alone.seed++;
    assert_int_equal(same_steps(&second, &alone), STEPS);
}

static int furthest(const char *prompt, const char *plain)
{
    struct engine_job a = a_job(prompt, "blue"), b = a_job(plain, "blue");
    struct drawn *one = draw(&a), *two = draw(&b);
    int most = 0;

    for (int i = 0; i < BYTES; i++)
        most = (int)fmax(most, abs(one->rgb[i] - two->rgb[i]));
    free(one);
    free(two);
    return most;
}

static void test_parts(void **state)
{
    struct engine_job job = a_job("a boat AND a house", "blue"), other = job;

    (void)state;
    assert_int_equal(same_until("a boat AND a house :0", "a boat"), STEPS);
    assert_true(furthest("a boat AND a house", "a house AND a boat") <= 1);
    assert_true(furthest("a boat :0.5 AND a boat :0.5", "a boat") <= 1);
    assert_true(furthest("a boat AND a house", "a boat") > 1);
    assert_true(furthest("a boat AND a house", "a house") > 1);
    assert_true(furthest("a boat AND a house", "a boat AND a house :-1") > 1);
    /* c + d - u: the negative prompt counts, also without guidance */
    job.cfg_scale = other.cfg_scale = 1;
    other.negative_prompt = "a large tree, at night";
    assert_true(same_steps(&job, &other) < STEPS);
    /* a part that changes; so late that the small looks on the way do not show it */
    job = a_job("a tree AND [a boat:a house:2]", "");
    other = a_job("a tree AND a boat", "");
    assert_int_equal(same_steps(&job, &other), STEPS - 1);
    job.prompt = "a tree AND [a boat:a house:1.0]";
    assert_int_equal(same_steps(&job, &other), STEPS);
}

/* Two chunks beside three are drawn as six of each. */
static void test_unlike_lengths(void **state)
{
    struct engine_job job = a_job("a BREAK b", "c BREAK d BREAK e");
    struct engine_job other = a_job("a BREAK b BREAK a BREAK b BREAK a BREAK b",
                                    "c BREAK d BREAK e BREAK c BREAK d BREAK e");

    (void)state;
    assert_int_equal(same_steps(&job, &other), STEPS);
    other.negative_prompt = "c BREAK d BREAK e BREAK c BREAK d BREAK a";
    assert_true(same_steps(&job, &other) < STEPS);
}

static uint64_t peak_of(const struct engine_job *job)
{
    struct engine_estimate estimate;
    struct err err = {0};

    check(engine_estimate(model, job, &estimate, &err), &err);
    return estimate.peak_bytes;
}

/* What is kept of each text is in the estimate: 77 vectors of 48 numbers, in units of 64 bytes. */
static void test_estimate(void **state)
{
    struct engine_job job = a_job("a boat", "");
    uint64_t plain = peak_of(&job), parts;

    (void)state;
    job.prompt = "[a boat|a house|a tree]"; /* and the empty one */
    assert_int_equal(peak_of(&job) - plain, 4 * 77 * 48 * sizeof(float));
    job.dialect = "comfy";
    assert_int_equal(peak_of(&job), plain);
    job = a_job("a boat AND a house AND a tree", "");
    parts = peak_of(&job);
    assert_true(parts > plain);
    job.prompt = "a boat AND a boat AND a boat";
    assert_int_equal(peak_of(&job), parts);
}

static void test_bounds(void **state)
{
    struct buf turns = {0}, lengthy = {0};
    struct engine_job job;

    (void)state;
    for (int i = 0; i < 5000; i++)
        buf_printf(&turns, "%c%d", i ? '|' : '[', i);
    buf_append_str(&turns, "]");
    job = a_job(buf_str(&turns), "");
    expect_job_refused(&job, "prompt", "more than 1000 alternatives");
    job = a_job("a boat", buf_str(&turns));
    expect_job_refused(&job, "negative_prompt", "more than 1000 alternatives");
    buf_release(&turns);
    for (int i = 0; i < 6; i++) /* a text of 7 chunks beside one of 9 */
        buf_append_str(&lengthy, "a BREAK ");
    job = a_job("a boat", "");
    buf_append_str(&lengthy, "[a|b BREAK c BREAK d]");
    job.prompt = buf_str(&lengthy);
    expect_job_refused(&job, "prompt", "shorten one of them");
    buf_release(&lengthy);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ends_are_plain),
        cmocka_unit_test(test_changes_on_the_way),
        cmocka_unit_test(test_every_picture_begins_anew),
        cmocka_unit_test(test_parts),
        cmocka_unit_test(test_unlike_lengths),
        cmocka_unit_test(test_estimate),
        cmocka_unit_test(test_bounds),
    };

    return cmocka_run_group_tests(tests, small_engine_set_up, small_engine_tear_down);
}
