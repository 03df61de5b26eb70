// select: every node becomes launches of templates. What a template can take along (a scale, a softcap, the
// weighted sum of experts) is found here; what no template does is refused by name.
#include "compiler/passes/fuse.h"
#include "compiler/passes/plan_work.h"
#include "runtime/base/num.h"
#include "templates/lib/abi.h"

enum { CONTEXT_ASSUMED = 1024 }; // tokens of each sequence in predictions

typedef struct {
    Plan *p;
    PlanWork *w;
    const PassContext *c;
    Diags *d;
} Select;

void *plan_grow(Arena *a, void *items, uint32_t n, uint32_t *cap, size_t size) {
    if (n < *cap) return items;
    CHECK(n < UINT32_MAX / 4);
    *cap = MAX(*cap * 2, 64u);
    void *bigger = arena_array(a, *cap, size);
    if (n) memcpy(bigger, items, n * size);
    return bigger;
}

void step_cost(const Step *s, uint32_t rows, uint32_t seqs, uint64_t *read, uint64_t *written,
               uint64_t *flops) {
    double share = s->weight_share > 0 ? MIN(1.0, s->weight_share * rows) : 1.0;
    *read = (uint64_t)((double)s->weight_bytes * share) + s->read_per_row * rows +
            s->kv_per_sequence * MIN(rows, seqs);
    *written = s->write_per_row * rows;
    *flops = s->flops_per_row * rows;
}

// ---- small words ---------------------------------------------------------------------------------------

static bool refuse(Select *s, const Node *n, const char *why) {
    return diag_error(s->d, E_NO_KERNEL, SPAN_NONE, "target %s has no kernel for %s: %s", s->p->target,
                      node_origin(s->c->arena, n), why);
}

static Type type_of(const Select *s, ValueId v) { return s->w->graph->values[v].type; }
static const Node *def(const Select *s, ValueId v) { return value_node(s->w->graph, v); }

static uint64_t last(const Select *s, ValueId v) {
    Type t = type_of(s, v);
    return (uint64_t)t.dim[t.rank - 1];
}

// The node that uses v, when only one does and it is an `op`.
static const Node *only_user(const Select *s, ValueId v, Op op) {
    if (s->w->uses[v] != 1) return NULL;
    const Node *n = &s->w->graph->nodes[s->w->only_user[v]];
    return n->op == op ? n : NULL;
}

static uint32_t weight_at(const Select *s, ValueId v, bool scales) {
    const Node *n = def(s, v);
    CHECK(n->op == OP_weight);
    WeightId id = (WeightId)(node_weight(s->w->graph, n) - s->w->graph->weights);
    return scales ? s->w->scales_weight[id] : s->w->values_weight[id];
}

static const Operand none = {OPERAND_NONE, 0, 0};
static Operand value(ValueId v) { return (Operand){OPERAND_VALUE, v, 0}; }
static Operand role(AdaRole r) { return (Operand){OPERAND_ROLE, (uint32_t)r, 0}; }
static Operand weight(const Select *s, ValueId v) {
    return (Operand){OPERAND_WEIGHT, weight_at(s, v, false), 0};
}
static Operand scales(const Select *s, ValueId v) {
    return (Operand){OPERAND_WEIGHT, weight_at(s, v, true), 0};
}

uint64_t act_row_bytes(const Target *t, uint64_t k, bool wide) {
    if (!t->half_rows) return 4 * k;
    return 2 * round_up(k, 64) + 16 + (wide ? round_up(4 * k, 16) : 0);
}

uint64_t e4m3_row_bytes(const Target *t, uint64_t k) { return t->half_rows ? round_up(k, 64) + 16 : 4 * k; }

static bool is_gpu(const Select *s) { return s->c->target->half_rows; }

static bool is_quantized(const Select *s, ValueId v) { return def(s, v)->op == OP_quantize_rows; }

// The x_pitch or out_pitch of an act value; rows of the host stand end to end.
static uint64_t act_pitch(const Select *s, ValueId v, uint64_t k) {
    if (!is_gpu(s)) return 0;
    return is_quantized(s, v) ? e4m3_row_bytes(s->c->target, k)
                              : act_row_bytes(s->c->target, k, s->w->wide[v]);
}

static void take(Step *t, Operand o) {
    CHECK(t->n_args < TEMPLATE_ARGS_MAX);
    t->args[t->n_args++] = o;
}

static SpecField *field(Step *t, const char *key, char kind) {
    CHECK(t->n_spec < TEMPLATE_FIELDS_MAX);
    SpecField *f = &t->spec[t->n_spec++];
    *f = (SpecField){.key = key, .kind = kind};
    return f;
}
static void field_u(Step *t, const char *key, uint64_t u) { field(t, key, 'u')->u = u; }
static void field_f(Step *t, const char *key, double f) { field(t, key, 'f')->f = f; }
static void field_n(Step *t, const char *key, const char *n) { field(t, key, 'n')->n = n; }

static Step *new_step(Select *s, const char *template_, AdaProgramKind program) {
    PlanWork *w = s->w;
    w->steps = plan_grow(s->c->arena, w->steps, w->n_steps, &w->cap_steps, sizeof *w->steps);
    Step *t = &w->steps[w->n_steps++];
    *t = (Step){.kind = ADA_LAUNCH_KERNEL, .program = program, .template_ = template_};
    t->count = program == ADA_PROGRAM_BODY ? COUNT_TOKENS : COUNT_ROWS;
    t->updated = t->update = t->norm = NO_ID;
    return t;
}

// A step of node n, in the program that its rows belong to.
static Step *node_step(Select *s, const Node *n, const char *template_) {
    bool rows = type_of(s, n->result).dim[0] == DIM_R;
    Step *t = new_step(s, template_, rows ? ADA_PROGRAM_HEAD : ADA_PROGRAM_BODY);
    t->origin = node_origin(s->c->arena, n);
    return t;
}

static uint64_t row_bytes(const Select *s, ValueId v) {
    Type t = type_of(s, v);
    uint64_t n = sizeof(float);
    for (uint32_t i = 1; i < t.rank; i++) n *= (uint64_t)t.dim[i];
    return n;
}

// The rows that a product reads: their pitch and form.
static void field_x(Select *s, Step *t, ValueId x) {
    field_u(t, "x_pitch", act_pitch(s, x, last(s, x)));
    field_u(t, "x_e4m3", is_gpu(s) && is_quantized(s, x));
}

// Costs of a matrix product of x and weight w into `out`.
static void cost_product(Select *s, Step *t, ValueId x, ValueId w, ValueId out) {
    uint32_t row_scales = weight_at(s, w, true);
    t->weight_bytes = s->p->weights[weight_at(s, w, false)].bytes;
    if (row_scales != NO_ID) t->weight_bytes += s->p->weights[row_scales].bytes;
    t->read_per_row = row_bytes(s, x);
    t->write_per_row = row_bytes(s, out);
    Type type = type_of(s, w);
    t->flops_per_row = 2 * (uint64_t)type.dim[type.rank - 2] * (uint64_t)type.dim[type.rank - 1];
}

static AdaLayout layout_of(const Select *s, ValueId w) {
    return s->p->weights[weight_at(s, w, false)].layout;
}

static const char *format_of(const Select *s, ValueId w) {
    AdaLayout l = layout_of(s, w);
    if (l == ADA_LAYOUT_MMA_F16 || l == ADA_LAYOUT_MMA_F16_PAIRS) return dtype_name(DT_F16);
    return dtype_name(type_of(s, w).dtype);
}

static Operand bound(const Select *s, ValueId v) {
    WeightId id = (WeightId)(node_weight(s->w->graph, def(s, v)) - s->w->graph->weights);
    return is_gpu(s) ? (Operand){OPERAND_WEIGHT, s->w->bound_weight[id], 0} : none;
}

// ---- one function an op --------------------------------------------------------------------------------

static bool lower_embed(Select *s, const Node *n) {
    const Node *scaled = only_user(s, n->result, OP_scale);
    const PlanWeight *table = &s->p->weights[weight_at(s, n->inputs[0], false)];
    Step *t = node_step(s, n, "embed");
    take(t, weight(s, n->inputs[0]));
    take(t, table->layout == ADA_LAYOUT_MMA_F16 ? scales(s, n->inputs[0]) : none);
    take(t, role(ADA_ROLE_IDS));
    take(t, value(n->result));
    take(t, role(ADA_ROLE_COUNTS));
    field_u(t, "hidden", table->cols);
    field_u(t, "vocab", table->rows);
    field_f(t, "scale", scaled ? node_real(scaled, "by") : 1);
    field_n(t, "format",
            table->layout == ADA_LAYOUT_ROWS_F32    ? "rows_f32"
            : table->layout == ADA_LAYOUT_ROWS_BF16 ? "rows_bf16"
                                                    : format_of(s, n->inputs[0]));
    t->write_per_row = row_bytes(s, n->result);
    t->read_per_row = t->write_per_row / 2;
    t->flops_per_row = table->cols;
    return true;
}

static bool lower_scale(Select *s, const Node *n) {
    return def(s, n->inputs[0])->op == OP_embed && only_user(s, n->inputs[0], OP_scale)
               ? true
               : refuse(s, n, "only embeddings are scaled");
}

// The softcap that follows a linear, through an all_gather as well.
static const Node *softcap_of(const Select *s, ValueId v) {
    const Node *gathered = only_user(s, v, OP_all_gather);
    return only_user(s, gathered ? gathered->result : v, OP_softcap);
}

static bool lower_softcap(Select *s, const Node *n) {
    const Node *from = def(s, n->inputs[0]);
    if (from->op == OP_all_gather) from = def(s, from->inputs[0]);
    return from->op == OP_linear && softcap_of(s, from->result) == n
               ? true
               : refuse(s, n, "only the result of a linear is capped");
}

// Rows of f32 weights are multiplied by f32 rows: routers, and what a checkpoint keeps in f32.
static bool lower_linear_f32(Select *s, const Node *n, Step *t) {
    const Node *cap = softcap_of(s, n->result), *join = only_user(s, n->result, OP_join);
    bool bias = n->n_inputs == 3;
    if (is_quantized(s, n->inputs[0]))
        return refuse(s, n, "a router of NVFP4 weights with `gemm: w4a8`: it chooses by activations in fp32");
    take(t, value(n->inputs[0]));
    take(t, weight(s, n->inputs[1]));
    take(t, bias ? weight(s, n->inputs[2]) : none);
    take(t, value(n->result));
    take(t, role(ADA_ROLE_COUNTS));
    field_u(t, "n", last(s, n->result));
    field_u(t, "k", last(s, n->inputs[0]));
    field_u(t, "out_stride", last(s, join ? join->result : n->result));
    field_u(t, "has_bias", bias);
    field_f(t, "softcap", cap ? node_real(cap, "cap") : 0);
    field_u(t, "count", t->count);
    field_u(t, "x_pitch", act_pitch(s, n->inputs[0], last(s, n->inputs[0])));
    field_u(t, "wide", s->w->wide[n->inputs[0]]);
    return true;
}

// The norm that the product may do itself: absorb.c.
static void absorbed_later(Step *t) {
    field_u(t, "norm", 0);
    field_f(t, "eps", 0);
}

static bool lower_linear(Select *s, const Node *n) {
    const Node *cap = softcap_of(s, n->result), *join = only_user(s, n->result, OP_join);
    if (type_of(s, n->inputs[0]).rank != 2) return refuse(s, n, "its input has heads");
    bool rows = layout_of(s, n->inputs[1]) == ADA_LAYOUT_ROWS_F32;
    Step *t = node_step(s, n, rows ? "linear_f32" : "linear");
    cost_product(s, t, n->inputs[0], n->inputs[1], n->result);
    if (rows) return lower_linear_f32(s, n, t);
    bool bias = n->n_inputs == 3;
    take(t, value(n->inputs[0]));
    take(t, weight(s, n->inputs[1]));
    take(t, scales(s, n->inputs[1]));
    take(t, bias ? weight(s, n->inputs[2]) : none);
    take(t, value(n->result));
    take(t, role(ADA_ROLE_COUNTS));
    take(t, is_gpu(s) ? role(ADA_ROLE_WORK) : none);
    for (uint32_t i = 0; i < 3; i++) take(t, none);
    field_u(t, "n", last(s, n->result));
    field_u(t, "k", last(s, n->inputs[0]));
    field_n(t, "format", format_of(s, n->inputs[1]));
    field_u(t, "out_stride", last(s, join ? join->result : n->result));
    field_u(t, "has_bias", bias);
    field_f(t, "softcap", cap ? node_real(cap, "cap") : 0);
    field_u(t, "count", t->count);
    field_x(s, t, n->inputs[0]);
    field_u(t, "add", 0);
    absorbed_later(t);
    field_u(t, "next_bytes", 0);
    return true;
}

static bool lower_join(Select *s, const Node *n) {
    for (uint32_t i = 0; i < n->n_inputs; i++)
        if (def(s, n->inputs[i])->op != OP_linear || s->w->uses[n->inputs[i]] != 1)
            return refuse(s, n, "only linears are joined");
    return true;
}

typedef struct {
    ValueId residual, branch, post_w, w, out; // NO_ID: none
    double eps;
} NormAdd;

static bool norm_add_step(Select *s, const Node *n, const NormAdd *a) {
    Step *t = node_step(s, n, "norm_add");
    bool branch = a->branch != NO_ID, post = a->post_w != NO_ID, out = a->out != NO_ID;
    take(t, value(a->residual));
    take(t, branch ? value(a->branch) : none);
    take(t, post ? weight(s, a->post_w) : none);
    take(t, out ? weight(s, a->w) : none);
    take(t, out ? value(a->out) : none);
    take(t, role(ADA_ROLE_COUNTS));
    take(t, none);
    if (branch) t->updated = a->residual, t->update = n->result;
    field_u(t, "hidden", last(s, a->residual));
    field_f(t, "eps", a->eps);
    field_u(t, "has_branch", branch);
    field_u(t, "has_post", post);
    field_u(t, "has_out", out);
    field_u(t, "count", t->count);
    field_u(t, "out_pitch", out ? act_pitch(s, a->out, last(s, a->residual)) : 0);
    field_u(t, "wide", out && s->w->wide[a->out]);
    field_u(t, "e4m3", 0);
    field_u(t, "next_bytes", 0);
    uint64_t row = row_bytes(s, a->residual);
    t->read_per_row = row * (1 + branch);
    t->write_per_row = row * ((uint64_t)branch + out);
    t->flops_per_row = row;
    return true;
}

static bool lower_norm_add(Select *s, const Node *n) {
    const char *form = node_name(n, "form");
    NormAdd a = {n->inputs[0], n->inputs[1], NO_ID, NO_ID, NO_ID, node_real(n, "eps")};
    if (!strcmp(form, FORM_ADD_NORM))
        a.w = n->inputs[2], a.out = n->result + 1;
    else if (!strcmp(form, FORM_POST_ADD_NORM))
        a.post_w = n->inputs[2], a.w = n->inputs[3], a.out = n->result + 1;
    else if (!strcmp(form, FORM_POST_ADD))
        a.post_w = n->inputs[2];
    else
        return refuse(s, n, arena_printf(s->c->arena, "unknown form `%s`", form));
    return norm_add_step(s, n, &a);
}

static bool lower_rms_norm(Select *s, const Node *n) {
    if (type_of(s, n->result).rank != 2 || def(s, n->inputs[1])->op != OP_weight)
        return refuse(s, n, "a norm of heads is done only between a projection and rope");
    NormAdd a = {n->inputs[0], NO_ID, NO_ID, n->inputs[1], n->result, node_real(n, "eps")};
    return norm_add_step(s, n, &a);
}

static bool lower_add(Select *s, const Node *n) {
    if (!type_eq(type_of(s, n->inputs[0]), type_of(s, n->inputs[1])) || type_of(s, n->result).rank != 2)
        return refuse(s, n, "a bias after a sum over ranks");
    uint32_t r = s->w->uses[n->inputs[1]] > s->w->uses[n->inputs[0]]; // the residual is what others read too
    NormAdd a = {n->inputs[r], n->inputs[1 - r], NO_ID, NO_ID, NO_ID, 0};
    return norm_add_step(s, n, &a);
}

static bool lower_gate_up(Select *s, const Node *n) {
    Step *t = node_step(s, n, "gate_up");
    take(t, value(n->inputs[0]));
    take(t, weight(s, n->inputs[1]));
    take(t, scales(s, n->inputs[1]));
    take(t, bound(s, n->inputs[1]));
    take(t, value(n->result));
    take(t, role(ADA_ROLE_COUNTS));
    take(t, is_gpu(s) ? role(ADA_ROLE_WORK) : none);
    for (uint32_t i = 0; i < 3; i++) take(t, none);
    field_u(t, "f", last(s, n->result));
    field_u(t, "k", last(s, n->inputs[0]));
    field_n(t, "format", format_of(s, n->inputs[1]));
    field_n(t, "act", node_name(n, "act"));
    field_x(s, t, n->inputs[0]);
    field_u(t, "out_pitch", act_pitch(s, n->result, last(s, n->result)));
    absorbed_later(t);
    field_u(t, "next_bytes", 0);
    cost_product(s, t, n->inputs[0], n->inputs[1], n->result);
    return true;
}

static bool lower_act_mul(Select *s, const Node *n) {
    Step *t = node_step(s, n, "act_mul");
    take(t, value(n->inputs[0]));
    take(t, value(n->result));
    take(t, role(ADA_ROLE_COUNTS));
    field_u(t, "f", last(s, n->result));
    field_n(t, "act", node_name(n, "act"));
    field_u(t, "out_pitch", act_pitch(s, n->result, last(s, n->result)));
    t->read_per_row = row_bytes(s, n->inputs[0]);
    t->write_per_row = row_bytes(s, n->result);
    t->flops_per_row = 8 * last(s, n->result);
    return true;
}

static const AdaKvGroup *kv_of(const Select *s, const Node *n, uint32_t *layer) {
    *layer = (uint32_t)(n - s->w->graph->nodes);
    return &s->p->kv[s->w->kv[*layer].group];
}

static bool lower_rope_write(Select *s, const Node *n) {
    uint32_t layer;
    const AdaKvGroup *kv = kv_of(s, n, &layer);
    bool norm = n->n_inputs == 5;
    Step *t = node_step(s, n, "rope_write");
    take(t, value(n->inputs[0]));
    take(t, norm ? weight(s, n->inputs[3]) : none);
    take(t, norm ? weight(s, n->inputs[4]) : none);
    take(t, weight(s, n->inputs[2]));
    take(t, (Operand){OPERAND_WEIGHT, s->w->kv_scale[layer], 0});
    take(t, role(ADA_ROLE_POS));
    take(t, role(ADA_ROLE_SLOT));
    take(t, (Operand){OPERAND_TABLE, layer, 0});
    take(t, (Operand){OPERAND_POOL, layer, 0});
    take(t, value(n->result));
    take(t, role(ADA_ROLE_COUNTS));
    take(t, none);
    field_u(t, "heads", (uint64_t)node_int(n, "heads"));
    field_u(t, "kv_heads", (uint64_t)node_int(n, "kv_heads"));
    field_u(t, "head_dim", last(s, n->result));
    field_u(t, "has_norm", norm);
    field_f(t, "eps", node_real(n, "eps"));
    field_f(t, "factor", node_real(n, "factor"));
    field_u(t, "page_tokens", s->p->page_tokens);
    field_u(t, "page_bytes", kv->page_bytes);
    field_u(t, "pages_per_seq", kv->pages_per_seq);
    field_u(t, "next_bytes", 0);
    t->read_per_row = row_bytes(s, n->inputs[0]);
    t->write_per_row = row_bytes(s, n->result) + row_bytes(s, n->result + 1) / sizeof(float) * 2;
    t->flops_per_row = 4 * last(s, n->inputs[0]);
    return true;
}

static bool lower_attention(Select *s, const Node *n) {
    uint32_t layer;
    const AdaKvGroup *kv = kv_of(s, n, &layer);
    Type cache = type_of(s, n->inputs[1]);
    uint64_t heads = (uint64_t)type_of(s, n->result).dim[1], dim = last(s, n->result);
    Step *t = node_step(s, n, "attention");
    take(t, value(n->inputs[0]));
    take(t, (Operand){OPERAND_POOL, layer, 0});
    take(t, (Operand){OPERAND_WEIGHT, s->w->kv_scale[layer], 0});
    take(t, (Operand){OPERAND_TABLE, layer, 0});
    take(t, role(ADA_ROLE_POS));
    take(t, role(ADA_ROLE_SLOT));
    take(t, value(n->result));
    take(t, role(ADA_ROLE_COUNTS));
    take(t, is_gpu(s) ? role(ADA_ROLE_WORK) : none);
    take(t, none);
    field_u(t, "heads", heads);
    field_u(t, "kv_heads", (uint64_t)cache.dim[1]);
    field_u(t, "head_dim", dim);
    field_f(t, "scale", node_real(n, "scale"));
    field_u(t, "window", kv->window);
    field_f(t, "softcap", node_real(n, "softcap"));
    field_u(t, "page_tokens", s->p->page_tokens);
    field_u(t, "page_bytes", kv->page_bytes);
    field_u(t, "pages_per_seq", kv->pages_per_seq);
    field_u(t, "out_pitch", act_pitch(s, n->result, heads * dim));
    field_u(t, "next_bytes", 0);
    uint64_t keys = MIN(s->c->context, (uint64_t)CONTEXT_ASSUMED);
    if (kv->window) keys = MIN(keys, kv->window);
    t->read_per_row = t->write_per_row = row_bytes(s, n->result);
    t->kv_per_sequence = keys * 2 * (uint64_t)cache.dim[1] * dim;
    t->flops_per_row = 4 * keys * heads * dim;
    return true;
}

// ids and weights come from one launch, at the node of the ids.
static bool lower_route_ids(Select *s, const Node *n) {
    const Graph *g = s->w->graph;
    const Node *weights = NULL;
    for (NodeId i = (NodeId)(n - g->nodes) + 1; !weights && i < g->n_nodes; i++)
        if (g->nodes[i].op == OP_route_weights && g->nodes[i].inputs[1] == n->result &&
            g->nodes[i].inputs[0] == n->inputs[0])
            weights = &g->nodes[i];
    if (!weights) return refuse(s, n, "nothing weighs these experts");
    Step *t = node_step(s, n, "moe_route");
    take(t, value(n->inputs[0]));
    take(t, value(n->result));
    take(t, value(weights->result));
    take(t, role(ADA_ROLE_COUNTS));
    field_u(t, "experts", last(s, n->inputs[0]));
    field_u(t, "k", (uint64_t)node_int(n, "k"));
    field_u(t, "norm", (uint64_t)node_int(weights, "norm"));
    t->read_per_row = row_bytes(s, n->inputs[0]);
    t->write_per_row = row_bytes(s, n->result) + row_bytes(s, weights->result);
    t->flops_per_row = last(s, n->inputs[0]) * (uint64_t)node_int(n, "k");
    return true;
}

static bool lower_route_weights(Select *s, const Node *n) {
    const Node *ids = def(s, n->inputs[1]);
    return ids->op == OP_route_ids && ids->inputs[0] == n->inputs[0]
               ? true
               : refuse(s, n, "its ids are of other logits");
}

static void cost_experts(Select *s, Step *t, ValueId x, ValueId w, ValueId ids, ValueId out) {
    uint64_t experts = (uint64_t)type_of(s, w).dim[0], k = last(s, ids);
    cost_product(s, t, x, w, out);
    t->weight_share = (double)k / (double)experts;
    t->flops_per_row *= k;
}

static bool lower_expert_gate_up(Select *s, const Node *n) {
    if (type_of(s, n->inputs[0]).rank != 2) return refuse(s, n, "its input has one row for each expert");
    Step *t = node_step(s, n, "moe_gate_up");
    take(t, value(n->inputs[0]));
    take(t, weight(s, n->inputs[1]));
    take(t, scales(s, n->inputs[1]));
    take(t, bound(s, n->inputs[1]));
    take(t, value(n->inputs[2]));
    take(t, value(n->result));
    take(t, role(ADA_ROLE_COUNTS));
    field_u(t, "experts", (uint64_t)type_of(s, n->inputs[1]).dim[0]);
    field_u(t, "topk", last(s, n->inputs[2]));
    field_u(t, "f", last(s, n->result));
    field_u(t, "k", last(s, n->inputs[0]));
    field_n(t, "format", format_of(s, n->inputs[1]));
    field_n(t, "act", node_name(n, "act"));
    field_x(s, t, n->inputs[0]);
    field_u(t, "out_pitch", act_pitch(s, n->result, last(s, n->result)));
    cost_experts(s, t, n->inputs[0], n->inputs[1], n->inputs[2], n->result);
    return true;
}

// All experts of a token, into `out`; their sum goes to `out` when weights is not NO_ID.
static void moe_down_step(Select *s, const Node *n, const Node *e, ValueId weights, ValueId out) {
    Step *t = node_step(s, n, "moe_down");
    take(t, value(e->inputs[0]));
    take(t, weight(s, e->inputs[1]));
    take(t, scales(s, e->inputs[1]));
    take(t, value(e->inputs[2]));
    take(t, weights == NO_ID ? none : value(weights));
    take(t, value(out));
    take(t, role(ADA_ROLE_COUNTS));
    field_u(t, "experts", (uint64_t)type_of(s, e->inputs[1]).dim[0]);
    field_u(t, "topk", last(s, e->inputs[2]));
    field_u(t, "n", last(s, out));
    field_u(t, "k", last(s, e->inputs[0]));
    field_n(t, "format", format_of(s, e->inputs[1]));
    field_x(s, t, e->inputs[0]);
    field_u(t, "each", weights == NO_ID);
    cost_experts(s, t, e->inputs[0], e->inputs[1], e->inputs[2], out);
}

static bool lower_expert_linear(Select *s, const Node *n) {
    if (!only_user(s, n->result, OP_combine)) return refuse(s, n, "its result is not combined over experts");
    if (type_of(s, n->inputs[0]).rank != 3) return refuse(s, n, "all experts of a token get the same input");
    if (is_gpu(s)) moe_down_step(s, n, n, NO_ID, n->result);
    return true;
}

static bool lower_combine(Select *s, const Node *n) {
    const Node *e = def(s, n->inputs[0]);
    if (e->op != OP_expert_linear) return refuse(s, n, "what it sums is not a linear of experts");
    if (!is_gpu(s)) {
        moe_down_step(s, n, e, n->inputs[1], n->result);
        return true;
    }
    Step *t = node_step(s, n, "moe_combine");
    take(t, value(n->inputs[0]));
    take(t, value(n->inputs[1]));
    take(t, value(n->result));
    take(t, role(ADA_ROLE_COUNTS));
    field_u(t, "topk", last(s, n->inputs[1]));
    field_u(t, "n", last(s, n->result));
    field_u(t, "add", 0);
    t->read_per_row = row_bytes(s, n->inputs[0]);
    t->write_per_row = row_bytes(s, n->result);
    t->flops_per_row = 2 * last(s, n->inputs[1]) * last(s, n->result);
    return true;
}

static bool lower_gather_rows(Select *s, const Node *n) {
    Step *t = node_step(s, n, "gather_rows");
    take(t, value(n->inputs[0]));
    take(t, role(ADA_ROLE_ROWS));
    take(t, value(n->result));
    take(t, role(ADA_ROLE_COUNTS));
    field_u(t, "hidden", last(s, n->result));
    bool act = value_is_act(s->w, n->inputs[0]);
    uint64_t pitch = act ? act_pitch(s, n->inputs[0], last(s, n->result)) : row_bytes(s, n->result);
    field_u(t, "x_pitch", is_gpu(s) ? pitch : 0);
    t->read_per_row = t->write_per_row = row_bytes(s, n->result);
    return true;
}

static bool lower_quantize_rows(Select *s, const Node *n) {
    ValueId x = n->inputs[0];
    if (def(s, x)->op == OP_merge_heads) x = def(s, x)->inputs[0];
    if (!value_is_act(s->w, x)) return refuse(s, n, "what makes its input writes no rows for linears");
    Type type = type_of(s, n->result);
    uint64_t k = last(s, n->result), rows = type.rank == 3 ? (uint64_t)type.dim[1] : 1;
    Step *t = node_step(s, n, "quantize_rows");
    take(t, value(n->inputs[0]));
    take(t, value(n->result));
    take(t, role(ADA_ROLE_COUNTS));
    field_u(t, "k", k);
    field_u(t, "rows_each", rows);
    field_u(t, "count", t->count);
    field_u(t, "x_pitch", act_pitch(s, n->inputs[0], k));
    field_u(t, "out_pitch", act_pitch(s, n->result, k));
    t->read_per_row = rows * act_row_bytes(s->c->target, k, false);
    t->write_per_row = rows * e4m3_row_bytes(s->c->target, k);
    t->flops_per_row = 4 * rows * k;
    return true;
}

static bool lower_collective(Select *s, const Node *n) {
    Step *t = node_step(s, n, NULL);
    t->kind = n->op == OP_all_reduce ? ADA_LAUNCH_ALL_REDUCE : ADA_LAUNCH_ALL_GATHER;
    t->cols = (uint32_t)last(s, n->inputs[0]);
    take(t, value(n->inputs[0]));
    if (n->op == OP_all_gather)
        take(t, value(n->result));
    else
        t->updated = n->inputs[0], t->update = n->result;
    t->read_per_row = row_bytes(s, n->inputs[0]) * s->p->n_ranks;
    t->write_per_row = row_bytes(s, n->result);
    t->flops_per_row = n->op == OP_all_reduce ? (uint64_t)t->cols * s->p->n_ranks : 0;
    return true;
}

static bool lower(Select *s, const Node *n) {
    switch (n->op) {
    case OP_input:
    case OP_weight:
    case OP_output:
    case OP_split_heads:
    case OP_merge_heads: return true; // leaves, and other views of the same bytes
    case OP_embed: return lower_embed(s, n);
    case OP_scale: return lower_scale(s, n);
    case OP_softcap: return lower_softcap(s, n);
    case OP_linear: return lower_linear(s, n);
    case OP_join: return lower_join(s, n);
    case OP_rms_norm: return lower_rms_norm(s, n);
    case OP_norm_add: return lower_norm_add(s, n);
    case OP_add: return lower_add(s, n);
    case OP_gate_up: return lower_gate_up(s, n);
    case OP_act_mul: return lower_act_mul(s, n);
    case OP_rope_write: return lower_rope_write(s, n);
    case OP_paged_attention: return lower_attention(s, n);
    case OP_route_ids: return lower_route_ids(s, n);
    case OP_route_weights: return lower_route_weights(s, n);
    case OP_expert_gate_up: return lower_expert_gate_up(s, n);
    case OP_expert_linear: return lower_expert_linear(s, n);
    case OP_combine: return lower_combine(s, n);
    case OP_gather_rows: return lower_gather_rows(s, n);
    case OP_quantize_rows: return lower_quantize_rows(s, n);
    case OP_all_reduce:
    case OP_all_gather: return lower_collective(s, n);
    default: return refuse(s, n, "it stands where no fused kernel takes it");
    }
}

static void sampling_steps(Select *s) {
    Step *t = new_step(s, "sample", ADA_PROGRAM_SAMPLE);
    static const AdaRole drawn[] = {ADA_ROLE_LOGITS, ADA_ROLE_SAMPLING, ADA_ROLE_NEXT, ADA_ROLE_STATUS,
                                    ADA_ROLE_COUNTS};
    for (size_t i = 0; i < COUNT_OF(drawn); i++) take(t, role(drawn[i]));
    take(t, is_gpu(s) ? role(ADA_ROLE_WORK) : none);
    static const AdaRole told[] = {ADA_ROLE_TOKEN_COUNTS, ADA_ROLE_TOKEN_LISTS, ADA_ROLE_TOKEN_MASK,
                                   ADA_ROLE_LOGPROBS};
    for (size_t i = 0; i < COUNT_OF(told); i++) take(t, role(told[i]));
    field_u(t, "vocab_rows", s->p->vocab_rows);
    field_u(t, "vocab", s->p->vocab);
    field_u(t, "rows_max", s->p->rows_max);
    t->read_per_row = 4ull * s->p->vocab_rows;
    t->flops_per_row = 4ull * s->p->vocab_rows;
    t->origin = "sampling: logits to the next id";
    t = new_step(s, "advance", ADA_PROGRAM_ADVANCE);
    static const AdaRole moved[] = {ADA_ROLE_NEXT,   ADA_ROLE_IDS,    ADA_ROLE_POS,
                                    ADA_ROLE_COUNTS, ADA_ROLE_STATUS, ADA_ROLE_RING};
    for (size_t i = 0; i < COUNT_OF(moved); i++) take(t, role(moved[i]));
    field_u(t, "rows_max", s->p->rows_max);
    t->read_per_row = 8, t->write_per_row = 8;
    t->origin = "sampling: the next id becomes the input of the next step";
}

bool pass_select(Plan *p, const PassContext *c, Diags *d) {
    Select s = {p, p->work, c, d};
    const Graph *g = p->work->graph;
    s.w->uses = ARENA_ARRAY(c->arena, uint32_t, g->n_values);
    s.w->only_user = ARENA_ARRAY(c->arena, NodeId, g->n_values);
    for (NodeId i = 0; i < g->n_nodes; i++)
        for (uint32_t j = 0; j < g->nodes[i].n_inputs; j++) {
            s.w->uses[g->nodes[i].inputs[j]]++;
            s.w->only_user[g->nodes[i].inputs[j]] = i;
        }
    s.w->wide = ARENA_ARRAY(c->arena, bool, g->n_values);
    for (NodeId i = 0; i < g->n_nodes; i++) {
        const Node *n = &g->nodes[i];
        if (n->op != OP_linear || layout_of(&s, n->inputs[1]) != ADA_LAYOUT_ROWS_F32) continue;
        Op made = def(&s, n->inputs[0])->op;
        s.w->wide[n->inputs[0]] = is_gpu(&s) && (made == OP_norm_add || made == OP_rms_norm);
    }
    bool ok = true;
    for (NodeId i = 0; i < g->n_nodes; i++) ok = lower(&s, &g->nodes[i]) && ok;
    if (!ok) return false;
    sampling_steps(&s);
    return true;
}
