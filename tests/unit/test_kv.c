// Pages of the KV pools: none lost, none shared, rings never grow past their size.
#include <stdlib.h>

#include "runtime/base/num.h"
#include "runtime/engine/kv.h"
#include "tests/unit/unit.h"

static AdaPlan plan_of(uint32_t seqs) {
    return (AdaPlan){.n_kv_groups = 2,
                     .seqs_max = seqs,
                     .page_tokens = 4,
                     .context = 40,
                     .kv = {{.pages_per_seq = 10}, {.window = 6, .pages_per_seq = 3}}};
}

static void reserve_is_all_or_nothing(void **state) {
    (void)state;
    Arena a = {0};
    AdaPlan p = plan_of(2);
    const uint32_t pages[] = {12, 3};
    Kv kv;
    bool changed;
    kv_init(&kv, &a, &p, pages);
    assert_true(kv_reserve(&kv, 0, 5, &changed) && changed);
    assert_int_equal(kv.groups[0].held[0], 2);
    assert_true(kv_reserve(&kv, 0, 8, &changed) && !changed); // both pages are there
    assert_true(kv_reserve(&kv, 0, 40, &changed) && changed);
    assert_int_equal(kv.groups[0].held[0], 10);
    assert_int_equal(kv.groups[1].held[0], 3);     // the ring is full
    assert_false(kv_reserve(&kv, 1, 4, &changed)); // group 1 has no page left
    assert_int_equal(kv.groups[0].held[1], 0);     // and group 0 kept its own
    assert_true(kv_consistent(&kv));
    kv_release(&kv, 0);
    assert_true(kv_reserve(&kv, 1, 4, &changed));
    assert_true(kv_consistent(&kv));
    arena_free(&a);
}

static void pages_are_conserved(void **state) {
    (void)state;
    Arena a = {0};
    AdaPlan p = plan_of(5);
    const uint32_t pages[] = {23, 9};
    Kv kv;
    bool changed;
    kv_init(&kv, &a, &p, pages);
    srand(7);
    for (int i = 0; i < 2000; i++) {
        uint32_t slot = (uint32_t)rand() % 5;
        if (rand() % 3)
            kv_reserve(&kv, slot, (uint32_t)rand() % 41, &changed);
        else
            kv_release(&kv, slot);
        assert_true(kv_consistent(&kv));
    }
    for (uint32_t slot = 0; slot < 5; slot++) kv_release(&kv, slot);
    assert_int_equal(kv.groups[0].n_free, 23);
    assert_int_equal(kv.groups[1].n_free, 9);
    arena_free(&a);
}

// A ring of 12 positions, window 6: position k is needed until position k + 5 was computed.
static void rewinding_keeps_what_the_window_needs(void **state) {
    (void)state;
    Arena a = {0};
    AdaPlan p = plan_of(1);
    const uint32_t pages[] = {10, 3};
    Kv kv;
    kv_init(&kv, &a, &p, pages);
    for (uint32_t cached = 0; cached < 40; cached++)
        for (uint32_t keep = 0; keep <= cached; keep++) {
            bool alive = true; // is every key that position `keep` sees still in the ring?
            for (uint32_t q = keep > 5 ? keep - 5 : 0; q < keep; q++)
                for (uint32_t later = q + 12; later < cached; later += 12) alive = false;
            // position keep itself is written anew; an overwritten q before it is what matters
            if (kv_can_rewind(&kv, cached, keep)) assert_true(alive);
            if (keep == cached) assert_true(kv_can_rewind(&kv, cached, keep));
        }
    assert_false(kv_can_rewind(&kv, 4, 5));
    assert_true(kv_can_rewind(&kv, 30, 25));
    assert_false(kv_can_rewind(&kv, 30, 12));
    arena_free(&a);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reserve_is_all_or_nothing),
        cmocka_unit_test(pages_are_conserved),
        cmocka_unit_test(rewinding_keeps_what_the_window_needs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
