#include "runtime/exec/exec.h"

#include <stdlib.h>

#include "runtime/base/log.h"
#include "runtime/base/num.h"
#include "runtime/device/device.h"
#include "runtime/exec/ranks.h"

enum { CODE_IMAGES_MAX = 16, ARGS_MAX = 16 };

// What one rank holds. All addresses are the device's.
typedef struct {
    Device *device;
    uint8_t *scratch;
    uint8_t **buffers; // [plan buffers]
    uint8_t **weights; // [plan weights]
    DeviceKernel **kernels;
    DeviceGraph **graphs; // [plan programs]
} Rank;

struct Exec {
    Arena arena;
    const Artifact *a;
    Ranks *ranks;
    Rank *rank;       // [n_ranks]
    Device **devices; // [n_ranks]
    uint32_t pages[ADA_KV_GROUPS_MAX];
    uint32_t role[ADA_ROLE_ROLES][ADA_KV_GROUPS_MAX]; // buffer index
    const ExecStep *step;                             // the one that runs
    bool dead;
    Err death;
};

const AdaPlan *exec_plan(const Exec *x) { return x->a->plan; }
Device *exec_device(const Exec *x, uint32_t rank) { return x->devices[rank]; }
uint32_t exec_pages(const Exec *x, uint32_t group) { return x->pages[group]; }

// ---- memory ----------------------------------------------------------------------------------------------

static uint64_t kv_bytes(const AdaPlan *p, uint32_t seqs) { // of all ranks; saturates
    uint64_t total = 0, group;
    for (uint32_t g = 0; g < p->n_kv_groups; g++)
        if (!u64_mul(p->kv[g].page_bytes, (uint64_t)p->kv[g].pages_per_seq * seqs, &group) ||
            !u64_mul(group, p->n_ranks, &group) || !u64_add(total, group, &total))
            return UINT64_MAX;
    return total;
}

static bool size_pools(Exec *x, const ExecOptions *o, Err *e) {
    const AdaPlan *p = x->a->plan;
    uint32_t seqs = o->seqs && o->seqs < p->seqs_max ? o->seqs : p->seqs_max;
    uint64_t cap = o->kv_bytes_max ? o->kv_bytes_max : UINT64_MAX - 1;
    while (seqs > 1 && kv_bytes(p, seqs) > cap) seqs--;
    if (kv_bytes(p, seqs) > cap)
        return err_set(
            e, E_MEMORY,
            "the KV cache of one sequence of %u tokens takes %.1f MiB, more than the %.1f MiB allowed",
            p->context, (double)kv_bytes(p, seqs) / 1048576, (double)cap / 1048576);
    for (uint32_t g = 0; g < p->n_kv_groups; g++) {
        uint64_t pages = (uint64_t)p->kv[g].pages_per_seq * seqs;
        if (pages > INT32_MAX)
            return err_set(e, E_MEMORY, "KV group %u: %llu pages", g, (unsigned long long)pages);
        x->pages[g] = (uint32_t)pages;
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
        uint64_t bytes = b->bytes;
        if (b->space == ADA_SPACE_KV)
            bytes = p->kv[b->index].page_bytes * x->pages[b->index]; // size_pools checked
        if (!d->ops->alloc(d, bytes, &ptr, e))
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
    if (!k->device->ops->load_code(k->device, images, bytes, kinds, n, &code, e)) return false;
    for (uint32_t i = 0; i < a->plan->kernels.count; i++) {
        const char *name = artifact_string(a, a->kernels[i].name);
        if (!k->device->ops->find_kernel(k->device, code, name, &k->kernels[i], e)) return false;
    }
    return true;
}

static void *arg_address(const Exec *x, const Rank *k, const AdaArg *arg) {
    (void)x;
    switch ((AdaArgKind)arg->kind) {
    case ADA_ARG_BUFFER: return k->buffers[arg->index] + arg->offset;
    case ADA_ARG_WEIGHT: return k->weights[arg->index] + arg->offset;
    default: return NULL;
    }
}

static bool launch(const Exec *x, Rank *k, const AdaLaunch *l, Err *e) {
    void *args[ARGS_MAX];
    Device *d = k->device;
    for (uint32_t i = 0; i < l->n_args; i++) args[i] = arg_address(x, k, &x->a->args[l->first_arg + i]);
    switch ((AdaLaunchKind)l->kind) {
    case ADA_LAUNCH_ALL_REDUCE: return d->ops->all_reduce(d, args[0], l->rows, l->cols, e);
    case ADA_LAUNCH_ALL_GATHER: return d->ops->all_gather(d, args[0], args[1], l->rows, l->cols, e);
    default: break;
    }
    const AdaKernel *kernel = &x->a->kernels[l->kernel];
    DeviceLaunch dl = {.kernel = k->kernels[l->kernel],
                       .name = artifact_string(x->a, kernel->name),
                       .grid = l->grid,
                       .threads = kernel->threads,
                       .shared_bytes = kernel->shared_bytes,
                       .args = args,
                       .n_args = l->n_args};
    return d->ops->launch(d, &dl, e);
}

static bool capture_programs(Exec *x, Rank *k, Err *e) {
    Device *d = k->device;
    for (uint32_t i = 0; i < x->a->plan->programs.count; i++) {
        const AdaProgram *p = &x->a->programs[i];
        if (!d->ops->capture_begin(d, e)) return false;
        for (uint32_t j = 0; j < p->n_launches; j++)
            if (!launch(x, k, &x->a->launches[p->first_launch + j], e))
                return err_context(e, "program %u", i);
        if (!d->ops->capture_end(d, &k->graphs[i], e)) return err_context(e, "program %u", i);
    }
    return true;
}

// ---- opening ---------------------------------------------------------------------------------------------

static bool open_rank(void *ctx, uint32_t rank, Err *e) {
    Exec *x = ctx;
    Rank *k = &x->rank[rank];
    return alloc_buffers(x, k, e) && bind_weights(x, rank, e) && load_kernels(x, k, e) &&
           capture_programs(x, k, e) && k->device->ops->sync(k->device, e);
}

static bool close_rank(void *ctx, uint32_t rank, Err *e) {
    Exec *x = ctx;
    (void)e;
    Device *d = x->rank[rank].device;
    for (uint32_t i = 0; i < x->a->plan->programs.count; i++)
        if (x->rank[rank].graphs[i]) d->ops->graph_free(d, x->rank[rank].graphs[i]);
    d->ops->close(d);
    return true;
}

static void set_up(Exec *x) {
    const AdaPlan *p = x->a->plan;
    x->rank = ARENA_ARRAY(&x->arena, Rank, p->n_ranks);
    x->devices = ARENA_ARRAY(&x->arena, Device *, p->n_ranks);
    for (uint32_t r = 0; r < p->n_ranks; r++) {
        Rank *k = &x->rank[r];
        k->buffers = ARENA_ARRAY(&x->arena, uint8_t *, p->buffers.count);
        k->weights = ARENA_ARRAY(&x->arena, uint8_t *, p->weights.count);
        k->kernels = ARENA_ARRAY(&x->arena, DeviceKernel *, p->kernels.count);
        k->graphs = ARENA_ARRAY(&x->arena, DeviceGraph *, p->programs.count);
    }
    for (uint32_t role = 0; role < ADA_ROLE_ROLES; role++)
        for (uint32_t g = 0; g < ADA_KV_GROUPS_MAX; g++)
            x->role[role][g] = artifact_role(x->a, (AdaRole)role, g);
}

Exec *exec_open(const Artifact *a, const ExecOptions *o, Err *e) {
    Exec *x = xmalloc(sizeof *x);
    *x = (Exec){.a = a};
    set_up(x);
    uint32_t n = a->plan->n_ranks, threads = o->threads ? MAX(1, o->threads / n) : 0;
    if (!size_pools(x, o, e) || !device_open(o->driver, n, threads, x->devices, e)) {
        arena_free(&x->arena);
        free(x);
        return NULL;
    }
    for (uint32_t r = 0; r < n; r++) x->rank[r].device = x->devices[r];
    x->ranks = ranks_new(n);
    double begin = clock_s();
    if (!ranks_run(x->ranks, open_rank, x, e)) {
        exec_close(x);
        return NULL;
    }
    log_line("exec", "bound %u programs on %u ranks in %.1f ms", a->plan->programs.count, n,
             (clock_s() - begin) * 1e3);
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

static DeviceGraph *pick_program(const Exec *x, const Rank *k, AdaProgramKind kind, uint32_t count) {
    uint32_t best = UINT32_MAX;
    for (uint32_t i = 0; i < x->a->plan->programs.count; i++) {
        const AdaProgram *p = &x->a->programs[i];
        if (p->kind == kind && p->bucket >= count &&
            (best == UINT32_MAX || p->bucket < x->a->programs[best].bucket))
            best = i;
    }
    CHECK(best != UINT32_MAX); // the caller keeps to the plan's maxima, which plan_check proved to be covered
    return k->graphs[best];
}

static uint8_t *locate(const Exec *x, const Rank *k, AdaRole role, uint32_t index, uint64_t offset,
                       uint64_t bytes) {
    uint32_t i = x->role[role][index];
    CHECK(i != UINT32_MAX && range_inside(offset, bytes, x->a->buffers[i].bytes));
    return k->buffers[i] + offset;
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
    const struct {
        AdaProgramKind kind;
        uint32_t count;
    } run[] = {{ADA_PROGRAM_BODY, s->body_tokens},
               {ADA_PROGRAM_HEAD, s->head_rows},
               {ADA_PROGRAM_SAMPLE, s->sample_rows},
               {ADA_PROGRAM_ADVANCE, s->advance_rows}};
    for (size_t i = 0; i < COUNT_OF(run); i++)
        if (run[i].count && !d->ops->replay(d, pick_program(x, k, run[i].kind, run[i].count), e))
            return false;
    for (uint32_t i = 0; i < s->n_reads && rank == 0; i++) {
        const ExecRead *r = &s->reads[i];
        if (r->bytes &&
            !d->ops->download(d, r->dst, locate(x, k, r->role, 0, r->offset, r->bytes), r->bytes, e))
            return false;
    }
    return true;
}

bool exec_step(Exec *x, const ExecStep *s, Err *e) {
    if (x->dead) {
        *e = x->death;
        return false;
    }
    x->step = s;
    if (ranks_run(x->ranks, step_rank, x, e)) return true;
    x->dead = true;
    x->death = *e;
    return false;
}
