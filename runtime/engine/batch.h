// Batch: sequences that are generated together. Each takes a slot, is prefilled in chunks, then steps with
// all others; a step with unfinished prompts prefills, any other gives one token to every sequence. What a
// sequence gets depends on its own request alone. Sampling state, positions and last tokens live on the
// device; between two decode steps of an unchanged batch nothing is written to it, and the next step is
// launched before the tokens of the last are read.
#ifndef ADALLM_ENGINE_BATCH_H
#define ADALLM_ENGINE_BATCH_H
#include "runtime/engine/kv.h"
#include "runtime/engine/sampling.h"

typedef struct {
    const int32_t *ids; // prompt, copied
    uint32_t n_ids;
    uint32_t max_tokens;    // to generate; 0: as many as the context holds
    const int32_t *eos_ids; // end the sequence; must outlive it
    uint32_t n_eos_ids;
    Sampling sampling;
} Request;

typedef enum { SEQ_GOES_ON, SEQ_EOS, SEQ_MAX_TOKENS, SEQ_CONTEXT } SeqEnd;

typedef struct {
    uint32_t slot;
    int32_t id;                 // new token; an eos id is reported, too
    SeqEnd end;                 // not SEQ_GOES_ON exactly once, with the last token
    const LogprobRow *logprobs; // NULL: not asked for
} BatchToken;

typedef struct Batch Batch;

// The exec must outlive the batch. chunk: longest prefill of one sequence in a step; 0: what the plan allows.
Batch *batch_new(Exec *x, uint32_t chunk);
void batch_free(Batch *b); // b may be NULL

// Takes a free slot. Fails, and leaves the batch as it was, with E_IDS (no ids, an id outside the
// vocabulary), E_CONTEXT (the prompt leaves no room for a token), E_SAMPLING (sampling_check), E_MEMORY (no
// free slot or pages).
bool batch_add(Batch *b, const Request *r, uint32_t *slot, Err *e);
// Like batch_add, for a slot whose sequence has ended: the ids that its cache and r->ids have in common are
// not computed again. *reused says how many.
bool batch_continue(Batch *b, uint32_t slot, const Request *r, uint32_t *reused, Err *e);
void batch_release(Batch *b, uint32_t slot); // ends the sequence if it has not; the slot is free

// The next tokens of the sequence may only be ids whose bit is set in mask, uint32[TOKEN_COLS(vocab) / 32];
// NULL: any. For a slot between two steps.
bool batch_allow(Batch *b, uint32_t slot, const uint32_t *mask, Err *e);

// One step for all. *tokens: [*n], valid until the next call; none while prompts are prefilled, and none when
// nothing is left to do (batch_busy). E_NUMERIC names the sequence whose logits are not finite,
// E_SAMPLING the one that may draw nothing.
bool batch_step(Batch *b, const BatchToken **tokens, uint32_t *n, Err *e);
bool batch_busy(const Batch *b);
bool batch_prefilling(const Batch *b); // the next step prefills
bool batch_consistent(const Batch *b); // for tests: pages and states agree
#endif
