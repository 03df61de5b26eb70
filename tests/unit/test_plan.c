// Plans of the fixtures, from checkpoint to memory plan; what the checker of plans catches; plans as text.
#include "compiler/codegen/explain.h"
#include "compiler/frontend/model.h"
#include "compiler/ir/eval.h"
#include "compiler/passes/pass.h"
#include "compiler/targets/target.h"
#include "runtime/base/json.h"
#include "runtime/base/num.h"
#include "tests/unit/unit.h"

#include <math.h>

#define MODELS "tests/golden/models/"

static const uint32_t batches[] = {1, 2, 4, 8};

static PassContext context(Arena *a, const Target *t, uint32_t n_ranks) {
    return (PassContext){.arena = a,
                         .target = t,
                         .n_ranks = n_ranks,
                         .context = 4096,
                         .buckets = batches,
                         .n_buckets = COUNT_OF(batches),
                         .prefill_tokens = 512};
}

static Model open_model(Arena *a, const char *dir) {
    Model m;
    Diags d = {.arena = a};
    if (!model_open(a, dir, NULL, (ModelOptions){0}, &m, &d))
        fail_msg("%s: %s", dir, diags_first_message(&d));
    return m;
}

static Plan *plan_for(Arena *a, const Target *t, const char *dir, uint32_t n_ranks) {
    Model m = open_model(a, dir);
    Diags d = {.arena = a};
    PassContext c = context(a, t, n_ranks);
    Graph *g = passes_run_graph(m.graph, &c, &d);
    Plan *p = g ? passes_run_plan(g, &c, &d) : NULL;
    if (!p) fail_msg("%s for %s on %u ranks: %s", dir, t->name, n_ranks, diags_first_message(&d));
    model_close(&m);
    return p;
}

static Plan *plan_model(Arena *a, const char *dir, uint32_t n_ranks) {
    return plan_for(a, &target_host, dir, n_ranks);
}

static const struct {
    const char *dir;
    uint32_t ranks_max;
} fixtures[] = {
    {MODELS "qwen3", 4},         {MODELS "qwen3-ct", 4},  {MODELS "qwen3-moe", 4},
    {MODELS "gemma3", 4},        {MODELS "gemma3-ct", 4}, {MODELS "quantize", 1},
    {MODELS "quantize/bf16", 1}, {MODELS "llama", 1},     {MODELS "qwen2", 1},
};

static void every_fixture_has_a_plan(void **state) {
    (void)state;
    for (size_t i = 0; i < COUNT_OF(fixtures); i++)
        for (uint32_t ranks = 1; ranks <= fixtures[i].ranks_max; ranks *= 2) {
            Arena a = {0};
            Plan *p = plan_model(&a, fixtures[i].dir, ranks);
            uint32_t collectives = 0;
            for (uint32_t j = 0; j < p->n_launches; j++)
                collectives += p->launches[j].kind != ADA_LAUNCH_KERNEL;
            assert_int_equal(collectives > 0, ranks > 1);
            assert_int_equal(p->tokens_max, 512);
            assert_int_equal(p->seqs_max, 8);
            assert_true(p->scratch_bytes > 0);
            arena_free(&a);
        }
}

static void every_fixture_has_a_plan_for_cards(void **state) {
    (void)state;
    static const char *const cards[] = {"h100", "rtx4060ti"};
    for (size_t i = 0; i < COUNT_OF(fixtures); i++)
        for (size_t t = 0; t < COUNT_OF(cards); t++) {
            Arena a = {0};
            Diags d = {.arena = &a};
            Plan *p = plan_for(&a, target_find(str_of(cards[t]), SPAN_NONE, &d), fixtures[i].dir, 1);
            for (uint32_t k = 0; k < p->n_kernels; k++) {
                assert_true(p->kernels[k].threads && p->kernels[k].threads % 32 == 0);
                assert_true(p->kernels[k].shared_bytes <= 99 << 10 || !strcmp(cards[t], "h100"));
            }
            arena_free(&a);
        }
}

static uint64_t spec_u(const PlanKernel *k, const char *key) {
    for (uint32_t i = 0; i < k->n_spec; i++)
        if (!strcmp(k->spec[i].key, key)) return k->spec[i].u;
    return 0;
}

static bool has_kernel(const Plan *p, const PlanKernel *k) {
    for (uint32_t i = 0; i < p->n_kernels; i++) {
        const PlanKernel *have = &p->kernels[i];
        bool same = !strcmp(have->template_, k->template_) && have->n_spec == k->n_spec &&
                    have->threads == k->threads && have->shared_bytes == k->shared_bytes;
        for (uint32_t j = 0; same && j < k->n_spec; j++)
            same = k->spec[j].kind == 'u' ? k->spec[j].u == have->spec[j].u : true;
        if (same) return true;
    }
    return false;
}

// A kernel of the prefill form is refused again and again: each time another one takes its place, until
// there is none.
static void refused_kernels_are_not_chosen(void **state) {
    (void)state;
    Arena a = {0};
    Diags d = {.arena = &a};
    PlanRefusal refused[64];
    PlanRefusals refusals = {refused, 0};
    Model m = open_model(&a, MODELS "llama");
    PassContext c = context(&a, target_find(STR("h100"), SPAN_NONE, &d), 1);
    c.refusals = &refusals;
    Graph *g = passes_run_graph(m.graph, &c, &d);
    assert_non_null(g);
    for (Plan *p; (p = passes_run_plan(g, &c, &d));) {
        uint32_t k = 0;
        while (strcmp(p->kernels[k].template_, "gate_up") || !spec_u(&p->kernels[k], "tiled")) k++;
        for (uint32_t i = 0; i < refusals.n; i++) assert_false(has_kernel(p, &refused[i].kernel));
        assert_true(refusals.n < COUNT_OF(refused));
        refused[refusals.n++] = (PlanRefusal){p->kernels[k], "spills 32 bytes"};
    }
    assert_true(refusals.n > 1);
    assert_int_equal(diags_first_code(&d), E_NO_KERNEL);
    assert_non_null(strstr(diags_first_message(&d), "spills 32 bytes"));
    model_close(&m);
    arena_free(&a);
}

static const char *template_of(const Plan *p, const PlanLaunch *l) { return p->kernels[l->kernel].template_; }

static bool is_part(const Plan *p, const PlanLaunch *l) {
    const char *name = template_of(p, l);
    return !strcmp(name, "norm_add") || !strcmp(name, "rope_write") ||
           ((!strcmp(name, "linear") || !strcmp(name, "gate_up")) &&
            !spec_u(&p->kernels[l->kernel], "tiled"));
}

static uint32_t count_launches(const Plan *p, const PlanProgram *g, const char *template_) {
    uint32_t n = 0;
    for (uint32_t i = 0; i < g->n_launches; i++)
        n += !strcmp(template_of(p, &p->launches[g->first_launch + i]), template_);
    return n;
}

// Chains of the program that begin, or end, with a template and are `together` or not.
static uint32_t count_chains(const Plan *p, const PlanProgram *g, const char *last, bool together) {
    uint32_t n = 0;
    for (uint32_t i = 0; i < p->n_chains; i++) {
        const PlanChain *h = &p->chains[i];
        bool inside = h->first_launch >= g->first_launch && h->first_launch < g->first_launch + g->n_launches;
        n += inside && h->together == together &&
             (!last || !strcmp(template_of(p, &p->launches[h->first_launch + h->n_launches - 1]), last));
    }
    return n;
}

static void check_chain(const Plan *p, const PlanChain *h, uint32_t units) {
    const PlanLaunch *l = &p->launches[h->first_launch];
    const PlanKernel *k = &p->kernels[h->kernel];
    assert_true(h->n_launches > 1 && h->predicted_us > 0);
    if (h->together) {
        assert_string_equal(k->template_, "chain");
        assert_int_equal(h->grid, units);
        for (uint32_t j = 0; j < h->n_launches; j++) assert_true(is_part(p, &l[j]));
        return;
    }
    assert_string_equal(k->template_, "rope_attention");
    assert_int_equal(h->n_launches, 2);
    assert_string_equal(template_of(p, &l[0]), "rope_write");
    assert_string_equal(template_of(p, &l[1]), "attention");
    assert_int_equal(spec_u(&p->kernels[l[1].kernel], "tiled"), 0);
    assert_int_equal(h->grid, l[1].grid);
    assert_int_equal(k->threads, p->kernels[l[1].kernel].threads);
    assert_true(h->predicted_us > l[1].predicted_us);
    assert_true(h->predicted_us < l[0].predicted_us + l[1].predicted_us);
}

// RoPE goes with the decode form of attention wherever that is; what else a layer has of a small batch is one
// chain. A chain whose kernel is refused gets one that needs fewer registers; when that is refused too, its
// launches stay by themselves. Without rope_attention RoPE is of the products' chain.
static void small_batches_run_in_chains(void **state) {
    (void)state;
    Arena a = {0};
    Diags d = {.arena = &a};
    PlanRefusal refused[64];
    PlanRefusals refusals = {refused, 0};
    Model m = open_model(&a, MODELS "qwen3");
    PassContext c = context(&a, target_find(STR("h100"), SPAN_NONE, &d), 1);
    c.refusals = &refusals;
    Graph *g = passes_run_graph(m.graph, &c, &d);
    assert_non_null(g);
    for (uint32_t round = 0; round < 4; round++) {
        Plan *p = passes_run_plan(g, &c, &d);
        assert_non_null(p);
        const PlanProgram *one = &p->programs[0];
        const uint32_t attentions = count_launches(p, one, "attention");
        for (uint32_t i = 0; i < p->n_chains; i++) {
            const PlanKernel *k = &p->kernels[p->chains[i].kernel];
            check_chain(p, &p->chains[i], c.target->units);
            if (p->chains[i].together && round < 3) assert_int_equal(spec_u(k, "opaque"), round);
        }
        for (uint32_t i = 0; i < p->n_programs; i++) {
            const PlanProgram *of = &p->programs[i];
            const bool few = of->kind == ADA_PROGRAM_BODY && of->bucket <= 64;
            assert_int_equal(count_chains(p, of, "attention", false), round < 3 && few ? attentions : 0);
        }
        assert_int_equal(count_chains(p, one, NULL, true), round == 2 ? 0 : attentions);
        assert_int_equal(count_chains(p, one, "rope_write", true), round == 3 ? attentions : 0);
        for (uint32_t i = 0; i < p->n_kernels; i++)
            if (p->kernels[i].n_parts &&
                !strcmp(p->kernels[i].template_, round == 2 ? "rope_attention" : "chain"))
                refused[refusals.n++] = (PlanRefusal){p->kernels[i], "spills 8 bytes"};
        assert_true(refusals.n < COUNT_OF(refused));
    }
    model_close(&m);
    arena_free(&a);
}

static void expect_fault(const Plan *p, const char *words) {
    Arena a = {0};
    Diags d = {.arena = &a};
    assert_false(plan_verify(p, &d));
    if (!strstr(diags_first_message(&d), words)) fail_msg("%s: %s", words, diags_first_message(&d));
    arena_free(&a);
}

// What plan_verify says of chains that are not what they should be.
static void damaged_chains_are_found(void **state) {
    (void)state;
    Arena a = {0};
    Diags d = {.arena = &a};
    Plan *p = plan_for(&a, target_find(STR("h100"), SPAN_NONE, &d), MODELS "qwen3", 1);
    uint32_t i = 0, j = 0;
    while (!p->chains[i].together) i++;
    while (p->chains[j].together) j++;
    PlanChain *products = &p->chains[i], *rope = &p->chains[j], kept[2] = {*products, *rope};
    PlanLaunch *attention = &p->launches[rope->first_launch + 1], kept_launch = *attention;
    SpecField *tokens = p->kernels[rope->kernel].spec;
    const uint64_t kept_tokens = tokens->u;
    const PlanLaunch *other = attention + 1; // of the next layer
    while (strcmp(template_of(p, other), "attention")) other++;
#define FAULT(words, ...)                                                                                    \
    __VA_ARGS__;                                                                                             \
    expect_fault(p, words);                                                                                  \
    *products = kept[0], *rope = kept[1], *attention = kept_launch, tokens->u = kept_tokens;
    FAULT("is no part of kernel", products->first_launch++)
    FAULT("are not of one program", products->first_launch = p->programs[0].n_launches - 1)
    FAULT("are not of one program", rope->first_launch = UINT32_MAX)
    FAULT(": kernel", products->grid = 0)
    FAULT(": kernel", rope->kernel = products->kernel)
    FAULT("blocks of template chain wait for each other", products->together = false)
    FAULT("blocks of template rope_attention do not wait for each other", rope->together = true)
    FAULT("blocks of 256 threads, attention has", rope->grid++)
    FAULT("holds 0 tokens of 1", tokens->u = 0)
    FAULT("of two layers", attention->args[2] = other->args[2])
    PlanBuffer *read = &p->buffers[attention[-1].args[0].index],
               *written = &p->buffers[attention->args[6].index];
    FAULT("is not kept for both of its launches", read->last_launch--)
    read->last_launch++;
    FAULT("is not kept for both of its launches", written->first_launch++)
    written->first_launch--;
#undef FAULT
    assert_true(plan_verify(p, &d));
    arena_free(&a);
}

// What the launches since the last product fetch: ranges end to end from the start of one weight.
typedef struct {
    uint32_t weight;
    uint64_t bytes;
} Fetched;

static bool is_product(const Plan *p, const PlanLaunch *l) {
    const char *name = template_of(p, l);
    return !strcmp(name, "linear") || !strcmp(name, "gate_up");
}

// Attention fetches of all of a weight, the larger one of the next two products before any experts.
static void follow_attention(const Plan *p, const PlanLaunch *l) {
    const AdaArg *next = &l->args[l->n_args - 1];
    const uint64_t bytes = spec_u(&p->kernels[l->kernel], "next_bytes");
    uint64_t most = 0;
    for (uint32_t n = 0; n < 2 && strncmp(template_of(p, ++l), "moe_", 4) != 0;)
        if (is_product(p, l)) most = MAX(most, p->weights[l->args[1].index].bytes), n++;
    assert_int_equal(next->kind, ADA_ARG_WEIGHT);
    assert_int_equal(next->offset, 0);
    assert_int_equal(bytes, p->weights[next->index].bytes);
    assert_int_equal(bytes, most);
}

static void follow_launch(const Plan *p, const PlanLaunch *l, Fetched *now) {
    const PlanKernel *k = &p->kernels[l->kernel];
    bool product = is_product(p, l);
    if (!strcmp(k->template_, "attention")) {
        follow_attention(p, l);
        return;
    }
    if (product && now->bytes) assert_int_equal(l->args[1].index, now->weight);
    if (product) *now = (Fetched){0};
    uint64_t bytes = spec_u(k, "next_bytes");
    const AdaArg *next = &l->args[l->n_args - 1];
    if (!bytes) return;
    assert_int_equal(next->kind, ADA_ARG_WEIGHT);
    if (now->bytes) assert_int_equal(next->index, now->weight);
    assert_int_equal(next->offset, now->bytes);
    now->weight = next->index, now->bytes += bytes;
    assert_true(now->bytes <= p->weights[next->index].bytes);
}

// Every launch fetches for the product that comes next, each byte once: bodies, then the head behind one.
static void launches_fetch_for_the_next_product(void **state) {
    (void)state;
    for (size_t i = 0; i < COUNT_OF(fixtures); i++) {
        Arena a = {0};
        Diags d = {.arena = &a};
        Plan *p = plan_for(&a, target_find(STR("h100"), SPAN_NONE, &d), fixtures[i].dir, 1);
        for (uint32_t body = 0; body < p->n_programs; body++) {
            if (p->programs[body].kind != ADA_PROGRAM_BODY) continue;
            Fetched now = {0};
            for (uint32_t g = body; g < p->n_programs; g++) {
                const PlanProgram *r = &p->programs[g];
                if (g != body && r->kind != ADA_PROGRAM_HEAD) continue;
                for (uint32_t j = 0; j < r->n_launches; j++)
                    follow_launch(p, &p->launches[r->first_launch + j], &now);
                if (g != body) break; // one head
            }
            assert_true(now.bytes == 0); // what is fetched behind the last product, nobody would read
        }
        arena_free(&a);
    }
}

static double relative_error(const float *x, const float *truth, size_t n) {
    double error = 0, norm = 0;
    for (size_t i = 0; i < n; i++) {
        error += ((double)x[i] - (double)truth[i]) * ((double)x[i] - (double)truth[i]);
        norm += (double)truth[i] * (double)truth[i];
    }
    return sqrt(error / norm);
}

static void fusing_changes_no_number(void **state) {
    (void)state;
    static const int32_t ids[] = {5, 17, 300, 8, 8, 141, 77};
    Pool *pool = pool_new(1);
    for (size_t i = 0; i < COUNT_OF(fixtures); i++) {
        Arena a = {0};
        Model m = open_model(&a, fixtures[i].dir);
        Diags d = {.arena = &a};
        PassContext c = context(&a, &target_host, 1);
        Graph *fused = passes_run_graph(m.graph, &c, &d);
        assert_non_null(fused);
        size_t n = COUNT_OF(ids) * eval_vocab(m.graph);
        float *before = ARENA_ARRAY(&a, float, n), *after = ARENA_ARRAY(&a, float, n);
        Err e;
        if (!eval_graph(m.graph, m.source, pool, ids, COUNT_OF(ids), EVAL_EXACT, before, &e) ||
            !eval_graph(fused, m.source, pool, ids, COUNT_OF(ids), EVAL_EXACT, after, &e))
            fail_msg("%s: %s", fixtures[i].dir, e.msg);
        double error = relative_error(after, before, n);
        if (!(error < 1e-5)) fail_msg("%s: relative error %g", fixtures[i].dir, error);
        model_close(&m);
        arena_free(&a);
    }
    pool_free(pool);
}

static void windows_have_rings(void **state) {
    (void)state;
    Arena a = {0};
    Plan *p = plan_model(&a, MODELS "gemma3", 1);
    assert_int_equal(p->n_kv_groups, 2);
    assert_int_equal(p->kv[0].window, 0);
    assert_int_equal(p->kv[0].pages_per_seq, 4096 / 16);
    assert_int_equal(p->kv[0].n_layers, 1);
    assert_int_equal(p->kv[1].window, 24);
    assert_int_equal(p->kv[1].pages_per_seq, (23 + 512 + 15) / 16);
    assert_int_equal(p->kv[1].n_layers, 6);
    assert_int_equal(p->kv[1].page_bytes, 6 * 2 * 2 * 64 * 16);
    arena_free(&a);
}

// A tied embedding is one weight in memory, in the layout of the head.
static void tied_tables_are_kept_once(void **state) {
    (void)state;
    Arena a = {0};
    const Plan *tied = plan_model(&a, MODELS "qwen3-ct", 1), *apart = plan_model(&a, MODELS "qwen3", 1);
    uint32_t large[2] = {0};
    for (uint32_t i = 0; i < tied->n_weights; i++)
        large[0] += tied->weights[i].rows == 672 && tied->weights[i].cols > 1;
    for (uint32_t i = 0; i < apart->n_weights; i++)
        large[1] += apart->weights[i].rows == 672 && apart->weights[i].cols > 1;
    assert_int_equal(large[0], 1);
    assert_int_equal(large[1], 2);
    arena_free(&a);
}

static void buckets_ascend_to_their_limits(void **state) {
    (void)state;
    static const uint32_t bodies[] = {1, 2, 4, 8, 16, 64, 256, 512}, heads[] = {1, 2, 4, 8, 16};
    Arena a = {0};
    const Plan *p = plan_model(&a, MODELS "llama", 1);
    uint32_t n[ADA_PROGRAM_KINDS] = {0};
    for (uint32_t i = 0; i < p->n_programs; i++) {
        const PlanProgram *g = &p->programs[i];
        uint32_t k = n[g->kind]++;
        if (g->kind == ADA_PROGRAM_BODY) assert_int_equal(g->bucket, bodies[k]);
        if (g->kind == ADA_PROGRAM_HEAD) assert_int_equal(g->bucket, heads[k]);
        if (g->kind > ADA_PROGRAM_HEAD) assert_int_equal(g->bucket, batches[k]);
    }
    assert_int_equal(n[ADA_PROGRAM_BODY], COUNT_OF(bodies));
    assert_int_equal(n[ADA_PROGRAM_HEAD], COUNT_OF(heads));
    assert_int_equal(n[ADA_PROGRAM_SAMPLE], COUNT_OF(batches));
    assert_int_equal(n[ADA_PROGRAM_ADVANCE], COUNT_OF(batches));
    arena_free(&a);
}

// ---- the checker ---------------------------------------------------------------------------------------

typedef void Damage(Plan *p);

static PlanBuffer *scratch(Plan *p, uint32_t nth) {
    for (uint32_t i = 0; i < p->n_buffers; i++)
        if (p->buffers[i].space == ADA_SPACE_SCRATCH && !nth--) return &p->buffers[i];
    fail_msg("no scratch buffer");
    return NULL;
}

static PlanLaunch *launch_of(Plan *p, const char *template_) {
    for (uint32_t i = 0; i < p->n_launches; i++)
        if (!strcmp(p->kernels[p->launches[i].kernel].template_, template_)) return &p->launches[i];
    fail_msg("no launch of %s", template_);
    return NULL;
}

static void overlap(Plan *p) { scratch(p, 1)->offset = scratch(p, 0)->offset; }
static void misalign(Plan *p) { scratch(p, 0)->offset += 4; }
static void leave_arena(Plan *p) { p->scratch_bytes -= 256; }
static void die_early(Plan *p) { scratch(p, 0)->last_launch--; }
static void live_forever(Plan *p) { scratch(p, 0)->last_launch = 1000; }
static void shrink(Plan *p) { scratch(p, 1)->bytes /= 2; }
static void no_buffer(Plan *p) { launch_of(p, "linear")->args[0].index = p->n_buffers; }
static void no_weight(Plan *p) { launch_of(p, "linear")->args[1].index = p->n_weights; }
static void no_kernel(Plan *p) { p->launches[3].kernel = p->n_kernels; }
static void no_blocks(Plan *p) { p->launches[3].grid = 0; }
static void few_args(Plan *p) { p->launches[3].n_args--; }
static void read_first(Plan *p) { launch_of(p, "attention")->args[0] = launch_of(p, "gate_up")->args[4]; }
static void write_weight(Plan *p) { launch_of(p, "linear")->args[4].kind = ADA_ARG_WEIGHT; }
static void small_scale(Plan *p) { p->weights[launch_of(p, "linear")->args[2].index].bytes -= 4; }
static void past_the_page(Plan *p) { launch_of(p, "attention")->args[1].offset = p->kv[0].page_bytes; }
static void other_pages(Plan *p) { p->kv[0].page_bytes *= 2; }
static void other_field(Plan *p) { p->kernels[2].spec[0].key = "m"; }
static void same_name(Plan *p) { p->kernels[2].name = p->kernels[3].name; }
static void large_bucket(Plan *p) { p->programs[0].bucket = p->tokens_max + 1; }
static void lost_launch(Plan *p) { p->programs[p->n_programs - 1].n_launches--; }
static void two_roles(Plan *p) { p->buffers[1].role = p->buffers[2].role; }
static void small_hidden(Plan *p) {
    for (uint32_t i = 0; i < p->n_buffers; i++)
        if (p->buffers[i].role == ADA_ROLE_HIDDEN) p->buffers[i].bytes /= 2;
}

static void planted_faults_are_found(void **state) {
    (void)state;
    static const struct {
        Damage *damage;
        const char *message;
    } faults[] = {
        {overlap, "overlap while both live"},       {misalign, "not aligned"},
        {leave_arena, "leaves the scratch arena"},  {die_early, "which lives from launch"},
        {live_forever, "it lives from launch"},     {shrink, "needs 4096 bytes"},
        {no_buffer, "there is no buffer"},          {no_weight, "there is no weight"},
        {no_kernel, "there is no kernel"},          {no_blocks, "no blocks"},
        {few_args, "arguments, template"},          {read_first, "which lives from launch"},
        {write_weight, "cannot be a weight"},       {small_scale, "`row_scale` needs"},
        {past_the_page, "leaves the page"},         {other_pages, "pages of"},
        {other_field, "does not fit template"},     {same_name, "two kernels are called"},
        {large_bucket, "at most 512 are possible"}, {lost_launch, "belong to no program"},
        {two_roles, "have the same role"},          {small_hidden, "hidden has"},
    };
    for (size_t i = 0; i < COUNT_OF(faults); i++) {
        Arena a = {0};
        Diags d = {.arena = &a};
        Plan *p = plan_model(&a, MODELS "qwen3", 1);
        assert_true(plan_verify(p, &d));
        faults[i].damage(p);
        if (plan_verify(p, &d)) fail_msg("fault %zu (%s) is not found", i, faults[i].message);
        assert_int_equal(diags_first_code(&d), E_PLAN_INVALID);
        if (!strstr(diags_first_message(&d), faults[i].message))
            fail_msg("%s: got: %s", faults[i].message, diags_first_message(&d));
        arena_free(&a);
    }
}

// ---- text ----------------------------------------------------------------------------------------------

static void text_is_a_fixed_point(void **state) {
    (void)state;
    for (size_t i = 0; i < COUNT_OF(fixtures); i++) {
        Arena a = {0};
        Diags d = {.arena = &a};
        StrBuf once = {0}, twice = {0};
        plan_print(plan_model(&a, fixtures[i].dir, MIN(fixtures[i].ranks_max, 2u)), &once);
        Source src = {"plan", buf_view(&once)};
        const Plan *again = plan_parse(&a, &src, &d);
        if (!again || !plan_verify(again, &d)) fail_msg("%s: %s", fixtures[i].dir, diags_first_message(&d));
        plan_print(again, &twice);
        assert_true(str_eq(buf_view(&once), buf_view(&twice)));
        buf_free(&once), buf_free(&twice);
        arena_free(&a);
    }
}

static void broken_text_is_refused(void **state) {
    (void)state;
    Arena a = {0};
    StrBuf text = {0};
    plan_print(plan_model(&a, MODELS "llama", 1), &text);
    for (size_t len = 0; len < text.len; len += 1 + len / 7) {
        Diags d = {.arena = &a};
        Source src = {"plan", {text.ptr, len}};
        const Plan *p = plan_parse(&a, &src, &d);
        if (p) assert_false(plan_verify(p, &d));
        assert_non_null(diags_first_message(&d));
    }
    buf_free(&text);
    arena_free(&a);
}

static void explanations_are_whole(void **state) {
    (void)state;
    Arena a = {0};
    Diags d = {.arena = &a};
    StrBuf json = {0}, text = {0};
    const Plan *p = plan_model(&a, MODELS "qwen3-moe", 2);
    explain_json(p, &target_host, NULL, &json);
    Source src = {"explain", buf_view(&json)};
    const Json *j = json_parse(&a, &src, (JsonLimits){0}, &d);
    if (!j) fail_msg("%s", diags_first_message(&d));
    assert_int_equal(json_get(j, "programs")->n, p->n_programs);
    assert_int_equal(json_get(j, "rejected")->n, p->n_rejected);
    explain_text(p, &target_host, NULL, &text);
    static const char *const words[] = {"KV cache", "all_reduce", "moe_gate_up", "over time", "against"};
    for (size_t i = 0; i < COUNT_OF(words); i++)
        if (!strstr(buf_cstr(&text), words[i])) fail_msg("no `%s`", words[i]);
    buf_free(&json), buf_free(&text);
    arena_free(&a);
}

// ---- targets -------------------------------------------------------------------------------------------

static void targets_are_found_by_name(void **state) {
    (void)state;
    Arena a = {0};
    Diags d = {.arena = &a};
    assert_ptr_equal(target_find(STR("host"), SPAN_NONE, &d), &target_host);
    assert_int_equal(target_find(STR("rtx4090"), SPAN_NONE, &d)->sm, 89);
    assert_int_equal(target_find(STR("h100"), SPAN_NONE, &d)->sm, 90);
    assert_null(target_find(STR("rtx490"), SPAN_NONE, &d));
    assert_int_equal(diags_first_code(&d), E_OPTION_VALUE);
    arena_free(&a);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_fixture_has_a_plan),
        cmocka_unit_test(every_fixture_has_a_plan_for_cards),
        cmocka_unit_test(refused_kernels_are_not_chosen),
        cmocka_unit_test(small_batches_run_in_chains),
        cmocka_unit_test(damaged_chains_are_found),
        cmocka_unit_test(launches_fetch_for_the_next_product),
        cmocka_unit_test(fusing_changes_no_number),
        cmocka_unit_test(windows_have_rings),
        cmocka_unit_test(tied_tables_are_kept_once),
        cmocka_unit_test(buckets_ascend_to_their_limits),
        cmocka_unit_test(planted_faults_are_found),
        cmocka_unit_test(text_is_a_fixed_point),
        cmocka_unit_test(broken_text_is_refused),
        cmocka_unit_test(explanations_are_whole),
        cmocka_unit_test(targets_are_found_by_name),
    };
    return cmocka_run_group_tests_name("plan", tests, NULL, NULL);
}
