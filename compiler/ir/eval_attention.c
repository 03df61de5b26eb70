// Reference functions: rotary embedding and attention over one whole sequence.
#include <math.h>
#include <stdlib.h>

#include "compiler/ir/eval_internal.h"
#include "runtime/base/fp.h"
#include "runtime/base/num.h"

// Pairs (i, i + head_dim/2), angle = position * inv_freq in fp32 (rotate-half).
void eval_rope_heads(const float *x, const int32_t *pos, const float *inv_freq, float factor, uint64_t n_tok,
                     uint64_t heads, uint64_t head_dim, float *out) {
    uint64_t half = head_dim / 2;
    for (uint64_t t = 0; t < n_tok; t++)
        for (uint64_t i = 0; i < half; i++) {
            float angle = (float)pos[t] * inv_freq[i];
            float cos_t = cosf(angle) * factor, sin_t = sinf(angle) * factor;
            for (uint64_t h = 0; h < heads; h++) {
                uint64_t at = (t * heads + h) * head_dim + i;
                float a = x[at], b = x[at + half];
                out[at] = a * cos_t - b * sin_t;
                out[at + half] = b * cos_t + a * sin_t;
            }
        }
}

bool eval_rope(EvalCall *c) {
    Type t = eval_type(c, 0);
    eval_rope_heads(c->in[0], (const int32_t *)c->in[1], c->in[2], (float)node_real(c->node, "factor"),
                    eval_dim(c->ev, t.dim[0]), (uint64_t)t.dim[1], (uint64_t)t.dim[2], c->out[0]);
    return true;
}

typedef struct {
    const float *q, *k, *v; // [T, heads, D], [T, kv_heads, D] twice
    const int32_t *pos;
    float *out;
    uint64_t n_tok, heads, kv_heads, head_dim;
    double scale, softcap;
    int64_t window; // 0: none
} Attention;

enum { QUERIES = 8 }; // of one head, for each job

// scores[0..n): the softmax of keys [begin, begin + n) for one query, unnormalised; returns its sum.
static double softmax_keys(const Attention *a, const float *q, uint64_t kv_head, uint64_t begin, uint64_t n,
                           float *scores) {
    float most = -INFINITY;
    double sum = 0;
    for (uint64_t j = 0; j < n; j++) {
        const float *k = a->k + ((begin + j) * a->kv_heads + kv_head) * a->head_dim;
        double s = eval_dot(q, k, a->head_dim) * a->scale;
        if (a->softcap != 0) s = a->softcap * tanh(s / a->softcap);
        scores[j] = (float)s;
        most = MAX(most, scores[j]);
    }
    for (uint64_t j = 0; j < n; j++) {
        scores[j] = expf(scores[j] - most);
        sum += (double)scores[j];
    }
    return sum;
}

static void attend_query(const Attention *a, uint64_t t, uint64_t head, float *scores, double *acc) {
    uint64_t d = a->head_dim, kv_head = head / (a->heads / a->kv_heads), begin = 0, n;
    if (a->window) // key j is seen when j > position - window
        while ((int64_t)a->pos[begin] <= (int64_t)a->pos[t] - a->window) begin++;
    n = t + 1 - begin;
    double sum = softmax_keys(a, a->q + (t * a->heads + head) * d, kv_head, begin, n, scores);
    for (uint64_t i = 0; i < d; i++) acc[i] = 0;
    for (uint64_t j = 0; j < n; j++) {
        const float *v = a->v + ((begin + j) * a->kv_heads + kv_head) * d;
        double p = (double)scores[j];
        for (uint64_t i = 0; i < d; i++) acc[i] += p * (double)v[i];
    }
    float *out = a->out + (t * a->heads + head) * d;
    for (uint64_t i = 0; i < d; i++) out[i] = (float)(acc[i] / sum);
}

static void attend(void *ctx, uint32_t job) {
    const Attention *a = ctx;
    uint64_t blocks = div_up(a->n_tok, QUERIES), head = job / blocks, first = job % blocks * QUERIES;
    float *scores = xrealloc(NULL, a->n_tok, sizeof *scores);
    double *acc = xrealloc(NULL, a->head_dim, sizeof *acc);
    for (uint64_t t = first; t < MIN(first + QUERIES, a->n_tok); t++) attend_query(a, t, head, scores, acc);
    free(scores);
    free(acc);
}

// What the cache gives back for n values, on the heap.
static float *through_cache(const float *x, uint64_t n, double scale) {
    float *y = xrealloc(NULL, n, sizeof *y);
    for (uint64_t i = 0; i < n; i++) y[i] = e4m3_to_f32(f32_to_e4m3(x[i] / (float)scale)) * (float)scale;
    return y;
}

static bool run_attention(EvalCall *c, const float *k, const float *v, uint64_t kv_heads, const float *pos) {
    Type t = eval_type(c, 0);
    Attention a = {.q = c->in[0],
                   .k = k,
                   .v = v,
                   .pos = (const int32_t *)pos,
                   .out = c->out[0],
                   .n_tok = eval_dim(c->ev, t.dim[0]),
                   .heads = (uint64_t)t.dim[1],
                   .kv_heads = kv_heads,
                   .head_dim = (uint64_t)t.dim[2],
                   .scale = node_real(c->node, "scale"),
                   .softcap = node_real(c->node, "softcap"),
                   .window = node_int(c->node, "window")};
    uint64_t jobs = a.heads * div_up(a.n_tok, QUERIES);
    if (jobs > UINT32_MAX)
        return err_set(c->ev->e, E_MEMORY, "attention over %u tokens is too large", c->ev->n);
    float *cached_k = NULL, *cached_v = NULL;
    if (c->ev->kv == EVAL_KV_E4M3) {
        uint64_t n = a.n_tok * a.kv_heads * a.head_dim;
        a.k = cached_k = through_cache(k, n, node_real(c->node, "k_scale"));
        a.v = cached_v = through_cache(v, n, node_real(c->node, "v_scale"));
    }
    pool_run(c->ev->pool, (uint32_t)jobs, attend, &a);
    free(cached_k);
    free(cached_v);
    return true;
}

bool eval_attention(EvalCall *c) {
    return run_attention(c, c->in[1], c->in[2], (uint64_t)eval_type(c, 1).dim[1], c->in[3]);
}

// The value of a `kv` result is k [T, kv_heads, D], then v likewise.
bool eval_paged_attention(EvalCall *c) {
    Type kv = eval_type(c, 1);
    uint64_t half = eval_dim(c->ev, kv.dim[0]) * (uint64_t)kv.dim[1] * (uint64_t)kv.dim[2];
    return run_attention(c, c->in[1], c->in[1] + half, (uint64_t)kv.dim[1], c->in[2]);
}

// Takes `heads` heads from head `first` of every row of qkv, norms them when w is given, and rotates them.
static void rope_part(EvalCall *c, uint64_t first, uint64_t heads, uint64_t head_dim, const float *w,
                      float *out) {
    uint64_t n_tok = eval_rows(c, 0), cols = eval_last(c, 0);
    for (uint64_t t = 0; t < n_tok; t++)
        memcpy(out + t * heads * head_dim, c->in[0] + t * cols + first * head_dim,
               heads * head_dim * sizeof *out);
    if (w) eval_norm_rows(out, w, node_real(c->node, "eps"), n_tok * heads, head_dim, out);
    eval_rope_heads(out, (const int32_t *)c->in[1], c->in[2], (float)node_real(c->node, "factor"), n_tok,
                    heads, head_dim, out);
}

bool eval_rope_write(EvalCall *c) {
    uint64_t hq = (uint64_t)node_int(c->node, "heads"), hkv = (uint64_t)node_int(c->node, "kv_heads");
    uint64_t n_tok = eval_rows(c, 0), cols = eval_last(c, 0), d = cols / (hq + 2 * hkv);
    bool norms = c->node->n_inputs == 5;
    float *v = c->out[1] + n_tok * hkv * d;
    rope_part(c, 0, hq, d, norms ? c->in[3] : NULL, c->out[0]);
    rope_part(c, hq, hkv, d, norms ? c->in[4] : NULL, c->out[1]);
    for (uint64_t t = 0; t < n_tok; t++)
        memcpy(v + t * hkv * d, c->in[0] + t * cols + (hq + hkv) * d, hkv * d * sizeof *v);
    return true;
}
