// The verifier: a graph that passes here prints, evaluates and lowers without further checks.
#include <math.h>

#include "compiler/ir/op.h"
#include "runtime/base/num.h"

static bool invalid(Diags *d, const char *what, const char *why) {
    return diag_error(d, E_IR_INVALID, SPAN_NONE, "%s: %s", what, why);
}

// ---- weights -------------------------------------------------------------------------------------------

static bool verify_weight_type(const Weight *w, const char *what, Diags *d) {
    uint64_t n;
    if (w->type.dtype == DT_I32 || w->type.dtype >= DT_KV) return invalid(d, what, "not a type of weights");
    if (w->type.rank < 1 || w->type.rank > 3) return invalid(d, what, "weights have 1 to 3 dimensions");
    for (uint32_t i = 0; i < w->type.rank; i++)
        if (w->type.dim[i] <= 0) return invalid(d, what, "weights have fixed dimensions");
    if (!type_count(w->type, 1, 1, &n) || n > (uint64_t)1 << 56) return invalid(d, what, "absurdly large");
    if (!isfinite(w->add)) return invalid(d, what, "`add` is not finite");
    if (w->type.dtype == DT_NVFP4 && w->type.dim[w->type.rank - 1] % 16)
        return invalid(d, what, "NVFP4 needs columns in blocks of 16");
    return true;
}

static bool verify_constant(const Weight *w, const char *what, Diags *d) {
    uint64_t n;
    if (w->type.dtype != DT_F32) return invalid(d, what, "constants are f32");
    if (!w->data) return true; // hidden by the text form
    type_count(w->type, 1, 1, &n);
    for (uint64_t i = 0; i < n; i++)
        if (!isfinite(w->data[i])) return invalid(d, what, "a constant that is not finite");
    return true;
}

// The parts of every rank, stacked, must have the weight's type.
static bool verify_parts(const Graph *g, const Weight *w, const char *what, Diags *d) {
    Type t = w->type;
    bool vector = t.rank == 1;
    uint64_t cols = (uint64_t)t.dim[t.rank - 1], count, sum = 0;
    type_count(t, 1, 1, &count);
    if (w->data) return invalid(d, what, "has both parts and constant data");
    for (uint32_t i = 0; i < w->n_parts; i++) {
        const WeightPart *p = &w->parts[i];
        PartSlice s;
        if (!p->tensor.len || !p->rows || !p->cols) return invalid(d, what, "a part without name or size");
        if (!part_slice(p, 0, g->n_ranks, &s))
            return diag_error(
                d, E_IR_INVALID, SPAN_NONE, "%s: " STR_FMT " [%llu,%llu] does not divide over %u ranks", what,
                STR_ARG(p->tensor), (unsigned long long)p->rows, (unsigned long long)p->cols, g->n_ranks);
        if (vector ? s.rows != 1 : s.cols != cols)
            return diag_error(
                d, E_IR_INVALID, SPAN_NONE,
                "%s: a rank's part of " STR_FMT " is [%llu,%llu], which does not stack up to the "
                "type",
                what, STR_ARG(p->tensor), (unsigned long long)s.rows, (unsigned long long)s.cols);
        if (!u64_add(sum, vector ? s.cols : s.rows, &sum)) sum = UINT64_MAX;
    }
    if (sum == (vector ? cols : count / cols)) return true;
    return diag_error(d, E_IR_INVALID, SPAN_NONE, "%s: the parts have %llu rows, the type has %llu", what,
                      (unsigned long long)sum, (unsigned long long)(vector ? cols : count / cols));
}

static bool verify_weight(const Graph *g, const Weight *w, Diags *d) {
    const char *what = arena_printf(d->arena, "weight `" STR_FMT "`", STR_ARG(w->name));
    if (!w->name.len) return invalid(d, what, "has no name");
    if (graph_find_weight(g, w->name) != (WeightId)(w - g->weights))
        return invalid(d, what, "a second one of this name");
    if (!verify_weight_type(w, what, d)) return false;
    return w->n_parts ? verify_parts(g, w, what, d) : verify_constant(w, what, d);
}

// ---- nodes ---------------------------------------------------------------------------------------------

static bool verify_attrs(const Node *n, const char *what, Diags *d) {
    const char *cursor = op_info(n->op)->attrs;
    Str key;
    AttrKind kind;
    uint32_t i = 0;
    for (; op_next_attr(&cursor, &key, &kind); i++)
        if (i >= n->n_attrs || !str_is(key, n->attrs[i].key) || n->attrs[i].kind != kind)
            return diag_error(d, E_IR_INVALID, SPAN_NONE,
                              "%s: attribute `" STR_FMT "` is missing or of another kind", what,
                              STR_ARG(key));
    if (i != n->n_attrs) return invalid(d, what, "too many attributes");
    for (i = 0; i < n->n_attrs; i++)
        if (n->attrs[i].kind == ATTR_REAL && !isfinite(n->attrs[i].real))
            return invalid(d, what, "an attribute that is not finite");
    return true;
}

static bool verify_node(const Graph *g, NodeId id, ValueId *next, Diags *d) {
    const Node *n = &g->nodes[id];
    Type in[INPUTS_MAX];
    if (n->op >= OP_COUNT) return invalid(d, "a node", "has no known op");
    const char *what = n->n_results ? arena_printf(d->arena, "%%%u `%s`", n->result, op_name(n->op))
                                    : arena_printf(d->arena, "`%s`", op_name(n->op));
    if (n->n_results != op_info(n->op)->n_results || (n->n_results && n->result != *next))
        return invalid(d, what, "its results are not the next values");
    if (!verify_attrs(n, what, d)) return false;
    for (uint32_t i = 0; i < n->n_inputs && i < INPUTS_MAX; i++) {
        if (n->inputs[i] >= *next) return invalid(d, what, "uses a value before its definition");
        in[i] = g->values[n->inputs[i]].type;
    }
    ShapeQuery q = {
        .g = g, .op = n->op, .in = in, .n_in = n->n_inputs, .attrs = n->attrs, .d = d, .what = what};
    if (!shape_infer(&q)) return false;
    for (uint32_t i = 0; i < n->n_results; i++) {
        if (*next >= g->n_values || g->values[*next].def != id || !type_eq(g->values[*next].type, q.out[i]))
            return invalid(d, what, "a result is not of the type that the shape rule gives");
        ++*next;
    }
    return true;
}

bool graph_verify(const Graph *g, Diags *d) {
    size_t errors_before = d->n_errors;
    ValueId next = 0;
    if (!g->n_ranks) return invalid(d, "graph", "has no ranks");
    for (uint32_t i = 0; i < g->n_weights; i++) verify_weight(g, &g->weights[i], d);
    for (NodeId i = 0; i < g->n_nodes; i++)
        if (!verify_node(g, i, &next, d)) return false;
    if (next != g->n_values) invalid(d, "graph", "has values that no node defines");
    return d->n_errors == errors_before;
}
