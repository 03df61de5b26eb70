// Shape rules, one function each, named by op.def. They read q->in and q->attrs and write q->out.
#include "compiler/ir/op.h"
#include "compiler/passes/fuse.h"
#include "runtime/base/num.h"

#define OP(name, inputs, results, attrs, shape, flags) bool shape_##shape(ShapeQuery *q);
#include "compiler/ir/op.def"
#undef OP

static const char *type_text(ShapeQuery *q, Type t) {
    StrBuf b = {0};
    type_print(t, &b);
    const char *s = arena_strdup(q->d->arena, buf_cstr(&b));
    buf_free(&b);
    return s;
}

// "`linear`: input 2 is f32[4], but must be ..."
static bool wrong(ShapeQuery *q, uint32_t input, const char *expected) {
    return diag_error(q->d, E_IR_INVALID, q->at, "%s: input %u is %s, but must be %s", q->what, input + 1,
                      type_text(q, q->in[input]), expected);
}

static const Attr *attr(const ShapeQuery *q, const char *key) {
    const char *cursor = op_info(q->op)->attrs;
    Str k;
    AttrKind kind;
    for (uint32_t i = 0; op_next_attr(&cursor, &k, &kind); i++)
        if (str_is(k, key)) return &q->attrs[i];
    CHECK(!"an attribute that op.def declares");
    return NULL;
}

static bool wrong_attr(ShapeQuery *q, const char *key, const char *expected) {
    const Attr *a = attr(q, key);
    if (a->kind == ATTR_NAME)
        return diag_error(q->d, E_IR_INVALID, q->at, "%s: `%s` is `%s`, but must be %s", q->what, key,
                          a->name, expected);
    if (a->kind == ATTR_REAL)
        return diag_error(q->d, E_IR_INVALID, q->at, "%s: `%s` is %g, but must be %s", q->what, key, a->real,
                          expected);
    return diag_error(q->d, E_IR_INVALID, q->at, "%s: `%s` is %lld, but must be %s", q->what, key,
                      (long long)a->i, expected);
}

static bool is_real(DType t) { return t == DT_F32 || t == DT_F16 || t == DT_BF16; }
static bool is_weight(DType t) { return is_real(t) || t == DT_NVFP4 || t == DT_E4M3; }
static bool fixed(int64_t dim) { return dim > 0; }
static int64_t last(Type t) { return t.dim[t.rank - 1]; }

// Activations: f32 of one of the ranks, with a fixed last dimension.
static bool active(ShapeQuery *q, uint32_t i, uint32_t rank_min, uint32_t rank_max) {
    Type t = q->in[i];
    if (t.dtype == DT_F32 && t.rank >= rank_min && t.rank <= rank_max && fixed(last(t))) return true;
    return wrong(q, i,
                 arena_printf(q->d->arena, "f32 with %u%s dimensions, the last one fixed", rank_min,
                              rank_max > rank_min ? " or more" : ""));
}

static bool vector(ShapeQuery *q, uint32_t i, int64_t n) {
    Type t = q->in[i];
    if (is_real(t.dtype) && t.rank == 1 && t.dim[0] == n) return true;
    return wrong(q, i, arena_printf(q->d->arena, "a vector of %lld numbers", (long long)n));
}

// i32 [first] or [first, n].
static bool integers(ShapeQuery *q, uint32_t i, uint32_t rank, int64_t first) {
    Type t = q->in[i];
    if (t.dtype == DT_I32 && t.rank == rank && t.dim[0] == first) return true;
    Type want = {DT_I32, 1, {first}};
    return wrong(q, i,
                 rank == 1 ? type_text(q, want)
                           : arena_printf(q->d->arena,
                                          "i32 with %u dimensions, the first like that of input 1", rank));
}

static bool matrix(ShapeQuery *q, uint32_t i, uint32_t rank, int64_t cols) {
    Type t = q->in[i];
    if (is_weight(t.dtype) && t.rank == rank && fixed(t.dim[0]) && (cols < 0 || last(t) == cols)) return true;
    if (cols < 0) return wrong(q, i, arena_printf(q->d->arena, "a weight of %u dimensions", rank));
    return wrong(
        q, i,
        arena_printf(q->d->arena, "a weight of %u dimensions with %lld columns", rank, (long long)cols));
}

static bool positive(ShapeQuery *q, const char *key) {
    return attr(q, key)->i > 0 || wrong_attr(q, key, "positive");
}

static bool one_of(ShapeQuery *q, const char *key, const char *const *names, size_t n) {
    const char *got = attr(q, key)->name;
    for (size_t i = 0; i < n; i++)
        if (!strcmp(got, names[i])) return true;
    diag_error(q->d, E_IR_INVALID, q->at, "%s: unknown `%s` `%s`", q->what, key, got);
    diag_did_you_mean(q->d, str_of(got), names, n);
    return false;
}

static bool activation(ShapeQuery *q) {
    static const char *const names[] = {"silu", "gelu_tanh"};
    return one_of(q, "act", names, COUNT_OF(names));
}

bool shape_infer(ShapeQuery *q) {
    const OpInfo *op = op_info(q->op);
    if (q->n_in < op->min_inputs || q->n_in > op->max_inputs)
        return op->min_inputs == op->max_inputs
                   ? diag_error(q->d, E_IR_INVALID, q->at, "%s has %u inputs, but takes %u", q->what, q->n_in,
                                op->min_inputs)
                   : diag_error(q->d, E_IR_INVALID, q->at, "%s has %u inputs, but takes %u to %u", q->what,
                                q->n_in, op->min_inputs, op->max_inputs);
    memset(q->out, 0, sizeof q->out);
    return op->shape(q);
}

// ---- leaves and results --------------------------------------------------------------------------------

bool shape_input(ShapeQuery *q) {
    static const char *const names[] = {"ids", "pos", "rows"};
    if (!one_of(q, "name", names, COUNT_OF(names))) return false;
    q->out[0] = (Type){DT_I32, 1, {strcmp(attr(q, "name")->name, "rows") ? DIM_T : DIM_R}};
    return true;
}

bool shape_weight(ShapeQuery *q) {
    const char *name = attr(q, "name")->name;
    WeightId id = graph_find_weight(q->g, str_of(name));
    if (id == NO_ID)
        return diag_error(q->d, E_IR_INVALID, q->at, "%s: no weight is called `%s`", q->what, name);
    q->out[0] = q->g->weights[id].type;
    return true;
}

bool shape_output(ShapeQuery *q) { return active(q, 0, 2, 2); }

// ---- dense ---------------------------------------------------------------------------------------------

bool shape_embed(ShapeQuery *q) {
    if (!matrix(q, 0, 2, -1)) return false;
    if (q->in[1].dtype != DT_I32 || q->in[1].rank != 1) return wrong(q, 1, "i32[T]");
    q->out[0] = (Type){DT_F32, 2, {q->in[1].dim[0], q->in[0].dim[1]}};
    return true;
}

bool shape_linear(ShapeQuery *q) {
    if (!active(q, 0, 2, 3) || !matrix(q, 1, 2, last(q->in[0]))) return false;
    if (q->n_in == 3 && !vector(q, 2, q->in[1].dim[0])) return false;
    q->out[0] = q->in[0];
    q->out[0].dim[q->in[0].rank - 1] = q->in[1].dim[0];
    return true;
}

bool shape_rms_norm(ShapeQuery *q) {
    if (!active(q, 0, 1, RANK_MAX) || !vector(q, 1, last(q->in[0]))) return false;
    q->out[0] = q->in[0];
    return true;
}

bool shape_same(ShapeQuery *q) {
    if (!is_real(q->in[0].dtype)) return wrong(q, 0, "f32, f16 or bf16");
    q->out[0] = q->in[0];
    return true;
}

bool shape_same2(ShapeQuery *q) {
    if (!active(q, 0, 1, RANK_MAX)) return false;
    if (!type_eq(q->in[0], q->in[1]) && !vector(q, 1, last(q->in[0]))) return false;
    q->out[0] = q->in[0];
    return true;
}

bool shape_split_heads(ShapeQuery *q) {
    if (!active(q, 0, 2, 2) || !positive(q, "heads")) return false;
    int64_t heads = attr(q, "heads")->i, n = q->in[0].dim[1];
    if (n % heads)
        return wrong_attr(q, "heads", arena_printf(q->d->arena, "a divisor of %lld", (long long)n));
    q->out[0] = (Type){DT_F32, 3, {q->in[0].dim[0], heads, n / heads}};
    return true;
}

bool shape_merge_heads(ShapeQuery *q) {
    if (!active(q, 0, 3, 3)) return false;
    Type t = q->in[0];
    int64_t n;
    if (!fixed(t.dim[1]) || __builtin_mul_overflow(t.dim[1], t.dim[2], &n))
        return wrong(q, 0, "f32[T,heads,head_dim]");
    q->out[0] = (Type){DT_F32, 2, {t.dim[0], n}};
    return true;
}

bool shape_gather_rows(ShapeQuery *q) {
    if (!active(q, 0, 2, 2)) return false;
    if (q->in[1].dtype != DT_I32 || q->in[1].rank != 1) return wrong(q, 1, "i32[R]");
    q->out[0] = (Type){DT_F32, 2, {q->in[1].dim[0], q->in[0].dim[1]}};
    return true;
}

// ---- attention -----------------------------------------------------------------------------------------

bool shape_rope(ShapeQuery *q) {
    if (!active(q, 0, 3, 3) || !integers(q, 1, 1, q->in[0].dim[0])) return false;
    if (last(q->in[0]) % 2) return wrong(q, 0, "of even head_dim");
    if (!vector(q, 2, last(q->in[0]) / 2)) return false;
    q->out[0] = q->in[0];
    return true;
}

static bool heads_match(ShapeQuery *q, Type kv) {
    Type x = q->in[0];
    if (kv.rank != 3 || kv.dim[0] != x.dim[0] || !fixed(kv.dim[1]) || last(kv) != last(x) ||
        x.dim[1] % kv.dim[1])
        return wrong(
            q, 1, "[T,kv heads,head_dim] with the tokens and head_dim of input 1 and a divisor of its heads");
    return attr(q, "window")->i >= 0 || wrong_attr(q, "window", "0 (none) or positive");
}

bool shape_attention(ShapeQuery *q) {
    if (!active(q, 0, 3, 3) || !active(q, 1, 3, 3) || !heads_match(q, q->in[1])) return false;
    if (!type_eq(q->in[1], q->in[2])) return wrong(q, 2, type_text(q, q->in[1]));
    if (!integers(q, 3, 1, q->in[0].dim[0])) return false;
    q->out[0] = q->in[0];
    return true;
}

bool shape_rope_write(ShapeQuery *q) {
    if (!active(q, 0, 2, 2) || !integers(q, 1, 1, q->in[0].dim[0])) return false;
    if (!positive(q, "heads") || !positive(q, "kv_heads")) return false;
    int64_t hq = attr(q, "heads")->i, hkv = attr(q, "kv_heads")->i, n = q->in[0].dim[1];
    if (hq > n || hkv > n || n % (hq + 2 * hkv) || n / (hq + 2 * hkv) % 2)
        return wrong(q, 0, "f32[T,(heads + 2 kv_heads) * head_dim] with an even head_dim");
    int64_t head_dim = n / (hq + 2 * hkv);
    if (!vector(q, 2, head_dim / 2)) return false;
    if (q->n_in == 4) return wrong(q, 3, "followed by the norm of k");
    if (q->n_in == 5 && (!vector(q, 3, head_dim) || !vector(q, 4, head_dim))) return false;
    if (attr(q, "window")->i < 0) return wrong_attr(q, "window", "0 (none) or positive");
    q->out[0] = (Type){DT_F32, 3, {q->in[0].dim[0], hq, head_dim}};
    q->out[1] = (Type){DT_KV, 3, {q->in[0].dim[0], hkv, head_dim}};
    return true;
}

bool shape_paged_attention(ShapeQuery *q) {
    if (!active(q, 0, 3, 3)) return false;
    if (q->in[1].dtype != DT_KV) return wrong(q, 1, "a written cache (kv)");
    if (!heads_match(q, q->in[1]) || !integers(q, 2, 1, q->in[0].dim[0])) return false;
    q->out[0] = q->in[0];
    return true;
}

// ---- mixture of experts --------------------------------------------------------------------------------

bool shape_route_ids(ShapeQuery *q) {
    if (!active(q, 0, 2, 2)) return false;
    int64_t k = attr(q, "k")->i;
    if (k < 1 || k > q->in[0].dim[1])
        return wrong_attr(q, "k", arena_printf(q->d->arena, "from 1 to %lld", (long long)q->in[0].dim[1]));
    q->out[0] = (Type){DT_I32, 2, {q->in[0].dim[0], k}};
    return true;
}

bool shape_route_weights(ShapeQuery *q) {
    if (!active(q, 0, 2, 2) || !integers(q, 1, 2, q->in[0].dim[0])) return false;
    q->out[0] = (Type){DT_F32, 2, {q->in[1].dim[0], q->in[1].dim[1]}};
    return true;
}

// x [T,K] or [T,k,K], w [E,N,K], ids [T,k].
static bool expert_inputs(ShapeQuery *q) {
    if (!active(q, 0, 2, 3) || !matrix(q, 1, 3, last(q->in[0])) || !integers(q, 2, 2, q->in[0].dim[0]))
        return false;
    if (q->in[0].rank == 3 && q->in[0].dim[1] != q->in[2].dim[1])
        return wrong(q, 0, "f32[T,k,K] with the k of input 3");
    return true;
}

bool shape_expert_linear(ShapeQuery *q) {
    if (!expert_inputs(q)) return false;
    q->out[0] = (Type){DT_F32, 3, {q->in[0].dim[0], q->in[2].dim[1], q->in[1].dim[1]}};
    return true;
}

bool shape_combine(ShapeQuery *q) {
    if (!active(q, 0, 3, 3)) return false;
    Type want = {DT_F32, 2, {q->in[0].dim[0], q->in[0].dim[1]}};
    if (!type_eq(q->in[1], want)) return wrong(q, 1, type_text(q, want));
    q->out[0] = (Type){DT_F32, 2, {q->in[0].dim[0], q->in[0].dim[2]}};
    return true;
}

// ---- ranks ---------------------------------------------------------------------------------------------

bool shape_all_gather(ShapeQuery *q) {
    if (!active(q, 0, 1, RANK_MAX)) return false;
    q->out[0] = q->in[0];
    int64_t *n = &q->out[0].dim[q->in[0].rank - 1];
    if (__builtin_mul_overflow(*n, (int64_t)q->g->n_ranks, n)) return wrong(q, 0, "smaller");
    return true;
}

// ---- fused ---------------------------------------------------------------------------------------------

bool shape_norm_add(ShapeQuery *q) {
    static const char *const forms[] = {FORM_ADD_NORM, FORM_POST_ADD_NORM, FORM_POST_ADD};
    const char *form = attr(q, "form")->name;
    if (!one_of(q, "form", forms, COUNT_OF(forms)) || !active(q, 0, 2, 2)) return false;
    uint32_t n = strcmp(form, FORM_POST_ADD_NORM) ? 3 : 4;
    if (q->n_in != n)
        return diag_error(q->d, E_IR_INVALID, q->at, "%s: form %s takes %u inputs, not %u", q->what, form, n,
                          q->n_in);
    if (!type_eq(q->in[0], q->in[1])) return wrong(q, 1, type_text(q, q->in[0]));
    for (uint32_t i = 2; i < n; i++)
        if (!vector(q, i, last(q->in[0]))) return false;
    q->out[0] = q->out[1] = q->in[0];
    return true;
}

bool shape_join(ShapeQuery *q) {
    int64_t n = 0;
    for (uint32_t i = 0; i < q->n_in; i++) {
        if (!active(q, i, 2, 2)) return false;
        if (q->in[i].dim[0] != q->in[0].dim[0]) return wrong(q, i, "with the first dimension of input 1");
        if (__builtin_add_overflow(n, last(q->in[i]), &n)) return wrong(q, i, "smaller");
    }
    q->out[0] = (Type){DT_F32, 2, {q->in[0].dim[0], n}};
    return true;
}

bool shape_act_mul(ShapeQuery *q) {
    if (!active(q, 0, 2, 2) || !activation(q)) return false;
    if (last(q->in[0]) % 2) return wrong(q, 0, "of an even number of columns (gate, then up)");
    q->out[0] = (Type){DT_F32, 2, {q->in[0].dim[0], last(q->in[0]) / 2}};
    return true;
}

bool shape_gate_up(ShapeQuery *q) {
    if (!active(q, 0, 2, 2) || !matrix(q, 1, 2, last(q->in[0])) || !activation(q)) return false;
    if (q->in[1].dim[0] % 2) return wrong(q, 1, "of an even number of rows (gate, then up)");
    q->out[0] = (Type){DT_F32, 2, {q->in[0].dim[0], q->in[1].dim[0] / 2}};
    return true;
}

bool shape_expert_gate_up(ShapeQuery *q) {
    if (!expert_inputs(q) || !activation(q)) return false;
    if (q->in[1].dim[1] % 2) return wrong(q, 1, "of an even number of rows an expert (gate, then up)");
    q->out[0] = (Type){DT_F32, 3, {q->in[0].dim[0], q->in[2].dim[1], q->in[1].dim[1] / 2}};
    return true;
}
