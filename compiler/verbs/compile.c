// adallmc compile: MODEL -> Graph -> Plan -> code -> one artifact.
#include <unistd.h>

#include "compiler/codegen/explain.h"
#include "compiler/frontend/jinja.h"
#include "compiler/frontend/model.h"
#include "compiler/frontend/tokenizer_pack.h"
#include "compiler/pack/pack.h"
#include "compiler/passes/pass.h"
#include "compiler/targets/target.h"
#include "compiler/verbs/compile_facts.h"
#include "compiler/verbs/compile_head.h"
#include "compiler/verbs/verbs.h"
#include "runtime/base/file.h"
#include "runtime/base/log.h"
#include "runtime/base/num.h"

typedef struct {
    const char *model_path, *out_path, *target, *emit_dir, *dump_after;
    OptList sets;
    bool random_weights, explain, no_cache, quiet;
} Options;

typedef struct {
    Arena *arena;
    Diags *diags;
    Options opt;
    Model model;
    const Target *target;
    PassContext passes;
    Plan *plan;
    Graph *graph; // after the graph passes
    CodeImages code;
    PlanRefusals refusals;
    StrBuf tokenizer, chat, explain;
    bool has_chat;
    PackSelftest selftest;
    Pool *pool;
    double began_s;
} Compile;

static void say(const Compile *c, const char *stage, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
static void say(const Compile *c, const char *stage, const char *fmt, ...) {
    if (c->opt.quiet) return;
    va_list ap;
    va_start(ap, fmt);
    fprintf(stderr, "%6.2f s  %-9s ", clock_s() - c->began_s, stage);
    vfprintf(stderr, fmt, ap);
    fputc('\n', stderr);
    va_end(ap);
}

static bool open_model(Compile *c) {
    if (c->opt.target) { // --target is --set target= by another name
        const char **sets = ARENA_ARRAY(c->arena, const char *, c->opt.sets.n + 1);
        for (size_t i = 0; i < c->opt.sets.n; i++) sets[i] = c->opt.sets.items[i];
        sets[c->opt.sets.n] = arena_printf(c->arena, "target=%s", c->opt.target);
        c->opt.sets = (OptList){sets, c->opt.sets.n + 1};
    }
    ModelOptions options = {.random_weights = c->opt.random_weights};
    if (!model_open(c->arena, c->opt.model_path, &c->opt.sets, options, &c->model, c->diags)) return false;
    for (uint32_t i = 0; i < c->model.n_notes; i++) say(c, "note", "%s", c->model.notes[i]);
    say(c, "model", "%s, %u ops, %u weights", c->model.name, c->model.graph->n_nodes,
        c->model.graph->n_weights);
    return true;
}

static bool make_graph(Compile *c) {
    Recipe *r = &c->model.recipe;
    c->target = target_find(str_of(r->target), r->at[RECIPE_target], c->diags);
    if (!c->target) return false;
    if (!r->at[RECIPE_batch].src) {
        r->batch.n = c->target->n_batch;
        memcpy(r->batch.items, c->target->batch, r->batch.n * sizeof *r->batch.items);
    }
    if (!r->at[RECIPE_chunk].src) r->chunk = c->target->chunk;
    c->passes = (PassContext){
        .arena = c->arena,
        .target = c->target,
        .n_ranks = (uint32_t)r->tensor_parallel,
        .context = (uint32_t)r->context,
        .buckets = r->batch.items,
        .n_buckets = r->batch.n,
        .prefill_tokens = (uint32_t)r->chunk,
        .vocab = c->tokenizer.len ? MIN(tokenizer_pack_ids(buf_view(&c->tokenizer)), c->model.vocab_rows) : 0,
        .refusals = &c->refusals,
        .dump_after = c->opt.dump_after,
        .dump_dir = c->opt.emit_dir};
    c->graph = passes_run_graph(c->model.graph, &c->passes, c->diags);
    return c->graph;
}

static bool make_plan(Compile *c) {
    c->plan = passes_run_plan(c->graph, &c->passes, c->diags);
    if (!c->plan || !plan_verify(c->plan, c->diags)) return false;
    say(c, "plan", "target %s, %u ranks, %u programs, %u launches, %u kernels", c->target->name,
        c->plan->n_ranks, c->plan->n_programs, c->plan->n_launches, c->plan->n_kernels);
    return true;
}

// Plan and code. A kernel that spills registers to memory is not taken: the plan is made again without it.
static bool make_code(Compile *c) {
    EmitOptions options = {.dir = c->opt.emit_dir, .no_cache = c->opt.no_cache, .refusals = &c->refusals};
    for (uint32_t refused = 0;; refused = c->refusals.n) {
        if (!make_plan(c) || !c->target->emit(c->target, c->arena, c->plan, &options, &c->code, c->diags))
            return false;
        if (c->refusals.n == refused) break;
        say(c, "code", "%u kernels spill registers: others are planned for them", c->refusals.n - refused);
        options.no_cache = false; // what was compiled just now is good enough
    }
    explain_json(c->plan, c->target, c->code.facts, &c->explain);
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < c->code.n; i++) bytes += c->code.image[i].bytes;
    if (c->code.facts)
        say(c, "code", "%.1f KiB, %u kernels compiled, %u from the cache", (double)bytes / 1024,
            c->code.n_compiled, c->code.n_cached);
    else
        say(c, "code", "%u images, %.1f KiB", c->code.n, (double)bytes / 1024);
    return true;
}

// A template that is broken or not supported stops the compilation; `chat: none` compiles without it.
static bool make_text(Compile *c) {
    const char *dir = c->model.tokenizer_dir;
    if (!dir && !c->opt.random_weights)
        return diag_error(c->diags, E_FILE, SPAN_NONE,
                          "%s has no tokenizer.json; `--set tokenizer=DIR` names another folder",
                          c->model.dir);
    if (!dir) {
        say(c, "text", "no tokenizer.json: the artifact takes ids only");
        return true;
    }
    if (!tokenizer_pack(c->arena, dir, c->model.vocab_rows, &c->tokenizer, c->diags)) return false;
    bool wanted = strcmp(c->model.recipe.chat, "none") != 0;
    if (wanted && !chat_pack(c->arena, dir, &c->chat, &c->has_chat, c->diags)) {
        diag_hint(c->diags, "`--set chat=none` compiles the model without its chat template");
        return false;
    }
    say(c, "text", "tokenizer %.1f MiB, %s", (double)c->tokenizer.len / (1 << 20),
        c->has_chat ? "chat template" : "no chat template");
    return true;
}

static bool make_selftest(Compile *c) {
    if (!facts_selftest(c->arena, &c->model, c->pool, &c->selftest, c->diags)) return false;
    say(c, "selftest", "%u ids, %u columns from the fp32 evaluator", c->selftest.n_ids,
        c->selftest.n_columns);
    return true;
}

static uint64_t head_bytes(const Compile *c) {
    for (uint32_t i = 0; i < c->plan->n_weights; i++)
        if (c->plan->weights[i].kind == PLAN_WEIGHT_VALUES &&
            !strcmp(c->plan->weights[i].name, "lm_head.weight"))
            return c->plan->weights[i].bytes;
    return 0;
}

static bool make_head(Compile *c, PackHead *out) {
    if (!head_measure(c->arena, &c->model, c->passes.vocab, c->pool, out, c->diags)) return false;
    if (!out->positions) return true;
    say(c, "head", "%s, %.1f MB%s%s", out->format, (double)head_bytes(c) / 1e6,
        c->plan->n_ranks > 1 ? " a rank" : "",
        out->tied ? ", beside the embedding table, which stays as it is: the two are no longer shared" : "");
    say(c, "head",
        "KL divergence from the head as stored: mean %.4g, max %.4g nats; %u of %u positions keep "
        "their most probable id (fp32 evaluator, pseudo-random ids%s)",
        out->kl_mean, out->kl_max, out->same_first, out->positions,
        c->opt.random_weights ? ", random weights" : "");
    return true;
}

static bool make_artifact(Compile *c) {
    PackCode code[COUNT_OF(c->code.image)];
    for (uint32_t i = 0; i < c->code.n; i++)
        code[i] = (PackCode){c->code.image[i].kind, c->code.image[i].data, c->code.image[i].bytes};
    PackInput in = {.plan = c->plan,
                    .weights = c->model.source,
                    .code = code,
                    .n_code = c->code.n,
                    .tokenizer = buf_view(&c->tokenizer),
                    .chat = buf_view(&c->chat),
                    .explain = buf_view(&c->explain),
                    .selftest = c->selftest,
                    .pool = c->pool};
    if (!facts_fill(c->arena, &c->model, c->has_chat, c->pool, &in.facts, c->diags)) return false;
    in.facts.sm = c->target->sm;
    if (!make_head(c, &in.facts.head)) return false;
    if (in.facts.quantize_error.weights)
        say(c, "quantize", "%s; relative error of the weights: max %.4f, mse %.4f", in.facts.quantize,
            in.facts.quantize_error.rel_max, in.facts.quantize_error.rel_mse);
    PackReport report;
    if (!pack_artifact(&in, c->opt.out_path, &report, c->diags)) return false;
    say(c, "pack", "%s: %.1f MB, weights %.1f MB at %.0f MB/s", c->opt.out_path,
        (double)report.file_bytes / 1e6, (double)report.weight_bytes / 1e6,
        (double)report.weight_bytes / 1e6 / MAX(report.weight_seconds, 1e-9));
    return true;
}

static bool compile_run(Compile *c) {
    Err e;
    if (!out_check(c->opt.out_path, &e)) return diag_err(c->diags, SPAN_NONE, &e);
    if (!open_model(c) || !make_text(c) || !make_graph(c)) return false;
    bool ok = make_code(c);
    if (c->opt.explain && c->plan) { // a plan whose code fails is explained all the more
        StrBuf text = {0};
        explain_text(c->plan, c->target, c->code.facts, &text);
        fwrite(text.ptr, 1, text.len, stdout);
        buf_free(&text);
    }
    return ok && make_selftest(c) && make_artifact(c);
}

static const char *about(Arena *a) {
    StrBuf fields = {0}, targets = {0};
    const Target *t;
    recipe_help(&fields);
    for (uint32_t i = 0; (t = target_at(i)); i++) buf_printf(&targets, "  %-12s %s\n", t->name, t->about);
    const char *text = arena_printf(
        a,
        "Compiles MODEL, a recipe (*.yaml) or a checkpoint folder, into one artifact that adallm-rt runs. "
        "The checkpoint's\n"
        "NVFP4 weights stay NVFP4; bf16 and fp16 linears are quantised to NVFP4 on the way unless the recipe "
        "says otherwise.\n"
        "Nothing is written unless everything succeeded. Targets that are cards need nvcc, no card.\n\n"
        "  adallmc compile models/qwen3-8b.yaml -o qwen3.ada\n"
        "  adallmc compile ./Qwen3-8B-NVFP4 -o qwen3.ada --set tensor_parallel=2 --set context=8192\n"
        "  adallmc compile models/qwen3-8b.yaml -o random.ada --target rtx4090 --random-weights\n\n"
        "targets:\n" STR_FMT "\n"
        "recipe fields, each with --set key=value:\n" STR_FMT,
        STR_ARG(buf_view(&targets)), STR_ARG(buf_view(&fields)));
    buf_free(&fields), buf_free(&targets);
    return text;
}

int verb_compile(int argc, char **argv) {
    Arena arena = {0};
    Diags diags = {.arena = &arena};
    Compile c = {.arena = &arena, .diags = &diags, .began_s = clock_s()};
    const Option options[] = {
        {"-o", OPT_STRING, "OUT.ada", 0, 0, &c.opt.out_path, NULL, "the artifact to write (required)"},
        {"--target", OPT_STRING, "NAME", 0, 0, &c.opt.target, NULL,
         "machine to compile for; same as --set target=NAME"},
        {"--set", OPT_LIST, "KEY=VALUE", 0, 0, &c.opt.sets, NULL,
         "override a field of the recipe; repeatable"},
        {"--random-weights", OPT_FLAG, NULL, 0, 0, &c.opt.random_weights, NULL,
         "seeded weights of the right shapes; needs no tensors"},
        {"--explain", OPT_FLAG, NULL, 0, 0, &c.opt.explain, NULL,
         "print kernels chosen and rejected, launches and memory to stdout"},
        {"--emit", OPT_STRING, "DIR", 0, 0, &c.opt.emit_dir, NULL,
         "keep generated code, plan and IR dumps in this folder"},
        {"--no-cache", OPT_FLAG, NULL, 0, 0, &c.opt.no_cache, NULL,
         "compile every kernel anew, even those in the cache of earlier ones"},
        {"--dump-after", OPT_STRING, "PASS", 0, 0, &c.opt.dump_after, NULL,
         "print the IR after this pass (`all`: every pass)"},
        {"--quiet", OPT_FLAG, NULL, 0, 0, &c.opt.quiet, NULL, "no progress lines"},
    };
    Command command = {
        "adallmc compile MODEL -o OUT.ada [options]", about(&arena), options, COUNT_OF(options), 1, 1};
    CliResult cli;
    bool ok = cli_parse(&command, argc, argv, &arena, &cli, &diags);
    if (ok && !cli.help && !c.opt.out_path)
        ok = diag_error(&diags, E_USAGE, SPAN_NONE, "-o OUT.ada is missing");
    if (ok && !cli.help) {
        c.opt.model_path = cli.args[0];
        c.pool = pool_new(0);
        ok = compile_run(&c);
        pool_free(c.pool);
    }
    diags_print(&diags, "adallmc", stderr); // before the files it quotes are unmapped
    model_close(&c.model);
    buf_free(&c.tokenizer), buf_free(&c.chat), buf_free(&c.explain);
    int code = ok ? 0 : diags_exit_code(&diags);
    arena_free(&arena);
    return code;
}
