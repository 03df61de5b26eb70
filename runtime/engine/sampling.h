// Sampling: how a request wants its tokens chosen, and what the device keeps of it: a SamplingRow for every
// row of a step, and for every slot token counts and lists (templates/lib/abi.h says what they mean).
#ifndef ADALLM_ENGINE_SAMPLING_H
#define ADALLM_ENGINE_SAMPLING_H
#include "runtime/exec/exec.h"
#include "templates/lib/abi.h"

typedef struct {
    int32_t id;
    float bias;
} TokenBias;

typedef struct {
    float temperature, top_p, min_p; // 0: greedy; 1: off; 0: off
    uint32_t top_k;                  // 0: off
    uint64_t seed;
    float repetition;      // over prompt and answer; 0 and 1: off
    float presence;        // over the answer; 0: off
    float frequency;       // over the answer; 0: off
    uint32_t min_tokens;   // the request's eos ids are not drawn before
    const TokenBias *bias; // [n_bias] distinct ids, ascending, at most BIAS_MAX; read when the request enters
    uint32_t n_bias;
    bool logprobs;         // of every token
    uint32_t top_logprobs; // and of that many likeliest, at most LOGPROBS_MAX
} Sampling;

// Staging of what a slot gets; one serves all slots in turn.
typedef struct {
    uint16_t *counts; // [TOKEN_COLS(vocab)]
    TokenLists *lists;
} SamplingStage;

SamplingStage sampling_stage(Arena *a, const AdaPlan *p);

// E_SAMPLING says what the device cannot do.
bool sampling_check(const Sampling *s, const AdaPlan *p, uint32_t n_eos_ids, Err *e);
// Writes the state of a slot whose sequence has these ids so far, those of its prompt first; nothing when the
// request needs none.
bool sampling_enter(const SamplingStage *stage, Exec *x, uint32_t slot, const Sampling *s, const int32_t *ids,
                    uint32_t n_prompt, uint32_t n_ids, const int32_t *eos_ids, uint32_t n_eos_ids, Err *e);
// The row of a sequence that has drawn `step` tokens. masked: its token mask holds.
SamplingRow sampling_row(const Sampling *s, uint32_t slot, uint64_t step, uint32_t n_eos_ids, bool masked);
#endif
