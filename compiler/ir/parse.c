// Text to graph, statement by statement; the first error ends it.
#include "compiler/ir/op.h"
#include "compiler/ir/text.h"
#include "runtime/base/num.h"

enum { DIM_LIMIT = 1 << 30, RANKS_LIMIT = 1024 };

typedef struct {
    Lexer lex;
    Graph *g;
    uint32_t *numbers; // [n_values]: how the text numbers each value; ascending
    uint32_t cap_numbers;
} Parser;

// ---- types ---------------------------------------------------------------------------------------------

static bool parse_dim(Lexer *l, int64_t *out) {
    if (lex_is_word(l, "T") || lex_is_word(l, "R")) {
        *out = lex_is_word(l, "T") ? DIM_T : DIM_R;
        lex_next(l);
        return true;
    }
    uint64_t n;
    if (l->tok.kind == TOK_WORD && str_is(l->tok.s, "0")) return lex_error(l, "a positive dimension");
    if (!lex_u64(l, DIM_LIMIT, &n)) return false;
    *out = (int64_t)n;
    return true;
}

static bool parse_type(Lexer *l, Type *out) {
    const char *names[DT_COUNT];
    *out = (Type){.dtype = DT_COUNT};
    for (DType t = 0; t < DT_COUNT; t++) {
        names[t] = dtype_name(t);
        if (lex_is_word(l, names[t])) out->dtype = t;
    }
    if (out->dtype == DT_COUNT) {
        Str word = l->tok.s;
        lex_error(l, "a type");
        diag_did_you_mean(l->d, word, names, DT_COUNT);
        return false;
    }
    lex_next(l);
    if (!lex_expect(l, '[')) return false;
    do {
        if (out->rank == RANK_MAX) return lex_error(l, "`]` after four dimensions");
        if (!parse_dim(l, &out->dim[out->rank++])) return false;
    } while (lex_take(l, ','));
    return lex_expect(l, ']');
}

// ---- weights -------------------------------------------------------------------------------------------

static bool is_rule(const Lexer *l, ShardRule *rule, Str *units) {
    static const Str rules[] = {STR("whole"), STR("rows"), STR("cols")};
    if (l->tok.kind != TOK_WORD) return false;
    for (ShardRule r = SHARD_NONE; r <= SHARD_COLS; r++) {
        Str s = l->tok.s;
        if (!str_starts(s, rules[r])) continue;
        *rule = r;
        *units = str_from(s, rules[r].len);
        if (!units->len || (r == SHARD_ROWS && units->ptr[0] == '/' && units->len > 1)) return true;
    }
    return false;
}

// rows/4(name [256,256])
static bool parse_part(Lexer *l, WeightPart *out) {
    Str units;
    uint64_t n = 0;
    *out = (WeightPart){0};
    if (!is_rule(l, &out->rule, &units))
        return lex_error(l, "`whole(..)`, `rows(..)`, `rows/UNITS(..)` or `cols(..)`");
    if (units.len && (!str_to_u64(str_from(units, 1), &n) || !n || n > DIM_LIMIT))
        return lex_error(l, "`rows/UNITS` with a positive number of units");
    out->units = (uint32_t)n;
    lex_next(l);
    return lex_expect(l, '(') && lex_name(l, &out->tensor) && lex_expect(l, '[') &&
           lex_u64(l, (uint64_t)1 << 40, &out->rows) && lex_expect(l, ',') &&
           lex_u64(l, (uint64_t)1 << 40, &out->cols) && lex_expect(l, ']') && lex_expect(l, ')');
}

static bool parse_parts(Parser *p, Weight *w) {
    Lexer *l = &p->lex;
    ShardRule rule;
    Str units;
    uint32_t cap = 0;
    do {
        if (w->n_parts == cap) {
            WeightPart *bigger = ARENA_ARRAY(l->arena, WeightPart, cap = MAX(cap * 2, 4u));
            if (w->n_parts) memcpy(bigger, w->parts, w->n_parts * sizeof *bigger);
            w->parts = bigger;
        }
        if (!parse_part(l, &w->parts[w->n_parts])) return false;
        w->n_parts++;
    } while (is_rule(l, &rule, &units));
    return true;
}

static bool parse_values(Parser *p, Weight *w) {
    Lexer *l = &p->lex;
    uint64_t count, n = 0;
    double x;
    if (lex_is_word(l, "hidden")) {
        lex_next(l);
        return true;
    }
    if (w->type.dtype != DT_F32 || !type_count(w->type, 1, 1, &count) || count > CONSTANT_SHOWN_MAX)
        return lex_error(l, "`hidden` (only f32 constants of at most 64 values show them)");
    if (!lex_expect(l, '{')) return false;
    float *data = ARENA_ARRAY(l->arena, float, count);
    do {
        if (n == count) return lex_error(l, "`}` after as many values as the type has");
        if (!lex_real(l, &x)) return false;
        data[n++] = (float)x;
    } while (lex_take(l, ','));
    if (n != count) return lex_error(l, "as many values as the type has");
    w->data = data;
    return lex_expect(l, '}');
}

static bool parse_weight(Parser *p, bool constant) {
    Lexer *l = &p->lex;
    Weight w = {0};
    lex_next(l);
    if (!lex_expect(l, '@')) return false;
    Span at = lex_span(l);
    if (!lex_name(l, &w.name)) return false;
    if (graph_find_weight(p->g, w.name) != NO_ID)
        return diag_error(l->d, E_IR_INVALID, at, "two weights are called `" STR_FMT "`", STR_ARG(w.name));
    if (!lex_expect(l, ':') || !parse_type(l, &w.type) || !lex_expect(l, '=')) return false;
    if (!(constant ? parse_values(p, &w) : parse_parts(p, &w))) return false;
    if (lex_is_word(l, "add")) {
        double x;
        lex_next(l);
        if (!lex_real(l, &x)) return false;
        w.add = (float)x;
    }
    graph_add_weight(p->g, w);
    return true;
}

// ---- nodes ---------------------------------------------------------------------------------------------

// Value numbers ascend, so that a search finds them.
static bool find_value(const Parser *p, uint32_t number, ValueId *out) {
    uint32_t lo = 0, hi = p->g->n_values;
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        if (p->numbers[mid] < number)
            lo = mid + 1;
        else
            hi = mid;
    }
    *out = lo;
    return lo < p->g->n_values && p->numbers[lo] == number;
}

static bool parse_inputs(Parser *p, ValueId *inputs, uint32_t *n) {
    Lexer *l = &p->lex;
    uint64_t number;
    for (*n = 0; lex_is(l, '%'); (*n)++) {
        Span at = lex_span(l);
        if (*n == INPUTS_MAX) return lex_error(l, "no further input");
        lex_next(l);
        at.end = l->tok.end;
        if (!lex_u64(l, INT32_MAX, &number)) return false;
        if (!find_value(p, (uint32_t)number, &inputs[*n]))
            return diag_error(l->d, E_IR_INVALID, at, "%%%llu is not defined before its use here",
                              (unsigned long long)number);
        if (!lex_is(l, ',')) return ++*n, true;
        lex_next(l);
        if (!lex_is(l, '%')) return lex_error(l, "another input");
    }
    return true;
}

static bool find_attr(Op op, Str word, Str *key, AttrKind *kind) {
    const char *cursor = op_info(op)->attrs;
    while (op_next_attr(&cursor, key, kind))
        if (str_eq(*key, word)) return true;
    return false;
}

static bool unknown_attr(Lexer *l, Op op) {
    const char *cursor = op_info(op)->attrs, *names[ATTRS_MAX];
    Str key;
    AttrKind kind;
    size_t n = 0;
    while (op_next_attr(&cursor, &key, &kind)) names[n++] = arena_strndup(l->arena, key.ptr, key.len);
    Str word = l->tok.s;
    if (l->tok.kind != TOK_WORD) return lex_error(l, "the name of an attribute");
    diag_error(l->d, E_IR_INVALID, lex_span(l), "`%s` has no attribute `" STR_FMT "`", op_name(op),
               STR_ARG(word));
    diag_did_you_mean(l->d, word, names, n);
    return false;
}

static bool parse_attrs(Lexer *l, Op op, Attr *attrs, uint32_t *n) {
    *n = 0;
    if (!lex_take(l, '{')) return true;
    do {
        Str key, name;
        AttrKind kind;
        if (l->tok.kind != TOK_WORD || !find_attr(op, l->tok.s, &key, &kind)) return unknown_attr(l, op);
        if (*n == ATTRS_MAX) return lex_error(l, "no further attribute");
        Attr *a = &attrs[(*n)++];
        *a = (Attr){.key = arena_strndup(l->arena, key.ptr, key.len), .kind = kind};
        lex_next(l);
        if (!lex_expect(l, '=')) return false;
        if (kind == ATTR_INT && !lex_i64(l, &a->i)) return false;
        if (kind == ATTR_REAL && !lex_real(l, &a->real)) return false;
        if (kind == ATTR_NAME) {
            if (!lex_name(l, &name)) return false;
            a->name = name.ptr;
        }
    } while (lex_take(l, ','));
    return lex_expect(l, '}');
}

static bool parse_results(Parser *p, uint32_t *numbers, uint32_t *n) {
    Lexer *l = &p->lex;
    uint64_t number;
    uint32_t last = p->g->n_values ? p->numbers[p->g->n_values - 1] : 0;
    *n = 0;
    if (!lex_is(l, '%')) return true;
    do {
        if (*n == RESULTS_MAX) return lex_error(l, "`=` after two results");
        if (!lex_expect(l, '%')) return false;
        Span at = lex_span(l);
        if (!lex_u64(l, INT32_MAX, &number)) return false;
        if ((p->g->n_values || *n) && number <= last)
            return diag_error(l->d, E_IR_INVALID, at, "value numbers must ascend: %%%llu follows %%%u",
                              (unsigned long long)number, last);
        last = numbers[(*n)++] = (uint32_t)number;
    } while (lex_take(l, ','));
    return lex_expect(l, '=');
}

static bool check_results(Parser *p, ValueId first, uint32_t n_results) {
    Lexer *l = &p->lex;
    if (!n_results) return true;
    if (!lex_expect(l, ':')) return false;
    for (uint32_t i = 0; i < n_results; i++) {
        Span at = lex_span(l);
        Type stated, inferred = p->g->values[first + i].type;
        if (i && !lex_expect(l, ',')) return false;
        if (!parse_type(l, &stated)) return false;
        if (type_eq(stated, inferred)) continue;
        StrBuf text = {0};
        type_print(inferred, &text);
        diag_error(l->d, E_IR_INVALID, at, "result %u is %s by the shape rule of its op", i + 1,
                   buf_cstr(&text));
        buf_free(&text);
        return false;
    }
    return true;
}

// "layer 3, origin", "layer 3" or "origin".
static void parse_place(Parser *p, Node *n) {
    Str s = lex_place(&p->lex);
    n->origin = s.ptr;
    if (!str_starts(s, STR("layer "))) return;
    const char *comma = memchr(s.ptr, ',', s.len);
    Str digits = str_sub(s, 6, comma ? (size_t)(comma - s.ptr) : s.len);
    uint64_t layer;
    if (!str_to_u64(digits, &layer) || layer > INT32_MAX) return;
    n->layer = (int32_t)layer;
    n->origin = !comma ? "" : comma[1] == ' ' ? comma + 2 : comma + 1;
}

static void remember_numbers(Parser *p, ValueId first, const uint32_t *numbers, uint32_t n) {
    if (p->cap_numbers < p->g->n_values) {
        uint32_t cap = MAX(p->g->n_values * 2, 64u);
        uint32_t *bigger = ARENA_ARRAY(p->lex.arena, uint32_t, cap);
        if (first) memcpy(bigger, p->numbers, first * sizeof *bigger);
        p->numbers = bigger, p->cap_numbers = cap;
    }
    for (uint32_t i = 0; i < n; i++) p->numbers[first + i] = numbers[i];
}

static bool parse_node(Parser *p) {
    Lexer *l = &p->lex;
    uint32_t numbers[RESULTS_MAX], n_results, n_inputs, n_attrs;
    ValueId inputs[INPUTS_MAX];
    Attr attrs[ATTRS_MAX];
    Op op;
    if (!parse_results(p, numbers, &n_results)) return false;
    Span at = lex_span(l);
    if (l->tok.kind != TOK_WORD) return lex_error(l, "the name of an op");
    if (!op_find(l->tok.s, &op)) {
        diag_error(l->d, E_IR_INVALID, at, "unknown op `" STR_FMT "`", STR_ARG(l->tok.s));
        diag_did_you_mean(l->d, l->tok.s, op_names(), OP_COUNT);
        return false;
    }
    lex_next(l);
    if (n_results != op_info(op)->n_results)
        return diag_error(l->d, E_IR_INVALID, at, "`%s` has %u results, not %u", op_name(op),
                          op_info(op)->n_results, n_results);
    if (!parse_inputs(p, inputs, &n_inputs) || !parse_attrs(l, op, attrs, &n_attrs)) return false;
    ValueId first = graph_add(p->g, op, inputs, n_inputs, attrs, n_attrs, -1, "", at, l->d);
    if (first == NO_ID || !check_results(p, first, n_results)) return false;
    if (n_results) remember_numbers(p, first, numbers, n_results);
    parse_place(p, &p->g->nodes[p->g->n_nodes - 1]);
    return true;
}

// ---- graph ---------------------------------------------------------------------------------------------

static bool parse_header(Parser *p) {
    uint64_t n;
    if (!lex_is_word(&p->lex, "graph")) return lex_error(&p->lex, "`graph`, the first word of a graph,");
    lex_next(&p->lex);
    if (!lex_is_word(&p->lex, "ranks")) return true;
    lex_next(&p->lex);
    if (lex_is_word(&p->lex, "0")) return lex_error(&p->lex, "a positive number of ranks");
    if (!lex_u64(&p->lex, RANKS_LIMIT, &n)) return false;
    p->g->n_ranks = (uint32_t)n;
    return true;
}

Graph *graph_parse(Arena *a, const Source *src, Diags *d) {
    Parser p = {.lex = lex_open(a, src, d), .g = graph_new(a)};
    if (!parse_header(&p)) return NULL;
    while (p.lex.tok.kind != TOK_END) {
        bool weight = lex_is_word(&p.lex, "weight"), constant = lex_is_word(&p.lex, "constant");
        if (!(weight || constant ? parse_weight(&p, constant) : parse_node(&p))) return NULL;
    }
    return graph_verify(p.g, d) ? p.g : NULL;
}
