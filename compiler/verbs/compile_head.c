#include "compiler/verbs/compile_head.h"

#include <math.h>
#include <stdlib.h>

#include "compiler/ir/eval.h"
#include "compiler/verbs/compile_facts.h"
#include "runtime/base/num.h"

enum { POSITIONS_MIN = 8, POSITIONS_MAX = 64 };
#define MEASURE_MACS 12e9 // multiply-adds of a pass, but for the least of positions

// log(sum(exp(x[i]))), and the first place of the maximum.
static double log_sum_exp(const float *x, uint32_t n, uint32_t *first) {
    double sum = 0;
    *first = 0;
    for (uint32_t i = 1; i < n; i++)
        if (x[i] > x[*first]) *first = i;
    for (uint32_t i = 0; i < n; i++) sum += exp((double)x[i] - (double)x[*first]);
    return log(sum) + (double)x[*first];
}

// KL(softmax(p) || softmax(q)) in nats.
static double divergence(const float *p, const float *q, uint32_t n, bool *same_first) {
    uint32_t p_first, q_first;
    double p_log = log_sum_exp(p, n, &p_first), q_log = log_sum_exp(q, n, &q_first), sum = 0;
    *same_first = p_first == q_first;
    for (uint32_t i = 0; i < n; i++) {
        double lp = (double)p[i] - p_log;
        sum += exp(lp) * (lp - ((double)q[i] - q_log));
    }
    return MAX(sum, 0.0); // rounding of equal distributions
}

static void compare(const float *plain, const float *quantized, uint64_t stride, uint32_t vocab,
                    PackHead *out) {
    double sum = 0;
    for (uint32_t i = 0; i < out->positions; i++) {
        bool same;
        double kl = divergence(plain + i * stride, quantized + i * stride, vocab, &same);
        sum += kl, out->kl_max = MAX(out->kl_max, kl);
        out->same_first += same;
    }
    out->kl_mean = sum / out->positions;
}

// The graph before the head was quantised: its weight as stored, and the rows that it reads as they were when
// `gemm: w4a8` has them rounded for NVFP4 weights.
static Graph plain_graph(Arena *a, const Graph *g, const BuilderHead *head) {
    Graph plain = *g;
    plain.weights = ARENA_ARRAY(a, Weight, g->n_weights);
    memcpy(plain.weights, g->weights, g->n_weights * sizeof *g->weights);
    plain.weights[head->id] = head->plain;
    plain.nodes = ARENA_ARRAY(a, Node, g->n_nodes);
    memcpy(plain.nodes, g->nodes, g->n_nodes * sizeof *g->nodes);
    for (NodeId i = 0; i < g->n_nodes; i++) {
        const Node *n = &g->nodes[i];
        if (n->op != OP_linear) continue;
        const Node *x = value_node(g, n->inputs[0]), *w = value_node(g, n->inputs[1]);
        if (x->op != OP_quantize_rows || w->op != OP_weight || node_weight(g, w) != &g->weights[head->id])
            continue;
        ValueId *inputs = ARENA_ARRAY(a, ValueId, n->n_inputs);
        memcpy(inputs, n->inputs, n->n_inputs * sizeof *inputs);
        inputs[0] = x->inputs[0];
        plain.nodes[i].inputs = inputs;
    }
    return plain;
}

bool head_measure(Arena *a, const Model *m, uint32_t vocab, Pool *pool, PackHead *out, Diags *d) {
    *out = (PackHead){.format = m->recipe.head};
    if (m->head.id == NO_ID) return true;
    uint64_t rows = eval_vocab(m->graph);
    double most = MEASURE_MACS / (facts_weights(m->graph) + 1);
    uint32_t n = (uint32_t)MAX(POSITIONS_MIN, MIN(most, POSITIONS_MAX));
    n = MIN(n, (uint32_t)m->recipe.context);
    const int32_t *ids = facts_ids(a, n, (uint32_t)rows);
    Graph plain = plain_graph(a, m->graph, &m->head);
    float *logits = xmalloc(2 * n * rows * sizeof *logits);
    Err e = {0};
    bool ok = eval_graph(&plain, m->source, pool, ids, n, EVAL_KV_E4M3, logits, &e) &&
              eval_graph(m->graph, m->source, pool, ids, n, EVAL_KV_E4M3, logits + n * rows, &e);
    out->positions = n, out->tied = m->head.tied;
    if (ok) compare(logits, logits + n * rows, rows, vocab ? vocab : (uint32_t)rows, out);
    free(logits);
    return ok || diag_err(d, SPAN_NONE, &e);
}
