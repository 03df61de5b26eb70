// adallm-rt bench: speed of an artifact beside the speed at which this machine reads its bytes, in one run.
#include <stdio.h>
#include <stdlib.h>

#include "runtime/base/cli.h"
#include "runtime/base/log.h"
#include "runtime/base/num.h"
#include "runtime/engine/batch.h"
#include "runtime/verbs/open.h"
#include "runtime/verbs/verbs.h"

enum { BATCHES_MAX = 16, READ_ROUNDS = 3 };

typedef struct {
    const char *batch_list;
    uint64_t prompt, gen;
    RunOptions run;
    uint32_t batches[BATCHES_MAX], n_batches;
} Args;

// ---- the plain read ------------------------------------------------------------------------------

typedef uint64_t Lanes __attribute__((vector_size(32)));
enum { READ_PIECE = 4 << 20, READ_STREAMS = 4, READ_LANES = 4 };

typedef struct {
    const uint8_t *data;
    uint64_t bytes;
    _Atomic uint64_t sum; // keeps the loads alive
} PlainRead;

// A whole piece, as several streams side by side: one alone does not fill a core's share of the memory.
static void read_piece(void *ctx, uint32_t i) {
    PlainRead *r = ctx;
    const uint8_t *piece = r->data + (uint64_t)i * READ_PIECE;
    Lanes acc[READ_LANES] = {0};
    for (uint64_t at = 0; at < READ_PIECE / READ_STREAMS; at += sizeof acc)
        for (int s = 0; s < READ_STREAMS; s++) {
            const Lanes *p = (const Lanes *)(piece + s * (READ_PIECE / READ_STREAMS) + at);
            for (int k = 0; k < READ_LANES; k++) acc[k] ^= p[k];
        }
    for (int k = 0; k < READ_LANES; k++) r->sum += acc[k][0] ^ acc[k][1] ^ acc[k][2] ^ acc[k][3];
}

// Bytes a second at which all threads together read the weights, the best of a few rounds.
static double plain_read(const Opened *o) {
    PlainRead r = {.data = o->artifact.weight_data, .bytes = o->artifact.weight_bytes};
    uint32_t pieces = (uint32_t)(r.bytes / READ_PIECE); // the rest is less than a piece
    double best = 0;
    for (int round = 0; round < READ_ROUNDS; round++) {
        double begin = clock_s();
        pool_run(o->pool, pieces, read_piece, &r);
        best = MAX(best, (double)pieces * READ_PIECE / MAX(clock_s() - begin, 1e-9));
    }
    return best;
}

// ---- the model -----------------------------------------------------------------------------------

typedef struct {
    double prefill_s, decode_s;
    uint64_t prefill_tokens, decode_tokens;
    double *steps; // [n_steps] seconds of decode steps
    uint32_t n_steps;
} Timing;

// Bytes that the plan says a step of `n` tokens reads: body and head of the smallest buckets that hold it.
static uint64_t step_bytes(const Artifact *a, uint32_t n) {
    uint64_t bytes = 0;
    for (uint32_t kind = ADA_PROGRAM_BODY; kind <= ADA_PROGRAM_HEAD; kind++) {
        const AdaProgram *best = NULL;
        for (uint32_t i = 0; i < a->plan->programs.count; i++) {
            const AdaProgram *p = &a->programs[i];
            if (p->kind == kind && p->bucket >= n && (!best || p->bucket < best->bucket)) best = p;
        }
        for (uint32_t i = 0; best && i < best->n_launches; i++)
            bytes += a->launches[best->first_launch + i].bytes_read;
    }
    return bytes;
}

static bool add_requests(Batch *b, const Args *x, uint32_t n, uint32_t vocab, int32_t *ids, Err *e) {
    for (uint32_t s = 0; s < n; s++) {
        for (uint64_t i = 0; i < x->prompt; i++) ids[i] = (int32_t)((s * 7919 + i * 104729 + 17) % vocab);
        Request r = {.ids = ids,
                     .n_ids = (uint32_t)x->prompt,
                     .max_tokens = (uint32_t)x->gen,
                     .sampling = {.top_p = 1}};
        uint32_t slot;
        if (!batch_add(b, &r, &slot, e)) return false;
    }
    return true;
}

static bool time_steps(Batch *b, Timing *t, Err *e) {
    while (batch_busy(b)) {
        bool prefill = batch_prefilling(b);
        const BatchToken *tokens;
        uint32_t n;
        double begin = clock_s();
        if (!batch_step(b, &tokens, &n, e)) return false;
        double took = clock_s() - begin;
        if (prefill) {
            t->prefill_s += took;
        } else {
            t->decode_s += took, t->decode_tokens += n;
            t->steps[t->n_steps++] = took;
        }
    }
    return true;
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void print_row(const Artifact *a, uint32_t n, const Timing *t, double read_rate) {
    qsort(t->steps, t->n_steps, sizeof *t->steps, by_value);
    double p50 = t->steps[t->n_steps / 2], p99 = t->steps[(uint64_t)t->n_steps * 99 / 100];
    double limit_s = (double)step_bytes(a, n) / read_rate, step_s = t->decode_s / t->n_steps;
    printf("%5u %12.1f %12.1f %10.2f %10.2f %10.2f %11.0f%%\n", n, (double)t->prefill_tokens / t->prefill_s,
           (double)t->decode_tokens / t->decode_s, step_s * 1e3, p50 * 1e3, p99 * 1e3,
           100 * limit_s / step_s);
}

static bool bench_batch(const Opened *o, const Args *x, uint32_t n, double read_rate, Arena *a, Err *e) {
    ExecOptions options = run_exec_options(o, &x->run, n);
    Exec *exec = exec_open(&o->artifact, &options, e);
    if (!exec) return false;
    Batch *b = batch_new(exec, 0);
    Timing t = {.prefill_tokens = x->prompt * n, .steps = ARENA_ARRAY(a, double, x->gen + 1)};
    int32_t *ids = ARENA_ARRAY(a, int32_t, x->prompt);
    bool ok = add_requests(b, x, n, o->artifact.plan->vocab, ids, e) && time_steps(b, &t, e);
    if (ok) print_row(&o->artifact, n, &t, read_rate);
    batch_free(b);
    exec_close(exec);
    return ok;
}

static bool parse_batches(Args *x, Diags *d) {
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
    if (!parse_batches(x, d)) return false;
    const AdaPlan *p = o->artifact.plan;
    for (uint32_t i = 0; i < x->n_batches; i++)
        if (x->batches[i] > p->seqs_max)
            return diag_error(d, E_OPTION_VALUE, SPAN_NONE,
                              "--batch %u: this artifact was compiled for at most %u sequences",
                              x->batches[i], p->seqs_max);
    if (x->prompt + x->gen > p->context)
        return diag_error(d, E_CONTEXT, SPAN_NONE,
                          "--prompt %llu and --gen %llu do not fit into the context of %u tokens",
                          (unsigned long long)x->prompt, (unsigned long long)x->gen, p->context);
    double read_rate = plain_read(o);
    printf("%s on %s, %llu tokens in, %llu out; a plain read of the %.0f MB of weights: %.1f GB/s\n\n",
           o->manifest.model, o->artifact.super->target, (unsigned long long)x->prompt,
           (unsigned long long)x->gen, (double)o->artifact.weight_bytes / 1e6, read_rate / 1e9);
    printf("batch prefill tok/s  decode tok/s    ms/step   p50 ms     p99 ms   of the read\n");
    for (uint32_t i = 0; i < x->n_batches; i++) {
        Err e;
        if (!bench_batch(o, x, x->batches[i], read_rate, a, &e)) return diag_err(d, SPAN_NONE, &e);
    }
    return true;
}

int verb_bench(int argc, char **argv) {
    Args x = {.batch_list = "1", .prompt = 128, .gen = 64};
    const Option options[] = {
        {"--batch", OPT_STRING, "LIST", 0, 0, &x.batch_list, NULL,
         "sequences side by side, as in 1,2,4 (default 1)"},
        {"--prompt", OPT_UINT, "N", 1, 1 << 20, &x.prompt, NULL,
         "prompt tokens of each sequence (default 128)"},
        {"--gen", OPT_UINT, "N", 2, 1 << 20, &x.gen, NULL,
         "tokens to generate for each sequence (default 64)"},
        RUN_OPTION_ROWS(&x.run),
    };
    const Command cmd = {
        "adallm-rt bench X.ada [options]",
        "Measures prefill and decode, and in the same run how fast this machine reads the artifact's "
        "weights.\n"
        "`of the read`: the time such a read of the step's bytes would take, in percent of the step.",
        options,
        COUNT_OF(options),
        1,
        1};
    return verb_on_artifact(&cmd, argc, argv, ARTIFACT_ALL, &x.run.threads, bench, &x);
}
