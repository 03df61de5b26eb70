// sample on a GPU: how many blocks share a row. The layout of the work buffer is templates/sample.cu's.
#include "compiler/targets/cuda_choose.h"
#include "runtime/base/num.h"

enum {
    SAMPLE_THREADS = 512,
    SAMPLE_CHUNK = 128,    // ids that a warp looks at together
    SAMPLE_SHARED = 26624, // room for SampleShared
    SAMPLE_VOCAB_MAX = 2560 * SAMPLE_CHUNK,
    COUNTER_BYTES = 64 << 10
};
#define SM_BYTES_PER_CLOCK 40  // of the L2, that one SM takes in
#define FINISH_US          1.5 // counting the blocks in, reading what they found

static uint64_t row_work_bytes(uint64_t chunks, uint64_t blocks) {
    return round_up(8 * blocks, 256) + 2 * round_up(8 * chunks, 256) +
           round_up(4 * SAMPLE_CHUNK * chunks, 256);
}

// A greedy row: its logits from the L2, and the last block's end. Blocks that do not fit side by side, one an
// SM, follow each other.
static double predict(const Target *t, uint64_t rows, uint64_t chunks, uint32_t blocks) {
    double rounds = (double)div_up(rows * blocks, t->units);
    double bytes = (double)div_up(chunks, blocks) * SAMPLE_CHUNK * 4;
    return t->launch_us + FINISH_US + 0.004 * blocks +
           rounds * bytes / (SM_BYTES_PER_CLOCK * t->clock_ghz * 1e3);
}

void cuda_sample(const Target *t, const KernelAsk *ask, KernelAnswer *out) {
    static const uint32_t blocks[] = {1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128};
    const uint64_t vocab = ask_u(ask, "vocab"), chunks = div_up(vocab, SAMPLE_CHUNK);
    if (vocab > SAMPLE_VOCAB_MAX) {
        cuda_refuse(out, "a vocabulary of %llu; the sampler holds %d", (unsigned long long)vocab,
                    SAMPLE_VOCAB_MAX);
        return;
    }
    for (size_t i = 0; i < COUNT_OF(blocks); i++) {
        if (i && blocks[i] * (SAMPLE_THREADS / 32) > chunks) break; // warps without a chunk
        KernelChoice c = {.grid = ask->bucket * blocks[i],
                          .threads = SAMPLE_THREADS,
                          .shared_bytes = SAMPLE_SHARED,
                          .work_bytes = COUNTER_BYTES + ask->bucket * row_work_bytes(chunks, blocks[i]),
                          .predicted_us = predict(t, ask->bucket, chunks, blocks[i])};
        choice_add(&c, "blocks", blocks[i]);
        cuda_consider(t, ask, out, &c);
    }
}
