// The contract between kernels and the runtime: plain C that both sides, and CUDA, include.
#ifndef ADALLM_TEMPLATES_ABI_H
#define ADALLM_TEMPLATES_ABI_H
#include <stdint.h>

// Index into the `counts` buffer, uint32[4] on the device. A program is launched for its bucket; kernels stop
// at the real count.
enum { COUNT_TOKENS = 0, COUNT_ROWS = 1, COUNT_STEP = 2 }; // STEP: decode steps so far, advanced by `advance`

// One row of the `sampling` buffer: how the next token of logits row r is chosen. Written by the host when a
// request enters; the kernel advances `step`.
typedef struct {
    float temperature; // 0: greedy, lowest id on a tie
    float top_p;       // 1: off
    float min_p;       // 0: off
    uint32_t top_k;    // 0: off
    uint64_t seed;
    uint64_t step; // tokens drawn so far: the random number is a function of (seed, step) alone
} SamplingRow;

enum { ROW_OK = 0, ROW_NOT_FINITE = 1 }; // `status` buffer, uint32[R]

// `ring` buffer: RING_SLOTS slots of RING_SLOT_BYTES(rows_max). `advance` fills slot step % RING_SLOTS: first
// int32 next[rows_max], then uint32 status[rows_max], which stand behind this head; then, visible to the host
// after them, `done` = step + 1 (never 0). The host may have up to RING_SLOTS steps in flight.
typedef struct {
    uint32_t done, reserved[3];
} RingSlot;
enum { RING_SLOTS = 4 };
#define RING_SLOT_BYTES(rows_max) (sizeof(RingSlot) + 8ull * (rows_max))

// Host kernels: one block of a launch. `args` are device pointers in the order of templates.def; `scratch` is
// private to the running thread, as large as the kernel declared, aligned to 64. Blocks of a launch run in
// any order, in parallel.
typedef void HostKernel(void *const *args, uint32_t block, uint32_t n_blocks, void *scratch);
#endif
