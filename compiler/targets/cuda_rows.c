// The small kernels of a GPU: how rows are dealt to blocks. They live in the L2 and are bound by the way
// there and back, not by bytes; next to them the launch itself is the larger part.
#include "compiler/targets/cuda_choose.h"
#include "runtime/base/num.h"

// Microseconds. From H100's and AD102's latencies of about 270 and 700 clocks: a load that the L2 answers,
// one that memory answers, what a block needs to reduce a few values, and the last store on its way.
#define L2_US     0.2
#define MEMORY_US 0.5
#define REDUCE_US 0.15
#define STORE_US  0.2
#define POST_US   1.2 // a branch is normed before it is added: what follows waits for it
#define COUNT_US  0.7 // rows but the first wait until it is known whether they are there
#define L2_RATE   1.8 // of the memory's: what the last launch wrote

enum { WARP = 32, L1_BYTES_PER_CLOCK = 128, FP32_PER_CLOCK = 256 }; // of an SM

static double row_us(const Target *t, const KernelAsk *ask, double latency_us) {
    double floor_us = target_floor_us(t, ask->bytes_read + ask->bytes_written, ask->flops) / L2_RATE;
    return t->launch_us + MAX(floor_us, latency_us);
}

static void consider(const Target *t, const KernelAsk *ask, KernelAnswer *out, uint64_t grid,
                     uint32_t threads, double latency_us) {
    KernelChoice c = {.grid = (uint32_t)MIN(grid, INT32_MAX), .threads = threads};
    c.predicted_us = row_us(t, ask, latency_us);
    cuda_consider(t, ask, out, &c);
}

// Threads that hold a row of n values, 4 each where that divides n. The order of its sums depends on them: a
// function of n alone.
uint32_t cuda_row_threads(uint64_t n) {
    uint64_t units = n % 4 ? n : n / 4, each = units > 512 ? 2 : 1;
    return (uint32_t)MIN(round_up(div_up(units, each), WARP), 1024u);
}

// As in templates/lib/norm.cuh: a decode product may be the one that norms.
uint32_t cuda_norm_threads(uint64_t n) {
    uint64_t units = n % 4 ? n : n / 4, each = div_up(units, 512);
    return (uint32_t)round_up(div_up(units, each), WARP);
}

double cuda_norm_us(const Target *t) { return t->launch_us + MEMORY_US + REDUCE_US + STORE_US; }

// The residual comes while the first weights are on their way.
double cuda_fold_us(uint32_t rows) { return L2_US + rows * 2 * REDUCE_US; }

// Blocks of a launch that fetches `next`: every SM takes part.
static uint64_t prefetching(const Target *t, const KernelAsk *ask, uint64_t blocks) {
    return ask_u(ask, "next_bytes") ? MAX(blocks, t->units) : blocks;
}

void cuda_embed(const Target *t, const KernelAsk *ask, KernelAnswer *out) {
    consider(t, ask, out, ask->bucket, cuda_row_threads(ask_u(ask, "hidden")),
             L2_US + 2 * MEMORY_US + STORE_US);
}

void cuda_norm_add(const Target *t, const KernelAsk *ask, KernelAnswer *out) {
    uint64_t reductions = ask_u(ask, "has_post") + ask_u(ask, "has_out");
    consider(t, ask, out, prefetching(t, ask, ask->bucket), cuda_norm_threads(ask_u(ask, "hidden")),
             MEMORY_US + (double)reductions * REDUCE_US + STORE_US + (reductions > 1 ? POST_US : 0) +
                 (ask->bucket > 1 ? COUNT_US : 0));
}

void cuda_act_mul(const Target *t, const KernelAsk *ask, KernelAnswer *out) {
    consider(t, ask, out, ask->bucket, cuda_row_threads(ask_u(ask, "f")), 2 * L2_US + REDUCE_US + STORE_US);
}

// A warp a head. The page is found after the count and the slot are known.
void cuda_rope_write(const Target *t, const KernelAsk *ask, KernelAnswer *out) {
    enum { THREADS = 128 };
    if (ask_u(ask, "head_dim") > 256) {
        cuda_refuse(out, "head_dim %llu: a warp holds up to 256", (unsigned long long)ask_u(ask, "head_dim"));
        return;
    }
    uint64_t heads = ask_u(ask, "heads") + 2 * ask_u(ask, "kv_heads");
    consider(t, ask, out, prefetching(t, ask, div_up(ask->bucket * heads, THREADS / WARP)), THREADS,
             MEMORY_US + L2_US + REDUCE_US + STORE_US);
}

void cuda_gather_rows(const Target *t, const KernelAsk *ask, KernelAnswer *out) {
    consider(t, ask, out, ask->bucket, 256, 2 * L2_US + STORE_US);
}

void cuda_quantize_rows(const Target *t, const KernelAsk *ask, KernelAnswer *out) {
    consider(t, ask, out, ask->bucket * ask_u(ask, "rows_each"), cuda_norm_threads(ask_u(ask, "k")),
             2 * L2_US + REDUCE_US + STORE_US);
}

// A warp a token; two steps of a warp's reduction for every expert chosen.
void cuda_moe_route(const Target *t, const KernelAsk *ask, KernelAnswer *out) {
    enum { EXPERTS_MAX = 512, CHOSEN_MAX = 32 };
    uint64_t experts = ask_u(ask, "experts"), k = ask_u(ask, "k");
    if (experts > EXPERTS_MAX || k > CHOSEN_MAX) {
        cuda_refuse(out, "%llu of %llu experts: a warp chooses up to %d of %d", (unsigned long long)k,
                    (unsigned long long)experts, CHOSEN_MAX, EXPERTS_MAX);
        return;
    }
    consider(t, ask, out, ask->bucket, WARP, 2 * L2_US + (double)k * 0.06 + STORE_US);
}

// Threads of their own for every 4 values. Few tokens: small blocks, so that more SMs fetch.
void cuda_moe_combine(const Target *t, const KernelAsk *ask, KernelAnswer *out) {
    uint64_t n = ask_u(ask, "n"), items = ask->bucket * (n % 4 ? n : n / 4);
    uint32_t threads = items > (uint64_t)t->units * WARP ? 128 : WARP;
    consider(t, ask, out, div_up(items, threads), threads, 2 * L2_US + STORE_US);
}

// The host's memory is behind PCIe: its stores are waited for.
void cuda_advance(const Target *t, const KernelAsk *ask, KernelAnswer *out) {
    consider(t, ask, out, 1, (uint32_t)MIN(round_up(ask_u(ask, "rows_max"), WARP), 256u), 2 * L2_US + 1.0);
}

// The forms of linear_f32.cu: one row of w and 4 tokens a warp in blocks of 1 or 4 warps, or 4 rows and 4
// tokens in blocks of 8 (LINEAR_F32_MANY threads). Bound by what the L1 hands to warps.
void cuda_linear_f32(const Target *t, const KernelAsk *ask, KernelAnswer *out) {
    static const struct {
        uint32_t threads, rows;
        double wait_us; // for 128 columns: the first form asks for up to 16 of them ahead
    } forms[] = {{32, 1, 0.03}, {128, 1, 0.03}, {256, 4, 0.2}};
    const uint64_t n = ask_u(ask, "n"), k = ask_u(ask, "k"), steps = div_up(k, 128);
    for (size_t i = 0; i < COUNT_OF(forms); i++) {
        const uint64_t blocks = div_up(n, forms[i].threads / WARP * forms[i].rows),
                       grid = blocks * div_up(ask->bucket, 4), rounds = div_up(grid, t->units),
                       warps = rounds * forms[i].threads / WARP; // of the SM with the most
        const uint64_t reads = warps * (forms[i].rows + MIN(ask->bucket, 4u)) * 4 * k,
                       sums = warps * forms[i].rows * MIN(ask->bucket, 4u) * 2 * k;
        double clocks = MAX((double)reads / L1_BYTES_PER_CLOCK, (double)sums / FP32_PER_CLOCK);
        double wait_us = MEMORY_US + (double)steps * forms[i].wait_us + STORE_US;
        KernelChoice c = {.grid = (uint32_t)MIN(grid, INT32_MAX), .threads = forms[i].threads};
        c.predicted_us = row_us(t, ask, wait_us + clocks / (t->clock_ghz * 1e3));
        cuda_consider(t, ask, out, &c);
    }
}
