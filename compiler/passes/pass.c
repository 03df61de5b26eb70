#include "compiler/passes/pass.h"

#include "runtime/base/file.h"
#include "runtime/base/num.h"

typedef struct {
    const char *name;
    Graph *(*graph)(Graph *, const PassContext *, Diags *);
    bool (*plan)(Plan *, const PassContext *, Diags *);
} Pass;

static const Pass passes[] = {
#define PASS_GRAPH(name)  {#name, pass_##name, NULL},
#define PASS_PLAN(name)   {#name, NULL, pass_##name},
#define PASS(name, level) PASS_##level(name)
#include "compiler/passes/passes.def"
#undef PASS
#undef PASS_GRAPH
#undef PASS_PLAN
};

static bool check_dump_name(const PassContext *c, Diags *d) {
    const char *names[COUNT_OF(passes) + 1] = {"all"};
    if (!c->dump_after) return true;
    for (size_t i = 0; i <= COUNT_OF(passes); i++) {
        if (i) names[i] = passes[i - 1].name;
        if (!strcmp(c->dump_after, names[i])) return true;
    }
    diag_error(d, E_OPTION_VALUE, SPAN_NONE, "--dump-after: no pass is called `%s`", c->dump_after);
    diag_did_you_mean(d, str_of(c->dump_after), names, COUNT_OF(names));
    return false;
}

// DIR/3_fuse.ir, or stdout with a comment that names the pass.
static bool dump(size_t index, const StrBuf *text, const PassContext *c, Diags *d) {
    const char *name = passes[index].name;
    Err e = {0};
    if (!c->dump_dir) {
        printf("# after %s\n" STR_FMT, name, STR_ARG(buf_view(text)));
        return true;
    }
    const char *path = path_join(c->arena, c->dump_dir, arena_printf(c->arena, "%zu_%s.ir", index + 1, name));
    OutFile *f = out_open(path, &e);
    if (!f) return diag_err(d, SPAN_NONE, &e);
    if (!out_write(f, text->ptr, text->len, &e)) {
        out_abandon(f);
        return diag_err(d, SPAN_NONE, &e);
    }
    return out_commit(f, &e) || diag_err(d, SPAN_NONE, &e);
}

// What a pass made must survive its own text form. `g` or `p` is given.
static bool check_ir(const char *pass, const Graph *g, const Plan *p, const StrBuf *text, Diags *d) {
    Arena a = {0};
    Source src = {arena_printf(d->arena, "(after %s)", pass), buf_view(text)};
    StrBuf again = {0};
    Diags own = {.arena = &a};
    bool ok = g ? graph_verify(g, &own) : true;
    const Graph *g2 = g && ok ? graph_parse(&a, &src, &own) : NULL;
    const Plan *p2 = p ? plan_parse(&a, &src, &own) : NULL;
    if (g2) graph_print(g2, &again);
    if (p2) plan_print(p2, &again);
    ok = ok && (g2 || p2) && str_eq(buf_view(&again), buf_view(text));
    if (!ok) {
        const char *why = diags_first_message(&own);
        diag_error(d, E_IR_INVALID, SPAN_NONE, "pass %s: %s", pass,
                   why ? why : "the text form does not read back");
    }
    buf_free(&again);
    arena_free(&a);
    return ok;
}

// Plans print whole only after the last pass; before, their text is not parsed.
static bool finish_pass(size_t index, const Graph *g, const Plan *p, const PassContext *c, Diags *d) {
    const char *name = passes[index].name;
    bool dumped = c->dump_after && (!strcmp(c->dump_after, name) || !strcmp(c->dump_after, "all"));
    bool checked = false, ok = true;
#ifdef ADALLM_DEBUG
    checked = g || index + 1 == COUNT_OF(passes);
#endif
    if (!dumped && !checked) return true;
    StrBuf text = {0};
    if (g)
        graph_print(g, &text);
    else
        plan_print(p, &text);
    if (dumped) ok = dump(index, &text, c, d);
    if (checked) ok = check_ir(name, g, p, &text, d) && ok;
    buf_free(&text);
    return ok;
}

Graph *passes_run_graph(Graph *g, const PassContext *c, Diags *d) {
    if (!check_dump_name(c, d)) return NULL;
    for (size_t i = 0; i < COUNT_OF(passes) && g; i++) {
        if (!passes[i].graph) continue;
        g = passes[i].graph(g, c, d);
        if (g && !finish_pass(i, g, NULL, c, d)) return NULL;
    }
    return g;
}

Plan *passes_run_plan(Graph *g, const PassContext *c, Diags *d) {
    if (!check_dump_name(c, d)) return NULL;
    Plan *p = ARENA_NEW(c->arena, Plan);
    *p = (Plan){.arena = c->arena, .graph = g};
    for (size_t i = 0; i < COUNT_OF(passes); i++) {
        if (!passes[i].plan) continue;
        if (!passes[i].plan(p, c, d) || !finish_pass(i, NULL, p, c, d)) return NULL;
    }
    return plan_verify(p, d) ? p : NULL;
}
