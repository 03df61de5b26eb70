// adallmc eval: logits of the graph itself, in fp32, before any pass.
#include <math.h>
#include <stdlib.h>

#include "compiler/frontend/model.h"
#include "compiler/ir/eval.h"
#include "compiler/verbs/verbs.h"
#include "runtime/base/ids.h"
#include "runtime/base/log.h"
#include "runtime/base/npy.h"
#include "runtime/base/num.h"

typedef struct {
    const char *model, *ids, *out;
    OptList sets;
    bool random_weights, kv_fp8;
    CliResult cli;
} Args;

static bool parse_args(Args *x, int argc, char **argv, Arena *a, Diags *d) {
    *x = (Args){0};
    const Option options[] = {
        {"--ids", OPT_STRING, "FILE", 0, 0, &x->ids, NULL,
         "token ids: one sequence a line, separated by spaces or commas"},
        {"-o", OPT_STRING, "OUT.npy", 0, 0, &x->out, NULL,
         "the logits, float32 [total tokens, vocab], sequence after sequence"},
        {"--set", OPT_LIST, "KEY=VALUE", 0, 0, &x->sets, NULL,
         "override a field of the recipe (adallmc compile --help lists them)"},
        {"--random-weights", OPT_FLAG, NULL, 0, 0, &x->random_weights, NULL,
         "seeded weights of the right shapes instead of the checkpoint's"},
        {"--kv-fp8", OPT_FLAG, NULL, 0, 0, &x->kv_fp8, NULL,
         "keys and values pass through the FP8 cache's format: the truth of compiled plans"},
    };
    const Command cmd = {
        "adallmc eval MODEL --ids FILE -o OUT.npy [options]",
        "Evaluates the model's graph in fp32, one plain function an op, before any pass: the truth that "
        "compiled plans are compared with. MODEL is a recipe or a checkpoint folder. Logits are written "
        "after "
        "every position.",
        options,
        COUNT_OF(options),
        1,
        1,
    };
    if (!cli_parse(&cmd, argc, argv, a, &x->cli, d)) return false;
    if (x->cli.help) return true;
    x->model = x->cli.args[0];
    if (!x->ids) diag_error(d, E_USAGE, SPAN_NONE, "adallmc eval needs --ids FILE");
    if (!x->out) diag_error(d, E_USAGE, SPAN_NONE, "adallmc eval needs -o OUT.npy");
    return x->ids && x->out;
}

static bool all_finite(const float *x, uint64_t n, uint64_t vocab, Err *e) {
    for (uint64_t i = 0; i < n * vocab; i++)
        if (!isfinite(x[i]))
            return err_set(e, E_NUMERIC, "logit %llu after position %llu is %s",
                           (unsigned long long)(i % vocab), (unsigned long long)(i / vocab),
                           isnan(x[i]) ? "NaN" : "infinite");
    return true;
}

static bool eval_sequence(const Model *m, const IdSequence *s, EvalKv kv, uint64_t vocab, Pool *pool,
                          NpyWriter *w, Err *e) {
    uint64_t count;
    float *logits = u64_mul(s->n, vocab, &count) && count <= SIZE_MAX / 4 ? malloc(count * 4) : NULL;
    if (!logits)
        return err_set(e, E_MEMORY, "the logits of %u tokens, %llu each, do not fit into memory", s->n,
                       (unsigned long long)vocab);
    bool ok = eval_graph(m->graph, m->source, pool, s->ids, s->n, kv, logits, e) &&
              all_finite(logits, s->n, vocab, e) && npy_rows(w, logits, s->n, e);
    free(logits);
    return ok;
}

static bool eval_file(const Args *x, const Model *m, const IdsFile *f, Pool *pool, Diags *d) {
    uint64_t vocab = eval_vocab(m->graph);
    NpyWriter w;
    Err e = {0};
    if (!npy_open(&w, x->out, vocab, &e)) return diag_err(d, SPAN_NONE, &e);
    double start = clock_s();
    for (uint32_t i = 0; i < f->n_sequences; i++)
        if (!eval_sequence(m, &f->sequences[i], x->kv_fp8 ? EVAL_KV_E4M3 : EVAL_EXACT, vocab, pool, &w, &e)) {
            npy_abandon(&w);
            return diag_err(d, f->sequences[i].at, &e);
        }
    if (!npy_close(&w, &e)) return diag_err(d, SPAN_NONE, &e);
    fprintf(stderr, "%s: %llu tokens of %u sequences, %.1f s\n", x->out, (unsigned long long)f->n_total,
            f->n_sequences, clock_s() - start);
    return true;
}

static void eval_model(const Args *x, Arena *a, Diags *d) {
    Model *m = ARENA_NEW(a, Model);
    IdsFile *ids = ARENA_NEW(a, IdsFile);
    if (model_open(a, x->model, &x->sets, (ModelOptions){.random_weights = x->random_weights}, m, d) &&
        ids_read(a, x->ids, m->vocab_rows, (uint64_t)m->recipe.context, ids, d)) {
        Pool *pool = pool_new(0);
        for (uint32_t i = 0; i < m->n_notes; i++) fprintf(stderr, "%s\n", m->notes[i]);
        eval_file(x, m, ids, pool, d);
        pool_free(pool);
    }
    diags_print(d, "adallmc", stderr); // spans point into the model
    model_close(m);
}

int verb_eval(int argc, char **argv) {
    Arena arena = {0};
    Diags diags = {.arena = &arena};
    Args args;
    if (parse_args(&args, argc, argv, &arena, &diags) && !args.cli.help)
        eval_model(&args, &arena, &diags);
    else
        diags_print(&diags, "adallmc", stderr);
    int code = diags_exit_code(&diags);
    arena_free(&arena);
    return code;
}
