// Reference functions: mixture of experts.
#include <math.h>
#include <stdlib.h>

#include "compiler/ir/eval_internal.h"

bool eval_route_ids(EvalCall *c) {
    uint64_t n_tok = eval_rows(c, 0), experts = eval_last(c, 0), k = (uint64_t)node_int(c->node, "k");
    bool *taken = xrealloc(NULL, experts, sizeof *taken);
    for (uint64_t t = 0; t < n_tok; t++) {
        const float *logits = c->in[0] + t * experts;
        memset(taken, 0, experts * sizeof *taken);
        for (uint64_t slot = 0; slot < k; slot++) {
            uint64_t best = experts;
            for (uint64_t e = 0; e < experts; e++)
                if (!taken[e] && (best == experts || logits[e] > logits[best])) best = e;
            taken[best] = true;
            ((int32_t *)c->out[0])[t * k + slot] = (int32_t)best;
        }
    }
    free(taken);
    return true;
}

bool eval_route_weights(EvalCall *c) {
    uint64_t n_tok = eval_rows(c, 0), experts = eval_last(c, 0), k = eval_last(c, 1);
    bool norm = node_int(c->node, "norm") != 0;
    for (uint64_t t = 0; t < n_tok; t++) {
        const float *logits = c->in[0] + t * experts;
        const int32_t *ids = (const int32_t *)c->in[1] + t * k;
        double most = (double)logits[0], sum = 0, chosen = 0;
        for (uint64_t e = 0; e < experts; e++) most = fmax(most, (double)logits[e]);
        for (uint64_t e = 0; e < experts; e++) sum += exp((double)logits[e] - most);
        for (uint64_t i = 0; i < k; i++) chosen += exp((double)logits[ids[i]] - most);
        for (uint64_t i = 0; i < k; i++)
            c->out[0][t * k + i] = (float)(exp((double)logits[ids[i]] - most) / (norm ? chosen : sum));
    }
    return true;
}

// The slots (token * k + i) of all experts, grouped: those of expert e are order[begin[e] .. begin[e + 1]).
static bool group_slots(EvalCall *c, uint64_t experts, uint64_t *begin, uint64_t *order) {
    uint64_t n = eval_rows(c, 2) * eval_last(c, 2);
    const int32_t *ids = (const int32_t *)c->in[2];
    memset(begin, 0, (experts + 1) * sizeof *begin);
    for (uint64_t s = 0; s < n; s++) {
        if (ids[s] < 0 || (uint64_t)ids[s] >= experts)
            return err_set(c->ev->e, E_IR_INVALID, "expert %d of %llu", ids[s], (unsigned long long)experts);
        begin[ids[s] + 1]++;
    }
    for (uint64_t e = 0; e < experts; e++) begin[e + 1] += begin[e];
    for (uint64_t s = 0; s < n; s++) order[begin[ids[s]]++] = s;
    for (uint64_t e = experts; e > 0; e--) begin[e] = begin[e - 1];
    begin[0] = 0;
    return true;
}

// out[slot][N] = x of the slot times the slot's expert.
static bool expert_matmul(EvalCall *c, float *out) {
    Type wt = eval_type(c, 1);
    uint64_t experts = (uint64_t)wt.dim[0], rows = (uint64_t)wt.dim[1], k = eval_last(c, 2);
    uint64_t n = eval_rows(c, 2) * k;
    bool per_slot = eval_type(c, 0).rank == 3;
    EvalWeight w;
    if (!eval_open_weight(c, 1, &w)) return false;
    uint64_t *begin = xrealloc(NULL, experts + 1, sizeof *begin), *order = xrealloc(NULL, n, sizeof *order);
    const float **x = xrealloc(NULL, n, sizeof *x);
    float **y = xrealloc(NULL, n, sizeof *y);
    bool ok = group_slots(c, experts, begin, order);
    for (uint64_t s = 0; s < n && ok; s++) {
        x[s] = c->in[0] + (per_slot ? order[s] : order[s] / k) * w.cols;
        y[s] = out + order[s] * rows;
    }
    for (uint64_t e = 0; e < experts && ok; e++) {
        uint64_t first = begin[e], count = begin[e + 1] - first;
        if (count) ok = eval_matmul(c, &w, e * rows, rows, x + first, y + first, count, NULL);
    }
    free(begin);
    free(order);
    free(x);
    free(y);
    eval_close_weight(&w);
    return ok;
}

bool eval_expert_linear(EvalCall *c) { return expert_matmul(c, c->out[0]); }

bool eval_expert_gate_up(EvalCall *c) {
    uint64_t n = (uint64_t)eval_type(c, 1).dim[1] / 2, slots = eval_rows(c, 2) * eval_last(c, 2);
    EvalFn act = eval_activation(node_name(c->node, "act"));
    float *both = xrealloc(NULL, slots * n * 2, sizeof *both);
    bool ok = expert_matmul(c, both);
    for (uint64_t s = 0; s < slots && ok; s++)
        for (uint64_t i = 0; i < n; i++)
            c->out[0][s * n + i] = act(both[s * 2 * n + i]) * both[s * 2 * n + n + i];
    free(both);
    return ok;
}

bool eval_combine(EvalCall *c) {
    uint64_t n_tok = eval_rows(c, 1), k = eval_last(c, 1), n = eval_last(c, 0);
    for (uint64_t t = 0; t < n_tok; t++)
        for (uint64_t i = 0; i < n; i++) {
            double sum = 0;
            for (uint64_t s = 0; s < k; s++)
                sum += (double)c->in[1][t * k + s] * (double)c->in[0][(t * k + s) * n + i];
            c->out[0][t * n + i] = (float)sum;
        }
    return true;
}
