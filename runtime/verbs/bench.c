// adallm-rt bench: speed of an artifact beside the speed at which this device reads its bytes, in one run.
#include "runtime/verbs/bench.h"

#include <stdlib.h>
#include <string.h>

#include "runtime/base/log.h"
#include "runtime/base/num.h"
#include "runtime/engine/batch.h"
#include "runtime/verbs/verbs.h"

enum { BATCHES_MAX = 16, WARM_UP_TOKENS = 3 };

typedef struct {
    const char *batch_list;
    uint64_t prompt, gen, launches, chunk;
    bool json;
    RunOptions run;
    uint32_t batches[BATCHES_MAX], n_batches;
} Args;

typedef struct {
    const Args *args;
    Arena *arena;
    const Artifact *artifact;
    Exec *exec;
    BenchReport report;
} Bench;

// ---- what a step must read -------------------------------------------------------------------------------

static const char *const program_names[ADA_PROGRAM_KINDS] = {"?", "body", "head", "sample", "advance"};

// Bytes of weights and KV cache, when `seqs` sequences have `seen` tokens each. The plan assumes a length of
// its own for attention, the one template that reads the cache.
static double launch_bytes(const Artifact *a, const AdaLaunch *l, uint32_t seqs, double seen) {
    if (l->kind != ADA_LAUNCH_KERNEL) return 0;
    if (strcmp(artifact_string(a, a->kernels[l->kernel].template_), "attention") != 0)
        return (double)l->bytes_read;
    for (uint32_t i = 0; i < l->n_args; i++) {
        const AdaArg *arg = &a->args[l->first_arg + i];
        if (arg->kind != ADA_ARG_BUFFER || a->buffers[arg->index].role != ADA_ROLE_KV_POOL) continue;
        const AdaKvGroup *k = &a->plan->kv[a->buffers[arg->index].index];
        const double token = (double)k->page_bytes / a->plan->page_tokens / k->n_layers;
        return token * seqs * (k->window ? MIN(seen, (double)k->window) : seen);
    }
    return 0;
}

static double step_limit_s(const Bench *b, uint32_t n) {
    const double seen = (double)b->args->prompt + (double)b->args->gen / 2;
    double bytes = 0;
    for (uint32_t kind = ADA_PROGRAM_BODY; kind <= ADA_PROGRAM_HEAD; kind++) {
        const AdaProgram *p = exec_program(b->exec, (AdaProgramKind)kind, n);
        for (uint32_t i = 0; i < p->n_launches; i++)
            bytes += launch_bytes(b->artifact, &b->artifact->launches[p->first_launch + i], n, seen);
    }
    return b->report.read_rate > 0 ? bytes / b->report.read_rate : 0;
}

// ---- steps -----------------------------------------------------------------------------------------------

static void free_seqs(Batch *b, Seq **seqs, uint32_t n) {
    for (uint32_t i = 0; i < n && seqs[i]; i++) batch_remove(b, seqs[i]), seq_free(seqs[i]);
}

static bool add_requests(const Bench *x, Batch *b, Seq **seqs, uint32_t n, uint64_t prompt, uint64_t gen,
                         Err *e) {
    int32_t *ids = ARENA_ARRAY(x->arena, int32_t, prompt);
    for (uint32_t s = 0; s < n; s++) {
        for (uint64_t i = 0; i < prompt; i++)
            ids[i] = (int32_t)((s * 7919 + i * 104729 + 17) % x->artifact->plan->vocab);
        Request r = {
            .ids = ids, .n_ids = (uint32_t)prompt, .max_tokens = (uint32_t)gen, .sampling = {.top_p = 1}};
        seqs[s] = seq_new(batch_limits(b), &r, e);
        if (!seqs[s]) return false;
        batch_add(b, seqs[s]);
    }
    return true;
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

// Steps are timed by the arrival of their tokens: while the host takes those of one the next one runs.
static bool time_steps(Batch *b, double *steps, BenchRow *row, Err *e) {
    const double begin = clock_s();
    double last = begin;
    while (batch_busy(b)) {
        const BatchToken *tokens;
        uint32_t n;
        if (!batch_step(b, &tokens, &n, e)) return false;
        if (!n) continue;
        if (tokens->end == SEQ_FAILED) {
            *e = *tokens->seq->err;
            return false;
        }
        const double now = clock_s();
        if (batch_last_step(b)->prompt_tokens)
            row->prefill_s = now - begin;
        else
            row->decode_tokens += n, row->decode_s += now - last, steps[row->n_steps++] = now - last;
        last = now;
    }
    qsort(steps, row->n_steps, sizeof *steps, by_value);
    if (row->n_steps)
        row->p50_s = steps[row->n_steps / 2], row->p99_s = steps[(uint64_t)row->n_steps * 99 / 100];
    return true;
}

// The batch still exists afterwards: the device holds the counts and positions of its last step.
static bool run_batch(const Bench *x, Batch *b, uint32_t n, uint64_t prompt, uint64_t gen, BenchRow *row,
                      Err *e) {
    *row = (BenchRow){.batch = n, .prefill_tokens = prompt * n, .limit_s = step_limit_s(x, n)};
    double *steps = ARENA_ARRAY(x->arena, double, gen + 1);
    Seq **seqs = ARENA_ARRAY(x->arena, Seq *, n);
    bool ok = add_requests(x, b, seqs, n, prompt, gen, e) && time_steps(b, steps, row, e);
    free_seqs(b, seqs, n);
    return ok;
}

// Decode steps have all sequences in them: none generates before every prompt is computed.
static Batch *static_batch(const Bench *x, Err *e) {
    return batch_new(x->exec, &(BatchOptions){.prefill_first = true}, e);
}

// The first run of anything is slower: clocks, caches, pages that nobody touched yet.
static bool warm_up(const Bench *x, uint32_t n, Err *e) {
    const uint64_t gen = MIN(x->args->gen, (uint64_t)WARM_UP_TOKENS);
    const uint64_t prompt = MAX(MIN(x->args->prompt, (uint64_t)x->artifact->plan->tokens_max / n), 1);
    Batch *b = static_batch(x, e);
    BenchRow row;
    bool ok = b && run_batch(x, b, n, prompt, gen, &row, e);
    batch_free(b);
    return ok;
}

// ---- launches --------------------------------------------------------------------------------------------

static double unit_bytes(const Bench *x, const BenchLaunches *l, const ExecUnit *u) {
    const uint32_t n = l->chunk ? 1 : l->row.batch;
    const double seen = l->chunk ? (double)l->chunk / 2 : (double)(x->args->prompt + x->args->gen);
    double bytes = 0;
    for (uint32_t i = 0; i < u->n; i++) bytes += launch_bytes(x->artifact, &u->launches[i], n, seen);
    return bytes;
}

// The kernel that the program runs at launch i, unless an earlier launch ran it.
static bool time_kernel(Bench *x, BenchLaunches *l, const AdaProgram *p, uint32_t i, Err *e) {
    const ExecUnit wanted = exec_unit(x->exec, p->first_launch + i);
    BenchLaunch row = {.program = program_names[p->kind], .kernel = exec_unit_name(x->exec, &wanted)};
    double seconds, bytes = 0;
    for (uint32_t j = 0; j < p->n_launches;) {
        const ExecUnit u = exec_unit(x->exec, p->first_launch + j);
        if (u.kernel == wanted.kernel && u.launches->kind == wanted.launches->kind) {
            if (j < i) return true;
            row.count++;
            row.predicted_us += (double)u.predicted_us;
            bytes += unit_bytes(x, l, &u);
        }
        j += u.n;
    }
    if (!exec_time_unit(x->exec, p, p->first_launch + i, &seconds, e)) return false;
    row.measured_us = seconds * 1e6, row.predicted_us /= row.count;
    row.bytes = (uint64_t)(bytes / row.count);
    l->items[l->n++] = row;
    return true;
}

// A decode step of n sequences, or the only chunk of a prompt.
static bool time_launches(Bench *x, BenchLaunches *l, uint32_t n, Err *e) {
    const uint32_t buckets[] = {l->chunk ? l->chunk : n, n, n}; // of body, head and sample
    const AdaProgram *programs[COUNT_OF(buckets)];
    uint32_t most = 0;
    for (size_t i = 0; i < COUNT_OF(buckets); i++) {
        programs[i] = exec_program(x->exec, (AdaProgramKind)(ADA_PROGRAM_BODY + i), buckets[i]);
        most += programs[i]->n_launches;
    }
    l->items = ARENA_ARRAY(x->arena, BenchLaunch, most);
    Batch *b = static_batch(x, e);
    bool ok = b && (l->chunk ? run_batch(x, b, n, l->chunk, 1, &l->row, e)
                             : run_batch(x, b, n, x->args->prompt, x->args->gen, &l->row, e));
    for (size_t k = 0; ok && k < COUNT_OF(buckets); k++)
        for (uint32_t i = 0; ok && i < programs[k]->n_launches;
             i += exec_unit(x->exec, programs[k]->first_launch + i).n)
            ok = time_kernel(x, l, programs[k], i, e);
    batch_free(b);
    return ok;
}

// ---- the verb --------------------------------------------------------------------------------------------

static bool measure(Bench *x, Err *e) {
    BenchReport *r = &x->report;
    const Args *args = x->args;
    r->startup = exec_startup(x->exec);
    if (!exec_memory(x->exec, &r->memory, e) || !exec_read_rate(x->exec, &r->read_rate, e)) return false;
    r->rows = ARENA_ARRAY(x->arena, BenchRow, args->n_batches);
    if (!args->json) bench_print_head(r);
    for (uint32_t i = 0; i < args->n_batches; i++) {
        const uint32_t n = args->batches[i];
        if (!warm_up(x, n, e)) return false;
        Batch *b = static_batch(x, e);
        bool ok = b && run_batch(x, b, n, args->prompt, args->gen, &r->rows[r->n_rows++], e);
        batch_free(b);
        if (!ok) return false;
        if (!args->json) bench_print_row(r, &r->rows[i]);
    }
    r->chunk.chunk = (uint32_t)args->chunk;
    if (args->launches && !time_launches(x, &r->step, (uint32_t)args->launches, e)) return false;
    if (args->launches && !args->json) bench_print_launches(r, &r->step);
    if (args->chunk && !time_launches(x, &r->chunk, 1, e)) return false;
    if (args->chunk && !args->json) bench_print_launches(r, &r->chunk);
    if (args->json) bench_print_json(r);
    return true;
}

static uint32_t largest(const Args *x) {
    uint32_t most = (uint32_t)x->launches;
    for (uint32_t i = 0; i < x->n_batches; i++) most = MAX(most, x->batches[i]);
    return most;
}

static bool parse_batches(Args *x, Diags *d) {
    if (!x->batch_list) x->batch_list = "1";
    Str rest = str_of(x->batch_list);
    while (rest.len) {
        const char *comma = memchr(rest.ptr, ',', rest.len);
        Str word = comma ? str_sub(rest, 0, (size_t)(comma - rest.ptr)) : rest;
        uint64_t n;
        if (!str_to_u64(word, &n) || n < 1 || n > 1024 || x->n_batches == BATCHES_MAX)
            return diag_error(d, E_OPTION_VALUE, SPAN_NONE,
                              "--batch wants up to %d numbers from 1 to 1024, as in 1,2,4, not `%s`",
                              BATCHES_MAX, x->batch_list);
        x->batches[x->n_batches++] = (uint32_t)n;
        rest = comma ? str_from(rest, word.len + 1) : (Str){0};
    }
    return x->n_batches || diag_error(d, E_OPTION_VALUE, SPAN_NONE, "--batch wants numbers, as in 1,2,4");
}

static bool bench(Opened *o, void *ctx, Arena *a, Diags *d) {
    Args *x = ctx;
    const AdaPlan *p = o->artifact.plan;
    if (!parse_batches(x, d)) return false;
    if (largest(x) > p->seqs_max)
        return diag_error(d, E_OPTION_VALUE, SPAN_NONE,
                          "%u sequences: this artifact was compiled for at most %u", largest(x), p->seqs_max);
    if (x->chunk > p->tokens_max || x->chunk >= p->context)
        return diag_error(d, E_OPTION_VALUE, SPAN_NONE,
                          "--chunk %llu: this artifact computes up to %u tokens at once, of a context of %u",
                          (unsigned long long)x->chunk, p->tokens_max, p->context);
    if (x->prompt + x->gen > p->context)
        return diag_error(d, E_CONTEXT, SPAN_NONE,
                          "--prompt %llu and --gen %llu do not fit into the context of %u tokens",
                          (unsigned long long)x->prompt, (unsigned long long)x->gen, p->context);
    Err e;
    ExecOptions options = run_exec_options(o, &x->run, largest(x));
    Bench b = {.args = x,
               .arena = a,
               .artifact = &o->artifact,
               .exec = opened_exec(o, &options, &e),
               .report = {.opened = o, .prompt = x->prompt, .gen = x->gen}};
    bool ok = b.exec && measure(&b, &e);
    exec_close(b.exec);
    return ok || diag_err(d, SPAN_NONE, &e);
}

int verb_bench(int argc, char **argv) {
    Args x = {.prompt = 128, .gen = 64};
    const Option options[] = {
        {"--batch", OPT_STRING, "LIST", 0, 0, &x.batch_list, NULL,
         "sequences side by side, as in 1,2,4 (default 1)"},
        {"--prompt", OPT_UINT, "N", 1, 1 << 20, &x.prompt, NULL,
         "prompt tokens of each sequence (default 128)"},
        {"--gen", OPT_UINT, "N", 2, 1 << 20, &x.gen, NULL,
         "tokens to generate for each sequence (default 64)"},
        {"--launches", OPT_UINT, "N", 1, 1024, &x.launches, NULL,
         "also time every kernel of a decode step of N sequences alone, beside its prediction"},
        {"--chunk", OPT_UINT, "N", 1, 1 << 20, &x.chunk, NULL,
         "also time every kernel that computes N tokens of a prompt alone, beside its prediction"},
        {"--json", OPT_FLAG, NULL, 0, 0, &x.json, NULL, "one JSON object instead of tables"},
        RUN_OPTION_ROWS(&x.run),
    };
    const Command cmd = {
        "adallm-rt bench X.ada [options]",
        "Measures prefill and decode, and in the same run how fast this device reads the artifact's "
        "weights.\n"
        "`of the limit`: the time such a read of the step's weights and cache would take, in percent of the "
        "step.",
        options,
        COUNT_OF(options),
        1,
        1};
    return verb_on_artifact(&cmd, argc, argv, ARTIFACT_ALL, &x.run.threads, bench, &x);
}
