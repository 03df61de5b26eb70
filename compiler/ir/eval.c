// The driver: nodes in order, every rank of a node before the next node, values freed after their last use.
#include <stdlib.h>

#include "compiler/ir/eval_internal.h"
#include "runtime/base/num.h"

static bool (*const functions[OP_COUNT])(EvalCall *) = {
#define OP(name, ...) eval_##name,
#include "compiler/ir/op.def"
#undef OP
};

Type eval_type(const EvalCall *c, uint32_t input) { return c->ev->g->values[c->node->inputs[input]].type; }

uint64_t eval_dim(const Eval *ev, int64_t dim) { return dim < 0 ? ev->n : (uint64_t)dim; }

uint64_t eval_last(const EvalCall *c, uint32_t input) {
    Type t = eval_type(c, input);
    return eval_dim(c->ev, t.dim[t.rank - 1]);
}

uint64_t eval_rows(const EvalCall *c, uint32_t input) {
    Type t = eval_type(c, input);
    uint64_t n = 1;
    for (uint32_t i = 0; i + 1 < t.rank; i++) n *= eval_dim(c->ev, t.dim[i]);
    return n;
}

const float *eval_value(const Eval *ev, ValueId v, uint32_t rank) {
    return ev->values[(size_t)v * ev->g->n_ranks + rank];
}

static const Node *output_of(const Graph *g) {
    for (uint32_t i = 0; i < g->n_nodes; i++)
        if (g->nodes[i].op == OP_output) return &g->nodes[i];
    return NULL;
}

uint32_t eval_vocab(const Graph *g) {
    const Node *out = output_of(g);
    return out ? (uint32_t)g->values[out->inputs[0]].type.dim[1] : 0;
}

// Matrices stay in the checkpoint: embed, linear and the experts read them row by row.
static bool stays_in_source(const Graph *g, ValueId v) {
    return value_node(g, v)->op == OP_weight && g->values[v].type.rank > 1;
}

static bool is_logits(const Eval *ev, ValueId v, uint32_t rank) {
    return rank == 0 && output_of(ev->g)->inputs[0] == v;
}

static bool alloc_result(Eval *ev, ValueId v, uint32_t rank) {
    Type t = ev->g->values[v].type;
    float **slot = &ev->values[(size_t)v * ev->g->n_ranks + rank];
    uint64_t count;
    if (stays_in_source(ev->g, v)) return true;
    if (is_logits(ev, v, rank)) {
        *slot = ev->logits;
        return true;
    }
    if (!type_count(t, ev->n, ev->n, &count) || count > SIZE_MAX / 16)
        return err_set(ev->e, E_MEMORY, "a value of the graph is too large for %u tokens", ev->n);
    *slot = xrealloc(NULL, MAX(count, (uint64_t)1) * (t.dtype == DT_KV ? 2 : 1), sizeof **slot);
    return true;
}

static void free_value(Eval *ev, ValueId v) {
    for (uint32_t r = 0; r < ev->g->n_ranks; r++) {
        float **slot = &ev->values[(size_t)v * ev->g->n_ranks + r];
        if (!is_logits(ev, v, r)) free(*slot);
        *slot = NULL;
    }
}

static bool run_node(Eval *ev, const Node *n) {
    for (uint32_t r = 0; r < ev->g->n_ranks; r++) {
        EvalCall c = {.ev = ev, .node = n, .rank = r};
        for (uint32_t i = 0; i < n->n_inputs; i++) {
            c.in[i] = eval_value(ev, n->inputs[i], r);
            if (!c.in[i] && !stays_in_source(ev->g, n->inputs[i]))
                return err_set(ev->e, E_IR_INVALID, "`%s` uses a value that was never computed",
                               op_name(n->op));
        }
        for (uint32_t i = 0; i < n->n_results; i++) {
            if (!alloc_result(ev, n->result + i, r)) return false;
            c.out[i] = ev->values[(size_t)(n->result + i) * ev->g->n_ranks + r];
        }
        if (functions[n->op](&c)) continue;
        return err_context(ev->e, "%s%s%s", op_name(n->op), *n->origin ? ", " : "", n->origin);
    }
    return true;
}

// last[v]: the last node that uses v, or the one that defines it.
static NodeId *last_uses(const Graph *g) {
    NodeId *last = xrealloc(NULL, g->n_values + 1, sizeof *last);
    for (NodeId i = 0; i < g->n_nodes; i++) {
        const Node *n = &g->nodes[i];
        for (uint32_t k = 0; k < n->n_inputs; k++) last[n->inputs[k]] = i;
        for (uint32_t k = 0; k < n->n_results; k++) last[n->result + k] = i;
    }
    return last;
}

static bool run_nodes(Eval *ev) {
    const Graph *g = ev->g;
    NodeId *last = last_uses(g);
    bool ok = true;
    for (NodeId i = 0; i < g->n_nodes && ok; i++) {
        const Node *n = &g->nodes[i];
        ok = run_node(ev, n);
        for (uint32_t k = 0; k < n->n_inputs; k++)
            if (last[n->inputs[k]] == i) free_value(ev, n->inputs[k]);
        for (uint32_t k = 0; k < n->n_results; k++)
            if (last[n->result + k] == i) free_value(ev, n->result + k);
    }
    free(last);
    return ok;
}

bool eval_graph(const Graph *g, WeightSource *src, Pool *pool, const int32_t *ids, uint32_t n, EvalKv kv,
                float *logits, Err *e) {
    if (!output_of(g)) return err_set(e, E_IR_INVALID, "the graph has no output");
    size_t n_slots = (size_t)g->n_values * g->n_ranks;
    Eval ev = {.g = g, .src = src, .pool = pool, .ids = ids, .n = n, .kv = kv, .logits = logits, .e = e};
    ev.values = xrealloc(NULL, n_slots, sizeof *ev.values);
    memset(ev.values, 0, n_slots * sizeof *ev.values);
    bool ok = n == 0 || run_nodes(&ev);
    for (ValueId v = 0; v < g->n_values; v++) free_value(&ev, v);
    free(ev.values);
    return ok;
}
