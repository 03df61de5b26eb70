// Reference functions: leaves, linears, norms, pointwise ops, ranks.
#include <math.h>
#include <pthread.h>
#include <stdlib.h>

#include "compiler/ir/eval_internal.h"
#include "compiler/passes/fuse.h"
#include "runtime/base/fp.h"
#include "runtime/base/num.h"
#include "templates/lib/abi.h"

// ---- leaves and results --------------------------------------------------------------------------------

bool eval_input(EvalCall *c) {
    int32_t *out = (int32_t *)c->out[0];
    bool ids = !strcmp(node_name(c->node, "name"), "ids");
    for (uint32_t i = 0; i < c->ev->n; i++) out[i] = ids ? c->ev->ids[i] : (int32_t)i;
    return true;
}

bool eval_output(EvalCall *c) {
    (void)c; // its input was computed in place
    return true;
}

bool eval_embed(EvalCall *c) {
    EvalWeight w;
    Err *e = c->ev->e;
    const int32_t *ids = (const int32_t *)c->in[1];
    uint64_t n = eval_last(c, 1);
    if (!eval_open_weight(c, 0, &w)) return false;
    bool ok = true;
    for (uint64_t i = 0; i < n && ok; i++) {
        if (ids[i] < 0 || (uint64_t)ids[i] >= w.rows)
            ok = err_set(e, E_IDS, "token id %d at position %llu is outside the vocabulary of %llu", ids[i],
                         (unsigned long long)i, (unsigned long long)w.rows);
        else
            ok = eval_weight_rows(c->ev, &w, (uint64_t)ids[i], 1, c->out[0] + i * w.cols, e);
    }
    eval_close_weight(&w);
    return ok;
}

// ---- linears -------------------------------------------------------------------------------------------

enum { TILE_ROWS = 16, CARRY = 256, LANES = 8, GROUP = 4 };
typedef float Lanes __attribute__((vector_size(LANES * sizeof(float)), aligned(4), may_alias));

// By pointer: passing vectors by value changes the ABI with the instruction set.
static double sum_lanes(const Lanes *v) {
    double s = 0;
    for (int i = 0; i < LANES; i++) s += (double)(*v)[i];
    return s;
}

// Four products with one vector at once; each is summed exactly as eval_dot sums it.
static void dot_group(const float *w, const float *const *x, uint64_t k, double *out) {
    uint64_t i = 0, whole = k - k % LANES;
    for (int g = 0; g < GROUP; g++) out[g] = 0;
    while (i < whole) {
        uint64_t end = MIN(i + CARRY, whole);
        Lanes a = {0}, b = {0}, c = {0}, d = {0};
        for (; i < end; i += LANES) {
            Lanes v = *(const Lanes *)(w + i);
            a += v * *(const Lanes *)(x[0] + i), b += v * *(const Lanes *)(x[1] + i);
            c += v * *(const Lanes *)(x[2] + i), d += v * *(const Lanes *)(x[3] + i);
        }
        out[0] += sum_lanes(&a), out[1] += sum_lanes(&b), out[2] += sum_lanes(&c), out[3] += sum_lanes(&d);
    }
    for (int g = 0; g < GROUP; g++)
        for (i = whole; i < k; i++) out[g] += (double)w[i] * (double)x[g][i];
}

double eval_dot(const float *x, const float *y, uint64_t k) {
    uint64_t i = 0, whole = k - k % LANES;
    double sum = 0;
    while (i < whole) {
        uint64_t end = MIN(i + CARRY, whole);
        Lanes a = {0};
        for (; i < end; i += LANES) a += *(const Lanes *)(x + i) * *(const Lanes *)(y + i);
        sum += sum_lanes(&a);
    }
    for (; i < k; i++) sum += (double)x[i] * (double)y[i];
    return sum;
}

typedef struct {
    const Eval *ev;
    const EvalWeight *w;
    uint64_t first_row, rows, n;
    const float *const *x;
    float *const *out;
    const float *bias;
    pthread_mutex_t lock;
    uint32_t failed_tile; // lowest; its error is kept, so that the message does not depend on timing
    Err err;
} Matmul;

static void matmul_tile(void *ctx, uint32_t tile) {
    Matmul *m = ctx;
    uint64_t begin = (uint64_t)tile * TILE_ROWS, n_rows = MIN((uint64_t)TILE_ROWS, m->rows - begin);
    uint64_t k = m->w->cols;
    float *rows = xrealloc(NULL, n_rows * k, sizeof *rows);
    Err err = {0};
    if (!eval_weight_rows(m->ev, m->w, m->first_row + begin, n_rows, rows, &err)) {
        pthread_mutex_lock(&m->lock);
        if (tile < m->failed_tile) m->failed_tile = tile, m->err = err;
        pthread_mutex_unlock(&m->lock);
        free(rows);
        return;
    }
    for (uint64_t p = 0; p < m->n; p += GROUP) {
        uint64_t some = MIN((uint64_t)GROUP, m->n - p);
        const float *x[GROUP];
        for (uint64_t g = 0; g < GROUP; g++) x[g] = m->x[p + MIN(g, some - 1)];
        for (uint64_t r = 0; r < n_rows; r++) {
            double sums[GROUP], bias = m->bias ? (double)m->bias[begin + r] : 0;
            dot_group(rows + r * k, x, k, sums);
            for (uint64_t g = 0; g < some; g++) m->out[p + g][begin + r] = (float)(sums[g] + bias);
        }
    }
    free(rows);
}

bool eval_matmul(EvalCall *c, const EvalWeight *w, uint64_t first_row, uint64_t rows, const float *const *x,
                 float *const *out, uint64_t n, const float *bias) {
    Matmul m = {c->ev, w, first_row, rows, n, x, out, bias, PTHREAD_MUTEX_INITIALIZER, UINT32_MAX, {0}};
    CHECK(div_up(rows, TILE_ROWS) < UINT32_MAX);
    pool_run(c->ev->pool, (uint32_t)div_up(rows, TILE_ROWS), matmul_tile, &m);
    if (m.failed_tile == UINT32_MAX) return true;
    *c->ev->e = m.err;
    return false;
}

// out[rows of input 0, rows of the weight] = input 0 times the weight that is input 1.
static bool times_weight(EvalCall *c, const float *bias, float *out) {
    EvalWeight w;
    if (!eval_open_weight(c, 1, &w)) return false;
    uint64_t n = eval_rows(c, 0);
    const float **x = xrealloc(NULL, n, sizeof *x);
    float **y = xrealloc(NULL, n, sizeof *y);
    for (uint64_t i = 0; i < n; i++) x[i] = c->in[0] + i * w.cols, y[i] = out + i * w.rows;
    bool ok = eval_matmul(c, &w, 0, w.rows, x, y, n, bias);
    free(x);
    free(y);
    eval_close_weight(&w);
    return ok;
}

bool eval_linear(EvalCall *c) { return times_weight(c, c->node->n_inputs == 3 ? c->in[2] : NULL, c->out[0]); }

// out[r] = act(gate_up[r][0..n)) * gate_up[r][n..2n)
static void act_mul(const float *gate_up, const char *act, uint64_t rows, uint64_t n, float *out) {
    EvalFn fn = eval_activation(act);
    for (uint64_t r = 0; r < rows; r++, gate_up += 2 * n, out += n)
        for (uint64_t i = 0; i < n; i++) out[i] = fn(gate_up[i]) * gate_up[n + i];
}

bool eval_gate_up(EvalCall *c) {
    uint64_t rows = eval_rows(c, 0), n = (uint64_t)eval_type(c, 1).dim[0] / 2;
    float *both = xrealloc(NULL, rows * n * 2, sizeof *both);
    bool ok = times_weight(c, NULL, both);
    if (ok) act_mul(both, node_name(c->node, "act"), rows, n, c->out[0]);
    free(both);
    return ok;
}

bool eval_act_mul(EvalCall *c) {
    act_mul(c->in[0], node_name(c->node, "act"), eval_rows(c, 0), eval_last(c, 0) / 2, c->out[0]);
    return true;
}

bool eval_quantize_rows(EvalCall *c) {
    uint64_t rows = eval_rows(c, 0), n = eval_last(c, 0);
    const float *x = c->in[0];
    float *out = c->out[0];
    for (uint64_t r = 0; r < rows; r++, x += n, out += n) {
        uint32_t bits = 0; // as integers: a NaN is the largest
        for (uint64_t i = 0; i < n; i++) bits = MAX(bits, f32_bits(x[i]) & 0x7FFFFFFF);
        float most = f32_from_bits(bits);
        bool none = most < QUANTIZE_LEAST;
        float inverse = none ? 0 : QUANTIZE_MOST / most, scale = none ? 0 : most / QUANTIZE_MOST;
        for (uint64_t i = 0; i < n; i++) out[i] = e4m3_to_f32(f32_to_e4m3(x[i] * inverse)) * scale;
    }
    return true;
}

// ---- norms ---------------------------------------------------------------------------------------------

void eval_norm_rows(const float *x, const float *w, double eps, uint64_t rows, uint64_t n, float *out) {
    for (uint64_t r = 0; r < rows; r++, x += n, out += n) {
        double squares = 0;
        for (uint64_t i = 0; i < n; i++) squares += (double)x[i] * (double)x[i];
        double inverse = 1 / sqrt(squares / (double)n + eps);
        for (uint64_t i = 0; i < n; i++) out[i] = (float)((double)x[i] * inverse * (double)w[i]);
    }
}

bool eval_rms_norm(EvalCall *c) {
    eval_norm_rows(c->in[0], c->in[1], node_real(c->node, "eps"), eval_rows(c, 0), eval_last(c, 0),
                   c->out[0]);
    return true;
}

bool eval_norm_add(EvalCall *c) {
    const char *form = node_name(c->node, "form");
    double eps = node_real(c->node, "eps");
    uint64_t rows = eval_rows(c, 0), n = eval_last(c, 0);
    bool post = strcmp(form, FORM_ADD_NORM) != 0, then_norm = strcmp(form, FORM_POST_ADD) != 0;
    const float *branch = c->in[1];
    if (post) {
        eval_norm_rows(branch, c->in[2], eps, rows, n, c->out[1]);
        branch = c->out[1];
    }
    for (uint64_t i = 0; i < rows * n; i++) c->out[0][i] = c->in[0][i] + branch[i];
    if (then_norm)
        eval_norm_rows(c->out[0], c->in[post ? 3 : 2], eps, rows, n, c->out[1]);
    else
        memcpy(c->out[1], c->out[0], rows * n * sizeof(float));
    return true;
}

// ---- pointwise and moves -------------------------------------------------------------------------------

static float silu(float x) { return x / (1 + expf(-x)); }
static float gelu_tanh(float x) { // sqrt(2 / pi)
    return 0.5f * x * (1 + tanhf(0.79788456080286536f * (x + 0.044715f * x * x * x)));
}

EvalFn eval_activation(const char *name) { return !strcmp(name, "silu") ? silu : gelu_tanh; }

static bool map(EvalCall *c, EvalFn fn) {
    uint64_t n = eval_rows(c, 0) * eval_last(c, 0);
    for (uint64_t i = 0; i < n; i++) c->out[0][i] = fn(c->in[0][i]);
    return true;
}

bool eval_silu(EvalCall *c) { return map(c, silu); }
bool eval_gelu_tanh(EvalCall *c) { return map(c, gelu_tanh); }

bool eval_softcap(EvalCall *c) {
    uint64_t n = eval_rows(c, 0) * eval_last(c, 0);
    float cap = (float)node_real(c->node, "cap");
    for (uint64_t i = 0; i < n; i++) c->out[0][i] = cap * tanhf(c->in[0][i] / cap);
    return true;
}

bool eval_scale(EvalCall *c) {
    uint64_t n = eval_rows(c, 0) * eval_last(c, 0);
    float by = (float)node_real(c->node, "by");
    for (uint64_t i = 0; i < n; i++) c->out[0][i] = c->in[0][i] * by;
    return true;
}

bool eval_add_scalar(EvalCall *c) {
    uint64_t n = eval_rows(c, 0) * eval_last(c, 0);
    float by = (float)node_real(c->node, "by");
    for (uint64_t i = 0; i < n; i++) c->out[0][i] = c->in[0][i] + by;
    return true;
}

// Input 1 has the shape of input 0, or is one row of it.
bool eval_add(EvalCall *c) {
    uint64_t n = eval_rows(c, 0) * eval_last(c, 0), m = eval_rows(c, 1) * eval_last(c, 1);
    for (uint64_t i = 0; i < n; i++) c->out[0][i] = c->in[0][i] + c->in[1][i % m];
    return true;
}

bool eval_mul(EvalCall *c) {
    uint64_t n = eval_rows(c, 0) * eval_last(c, 0), m = eval_rows(c, 1) * eval_last(c, 1);
    for (uint64_t i = 0; i < n; i++) c->out[0][i] = c->in[0][i] * c->in[1][i % m];
    return true;
}

static bool copy(EvalCall *c) { // the same values under another shape
    memcpy(c->out[0], c->in[0], eval_rows(c, 0) * eval_last(c, 0) * sizeof(float));
    return true;
}

bool eval_split_heads(EvalCall *c) { return copy(c); }
bool eval_merge_heads(EvalCall *c) { return copy(c); }

bool eval_gather_rows(EvalCall *c) {
    const int32_t *rows = (const int32_t *)c->in[1];
    uint64_t n = eval_last(c, 0), n_rows = eval_last(c, 1);
    for (uint64_t i = 0; i < n_rows; i++)
        memcpy(c->out[0] + i * n, c->in[0] + (uint64_t)rows[i] * n, n * sizeof(float));
    return true;
}

// Columns [begin, begin + n) of out, which has `cols`, become x[rows, n].
static void put_columns(const float *x, uint64_t rows, uint64_t n, float *out, uint64_t begin,
                        uint64_t cols) {
    for (uint64_t r = 0; r < rows; r++) memcpy(out + r * cols + begin, x + r * n, n * sizeof *out);
}

bool eval_join(EvalCall *c) {
    uint64_t rows = eval_rows(c, 0), cols = 0, begin = 0;
    for (uint32_t i = 0; i < c->node->n_inputs; i++) cols += eval_last(c, i);
    for (uint32_t i = 0; i < c->node->n_inputs; begin += eval_last(c, i++))
        put_columns(c->in[i], rows, eval_last(c, i), c->out[0], begin, cols);
    return true;
}

// ---- ranks ---------------------------------------------------------------------------------------------

bool eval_all_reduce(EvalCall *c) {
    uint64_t n = eval_rows(c, 0) * eval_last(c, 0);
    memcpy(c->out[0], eval_value(c->ev, c->node->inputs[0], 0), n * sizeof(float));
    for (uint32_t r = 1; r < c->ev->g->n_ranks; r++) {
        const float *x = eval_value(c->ev, c->node->inputs[0], r);
        for (uint64_t i = 0; i < n; i++) c->out[0][i] += x[i];
    }
    return true;
}

bool eval_all_gather(EvalCall *c) {
    uint64_t rows = eval_rows(c, 0), n = eval_last(c, 0), ranks = c->ev->g->n_ranks;
    for (uint32_t r = 0; r < ranks; r++)
        put_columns(eval_value(c->ev, c->node->inputs[0], r), rows, n, c->out[0], r * n, n * ranks);
    return true;
}
