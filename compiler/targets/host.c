// The host: plain C on the machine's cores. The facts are those of two cores of a server of 2020 with AVX2;
// they order candidates and say roughly how long a launch takes, they do not change what is computed.
#include "compiler/targets/target.h"

#include <stdio.h>

#include "runtime/base/num.h"

static bool host_legal(const Target *t, const KernelAsk *ask, const KernelChoice *c,
                       char reason[REASON_BYTES]) {
    uint32_t units = codegen_host_units(ask->template_, ask->spec, ask->n_spec, ask->bucket);
    uint32_t least = MIN(units, t->blocks_min);
    if (c->grid > units)
        snprintf(reason, REASON_BYTES, "grid %u: the work can be cut into %u", c->grid, units);
    else if (c->grid < least)
        snprintf(reason, REASON_BYTES, "grid %u: a wide machine needs %u blocks", c->grid, least);
    else if (c->shared_bytes > t->shared_bytes)
        snprintf(reason, REASON_BYTES, "needs %llu bytes of scratch a thread, there are %llu",
                 (unsigned long long)c->shared_bytes, (unsigned long long)t->shared_bytes);
    else
        return true;
    return false;
}

// Blocks are dealt to cores as they become free: the last round may be partly empty, and the pieces of a
// block are whole units of work.
static double host_predict(const Target *t, const KernelAsk *ask, uint32_t grid) {
    uint32_t units = codegen_host_units(ask->template_, ask->spec, ask->n_spec, ask->bucket);
    double floor_us = target_floor_us(t, ask->bytes_read + ask->bytes_written, ask->flops);
    double rounds = (double)div_up(grid, t->units);
    double share = (double)div_up(units, grid) / units; // of the work, in one block
    return t->launch_us + rounds * (share * floor_us * t->units + t->block_us);
}

static void reject(KernelAnswer *out, const char *reason) {
    if (out->n_rejected == TARGET_REJECTED_MAX) return;
    memcpy(out->rejected[out->n_rejected++].reason, reason, REASON_BYTES);
}

static bool host_choose(const Target *t, const KernelAsk *ask, KernelAnswer *out) {
    static const uint32_t grids[] = {1, 2, 4, 8, 16, 32, 64, 128, 256};
    KernelChoice candidates[COUNT_OF(grids) + 1];
    char reason[REASON_BYTES] = "";
    bool found = false;
    uint32_t units = codegen_host_units(ask->template_, ask->spec, ask->n_spec, ask->bucket);
    *out = (KernelAnswer){0};
    for (size_t i = 0; i <= COUNT_OF(grids); i++) {
        uint32_t grid = i < COUNT_OF(grids) ? grids[i] : MIN(units, 256u);
        candidates[i] = (KernelChoice){.grid = grid, .threads = 1};
        candidates[i].shared_bytes = codegen_host_scratch(ask->template_, ask->spec, ask->n_spec);
        if (i == COUNT_OF(grids) && (grid & (grid - 1)) == 0) continue; // already there
        if (!host_legal(t, ask, &candidates[i], reason)) {
            if (grid <= units) reject(out, reason);
            candidates[i].grid = 0;
            continue;
        }
        candidates[i].predicted_us = host_predict(t, ask, grid);
        if (!found || candidates[i].predicted_us < out->best.predicted_us) out->best = candidates[i];
        found = true;
    }
    if (!found) {
        reject(out, reason);
        return false;
    }
    for (size_t i = 0; i < COUNT_OF(grids); i++) {
        if (!candidates[i].grid || candidates[i].grid == out->best.grid) continue;
        snprintf(reason, sizeof reason, "grid %u: predicted %.1f us against %.1f us", candidates[i].grid,
                 candidates[i].predicted_us, out->best.predicted_us);
        reject(out, reason);
    }
    return true;
}

static bool host_emit(const Target *t, Arena *a, const Plan *p, const EmitOptions *o, CodeImages *out,
                      Diags *d) {
    (void)t;
    return codegen_host(a, p, o->dir, out, d);
}

const Target target_host = {
    .name = "host",
    .about = "plain C on this machine's cores",
    .units = 2,
    .blocks_min = 32,
    .clock_ghz = 2.8,
    .dram_gbs = 18,
    .l2_bytes = 32 << 20,
    .shared_bytes = 4 << 20,
    .tflops_acc32 = 0.06,
    .launch_us = 3,
    .barrier_us = 1,
    .block_us = 0.2,
    .page_tokens = 16,
    .chunk = 256,
    .batch = {1, 2, 4, 8, 16},
    .n_batch = 5,
    .linear = {[DT_NVFP4] = ADA_LAYOUT_HOST_NVFP4,
               [DT_E4M3] = ADA_LAYOUT_HOST_E4M3,
               [DT_BF16] = ADA_LAYOUT_HOST_BF16,
               [DT_F16] = ADA_LAYOUT_HOST_F16,
               [DT_F32] = ADA_LAYOUT_HOST_F32},
    .gather =
        {[DT_BF16] = ADA_LAYOUT_ROWS_BF16, [DT_F16] = ADA_LAYOUT_ROWS_F32, [DT_F32] = ADA_LAYOUT_ROWS_F32},
    .legal = host_legal,
    .choose = host_choose,
    .emit = host_emit,
};
