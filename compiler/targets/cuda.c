// The CUDA cards: their facts. Bandwidths are what the best kernels reach (about 0.92 of the data sheet on
// Ada, 0.90 on Hopper); MMA rates are mma.sync, dense: on Hopper 0.63 of wgmma's, on GeForce half rate when
// sums are kept in fp32. E4M3 has twice the rate of fp16 on Ada; ptxas makes two fp16 products of one on
// sm_90.
#include "compiler/targets/cuda_choose.h"

#include "compiler/codegen/cuda.h"
#include "runtime/base/num.h"

static bool cuda_emit(const Target *t, Arena *a, const Plan *p, const EmitOptions *o, CodeImages *out,
                      Diags *d) {
    return codegen_cuda(a, p, t->sm, t->shared_bytes, o, out, d);
}

// name, what, sm, SMs, boost GHz, effective GB/s, L2 MiB, memory GiB, TFLOPS fp16 with fp32 sums, with fp16
// sums
#define CARD(n, what, sm_, sms, ghz, gbs, l2_mib, mem_gib, acc32, acc16)                                     \
    {                                                                                                        \
        .name = n, .about = what, .sm = sm_, .units = sms, .blocks_min = sms, .clock_ghz = ghz,              \
        .dram_gbs = gbs, .l2_bytes = (uint64_t)(l2_mib) << 20,                                               \
        .shared_bytes = (sm_ == 90 ? 227u : 99u) << 10, .memory_bytes = (uint64_t)(mem_gib) << 30,           \
        .tflops_acc32 = acc32, .tflops_acc16 = acc16, .e4m3_rate = sm_ == 89 ? 2 : 0.5, .launch_us = 1.3,    \
        .barrier_us = 1.0, .block_us = 0, .page_tokens = 64, .half_rows = true, .chunk = 1024,               \
        .batch = {1, 2, 4, 8, 16, 32, 64}, .n_batch = 7,                                                     \
        .linear = {[DT_NVFP4] = ADA_LAYOUT_MMA_NVFP4,                                                        \
                   [DT_E4M3] = ADA_LAYOUT_MMA_E4M3,                                                          \
                   [DT_BF16] = ADA_LAYOUT_MMA_F16,                                                           \
                   [DT_F16] = ADA_LAYOUT_MMA_F16,                                                            \
                   [DT_F32] = ADA_LAYOUT_ROWS_F32},                                                          \
        .gather = {[DT_BF16] = ADA_LAYOUT_ROWS_BF16,                                                         \
                   [DT_F16] = ADA_LAYOUT_ROWS_F32,                                                           \
                   [DT_F32] = ADA_LAYOUT_ROWS_F32},                                                          \
        .legal = cuda_legal, .choose = cuda_choose, .emit = cuda_emit,                                       \
    }

const Target targets_cuda[] = {
    CARD("rtx4090", "GeForce RTX 4090, 24 GB", 89, 128, 2.52, 925, 72, 24, 165.2, 330.3),
    CARD("rtx4080", "GeForce RTX 4080, 16 GB", 89, 76, 2.51, 659, 64, 16, 97.5, 194.9),
    CARD("rtx4070ti", "GeForce RTX 4070 Ti, 12 GB", 89, 60, 2.61, 463, 48, 12, 80.2, 160.4),
    CARD("rtx4060ti", "GeForce RTX 4060 Ti, 8 or 16 GB", 89, 34, 2.54, 265, 32, 8, 44.1, 88.3),
    CARD("l4", "L4, 24 GB", 89, 58, 2.04, 276, 48, 24, 121.0, 121.0),
    CARD("l40s", "L40S, 48 GB", 89, 142, 2.52, 795, 96, 48, 362.1, 362.1),
    CARD("rtx6000ada", "RTX 6000 Ada, 48 GB", 89, 142, 2.51, 883, 96, 48, 364.2, 364.2),
    CARD("h100", "H100 SXM, 80 GB, with the kernels of sm_89", 90, 132, 1.98, 3000, 50, 80, 623.0, 623.0),
};
const uint32_t n_targets_cuda = COUNT_OF(targets_cuda);
