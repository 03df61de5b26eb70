// layout: how every weight and the KV cache lie in memory. Starts the plan.
#include "compiler/pack/layout.h"

#include "compiler/passes/plan_work.h"
#include "runtime/base/num.h"

enum { USED_GATHER = 1, USED_LINEAR = 2, USED_VECTOR = 4, USED_PAIRS = 8, USED_ROUTER = 16 };

const char *node_origin(Arena *a, const Node *n) {
    const char *from = n->origin && *n->origin ? arena_printf(a, " (%s)", n->origin) : "";
    if (n->layer < 0) return arena_printf(a, "%s%s", op_name(n->op), from);
    return arena_printf(a, "layer %d: %s%s", n->layer, op_name(n->op), from);
}

// ---- the KV cache --------------------------------------------------------------------------------------

// A window that covers the whole context is no window.
static uint32_t effective_window(const PassContext *c, const Node *n) {
    int64_t window = node_int(n, "window");
    return window > 0 && window < c->context ? (uint32_t)window : 0;
}

static bool kv_group(Plan *p, const PassContext *c, const Node *n, uint32_t *out, Diags *d) {
    uint32_t window = effective_window(c, n);
    for (*out = 0; *out < p->n_kv_groups; ++*out)
        if (p->kv[*out].window == window) return true;
    if (p->n_kv_groups == ADA_KV_GROUPS_MAX)
        return diag_error(
            d, E_NO_KERNEL, SPAN_NONE,
            "%s: a window of %u tokens would be the %uth size of KV cache, at most %u are possible",
            node_origin(c->arena, n), window, p->n_kv_groups + 1, ADA_KV_GROUPS_MAX);
    uint64_t whole = div_up(c->context, p->page_tokens), ring = whole;
    if (window) ring = div_up((uint64_t)window - 1 + MAX(p->tokens_max, p->page_tokens), p->page_tokens);
    p->kv[p->n_kv_groups++] = (AdaKvGroup){.window = window, .pages_per_seq = (uint32_t)MIN(ring, whole)};
    return true;
}

// Groups in order of their windows' first appearance, full attention first.
static bool plan_kv(Plan *p, const PassContext *c, Diags *d) {
    PlanWork *w = p->work;
    const Graph *g = w->graph;
    w->kv = ARENA_ARRAY(c->arena, KvLayer, g->n_nodes);
    for (int pass = 0; pass < 2; pass++)
        for (NodeId i = 0; i < g->n_nodes; i++) {
            const Node *n = &g->nodes[i];
            if (n->op != OP_rope_write || (!pass && effective_window(c, n))) continue;
            if (!kv_group(p, c, n, &w->kv[i].group, d)) return false;
        }
    for (NodeId i = 0; i < g->n_nodes; i++) {
        const Node *n = &g->nodes[i];
        if (n->op == OP_paged_attention) w->kv[i] = w->kv[g->values[n->inputs[1]].def];
        if (n->op != OP_rope_write) continue;
        AdaKvGroup *group = &p->kv[w->kv[i].group];
        Type kv = g->values[n->result + 1].type;
        w->kv[i].page_offset = group->page_bytes;
        group->page_bytes += 2ull * (uint64_t)kv.dim[1] * (uint64_t)kv.dim[2] * p->page_tokens;
        group->n_layers++;
        p->n_layers++;
    }
    return true;
}

// ---- weights -------------------------------------------------------------------------------------------

static bool same_everywhere(const Plan *p, const Weight *w, bool scales) {
    if (p->n_ranks == 1) return true;
    for (uint32_t i = 0; i < w->n_parts; i++)
        if (w->parts[i].rule == SHARD_ROWS || (w->parts[i].rule == SHARD_COLS && !scales)) return false;
    return true;
}

static uint32_t add_weight(Plan *p, const PlanWeight *w) {
    p->weights[p->n_weights] = *w;
    return p->n_weights++;
}

static bool choose_layout(const Target *t, const Weight *w, unsigned used, AdaLayout *out) {
    if (used & USED_ROUTER && t->half_rows)
        *out = ADA_LAYOUT_ROWS_F32;
    else if (used & USED_LINEAR)
        *out = t->linear[w->type.dtype];
    else if (used & USED_GATHER)
        *out = t->gather[w->type.dtype];
    else
        *out = ADA_LAYOUT_ROWS_F32;
    if (used & USED_PAIRS && *out == ADA_LAYOUT_MMA_E4M3) *out = 0; // gate_up has no form of it
    if (used & USED_PAIRS && *out == ADA_LAYOUT_MMA_NVFP4) *out = ADA_LAYOUT_MMA_NVFP4_PAIRS;
    if (used & USED_PAIRS && *out == ADA_LAYOUT_MMA_F16) *out = ADA_LAYOUT_MMA_F16_PAIRS;
    return *out != 0;
}

static bool place_weight(Plan *p, const PassContext *c, WeightId id, unsigned used, Diags *d) {
    PlanWork *work = p->work;
    const Weight *w = &work->graph->weights[id];
    PlanWeight pw = {.name = str_dup(c->arena, w->name).ptr, .weight = id, .stack = 1, .rows = 1};
    uint64_t all, one;
    if (!choose_layout(c->target, w, used, &pw.layout))
        return diag_error(d, E_NO_KERNEL, SPAN_NONE,
                          "target %s: no kernel multiplies weights of type %s: weight `%s`", c->target->name,
                          dtype_name(w->type.dtype), pw.name);
    uint32_t rank = w->type.rank;
    pw.cols = (uint64_t)w->type.dim[rank - 1];
    if (rank > 1) pw.rows = (uint64_t)w->type.dim[rank - 2];
    if (rank > 2) pw.stack = (uint64_t)w->type.dim[0];
    const LayoutInfo *info = layout_info(pw.layout);
    if (pw.cols % info->cols_tile)
        return diag_error(d, E_NO_KERNEL, SPAN_NONE,
                          "weight `%s` has %llu columns%s, but layout %s needs a multiple of %u", pw.name,
                          (unsigned long long)pw.cols, p->n_ranks > 1 ? " on one rank" : "", info->name,
                          info->cols_tile);
    if (!layout_bytes(pw.layout, pw.rows, pw.cols, &one) || !u64_mul(one, pw.stack, &all))
        return diag_error(d, E_LIMIT, SPAN_NONE, "weight `%s` is too large", pw.name);
    pw.bytes = all;
    pw.same_on_all_ranks = same_everywhere(p, w, false);
    work->values_weight[id] = add_weight(p, &pw);
    if (!(used & USED_LINEAR) || pw.layout == ADA_LAYOUT_ROWS_F32) return true;
    PlanWeight scales = {.name = arena_printf(c->arena, "%s.row_scale", pw.name),
                         .kind = PLAN_WEIGHT_ROW_SCALES,
                         .layout = ADA_LAYOUT_ROWS_F32,
                         .weight = id,
                         .rows = pw.rows,
                         .cols = 1,
                         .stack = pw.stack,
                         .bytes = pw.rows * pw.stack * sizeof(float),
                         .same_on_all_ranks = same_everywhere(p, w, true)};
    work->scales_weight[id] = add_weight(p, &scales);
    if (!(used & USED_PAIRS) || !c->target->half_rows) return true;
    PlanWeight bound = {.name = arena_printf(c->arena, "%s.bound", pw.name),
                        .kind = PLAN_WEIGHT_BOUND,
                        .layout = ADA_LAYOUT_ROWS_F32,
                        .weight = id,
                        .rows = 1,
                        .cols = 1,
                        .stack = 1,
                        .bytes = sizeof(float),
                        .same_on_all_ranks = pw.same_on_all_ranks};
    work->bound_weight[id] = add_weight(p, &bound);
    return true;
}

static unsigned use_of(const Node *n, uint32_t input) {
    if (n->op == OP_embed) return USED_GATHER;
    bool pairs = n->op == OP_gate_up || n->op == OP_expert_gate_up;
    if (pairs && input == 1) return USED_LINEAR | USED_PAIRS;
    bool linear = n->op == OP_linear || n->op == OP_expert_linear;
    return linear && input == 1 ? USED_LINEAR : USED_VECTOR;
}

// k_scale and v_scale of a layer as a constant of the graph; layers with equal scales share it.
static WeightId kv_scales(Plan *p, const PassContext *c, const Node *n) {
    float *data = ARENA_ARRAY(c->arena, float, 2);
    data[0] = (float)node_real(n, "k_scale"), data[1] = (float)node_real(n, "v_scale");
    const char *name = arena_printf(c->arena, "kv_scale %.9g %.9g", (double)data[0], (double)data[1]);
    WeightId id = graph_find_weight(p->work->graph, str_of(name));
    if (id != NO_ID) return id;
    return graph_add_weight(p->work->graph,
                            (Weight){.name = str_of(name), .type = {DT_F32, 1, {2}}, .data = data});
}

static bool plan_weights(Plan *p, const PassContext *c, Diags *d) {
    PlanWork *w = p->work;
    Graph *g = w->graph;
    WeightId *scale = ARENA_ARRAY(c->arena, WeightId, g->n_nodes);
    for (NodeId i = 0; i < g->n_nodes; i++)
        if (g->nodes[i].op == OP_rope_write || g->nodes[i].op == OP_paged_attention)
            scale[i] = kv_scales(p, c, &g->nodes[i]);
    unsigned *used = ARENA_ARRAY(c->arena, unsigned, g->n_weights);
    for (NodeId i = 0; i < g->n_nodes; i++)
        for (uint32_t j = 0; j < g->nodes[i].n_inputs; j++) {
            const Node *from = value_node(g, g->nodes[i].inputs[j]);
            if (from->op == OP_weight) used[node_weight(g, from) - g->weights] |= use_of(&g->nodes[i], j);
        }
    for (NodeId i = 0; i < g->n_nodes; i++) { // the weight whose product chooses experts
        const Node *route = &g->nodes[i];
        if (route->op != OP_route_ids) continue;
        const Node *product = value_node(g, route->inputs[0]);
        if (product->op == OP_linear)
            used[node_weight(g, value_node(g, product->inputs[1])) - g->weights] |= USED_ROUTER;
    }
    w->values_weight = ARENA_ARRAY(c->arena, uint32_t, g->n_weights);
    w->scales_weight = ARENA_ARRAY(c->arena, uint32_t, g->n_weights);
    w->bound_weight = ARENA_ARRAY(c->arena, uint32_t, g->n_weights);
    p->weights = ARENA_ARRAY(c->arena, PlanWeight, 3 * (size_t)g->n_weights);
    bool ok = true;
    for (WeightId i = 0; i < g->n_weights; i++) {
        w->values_weight[i] = w->scales_weight[i] = w->bound_weight[i] = NO_ID;
        bool constant = g->weights[i].data && !used[i] && str_starts(g->weights[i].name, STR("kv_scale "));
        if (used[i] || constant) ok = place_weight(p, c, i, used[i] ? used[i] : USED_VECTOR, d) && ok;
    }
    if (!ok) return false;
    w->kv_scale = ARENA_ARRAY(c->arena, uint32_t, g->n_nodes);
    for (NodeId i = 0; i < g->n_nodes; i++)
        if (g->nodes[i].op == OP_rope_write || g->nodes[i].op == OP_paged_attention)
            w->kv_scale[i] = w->values_weight[scale[i]];
    return true;
}

// Logits leave through `output`, the hidden state through gather_rows.
static bool plan_shape(Plan *p, const PassContext *c, Diags *d) {
    const Graph *g = p->work->graph;
    for (NodeId i = 0; i < g->n_nodes; i++) {
        const Node *n = &g->nodes[i];
        if (n->op == OP_output) p->vocab_rows = (uint32_t)g->values[n->inputs[0]].type.dim[1];
        if (n->op == OP_gather_rows) p->hidden = (uint32_t)g->values[n->inputs[0]].type.dim[1];
    }
    if (!p->vocab_rows || !p->hidden)
        return diag_error(d, E_NO_KERNEL, SPAN_NONE,
                          "the graph has no %s: nothing says which rows get logits",
                          p->hidden ? "output" : "gather_rows");
    p->vocab = c->vocab && c->vocab < p->vocab_rows ? c->vocab : p->vocab_rows;
    return true;
}

bool pass_layout(Plan *p, const PassContext *c, Diags *d) {
    CHECK(c->n_buckets && c->context);
    PlanWork *w = ARENA_NEW(c->arena, PlanWork);
    w->graph = ARENA_NEW(c->arena, Graph);
    *w->graph = *p->graph;
    p->work = w;
    p->graph = w->graph;
    p->target = c->target->name;
    p->n_ranks = c->n_ranks;
    p->context = c->context;
    p->page_tokens = c->target->page_tokens;
    BucketList bodies, heads;
    plan_buckets(c, p, ADA_PROGRAM_BODY, &bodies);
    plan_buckets(c, p, ADA_PROGRAM_HEAD, &heads);
    p->seqs_max = c->buckets[c->n_buckets - 1];
    p->tokens_max = bodies.items[bodies.n - 1];
    p->rows_max = heads.items[heads.n - 1];
    return plan_shape(p, c, d) && plan_kv(p, c, d) && plan_weights(p, c, d);
}
