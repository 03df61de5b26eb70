#include "compiler/targets/cuda_choose.h"

#include <stdarg.h>
#include <stdio.h>

#include "runtime/base/num.h"

enum { THREADS_MAX = 1024, WARP = 32 };

static const struct {
    const char *template_;
    CudaCandidates *candidates;
} rows[] = {
    {"embed", cuda_embed},
    {"norm_add", cuda_norm_add},
    {"linear", cuda_linear},
    {"linear_f32", cuda_linear_f32},
    {"gate_up", cuda_gate_up},
    {"act_mul", cuda_act_mul},
    {"rope_write", cuda_rope_write},
    {"attention", cuda_attention},
    {"moe_route", cuda_moe_route},
    {"moe_gate_up", cuda_moe_gate_up},
    {"moe_down", cuda_moe_down},
    {"moe_combine", cuda_moe_combine},
    {"gather_rows", cuda_gather_rows},
    {"quantize_rows", cuda_quantize_rows},
    {"sample", cuda_sample},
    {"advance", cuda_advance},
};

static const SpecField *ask_field(const KernelAsk *ask, const char *key, char kind) {
    for (uint32_t i = 0; i < ask->n_spec; i++)
        if (!strcmp(ask->spec[i].key, key) && ask->spec[i].kind == kind) return &ask->spec[i];
    CHECK(!"a field of the template");
    return NULL;
}

uint64_t ask_u(const KernelAsk *ask, const char *key) { return ask_field(ask, key, 'u')->u; }

double ask_f(const KernelAsk *ask, const char *key) { return ask_field(ask, key, 'f')->f; }

bool ask_is(const KernelAsk *ask, const char *key, const char *word) {
    return !strcmp(ask_field(ask, key, 'n')->n, word);
}

void choice_add(KernelChoice *c, const char *key, uint64_t u) {
    CHECK(c->n_schedule < SCHEDULE_MAX);
    c->schedule[c->n_schedule++] = (SpecField){.key = key, .kind = 'u', .u = u};
}

void cuda_refuse(KernelAnswer *out, const char *fmt, ...) {
    if (out->n_rejected == TARGET_REJECTED_MAX) return;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(out->rejected[out->n_rejected++].reason, REASON_BYTES, fmt, ap);
    va_end(ap);
}

// "tiled 0 cols 1 groups 4 grid 132 x 256"
static void describe(const KernelChoice *c, char out[REASON_BYTES]) {
    size_t at = 0;
    for (uint32_t i = 0; i < c->n_schedule && at < REASON_BYTES; i++)
        at += (size_t)snprintf(out + at, REASON_BYTES - at, "%s %llu ", c->schedule[i].key,
                               (unsigned long long)c->schedule[i].u);
    if (at < REASON_BYTES) snprintf(out + at, REASON_BYTES - at, "grid %u x %u", c->grid, c->threads);
}

bool cuda_legal(const Target *t, const KernelAsk *ask, const KernelChoice *c, char reason[REASON_BYTES]) {
    (void)ask;
    char what[REASON_BYTES];
    describe(c, what);
    if (!c->grid)
        snprintf(reason, REASON_BYTES, "%.80s: no blocks", what);
    else if (!c->threads || c->threads > THREADS_MAX || c->threads % WARP)
        snprintf(reason, REASON_BYTES, "%.80s: a block has whole warps and at most %u threads", what,
                 THREADS_MAX);
    else if (c->shared_bytes > t->shared_bytes)
        snprintf(reason, REASON_BYTES, "%.80s: %llu bytes of shared memory of %llu", what,
                 (unsigned long long)c->shared_bytes, (unsigned long long)t->shared_bytes);
    else
        return true;
    return false;
}

static const char *refusal(const KernelAsk *ask, const KernelChoice *c) {
    for (uint32_t i = 0; ask->refusals && i < ask->refusals->n; i++) {
        const PlanRefusal *r = &ask->refusals->items[i];
        if (target_kernel_is(&r->kernel, ask->template_, ask->spec, ask->n_spec, c)) return r->reason;
    }
    return NULL;
}

static double net_us(const KernelChoice *c) { return c->predicted_us - c->spared_us; }

void cuda_consider(const Target *t, const KernelAsk *ask, KernelAnswer *out, const KernelChoice *c) {
    char reason[REASON_BYTES], what[REASON_BYTES];
    CHECK(c->predicted_us > 0);
    if (!cuda_legal(t, ask, c, reason)) {
        cuda_refuse(out, "%s", reason);
        return;
    }
    const char *why = refusal(ask, c);
    if (why) {
        describe(c, what);
        cuda_refuse(out, "%.80s: %.60s", what, why);
        return;
    }
    bool first = !out->best.grid, better = first || net_us(c) < net_us(&out->best);
    const KernelChoice loser = better ? out->best : *c, winner = better ? *c : out->best;
    out->best = winner;
    if (first) return;
    describe(&loser, what);
    cuda_refuse(out, "%.80s: predicted %.2f us against %.2f us", what, net_us(&loser), net_us(&winner));
}

bool cuda_choose(const Target *t, const KernelAsk *ask, KernelAnswer *out) {
    *out = (KernelAnswer){0};
    size_t row = 0;
    while (row < COUNT_OF(rows) && strcmp(rows[row].template_, ask->template_)) row++;
    if (row == COUNT_OF(rows))
        cuda_refuse(out, "target %s has no kernel for %s", t->name, ask->template_);
    else
        rows[row].candidates(t, ask, out);
    return out->best.grid > 0;
}
