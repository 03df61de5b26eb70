// Score: logits after every position of given sequences, several side by side, in chunks.
#ifndef ADALLM_ENGINE_SCORE_H
#define ADALLM_ENGINE_SCORE_H
#include "runtime/exec/exec.h"

typedef struct {
    const int32_t *ids;
    uint32_t n;
} ScoreSeq;

// rows: [n, plan->vocab_rows] logits after positions first .. first + n - 1 of sequence `seq`. Positions of
// one sequence come in order; sequences interleave.
typedef bool ScoreSink(void *ctx, uint32_t seq, uint32_t first, uint32_t n, const float *rows, Err *e);

// batch: sequences side by side, 1 to the plan's slots. chunk: tokens of one sequence in a step; 0: as many
// as fit. E_IDS (id outside the vocabulary, no ids), E_CONTEXT, E_NUMERIC (names sequence and position).
bool score_run(Exec *x, const ScoreSeq *seqs, uint32_t n_seqs, uint32_t batch, uint32_t chunk,
               ScoreSink *sink, void *ctx, Err *e);
#endif
