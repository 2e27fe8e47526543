/* Which job is next: those whose model is loaded, but nobody waits longer than the bound for that. */
#include "server/queue/run.h"

#include "unit.h"

static int pick(const struct pick_job *jobs, int count, const char *loaded)
{
    return pick_next(jobs, count, loaded, 1000);
}

static void the_loaded_model_goes_first(void **state)
{
    const struct pick_job jobs[] = {{"/b", 10, true}, {"/a", 5, true}, {"/b", 1, true}};

    (void)state;
    assert_int_equal(pick(jobs, 3, "/a"), 1);
    assert_int_equal(pick(jobs, 3, "/b"), 0);
    assert_int_equal(pick(jobs, 3, "/c"), 0);
    assert_int_equal(pick(jobs, 3, NULL), 0);
    assert_int_equal(pick(jobs, 0, "/a"), -1);
}

static void no_model_named_fits_any(void **state)
{
    const struct pick_job jobs[] = {{"/b", 10, true}, {NULL, 5, true}};

    (void)state;
    assert_int_equal(pick(jobs, 2, "/a"), 1);
}

static void what_is_not_on_disk_does_not_begin(void **state)
{
    const struct pick_job jobs[] = {{"/a", 10, false}, {"/b", 5, true}};

    (void)state;
    assert_int_equal(pick(jobs, 2, "/a"), 1);
    assert_int_equal(pick(jobs, 1, "/a"), -1);
}

static void nobody_is_overtaken_beyond_the_bound(void **state)
{
    const struct pick_job jobs[] = {{"/b", 1000, true}, {"/a", 5, true}};

    (void)state;
    assert_int_equal(pick(jobs, 2, "/a"), 0);
}

/* One job for a rare model, and one more for the loaded model each time one is done (100 ms a job): the rare one waits for
 * the bound and one job, not for ever; and alternating requests change the model seldom. */
static void an_adversary_does_not_starve_anybody(void **state)
{
    struct pick_job jobs[2] = {{"/rare", 0, true}, {"/common", 0, true}};
    uint64_t waited = 0;

    (void)state;
    while (pick_next(jobs, 2, "/common", 1000) != 0) {
        waited += 100;
        jobs[0].waited_ms = waited;
        jobs[1].waited_ms = 0;
        assert_true(waited <= 1000);
    }
    assert_int_equal(waited, 1000);
}

static void two_who_alternate_change_the_model_seldom(void **state)
{
    struct pick_job jobs[20];
    const char *loaded = "/a";
    int changes = 0;

    (void)state;
    for (int i = 0; i < 20; i++)
        jobs[i] = (struct pick_job){i % 2 ? "/b" : "/a", 0, true};
    for (int done = 0; done < 20; done++) {
        int next = pick_next(jobs, 20 - done, loaded, 60000);

        changes += strcmp(jobs[next].model, loaded) != 0;
        loaded = jobs[next].model;
        memmove(&jobs[next], &jobs[next + 1],
                (size_t)(19 - done - next) * sizeof(*jobs));
    }
    assert_int_equal(changes, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_loaded_model_goes_first),
        cmocka_unit_test(no_model_named_fits_any),
        cmocka_unit_test(what_is_not_on_disk_does_not_begin),
        cmocka_unit_test(nobody_is_overtaken_beyond_the_bound),
        cmocka_unit_test(an_adversary_does_not_starve_anybody),
        cmocka_unit_test(two_who_alternate_change_the_model_seldom),
    };

    return RUN_TESTS(tests);
}
