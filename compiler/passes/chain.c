// chain: on a GPU, launches of a decode step that follow each other become one kernel: RoPE and the attention
// behind it (templates/rope_attention.cu), products and what stands between them with blocks that meet
// (templates/chain.cu). The launches stay in the plan: a step without graphs runs them one by one, with the
// same bits.
#include <math.h>

#include "compiler/passes/plan_work.h"
#include "runtime/base/num.h"

enum { PRODUCT_WORK = 6, OPAQUE = 2, CHAIN_FIELDS };
enum { FEW_TOKENS = 64, FEWER_TOKENS = 16 }; // of rope_attention's two sizes

// A product takes over while its weights are on their way: this much of its first and last microseconds is
// not lost when it does not begin with a launch.
#define PRODUCT_HIDDEN_US 1.9
#define MEETING_US        1.65 // until the last block has come and all know it
#define NORM_US           0.4  // more, on average, where norms stand between products
#define ROPE_US           2.0  // what RoPE adds to attention

static const SpecField *field(const PlanKernel *k, const char *key) {
    for (uint32_t i = 0; i < k->n_spec; i++)
        if (!strcmp(k->spec[i].key, key)) return &k->spec[i];
    return NULL;
}

static bool is_product(const PlanKernel *k) {
    return !strcmp(k->template_, "linear") || !strcmp(k->template_, "gate_up");
}

static bool fits_chain(const Plan *p, const PlanLaunch *l) {
    if (l->kind != ADA_LAUNCH_KERNEL) return false;
    const PlanKernel *k = &p->kernels[l->kernel];
    if (is_product(k))
        return !field(k, "tiled")->u && !strcmp(field(k, "format")->n, "nvfp4") &&
               l->args[PRODUCT_WORK].kind == ADA_ARG_BUFFER;
    static const char *const others[] = {"norm_add", "rope_write", "quantize_rows"};
    for (size_t i = 0; i < COUNT_OF(others); i++)
        if (!strcmp(k->template_, others[i])) return true;
    return false;
}

static bool same_part(const PlanKernel *a, const PlanKernel *b) {
    if (strcmp(a->template_, b->template_) != 0 || a->n_spec != b->n_spec) return false;
    for (uint32_t i = 0; i < a->n_spec; i++) {
        const SpecField *x = &a->spec[i], *y = &b->spec[i];
        if (x->u != y->u || x->f != y->f || (x->kind == 'n' && strcmp(x->n, y->n) != 0)) return false;
    }
    return a->threads == b->threads && a->shared_bytes == b->shared_bytes;
}

static bool same_chain(const PlanKernel *a, const PlanKernel *b) {
    if (a->n_parts != b->n_parts || a->n_parts == 0 || !same_part(a, b)) return false;
    for (uint32_t i = 0; i < a->n_parts; i++)
        if (!same_part(&a->parts[i], &b->parts[i])) return false;
    return true;
}

static bool is_refused(const PassContext *c, const PlanKernel *k) {
    for (uint32_t i = 0; c->refusals && i < c->refusals->n; i++)
        if (same_chain(&c->refusals->items[i].kernel, k)) return true;
    return false;
}

typedef struct {
    Plan *p;
    const PassContext *c;
    uint32_t cap_kernels, cap_chains;
} Chainer;

// The kernel among the plan's, called `base` and a number where others are, too.
static uint32_t intern(Chainer *x, PlanKernel *k, const char *base) {
    Plan *p = x->p;
    for (uint32_t i = 0; i < p->n_kernels; i++)
        if (same_chain(&p->kernels[i], k)) return i;
    k->name = plan_kernel_name(x->c->arena, p, base);
    p->kernels = plan_grow(x->c->arena, p->kernels, p->n_kernels, &x->cap_kernels, sizeof *p->kernels);
    p->kernels[p->n_kernels] = *k;
    return p->n_kernels++;
}

static PlanKernel *parts_of(const Chainer *x, const PlanLaunch *l, uint32_t n) {
    PlanKernel *parts = ARENA_ARRAY(x->c->arena, PlanKernel, n);
    for (uint32_t i = 0; i < n; i++) parts[i] = x->p->kernels[l[i].kernel];
    return parts;
}

static void append(Chainer *x, PlanChain c) {
    Plan *p = x->p;
    c.predicted_us = floor(c.predicted_us * 100 + 0.5) / 100;
    p->chains = plan_grow(x->c->arena, p->chains, p->n_chains, &x->cap_chains, sizeof *p->chains);
    p->chains[p->n_chains++] = c;
}

// ---- RoPE and attention ----------------------------------------------------------------------------------

static bool same_arg(const AdaArg *a, const AdaArg *b) {
    return a->kind == b->kind && a->index == b->index && a->offset == b->offset;
}

// Attention alone reads what rope_write leaves in `q`, and both see the same tokens and pages.
static bool belong_together(const Plan *p, const PlanProgram *g, const PlanLaunch *rope,
                            const PlanLaunch *attention) {
    enum { SCALE = 4, POS, SLOT, TABLE, POOL, Q, COUNTS };
    static const uint32_t same[][2] = {{SCALE, 2}, {POS, 4}, {SLOT, 5},  {TABLE, 3},
                                       {POOL, 1},  {Q, 0},   {COUNTS, 7}};
    for (size_t i = 0; i < COUNT_OF(same); i++)
        if (!same_arg(&rope->args[same[i][0]], &attention->args[same[i][1]])) return false;
    const PlanBuffer *q = &p->buffers[rope->args[Q].index];
    const uint32_t at = (uint32_t)(attention - p->launches) - g->first_launch;
    return q->space == ADA_SPACE_SCRATCH && q->last_launch == at;
}

// Launch j of the program is rope_write, the next one the decode form of attention.
static bool fits_rope_attention(const Plan *p, const PlanProgram *g, uint32_t j) {
    if (g->kind != ADA_PROGRAM_BODY || g->bucket > FEW_TOKENS || j + 1 >= g->n_launches) return false;
    const PlanLaunch *l = &p->launches[g->first_launch + j];
    if (l[0].kind != ADA_LAUNCH_KERNEL || l[1].kind != ADA_LAUNCH_KERNEL) return false;
    const PlanKernel *rope = &p->kernels[l[0].kernel], *attention = &p->kernels[l[1].kernel];
    return !strcmp(rope->template_, "rope_write") && !strcmp(attention->template_, "attention") &&
           !field(attention, "tiled")->u && belong_together(p, g, &l[0], &l[1]);
}

// The kernel of launches j and j + 1; false: they are not such, or its code does not fit.
static bool rope_attention_kernel(const Chainer *x, const PlanProgram *g, uint32_t j, PlanKernel *out) {
    if (!fits_rope_attention(x->p, g, j)) return false;
    const PlanLaunch *l = &x->p->launches[g->first_launch + j];
    const uint64_t tokens = g->bucket <= FEWER_TOKENS ? FEWER_TOKENS : FEW_TOKENS;
    PlanKernel k = {.template_ = "rope_attention", .n_spec = 1, .parts = parts_of(x, l, 2), .n_parts = 2};
    k.spec = ARENA_ARRAY(x->c->arena, SpecField, 1);
    k.spec[0] = (SpecField){.key = "tokens", .kind = 'u', .u = tokens};
    k.threads = k.parts[1].threads;
    k.shared_bytes = k.parts[1].shared_bytes + 2 * tokens * field(&k.parts[1], "head_dim")->u;
    *out = k;
    return !is_refused(x->c, &k);
}

// Blocks do not wait for each other: what one still reads for the first launch must not be where another
// already writes for the last.
static void keep_for_all(Plan *p, const PlanProgram *g, uint32_t first, uint32_t n) {
    for (uint32_t i = 0; i < n; i++)
        for (uint32_t j = 0; j < p->launches[first + i].n_args; j++) {
            const AdaArg *a = &p->launches[first + i].args[j];
            PlanBuffer *b = a->kind == ADA_ARG_BUFFER ? &p->buffers[a->index] : NULL;
            if (!b || b->space != ADA_SPACE_SCRATCH) continue;
            b->first_launch = MIN(b->first_launch, first - g->first_launch);
            b->last_launch = MAX(b->last_launch, first - g->first_launch + n - 1);
        }
}

static void add_rope_attention(Chainer *x, const PlanProgram *g, uint32_t first, PlanKernel *k) {
    const PlanLaunch *attention = &x->p->launches[first + 1];
    const char *base =
        arena_printf(x->c->arena, "rope_%s_t%llu", k->parts[1].name, (unsigned long long)k->spec[0].u);
    keep_for_all(x->p, g, first, 2);
    append(x, (PlanChain){.kernel = intern(x, k, base),
                          .first_launch = first,
                          .n_launches = 2,
                          .grid = attention->grid,
                          .predicted_us = attention->predicted_us + ROPE_US});
}

// ---- products --------------------------------------------------------------------------------------------

// "chain_linear_gate_up_linear"
static const char *chain_name(const Chainer *x, const PlanKernel *k) {
    const char *base = "chain";
    for (uint32_t i = 0; i < k->n_parts; i++)
        base = arena_printf(x->c->arena, "%s_%s", base, k->parts[i].template_);
    return base;
}

// Stages that a warp asks for before the blocks have met: what memory delivers meanwhile. More would stand in
// the way of the words that tell who has come.
static uint64_t early_stages(const Target *t, const PlanKernel *parts, uint32_t n) {
    enum { WARPS = 16, STAGE_BYTES = 576 };
    bool norms = false;
    for (uint32_t i = 0; i < n; i++) norms |= !strcmp(parts[i].template_, "norm_add");
    double bytes = (MEETING_US + (norms ? NORM_US : 0)) * 1e3 * t->dram_gbs / t->units;
    return MAX(1u, (uint64_t)(bytes / (WARPS * STAGE_BYTES) + 0.5));
}

// The kernel of these launches; NO_ID: none, since its code does not fit.
static uint32_t chain_kernel(Chainer *x, const PlanLaunch *l, uint32_t n) {
    SpecField *spec = ARENA_ARRAY(x->c->arena, SpecField, CHAIN_FIELDS);
    PlanKernel k = {
        .template_ = "chain", .spec = spec, .n_spec = CHAIN_FIELDS, .parts = parts_of(x, l, n), .n_parts = n};
    spec[0] = (SpecField){.key = "grid", .kind = 'u', .u = x->c->target->units};
    spec[1] = (SpecField){.key = "early", .kind = 'u', .u = early_stages(x->c->target, k.parts, n)};
    spec[OPAQUE] = (SpecField){.key = "opaque", .kind = 'u'};
    for (uint32_t i = 0; i < n; i++) {
        k.threads = MAX(k.threads, k.parts[i].threads);
        k.shared_bytes = MAX(k.shared_bytes, k.parts[i].shared_bytes);
    }
    if (is_refused(x->c, &k)) {
        spec[OPAQUE].u = 1; // registers did not suffice: it needs fewer that way
        if (is_refused(x->c, &k)) return NO_ID;
    }
    return intern(x, &k, chain_name(x, &k));
}

// Instead of a launch, all blocks meet.
static double predict_us(const Chainer *x, const PlanLaunch *l, uint32_t n) {
    const Target *t = x->c->target;
    double us = 0;
    for (uint32_t i = 0; i < n; i++) {
        us += l[i].predicted_us;
        if (!i) continue;
        us += t->barrier_us - t->launch_us;
        if (is_product(&x->p->kernels[l[i].kernel])) us -= PRODUCT_HIDDEN_US;
    }
    return us;
}

static void add_chain(Chainer *x, uint32_t first, uint32_t n) {
    Plan *p = x->p;
    const PlanLaunch *l = &p->launches[first];
    bool streams = false;
    uint32_t n_args = 0;
    for (uint32_t i = 0; i < n; i++) streams |= is_product(&p->kernels[l[i].kernel]), n_args += l[i].n_args;
    if (n < 2 || !streams || n_args > ADA_CHAIN_ARGS_MAX) return;
    uint32_t kernel = chain_kernel(x, l, n);
    if (kernel == NO_ID) return;
    append(x, (PlanChain){.kernel = kernel,
                          .first_launch = first,
                          .n_launches = n,
                          .grid = x->c->target->units,
                          .together = true,
                          .predicted_us = predict_us(x, l, n)});
}

// Chains stand in the plan in the order of their launches: `n` launches before j wait for the end of theirs.
static void chain_program(Chainer *x, const PlanProgram *g) {
    uint32_t n = 0;
    for (uint32_t j = 0; j <= g->n_launches; j++) {
        PlanKernel k;
        const bool pair = rope_attention_kernel(x, g, j, &k);
        const bool fits =
            j < g->n_launches && !pair && fits_chain(x->p, &x->p->launches[g->first_launch + j]);
        if (fits && n < ADA_CHAIN_LAUNCHES_MAX) {
            n++;
            continue;
        }
        if (n) add_chain(x, g->first_launch + j - n, n);
        n = fits;
        if (pair) add_rope_attention(x, g, g->first_launch + j++, &k);
    }
}

bool pass_chain(Plan *p, const PassContext *c, Diags *d) {
    Chainer x = {.p = p, .c = c, .cap_kernels = p->n_kernels};
    (void)d;
    if (!c->target->half_rows) return true;
    for (uint32_t i = 0; i < p->n_programs; i++) chain_program(&x, &p->programs[i]);
    return true;
}
