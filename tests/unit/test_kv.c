// Pages of the KV pools: none lost, none written that another holds, none found that is not what its key
// says.
#include <stdlib.h>

#include "runtime/base/num.h"
#include "runtime/engine/kv.h"
#include "runtime/engine/prefix.h"
#include "tests/unit/unit.h"

enum { P = 4, COLUMNS = 4, WINDOW = 6 };

static AdaPlan plan_of(uint32_t seqs) {
    return (AdaPlan){.n_kv_groups = 2,
                     .seqs_max = seqs,
                     .page_tokens = P,
                     .context = 40,
                     .kv = {{.pages_per_seq = 10}, {.window = WINDOW, .pages_per_seq = COLUMNS}}};
}

static void keys_of(const int32_t *ids, uint32_t n_pages, Str salt, Sha256 *keys) {
    Sha256 before = prefix_begin(salt);
    for (uint32_t j = 0; j < n_pages; j++) keys[j] = before = prefix_next(&before, ids + j * P, P);
}

static void keys_name_all_that_came_before(void **state) {
    (void)state;
    int32_t ids[3 * P] = {0};
    Sha256 a[3], b[3], c[3];
    keys_of(ids, 3, STR(""), a);
    keys_of(ids, 3, STR("tenant"), c);
    ids[0] = 1;
    keys_of(ids, 3, STR(""), b);
    for (uint32_t j = 0; j < 3; j++) {
        assert_memory_not_equal(&a[j], &b[j], sizeof *a);
        assert_memory_not_equal(&a[j], &c[j], sizeof *a);
        assert_memory_not_equal(&a[j], &a[(j + 1) % 3], sizeof *a); // equal tokens, other places
    }
    uint8_t bytes[sizeof(Sha256) + P * sizeof *ids];
    const Sha256 root = prefix_begin(STR(""));
    memcpy(bytes, &root, sizeof root), memcpy(bytes + sizeof root, ids, P * sizeof *ids);
    const Sha256 first = sha256(bytes, sizeof bytes);
    assert_memory_equal(&b[0], &first, sizeof first);
}

static void reserve_is_all_or_nothing(void **state) {
    (void)state;
    Arena a = {0};
    AdaPlan p = plan_of(2);
    const uint32_t pages[] = {12, 4};
    Kv kv;
    kv_init(&kv, &a, &p, pages);
    assert_true(kv_reserve(&kv, 0, 0, 5));
    assert_int_equal(kv.groups[0].end[0], 2);
    assert_true(kv_reserve(&kv, 0, 5, 8)); // both pages are there
    assert_int_equal(kv_unheld(&kv, 0), 10);
    for (uint32_t at = 8; at < 40; at += 4) assert_true(kv_reserve(&kv, 0, at, at + 4));
    assert_int_equal(kv.groups[0].end[0], 10);
    assert_int_equal(kv.groups[1].end[0] - kv.groups[1].first[0],
                     3);                      // positions 31 to 39 are seen from 36 on
    assert_false(kv_reserve(&kv, 1, 0, 12));  // group 0 has 2
    assert_int_equal(kv.groups[0].end[1], 0); // and keeps them
    assert_true(kv_consistent(&kv));
    kv_release(&kv, 0);
    assert_true(kv_reserve(&kv, 1, 0, 12));
    assert_true(kv_consistent(&kv));
    arena_free(&a);
}

static void tables_are_written_where_they_changed(void **state) {
    (void)state;
    Arena a = {0};
    AdaPlan p = plan_of(3);
    const uint32_t pages[] = {30, 12};
    int32_t device[2][3 * 10] = {{0}};
    ExecWrite w[6];
    Kv kv;
    kv_init(&kv, &a, &p, pages);
    srand(5);
    for (uint32_t at = 0; at < 40;) {
        const uint32_t want = at + 1 + (uint32_t)rand() % 8, to = MIN(want, 40);
        uint32_t n;
        for (uint32_t slot = 0; slot < 3; slot += 2) assert_true(kv_reserve(&kv, slot, at, to));
        n = kv_writes(&kv, w);
        for (uint32_t i = 0; i < n; i++)
            memcpy((char *)device[w[i].index] + w[i].offset, w[i].src, w[i].bytes);
        for (uint32_t g = 0; g < 2; g++)
            assert_memory_equal(device[g], kv.groups[g].table,
                                3 * kv.groups[g].columns * sizeof *kv.groups[g].table);
        assert_int_equal(kv_writes(&kv, w), 0);
        at = to;
    }
    arena_free(&a);
}

// Slot 0 computes and publishes; slot 1 shares; both hold, one writes on.
static void shared_pages_are_held_together(void **state) {
    (void)state;
    Arena a = {0};
    AdaPlan p = plan_of(2);
    const uint32_t pages[] = {12, 8};
    int32_t ids[20] = {1, 2, 3};
    Sha256 keys[5];
    bool pending;
    Kv kv;
    keys_of(ids, 5, STR(""), keys);
    kv_init(&kv, &a, &p, pages);
    assert_true(kv_reserve(&kv, 0, 0, 10));
    kv_publish(&kv, 0, 0, &keys[0], 7), kv_publish(&kv, 0, 1, &keys[1], 7);
    assert_int_equal(kv_match(&kv, UINT32_MAX, keys, 5, 7, &pending), 0); // of this very step
    assert_true(pending);
    assert_int_equal(kv_match(&kv, UINT32_MAX, keys, 5, 8, &pending), 2);
    assert_false(pending);
    assert_int_equal(kv_match(&kv, UINT32_MAX, keys, 1, 8, &pending), 1);
    kv_share(&kv, 1, keys, 2);
    assert_int_equal(kv.groups[0].table[0], kv.groups[0].table[10]);
    assert_false(kv_writable(&kv, 1, 7));
    assert_false(kv_writable(&kv, 0, 0)); // known, even where one alone holds it
    assert_true(kv_reserve(&kv, 1, 8, 9));
    assert_true(kv_writable(&kv, 1, 8) && kv_writable(&kv, 0, 8));
    assert_true(kv_consistent(&kv));
    kv_release(&kv, 0);
    assert_true(kv_consistent(&kv));
    assert_int_equal(kv_unheld(&kv, 0), 12 - 3);
    kv_release(&kv, 1);
    assert_int_equal(kv_unheld(&kv, 0), 12);
    assert_int_equal(kv_match(&kv, UINT32_MAX, keys, 5, 8, &pending), 2); // remembered
    assert_true(kv_reserve(&kv, 0, 0, 16));                               // takes the free ones first
    assert_int_equal(kv_match(&kv, UINT32_MAX, keys, 5, 8, &pending), 2);
    for (uint32_t at = 16; at < 40; at += 4) assert_true(kv_reserve(&kv, 0, at, at + 4));
    assert_int_equal(kv_match(&kv, UINT32_MAX, keys, 5, 8, &pending), 2);
    assert_true(kv_reserve(&kv, 1, 0, 4)); // the 11th: the end of the prefix is forgotten, not its begin
    assert_int_equal(kv_match(&kv, UINT32_MAX, keys, 5, 8, &pending), 1);
    assert_true(kv_consistent(&kv));
    arena_free(&a);
}

// A window group can go on only where the last WINDOW - 1 positions are still there.
static void windows_need_their_tail_alone(void **state) {
    (void)state;
    Arena a = {0};
    AdaPlan p = plan_of(2);
    const uint32_t pages[] = {20, 8};
    int32_t ids[40] = {0};
    Sha256 keys[10];
    bool pending;
    Kv kv;
    keys_of(ids, 10, STR(""), keys);
    kv_init(&kv, &a, &p, pages);
    for (uint32_t at = 0; at < 40; at += P) {
        assert_true(kv_reserve(&kv, 0, at, at + P));
        kv_publish(&kv, 0, at / P, &keys[at / P], 1);
    }
    assert_int_equal(kv_match(&kv, UINT32_MAX, keys, 10, 2, &pending), 10);
    kv_share(&kv, 1, keys, 10); // positions 35 to 39: pages 8 and 9 of the window group
    assert_int_equal(kv.groups[1].first[1], 8);
    assert_int_equal(kv.groups[0].first[1], 0);
    kv_release(&kv, 1);
    // The window group has 8 pages; the pages of slot 0 it keeps, the oldest of the others it forgets.
    assert_true(kv_reserve(&kv, 1, 0, 3 * P));
    assert_true(kv_consistent(&kv));
    assert_int_equal(kv_match(&kv, UINT32_MAX, keys, 10, 2, &pending), 10);
    assert_int_equal(kv_match(&kv, UINT32_MAX, keys, 5, 2, &pending), 0); // what page 5 would see is gone
    arena_free(&a);
}

static void what_failed_is_forgotten(void **state) {
    (void)state;
    Arena a = {0};
    AdaPlan p = plan_of(1);
    const uint32_t pages[] = {10, 4};
    int32_t ids[P] = {0};
    Sha256 key;
    bool pending;
    Kv kv;
    keys_of(ids, 1, STR(""), &key);
    kv_init(&kv, &a, &p, pages);
    assert_true(kv_reserve(&kv, 0, 0, 6));
    kv_publish(&kv, 0, 0, &key, 1);
    kv_forget(&kv, 0);
    assert_int_equal(kv_match(&kv, UINT32_MAX, &key, 1, 2, &pending), 0);
    kv_release(&kv, 0);
    assert_true(kv_consistent(&kv));
    assert_int_equal(kv.groups[0].n_free, 10);
    arena_free(&a);
}

// Whatever is reserved together keeps every key that its positions see, in a column of its own.
static void rings_never_overwrite_what_is_seen(void **state) {
    (void)state;
    Arena a = {0};
    AdaPlan p = plan_of(1);
    const uint32_t pages[] = {10, 4};
    srand(9);
    for (int round = 0; round < 200; round++) {
        Kv kv;
        kv_init(&kv, &a, &p, pages);
        for (uint32_t at = 0; at < 40;) {
            assert_true(kv_reach(&kv, at) > at);
            const uint32_t want = at + 1 + (uint32_t)rand() % 12, reach = kv_reach(&kv, at);
            const uint32_t to = MIN(MIN(want, 40), reach);
            assert_true(kv_reserve(&kv, 0, at, to));
            uint32_t first = at >= WINDOW ? at - WINDOW + 1 : 0;
            assert_true(kv.groups[1].first[0] <= first / P && kv.groups[1].end[0] > (to - 1) / P);
            assert_true(kv.groups[1].end[0] - kv.groups[1].first[0] <= COLUMNS);
            at = to;
        }
        arena_free(&a);
    }
}

static void pages_are_conserved(void **state) {
    (void)state;
    Arena a = {0};
    AdaPlan p = plan_of(5);
    const uint32_t pages[] = {23, 12};
    Sha256 keys[2][9];
    uint32_t at[5] = {0};
    int32_t ids[40] = {0};
    bool pending;
    Kv kv;
    kv_init(&kv, &a, &p, pages);
    keys_of(ids, 9, STR(""), keys[0]);
    ids[2 * P] = 1;
    keys_of(ids, 9, STR(""), keys[1]);
    srand(7);
    for (uint64_t i = 1; i < 4000; i++) {
        uint32_t slot = (uint32_t)rand() % 5, want = at[slot] + 1 + (uint32_t)rand() % 6, to = MIN(want, 40u);
        const Sha256 *k = keys[slot % 2];
        if (!at[slot] && rand() % 2) {
            uint32_t n = kv_match(&kv, UINT32_MAX, k, (uint32_t)rand() % 9, i, &pending);
            kv_share(&kv, slot, k, n);
            at[slot] = n * P;
        } else if (rand() % 4 && at[slot] < 40 && (to = MIN(to, kv_reach(&kv, at[slot]))) &&
                   kv_reserve(&kv, slot, at[slot], to)) {
            for (uint32_t q = at[slot]; q < to; q++) assert_true(kv_writable(&kv, slot, q));
            at[slot] = to;
            for (uint32_t j = 0; j < to / P && j < 9; j++) kv_publish(&kv, slot, j, &k[j], i);
        } else if (rand() % 2) {
            kv_trim(&kv, slot, at[slot]);
        } else {
            kv_release(&kv, slot);
            at[slot] = 0;
        }
        assert_true(kv_consistent(&kv));
    }
    for (uint32_t slot = 0; slot < 5; slot++) kv_release(&kv, slot);
    assert_int_equal(kv_unheld(&kv, 0), 23);
    assert_int_equal(kv_unheld(&kv, 1), 12);
    arena_free(&a);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keys_name_all_that_came_before),
        cmocka_unit_test(reserve_is_all_or_nothing),
        cmocka_unit_test(tables_are_written_where_they_changed),
        cmocka_unit_test(shared_pages_are_held_together),
        cmocka_unit_test(windows_need_their_tail_alone),
        cmocka_unit_test(what_failed_is_forgotten),
        cmocka_unit_test(rings_never_overwrite_what_is_seen),
        cmocka_unit_test(pages_are_conserved),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
