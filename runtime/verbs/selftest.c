// adallm-rt selftest: the golden prompt of the artifact, computed here, against what its compiler's fp32
// evaluator says.
#include <math.h>
#include <stdio.h>

#include "runtime/base/cli.h"
#include "runtime/base/log.h"
#include "runtime/base/num.h"
#include "runtime/engine/score.h"
#include "runtime/verbs/open.h"
#include "runtime/verbs/verbs.h"

typedef struct {
    const Selftest *t;
    uint32_t vocab_rows;
    double error, norm; // sums of squares
} Measure;

static bool measure(void *ctx, uint32_t seq, uint32_t first, uint32_t n, const float *rows, Err *e) {
    Measure *m = ctx;
    (void)seq, (void)e;
    for (uint32_t i = 0; i < n; i++)
        for (uint32_t c = 0; c < m->t->n_columns; c++) {
            double want = m->t->logits[(size_t)(first + i) * m->t->n_columns + c];
            double got = rows[(size_t)i * m->vocab_rows + (uint32_t)m->t->columns[c]];
            m->error += (got - want) * (got - want), m->norm += want * want;
        }
    return true;
}

static bool selftest(Opened *o, const RunOptions *r, Err *e) {
    Selftest t;
    if (!artifact_selftest(&o->artifact, &t)) return err_set(e, E_SELFTEST, "this artifact has no self-test");
    ExecOptions options = run_exec_options(o, r, 1);
    Exec *x = opened_exec(o, &options, e);
    if (!x) return false;
    Measure m = {.t = &t, .vocab_rows = o->artifact.plan->vocab_rows};
    ScoreSeq seq = {t.ids, t.n_ids};
    double begin = clock_s();
    bool ok = score_run(x, &seq, 1, 1, 0, measure, &m, e);
    double seconds = clock_s() - begin, error = sqrt(m.error / MAX(m.norm, 1e-300));
    exec_close(x);
    if (!ok) return false;
    if (!(error <= (double)t.tolerance))
        return err_set(e, E_SELFTEST,
                       "relative error %.4g over %u positions and %u columns; at most %.4g is allowed", error,
                       t.n_ids, t.n_columns, (double)t.tolerance);
    printf("relative error %.4g over %u positions and %u columns, at most %.4g allowed; %.2f s\n", error,
           t.n_ids, t.n_columns, (double)t.tolerance, seconds);
    return true;
}

static bool run(Opened *o, void *options, Arena *a, Diags *d) {
    (void)a;
    Err e;
    return selftest(o, options, &e) || diag_err(d, SPAN_NONE, &e);
}

int verb_selftest(int argc, char **argv) {
    RunOptions r = {0};
    const Option options[] = {RUN_OPTION_ROWS(&r)};
    const Command cmd = {
        "adallm-rt selftest X.ada [options]",
        "Runs the prompt that the artifact carries and compares the logits with those of the compiler's "
        "evaluator. "
        "Exit code 1 when they differ by more than the tolerance that stands in the artifact.",
        options,
        COUNT_OF(options),
        1,
        1};
    return verb_on_artifact(&cmd, argc, argv, ARTIFACT_ALL, &r.threads, run, &r);
}
