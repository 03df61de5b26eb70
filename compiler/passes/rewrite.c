#include "compiler/passes/rewrite.h"

#include "compiler/ir/op.h"

Rewrite rewrite_begin(const Graph *g, Diags *d) {
    Rewrite r = {.in = g, .out = graph_new(g->arena), .d = d};
    r.out->n_ranks = g->n_ranks;
    r.map = ARENA_ARRAY(g->arena, ValueId, g->n_values);
    for (ValueId v = 0; v < g->n_values; v++) r.map[v] = NO_ID;
    return r;
}

ValueId rewrite_node(Rewrite *r, const Node *n, const ValueId *inputs, uint32_t n_inputs) {
    return graph_add(r->out, n->op, inputs, n_inputs, n->attrs, n->n_attrs, n->layer, n->origin, SPAN_NONE,
                     r->d);
}

bool rewrite_copy(Rewrite *r, const Node *n) {
    ValueId *inputs = ARENA_ARRAY(r->out->arena, ValueId, n->n_inputs);
    for (uint32_t i = 0; i < n->n_inputs; i++) inputs[i] = r->map[n->inputs[i]];
    ValueId v = rewrite_node(r, n, inputs, n->n_inputs);
    if (v == NO_ID) return false;
    for (uint32_t i = 0; i < n->n_results; i++) r->map[n->result + i] = v + i;
    return true;
}

static bool same_part(const WeightPart *a, const WeightPart *b) {
    return str_eq(a->tensor, b->tensor) && a->rows == b->rows && a->cols == b->cols && a->rule == b->rule &&
           a->units == b->units;
}

static bool same_weight(const Weight *a, const Weight *b) {
    uint64_t n;
    if (!type_eq(a->type, b->type) || a->n_parts != b->n_parts || a->add != b->add) return false;
    for (uint32_t i = 0; i < a->n_parts; i++)
        if (!same_part(&a->parts[i], &b->parts[i])) return false;
    if (a->n_parts) return true;
    return a->data && b->data && type_count(a->type, 1, 1, &n) &&
           !memcmp(a->data, b->data, n * sizeof *a->data);
}

WeightId rewrite_find_weight(const Graph *g, const Weight *like) {
    for (WeightId i = 0; i < g->n_weights; i++)
        if (same_weight(&g->weights[i], like)) return i;
    return NO_ID;
}

ValueId rewrite_weight(Rewrite *r, WeightId id, int32_t layer, const char *origin) {
    Str name = r->out->weights[id].name;
    Attr attr = {.key = "name", .kind = ATTR_NAME, .name = arena_strndup(r->out->arena, name.ptr, name.len)};
    return graph_add(r->out, OP_weight, NULL, 0, &attr, 1, layer, origin, SPAN_NONE, r->d);
}

const bool *rewrite_live(const Graph *g) {
    bool *live = ARENA_ARRAY(g->arena, bool, g->n_values);
    for (NodeId i = g->n_nodes; i-- > 0;) {
        const Node *n = &g->nodes[i];
        bool wanted = n->n_results == 0;
        for (uint32_t k = 0; k < n->n_results; k++) wanted = wanted || live[n->result + k];
        for (uint32_t k = 0; k < n->n_inputs && wanted; k++) live[n->inputs[k]] = true;
    }
    return live;
}
