#include "runtime/device/null_draw.h"

#include "templates/lib/abi.h"

static uint64_t scramble(uint64_t z) {
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return z ^ z >> 31;
}

static uint32_t draw(const SamplingRow *row, uint32_t cols) {
    if (row->features & SAMPLE_GIVEN) return (uint32_t)row->seed;
    const uint32_t quarter = cols / 4 ? cols / 4 : 1;
    return (cols / 4 + (uint32_t)(scramble(row->seed * 0x9E3779B97F4A7C15u + row->step) % quarter)) % cols;
}

static uint32_t next_allowed(const uint32_t *mask, uint32_t cols, uint32_t id) { // cols: none
    for (uint32_t i = 0; i < cols; i++, id = id + 1 == cols ? 0 : id + 1)
        if (mask[id / 32] >> id % 32 & 1) return id;
    return cols;
}

static void tell_logprobs(LogprobRow *out, const SamplingRow *row, uint32_t id, uint32_t cols) {
    const uint32_t top = row->top_logprobs < LOGPROBS_MAX ? row->top_logprobs : LOGPROBS_MAX;
    out->n = 1 + (top < cols ? top : cols);
    for (uint32_t i = 0; i < out->n; i++)
        out->id[i] = (int32_t)(i ? (id + i - 1) % cols : id), out->logprob[i] = i ? -(float)i : -1;
}

static void draw_row(SamplingRow *row, const uint32_t *mask, uint32_t cols, LogprobRow *logprobs,
                     int32_t *next, uint32_t *status) {
    uint32_t id = draw(row, cols);
    if (row->features & SAMPLE_MASK) id = next_allowed(mask, cols, id);
    *status = id < cols || row->features & SAMPLE_GIVEN ? ROW_OK : ROW_NONE_ALLOWED;
    *next = *status == ROW_OK ? (int32_t)id : 0;
    if (row->features & SAMPLE_LOGPROBS) tell_logprobs(logprobs, row, (uint32_t)*next, cols);
    row->step++;
}

enum { LOGITS, SAMPLING, NEXT, STATUS, COUNTS, DRAW_ARGS_LEAST = 9 }; // the last three: lists, mask, logprobs

void null_draw(void *const *args, const uint64_t *bytes, uint32_t n_args) {
    if (n_args < DRAW_ARGS_LEAST || bytes[COUNTS] < 4 * sizeof(uint32_t)) return;
    const uint64_t rows = bytes[STATUS] / sizeof(uint32_t), slots = bytes[n_args - 3] / sizeof(TokenLists);
    if (!rows || !slots || bytes[NEXT] < rows * sizeof(int32_t) ||
        bytes[SAMPLING] < rows * sizeof(SamplingRow) || bytes[n_args - 1] < LOGPROBS_BYTES(rows))
        return;
    const uint64_t words = bytes[n_args - 2] / sizeof(uint32_t) / slots;
    const uint64_t vocab_rows = bytes[LOGITS] / sizeof(float) / rows;
    const uint32_t cols = (uint32_t)(words * 32 < vocab_rows ? words * 32 : vocab_rows);
    const uint32_t *counts = args[COUNTS];
    LogprobRow *ring = (LogprobRow *)args[n_args - 1] + counts[COUNT_STEP] % RING_SLOTS * rows;
    for (uint32_t r = 0; cols && r < counts[COUNT_ROWS] && r < rows; r++) {
        SamplingRow *row = (SamplingRow *)args[SAMPLING] + r;
        if (row->slot < slots)
            draw_row(row, (const uint32_t *)args[n_args - 2] + row->slot * words, cols, &ring[r],
                     (int32_t *)args[NEXT] + r, (uint32_t *)args[STATUS] + r);
    }
}

enum { A_NEXT, A_IDS, A_POS, A_COUNTS, A_STATUS, A_RING, ADVANCE_ARGS };

void null_advance(void *const *args, const uint64_t *bytes, uint32_t n_args) {
    if (n_args != ADVANCE_ARGS || bytes[A_COUNTS] < 4 * sizeof(uint32_t)) return;
    const uint64_t slot_bytes = bytes[A_RING] / RING_SLOTS / 8 * 8;
    if (slot_bytes < sizeof(RingSlot)) return;
    const uint64_t rows_max = (slot_bytes - sizeof(RingSlot)) / 8;
    for (uint32_t i = A_NEXT; i <= A_STATUS; i++)
        if (i != A_COUNTS && bytes[i] < rows_max * sizeof(int32_t)) return;
    int32_t *ids = args[A_IDS];
    uint32_t *pos = args[A_POS], *counts = args[A_COUNTS];
    RingSlot *slot =
        (RingSlot *)(void *)((char *)args[A_RING] + counts[COUNT_STEP] % RING_SLOTS * slot_bytes);
    int32_t *told = (int32_t *)(slot + 1);
    for (uint32_t r = 0; r < counts[COUNT_ROWS] && r < rows_max; r++) {
        ids[r] = told[r] = ((const int32_t *)args[A_NEXT])[r], pos[r]++;
        told[rows_max + r] = ((const int32_t *)args[A_STATUS])[r];
    }
    __atomic_store_n(&slot->done, ++counts[COUNT_STEP], __ATOMIC_RELEASE); // the last that the host waits for
}
