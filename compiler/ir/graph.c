#include "compiler/ir/graph.h"

#include "compiler/ir/op.h"
#include "runtime/base/num.h"

Graph *graph_new(Arena *a) {
    Graph *g = ARENA_NEW(a, Graph);
    *g = (Graph){.arena = a, .n_ranks = 1};
    return g;
}

// Room for `extra` more items; the old array stays behind in the arena.
static void *grown(Arena *a, void *items, uint32_t n, uint32_t extra, uint32_t *cap, size_t size) {
    if (extra <= *cap - n) return items;
    CHECK(n < UINT32_MAX / 4);
    uint32_t wanted = MAX(n + extra, MAX(*cap * 2, 64u));
    void *bigger = arena_array(a, wanted, size);
    if (n) memcpy(bigger, items, n * size);
    *cap = wanted;
    return bigger;
}

static const char *kind_text(AttrKind k) {
    return k == ATTR_INT ? "an integer" : k == ATTR_REAL ? "a number" : "a name";
}

// Puts one given attribute into its place; integers are welcome where a real number is declared.
static bool place_attr(Graph *g, Op op, Str key, AttrKind kind, const Attr *given, Attr *out, Span at,
                       Diags *d) {
    if (given->kind != kind && !(given->kind == ATTR_INT && kind == ATTR_REAL))
        return diag_error(d, E_IR_INVALID, at, "`%s`: attribute `" STR_FMT "` must be %s, not %s",
                          op_name(op), STR_ARG(key), kind_text(kind), kind_text(given->kind));
    *out = (Attr){.key = arena_strndup(g->arena, key.ptr, key.len), .kind = kind};
    if (kind == ATTR_INT) out->i = given->i;
    if (kind == ATTR_REAL) out->real = given->kind == ATTR_INT ? (double)given->i : given->real;
    if (kind == ATTR_NAME) out->name = arena_strdup(g->arena, given->name);
    return true;
}

static bool refuse_unknown_attr(Op op, const Attr *attrs, uint32_t n_attrs, Span at, Diags *d) {
    for (uint32_t i = 0; i < n_attrs; i++) {
        const char *cursor = op_info(op)->attrs;
        Str key;
        AttrKind kind;
        bool known = false;
        for (uint32_t j = 0; j < i; j++)
            if (!strcmp(attrs[i].key, attrs[j].key))
                return diag_error(d, E_IR_INVALID, at, "`%s`: attribute `%s` is given twice", op_name(op),
                                  attrs[i].key);
        while (!known && op_next_attr(&cursor, &key, &kind)) known = str_is(key, attrs[i].key);
        if (known) continue;
        diag_error(d, E_IR_INVALID, at, "`%s` has no attribute `%s`", op_name(op), attrs[i].key);
        if (*op_info(op)->attrs) diag_hint(d, "it has: %s", op_info(op)->attrs);
        return false;
    }
    return true;
}

// All attributes of op.def, in its order; `out` has room for ATTRS_MAX.
static bool order_attrs(Graph *g, Op op, const Attr *attrs, uint32_t n_attrs, Attr *out, uint32_t *n_out,
                        Span at, Diags *d) {
    const char *cursor = op_info(op)->attrs;
    Str key;
    AttrKind kind;
    *n_out = 0;
    if (!refuse_unknown_attr(op, attrs, n_attrs, at, d)) return false;
    while (op_next_attr(&cursor, &key, &kind)) {
        const Attr *given = NULL;
        for (uint32_t i = 0; i < n_attrs; i++)
            if (str_is(key, attrs[i].key)) given = &attrs[i];
        if (!given)
            return diag_error(d, E_IR_INVALID, at, "`%s` lacks its attribute `" STR_FMT "` (%s)", op_name(op),
                              STR_ARG(key), kind_text(kind));
        CHECK(*n_out < ATTRS_MAX);
        if (!place_attr(g, op, key, kind, given, &out[(*n_out)++], at, d)) return false;
    }
    return true;
}

static void append_node(Graph *g, const Node *n, const Type *results) {
    g->nodes = grown(g->arena, g->nodes, g->n_nodes, 1, &g->cap_nodes, sizeof *g->nodes);
    g->values = grown(g->arena, g->values, g->n_values, n->n_results, &g->cap_values, sizeof *g->values);
    for (uint32_t i = 0; i < n->n_results; i++)
        g->values[g->n_values++] = (Value){.type = results[i], .def = g->n_nodes};
    g->nodes[g->n_nodes++] = *n;
}

ValueId graph_add(Graph *g, Op op, const ValueId *inputs, uint32_t n_inputs, const Attr *attrs,
                  uint32_t n_attrs, int32_t layer, const char *origin, Span at, Diags *d) {
    Attr ordered[ATTRS_MAX];
    Type in[INPUTS_MAX];
    uint32_t n_ordered;
    CHECK(op < OP_COUNT);
    if (!order_attrs(g, op, attrs, n_attrs, ordered, &n_ordered, at, d)) return NO_ID;
    for (uint32_t i = 0; i < n_inputs && i < INPUTS_MAX; i++) {
        if (inputs[i] >= g->n_values) {
            diag_error(d, E_IR_INVALID, at, "`%s`: input %u is no value of this graph", op_name(op), i + 1);
            return NO_ID;
        }
        in[i] = g->values[inputs[i]].type;
    }
    ShapeQuery q = {.g = g, .op = op, .in = in, .n_in = n_inputs, .attrs = ordered, .d = d, .at = at};
    q.what = arena_printf(g->arena, "`%s`", op_name(op));
    if (!shape_infer(&q)) return NO_ID;
    Node n = {.op = op, .n_inputs = n_inputs, .n_results = op_info(op)->n_results, .n_attrs = n_ordered};
    ValueId *own_inputs = ARENA_ARRAY(g->arena, ValueId, n_inputs);
    Attr *own_attrs = ARENA_ARRAY(g->arena, Attr, n_ordered);
    if (n_inputs) memcpy(own_inputs, inputs, n_inputs * sizeof *inputs);
    memcpy(own_attrs, ordered, n_ordered * sizeof *ordered);
    n.inputs = own_inputs, n.attrs = own_attrs;
    n.result = n.n_results ? g->n_values : NO_ID;
    n.layer = layer;
    n.origin = origin ? arena_strdup(g->arena, origin) : "";
    append_node(g, &n, q.out);
    return n.n_results ? n.result : 0;
}

WeightId graph_add_weight(Graph *g, Weight w) {
    g->weights = grown(g->arena, g->weights, g->n_weights, 1, &g->cap_weights, sizeof *g->weights);
    g->weights[g->n_weights] = w;
    return g->n_weights++;
}

WeightId graph_find_weight(const Graph *g, Str name) {
    for (uint32_t i = 0; i < g->n_weights; i++)
        if (str_eq(g->weights[i].name, name)) return i;
    return NO_ID;
}

const Attr *node_attr(const Node *n, const char *key) {
    for (uint32_t i = 0; i < n->n_attrs; i++)
        if (!strcmp(n->attrs[i].key, key)) return &n->attrs[i];
    return NULL;
}

static const Attr *must_have(const Node *n, const char *key, AttrKind kind) {
    const Attr *a = node_attr(n, key);
    CHECK(a && a->kind == kind);
    return a;
}

int64_t node_int(const Node *n, const char *key) { return must_have(n, key, ATTR_INT)->i; }
double node_real(const Node *n, const char *key) { return must_have(n, key, ATTR_REAL)->real; }
const char *node_name(const Node *n, const char *key) { return must_have(n, key, ATTR_NAME)->name; }

const Weight *node_weight(const Graph *g, const Node *n) {
    CHECK(n->op == OP_weight);
    WeightId id = graph_find_weight(g, str_of(node_name(n, "name")));
    CHECK(id != NO_ID);
    return &g->weights[id];
}

const Node *value_node(const Graph *g, ValueId v) {
    CHECK(v < g->n_values);
    return &g->nodes[g->values[v].def];
}
