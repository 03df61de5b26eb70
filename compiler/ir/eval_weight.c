// Reading weights for the evaluator: rows of a stack of parts, cut to one rank's share.
#include <math.h>
#include <stdlib.h>

#include "compiler/ir/eval_internal.h"
#include "runtime/base/num.h"

static bool open_part(EvalCall *c, const Weight *w, uint32_t i, EvalWeight *out) {
    const WeightPart *p = &w->parts[i];
    WeightInfo *info = &out->infos[i];
    Err *e = c->ev->e;
    if (!source_info(c->ev->src, p->tensor, info))
        return err_set(e, E_TENSOR_MISSING, "tensor " STR_FMT " is not in the checkpoint",
                       STR_ARG(p->tensor));
    if (weight_rows(info) != p->rows || weight_cols(info) != p->cols)
        return err_set(e, E_TENSOR_SHAPE, "tensor " STR_FMT " is [%llu,%llu]; the model needs [%llu,%llu]",
                       STR_ARG(p->tensor), (unsigned long long)weight_rows(info),
                       (unsigned long long)weight_cols(info), (unsigned long long)p->rows,
                       (unsigned long long)p->cols);
    if (!part_slice(p, c->rank, c->ev->g->n_ranks, &out->slices[i]))
        return err_set(e, E_SHARD, "tensor " STR_FMT " does not divide over %u ranks", STR_ARG(p->tensor),
                       c->ev->g->n_ranks);
    out->first[i + 1] = out->first[i] + out->slices[i].rows;
    return true;
}

bool eval_open_weight(EvalCall *c, uint32_t input, EvalWeight *out) {
    const Graph *g = c->ev->g;
    const Node *n = value_node(g, c->node->inputs[input]);
    *out = (EvalWeight){0};
    if (n->op != OP_weight)
        return err_set(c->ev->e, E_IR_INVALID, "`%s` wants a weight as input %u, not the result of `%s`",
                       op_name(c->node->op), input + 1, op_name(n->op));
    const Weight *w = out->w = node_weight(g, n);
    uint64_t count;
    type_count(w->type, 1, 1, &count);
    out->cols = (uint64_t)w->type.dim[w->type.rank - 1];
    out->rows = count / out->cols;
    if (!w->n_parts)
        return w->data ||
               err_set(c->ev->e, E_IR_INVALID, "constant `" STR_FMT "` has no data", STR_ARG(w->name));
    out->infos = xrealloc(NULL, w->n_parts, sizeof *out->infos);
    out->slices = xrealloc(NULL, w->n_parts, sizeof *out->slices);
    out->first = xrealloc(NULL, w->n_parts + 1, sizeof *out->first);
    out->first[0] = 0;
    for (uint32_t i = 0; i < w->n_parts; i++)
        if (!open_part(c, w, i, out)) {
            eval_close_weight(out);
            return false;
        }
    return true;
}

void eval_close_weight(EvalWeight *w) {
    free(w->infos);
    free(w->slices);
    free(w->first);
    *w = (EvalWeight){0};
}

// Rows [row, row + n) of one part's slice.
static bool part_rows(const Eval *ev, const EvalWeight *w, uint32_t part, uint64_t row, uint64_t n,
                      float *out, Err *e) {
    const PartSlice *s = &w->slices[part];
    const WeightInfo *info = &w->infos[part];
    uint64_t cols = weight_cols(info);
    if (s->cols == cols) return source_rows_f32(ev->src, info, s->row + row, n, out, e);
    float *whole = xrealloc(NULL, n * cols, sizeof *whole);
    bool ok = source_rows_f32(ev->src, info, s->row + row, n, whole, e);
    for (uint64_t i = 0; i < n && ok; i++)
        memcpy(out + i * s->cols, whole + i * cols + s->col, s->cols * sizeof *out);
    free(whole);
    return ok;
}

static uint32_t find_part(const EvalWeight *w, uint64_t row) {
    uint32_t lo = 0, hi = w->w->n_parts;
    while (hi - lo > 1) {
        uint32_t mid = lo + (hi - lo) / 2;
        if (w->first[mid] <= row)
            lo = mid;
        else
            hi = mid;
    }
    return lo;
}

static bool stacked_rows(const Eval *ev, const EvalWeight *w, uint64_t row, uint64_t n_rows, float *out,
                         Err *e) {
    while (n_rows) {
        uint32_t part = find_part(w, row);
        uint64_t n = MIN(n_rows, w->first[part + 1] - row);
        if (!part_rows(ev, w, part, row - w->first[part], n, out, e)) return false;
        row += n, n_rows -= n, out += n * w->cols;
    }
    return true;
}

bool eval_weight_rows(const Eval *ev, const EvalWeight *w, uint64_t row, uint64_t n_rows, float *out,
                      Err *e) {
    CHECK(range_inside(row, n_rows, w->rows));
    if (w->w->data)
        memcpy(out, w->w->data + row * w->cols, n_rows * w->cols * sizeof *out);
    else if (!stacked_rows(ev, w, row, n_rows, out, e))
        return false;
    if (w->w->add != 0)
        for (uint64_t i = 0; i < n_rows * w->cols; i++) out[i] += w->w->add;
    return true;
}

// Vectors are read whole, their parts end to end; matrices stay where they are.
bool eval_weight(EvalCall *c) {
    EvalWeight w;
    const Weight *weight = node_weight(c->ev->g, c->node);
    bool ok = true;
    if (!c->out[0]) return true;
    ValueId self = c->node->result;
    Node user = *c->node;
    user.inputs = &self, user.n_inputs = 1;
    EvalCall as_input = *c;
    as_input.node = &user;
    if (!eval_open_weight(&as_input, 0, &w)) return false;
    if (weight->data) {
        ok = eval_weight_rows(c->ev, &w, 0, 1, c->out[0], c->ev->e);
    } else {
        float *out = c->out[0];
        for (uint32_t i = 0; i < weight->n_parts && ok; i++) {
            ok = part_rows(c->ev, &w, i, 0, 1, out, c->ev->e);
            out += w.slices[i].cols;
        }
        for (uint64_t i = 0; i < w.cols && ok; i++) c->out[0][i] += weight->add;
    }
    eval_close_weight(&w);
    return ok;
}
