#include "compiler/ir/op.h"

#include "runtime/base/num.h"

// "2" or "2-3": the first and the last digit.
#define ARITY_MIN(text) (uint32_t)((text)[0] - '0')
#define ARITY_MAX(text) (uint32_t)((text)[sizeof(text) - 2] - '0')

#define OP(name, inputs, results, attrs, shape, flags) bool shape_##shape(ShapeQuery *q);
#include "compiler/ir/op.def"
#undef OP

static const OpInfo ops[OP_COUNT] = {
#define OP(name, inputs, results, attrs, shape, flags)                                                       \
    {#name, ARITY_MIN(inputs), ARITY_MAX(inputs), results, attrs, flags, shape_##shape},
#include "compiler/ir/op.def"
#undef OP
};

static const char *const names[OP_COUNT] = {
#define OP(name, ...) #name,
#include "compiler/ir/op.def"
#undef OP
};

static const char *const dtype_names[DT_COUNT] = {"f32", "f16", "bf16", "i32", "nvfp4", "e4m3", "kv"};

const OpInfo *op_info(Op op) {
    CHECK(op < OP_COUNT);
    return &ops[op];
}

const char *const *op_names(void) { return names; }
const char *op_name(Op op) { return op_info(op)->name; }

bool op_find(Str name, Op *out) {
    for (Op op = 0; op < OP_COUNT; op++)
        if (str_is(name, names[op])) {
            *out = op;
            return true;
        }
    return false;
}

bool op_next_attr(const char **cursor, Str *key, AttrKind *kind) {
    const char *s = *cursor;
    while (*s == ' ') s++;
    const char *colon = strchr(s, ':');
    if (!colon) return false;
    *key = (Str){s, (size_t)(colon - s)};
    *kind = colon[1] == 'i' ? ATTR_INT : colon[1] == 'r' ? ATTR_REAL : ATTR_NAME;
    *cursor = colon + 2;
    return true;
}

const char *dtype_name(DType t) {
    CHECK(t < DT_COUNT);
    return dtype_names[t];
}

bool type_eq(Type a, Type b) {
    if (a.dtype != b.dtype || a.rank != b.rank) return false;
    for (uint32_t i = 0; i < a.rank; i++)
        if (a.dim[i] != b.dim[i]) return false;
    return true;
}

void type_print(Type t, StrBuf *out) {
    buf_puts(out, dtype_name(t.dtype));
    for (uint32_t i = 0; i < t.rank; i++) {
        buf_putc(out, i ? ',' : '[');
        if (t.dim[i] == DIM_T)
            buf_putc(out, 'T');
        else if (t.dim[i] == DIM_R)
            buf_putc(out, 'R');
        else
            buf_printf(out, "%lld", (long long)t.dim[i]);
    }
    if (t.rank) buf_putc(out, ']');
}

bool type_count(Type type, uint64_t t, uint64_t r, uint64_t *out) {
    *out = 1;
    for (uint32_t i = 0; i < type.rank; i++) {
        uint64_t dim = type.dim[i] == DIM_T ? t : type.dim[i] == DIM_R ? r : (uint64_t)type.dim[i];
        if (!u64_mul(*out, dim, out)) return false;
    }
    return true;
}

bool part_slice(const WeightPart *p, uint32_t rank, uint32_t n_ranks, PartSlice *out) {
    *out = (PartSlice){0, p->rows, 0, p->cols};
    if (p->rule == SHARD_NONE || n_ranks == 1) return true;
    if (p->rule == SHARD_COLS) {
        out->cols = p->cols / n_ranks, out->col = out->cols * rank;
        return p->cols % n_ranks == 0;
    }
    uint64_t total = p->rows == 1 ? p->cols : p->rows, units = p->units ? p->units : total;
    if (total % units || (units >= n_ranks ? units % n_ranks : n_ranks % units)) return false;
    uint64_t len = total / units * (units >= n_ranks ? units / n_ranks : 1);
    uint64_t first = total / units * (rank * units / n_ranks);
    *out = p->rows == 1 ? (PartSlice){0, 1, first, len} : (PartSlice){first, len, 0, p->cols};
    return true;
}
