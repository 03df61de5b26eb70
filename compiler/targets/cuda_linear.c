// Candidates of the matrix products. The decode form streams the weights of up to 16 tokens, a block an SM;
// the panel form is for more. Predictions are max(memory, instructions) of the busiest SM plus what every
// launch costs; the instruction costs were fitted on an H100 (tests/bench/NOTES.md).
#include <math.h>

#include "compiler/targets/cuda_choose.h"
#include "runtime/base/num.h"

enum {
    TILE_ROWS = 16,
    STAGE_COLS = 64,
    SLICES = 8,
    GROUP_WARPS = 8,
    PART_BYTES = 4096,            // partial sums of a row tile and 8 tokens: 8 slices, a float4 a lane
    STREAM_SHARED_MAX = 96 << 10, // more would leave too little of an SM to L1
    STREAM_STATIC_MAX = 6 << 10,  // of shared memory, beside the sums and rows
    PANEL_STATIC_MAX = 5 << 10,   // beside activations and sums
    WORK_COUNTERS_BYTES = 64 << 10,
    WORK_COUNTERS = 16384 - 32, // the last line is where chains meet
    WORK_MAX = 64 << 20,
    FOLD_TOKENS = 2 // more rows to norm cost every block more than a norm beside it, and two meetings
};

// Of an H100 at 1.98 GHz; other clocks scale them.
#define FILL_US          2.9    // first weights arrive, last sums are reduced
#define STREAM_STAGE_US  0.0245 // one SM, one stage of 16 rows x 64 columns, 8 tokens
#define STREAM_TOKENS_US 0.0090 // and 8 tokens more
#define PANEL_STAGE_US   0.0068 // one SM, one stage of a row tile for 8 tokens, with 12 warps
#define PANEL_LEAST_US   0.38   // a stage of a block, however small
#define PART_US          3.0    // the last block adds what the others left
// What E4M3 rows add, by the instructions that ptxas makes (scales are multiplied in fp32, a quad trades its
// codes): not measured. The second of a pair: where the products are emulated.
#define E4M3_STREAM_US(native) ((native) ? 0.0071 : 0.0129) // one SM, one stage of the decode form
#define E4M3_PANEL_US(native)  ((native) ? 0.0022 : 0.0059) // one SM, one stage of a row tile for 8 tokens
#define FITTED_GHZ             1.98

#define L2_BYTES_PER_CLOCK 21 // of an SM, all of them reading the same rows

typedef struct {
    const Target *t;
    const KernelAsk *ask;
    KernelAnswer *out;
    uint64_t tiles, stages, stage_bytes;
    double clock; // factor of times that count instructions
    bool x_e4m3;  // rows of x
} Product;

static Product product_of(const Target *t, const KernelAsk *ask, KernelAnswer *out, uint64_t tiles) {
    Product p = {.t = t, .ask = ask, .out = out, .tiles = tiles, .x_e4m3 = ask_u(ask, "x_e4m3") != 0};
    p.stages = div_up(ask_u(ask, "k"), STAGE_COLS);
    p.stage_bytes = ask_is(ask, "format", "nvfp4") ? 576 : ask_is(ask, "format", "e4m3") ? 1024 : 2048;
    p.clock = FITTED_GHZ / t->clock_ghz;
    return p;
}

// Microseconds that one SM needs for bytes from memory, all of them reading.
static double memory_us(const Product *p, double bytes) {
    return bytes / (p->t->dram_gbs / p->t->units * 1e3);
}

// Products with fp32 sums: the tensor cores' own limit.
static double tensor_us(const Product *p, double tile_cols) {
    double flops = tile_cols * TILE_ROWS * STAGE_COLS * 8 * 2;
    double rate = p->t->tflops_acc32 * (p->x_e4m3 ? p->t->e4m3_rate : 1);
    return flops / (rate / p->t->units * 1e6);
}

static void schedule(KernelChoice *c, uint32_t tiled, uint32_t cols, uint32_t groups, uint32_t round) {
    choice_add(c, "tiled", tiled);
    choice_add(c, "cols", cols);
    choice_add(c, "groups", groups);
    choice_add(c, "round", round);
}

// ---- decode ------------------------------------------------------------------------------------

// Row tiles between two reductions, a multiple of `groups`, whose partial sums fit shared memory: all of a
// block's, or half of what fits, as the next round then fills the other half. `rows_bytes` are spoken for.
static uint32_t stream_round(const Target *t, uint64_t per_block, uint32_t cols, uint32_t groups,
                             uint64_t rows_bytes, uint64_t *shared) {
    uint64_t each = (uint64_t)cols * PART_BYTES,
             most =
                 (MIN(t->shared_bytes - STREAM_STATIC_MAX, (uint64_t)STREAM_SHARED_MAX) - rows_bytes) / each;
    uint64_t round = round_up(per_block, groups);
    if (round <= most) {
        *shared = round * each;
    } else {
        round = MAX(most / 2 / groups * groups, groups);
        *shared = 2 * round * each;
    }
    *shared += rows_bytes;
    return (uint32_t)round;
}

// rows: of x that every block reads.
static double stream_us(const Product *p, uint64_t per_block, uint32_t cols, uint32_t rows) {
    double stages = (double)(per_block * p->stages);
    double stage = STREAM_STAGE_US + STREAM_TOKENS_US * (cols - 1);
    if (p->x_e4m3) stage += E4M3_STREAM_US(p->t->e4m3_rate >= 1);
    double work = stages * stage * p->clock;
    if (p->stage_bytes > 576) work *= 0.7;         // nothing to unpack
    uint32_t rows_read = cols == 1 ? rows - 1 : 0; // else in `work`
    double rows_bytes = (double)rows_read * (double)p->stages * STAGE_COLS * (p->x_e4m3 ? 1 : 2);
    double rows_us = rows_bytes / (L2_BYTES_PER_CLOCK * p->t->clock_ghz * 1e3);
    return p->t->launch_us + FILL_US + rows_us + MAX(memory_us(p, stages * (double)p->stage_bytes), work);
}

// With `fold` rows the block norms them itself: with as many threads as norm_add, which gives the same bits.
static void stream_candidate(const Product *p, uint64_t per_block, uint32_t groups, uint32_t fold) {
    uint32_t cols = p->ask->bucket <= 8 ? 1 : 2;
    uint64_t rows_bytes = fold * ask_u(p->ask, "x_pitch");
    KernelChoice c = {.grid = (uint32_t)div_up(p->tiles, per_block), .threads = groups * GROUP_WARPS * 32};
    if (rows_bytes > p->t->shared_bytes / 2) return;
    schedule(&c, 0, cols, groups, stream_round(p->t, per_block, cols, groups, rows_bytes, &c.shared_bytes));
    choice_add(&c, "parts", 1);
    choice_add(&c, "per_sm", 1);
    choice_add(&c, "fold", fold);
    // Eight warps keep too few bytes in flight where an SM has more than a few tiles.
    c.predicted_us =
        stream_us(p, per_block, cols, p->ask->bucket) * (groups == 1 && per_block > 1 ? 1.05 : 1);
    if (fold) c.predicted_us += cuda_fold_us(fold), c.spared_us = cuda_norm_us(p->t);
    cuda_consider(p->t, p->ask, p->out, &c);
}

static void stream_candidates(const Product *p) {
    uint64_t per_block = div_up(p->tiles, p->t->units);
    bool norm = ask_u(p->ask, "norm") && p->ask->bucket <= FOLD_TOKENS;
    for (uint32_t groups = 1; groups <= 2 && groups <= per_block; groups++) {
        stream_candidate(p, per_block, groups, 0);
        if (norm && groups * GROUP_WARPS * 32 >= cuda_norm_threads(ask_u(p->ask, "k")))
            stream_candidate(p, per_block, groups, p->ask->bucket);
    }
}

// ---- panels ------------------------------------------------------------------------------------

typedef struct {
    uint32_t cols, warps, each, parts, per_sm; // each: row tiles of a warp
    uint64_t row_blocks, token_blocks, shared, work;
} PanelShape;

// As in templates/lib/panel.cuh: two chunks of four stages, and in sums.cuh: what registers do not hold.
static uint64_t panel_shared(const Product *p, uint32_t cols, uint32_t warps, uint32_t each, uint32_t parts) {
    bool kept = parts == 1 && each * cols >= 16 && warps > 8;
    return 2ull * 4 * cols * 8 * (p->x_e4m3 ? 64 : 128) + (kept ? (uint64_t)each * cols * warps * 512 : 0);
}

// A stage of all that is on an SM at once. Fewer warps hide less of what each waits for; two row tiles a warp
// share the activations that it reads; two blocks wait at different times.
static double panel_stage_us(const Product *p, uint32_t warps, uint32_t blocks, uint32_t each,
                             uint32_t cols) {
    double slower = cols < 8 || warps * blocks >= 12 ? 1 : warps * blocks >= 8 ? 1.16 : 1.4;
    if (each > 1) slower = warps * blocks < 8 ? 1.3 : warps >= 12 ? 0.93 : blocks > 1 ? 0.9 : 0.96;
    double us = PANEL_STAGE_US * slower;
    if (p->x_e4m3) us += E4M3_PANEL_US(p->t->e4m3_rate >= 1);
    return us * warps * blocks * each * cols;
}

static double panel_us(const Product *p, const PanelShape *s) {
    uint64_t n = s->row_blocks * s->token_blocks * s->parts;
    uint32_t together = (uint32_t)MIN(div_up(n, p->t->units), (uint64_t)s->per_sm);
    double tile_cols = (double)s->warps * together * s->each * s->cols, blocks = (double)n;
    double stage = MAX(panel_stage_us(p, s->warps, together, s->each, s->cols), PANEL_LEAST_US) * p->clock;
    stage = MAX(stage, tensor_us(p, tile_cols) / 0.85);
    double bytes = blocks * (double)(s->warps * s->each * p->stages * p->stage_bytes) / s->parts;
    double waves = (double)div_up(n, p->t->units * together);
    double us = MAX(waves * (double)p->stages / s->parts * stage, memory_us(p, bytes / p->t->units));
    double left = (double)(s->row_blocks * s->token_blocks) * (double)s->work; // written, then read, in L2
    return p->t->launch_us + FILL_US + us +
           (s->parts > 1 ? PART_US * s->each + left / (p->t->dram_gbs * 1e3) : 0);
}

static void panel_candidate(const Product *p, uint32_t cols, uint32_t warps, uint32_t each, uint32_t parts,
                            uint32_t per_sm) {
    PanelShape s = {cols, warps, each, parts, per_sm, .shared = panel_shared(p, cols, warps, each, parts)};
    if (per_sm > 1 && per_sm * (s.shared + PANEL_STATIC_MAX) > p->t->shared_bytes) return;
    s.row_blocks = div_up(p->tiles, warps * each);
    s.token_blocks = div_up(p->ask->bucket, cols * 8);
    uint64_t items = s.row_blocks * s.token_blocks;
    s.work = parts > 1 ? (uint64_t)SLICES * each * cols * warps * 32 * 16 : 0;
    if (parts > 1 && (items > WORK_COUNTERS || items * s.work > WORK_MAX)) return;
    KernelChoice c = {.grid = (uint32_t)(items * parts), .threads = warps * 32, .shared_bytes = s.shared};
    schedule(&c, 1, cols, warps, each);
    choice_add(&c, "parts", parts);
    choice_add(&c, "per_sm", per_sm);
    choice_add(&c, "fold", 0);
    c.work_bytes = parts > 1 ? WORK_COUNTERS_BYTES + items * s.work : 0;
    c.predicted_us = panel_us(p, &s);
    cuda_consider(p->t, p->ask, p->out, &c);
}

// What the registers of a thread hold: 168 with 12 warps, 255 with 8. E4M3 rows want some for scales and for
// sums of a block.
static bool panel_fits(const Product *p, uint32_t cols, uint32_t warps, uint32_t each) {
    bool nvfp4 = p->stage_bytes == 576, e4m3 = p->stage_bytes == 1024;
    if (p->x_e4m3) return each == 1 && (warps <= 8 || cols < 8);
    if (each == 1) return warps <= 8 || nvfp4 || cols < 8;
    return cols == 8 && (nvfp4 || (e4m3 && warps == 8));
}

static void panel_candidates(const Product *p) {
    static const uint32_t warps[] = {4, 8, 12};
    uint32_t cols = p->ask->bucket <= 32 ? 4 : 8;
    for (size_t i = 0; i < COUNT_OF(warps); i++)
        for (uint32_t each = 1; each <= 2; each++)
            for (uint32_t parts = 1; parts <= SLICES && panel_fits(p, cols, warps[i], each); parts *= 2)
                panel_candidate(p, cols, warps[i], each, parts, 1);
    if (panel_fits(p, cols, 4, 2)) panel_candidate(p, cols, 4, 2, 1, 2);
}

static void product_candidates(const Target *t, const KernelAsk *ask, KernelAnswer *out, uint64_t tiles) {
    Product p = product_of(t, ask, out, tiles);
    if (ask->bucket <= 16)
        stream_candidates(&p);
    else
        panel_candidates(&p);
}

void cuda_linear(const Target *t, const KernelAsk *ask, KernelAnswer *out) {
    product_candidates(t, ask, out, div_up(ask_u(ask, "n"), TILE_ROWS));
}

void cuda_gate_up(const Target *t, const KernelAsk *ask, KernelAnswer *out) {
    product_candidates(t, ask, out, div_up(ask_u(ask, "f"), TILE_ROWS / 2));
}

// ---- experts -----------------------------------------------------------------------------------

// Decode: a unit of work is some row tiles of an expert for up to 8 of its tokens; `per_unit` of them make
// one token's experts fill the card.
static void expert_stream(const Product *p, uint64_t topk, double active) {
    uint64_t units_per_expert = MAX(1, div_up(p->t->units, topk));
    uint32_t groups = p->tiles > units_per_expert ? 2 : 1;
    uint64_t per_unit = round_up(div_up(p->tiles, units_per_expert), groups), shared;
    uint32_t round = stream_round(p->t, per_unit, 1, groups, 0, &shared);
    uint64_t blocks = div_up(p->tiles, round);
    KernelChoice c = {.grid = (uint32_t)MIN((uint64_t)p->ask->bucket * topk * blocks, (uint64_t)p->t->units),
                      .threads = groups * GROUP_WARPS * 32,
                      .shared_bytes = (uint64_t)round * PART_BYTES};
    schedule(&c, 0, 1, groups, round);
    choice_add(&c, "per_sm", 1);
    double each = ceil(active * (double)blocks / c.grid);
    c.predicted_us = stream_us(p, (uint64_t)(each * round), 1, 1) + 2;
    cuda_consider(p->t, p->ask, p->out, &c);
}

static void expert_panel(const Product *p, uint64_t experts, uint64_t topk, double active) {
    enum { COLS = 8, WARPS = 8 };
    uint64_t row_blocks = div_up(p->tiles, WARPS);
    double pairs = (double)p->ask->bucket * (double)topk, items = active * ceil(pairs / active / (COLS * 8));
    uint64_t most = (uint64_t)MIN(pairs, (double)experts + pairs / (COLS * 8)) * row_blocks;
    KernelChoice c = {.grid = (uint32_t)MIN(most, (uint64_t)p->t->units),
                      .threads = WARPS * 32,
                      .shared_bytes = panel_shared(p, COLS, WARPS, 1, 1)};
    schedule(&c, 1, COLS, WARPS, 1);
    choice_add(&c, "per_sm", 1);
    double units = ceil(items * (double)row_blocks / c.grid);
    double stage = MAX(panel_stage_us(p, WARPS, 1, 1, COLS) * p->clock, tensor_us(p, WARPS * COLS) / 0.85);
    c.predicted_us = p->t->launch_us + FILL_US + units * ((double)p->stages * stage + 4);
    cuda_consider(p->t, p->ask, p->out, &c);
}

static void expert_candidates(const Target *t, const KernelAsk *ask, KernelAnswer *out, uint64_t tiles) {
    enum { STREAM_MAX = 64 };
    Product p = product_of(t, ask, out, tiles);
    uint64_t experts = ask_u(ask, "experts"), topk = ask_u(ask, "topk");
    // Experts that a batch meets when each token chooses evenly.
    double active = (double)experts * (1 - pow(1 - (double)topk / (double)experts, ask->bucket));
    if (ask->bucket <= STREAM_MAX)
        expert_stream(&p, topk, active);
    else
        expert_panel(&p, experts, topk, active);
}

void cuda_moe_gate_up(const Target *t, const KernelAsk *ask, KernelAnswer *out) {
    expert_candidates(t, ask, out, div_up(ask_u(ask, "f"), TILE_ROWS / 2));
}

void cuda_moe_down(const Target *t, const KernelAsk *ask, KernelAnswer *out) {
    expert_candidates(t, ask, out, div_up(ask_u(ask, "n"), TILE_ROWS));
}
