// The contract between kernels and the runtime: plain C that both sides, and CUDA, include.
#ifndef ADALLM_TEMPLATES_ABI_H
#define ADALLM_TEMPLATES_ABI_H
#include <stdint.h>

// Index into the `counts` buffer, uint32[4] on the device. A program is launched for its bucket; kernels stop
// at the real count.
enum { COUNT_TOKENS = 0, COUNT_ROWS = 1, COUNT_STEP = 2 }; // STEP: decode steps so far, advanced by `advance`

// quantize_rows: a row whose largest magnitude is `most` becomes e4m3(x * (QUANTIZE_MOST / most)), rounded to
// nearest even, times most / QUANTIZE_MOST. Rows below QUANTIZE_LEAST are zeros: the factor would overflow.
#define QUANTIZE_MOST  448.0f
#define QUANTIZE_LEAST 0x1p-100f

// How the next token of a logits row is chosen, in this order: ids that are not allowed leave (mask, stop ids
// before min_tokens); bias is added; repetition divides what is above 0 and multiplies what is below, for ids
// of the prompt and the answer; frequency * times and presence are taken from ids of the answer; then
// temperature, top_k, top_p, min_p. Features that are off cost nothing.
enum {
    SAMPLE_PENALTIES = 1, // token counts are read, and advanced by the kernel
    SAMPLE_BIAS = 2,      // TokenLists.bias
    SAMPLE_STOP = 4,      // TokenLists.stop may not be drawn while step < min_tokens
    SAMPLE_MASK = 8,      // only ids whose bit in the token mask is set
    SAMPLE_LOGPROBS = 16, // a LogprobRow is written
    SAMPLE_GIVEN = 32,    // the token is the id that `seed` says, whatever the logits: for its logprob
    SAMPLE_ADJUSTS = 15   // any that changes logits
};

// One row of the `sampling` buffer. Written by the host when a request enters; the kernel advances `step`.
typedef struct {
    float temperature; // 0: greedy, lowest id on a tie
    float top_p;       // 1: off
    float min_p;       // 0: off
    uint32_t top_k;    // 0: off
    uint64_t seed;     // with SAMPLE_GIVEN the token itself, a column of the logits
    uint64_t step;     // tokens drawn so far: the random number is a function of (seed, step) alone
    uint32_t features; // SAMPLE_*
    uint32_t slot;     // of the sequence: row of token_counts, token_lists, token_mask
    float repetition;  // 1: off
    float presence;    // 0: off
    float frequency;   // 0: off
    uint32_t min_tokens;
    uint16_t n_bias, n_stop;
    uint32_t top_logprobs; // beside the drawn token's
} SamplingRow;

enum { BIAS_MAX = 512, STOP_MAX = 16, LOGPROBS_MAX = 20 };

// One row of `token_lists`, written by the host.
typedef struct {
    int32_t bias_id[BIAS_MAX]; // ascending, distinct
    float bias[BIAS_MAX];
    int32_t stop[STOP_MAX];
} TokenLists;

// Columns of `token_counts`, uint16[slots, TOKEN_COLS]: the top bit says that the id stands in the prompt,
// the rest, up to COUNT_MOST, how often it was drawn. Columns of `token_mask` are bits: id i is bit i % 32 of
// word i / 32 of uint32[slots, TOKEN_COLS / 32].
#define TOKEN_COLS(vocab) (((vocab) + 127) / 128 * 128)
enum { COUNT_PROMPT = 0x8000, COUNT_MOST = 0x7FFF };

// log_softmax of the logits as the model gave them: the drawn token's, then the top_logprobs largest, largest
// first, the lower id on a tie.
typedef struct {
    int32_t id[1 + LOGPROBS_MAX];
    float logprob[1 + LOGPROBS_MAX];
    uint32_t n; // entries that hold something
    uint32_t reserved;
} LogprobRow;

enum { ROW_OK = 0, ROW_NOT_FINITE = 1, ROW_NONE_ALLOWED = 2 }; // `status` buffer, uint32[R]

// `ring` buffer: RING_SLOTS slots of RING_SLOT_BYTES(rows_max). `advance` fills slot step % RING_SLOTS: first
// int32 next[rows_max], then uint32 status[rows_max], which stand behind this head; then, visible to the host
// after them, `done` = step + 1 (never 0). The host may have up to RING_SLOTS steps in flight.
typedef struct {
    uint32_t done, reserved[3];
} RingSlot;
enum { RING_SLOTS = 4 };
#define RING_SLOT_BYTES(rows_max) (sizeof(RingSlot) + 8ull * (rows_max))
// `logprobs` buffer, in the host's memory like the ring: LogprobRow[RING_SLOTS, rows_max]. Row r of a step
// with SAMPLE_LOGPROBS stands in slot COUNT_STEP % RING_SLOTS, before `advance` says that the step is done.
#define LOGPROBS_BYTES(rows_max) (RING_SLOTS * sizeof(LogprobRow) * (uint64_t)(rows_max))

// Host kernels: one block of a launch. `args` are device pointers in the order of templates.def; `scratch` is
// private to the running thread, as large as the kernel declared, aligned to 64. Blocks of a launch run in
// any order, in parallel.
typedef void HostKernel(void *const *args, uint32_t block, uint32_t n_blocks, void *scratch);
#endif
