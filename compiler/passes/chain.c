// chain: on a GPU, launches of a decode step that follow each other become one kernel whose blocks meet
// between them (templates/chain.cu). The launches stay in the plan: a step without graphs runs them one by
// one, with the same bits.
#include <math.h>

#include "compiler/passes/plan_work.h"
#include "runtime/base/num.h"

enum { PRODUCT_WORK = 6, OPAQUE = 2, CHAIN_FIELDS };

// A product takes over while its weights are on their way: this much of its first and last microseconds is
// not lost when it does not begin with a launch.
#define PRODUCT_HIDDEN_US 1.9
#define MEETING_US        1.2 // until the last block has come and all know it

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
    if (a->n_parts != b->n_parts || a->n_parts == 0 || a->spec[OPAQUE].u != b->spec[OPAQUE].u) return false;
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

// "chain_linear_gate_up_linear": its parts' templates, and a number where others are called the same.
static const char *chain_name(const Chainer *x, const PlanKernel *k) {
    const char *base = "chain";
    for (uint32_t i = 0; i < k->n_parts; i++)
        base = arena_printf(x->c->arena, "%s_%s", base, k->parts[i].template_);
    return plan_kernel_name(x->c->arena, x->p, base);
}

// Stages that a warp asks for before the blocks have met: what memory delivers meanwhile. More would stand in
// the way of the words that tell who has come.
static uint64_t early_stages(const Target *t) {
    enum { WARPS = 16, STAGE_BYTES = 576 };
    double bytes = MEETING_US * 1e3 * t->dram_gbs / t->units;
    return MAX(1u, (uint64_t)(bytes / (WARPS * STAGE_BYTES) + 0.5));
}

// The kernel of these launches; NO_ID: none, since its code does not fit.
static uint32_t intern(Chainer *x, const PlanLaunch *l, uint32_t n) {
    Plan *p = x->p;
    PlanKernel *parts = ARENA_ARRAY(x->c->arena, PlanKernel, n);
    SpecField *spec = ARENA_ARRAY(x->c->arena, SpecField, CHAIN_FIELDS);
    PlanKernel k = {.template_ = "chain", .spec = spec, .n_spec = CHAIN_FIELDS, .parts = parts, .n_parts = n};
    spec[0] = (SpecField){.key = "grid", .kind = 'u', .u = x->c->target->units};
    spec[1] = (SpecField){.key = "early", .kind = 'u', .u = early_stages(x->c->target)};
    spec[OPAQUE] = (SpecField){.key = "opaque", .kind = 'u'};
    for (uint32_t i = 0; i < n; i++) {
        parts[i] = p->kernels[l[i].kernel];
        k.threads = MAX(k.threads, parts[i].threads);
        k.shared_bytes = MAX(k.shared_bytes, parts[i].shared_bytes);
    }
    if (is_refused(x->c, &k)) {
        spec[OPAQUE].u = 1; // registers did not suffice: it needs fewer that way
        if (is_refused(x->c, &k)) return NO_ID;
    }
    for (uint32_t i = 0; i < p->n_kernels; i++)
        if (same_chain(&p->kernels[i], &k)) return i;
    k.name = chain_name(x, &k);
    p->kernels = plan_grow(x->c->arena, p->kernels, p->n_kernels, &x->cap_kernels, sizeof *p->kernels);
    p->kernels[p->n_kernels] = k;
    return p->n_kernels++;
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
    uint32_t kernel = intern(x, l, n);
    if (kernel == NO_ID) return;
    p->chains = plan_grow(x->c->arena, p->chains, p->n_chains, &x->cap_chains, sizeof *p->chains);
    p->chains[p->n_chains++] =
        (PlanChain){kernel, first, n, x->c->target->units, floor(predict_us(x, l, n) * 100 + 0.5) / 100};
}

bool pass_chain(Plan *p, const PassContext *c, Diags *d) {
    Chainer x = {.p = p, .c = c, .cap_kernels = p->n_kernels};
    (void)d;
    if (!c->target->half_rows) return true;
    for (uint32_t i = 0; i < p->n_programs; i++) {
        const PlanProgram *g = &p->programs[i];
        uint32_t n = 0;
        for (uint32_t j = 0; j <= g->n_launches; j++) {
            bool fits = j < g->n_launches && n < ADA_CHAIN_LAUNCHES_MAX &&
                        fits_chain(p, &p->launches[g->first_launch + j]);
            if (fits) {
                n++;
                continue;
            }
            if (n) add_chain(&x, g->first_launch + j - n, n);
            n = j < g->n_launches && fits_chain(p, &p->launches[g->first_launch + j]);
        }
    }
    return true;
}
