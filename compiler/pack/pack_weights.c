#include "compiler/pack/pack_weights.h"

#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "compiler/pack/layout.h"
#include "runtime/base/fp.h"
#include "runtime/base/num.h"

#define NVFP4_LARGEST (6.0f * 448.0f) // of a code times a block scale
enum { BINDING_ALIGN = 256, TASK_BYTES = 256 << 10, GROUP_BYTES = 16 << 20 };

// ---- placing ---------------------------------------------------------------------------------------------

static const Weight *graph_weight(const Plan *p, const PlanWeight *w) {
    return &p->graph->weights[w->weight];
}

// Vectors stand end to end in one row; matrices are stacked along rows.
static bool is_vector(const Weight *g) { return g->type.rank == 1; }

static bool same_slices(const Plan *p, const PlanWeight *w, uint32_t a, uint32_t b) {
    const Weight *g = graph_weight(p, w);
    for (uint32_t i = 0; i < g->n_parts; i++) {
        PartSlice x, y;
        if (!part_slice(&g->parts[i], a, p->n_ranks, &x) || !part_slice(&g->parts[i], b, p->n_ranks, &y))
            return false;
        if (x.row != y.row || x.rows != y.rows) return false;
        bool cols_matter = w->kind == PLAN_WEIGHT_VALUES;
        if (cols_matter && (x.col != y.col || x.cols != y.cols)) return false;
    }
    return true;
}

static uint64_t constant_size(const Weight *g) {
    uint64_t n = 1;
    for (uint32_t i = 0; i < g->type.rank; i++)
        n *= (uint64_t)g->type.dim[i]; // a built graph: dimensions are sane
    return n;
}

// Whether the rows that the parts give are the stack x rows x cols that the plan says.
static bool parts_fit(const Plan *p, const PlanWeight *w, uint32_t rank) {
    const Weight *g = graph_weight(p, w);
    uint64_t want = w->rows * w->stack, have = 0;
    if (w->kind == PLAN_WEIGHT_BOUND) return g->n_parts > 0;
    bool scales = w->kind == PLAN_WEIGHT_ROW_SCALES, vector = is_vector(g) && !scales;
    if (!g->n_parts) return g->data && (scales || constant_size(g) == want * w->cols);
    for (uint32_t i = 0; i < g->n_parts; i++) {
        PartSlice s;
        if (!part_slice(&g->parts[i], rank, p->n_ranks, &s)) return false;
        if (vector ? s.rows != 1 : !scales && s.cols != w->cols) return false;
        have += vector ? s.cols : s.rows;
    }
    return vector ? want == 1 && have == w->cols : have == want;
}

static bool check_weight(const Plan *p, const PlanWeight *w, Diags *d) {
    uint64_t one, all;
    bool scales = w->kind == PLAN_WEIGHT_ROW_SCALES;
    if (!w->rows || !w->cols || !w->stack || !layout_bytes(w->layout, w->rows, w->cols, &one) ||
        !u64_mul(one, w->stack, &all) || all != w->bytes ||
        (scales && (w->cols != 1 || w->layout != ADA_LAYOUT_ROWS_F32)))
        return diag_error(
            d, E_PLAN_INVALID, SPAN_NONE, "weight %s: %llu x %llu x %llu in layout %s are not %llu bytes",
            w->name, (unsigned long long)w->stack, (unsigned long long)w->rows, (unsigned long long)w->cols,
            layout_info(w->layout)->name, (unsigned long long)w->bytes);
    for (uint32_t r = 0; r < p->n_ranks; r++)
        if (!parts_fit(p, w, r))
            return diag_error(d, E_PLAN_INVALID, SPAN_NONE,
                              "weight %s: its parts do not give rank %u %llu x %llu x %llu", w->name, r,
                              (unsigned long long)w->stack, (unsigned long long)w->rows,
                              (unsigned long long)w->cols);
    return true;
}

const AdaBinding *weights_place(Arena *a, const Plan *p, uint64_t *total, Diags *d) {
    AdaBinding *bindings = ARENA_ARRAY(a, AdaBinding, (size_t)p->n_weights * p->n_ranks + 1);
    uint64_t at = 0;
    bool ok = true;
    for (uint32_t i = 0; i < p->n_weights; i++) {
        const PlanWeight *w = &p->weights[i];
        AdaBinding *row = &bindings[(size_t)i * p->n_ranks];
        if (!check_weight(p, w, d)) ok = false;
        for (uint32_t r = 0; ok && r < p->n_ranks; r++) {
            uint32_t twin = 0;
            while (twin < r && !same_slices(p, w, twin, r)) twin++;
            row[r] = twin < r ? row[twin] : (AdaBinding){at, w->bytes};
            if (twin == r) at = round_up(at + w->bytes, BINDING_ALIGN);
        }
    }
    *total = at;
    return ok ? bindings : NULL;
}

// ---- reading rows ----------------------------------------------------------------------------------------

typedef struct {
    WeightInfo info;
    PartSlice slice;
    uint64_t first; // its first row (of a vector: element) in the weight
} Piece;

// One weight of one rank on its way into the file.
typedef struct {
    const PlanWeight *w;
    const Weight *g;
    const LayoutInfo *layout;
    float row_factor; // of ROW_SCALES, for rows that have no scale of their own
    WeightSource *src;
    Piece *pieces;                                 // [g->n_parts]
    uint64_t tile_bytes, tiles, task_tiles, tasks; // of one stack; tasks of all stacks
    uint64_t task0;                                // first task of the current group
    uint8_t *out; // task i of the group writes at i * task_tiles * tile_bytes
    Err *errors;  // [tasks of a group]
    _Atomic uint64_t read_bytes;
} Stream;

static bool read_nvfp4(Stream *s, const Piece *p, uint64_t row, uint64_t n, uint8_t *codes, uint8_t *scales,
                       Err *e) {
    uint64_t all = weight_cols(&p->info), cols = s->w->cols;
    if (all == cols) return source_rows_nvfp4(s->src, &p->info, row, n, codes, scales, e);
    uint8_t *tmp = xmalloc(n * (all / 2 + all / 16));
    uint8_t *tmp_scales = tmp + n * (all / 2);
    bool ok = source_rows_nvfp4(s->src, &p->info, row, n, tmp, tmp_scales, e);
    for (uint64_t r = 0; ok && r < n; r++) {
        memcpy(codes + r * (cols / 2), tmp + r * (all / 2) + p->slice.col / 2, cols / 2);
        memcpy(scales + r * (cols / 16), tmp_scales + r * (all / 16) + p->slice.col / 16, cols / 16);
    }
    free(tmp);
    return ok;
}

static bool read_e4m3(Stream *s, const Piece *p, uint64_t row, uint64_t n, uint8_t *codes, Err *e) {
    uint64_t all = weight_cols(&p->info), cols = s->w->cols;
    float *scales = xmalloc(n * (sizeof *scales + all));
    uint8_t *tmp = (uint8_t *)(scales + n);
    bool ok = source_rows_e4m3(s->src, &p->info, row, n, tmp, scales, e);
    for (uint64_t r = 0; ok && r < n; r++) memcpy(codes + r * cols, tmp + r * all + p->slice.col, cols);
    free(scales);
    return ok;
}

// The factors of rows: the global scale of NVFP4, E4M3's own of each row, else what undoes the layout's.
static bool read_scales(Stream *s, const Piece *p, uint64_t row, uint64_t n, float *out, Err *e) {
    if (p->info.format == WF_E4M3) {
        uint8_t *codes = xmalloc(n * weight_cols(&p->info) + 1);
        bool ok = source_rows_e4m3(s->src, &p->info, row, n, codes, out, e);
        free(codes);
        return ok;
    }
    float factor = p->info.format == WF_NVFP4 ? p->info.global : s->row_factor;
    for (uint64_t r = 0; r < n; r++) out[r] = factor;
    return true;
}

// False when fp16 cannot hold the value.
static bool put_value(const Stream *s, float x, uint8_t *out) {
    WeightFormat format = s->layout->format;
    x *= layout_factor(s->layout->layout);
    uint16_t half = format == WF_F16 ? f32_to_f16(x) : f32_to_bf16(x);
    if (format == WF_F32)
        memcpy(out, &x, 4);
    else
        memcpy(out, &half, 2);
    return format != WF_F16 || x != x || (half & 0x7FFF) < 0x7C00;
}

// [n, cols] values of the piece in the layout's format, from column `col` of the stored rows.
static bool read_values(Stream *s, const Piece *p, uint64_t row, uint64_t n, uint64_t cols, uint8_t *out,
                        Err *e) {
    uint64_t all = weight_cols(&p->info), size = layout_value_bytes(s->layout->format);
    bool raw = p->info.format == s->layout->format && s->g->add == 0 && layout_factor(s->layout->layout) == 1;
    if (raw && all == cols) return source_rows_raw(s->src, &p->info, row, n, out, e);
    uint64_t from = raw ? size : 4;
    uint8_t *tmp = xmalloc(n * all * from);
    bool ok = raw ? source_rows_raw(s->src, &p->info, row, n, tmp, e)
                  : source_rows_f32(s->src, &p->info, row, n, (float *)(void *)tmp, e);
    for (uint64_t r = 0; ok && r < n; r++) {
        const uint8_t *in = tmp + (r * all + p->slice.col) * from;
        if (raw) {
            memcpy(out + r * cols * size, in, cols * size);
            continue;
        }
        for (uint64_t c = 0; c < cols; c++) {
            float x;
            memcpy(&x, in + c * 4, 4);
            if (!put_value(s, x + s->g->add, out + (r * cols + c) * size))
                ok = err_set(e, E_NUMERIC, "weight %s: a value of %g is too large for layout %s", s->w->name,
                             (double)x, s->layout->name);
        }
    }
    free(tmp);
    return ok;
}

static void constant_values(const Stream *s, uint64_t first, uint64_t n, uint8_t *out) {
    uint64_t size = layout_value_bytes(s->layout->format);
    for (uint64_t i = 0; i < n; i++) put_value(s, s->g->data[first + i] + s->g->add, out + i * size);
}

// Calls for every piece that rows [row, row + n) of the weight touch. in: codes or values; scales: NVFP4.
static bool read_rows(Stream *s, uint64_t row, uint64_t n, uint8_t *in, uint8_t *scales, Err *e) {
    uint64_t cols = s->w->cols, size = layout_value_bytes(s->layout->format);
    if (s->w->kind == PLAN_WEIGHT_VALUES && !s->g->n_parts) {
        constant_values(s, row * cols, n * cols, in);
        return true;
    }
    for (uint32_t i = 0; i < s->g->n_parts; i++) {
        const Piece *p = &s->pieces[i];
        uint64_t begin = MAX(row, p->first), end = MIN(row + n, p->first + p->slice.rows);
        if (begin >= end) continue;
        uint64_t from = p->slice.row + begin - p->first, count = end - begin, at = begin - row;
        bool ok = true;
        if (s->w->kind == PLAN_WEIGHT_ROW_SCALES) {
            ok = read_scales(s, p, from, count, (float *)(void *)in + at, e);
        } else if (s->layout->format == WF_NVFP4) {
            ok = read_nvfp4(s, p, from, count, in + at * (cols / 2), scales + at * (cols / 16), e);
        } else if (s->layout->format == WF_E4M3) {
            ok = read_e4m3(s, p, from, count, in + at * cols, e);
        } else {
            ok = read_values(s, p, from, count, cols, in + at * cols * size, e);
        }
        if (!ok) return false;
        if (s->w->kind == PLAN_WEIGHT_VALUES)
            s->read_bytes += count * (weight_row_bytes(&p->info) +
                                      (p->info.format == WF_NVFP4 ? weight_cols(&p->info) / 16 : 0));
    }
    return true;
}

static bool read_vector(Stream *s, uint8_t *in, Err *e) {
    uint64_t size = layout_value_bytes(s->layout->format);
    if (!s->g->n_parts) constant_values(s, 0, s->w->cols, in);
    for (uint32_t i = 0; i < s->g->n_parts; i++) {
        const Piece *p = &s->pieces[i];
        if (!read_values(s, p, 0, 1, p->slice.cols, in + p->first * size, e)) return false;
        s->read_bytes += weight_row_bytes(&p->info);
    }
    return true;
}

// ---- packing tiles ---------------------------------------------------------------------------------------

// Rows [row, row + n) of a stack, each row of codes or values and scales behind them.
typedef struct {
    uint8_t *in, *scales;
    uint64_t row_bytes, scale_bytes;
} Rows;

static Rows rows_new(const Stream *s, uint64_t n) {
    uint64_t cols = s->w->cols;
    bool nvfp4 = s->layout->format == WF_NVFP4;
    Rows r = {.row_bytes = nvfp4 ? cols / 2 : cols * layout_value_bytes(s->layout->format),
              .scale_bytes = nvfp4 ? cols / 16 : 0};
    r.in = xmalloc(n * (r.row_bytes + r.scale_bytes));
    r.scales = r.in + n * r.row_bytes;
    return r;
}

static void pack_tile(const Stream *s, const Rows *rows, uint64_t at, uint64_t n, uint8_t *out) {
    const uint8_t *in = rows->in + at * rows->row_bytes;
    if (s->layout->format == WF_NVFP4)
        layout_pack_nvfp4(s->w->layout, n, s->w->cols, in, rows->scales + at * rows->scale_bytes, out);
    else
        layout_pack_values(s->w->layout, n, s->w->cols, in, out);
}

// One tile of 8 rows of either half; rows beyond the end of a half are zero.
static bool pack_pairs(Stream *s, uint64_t stack, uint64_t tile, uint8_t *out, Err *e) {
    uint64_t half = s->w->rows / 2, each = s->layout->rows_tile / 2, first = tile * each;
    uint64_t n = MIN(each, half - first), base = stack * s->w->rows + first;
    Rows rows = rows_new(s, 2 * each);
    memset(rows.in, 0, 2 * each * (rows.row_bytes + rows.scale_bytes));
    bool ok = read_rows(s, base, n, rows.in, rows.scales, e) &&
              read_rows(s, base + half, n, rows.in + each * rows.row_bytes,
                        rows.scales + each * rows.scale_bytes, e);
    if (ok) pack_tile(s, &rows, 0, 2 * each, out);
    free(rows.in);
    return ok;
}

static void run_task(void *ctx, uint32_t i) {
    Stream *s = ctx;
    const PlanWeight *w = s->w;
    uint64_t per_stack = div_up(s->tiles, s->task_tiles), task = s->task0 + i;
    uint64_t stack = task / per_stack, tile0 = task % per_stack * s->task_tiles,
             rows_tile = s->layout->rows_tile, tiles = MIN(s->task_tiles, s->tiles - tile0);
    uint8_t *out = s->out + i * s->task_tiles * s->tile_bytes;
    if (s->layout->pairs) {
        for (uint64_t t = 0; t < tiles; t++, out += s->tile_bytes)
            if (!pack_pairs(s, stack, tile0 + t, out, &s->errors[i])) return;
        return;
    }
    uint64_t row0 = tile0 * rows_tile, n = MIN(tiles * rows_tile, w->rows - row0);
    Rows rows = rows_new(s, n);
    bool ok = is_vector(s->g) && w->kind == PLAN_WEIGHT_VALUES
                  ? read_vector(s, rows.in, &s->errors[i])
                  : read_rows(s, stack * w->rows + row0, n, rows.in, rows.scales, &s->errors[i]);
    for (uint64_t r = 0; ok && r < n; r += rows_tile, out += s->tile_bytes)
        pack_tile(s, &rows, r, MIN(rows_tile, n - r), out);
    free(rows.in);
}

static bool write_tasks(Stream *s, Pool *pool, WeightSink sink, Diags *d) {
    uint64_t task_bytes = s->task_tiles * s->tile_bytes, per_stack = div_up(s->tiles, s->task_tiles);
    uint64_t per_group = MAX(1, GROUP_BYTES / task_bytes), group_max = MIN(per_group, s->tasks);
    s->out = xmalloc(group_max * task_bytes);
    s->errors = xrealloc(NULL, group_max, sizeof *s->errors);
    bool ok = true;
    for (s->task0 = 0; ok && s->task0 < s->tasks; s->task0 += group_max) {
        uint32_t n = (uint32_t)MIN(group_max, s->tasks - s->task0);
        for (uint32_t i = 0; i < n; i++) s->errors[i].code = E_NONE;
        pool_run(pool, n, run_task, s);
        for (uint32_t i = 0; ok && i < n; i++) {
            uint64_t tile0 = (s->task0 + i) % per_stack * s->task_tiles;
            uint64_t tiles = MIN(s->task_tiles, s->tiles - tile0); // the last task of a stack is shorter
            Err *e = &s->errors[i];
            ok = e->code == E_NONE && sink.write(sink.ctx, s->out + i * task_bytes, tiles * s->tile_bytes, e);
            if (!ok) diag_err(d, SPAN_NONE, e);
        }
    }
    free(s->errors);
    free(s->out);
    return ok;
}

// ---- one weight after the other --------------------------------------------------------------------------

static bool find_pieces(Stream *s, Arena *a, uint32_t rank, uint32_t n_ranks, Diags *d) {
    s->pieces = ARENA_ARRAY(a, Piece, s->g->n_parts + 1);
    uint64_t at = 0;
    for (uint32_t i = 0; i < s->g->n_parts; i++) {
        const WeightPart *part = &s->g->parts[i];
        Piece *p = &s->pieces[i];
        CHECK(part_slice(part, rank, n_ranks, &p->slice)); // weights_place saw it divide
        p->first = at;
        at += is_vector(s->g) && s->w->kind == PLAN_WEIGHT_VALUES ? p->slice.cols : p->slice.rows;
        if (!s->src || !source_info(s->src, part->tensor, &p->info))
            return diag_error(d, E_TENSOR_MISSING, SPAN_NONE, "tensor " STR_FMT " of weight %s is missing",
                              STR_ARG(part->tensor), s->w->name);
        if (weight_rows(&p->info) != part->rows || weight_cols(&p->info) != part->cols)
            return diag_error(d, E_TENSOR_SHAPE, SPAN_NONE,
                              "tensor " STR_FMT " is %llu x %llu, not %llu x %llu", STR_ARG(part->tensor),
                              (unsigned long long)weight_rows(&p->info),
                              (unsigned long long)weight_cols(&p->info), (unsigned long long)part->rows,
                              (unsigned long long)part->cols);
        WeightFormat holds = s->layout->format;
        if ((holds == WF_E4M3 && (p->info.format != WF_E4M3 || s->g->add != 0)) ||
            (holds == WF_NVFP4 && (p->info.format != WF_NVFP4 || s->g->add != 0 || p->slice.col % 16)))
            return diag_error(d, E_PLAN_INVALID, SPAN_NONE,
                              "weight %s: tensor " STR_FMT " cannot take layout %s", s->w->name,
                              STR_ARG(part->tensor), s->layout->name);
    }
    return true;
}

static float row_factor(const Plan *p, const PlanWeight *w) {
    for (uint32_t i = 0; i < p->n_weights; i++)
        if (p->weights[i].kind == PLAN_WEIGHT_VALUES && p->weights[i].weight == w->weight)
            return 1 / layout_factor(p->weights[i].layout);
    return 1;
}

// The largest magnitude that codes and block scales can give; of 16-bit rows the largest there is.
static bool write_bound(Stream *s, WeightSink sink, Diags *d) {
    float most = 0;
    Err e;
    for (uint32_t i = 0; i < s->g->n_parts; i++) {
        const Piece *p = &s->pieces[i];
        uint64_t cols = weight_cols(&p->info);
        if (p->info.format == WF_NVFP4) {
            float largest = nextafterf(fabsf(p->info.global) * NVFP4_LARGEST, INFINITY); // rounded up
            most = MAX(most, largest);
            continue;
        }
        float *row = xmalloc(cols * sizeof *row);
        bool ok = true;
        for (uint64_t r = 0; ok && r < p->slice.rows; r++) {
            ok = source_rows_f32(s->src, &p->info, p->slice.row + r, 1, row, &e);
            for (uint64_t c = 0; ok && c < cols; c++) most = MAX(most, fabsf(row[c] + s->g->add));
        }
        free(row);
        if (!ok) return diag_err(d, SPAN_NONE, &e);
    }
    return sink.write(sink.ctx, (const uint8_t *)&most, sizeof most, &e) || diag_err(d, SPAN_NONE, &e);
}

static bool write_weight(const Plan *p, const PlanWeight *w, uint32_t rank, WeightSource *src, Pool *pool,
                         WeightSink sink, uint64_t *read_bytes, Diags *d) {
    Stream s = {.w = w, .g = graph_weight(p, w), .layout = layout_info(w->layout), .src = src};
    Arena a = {0};
    CHECK(layout_bytes(w->layout, s.layout->rows_tile, w->cols, &s.tile_bytes));
    s.row_factor = row_factor(p, w);
    s.tiles = layout_rows(w->layout, w->rows) / s.layout->rows_tile;
    s.task_tiles = MIN(s.tiles, MAX(1, TASK_BYTES / s.tile_bytes));
    s.tasks = w->stack * div_up(s.tiles, s.task_tiles);
    bool ok = find_pieces(&s, &a, rank, p->n_ranks, d) &&
              (w->kind == PLAN_WEIGHT_BOUND ? write_bound(&s, sink, d) : write_tasks(&s, pool, sink, d));
    *read_bytes += s.read_bytes;
    arena_free(&a);
    return ok;
}

bool weights_write(const Plan *p, const AdaBinding *bindings, WeightSource *src, Pool *pool, WeightSink sink,
                   uint64_t *read_bytes, Diags *d) {
    static const uint8_t zeros[BINDING_ALIGN];
    uint64_t at = 0;
    Err e;
    *read_bytes = 0;
    for (uint32_t i = 0; i < p->n_weights; i++)
        for (uint32_t r = 0; r < p->n_ranks; r++) {
            const AdaBinding *b = &bindings[(size_t)i * p->n_ranks + r];
            if (b->offset < at) continue; // shares the bytes of a lower rank
            if (!write_weight(p, &p->weights[i], r, src, pool, sink, read_bytes, d)) return false;
            uint64_t end = b->offset + b->bytes;
            at = round_up(end, BINDING_ALIGN);
            if (!sink.write(sink.ctx, zeros, at - end, &e)) return diag_err(d, SPAN_NONE, &e);
        }
    return true;
}
