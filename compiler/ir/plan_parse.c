// Text to plan, statement by statement; the first error ends it. What it reads may still be nonsense:
// plan_verify says so.
#include "compiler/ir/plan_text.h"
#include "compiler/ir/template.h"
#include "compiler/ir/text.h"
#include "runtime/base/num.h"

enum { COUNT_LIMIT = 1 << 24, SPEC_LIMIT = 64 };

typedef struct {
    Lexer lex;
    Plan *p;
    uint32_t cap_buffers, cap_kernels, cap_launches, cap_programs, cap_weights, cap_chains, cap_rejected;
} Parser;

// A place for one more item in an array of the plan.
static void *more(Arena *a, void **items, uint32_t n, uint32_t *cap, size_t size) {
    if (n == *cap) {
        *cap = MAX(*cap * 2, 16u);
        void *bigger = arena_array(a, *cap, size);
        if (n) memcpy(bigger, *items, n * size);
        *items = bigger;
    }
    return (char *)*items + n * size;
}
#define MORE(ps, field)                                                                                      \
    more((ps)->lex.arena, (void **)&(ps)->p->field, (ps)->p->n_##field, &(ps)->cap_##field,                  \
         sizeof *(ps)->p->field)

static bool word(Lexer *l, const char *w) {
    if (!lex_is_word(l, w)) {
        char expected[64] = "`";
        strncat(expected, w, 40);
        strcat(expected, "`");
        return lex_error(l, expected);
    }
    lex_next(l);
    return true;
}

static bool number(Lexer *l, uint64_t *out) { return lex_u64(l, UINT64_MAX, out); }

static bool number32(Lexer *l, uint32_t *out) {
    uint64_t n;
    if (!lex_u64(l, UINT32_MAX, &n)) return false;
    *out = (uint32_t)n;
    return true;
}

static bool key64(Lexer *l, const char *key, uint64_t *out) { return word(l, key) && number(l, out); }
static bool key32(Lexer *l, const char *key, uint32_t *out) { return word(l, key) && number32(l, out); }

static bool name(Lexer *l, const char **out) {
    Str s;
    if (!lex_name(l, &s)) return false;
    *out = s.ptr;
    return true;
}

// One of the words of a table, as its index.
static bool one_of(Lexer *l, const char *const *names, uint32_t n, const char *what, uint32_t *out) {
    for (*out = 0; *out < n; ++*out)
        if (names[*out] && lex_is_word(l, names[*out])) {
            lex_next(l);
            return true;
        }
    return lex_error(l, what);
}

static bool parse_header(Parser *ps) {
    Lexer *l = &ps->lex;
    if (!word(l, "plan") || !name(l, &ps->p->target)) return false;
    for (size_t i = 0; i < n_plan_numbers; i++)
        if (!key32(l, plan_numbers[i].key, (uint32_t *)((char *)ps->p + plan_numbers[i].offset)))
            return false;
    return key64(l, "scratch", &ps->p->scratch_bytes);
}

static bool parse_kv(Parser *ps) {
    Lexer *l = &ps->lex;
    if (ps->p->n_kv_groups == ADA_KV_GROUPS_MAX) return lex_error(l, "at most four `kv` lines");
    AdaKvGroup *g = &ps->p->kv[ps->p->n_kv_groups++];
    lex_next(l);
    return key32(l, "window", &g->window) && key32(l, "pages_per_seq", &g->pages_per_seq) &&
           key64(l, "page_bytes", &g->page_bytes) && key32(l, "layers", &g->n_layers);
}

// "@3" or "%3" where 3 is the next number.
static bool own_number(Lexer *l, char mark, uint32_t expected) {
    uint32_t n;
    Span at = lex_span(l);
    if (!lex_expect(l, mark) || !number32(l, &n)) return false;
    if (n == expected) return true;
    return diag_error(l->d, E_IR_SYNTAX, at, "%c%u stands where %c%u should", mark, n, mark, expected);
}

static bool parse_weight(Parser *ps) {
    Lexer *l = &ps->lex;
    PlanWeight w = {0};
    uint32_t kind, layout;
    lex_next(l);
    if (!own_number(l, '@', ps->p->n_weights) || !name(l, &w.name) ||
        !one_of(l, plan_weight_kind_names, PLAN_WEIGHT_KINDS, "`values`, `row_scales` or `bound`", &kind) ||
        !one_of(l, plan_layout_names, ADA_LAYOUT_LAYOUTS, "a layout", &layout) || !lex_expect(l, '[') ||
        !number(l, &w.stack) || !lex_expect(l, ',') || !number(l, &w.rows) || !lex_expect(l, ',') ||
        !number(l, &w.cols) || !lex_expect(l, ']') || !key64(l, "bytes", &w.bytes) ||
        !key32(l, "of", &w.weight))
        return false;
    w.kind = (PlanWeightKind)kind, w.layout = (AdaLayout)layout;
    w.same_on_all_ranks = lex_is_word(l, "same");
    if (w.same_on_all_ranks) lex_next(l);
    *(PlanWeight *)MORE(ps, weights) = w;
    ps->p->n_weights++;
    return true;
}

static bool parse_field(Lexer *l, SpecField *f) {
    double real;
    if (!name(l, &f->key) || !lex_expect(l, '=')) return false;
    if (l->tok.kind == TOK_WORD && str_to_u64(l->tok.s, &f->u)) {
        f->kind = 'u';
    } else if (l->tok.kind == TOK_WORD && str_to_double(l->tok.s, &real)) {
        f->kind = 'f', f->f = real;
    } else {
        f->kind = 'n';
        return name(l, &f->n);
    }
    lex_next(l);
    return true;
}

// A float that is whole prints like an unsigned number: the template knows which it is.
static void fix_kinds(PlanKernel *k) {
    Template t;
    if (!template_find(k->template_, &t)) return;
    for (uint32_t i = 0; i < k->n_spec && i < t.n_fields + t.n_schedule; i++)
        if (t.fields[i].kind == 'f' && k->spec[i].kind == 'u')
            k->spec[i].kind = 'f', k->spec[i].f = (double)k->spec[i].u, k->spec[i].u = 0;
}

static bool find_kernel(Parser *ps, uint32_t *out) {
    Lexer *l = &ps->lex;
    Span at = lex_span(l);
    const char *called;
    if (!name(l, &called)) return false;
    for (*out = 0; *out < ps->p->n_kernels; ++*out)
        if (!strcmp(ps->p->kernels[*out].name, called)) return true;
    return diag_error(l->d, E_IR_INVALID, at, "no kernel is called `%s`", called);
}

// "of" and the kernels of a chain, which stand before it.
static bool parse_parts(Parser *ps, PlanKernel *k) {
    Lexer *l = &ps->lex;
    PlanKernel *parts = ARENA_ARRAY(l->arena, PlanKernel, ADA_CHAIN_LAUNCHES_MAX);
    if (!lex_is_word(l, "of")) return true;
    lex_next(l);
    while (l->tok.kind == TOK_WORD && !lex_is_word(l, "kernel") && !lex_is_word(l, "buffer")) {
        uint32_t i;
        if (k->n_parts == ADA_CHAIN_LAUNCHES_MAX) return lex_error(l, "`kernel` or `buffer`: too many parts");
        if (!find_kernel(ps, &i)) return false;
        parts[k->n_parts++] = ps->p->kernels[i];
    }
    k->parts = parts;
    return true;
}

static bool parse_kernel(Parser *ps) {
    Lexer *l = &ps->lex;
    PlanKernel k = {0};
    SpecField fields[SPEC_LIMIT] = {0};
    lex_next(l);
    if (!name(l, &k.name) || !lex_expect(l, '=') || !name(l, &k.template_) || !lex_expect(l, '{'))
        return false;
    while (!lex_is(l, '}')) {
        if (k.n_spec == SPEC_LIMIT) return lex_error(l, "`}`: too many fields");
        if (!parse_field(l, &fields[k.n_spec++])) return false;
        if (!lex_take(l, ',') && !lex_is(l, '}')) return lex_error(l, "`,` or `}`");
    }
    lex_next(l);
    if (!key32(l, "threads", &k.threads) || !key64(l, "shared", &k.shared_bytes) || !parse_parts(ps, &k))
        return false;
    k.spec = ARENA_ARRAY(l->arena, SpecField, k.n_spec);
    memcpy(k.spec, fields, k.n_spec * sizeof *fields);
    fix_kinds(&k);
    *(PlanKernel *)MORE(ps, kernels) = k;
    ps->p->n_kernels++;
    return true;
}

static bool parse_buffer(Parser *ps) {
    Lexer *l = &ps->lex;
    PlanBuffer b = {.program = UINT32_MAX};
    uint32_t space, role;
    lex_next(l);
    if (!own_number(l, '%', ps->p->n_buffers) || !name(l, &b.name) ||
        !one_of(l, plan_space_names, ADA_SPACE_SPACES, "`scratch`, `state`, `kv` or `host`", &space) ||
        !one_of(l, plan_role_names, ADA_ROLE_ROLES, "a role", &role) || !number32(l, &b.index))
        return false;
    if (lex_is_word(l, "all"))
        lex_next(l);
    else if (!number32(l, &b.program))
        return false;
    b.space = (AdaSpace)space, b.role = (AdaRole)role;
    if (!key64(l, "at", &b.offset) || !key64(l, "bytes", &b.bytes) || !key32(l, "live", &b.first_launch) ||
        !number32(l, &b.last_launch))
        return false;
    *(PlanBuffer *)MORE(ps, buffers) = b;
    ps->p->n_buffers++;
    return true;
}

static bool parse_arg(Lexer *l, AdaArg *a) {
    *a = (AdaArg){0};
    if (lex_is_word(l, "_")) {
        lex_next(l);
        return true;
    }
    a->kind = lex_is(l, '%') ? ADA_ARG_BUFFER : ADA_ARG_WEIGHT;
    if (!lex_take(l, '%') && !lex_take(l, '@')) return lex_error(l, "`%BUFFER`, `@WEIGHT` or `_`");
    if (!number32(l, &a->index)) return false;
    return !lex_take(l, '[') || (number(l, &a->offset) && lex_expect(l, ']'));
}

static bool find_launched(Parser *ps, PlanLaunch *launch) {
    Lexer *l = &ps->lex;
    launch->kind = lex_is_word(l, "all_reduce")   ? ADA_LAUNCH_ALL_REDUCE
                   : lex_is_word(l, "all_gather") ? ADA_LAUNCH_ALL_GATHER
                                                  : ADA_LAUNCH_KERNEL;
    if (launch->kind == ADA_LAUNCH_KERNEL) return find_kernel(ps, &launch->kernel);
    lex_next(l);
    return true;
}

static bool parse_launch(Parser *ps) {
    Lexer *l = &ps->lex;
    PlanLaunch la = {0};
    lex_next(l);
    if (!find_launched(ps, &la) || !lex_expect(l, '(')) return false;
    while (!lex_is(l, ')')) {
        if (la.n_args == COUNT_OF(la.args)) return lex_error(l, "`)`: too many arguments");
        if (!parse_arg(l, &la.args[la.n_args++])) return false;
        if (!lex_take(l, ',') && !lex_is(l, ')')) return lex_error(l, "`,` or `)`");
    }
    lex_next(l);
    bool kernel = la.kind == ADA_LAUNCH_KERNEL;
    if (kernel ? !key32(l, "grid", &la.grid) : !key32(l, "rows", &la.rows) || !key32(l, "cols", &la.cols))
        return false;
    if (!key32(l, "count", &la.count) || !key64(l, "read", &la.bytes_read) ||
        !key64(l, "written", &la.bytes_written) || !key64(l, "flops", &la.flops) || !word(l, "us") ||
        !lex_real(l, &la.predicted_us))
        return false;
    la.origin = lex_place(l).ptr;
    *(PlanLaunch *)MORE(ps, launches) = la;
    ps->p->n_launches++;
    ps->p->programs[ps->p->n_programs - 1].n_launches++;
    return true;
}

static bool parse_program(Parser *ps) {
    Lexer *l = &ps->lex;
    uint32_t kind;
    PlanProgram g = {.first_launch = ps->p->n_launches};
    lex_next(l);
    if (!one_of(l, plan_program_names, ADA_PROGRAM_KINDS, "`body`, `head`, `sample` or `advance`", &kind) ||
        !number32(l, &g.bucket))
        return false;
    g.kind = (AdaProgramKind)kind;
    *(PlanProgram *)MORE(ps, programs) = g;
    ps->p->n_programs++;
    return true;
}

static bool parse_chain(Parser *ps) {
    Lexer *l = &ps->lex;
    PlanChain c = {0};
    lex_next(l);
    if (!find_kernel(ps, &c.kernel) || !key32(l, "first", &c.first_launch) ||
        !key32(l, "launches", &c.n_launches) || !key32(l, "grid", &c.grid))
        return false;
    c.together = lex_is_word(l, "together");
    if (c.together) lex_next(l);
    if (!word(l, "us") || !lex_real(l, &c.predicted_us)) return false;
    *(PlanChain *)MORE(ps, chains) = c;
    ps->p->n_chains++;
    return true;
}

static bool parse_rejected(Parser *ps) {
    PlanRejected r;
    lex_next(&ps->lex);
    if (!name(&ps->lex, &r.what) || !name(&ps->lex, &r.reason)) return false;
    *(PlanRejected *)MORE(ps, rejected) = r;
    ps->p->n_rejected++;
    return true;
}

static bool parse_statement(Parser *ps) {
    Lexer *l = &ps->lex;
    const Plan *p = ps->p;
    uint32_t largest = MAX(MAX(p->n_buffers, p->n_kernels), MAX(p->n_launches, p->n_weights));
    if (MAX(largest, MAX(p->n_chains, MAX(p->n_programs, p->n_rejected))) >= COUNT_LIMIT)
        return lex_error(l, "the end: too many rows");
    if (lex_is_word(l, "kv")) return parse_kv(ps);
    if (lex_is_word(l, "weight")) return parse_weight(ps);
    if (lex_is_word(l, "kernel")) return parse_kernel(ps);
    if (lex_is_word(l, "buffer")) return parse_buffer(ps);
    if (lex_is_word(l, "program")) return parse_program(ps);
    if (lex_is_word(l, "launch") && p->n_programs) return parse_launch(ps);
    if (lex_is_word(l, "chain")) return parse_chain(ps);
    if (lex_is_word(l, "rejected")) return parse_rejected(ps);
    return lex_error(l, "`kv`, `weight`, `kernel`, `buffer`, `program`, `launch`, `chain` or `rejected`");
}

Plan *plan_parse(Arena *a, const Source *src, Diags *d) {
    Parser ps = {.lex = lex_open(a, src, d), .p = ARENA_NEW(a, Plan)};
    ps.p->arena = a;
    if (!parse_header(&ps)) return NULL;
    while (ps.lex.tok.kind != TOK_END)
        if (!parse_statement(&ps)) return NULL;
    return ps.p;
}
