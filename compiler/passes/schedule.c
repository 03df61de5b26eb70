// schedule: the order of steps and where values live. Steps keep the order of the graph; what a step updates
// in place, and what is only another view, shares storage. A walk over the steps then proves that nobody
// reads a value after it was overwritten.
#include "compiler/passes/plan_work.h"
#include "runtime/base/num.h"
#include "templates/lib/abi.h"

typedef struct {
    Plan *p;
    PlanWork *w;
    const PassContext *c;
    Diags *d;
    uint32_t cap_storages;
    ValueId *version; // [values]: views of the same bytes at the same time have equal versions
} Schedule;

// "q_proj+k_proj+v_proj.3" for the linear of that weight in layer 3.
static const char *storage_name(Schedule *s, const Node *n) {
    Str name = str_of(op_name(n->op));
    if (n->op == OP_linear) {
        const Node *weight = value_node(s->w->graph, n->inputs[1]);
        Str rest = str_of(node_name(weight, "name"));
        if (str_ends(rest, STR(".weight"))) rest.len -= strlen(".weight");
        name = rest;
        for (size_t i = 0; i < rest.len; i++)
            if (rest.ptr[i] == '.') name = str_from(rest, i + 1);
    }
    if (n->layer < 0) return str_dup(s->c->arena, name).ptr;
    return arena_printf(s->c->arena, STR_FMT ".%d", STR_ARG(name), n->layer);
}

bool value_is_act(const PlanWork *w, ValueId v) {
    const Node *n = value_node(w->graph, v);
    switch (n->op) {
    case OP_rms_norm:
    case OP_gate_up:
    case OP_act_mul:
    case OP_quantize_rows:
    case OP_paged_attention:
    case OP_expert_gate_up: return true;
    case OP_gather_rows: return value_is_act(w, n->inputs[0]);
    case OP_norm_add: return v == n->result + 1;
    default: return false;
    }
}

// Heads of attention are one row; the experts of a token have a row each.
static uint64_t value_row_bytes(const Schedule *s, ValueId v) {
    Type t = s->w->graph->values[v].type;
    uint64_t all = 1, k = (uint64_t)t.dim[t.rank - 1];
    for (uint32_t i = 1; i < t.rank; i++) all *= (uint64_t)t.dim[i];
    if (!value_is_act(s->w, v)) return 4 * all;
    Op op = value_node(s->w->graph, v)->op;
    if (op == OP_quantize_rows) return all / k * e4m3_row_bytes(s->c->target, k);
    bool experts = op == OP_expert_gate_up && t.rank == 3;
    return experts ? all / k * act_row_bytes(s->c->target, k, false)
                   : act_row_bytes(s->c->target, all, s->w->wide[v]);
}

static void new_storage(Schedule *s, ValueId v, const Node *n) {
    PlanWork *w = s->w;
    Type t = w->graph->values[v].type;
    Storage st = {.row_bytes = value_row_bytes(s, v), .count = t.dim[0] == DIM_R ? COUNT_ROWS : COUNT_TOKENS};
    st.name = storage_name(s, n);
    w->storages = plan_grow(s->c->arena, w->storages, w->n_storages, &s->cap_storages, sizeof *w->storages);
    w->storages[w->n_storages] = st;
    w->storage_of[v] = w->n_storages++;
    w->offset_in[v] = 0;
}

static void same_place(Schedule *s, ValueId v, ValueId like) {
    s->w->storage_of[v] = s->w->storage_of[like];
    s->w->offset_in[v] = s->w->offset_in[like];
    s->version[v] = s->version[like];
}

// A linear whose result is joined writes its columns of the joined rows.
static bool join_place(Schedule *s, const Node *n) {
    PlanWork *w = s->w;
    if (n->op != OP_linear || w->uses[n->result] != 1) return false;
    const Node *join = &w->graph->nodes[w->only_user[n->result]];
    if (join->op != OP_join) return false;
    if (w->storage_of[join->result] == NO_ID) new_storage(s, join->result, join);
    uint64_t offset = 0;
    for (uint32_t i = 0; join->inputs[i] != n->result; i++)
        offset += 4 * (uint64_t)w->graph->values[join->inputs[i]].type.dim[1];
    w->storage_of[n->result] = w->storage_of[join->result];
    w->offset_in[n->result] = offset;
    return true;
}

static void place_node(Schedule *s, const Node *n) {
    switch (n->op) {
    case OP_input:
    case OP_weight:
    case OP_output:
    case OP_join: return;
    case OP_scale:
    case OP_softcap:
    case OP_split_heads:
    case OP_merge_heads: same_place(s, n->result, n->inputs[0]); return;
    default: break;
    }
    if (join_place(s, n)) return;
    for (uint32_t i = 0; i < n->n_results; i++) {
        ValueId v = n->result + i;
        bool kv = s->w->graph->values[v].type.dtype == DT_KV;
        bool unused = !s->w->uses[v] && i;
        if (s->w->storage_of[v] == NO_ID && !kv && !unused) new_storage(s, v, n);
    }
}

static void place_values(Schedule *s) {
    PlanWork *w = s->w;
    const Graph *g = w->graph;
    ValueId *updated = ARENA_ARRAY(s->c->arena, ValueId, g->n_values);
    for (ValueId v = 0; v < g->n_values; v++) w->storage_of[v] = updated[v] = NO_ID, s->version[v] = v;
    for (uint32_t i = 0; i < w->n_steps; i++)
        if (w->steps[i].update != NO_ID) updated[w->steps[i].update] = w->steps[i].updated;
    for (NodeId i = 0; i < g->n_nodes; i++) {
        const Node *n = &g->nodes[i];
        if (n->n_results && updated[n->result] != NO_ID) {
            w->storage_of[n->result] = w->storage_of[updated[n->result]];
            w->offset_in[n->result] = w->offset_in[updated[n->result]];
        }
        place_node(s, n);
    }
}

// The hidden state and the logits live in buffers that the runtime knows.
static bool give_role(Schedule *s, ValueId v, AdaRole role, uint64_t row_bytes) {
    uint32_t i = s->w->storage_of[v];
    Storage *st = i == NO_ID ? NULL : &s->w->storages[i];
    if (!st || s->w->offset_in[v] || st->row_bytes != row_bytes || (st->role && st->role != role))
        return diag_error(s->d, E_NO_KERNEL, SPAN_NONE, "%s: its result is both the %s and something else",
                          node_origin(s->c->arena, value_node(s->w->graph, v)),
                          role == ADA_ROLE_HIDDEN ? "hidden state that the head reads" : "logits");
    st->role = role;
    return true;
}

static bool give_roles(Schedule *s) {
    const Graph *g = s->w->graph;
    bool ok = true;
    for (NodeId i = 0; i < g->n_nodes; i++) {
        const Node *n = &g->nodes[i];
        if (n->op == OP_gather_rows)
            ok = give_role(s, n->inputs[0], ADA_ROLE_HIDDEN, value_row_bytes(s, n->inputs[0])) && ok;
        if (n->op == OP_output)
            ok = give_role(s, n->inputs[0], ADA_ROLE_LOGITS, 4ull * s->p->vocab_rows) && ok;
    }
    return ok;
}

// Walks the steps; `now` is the version that each storage holds.
static bool check_order(Schedule *s) {
    PlanWork *w = s->w;
    ValueId *now = ARENA_ARRAY(s->c->arena, ValueId, w->n_storages);
    bool *in_place = ARENA_ARRAY(s->c->arena, bool, w->n_storages);
    for (uint32_t i = 0; i < w->n_storages; i++) now[i] = NO_ID;
    for (uint32_t i = 0; i < w->n_steps; i++) {
        const Step *t = &w->steps[i];
        for (uint32_t j = 0; j < t->n_args; j++) {
            if (t->args[j].kind != OPERAND_VALUE) continue;
            ValueId v = t->args[j].id;
            uint32_t at = w->storage_of[v];
            CHECK(at != NO_ID);
            if (in_place[at] && now[at] != s->version[v])
                return diag_error(s->d, E_NO_KERNEL, SPAN_NONE,
                                  "%s: reads a residual that was already updated in place", t->origin);
            bool outside = t->program == ADA_PROGRAM_HEAD && w->storages[at].count == COUNT_TOKENS;
            if (outside && w->storages[at].role != ADA_ROLE_HIDDEN)
                return diag_error(s->d, E_NO_KERNEL, SPAN_NONE,
                                  "%s: the head reads more of the body than its hidden state", t->origin);
        }
        if (t->update != NO_ID) {
            uint32_t at = w->storage_of[t->update];
            now[at] = s->version[t->update], in_place[at] = true;
        }
    }
    return true;
}

bool pass_schedule(Plan *p, const PassContext *c, Diags *d) {
    PlanWork *w = p->work;
    Schedule s = {p, w, c, d, 0, ARENA_ARRAY(c->arena, ValueId, w->graph->n_values)};
    w->storage_of = ARENA_ARRAY(c->arena, uint32_t, w->graph->n_values);
    w->offset_in = ARENA_ARRAY(c->arena, uint64_t, w->graph->n_values);
    place_values(&s);
    return give_roles(&s) && check_order(&s);
}
