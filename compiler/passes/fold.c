// fold: what is known before the first token. Numbers added to a weight become part of the weight, nodes that
// do nothing go, weights of equal content and equal leaves become one, and what reaches no output goes.
#include "compiler/ir/op.h"
#include "compiler/passes/pass.h"
#include "compiler/passes/rewrite.h"

typedef struct {
    Rewrite r;
    ValueId *leaf;     // [weights of out]: the node that reads it
    ValueId inputs[3]; // ids, pos, rows
} Fold;

// The node of `out` that reads this weight, or one of equal content.
static ValueId read_weight(Fold *f, const Weight *w, const Node *like) {
    WeightId id = rewrite_find_weight(f->r.out, w);
    if (id != NO_ID) return f->leaf[id];
    id = graph_add_weight(f->r.out, *w);
    return f->leaf[id] = rewrite_weight(&f->r, id, like->layer, like->origin);
}

// The weight that is `w` with `by` added to every element.
static Weight weight_plus(Fold *f, const Weight *w, double by) {
    Arena *a = f->r.out->arena;
    Weight sum = *w;
    uint64_t n;
    const char *name = arena_printf(a, STR_FMT "%+g", STR_ARG(w->name), by);
    for (int i = 2; graph_find_weight(f->r.out, str_of(name)) != NO_ID; i++)
        name = arena_printf(a, STR_FMT "%+g.%d", STR_ARG(w->name), by, i);
    sum.name = str_of(name);
    if (w->n_parts || !w->data) {
        sum.add = (float)((double)w->add + by);
        return sum;
    }
    type_count(w->type, 1, 1, &n);
    float *data = ARENA_ARRAY(a, float, n);
    for (uint64_t i = 0; i < n; i++) data[i] = (float)((double)w->data[i] + by);
    sum.data = data;
    return sum;
}

static ValueId fold_add_scalar(Fold *f, const Node *n, ValueId x) {
    double by = node_real(n, "by");
    const Node *def = value_node(f->r.out, x);
    if (by == 0) return x;
    if (def->op != OP_weight) return rewrite_node(&f->r, n, &x, 1);
    const Weight *w = node_weight(f->r.out, def);
    Weight sum = weight_plus(f, w, by);
    return read_weight(f, &sum, n);
}

static ValueId fold_input(Fold *f, const Node *n) {
    const char *name = node_name(n, "name");
    ValueId *slot = &f->inputs[!strcmp(name, "ids") ? 0 : !strcmp(name, "pos") ? 1 : 2];
    if (*slot == NO_ID) *slot = rewrite_node(&f->r, n, NULL, 0);
    return *slot;
}

static bool fold_node(Fold *f, const Node *n) {
    ValueId x = n->n_inputs ? f->r.map[n->inputs[0]] : NO_ID, v;
    switch (n->op) {
    case OP_input: v = fold_input(f, n); break;
    case OP_weight: v = read_weight(f, node_weight(f->r.in, n), n); break;
    case OP_add_scalar: v = fold_add_scalar(f, n, x); break;
    case OP_scale:
        if (node_real(n, "by") != 1) return rewrite_copy(&f->r, n);
        v = x;
        break;
    default: return rewrite_copy(&f->r, n);
    }
    f->r.map[n->result] = v;
    return v != NO_ID;
}

// Weights that lost their last reader while folding, and the nodes that read them.
static Graph *drop_dead(const Graph *g, Diags *d) {
    Rewrite r = rewrite_begin(g, d);
    const bool *live = rewrite_live(g);
    for (NodeId i = 0; i < g->n_nodes; i++) {
        const Node *n = &g->nodes[i];
        bool wanted = n->n_results == 0;
        for (uint32_t k = 0; k < n->n_results; k++) wanted = wanted || live[n->result + k];
        if (!wanted) continue;
        if (n->op == OP_weight) graph_add_weight(r.out, *node_weight(g, n));
        if (!rewrite_copy(&r, n)) return NULL;
    }
    return r.out;
}

Graph *pass_fold(Graph *g, const PassContext *c, Diags *d) {
    (void)c;
    Graph *live = drop_dead(g, d);
    if (!live) return NULL;
    Fold f = {.r = rewrite_begin(live, d), .inputs = {NO_ID, NO_ID, NO_ID}};
    // every weight that is added on the way stands for a weight or an add_scalar node
    f.leaf = ARENA_ARRAY(g->arena, ValueId, live->n_nodes);
    for (NodeId i = 0; i < live->n_nodes; i++)
        if (!fold_node(&f, &live->nodes[i])) return NULL;
    return drop_dead(f.r.out, d);
}
