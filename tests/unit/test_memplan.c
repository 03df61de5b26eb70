// Placement of scratch buffers: random lifetimes are packed without overlaps and without waste.
#include "compiler/ir/plan.h"
#include "compiler/passes/memplan.h"
#include "runtime/base/num.h"
#include "tests/unit/unit.h"

enum { STATES = 6 };
enum { ROUNDS = 300, ITEMS_MAX = 60, LAUNCHES = 40 };

static uint64_t random_state = 1;
static uint32_t below(uint32_t n) {
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(random_state >> 33) % n;
}

static void random_items(MemItem *items, uint32_t n) {
    for (uint32_t i = 0; i < n; i++) {
        uint32_t first = below(LAUNCHES), more = below(4) ? below(4) : below(LAUNCHES);
        items[i] = (MemItem){1 + below(1u << (4 + below(16))), first, MIN(first + more, LAUNCHES - 1u), 0};
    }
}

// Bytes that live at once at the worst moment: no plan can take less.
static uint64_t peak(const MemItem *items, uint32_t n) {
    uint64_t most = 0;
    for (uint32_t t = 0; t < LAUNCHES; t++) {
        uint64_t now = 0;
        for (uint32_t i = 0; i < n; i++)
            if (items[i].first <= t && t <= items[i].last) now += round_up(items[i].bytes, MEMPLAN_ALIGN);
        most = MAX(most, now);
    }
    return most;
}

// A plan that has these buffers in one program of many launches, for the independent checker.
static bool verify(Arena *a, const MemItem *items, uint32_t n, uint64_t bytes, Diags *d) {
    static const AdaRole roles[] = {ADA_ROLE_NEXT,   ADA_ROLE_IDS,    ADA_ROLE_POS,
                                    ADA_ROLE_COUNTS, ADA_ROLE_STATUS, ADA_ROLE_RING};
    PlanBuffer *buffers = ARENA_ARRAY(a, PlanBuffer, STATES + n);
    PlanLaunch *launches = ARENA_ARRAY(a, PlanLaunch, LAUNCHES);
    for (uint32_t i = 0; i < STATES; i++)
        buffers[i] = (PlanBuffer){"state",    roles[i] == ADA_ROLE_RING ? ADA_SPACE_HOST : ADA_SPACE_STATE,
                                  roles[i],   0,
                                  UINT32_MAX, 0,
                                  256,        0,
                                  0};
    for (uint32_t i = 0; i < n; i++)
        buffers[STATES + i] =
            (PlanBuffer){"item",         ADA_SPACE_SCRATCH, ADA_ROLE_NONE, 0, 0, items[i].offset,
                         items[i].bytes, items[i].first,    items[i].last};
    for (uint32_t i = 0; i < LAUNCHES; i++) {
        launches[i] = (PlanLaunch){.kind = ADA_LAUNCH_KERNEL, .grid = 1, .n_args = STATES};
        for (uint32_t j = 0; j < STATES; j++) launches[i].args[j] = (AdaArg){ADA_ARG_BUFFER, j, 0};
    }
    SpecField rows_max = {.key = "rows_max", .kind = 'u', .u = 1};
    PlanKernel kernel = {
        .name = "advance", .template_ = "advance", .spec = &rows_max, .n_spec = 1, .threads = 1};
    PlanProgram program = {ADA_PROGRAM_ADVANCE, 1, 0, LAUNCHES};
    Plan p = {.arena = a,
              .target = "host",
              .buffers = buffers,
              .n_buffers = STATES + n,
              .kernels = &kernel,
              .n_kernels = 1,
              .launches = launches,
              .n_launches = LAUNCHES,
              .programs = &program,
              .n_programs = 1,
              .n_ranks = 1,
              .seqs_max = 1,
              .tokens_max = 1,
              .rows_max = 1,
              .page_tokens = 16,
              .scratch_bytes = bytes};
    return plan_verify(&p, d);
}

static void random_lifetimes_never_overlap(void **state) {
    (void)state;
    double worst = 0;
    for (uint32_t round = 0; round < ROUNDS; round++) {
        Arena a = {0};
        Diags d = {.arena = &a};
        MemItem items[ITEMS_MAX];
        uint32_t n = 1 + below(ITEMS_MAX);
        random_items(items, n);
        uint64_t bytes = memplan_place(&a, items, n), least = peak(items, n);
        if (!verify(&a, items, n, bytes, &d)) fail_msg("round %u: %s", round, diags_first_message(&d));
        assert_true(bytes >= least);
        worst = MAX(worst, (double)bytes / (double)least);
        arena_free(&a);
    }
    if (worst > 1.5) fail_msg("the arena is %.2f times the largest sum of live buffers", worst);
}

static void the_checker_sees_what_was_moved(void **state) {
    (void)state;
    uint32_t seen = 0, tried = 0;
    for (uint32_t round = 0; round < ROUNDS; round++) {
        Arena a = {0};
        Diags d = {.arena = &a};
        MemItem items[8];
        random_items(items, COUNT_OF(items));
        uint64_t bytes = memplan_place(&a, items, COUNT_OF(items));
        MemItem *x = &items[below(COUNT_OF(items))], *y = &items[below(COUNT_OF(items))];
        if (x != y && x->first <= y->last && y->first <= x->last) {
            x->offset = y->offset;
            tried++;
            seen += !verify(&a, items, COUNT_OF(items), bytes, &d);
        }
        arena_free(&a);
    }
    assert_true(tried > 20);
    assert_int_equal(seen, tried);
}

static void nothing_needs_nothing(void **state) {
    (void)state;
    Arena a = {0};
    assert_int_equal(memplan_place(&a, NULL, 0), 0);
    MemItem one = {1, 0, 0, 99};
    assert_int_equal(memplan_place(&a, &one, 1), MEMPLAN_ALIGN);
    assert_int_equal(one.offset, 0);
    arena_free(&a);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_lifetimes_never_overlap),
        cmocka_unit_test(the_checker_sees_what_was_moved),
        cmocka_unit_test(nothing_needs_nothing),
    };
    return cmocka_run_group_tests_name("memplan", tests, NULL, NULL);
}
