// shard: divides the work of a graph over ranks. Linears that feed heads, an activation or the logits give
// each rank a share of their rows; linears that read such a share give it the matching columns, and
// all_reduce adds up what the ranks found. Norms, embeddings and routers are the same on every rank.
#include "compiler/ir/op.h"
#include "compiler/passes/pass.h"
#include "compiler/passes/rewrite.h"
#include "runtime/base/num.h"

enum { K_MULTIPLE = 16, VOCAB_ROWS_MULTIPLE = 8 };

// What the consumers of a linear's result let it be.
typedef enum { WANT_UNKNOWN, WANT_WHOLE, WANT_HEADS, WANT_COLUMNS, WANT_LOGITS } WantKind;
typedef struct {
    WantKind kind;
    uint32_t heads;
} Want;

// How a value of the new graph lies on the ranks. SPLIT: a share of its heads or columns; PARTIAL: a term of
// the sum.
typedef enum { WHOLE, SPLIT, PARTIAL } State;

typedef struct {
    Rewrite r;
    uint32_t n; // ranks
    Want *want; // [values of in]
    State *state;
    const Node *node; // being rewritten
    ValueId *whole;   // [values of in]: of weights, the node that reads all of it
} Shard;

// ---- wants: consumers before producers -----------------------------------------------------------------

static Want want_of_input(const Shard *s, const Node *n, uint32_t input) {
    switch (n->op) {
    case OP_split_heads: return (Want){WANT_HEADS, (uint32_t)node_int(n, "heads")};
    case OP_linear:
    case OP_expert_linear: return (Want){input == 0 ? WANT_COLUMNS : WANT_WHOLE, 0};
    case OP_silu:
    case OP_gelu_tanh:
    case OP_softcap:
    case OP_scale:
    case OP_mul:
    case OP_quantize_rows: return s->want[n->result];
    case OP_output: return (Want){WANT_LOGITS, 0};
    default: return (Want){WANT_WHOLE, 0};
    }
}

static void find_wants(Shard *s) {
    const Graph *g = s->r.in;
    for (NodeId i = g->n_nodes; i-- > 0;) {
        const Node *n = &g->nodes[i];
        for (uint32_t k = 0; k < n->n_inputs; k++) {
            Want *have = &s->want[n->inputs[k]], w = want_of_input(s, n, k);
            if (have->kind == WANT_UNKNOWN)
                *have = w;
            else if (have->kind != w.kind || have->heads != w.heads)
                *have = (Want){WANT_WHOLE, 0};
        }
    }
}

// ---- errors --------------------------------------------------------------------------------------------

static bool refuse(Shard *s, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static bool refuse(Shard *s, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    const char *why = arena_vprintf(s->r.d->arena, fmt, ap);
    va_end(ap);
    const char *layer = s->node->layer < 0 ? "" : arena_printf(s->r.d->arena, "layer %d: ", s->node->layer);
    diag_error(s->r.d, E_SHARD, SPAN_NONE, "%s%s", layer, why);
    diag_hint(s->r.d, "choose another `tensor_parallel`");
    return false;
}

static const char *weight_text(Shard *s, ValueId v) {
    const Node *def = value_node(s->r.in, v);
    return def->op == OP_weight ? node_name(def, "name") : "a linear";
}

// ---- weights -------------------------------------------------------------------------------------------

// What one rank sees of all parts.
static bool local_type(Shard *s, const Weight *w, Type *out) {
    bool vector = w->type.rank == 1;
    uint64_t sum = 0, cols = 0;
    for (uint32_t i = 0; i < w->n_parts; i++) {
        PartSlice slice;
        if (!part_slice(&w->parts[i], 0, s->n, &slice))
            return refuse(s, STR_FMT " [%llu,%llu] does not divide over %u ranks",
                          STR_ARG(w->parts[i].tensor), (unsigned long long)w->parts[i].rows,
                          (unsigned long long)w->parts[i].cols, s->n);
        sum += vector ? slice.cols : slice.rows, cols = slice.cols;
    }
    *out = w->type;
    if (w->type.rank == 3) sum /= (uint64_t)w->type.dim[0];
    out->dim[vector ? 0 : w->type.rank - 2] = (int64_t)sum;
    if (!vector) out->dim[w->type.rank - 1] = (int64_t)cols;
    return true;
}

static Str free_name(Shard *s, Str name, ShardRule rule) {
    if (graph_find_weight(s->r.out, name) == NO_ID) return name;
    return str_of(
        arena_printf(s->r.out->arena, STR_FMT ".%s", STR_ARG(name), rule == SHARD_ROWS ? "rows" : "cols"));
}

// The rules that the weight came with are what its family would like; the graph decides.
static Weight with_rule(Shard *s, const Weight *like, ShardRule rule, uint32_t units) {
    Weight w = *like;
    w.parts = ARENA_ARRAY(s->r.out->arena, WeightPart, w.n_parts);
    for (uint32_t i = 0; i < w.n_parts; i++) {
        w.parts[i] = like->parts[i];
        w.parts[i].rule = rule, w.parts[i].units = units;
    }
    return w;
}

// A node that reads the rank's share of the weight behind value `v` of the old graph.
static ValueId read_share(Shard *s, ValueId v, ShardRule rule, uint32_t units) {
    const Node *def = value_node(s->r.in, v);
    if (def->op != OP_weight) {
        refuse(s, "a linear whose weight is computed cannot be divided");
        return NO_ID;
    }
    Weight w = with_rule(s, node_weight(s->r.in, def), rule, units);
    if (!w.n_parts) {
        refuse(s, "a linear whose weight is a constant cannot be divided");
        return NO_ID;
    }
    if (!local_type(s, &w, &w.type)) return NO_ID;
    w.name = free_name(s, w.name, rule);
    WeightId id = rewrite_find_weight(s->r.out, &w); // when another node reads the same share
    if (id == NO_ID) id = graph_add_weight(s->r.out, w);
    return rewrite_weight(&s->r, id, def->layer, def->origin);
}

// The value of the new graph that every rank has whole.
static ValueId whole_value(Shard *s, ValueId v) {
    const Node *def = value_node(s->r.in, v);
    if (def->op != OP_weight) return s->r.map[v];
    if (s->whole[v] != NO_ID) return s->whole[v];
    Weight w = with_rule(s, node_weight(s->r.in, def), SHARD_NONE, 0);
    w.name = free_name(s, w.name, SHARD_NONE);
    WeightId id = graph_add_weight(s->r.out, w);
    return s->whole[v] = rewrite_weight(&s->r, id, def->layer, def->origin);
}

// ---- nodes ---------------------------------------------------------------------------------------------

static ValueId add_collective(Shard *s, Op op, ValueId x) {
    return graph_add(s->r.out, op, &x, 1, NULL, 0, s->node->layer, "shard", SPAN_NONE, s->r.d);
}

// The linear's input is split: its columns are, too. The bias is added once, to the sum.
static bool shard_columns(Shard *s, const Node *n) {
    Type w = s->r.in->values[n->inputs[1]].type;
    uint64_t k = (uint64_t)w.dim[w.rank - 1];
    if (k % s->n || k / s->n % K_MULTIPLE)
        return refuse(s, "%s: its %llu columns do not divide over %u ranks in multiples of %d",
                      weight_text(s, n->inputs[1]), (unsigned long long)k, s->n, K_MULTIPLE);
    ValueId inputs[3] = {s->r.map[n->inputs[0]], read_share(s, n->inputs[1], SHARD_COLS, 0)}, v;
    if (n->op == OP_expert_linear) inputs[2] = whole_value(s, n->inputs[2]);
    if (inputs[1] == NO_ID) return false;
    v = rewrite_node(&s->r, n, inputs, n->op == OP_linear ? 2 : 3);
    s->state[n->result] = n->op == OP_linear ? WHOLE : PARTIAL;
    if (v != NO_ID && n->op == OP_linear) {
        v = add_collective(s, OP_all_reduce, v);
        if (n->n_inputs == 3 && v != NO_ID) {
            ValueId sum[2] = {v, whole_value(s, n->inputs[2])};
            v = graph_add(s->r.out, OP_add, sum, 2, NULL, 0, n->layer, n->origin, SPAN_NONE, s->r.d);
        }
    }
    s->r.map[n->result] = v;
    return v != NO_ID;
}

// Every rank computes a share of the rows.
static bool shard_rows(Shard *s, const Node *n, uint32_t units) {
    ValueId inputs[3] = {s->r.map[n->inputs[0]], read_share(s, n->inputs[1], SHARD_ROWS, units)};
    if (inputs[1] == NO_ID) return false;
    if (n->n_inputs == 3)
        inputs[2] = n->op == OP_linear ? read_share(s, n->inputs[2], SHARD_ROWS, units)
                                       : whole_value(s, n->inputs[2]);
    if (n->n_inputs == 3 && inputs[2] == NO_ID) return false;
    ValueId v = rewrite_node(&s->r, n, inputs, n->n_inputs);
    s->r.map[n->result] = v;
    s->state[n->result] = SPLIT;
    return v != NO_ID;
}

static bool copy_node(Shard *s, const Node *n, State state) {
    ValueId inputs[INPUTS_MAX];
    for (uint32_t i = 0; i < n->n_inputs; i++) inputs[i] = whole_value(s, n->inputs[i]);
    ValueId v = rewrite_node(&s->r, n, inputs, n->n_inputs);
    for (uint32_t i = 0; i < n->n_results && v != NO_ID; i++) {
        s->r.map[n->result + i] = v + i;
        s->state[n->result + i] = state;
    }
    return v != NO_ID;
}

static bool shard_linear(Shard *s, const Node *n) {
    Want want = s->want[n->result];
    Type w = s->r.in->values[n->inputs[1]].type;
    uint64_t rows = (uint64_t)w.dim[w.rank - 2];
    if (s->state[n->inputs[0]] == PARTIAL) return refuse(s, "a linear reads the partial sums of another");
    if (s->state[n->inputs[0]] == SPLIT) return shard_columns(s, n);
    if (want.kind == WANT_HEADS) {
        if (want.heads >= s->n ? want.heads % s->n : s->n % want.heads)
            return refuse(s, "%s: its %u heads do not divide over %u ranks", weight_text(s, n->inputs[1]),
                          want.heads, s->n);
        return shard_rows(s, n, want.heads);
    }
    if (want.kind == WANT_COLUMNS) {
        if (rows % s->n)
            return refuse(s, "%s: its %llu rows do not divide over %u ranks", weight_text(s, n->inputs[1]),
                          (unsigned long long)rows, s->n);
        return shard_rows(s, n, 0);
    }
    if (want.kind == WANT_LOGITS && rows % ((uint64_t)s->n * VOCAB_ROWS_MULTIPLE) == 0)
        return shard_rows(s, n, 0);
    return copy_node(s, n, WHOLE);
}

static bool shard_attention(Shard *s, const Node *n) {
    const Type *t[2] = {&s->r.in->values[n->inputs[0]].type, &s->r.in->values[n->inputs[1]].type};
    State state = s->state[n->inputs[0]];
    if (s->state[n->inputs[1]] != state || s->state[n->inputs[2]] != state)
        return refuse(s, "query, key and value do not divide alike over %u ranks", s->n);
    if (state == SPLIT && t[0]->dim[1] % s->n)
        return refuse(s, "%lld query heads (%lld key/value heads) do not divide over %u ranks",
                      (long long)t[0]->dim[1], (long long)t[1]->dim[1], s->n);
    return copy_node(s, n, state);
}

static bool shard_split_heads(Shard *s, const Node *n) {
    State state = s->state[n->inputs[0]];
    if (state != SPLIT) return copy_node(s, n, state);
    int64_t heads = node_int(n, "heads");
    Attr local = {.key = "heads", .kind = ATTR_INT, .i = heads >= s->n ? heads / s->n : 1};
    Node share = *n;
    share.attrs = &local;
    return copy_node(s, &share, SPLIT);
}

static bool shard_output(Shard *s, const Node *n) {
    ValueId x = whole_value(s, n->inputs[0]);
    if (s->state[n->inputs[0]] == SPLIT) x = add_collective(s, OP_all_gather, x);
    return x != NO_ID && rewrite_node(&s->r, n, &x, 1) != NO_ID;
}

static bool shard_combine(Shard *s, const Node *n) {
    State state = s->state[n->inputs[0]];
    if (!copy_node(s, n, WHOLE)) return false;
    if (state == PARTIAL) s->r.map[n->result] = add_collective(s, OP_all_reduce, s->r.map[n->result]);
    return state != SPLIT || refuse(s, "the outputs of experts are divided");
}

// Ops that work element by element, head by head or row by row: split in, split out.
static bool shard_local(Shard *s, const Node *n) {
    State state = s->state[n->inputs[0]];
    bool pair = n->op == OP_add || n->op == OP_mul;
    if (state == PARTIAL || (pair && s->state[n->inputs[1]] != state))
        return refuse(s, "the operands of `%s` do not divide alike", op_name(n->op));
    if (n->op == OP_rms_norm && state == SPLIT && s->r.in->values[n->inputs[0]].type.rank < 3)
        return refuse(s, "a norm over values that the ranks share");
    return copy_node(s, n, state);
}

static bool shard_node(Shard *s, const Node *n) {
    s->node = n;
    switch (n->op) {
    case OP_weight: return true; // read where it is used
    case OP_linear:
    case OP_expert_linear: return shard_linear(s, n);
    case OP_split_heads: return shard_split_heads(s, n);
    case OP_attention: return shard_attention(s, n);
    case OP_combine: return shard_combine(s, n);
    case OP_output: return shard_output(s, n);
    case OP_add_scalar:
    case OP_scale:
    case OP_add:
    case OP_mul:
    case OP_silu:
    case OP_gelu_tanh:
    case OP_softcap:
    case OP_rms_norm:
    case OP_rope:
    case OP_merge_heads:
    case OP_quantize_rows: // a share of a row has a scale of its own
    case OP_gather_rows: return shard_local(s, n);
    default: break;
    }
    for (uint32_t i = 0; i < n->n_inputs; i++)
        if (s->state[n->inputs[i]] != WHOLE)
            return refuse(s, "`%s` cannot read divided values", op_name(n->op));
    return copy_node(s, n, WHOLE);
}

Graph *pass_shard(Graph *g, const PassContext *c, Diags *d) {
    if (c->n_ranks == 1) return g;
    Shard s = {.r = rewrite_begin(g, d), .n = c->n_ranks};
    s.r.out->n_ranks = c->n_ranks;
    s.want = ARENA_ARRAY(g->arena, Want, g->n_values);
    s.state = ARENA_ARRAY(g->arena, State, g->n_values);
    s.whole = ARENA_ARRAY(g->arena, ValueId, g->n_values);
    for (ValueId v = 0; v < g->n_values; v++) s.whole[v] = NO_ID;
    find_wants(&s);
    for (NodeId i = 0; i < g->n_nodes; i++)
        if (!shard_node(&s, &g->nodes[i])) return NULL;
    return s.r.out;
}
