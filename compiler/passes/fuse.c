// fuse: chains of ops that one launch does become one node. Siblings that read the same input (q, k, v; gate,
// up) become one linear with stacked rows; where formats or biases are mixed they stay apart and are joined.
// First all matches are found on the old graph, then the new graph is built in one walk.
#include "compiler/passes/fuse.h"

#include "compiler/passes/pass.h"
#include "runtime/base/num.h"

enum { PATHS = 3 };

// q, k or v on its way to attention.
typedef struct {
    const Node *linear, *split, *norm, *rope; // norm and rope may be NULL
} HeadPath;

typedef struct {
    enum { MATCH_ATTENTION, MATCH_GATE_UP, MATCH_NORM_ADD } kind;
    HeadPath path[PATHS];        // ATTENTION: q, k, v
    const Node *gate, *up, *act; // GATE_UP
    ValueId residual, branch;    // NORM_ADD; branch: before its post norm
    const Node *post, *norm;     // NORM_ADD; each may be NULL
} Match;

typedef struct {
    const Graph *g;
    Graph *out;
    Diags *d;
    uint32_t *uses;      // [values of g]
    NodeId *last_use;    // [values of g]
    ValueId *map;        // [values of g] -> values of out, NO_ID: not there yet
    bool *absorbed;      // [nodes of g]
    const Match **match; // [nodes of g], at the node that ends the chain
} Fuse;

static const Node *def(const Fuse *f, ValueId v) { return value_node(f->g, v); }
static NodeId node_id(const Fuse *f, const Node *n) { return (NodeId)(n - f->g->nodes); }
static bool is_weight(const Fuse *f, ValueId v) { return def(f, v)->op == OP_weight; }
static Type type_of(const Fuse *f, ValueId v) { return f->g->values[v].type; }

// The node that defines v, when it is an `op` whose result is used here only.
static const Node *only(const Fuse *f, ValueId v, Op op) {
    const Node *n = def(f, v);
    return n->op == op && f->uses[v] == 1 && !f->absorbed[node_id(f, n)] ? n : NULL;
}

static void absorb(Fuse *f, const Node *n) {
    if (n) f->absorbed[node_id(f, n)] = true;
}

// ---- finding -------------------------------------------------------------------------------------------

static bool find_path(const Fuse *f, ValueId v, bool rotated, HeadPath *p) {
    *p = (HeadPath){0};
    if (rotated) {
        if (!(p->rope = only(f, v, OP_rope))) return false;
        v = p->rope->inputs[0];
        if ((p->norm = only(f, v, OP_rms_norm))) {
            if (!is_weight(f, p->norm->inputs[1])) return false;
            v = p->norm->inputs[0];
        }
    }
    if (!(p->split = only(f, v, OP_split_heads))) return false;
    p->linear = only(f, p->split->inputs[0], OP_linear);
    return p->linear && is_weight(f, p->linear->inputs[1]);
}

static const Match *find_attention(Fuse *f, const Node *n) {
    Match m = {.kind = MATCH_ATTENTION};
    for (uint32_t i = 0; i < PATHS; i++)
        if (!find_path(f, n->inputs[i], i < 2, &m.path[i])) return NULL;
    const HeadPath *q = &m.path[0], *k = &m.path[1], *v = &m.path[2];
    ValueId x = q->linear->inputs[0];
    if (k->linear->inputs[0] != x || v->linear->inputs[0] != x) return NULL;
    if (!q->norm != !k->norm || (q->norm && node_real(q->norm, "eps") != node_real(k->norm, "eps")))
        return NULL;
    if (q->rope->inputs[1] != n->inputs[3] || k->rope->inputs[1] != n->inputs[3] ||
        q->rope->inputs[2] != k->rope->inputs[2] ||
        node_real(q->rope, "factor") != node_real(k->rope, "factor"))
        return NULL;
    for (uint32_t i = 0; i < PATHS; i++) {
        const HeadPath *p = &m.path[i];
        absorb(f, p->linear), absorb(f, p->split), absorb(f, p->norm), absorb(f, p->rope);
    }
    Match *kept = ARENA_NEW(f->out->arena, Match);
    *kept = m;
    return kept;
}

// linear(x, w) or expert_linear(x, w, ids), used here only.
static const Node *find_half(const Fuse *f, ValueId v) {
    const Node *n = only(f, v, OP_linear);
    if (!n) n = only(f, v, OP_expert_linear);
    return n && is_weight(f, n->inputs[1]) ? n : NULL;
}

static const Match *find_gate_up(Fuse *f, const Node *n) {
    for (uint32_t side = 0; side < 2; side++) {
        ValueId a = n->inputs[side], b = n->inputs[1 - side];
        Match m = {.kind = MATCH_GATE_UP};
        if (!(m.act = only(f, a, OP_silu)) && !(m.act = only(f, a, OP_gelu_tanh))) continue;
        m.gate = find_half(f, m.act->inputs[0]), m.up = find_half(f, b);
        if (!m.gate || !m.up || m.gate->op != m.up->op || m.gate->inputs[0] != m.up->inputs[0]) continue;
        Type wg = type_of(f, m.gate->inputs[1]), wu = type_of(f, m.up->inputs[1]);
        if (m.gate->op == OP_expert_linear) {
            if (m.gate->inputs[2] != m.up->inputs[2] || wg.dtype != wu.dtype) continue;
            const Weight *g = node_weight(f->g, def(f, m.gate->inputs[1]));
            const Weight *u = node_weight(f->g, def(f, m.up->inputs[1]));
            if (g->n_parts != wg.dim[0] || u->n_parts != wu.dim[0]) continue;
        } else if (type_of(f, m.gate->inputs[0]).rank != 2) {
            continue;
        }
        wg.dtype = wu.dtype;
        if (!type_eq(wg, wu)) continue;
        absorb(f, m.gate), absorb(f, m.up), absorb(f, m.act);
        Match *kept = ARENA_NEW(f->out->arena, Match);
        *kept = m;
        return kept;
    }
    return NULL;
}

// The first norm of v by a weight. It reads v, so it stands later.
static const Node *norm_of(const Fuse *f, ValueId v, NodeId after) {
    for (NodeId i = after + 1; i <= f->last_use[v] && i < f->g->n_nodes; i++) {
        const Node *n = &f->g->nodes[i];
        if (n->op == OP_rms_norm && n->inputs[0] == v && is_weight(f, n->inputs[1])) return n;
    }
    return NULL;
}

static const Match *find_norm_add(Fuse *f, const Node *n) {
    Type t = type_of(f, n->result);
    if (t.rank != 2 || t.dim[0] != DIM_T) return NULL;
    if (!type_eq(type_of(f, n->inputs[0]), type_of(f, n->inputs[1]))) return NULL;
    // The residual is what others read too (its norm); the branch is read here only.
    uint32_t r = f->uses[n->inputs[1]] > f->uses[n->inputs[0]];
    Match m = {.kind = MATCH_NORM_ADD, .residual = n->inputs[r], .branch = n->inputs[1 - r]};
    if (f->uses[m.branch] != 1 || f->last_use[m.residual] != node_id(f, n)) return NULL;
    m.norm = norm_of(f, n->result, node_id(f, n));
    m.post = only(f, m.branch, OP_rms_norm);
    if (m.post && (!is_weight(f, m.post->inputs[1]) ||
                   (m.norm && node_real(m.post, "eps") != node_real(m.norm, "eps"))))
        m.post = NULL;
    if (!m.norm && !m.post) return NULL;
    if (m.post) m.branch = m.post->inputs[0];
    absorb(f, m.norm), absorb(f, m.post);
    Match *kept = ARENA_NEW(f->out->arena, Match);
    *kept = m;
    return kept;
}

static void find_all(Fuse *f) {
    for (NodeId i = 0; i < f->g->n_nodes; i++) {
        const Node *n = &f->g->nodes[i];
        if (n->op == OP_attention) f->match[i] = find_attention(f, n);
        if (n->op == OP_mul) f->match[i] = find_gate_up(f, n);
        if (n->op == OP_add) f->match[i] = find_norm_add(f, n);
    }
}

// ---- building ------------------------------------------------------------------------------------------

static ValueId add(Fuse *f, Op op, const ValueId *in, uint32_t n_in, const Attr *attrs, uint32_t n_attrs,
                   const Node *like) {
    for (uint32_t i = 0; i < n_in; i++)
        if (in[i] == NO_ID) return NO_ID;
    return graph_add(f->out, op, in, n_in, attrs, n_attrs, like->layer, like->origin, SPAN_NONE, f->d);
}

static ValueId add_weight(Fuse *f, const Weight *w, const Node *like) {
    if (graph_find_weight(f->out, w->name) == NO_ID) graph_add_weight(f->out, *w);
    Attr name = {.key = "name", .kind = ATTR_NAME, .name = str_dup(f->out->arena, w->name).ptr};
    return add(f, OP_weight, NULL, 0, &name, 1, like);
}

// The new value of an old one; weights follow when somebody needs them.
static ValueId need(Fuse *f, ValueId v) {
    if (f->map[v] == NO_ID && is_weight(f, v))
        f->map[v] = add_weight(f, node_weight(f->g, def(f, v)), def(f, v));
    return f->map[v];
}

// "a.b.q_proj.weight", "a.b.k_proj.weight" -> "a.b.q_proj+k_proj.weight"
static Str merged_name(Fuse *f, const Weight *const *w, uint32_t n) {
    size_t head = 0, tail = 0, least = w[0]->name.len;
    for (uint32_t i = 1; i < n; i++) least = MIN(least, w[i]->name.len);
    bool same = true;
    for (size_t i = 0; same && i < least; i++) {
        for (uint32_t j = 1; j < n; j++) same = same && w[j]->name.ptr[i] == w[0]->name.ptr[i];
        if (same && w[0]->name.ptr[i] == '.') head = i + 1;
    }
    for (size_t i = 1, match = 1; match && i <= least - head; i++) {
        char c = w[0]->name.ptr[w[0]->name.len - i];
        for (uint32_t j = 1; j < n; j++) match = match && w[j]->name.ptr[w[j]->name.len - i] == c;
        if (match && c == '.') tail = i;
    }
    StrBuf b = {0};
    buf_str(&b, str_sub(w[0]->name, 0, head));
    for (uint32_t i = 0; i < n; i++) {
        if (i) buf_putc(&b, '+');
        buf_str(&b, str_sub(w[i]->name, head, w[i]->name.len - tail));
    }
    buf_str(&b, str_from(w[0]->name, w[0]->name.len - tail));
    Str name = str_dup(f->out->arena, buf_view(&b));
    buf_free(&b);
    return name;
}

static bool mergeable(const Weight *const *w, uint32_t n) {
    for (uint32_t i = 0; i < n; i++)
        if (w[i]->data || !w[i]->n_parts || w[i]->type.dtype != w[0]->type.dtype || w[i]->add != w[0]->add)
            return false;
    return true;
}

// Stacks weights along their rows; experts (3 dimensions) expert by expert.
static ValueId merge(Fuse *f, const Weight *const *w, uint32_t n, const Node *like) {
    Weight m = {.name = merged_name(f, w, n), .type = w[0]->type, .add = w[0]->add};
    uint32_t rows = w[0]->type.rank == 3, groups = rows ? (uint32_t)w[0]->type.dim[0] : 1;
    m.type.dim[rows] = 0;
    for (uint32_t i = 0; i < n; i++) m.type.dim[rows] += w[i]->type.dim[rows], m.n_parts += w[i]->n_parts;
    m.parts = ARENA_ARRAY(f->out->arena, WeightPart, m.n_parts);
    WeightPart *to = m.parts;
    for (uint32_t e = 0; e < groups; e++)
        for (uint32_t i = 0; i < n; i++) {
            uint32_t each = w[i]->n_parts / groups;
            memcpy(to, w[i]->parts + (size_t)e * each, each * sizeof *to);
            to += each;
        }
    return add_weight(f, &m, like);
}

// One linear for siblings when their weights and biases stack, else one each and a join.
static ValueId emit_siblings(Fuse *f, const Node *const *linear, uint32_t n) {
    const Weight *w[PATHS], *bias[PATHS];
    uint32_t n_bias = 0;
    for (uint32_t i = 0; i < n; i++) {
        w[i] = node_weight(f->g, def(f, linear[i]->inputs[1]));
        if (linear[i]->n_inputs == 3 && is_weight(f, linear[i]->inputs[2]))
            bias[n_bias++] = node_weight(f->g, def(f, linear[i]->inputs[2]));
    }
    bool all_or_none = linear[0]->n_inputs == 2 ? !n_bias : n_bias == n;
    for (uint32_t i = 1; i < n; i++) all_or_none = all_or_none && linear[i]->n_inputs == linear[0]->n_inputs;
    ValueId in[PATHS];
    if (all_or_none && mergeable(w, n) && mergeable(bias, n_bias)) {
        in[0] = need(f, linear[0]->inputs[0]);
        in[1] = merge(f, w, n, linear[0]);
        if (n_bias) in[2] = merge(f, bias, n, linear[0]);
        return add(f, OP_linear, in, n_bias ? 3 : 2, NULL, 0, linear[0]);
    }
    for (uint32_t i = 0; i < n; i++) {
        ValueId one[3];
        for (uint32_t j = 0; j < linear[i]->n_inputs; j++) one[j] = need(f, linear[i]->inputs[j]);
        in[i] = add(f, OP_linear, one, linear[i]->n_inputs, NULL, 0, linear[i]);
    }
    return add(f, OP_join, in, n, NULL, 0, linear[0]);
}

static Attr attr_like(const Node *n, const char *key) {
    const Attr *a = node_attr(n, key);
    CHECK(a);
    return *a;
}

static bool emit_attention(Fuse *f, const Node *n, const Match *m) {
    const Node *linear[PATHS];
    for (uint32_t i = 0; i < PATHS; i++) linear[i] = m->path[i].linear;
    const HeadPath *q = &m->path[0], *k = &m->path[1];
    ValueId in[5] = {emit_siblings(f, linear, PATHS), need(f, n->inputs[3]), need(f, q->rope->inputs[2])};
    if (q->norm) in[3] = need(f, q->norm->inputs[1]), in[4] = need(f, k->norm->inputs[1]);
    Attr rope[] = {
        {.key = "heads", .kind = ATTR_INT, .i = node_int(q->split, "heads")},
        {.key = "kv_heads", .kind = ATTR_INT, .i = node_int(k->split, "heads")},
        {.key = "eps", .kind = ATTR_REAL, .real = q->norm ? node_real(q->norm, "eps") : 0},
        attr_like(q->rope, "factor"),
        attr_like(n, "k_scale"),
        attr_like(n, "v_scale"),
        attr_like(n, "window"),
    };
    ValueId rotated = add(f, OP_rope_write, in, q->norm ? 5 : 3, rope, COUNT_OF(rope), n);
    if (rotated == NO_ID) return false;
    ValueId att[] = {rotated, rotated + 1, in[1]};
    f->map[n->result] = add(f, OP_paged_attention, att, 3, n->attrs, n->n_attrs, n);
    return f->map[n->result] != NO_ID;
}

static bool emit_gate_up(Fuse *f, const Node *n, const Match *m) {
    const Node *half[] = {m->gate, m->up};
    const Weight *w[] = {node_weight(f->g, def(f, m->gate->inputs[1])),
                         node_weight(f->g, def(f, m->up->inputs[1]))};
    Attr act = {.key = "act", .kind = ATTR_NAME, .name = op_name(m->act->op)};
    bool experts = m->gate->op == OP_expert_linear;
    ValueId made;
    if (experts || (m->gate->n_inputs == 2 && m->up->n_inputs == 2 && mergeable(w, 2))) {
        ValueId in[3] = {need(f, m->gate->inputs[0]), merge(f, w, 2, m->gate)};
        if (experts) in[2] = need(f, m->gate->inputs[2]);
        made = add(f, experts ? OP_expert_gate_up : OP_gate_up, in, experts ? 3 : 2, &act, 1, n);
    } else {
        ValueId both = emit_siblings(f, half, 2);
        made = add(f, OP_act_mul, &both, 1, &act, 1, n);
    }
    f->map[n->result] = made;
    return made != NO_ID;
}

static bool emit_norm_add(Fuse *f, const Node *n, const Match *m) {
    ValueId in[4] = {need(f, m->residual), need(f, m->branch)};
    uint32_t n_in = 2;
    if (m->post) in[n_in++] = need(f, m->post->inputs[1]);
    if (m->norm) in[n_in++] = need(f, m->norm->inputs[1]);
    Attr attrs[] = {
        attr_like(m->norm ? m->norm : m->post, "eps"),
        {.key = "form", .kind = ATTR_NAME},
    };
    attrs[1].name = !m->post ? FORM_ADD_NORM : m->norm ? FORM_POST_ADD_NORM : FORM_POST_ADD;
    ValueId made = add(f, OP_norm_add, in, n_in, attrs, 2, n);
    if (made == NO_ID) return false;
    f->map[n->result] = made;
    if (m->norm) f->map[m->norm->result] = made + 1;
    return true;
}

static bool emit(Fuse *f, const Node *n, const Match *m) {
    if (m && m->kind == MATCH_ATTENTION) return emit_attention(f, n, m);
    if (m && m->kind == MATCH_GATE_UP) return emit_gate_up(f, n, m);
    if (m) return emit_norm_add(f, n, m);
    ValueId in[8];
    CHECK(n->n_inputs <= COUNT_OF(in));
    for (uint32_t i = 0; i < n->n_inputs; i++) in[i] = need(f, n->inputs[i]);
    ValueId made = add(f, n->op, in, n->n_inputs, n->attrs, n->n_attrs, n);
    for (uint32_t i = 0; i < n->n_results && made != NO_ID; i++) f->map[n->result + i] = made + i;
    return made != NO_ID;
}

Graph *pass_fuse(Graph *g, const PassContext *c, Diags *d) {
    Fuse f = {.g = g, .out = graph_new(c->arena), .d = d};
    f.out->n_ranks = g->n_ranks;
    f.uses = ARENA_ARRAY(c->arena, uint32_t, g->n_values);
    f.last_use = ARENA_ARRAY(c->arena, NodeId, g->n_values);
    f.map = ARENA_ARRAY(c->arena, ValueId, g->n_values);
    f.absorbed = ARENA_ARRAY(c->arena, bool, g->n_nodes);
    f.match = ARENA_ARRAY(c->arena, const Match *, g->n_nodes);
    for (ValueId v = 0; v < g->n_values; v++) f.map[v] = NO_ID;
    for (NodeId i = 0; i < g->n_nodes; i++)
        for (uint32_t j = 0; j < g->nodes[i].n_inputs; j++) {
            f.uses[g->nodes[i].inputs[j]]++;
            f.last_use[g->nodes[i].inputs[j]] = i;
        }
    find_all(&f);
    for (NodeId i = 0; i < g->n_nodes; i++) {
        const Node *n = &g->nodes[i];
        if (f.absorbed[i] || n->op == OP_weight) continue;
        if (!emit(&f, n, f.match[i])) return NULL;
    }
    return f.out;
}
