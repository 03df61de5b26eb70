#include "runtime/exec/measure.h"

#include "runtime/base/num.h"
#include "runtime/exec/state.h"

enum { REPLAYS = 3, LAUNCHES_LEAST = 20, LAUNCHES_MOST = 200 };
static const double graph_us = 2000; // long enough that the ends of a graph do not count

// ---- memory ----------------------------------------------------------------------------------------------

bool exec_memory(Exec *x, ExecMemory *out, Err *e) {
    const AdaPlan *p = x->a->plan;
    Device *d = x->devices[0];
    uint64_t free_bytes, total_bytes;
    *out = (ExecMemory){.kv = exec_kv_bytes(x), .scratch = p->scratch_bytes};
    if (x->rank[0].section)
        out->weights = x->a->weight_bytes;
    else
        for (uint32_t i = 0; i < p->weights.count; i++) out->weights += artifact_binding(x->a, i, 0)->bytes;
    for (uint32_t i = 0; i < p->buffers.count; i++)
        if (x->a->buffers[i].space == ADA_SPACE_STATE) out->states += x->a->buffers[i].bytes;
    if (x->rank[0].adopted) return true;
    if (!d->ops->memory(d, &free_bytes, &total_bytes, e)) return false;
    const uint64_t used = total_bytes - free_bytes,
                   ours = out->weights + out->kv + out->scratch + out->states;
    out->rest = used > ours ? used - ours : 0;
    return true;
}

// ---- the plain read --------------------------------------------------------------------------------------

typedef struct {
    Exec *x;
    double rates[64]; // [n_ranks]
} ReadJob;

// Each rank reads its share of the section, or its largest weight where they lie apart.
static bool read_rank(void *ctx, uint32_t rank, Err *e) {
    ReadJob *j = ctx;
    const Artifact *a = j->x->a;
    Rank *k = &j->x->rank[rank];
    const uint64_t share = a->weight_bytes / a->plan->n_ranks / 4096 * 4096;
    const uint8_t *data = k->section ? k->section + rank * share : NULL;
    uint64_t bytes = k->section ? share : 0;
    for (uint32_t i = 0; !k->section && i < a->plan->weights.count; i++) {
        const AdaBinding *b = artifact_binding(a, i, rank);
        if (b->bytes > bytes) data = k->weights[i], bytes = b->bytes;
    }
    return k->device->ops->read_rate(k->device, data, bytes, &j->rates[rank], e);
}

bool exec_read_rate(Exec *x, double *bytes_a_second, Err *e) {
    ReadJob j = {.x = x};
    const uint32_t n = x->a->plan->n_ranks;
    CHECK(n <= COUNT_OF(j.rates));
    *bytes_a_second = 0;
    if (!ranks_run(x->ranks, read_rank, &j, e)) return false;
    for (uint32_t r = 0; r < n; r++) *bytes_a_second += j.rates[r];
    return true;
}

// ---- launches --------------------------------------------------------------------------------------------

typedef struct {
    Exec *x;
    const AdaProgram *program;
    ExecUnit first; // of its kernel in the program
    uint32_t n;     // of them
    double seconds; // of one, on rank 0
} TimeJob;

static bool same_kernel(const ExecUnit *a, const ExecUnit *b) {
    return a->kernel == b->kernel && a->launches->kind == b->launches->kind;
}

static uint32_t rounds_of(const TimeJob *j) {
    const double once_us = (double)j->first.predicted_us * j->n;
    const uint32_t most = (uint32_t)div_up(LAUNCHES_MOST, j->n),
                   least = (uint32_t)div_up(LAUNCHES_LEAST, j->n);
    return once_us * most <= graph_us ? most : MAX(least, (uint32_t)(graph_us / once_us));
}

// The units of the program before `first`, or those of its kernel.
static bool launch_units(const TimeJob *j, Rank *k, bool before, Err *e) {
    const Exec *x = j->x;
    for (uint32_t i = 0; i < j->program->n_launches;) {
        const ExecUnit u = exec_unit(x, j->program->first_launch + i);
        if (before && u.launches == j->first.launches) return true;
        if (before ? !exec_launch(x, k, &u, &u, e)
                   : same_kernel(&u, &j->first) && !exec_launch(x, k, &u, &j->first, e))
            return false;
        i += u.n;
    }
    return true;
}

static bool time_rank(void *ctx, uint32_t rank, Err *e) {
    TimeJob *j = ctx;
    Rank *k = &j->x->rank[rank];
    Device *d = k->device;
    DeviceGraph *g;
    const uint32_t rounds = rounds_of(j);
    if (!launch_units(j, k, true, e)) return false; // what the kernel reads
    if (!d->ops->sync(d, e) || !d->ops->capture_begin(d, e)) return false;
    for (uint32_t i = 0; i < rounds; i++)
        if (!launch_units(j, k, false, e)) return false;
    double seconds;
    if (!d->ops->capture_end(d, &g, e) || !d->ops->replay_timed(d, g, REPLAYS, &seconds, e)) return false;
    d->ops->graph_free(d, g);
    if (!rank) j->seconds = seconds / REPLAYS / rounds / j->n;
    return true;
}

bool exec_time_unit(Exec *x, const AdaProgram *p, uint32_t launch, double *seconds, Err *e) {
    TimeJob j = {.x = x, .program = p};
    const ExecUnit wanted = exec_unit(x, launch);
    for (uint32_t i = 0; i < p->n_launches;) {
        const ExecUnit u = exec_unit(x, p->first_launch + i);
        if (same_kernel(&u, &wanted) && !j.n++) j.first = u;
        i += u.n;
    }
    CHECK(j.n);
    if (!ranks_run(x->ranks, time_rank, &j, e)) return false;
    *seconds = j.seconds;
    return true;
}
