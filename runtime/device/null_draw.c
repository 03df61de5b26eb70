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

void null_draw(void *const *args, uint32_t n_args, NullSizes sizes) {
    const uint64_t rows = sizes.status / sizeof(uint32_t), slots = sizes.lists / sizeof(TokenLists);
    if (!rows || !slots) return;
    const uint64_t words = sizes.mask / sizeof(uint32_t) / slots,
                   vocab_rows = sizes.logits / sizeof(float) / rows;
    const uint32_t cols = (uint32_t)(words * 32 < vocab_rows ? words * 32 : vocab_rows);
    const uint32_t *counts = args[4];
    LogprobRow *ring = (LogprobRow *)args[n_args - 1] + counts[COUNT_STEP] % RING_SLOTS * rows;
    for (uint32_t r = 0; cols && r < counts[COUNT_ROWS] && r < rows; r++) {
        SamplingRow *row = (SamplingRow *)args[1] + r;
        if (row->slot < slots)
            draw_row(row, (const uint32_t *)args[n_args - 2] + row->slot * words, cols, &ring[r],
                     (int32_t *)args[2] + r, (uint32_t *)args[3] + r);
    }
}

void null_advance(void *const *args, uint64_t ring_bytes) {
    const int32_t *next = args[0];
    const uint32_t *status = args[4];
    int32_t *ids = args[1], *pos = args[2];
    uint32_t *counts = args[3];
    const uint64_t slot_bytes = ring_bytes / RING_SLOTS;
    if (slot_bytes < sizeof(RingSlot)) return;
    const uint64_t rows_max = (slot_bytes - sizeof(RingSlot)) / 8;
    RingSlot *slot = (RingSlot *)(void *)((char *)args[5] + counts[COUNT_STEP] % RING_SLOTS * slot_bytes);
    int32_t *told = (int32_t *)(slot + 1);
    for (uint32_t r = 0; r < counts[COUNT_ROWS] && r < rows_max; r++) {
        ids[r] = told[r] = next[r], pos[r]++;
        told[rows_max + r] = (int32_t)status[r];
    }
    slot->done = ++counts[COUNT_STEP];
}
