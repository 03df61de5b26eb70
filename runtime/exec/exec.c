#include "runtime/exec/exec.h"

#include <stdlib.h>
#include <string.h>

#include "runtime/base/log.h"
#include "runtime/base/num.h"
#include "runtime/exec/measure.h"
#include "runtime/exec/pools.h"
#include "runtime/exec/state.h"
#include "templates/lib/abi.h"

enum { CODE_IMAGES_MAX = 16 };

const AdaPlan *exec_plan(const Exec *x) { return x->a->plan; }
Device *exec_device(const Exec *x, uint32_t rank) { return x->devices[rank]; }
uint32_t exec_pages(const Exec *x, uint32_t group) { return x->pages[group]; }
uint64_t exec_kv_bytes(const Exec *x) { return pools_bytes(x->a->plan, x->pages); }
ExecStartup exec_startup(const Exec *x) { return x->startup; }

// ---- memory ----------------------------------------------------------------------------------------------

// Runs on the caller's thread, which is rank 0's, when all but the KV pools is in place.
static bool size_pools(Exec *x, Err *e) {
    const AdaPlan *p = x->a->plan;
    const ExecOptions *o = x->options;
    Device *d = x->devices[0];
    uint32_t seqs = o->seqs && o->seqs < p->seqs_max ? o->seqs : p->seqs_max;
    uint64_t budget = o->kv_bytes_max ? o->kv_bytes_max / p->n_ranks : UINT64_MAX, free_bytes, total_bytes;
    if (o->memory_share == 0) return pools_size(p, seqs, budget, x->pages, e);
    if (!d->ops->memory(d, &free_bytes, &total_bytes, e)) return false;
    if (!o->kv_bytes_max) budget = pools_budget(total_bytes, free_bytes, o->memory_share);
    if (pools_size(p, seqs, budget, x->pages, e)) return true;
    return err_context(e,
                       "%.0f of %.0f MiB of device memory are in use, weights and scratch among them; %.0f %%"
                       " may be",
                       (double)(total_bytes - free_bytes) / 1048576, (double)total_bytes / 1048576,
                       100 * o->memory_share);
}

static bool alloc_pools(void *ctx, uint32_t rank, Err *e) {
    Exec *x = ctx;
    Rank *k = &x->rank[rank];
    const AdaPlan *p = x->a->plan;
    for (uint32_t i = 0; i < p->buffers.count; i++) {
        const AdaBuffer *b = &x->a->buffers[i];
        void *ptr;
        if (b->space != ADA_SPACE_KV) continue;
        if (!k->device->ops->alloc(k->device, p->kv[b->index].page_bytes * x->pages[b->index], &ptr, e))
            return err_context(e, "buffer %s", artifact_string(x->a, b->name));
        k->buffers[i] = ptr;
    }
    return true;
}

static bool alloc_buffers(Exec *x, Rank *k, Err *e) {
    const AdaPlan *p = x->a->plan;
    Device *d = k->device;
    void *ptr = NULL;
    if (p->scratch_bytes && !d->ops->alloc(d, p->scratch_bytes, &ptr, e)) return err_context(e, "scratch");
    k->scratch = ptr;
    for (uint32_t i = 0; i < p->buffers.count; i++) {
        const AdaBuffer *b = &x->a->buffers[i];
        if (b->space == ADA_SPACE_SCRATCH) {
            k->buffers[i] = k->scratch + b->offset;
            continue;
        }
        if (b->space == ADA_SPACE_KV) continue; // alloc_pools
        if (!(b->space == ADA_SPACE_HOST ? d->ops->alloc_host : d->ops->alloc)(d, b->bytes, &ptr, e))
            return err_context(e, "buffer %s", artifact_string(x->a, b->name));
        k->buffers[i] = ptr;
    }
    return true;
}

static bool bind_weights(Exec *x, uint32_t rank, Err *e) {
    const Artifact *a = x->a;
    Rank *k = &x->rank[rank];
    Device *d = k->device;
    void *all = NULL;
    if (a->weight_bytes && !d->ops->adopt(d, a->weight_data, a->weight_bytes, &all, e))
        return err_context(e, "weights");
    k->adopted = all != NULL;
    if (!all && a->plan->n_ranks == 1 && a->weight_bytes && // all of the section is this rank's
        (!d->ops->alloc(d, a->weight_bytes, &all, e) ||
         !d->ops->upload(d, all, a->weight_data, a->weight_bytes, e)))
        return err_context(e, "weights");
    k->section = all;
    for (uint32_t i = 0; i < a->plan->weights.count; i++) {
        const AdaBinding *b = artifact_binding(a, i, rank);
        void *ptr = all ? (uint8_t *)all + b->offset : NULL;
        if (!all && (!d->ops->alloc(d, b->bytes, &ptr, e) ||
                     !d->ops->upload(d, ptr, a->weight_data + b->offset, b->bytes, e)))
            return err_context(e, "weight %s", artifact_string(a, a->weights[i].name));
        k->weights[i] = ptr;
    }
    return true;
}

// ---- code ------------------------------------------------------------------------------------------------

static bool load_kernels(Exec *x, Rank *k, Err *e) {
    const void *images[CODE_IMAGES_MAX];
    uint64_t bytes[CODE_IMAGES_MAX];
    uint32_t kinds[CODE_IMAGES_MAX], n = 0;
    const Artifact *a = x->a;
    for (uint32_t i = 0; i < a->super->n_sections && n < CODE_IMAGES_MAX; i++) {
        const AdaSection *s = &a->sections[i];
        if (s->kind != ADA_CODE) continue;
        images[n] = a->data + s->offset, bytes[n] = s->bytes, kinds[n++] = s->flags;
    }
    DeviceCode *code;
    if (!k->device->ops->load_code(k->device, images, bytes, kinds, n, &code, e))
        return err_context(e, "artifact for %s", a->super->target);
    for (uint32_t i = 0; i < a->plan->kernels.count; i++) {
        const char *name = artifact_string(a, a->kernels[i].name);
        if (!k->device->ops->find_kernel(k->device, code, name, &k->kernels[i], e)) return false;
    }
    return true;
}

static void *arg_address(const Rank *k, const AdaArg *arg) {
    switch ((AdaArgKind)arg->kind) {
    case ADA_ARG_BUFFER: return k->buffers[arg->index] + arg->offset;
    case ADA_ARG_WEIGHT: return k->weights[arg->index] + arg->offset;
    default: return NULL;
    }
}

static bool in_scratch(const Artifact *a, const AdaArg *arg) {
    return arg->kind == ADA_ARG_BUFFER && a->buffers[arg->index].space == ADA_SPACE_SCRATCH;
}

static void bind_args(const Exec *x, const Rank *k, const AdaLaunch *l, const AdaLaunch *like, void **out) {
    for (uint32_t i = 0; i < l->n_args; i++) {
        const AdaArg *own = &x->a->args[l->first_arg + i];
        out[i] = arg_address(k, in_scratch(x->a, own) ? &x->a->args[like->first_arg + i] : own);
    }
}

ExecUnit exec_unit(const Exec *x, uint32_t launch) {
    const AdaChain *chains = x->a->chains;
    uint32_t low = 0, high = x->eager ? 0 : x->a->plan->chains.count;
    while (low < high) {
        uint32_t mid = low + (high - low) / 2;
        if (chains[mid].first_launch < launch)
            low = mid + 1;
        else
            high = mid;
    }
    const AdaChain *c = !x->eager && low < x->a->plan->chains.count && chains[low].first_launch == launch
                            ? &chains[low]
                            : NULL;
    const AdaLaunch *l = &x->a->launches[launch];
    return (ExecUnit){.launches = l,
                      .n = c ? c->n_launches : 1,
                      .kernel = c                              ? c->kernel
                                : l->kind == ADA_LAUNCH_KERNEL ? l->kernel
                                                               : UINT32_MAX,
                      .grid = c ? c->grid : l->grid,
                      .together = c && c->together,
                      .predicted_us = c ? c->predicted_us : l->predicted_us};
}

const char *exec_unit_name(const Exec *x, const ExecUnit *u) {
    return u->kernel == UINT32_MAX ? "collective" : artifact_string(x->a, x->a->kernels[u->kernel].name);
}

bool exec_launch(const Exec *x, Rank *k, const ExecUnit *u, const ExecUnit *like, Err *e) {
    void *args[ADA_CHAIN_ARGS_MAX];
    Device *d = k->device;
    const AdaLaunch *l = u->launches;
    uint32_t n_args = 0;
    for (uint32_t i = 0; i < u->n; i++) {
        bind_args(x, k, &l[i], &like->launches[i], args + n_args);
        n_args += l[i].n_args;
    }
    switch ((AdaLaunchKind)l->kind) {
    case ADA_LAUNCH_ALL_REDUCE: return d->ops->all_reduce(d, args[0], l->rows, l->cols, e);
    case ADA_LAUNCH_ALL_GATHER: return d->ops->all_gather(d, args[0], args[1], l->rows, l->cols, e);
    default: break;
    }
    const AdaKernel *kernel = &x->a->kernels[u->kernel];
    DeviceLaunch dl = {.kernel = k->kernels[u->kernel],
                       .name = artifact_string(x->a, kernel->name),
                       .grid = u->grid,
                       .threads = kernel->threads,
                       .shared_bytes = kernel->shared_bytes,
                       .args = args,
                       .n_args = n_args,
                       .together = u->together};
    return d->ops->launch(d, &dl, e);
}

static const char *const program_names[ADA_PROGRAM_KINDS] = {"", "body", "head", "sample", "advance"};

static bool launch_program(const Exec *x, Rank *k, uint32_t program, Err *e) {
    const AdaProgram *p = &x->a->programs[program];
    Device *d = k->device;
    for (uint32_t j = 0; j < p->n_launches;) {
        const ExecUnit u = exec_unit(x, p->first_launch + j);
        if (!exec_launch(x, k, &u, &u, e) || (x->eager && !d->ops->sync(d, e)))
            return err_context(e, "%s program for %u rows, launch %u, %s (%s)", program_names[p->kind],
                               p->bucket, j, exec_unit_name(x, &u),
                               artifact_string(x->a, u.launches->origin));
        j += u.n;
    }
    return true;
}

static bool capture(const Exec *x, Rank *k, const uint32_t *programs, uint32_t n, DeviceGraph **out, Err *e) {
    Device *d = k->device;
    if (!d->ops->capture_begin(d, e)) return false;
    for (uint32_t i = 0; i < n; i++)
        if (!launch_program(x, k, programs[i], e)) return false;
    return d->ops->capture_end(d, out, e);
}

static bool capture_programs(void *ctx, uint32_t rank, Err *e) {
    Exec *x = ctx;
    Rank *k = &x->rank[rank];
    for (uint32_t i = 0; i < x->a->plan->programs.count && !x->eager; i++)
        if (!capture(x, k, &i, 1, &k->graphs[i], e)) return false;
    for (uint32_t i = 0; i < x->n_decodes && !x->eager; i++)
        if (!capture(x, k, x->decodes[i].programs, DECODE_PROGRAMS, &k->decodes[i], e)) return false;
    return k->device->ops->sync(k->device, e);
}

// ---- programs --------------------------------------------------------------------------------------------

static uint32_t pick_program(const Exec *x, AdaProgramKind kind, uint32_t count) { // UINT32_MAX: none
    uint32_t best = UINT32_MAX;
    for (uint32_t i = 0; i < x->a->plan->programs.count; i++) {
        const AdaProgram *p = &x->a->programs[i];
        if (p->kind == kind && p->bucket >= count &&
            (best == UINT32_MAX || p->bucket < x->a->programs[best].bucket))
            best = i;
    }
    return best;
}

const AdaProgram *exec_program(const Exec *x, AdaProgramKind kind, uint32_t count) {
    uint32_t i = pick_program(x, kind, count);
    return i == UINT32_MAX ? NULL : &x->a->programs[i];
}

// One decode step for every set of programs that some number of rows picks: the sets change at buckets only.
static void find_decodes(Exec *x) {
    const AdaPlan *p = x->a->plan;
    x->decodes = ARENA_ARRAY(&x->arena, Decode, p->programs.count);
    for (uint32_t rows = 0; rows < p->seqs_max;) {
        Decode *next = &x->decodes[x->n_decodes];
        next->rows = UINT32_MAX;
        for (uint32_t i = 0; i < DECODE_PROGRAMS; i++) {
            next->programs[i] = pick_program(x, (AdaProgramKind)(ADA_PROGRAM_BODY + i), rows + 1);
            if (next->programs[i] == UINT32_MAX) return; // more rows than the programs hold run apart
            next->rows = MIN(next->rows, x->a->programs[next->programs[i]].bucket);
        }
        rows = next->rows;
        x->n_decodes++;
    }
}

// ---- opening ---------------------------------------------------------------------------------------------

static bool bind_memory(void *ctx, uint32_t rank, Err *e) {
    Exec *x = ctx;
    return alloc_buffers(x, &x->rank[rank], e) && bind_weights(x, rank, e);
}

static bool bind_code(void *ctx, uint32_t rank, Err *e) {
    Exec *x = ctx;
    return load_kernels(x, &x->rank[rank], e);
}

static bool close_rank(void *ctx, uint32_t rank, Err *e) {
    Exec *x = ctx;
    (void)e;
    Rank *k = &x->rank[rank];
    Device *d = k->device;
    for (uint32_t i = 0; i < x->a->plan->programs.count; i++)
        if (k->graphs[i]) d->ops->graph_free(d, k->graphs[i]);
    for (uint32_t i = 0; i < x->n_decodes; i++)
        if (k->decodes[i]) d->ops->graph_free(d, k->decodes[i]);
    d->ops->close(d);
    return true;
}

static void set_up(Exec *x) {
    const AdaPlan *p = x->a->plan;
    find_decodes(x);
    x->rank = ARENA_ARRAY(&x->arena, Rank, p->n_ranks);
    x->devices = ARENA_ARRAY(&x->arena, Device *, p->n_ranks);
    for (uint32_t r = 0; r < p->n_ranks; r++) {
        Rank *k = &x->rank[r];
        k->buffers = ARENA_ARRAY(&x->arena, uint8_t *, p->buffers.count);
        k->weights = ARENA_ARRAY(&x->arena, uint8_t *, p->weights.count);
        k->kernels = ARENA_ARRAY(&x->arena, DeviceKernel *, p->kernels.count);
        k->graphs = ARENA_ARRAY(&x->arena, DeviceGraph *, p->programs.count);
        k->decodes = ARENA_ARRAY(&x->arena, DeviceGraph *, x->n_decodes);
    }
    for (uint32_t role = 0; role < ADA_ROLE_ROLES; role++)
        for (uint32_t g = 0; g < ADA_KV_GROUPS_MAX; g++)
            x->role[role][g] = artifact_role(x->a, (AdaRole)role, g);
}

static bool lap(double *since, double *took) { // true: for chains of &&
    double now = clock_s();
    *took = now - *since, *since = now;
    return true;
}

static bool bind(Exec *x, double since, Err *e) {
    ExecStartup *t = &x->startup;
    return lap(&since, &t->device_s) && ranks_run(x->ranks, bind_memory, x, e) &&
           lap(&since, &t->weights_s) && ranks_run(x->ranks, bind_code, x, e) && lap(&since, &t->code_s) &&
           size_pools(x, e) && ranks_run(x->ranks, alloc_pools, x, e) && lap(&since, &t->memory_s) &&
           ranks_run(x->ranks, capture_programs, x, e) && lap(&since, &t->capture_s);
}

bool exec_check_kv_dtype(const char *dtype, Err *e) {
    if (!dtype || !strcmp(dtype, "fp8")) return true;
    return err_set(
        e, E_OPTION_VALUE,
        "a KV cache of %s: the kernels of an artifact write and read E4M3 alone, with the scales of "
        "its checkpoint; only fp8 is possible",
        dtype);
}

Exec *exec_open(const Artifact *a, const ExecOptions *o, Err *e) {
    if (!exec_check_kv_dtype(o->kv_dtype, e)) return NULL;
    Exec *x = xmalloc(sizeof *x);
    *x = (Exec){.a = a, .options = o, .eager = o->eager};
    set_up(x);
    uint32_t n = a->plan->n_ranks, threads = o->threads ? MAX(1, o->threads / n) : 0;
    double begin = clock_s();
    if (!device_open(o->driver, n, threads, x->devices, e)) {
        arena_free(&x->arena);
        free(x);
        return NULL;
    }
    for (uint32_t r = 0; r < n; r++) x->rank[r].device = x->devices[r];
    x->ranks = ranks_new(n);
    bool ok = bind(x, begin, e);
    x->options = NULL; // the caller's
    if (!ok) {
        exec_close(x);
        return NULL;
    }
    const ExecStartup *t = &x->startup;
    log_line("exec",
             "bound %u programs and %u decode steps on %u ranks: device %.1f ms, weights %.1f, code %.1f, KV "
             "pools of %.1f MiB %.1f, capture %.1f",
             a->plan->programs.count, x->n_decodes, n, t->device_s * 1e3, t->weights_s * 1e3, t->code_s * 1e3,
             (double)exec_kv_bytes(x) / 1048576, t->memory_s * 1e3, t->capture_s * 1e3);
    return x;
}

void exec_close(Exec *x) {
    if (!x) return;
    Err ignored;
    ranks_run(x->ranks, close_rank, x, &ignored);
    ranks_free(x->ranks);
    arena_free(&x->arena);
    free(x);
}

// ---- stepping --------------------------------------------------------------------------------------------

static uint8_t *locate(const Exec *x, const Rank *k, AdaRole role, uint32_t index, uint64_t offset,
                       uint64_t bytes) {
    uint32_t i = x->role[role][index];
    CHECK(i != UINT32_MAX && range_inside(offset, bytes, x->a->buffers[i].bytes));
    return k->buffers[i] + offset;
}

static const Decode *pick_decode(const Exec *x, const ExecStep *s) { // NULL: no decode step
    uint32_t n = s->body_tokens;
    if (!n || s->head_rows != n || s->sample_rows != n || s->advance_rows != n) return NULL;
    for (uint32_t i = 0; i < x->n_decodes; i++)
        if (x->decodes[i].rows >= n) return &x->decodes[i];
    return NULL;
}

static bool run_programs(const Exec *x, Rank *k, const ExecStep *s, Err *e) {
    Device *d = k->device;
    const Decode *decode = x->eager ? NULL : pick_decode(x, s);
    if (decode) return d->ops->replay(d, k->decodes[decode - x->decodes], e);
    const uint32_t counts[] = {s->body_tokens, s->head_rows, s->sample_rows, s->advance_rows};
    for (uint32_t i = 0; i < COUNT_OF(counts); i++) {
        if (!counts[i]) continue;
        uint32_t program = pick_program(x, (AdaProgramKind)(ADA_PROGRAM_BODY + i), counts[i]);
        CHECK(program != UINT32_MAX); // the caller keeps to the maxima, which plan_check proved to be covered
        if (!(x->eager ? launch_program(x, k, program, e) : d->ops->replay(d, k->graphs[program], e)))
            return false;
    }
    return true;
}

static bool step_rank(void *ctx, uint32_t rank, Err *e) {
    Exec *x = ctx;
    const ExecStep *s = x->step;
    Rank *k = &x->rank[rank];
    Device *d = k->device;
    for (uint32_t i = 0; i < s->n_writes; i++) {
        const ExecWrite *w = &s->writes[i];
        if (w->bytes &&
            !d->ops->upload(d, locate(x, k, w->role, w->index, w->offset, w->bytes), w->src, w->bytes, e))
            return false;
    }
    if (!run_programs(x, k, s, e)) return false;
    for (uint32_t i = 0; i < s->n_reads && rank == 0; i++) {
        const ExecRead *r = &s->reads[i];
        if (r->bytes &&
            !d->ops->download(d, r->dst, locate(x, k, r->role, 0, r->offset, r->bytes), r->bytes, e))
            return false;
    }
    return true;
}

static bool die(Exec *x, Err *e) {
    err_context(e, "step %llu", (unsigned long long)x->n_steps);
    x->dead = true;
    x->death = *e;
    return false;
}

bool exec_step(Exec *x, const ExecStep *s, Err *e) {
    if (x->dead) {
        *e = x->death;
        return false;
    }
    CHECK(!s->advance_rows || exec_in_flight(x) < RING_SLOTS);
    x->step = s, x->n_steps++;
    if (ranks_run(x->ranks, step_rank, x, e)) {
        x->advanced += s->advance_rows != 0;
        return true;
    }
    return die(x, e);
}

// ---- tokens ----------------------------------------------------------------------------------------------

enum { SPINS_BETWEEN_LOOKS = 200 };
static const double ask_s = 2e-3, silent_s = 60; // asking the device costs more than a look at its memory

uint32_t exec_in_flight(const Exec *x) { return x->advanced - x->taken; }
void exec_forget(Exec *x) { x->taken = x->advanced; }
uint32_t exec_ring_slot(const Exec *x) { return x->advanced % RING_SLOTS; }

static bool is_done(const RingSlot *slot, uint32_t done) {
    for (int i = 0; i < SPINS_BETWEEN_LOOKS; i++) {
        if (__atomic_load_n(&slot->done, __ATOMIC_ACQUIRE) == done) return true;
        __builtin_ia32_pause();
    }
    return false;
}

static bool wait_for(Exec *x, const RingSlot *slot, uint32_t done, Err *e) {
    Device *d = x->devices[0];
    double begin = clock_s(), asked = begin;
    while (!is_done(slot, done)) {
        double now = clock_s();
        bool idle;
        if (now - asked < ask_s) continue;
        asked = now;
        if (!d->ops->idle(d, &idle, e)) return false;
        if (idle && !is_done(slot, done))
            return err_set(e, E_DEVICE, "all launches ended, but none told the tokens of decode step %u",
                           done);
        if (now - begin > silent_s)
            return err_set(e, E_DEVICE, "decode step %u has not ended after %.0f s", done, silent_s);
    }
    return true;
}

bool exec_tokens(Exec *x, ExecTokens *out, Err *e) {
    const uint32_t rows = x->a->plan->rows_max, at = x->taken % RING_SLOTS;
    const uint64_t slot_bytes = RING_SLOT_BYTES(rows), row_bytes = sizeof(LogprobRow) * (uint64_t)rows;
    const Rank *k = &x->rank[0];
    CHECK(exec_in_flight(x));
    if (x->dead) {
        *e = x->death;
        return false;
    }
    const RingSlot *slot = (const void *)locate(x, k, ADA_ROLE_RING, 0, at * slot_bytes, slot_bytes);
    if (!wait_for(x, slot, x->taken + 1, e)) return die(x, e);
    x->taken++;
    out->next = (const int32_t *)(slot + 1);
    out->status = (const uint32_t *)out->next + rows;
    out->logprobs = locate(x, k, ADA_ROLE_LOGPROBS, 0, at * row_bytes, row_bytes);
    return true;
}
