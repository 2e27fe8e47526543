/* The ladder of memory: each rung in its order, and thousands of random jobs against simulated devices with tight budgets:
 * never more given than there is, every move explained, the same machine at the end as at the beginning. */
#include "unit.h"

#include "server/memory/plan.h"

#include <stdio.h>
#include <string.h>

#define MIB ((uint64_t)1024 * 1024)
#define GIB ((uint64_t)1024 * MIB)

/* RAM and one card with 8 GiB, 2 of them free; a writer with 32 layers of 128 MiB on the card. */
static struct plan_ledger a_machine(void)
{
    struct plan_ledger l = {
        .devices = {{"RAM", 32 * GIB, 16 * GIB}, {"card", 8 * GIB, 2 * GIB}},
        .device_count = 2,
        .residents = {{.name = "writer",
                       .device = 1,
                       .fixed_bytes = 2 * GIB,
                       .context = {.wished = 8192,
                                   .present = 8192,
                                   .kept = 4096,
                                   .spare_bytes = GIB},
                       .layer_bytes = 128 * MIB,
                       .layers = 32,
                       .wished_layers = 32,
                       .is_parkable = true}},
        .resident_count = 1,
        .margin_bytes = 256 * MIB,
        .quiet_ms = 1000,
    };

    return l;
}

static struct plan plan_for(const struct plan_ledger *l, uint64_t bytes, uint64_t low)
{
    const struct plan_want want = {
        .name = "painter", .device = 1, .self = -1, .bytes = bytes, .low_bytes = low};
    struct plan p;

    plan_make(l, &want, &p);
    return p;
}

static void assert_moves(const struct plan *p, const char *words)
{
    char got[256] = "";

    for (int i = 0; i < p->count; i++) {
        size_t n = strlen(got);

        snprintf(got + n, sizeof(got) - n, "%s%s", i ? " " : "",
                 plan_move_name(p->moves[i].kind));
        assert_true(p->moves[i].reason[0]);
    }
    assert_string_equal(got, words);
}

static void each_rung_in_its_order(void **state)
{
    struct plan_ledger l = a_machine();
    struct plan p;

    (void)state;
    p = plan_for(&l, GIB, 0);
    assert_moves(&p, "fits");
    p = plan_for(&l, 1792 * MIB, 0); /* all that the margin leaves */
    assert_moves(&p, "fits");
    p = plan_for(&l, 1792 * MIB + 1, 0);
    assert_moves(&p, "trim fits");
    p = plan_for(&l, 3 * GIB, 0); /* 256 MiB are missing after the trim */
    assert_moves(&p, "trim layers fits");
    assert_int_equal(p.moves[1].layers, 30);
    p = plan_for(&l, 7 * GIB, 0); /* all of it has to go, so nothing is done before */
    assert_moves(&p, "park fits");
    assert_int_equal(p.moves[0].bytes, 6 * GIB);
    p = plan_for(&l, 9 * GIB, 2 * GIB);
    assert_moves(&p, "trim low");
    p = plan_for(&l, 9 * GIB, 0);
    assert_moves(&p, "refuse");
    assert_false(p.admits);
    assert_non_null(strstr(p.moves[0].reason,
                           "painter needs 9.00 GiB on card; 2.00 of 8.00 GiB are free "
                           "and 0.25 GiB stay reserved: unload or unpin a model"));
}

static void layers_need_room_in_ram(void **state)
{
    struct plan_ledger l = a_machine();

    (void)state;
    l.devices[PLAN_RAM].free = l.margin_bytes + 128 * MIB;
    struct plan p = plan_for(&l, 2816 * MIB + 128 * MIB, 0);

    assert_moves(&p, "trim layers fits");
    assert_int_equal(p.moves[1].layers, 31);
    p = plan_for(&l, 3 * GIB, 0); /* two would have to go */
    assert_moves(&p, "park fits");
}

/* Whoever is asked for layers is started anew, so what works or is just being started is not asked. */
static void layers_come_from_those_that_can_be_started_anew(void **state)
{
    struct plan_ledger l = a_machine();

    (void)state;
    l.residents[0].context.spare_bytes = 0;
    l.residents[0].is_parkable = false;
    struct plan p = plan_for(&l, 3 * GIB, 0);

    assert_moves(&p, "refuse");
}

/* A model on a card has parts in RAM: there must be room for them, too, and others have such parts to give. */
static void who_wants_a_card_wants_ram_as_well(void **state)
{
    struct plan_ledger l = a_machine();
    struct plan_want want = {
        .name = "reader", .device = 1, .self = -1, .bytes = GIB, .ram_bytes = 4 * GIB};
    struct plan p;

    (void)state;
    plan_make(&l, &want, &p);
    assert_moves(&p, "fits");
    l.devices[PLAN_RAM].free = l.margin_bytes + 3 * GIB;
    plan_make(&l, &want, &p);
    assert_moves(&p, "refuse");
    assert_int_equal(p.moves[0].device, PLAN_RAM);
    assert_non_null(strstr(p.moves[0].reason, "reader needs 4.00 GiB on RAM; 3.25 of"));
    l.residents[1] = (struct plan_resident){.name = "talker",
                                            .device = PLAN_RAM,
                                            .fixed_bytes = 2 * GIB,
                                            .is_parkable = true,
                                            .used_ms = 9};
    l.resident_count = 2;
    plan_make(&l, &want, &p);
    assert_moves(&p, "park fits");
    assert_int_equal(p.moves[0].resident, 1);
    assert_non_null(strstr(p.moves[0].reason, "talker is parked and gives back 2.00 "
                                              "GiB on RAM, because reader needs 4.00"));
    l.residents[1].is_pinned = true;
    l.residents[0].layers = 16; /* 2 GiB of the writer are in RAM */
    plan_make(&l, &want, &p);
    assert_moves(&p, "park fits");
    assert_int_equal(p.moves[0].resident, 0);
    assert_int_equal(p.moves[0].bytes, 2 * GIB);
    want = (struct plan_want){
        .name = "a picture", .device = PLAN_RAM, .self = -1, .bytes = 5 * GIB};
    plan_make(&l, &want, &p);
    assert_moves(&p, "park fits");
    assert_int_equal(p.moves[0].resident, 0);
}

static void pins_and_policies(void **state)
{
    struct plan_ledger l = a_machine();
    struct plan p;

    (void)state;
    l.policy = PLAN_ASK;
    p = plan_for(&l, 3 * GIB, 0);
    assert_true(p.admits && p.needs_leave);
    p = plan_for(&l, GIB, 0);
    assert_true(p.admits && !p.needs_leave);
    l.policy = PLAN_MANUAL;
    p = plan_for(&l, 3 * GIB, 0);
    assert_moves(&p, "refuse");
    assert_non_null(strstr(p.moves[0].reason, "the memory policy is manual"));
    l.policy = PLAN_AUTOMATIC;
    l.residents[0].is_pinned = true;
    p = plan_for(&l, 3 * GIB, 0);
    assert_moves(&p, "refuse");
}

static void the_least_recently_used_gives_way(void **state)
{
    struct plan_ledger l = a_machine();

    (void)state;
    l.residents[0].used_ms = 20;
    l.residents[1] = (struct plan_resident){.name = "reader",
                                            .device = 1,
                                            .layer_bytes = 64 * MIB,
                                            .layers = 8,
                                            .wished_layers = 8,
                                            .is_parkable = true,
                                            .used_ms = 10};
    l.resident_count = 2;
    struct plan p = plan_for(&l, 3 * GIB, 0);

    assert_moves(&p, "trim layers fits");
    assert_int_equal(p.moves[1].resident, 1);
    assert_int_equal(p.moves[1].layers, 4);
}

/* Parking the small one first would not help: the large one has to go in any case. */
static void nobody_gives_way_in_vain(void **state)
{
    struct plan_ledger l = a_machine();

    (void)state;
    l.residents[0] = (struct plan_resident){.name = "small",
                                            .device = 1,
                                            .fixed_bytes = 64 * MIB,
                                            .is_parkable = true,
                                            .used_ms = 1};
    l.residents[1] = (struct plan_resident){.name = "large",
                                            .device = 1,
                                            .fixed_bytes = 4 * GIB,
                                            .is_parkable = true,
                                            .used_ms = 2};
    l.resident_count = 2;
    struct plan p = plan_for(&l, 3 * GIB, 0);

    assert_moves(&p, "park fits");
    assert_int_equal(p.moves[0].resident, 1);
    p = plan_for(&l, l.devices[1].free - l.margin_bytes + 4 * GIB + 64 * MIB, 0);
    assert_moves(&p, "park park fits");
}

static void it_comes_back_when_it_is_quiet(void **state)
{
    struct plan_ledger l = a_machine();
    struct plan p;

    (void)state;
    l.residents[0].layers = 29;
    l.residents[0].used_ms = 5000;
    plan_restore(&l, 5999, &p);
    assert_int_equal(p.count, 0);
    plan_restore(&l, 6000, &p);
    assert_moves(&p, "regain");
    assert_int_equal(p.moves[0].layers, 32);
    l.devices[1].free =
        l.margin_bytes + 128 * MIB; /* one layer of three: not worth it */
    plan_restore(&l, 6000, &p);
    assert_int_equal(p.count, 0);
    l.devices[1].free += 128 * MIB;
    plan_restore(&l, 6000, &p);
    assert_int_equal(p.moves[0].layers, 31);
    l.residents[0].layers = 31; /* the last one alone is */
    l.devices[1].free = l.margin_bytes + 128 * MIB;
    plan_restore(&l, 6000, &p);
    assert_int_equal(p.moves[0].layers, 32);
}

/* Only whole, and after the layers. */
static void the_context_comes_back_when_it_is_quiet(void **state)
{
    struct plan_ledger l = a_machine();
    struct plan p = plan_for(&l, 1792 * MIB + 1, 0);

    (void)state;
    assert_non_null(strstr(p.moves[0].reason, "writer gives back 1.00 GiB of context "
                                              "cache that nobody uses (4096 of 8192 "
                                              "tokens stay), because painter needs"));
    plan_apply(&l, &p.moves[0]);
    assert_int_equal(l.devices[1].free, 3 * GIB);
    assert_int_equal(l.residents[0].context.present, 4096);
    plan_restore(&l, 6000, &p);
    assert_moves(&p, "grow");
    assert_non_null(
        strstr(p.moves[0].reason, "(8192 tokens instead of 4096): 1.00 GiB"));
    l.devices[1].free = l.margin_bytes + GIB - 1;
    plan_restore(&l, 6000, &p);
    assert_int_equal(p.count, 0);
    l.residents[0].layers = 30;
    plan_restore(&l, 6000, &p);
    assert_moves(&p, "regain");
    l.devices[1].free = 3 * GIB;
    l.residents[0].is_pinned = true;
    plan_restore(&l, 6000, &p);
    assert_int_equal(p.count, 0);
}

/* The cache of a model on a card lies with its layers, on both sides. */
static void layers_take_their_part_of_the_context_along(void **state)
{
    struct plan_ledger l = a_machine();
    struct plan_resident *r = &l.residents[0];
    uint64_t ram;

    (void)state;
    r->context = (struct plan_context){
        .wished = 8192, .present = 8192, .kept = 2048, .spare_layer_bytes = 32 * MIB};
    r->layers = 20;
    ram = l.devices[PLAN_RAM].free;
    struct plan p = plan_for(&l, 1792 * MIB + 600 * MIB, 0);

    assert_moves(&p, "trim fits");
    assert_int_equal(p.moves[0].bytes, 20 * 32 * MIB);
    plan_apply(&l, &p.moves[0]);
    assert_int_equal(l.devices[1].free, 2 * GIB + 20 * 32 * MIB);
    assert_int_equal(l.devices[PLAN_RAM].free, ram + 12 * 32 * MIB);
    r->is_parkable = false; /* it works: it cannot be started anew */
    r->context.spare_layer_bytes = 32 * MIB;
    p = plan_for(&l, 4 * GIB, 0);
    assert_moves(&p, "refuse");
}

/* ---- random jobs ---- */

static uint64_t seed;

static uint64_t below(uint64_t n)
{
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (seed >> 33) % n;
}

/* What is free is what is left of the total: foreign bytes, residents, and the job that runs. */
static void assert_books(const struct plan_ledger *l, const uint64_t *foreign)
{
    for (int d = 0; d < l->device_count; d++) {
        uint64_t used = foreign[d];

        for (int i = 0; i < l->resident_count; i++)
            used += (l->residents[i].device == d ? plan_resident_bytes(&l->residents[i])
                                                 : 0) +
                    (d == PLAN_RAM ? plan_resident_ram(&l->residents[i]) : 0);
        assert_true(used <= l->devices[d].total);
        assert_int_equal(l->devices[d].free, l->devices[d].total - used);
        assert_true(l->devices[d].free >= l->margin_bytes);
    }
}

static void random_machine(struct plan_ledger *l, uint64_t *foreign)
{
    memset(l, 0, sizeof(*l));
    l->margin_bytes = below(512) * MIB;
    l->quiet_ms = 1000;
    l->device_count = 1 + (int)below(3);
    l->resident_count = 1 + (int)below(6);
    for (int i = 0; i < l->resident_count; i++) {
        struct plan_resident *r = &l->residents[i];

        snprintf(r->name, sizeof(r->name), "model-%d", i);
        r->device = (int)below((uint64_t)l->device_count);
        r->fixed_bytes = (100 + below(2000)) * MIB;
        r->layers = r->device == PLAN_RAM ? 0 : (int)below(40);
        r->wished_layers = r->layers;
        r->layer_bytes = r->device == PLAN_RAM ? 0 : (1 + below(200)) * MIB;
        r->ram_bytes = r->device == PLAN_RAM ? 0 : below(300) * MIB;
        if (below(2)) {
            struct plan_context *c = &r->context;

            *c = (struct plan_context){.wished = 8192, .present = 8192, .kept = 2304};
            *(r->layers ? &c->spare_layer_bytes : &c->spare_bytes) =
                below(r->layers ? r->layer_bytes : r->fixed_bytes);
        }
        r->is_pinned = below(5) == 0;
        r->is_parkable = below(4) != 0;
    }
    for (int d = 0; d < l->device_count; d++) {
        struct plan_device *v = &l->devices[d];

        snprintf(v->name, sizeof(v->name), "device-%d", d);
        foreign[d] = below(2000) * MIB;
        v->free = l->margin_bytes + below(1500) * MIB; /* tight */
        v->total = v->free + foreign[d];
        for (int i = 0; i < l->resident_count; i++)
            v->total +=
                (l->residents[i].device == d ? plan_resident_bytes(&l->residents[i])
                                             : 0) +
                (d == PLAN_RAM ? plan_resident_ram(&l->residents[i]) : 0);
    }
}

static void carry_out(struct plan_ledger *l, const struct plan *p,
                      const uint64_t *foreign)
{
    for (int i = 0; i < p->count; i++) {
        const struct plan_move *m = &p->moves[i];

        assert_true(strlen(m->reason) > 10 &&
                    strlen(m->reason) < sizeof(m->reason) - 1);
        if (m->resident >= 0 && m->kind != PLAN_UNPARK)
            assert_false(l->residents[m->resident].is_pinned);
        plan_apply(l, m);
        assert_books(l, foreign);
    }
}

/* One job: planned, carried out, its memory taken and given back. Returns whether it was admitted. */
static bool one_job(struct plan_ledger *l, uint64_t *foreign, uint64_t now_ms)
{
    int self = below(2) ? (int)below((uint64_t)l->resident_count) : -1;
    const struct plan_want want = {
        .name = "job",
        .device = self >= 0 ? l->residents[self].device
                            : (int)below((uint64_t)l->device_count),
        .self = self,
        .bytes = (1 + below(6000)) * MIB,
        .ram_bytes = below(2) ? 0 : (1 + below(1000)) * MIB,
        .low_bytes = below(3) ? 0 : (1 + below(2000)) * MIB};
    const uint64_t beside = want.device == PLAN_RAM ? 0 : want.ram_bytes;
    struct plan p;

    plan_make(l, &want, &p);
    assert_true(p.count >= 1);
    const struct plan_move last = p.moves[p.count - 1];

    assert_int_equal(p.admits, last.kind == PLAN_FITS || last.kind == PLAN_LOW);
    if (!p.admits) {
        assert_int_equal(p.count, 1);
        assert_int_equal(last.kind, PLAN_REFUSE);
        return false;
    }
    carry_out(l, &p, foreign);
    foreign[want.device] += last.bytes;
    foreign[PLAN_RAM] += beside;
    l->devices[want.device].free -= last.bytes;
    l->devices[PLAN_RAM].free -= beside;
    assert_books(l, foreign);
    foreign[want.device] -= last.bytes;
    foreign[PLAN_RAM] -= beside;
    l->devices[want.device].free += last.bytes;
    l->devices[PLAN_RAM].free += beside;
    if (self >= 0)
        l->residents[self].used_ms = now_ms;
    return true;
}

static void two_hundred_mixed_jobs_on_a_thousand_machines(void **state)
{
    struct plan_ledger l, before;
    uint64_t foreign[PLAN_DEVICES_MAX], now_ms, admitted = 0, moved = 0;
    struct plan p;

    (void)state;
    for (uint64_t machine = 1; machine <= 1000; machine++) {
        seed = machine;
        random_machine(&l, foreign);
        assert_books(&l, foreign);
        before = l;
        for (now_ms = 2000; now_ms < 202000; now_ms += 1000) {
            admitted += one_job(&l, foreign, now_ms);
            plan_restore(&l, now_ms + below(1000), &p);
            carry_out(&l, &p, foreign);
        }
        moved += memcmp(&l.residents, &before.residents, sizeof(l.residents)) != 0;
        plan_restore(&l, now_ms + 10000, &p);
        carry_out(&l, &p, foreign);
        for (int i = 0; i < l.resident_count; i++) {
            assert_int_equal(l.residents[i].layers, l.residents[i].wished_layers);
            assert_false(l.residents[i].is_parked);
            assert_int_equal(l.residents[i].context.present,
                             l.residents[i].context.wished);
        }
        plan_restore(&l, now_ms + 20000, &p);
        assert_int_equal(p.count, 0); /* it is done, and stays so */
    }
    assert_true(admitted > 50000 && admitted < 180000);
    assert_true(moved > 100);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_rung_in_its_order),
        cmocka_unit_test(layers_need_room_in_ram),
        cmocka_unit_test(layers_come_from_those_that_can_be_started_anew),
        cmocka_unit_test(who_wants_a_card_wants_ram_as_well),
        cmocka_unit_test(pins_and_policies),
        cmocka_unit_test(the_least_recently_used_gives_way),
        cmocka_unit_test(nobody_gives_way_in_vain),
        cmocka_unit_test(it_comes_back_when_it_is_quiet),
        cmocka_unit_test(the_context_comes_back_when_it_is_quiet),
        cmocka_unit_test(layers_take_their_part_of_the_context_along),
        cmocka_unit_test(two_hundred_mixed_jobs_on_a_thousand_machines),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
