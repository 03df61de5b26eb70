// adallm-rt logits: logits after every position of given sequences, as a NumPy file.
#include <stdio.h>

#include "runtime/base/cli.h"
#include "runtime/base/ids.h"
#include "runtime/base/log.h"
#include "runtime/base/npy.h"
#include "runtime/base/num.h"
#include "runtime/engine/score.h"
#include "runtime/verbs/open.h"
#include "runtime/verbs/verbs.h"

typedef struct {
    const char *ids_path, *out_path;
    uint64_t batch, chunk;
    RunOptions run;
    CliResult cli;
} Args;

static bool parse_args(Args *x, int argc, char **argv, Arena *a, Diags *d) {
    const Option options[] = {
        {"--ids", OPT_STRING, "FILE", 0, 0, &x->ids_path, NULL,
         "one sequence of token ids a line (required)"},
        {"-o", OPT_STRING, "OUT.npy", 0, 0, &x->out_path, NULL, "float32 [total tokens, vocab] (required)"},
        {"--batch", OPT_UINT, "N", 1, 1 << 16, &x->batch, NULL, "sequences side by side (default 1)"},
        {"--chunk", OPT_UINT, "N", 1, 1 << 20, &x->chunk, NULL,
         "tokens of a sequence computed at once (default: as many as the plan allows)"},
        RUN_OPTION_ROWS(&x->run),
    };
    const Command cmd = {"adallm-rt logits X.ada --ids FILE -o OUT.npy [options]",
                         "Writes the logits after every position, sequences one after the other. Neither "
                         "--batch nor --chunk nor\n"
                         "--threads changes a bit of them.",
                         options,
                         COUNT_OF(options),
                         1,
                         1};
    x->batch = 1;
    if (!cli_parse(&cmd, argc, argv, a, &x->cli, d)) return false;
    if (x->cli.help || (x->ids_path && x->out_path)) return true;
    return diag_error(d, E_USAGE, SPAN_NONE, "adallm-rt logits needs --ids FILE and -o OUT.npy");
}

typedef struct {
    NpyWriter npy;
    const uint64_t *row0; // [sequences] first row of each
} Sink;

static bool put_rows(void *ctx, uint32_t seq, uint32_t first, uint32_t n, const float *rows, Err *e) {
    Sink *s = ctx;
    return npy_put(&s->npy, s->row0[seq] + first, rows, n, e);
}

static bool write_logits(const Args *x, Exec *exec, const IdsFile *ids, Arena *a, Err *e) {
    ScoreSeq *seqs = ARENA_ARRAY(a, ScoreSeq, ids->n_sequences);
    uint64_t *row0 = ARENA_ARRAY(a, uint64_t, ids->n_sequences + 1);
    for (uint32_t i = 0; i < ids->n_sequences; i++) {
        seqs[i] = (ScoreSeq){ids->sequences[i].ids, ids->sequences[i].n};
        row0[i + 1] = row0[i] + ids->sequences[i].n;
    }
    Sink sink = {.row0 = row0};
    double begin = clock_s();
    if (!npy_open(&sink.npy, x->out_path, exec_plan(exec)->vocab_rows, e) ||
        !npy_reserve(&sink.npy, ids->n_total, e) ||
        !score_run(exec, seqs, ids->n_sequences, (uint32_t)x->batch, (uint32_t)x->chunk, put_rows, &sink,
                   e)) {
        npy_abandon(&sink.npy);
        return false;
    }
    double seconds = clock_s() - begin;
    fprintf(stderr, "%llu tokens in %.2f s, %.1f tokens/s\n", (unsigned long long)ids->n_total, seconds,
            (double)ids->n_total / MAX(seconds, 1e-9));
    return npy_close(&sink.npy, e);
}

static bool run(const Args *x, Opened *o, Arena *a, Diags *d) {
    const AdaPlan *p = o->artifact.plan;
    IdsFile *ids = ARENA_NEW(a, IdsFile);
    Err e;
    if (x->batch > p->seqs_max)
        return diag_error(d, E_OPTION_VALUE, SPAN_NONE,
                          "--batch %llu: this artifact was compiled for at most %u sequences",
                          (unsigned long long)x->batch, p->seqs_max);
    if (!ids_read(a, x->ids_path, p->vocab_rows, p->context, ids, d)) return false;
    ExecOptions options = run_exec_options(o, &x->run, (uint32_t)x->batch);
    Exec *exec = opened_exec(o, &options, &e);
    bool ok = exec && write_logits(x, exec, ids, a, &e);
    exec_close(exec);
    return ok || diag_err(d, SPAN_NONE, &e);
}

int verb_logits(int argc, char **argv) {
    Arena arena = {0};
    Diags d = {.arena = &arena};
    Args x = {0};
    Opened o;
    Err e;
    if (parse_args(&x, argc, argv, &arena, &d) && !x.cli.help) {
        if (!opened_open(&o, x.cli.args[0], ARTIFACT_ALL, x.run.threads, &e)) {
            diag_err(&d, SPAN_NONE, &e);
        } else {
            run(&x, &o, &arena, &d);
            opened_close(&o);
        }
    }
    diags_print(&d, "adallm-rt", stderr);
    int code = diags_exit_code(&d);
    arena_free(&arena);
    return code;
}
