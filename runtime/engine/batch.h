// Batch: sequences that are generated together; the scheduler. Sequences wait in line, oldest first, until a
// slot and pages of the KV cache are free. A step takes one token of every sequence that generates, and fills
// up with prompt tokens of the others, oldest first. What a sequence gets depends on its own request alone.
//
// Last tokens, positions and sampling state live on the device, which advances them itself: up to two steps
// are launched before the tokens of the first are read. A step that repeats the one before it writes nothing
// to the device. Otherwise its first tokens are the rows of the step before, in their order and with the ids
// that the device drew; those whose sequence has ended meanwhile are computed once more, for nobody.
//
// Pages are taken when they are needed. When they run out, the youngest sequence gives back its slot and
// pages, returns to the line at its old place, and is computed again later: the oldest always goes on.
#ifndef ADALLM_ENGINE_BATCH_H
#define ADALLM_ENGINE_BATCH_H
#include "runtime/engine/kv.h"
#include "runtime/engine/seq.h"

// 0: as much as the plan has.
typedef struct {
    uint32_t seqs;      // slots in use
    uint32_t tokens;    // of a step
    uint32_t context;   // of a sequence
    uint32_t chunk;     // prompt tokens of one sequence in a step
    bool prefill_first; // no token is generated while a prompt is unfinished: for measurements
    uint32_t speculate; // tokens of a sequence that a step may guess; 0: none
    void (*entered)(void *ctx, Seq *s); // s gets its first slot; inside batch_step. NULL: nobody asks
    // A step computed a chunk of s, whose tokens [0, n) are done; inside batch_step, before its tokens. NULL.
    void (*computed)(void *ctx, Seq *s, uint32_t n);
    void *ctx;
} BatchOptions;

typedef struct {
    Seq *seq;
    int32_t id;                 // new token; -1: none came with this end. A stop id is reported, too
    SeqEnd end;                 // not SEQ_GOES_ON exactly once, with the last token
    const LogprobRow *logprobs; // NULL: not asked for. Lives as long as the sequence
} BatchToken;

typedef struct {
    uint64_t steps, tokens;              // launched; tokens of bodies
    uint64_t prompt_tokens, drawn;       // computed; drawn and taken
    uint64_t queried_tokens, hit_tokens; // prompts that entered first; found in the cache
    uint64_t preemptions, guessed, accepted;
    uint64_t wasted; // tokens computed for nobody
} BatchStats;

// What batch_step ended.
typedef struct {
    uint32_t tokens, prompt_tokens; // of the step
    double seconds; // since it was launched, or since the step before ended where that is later
} BatchStep;

typedef struct Batch Batch;

// The exec must outlive the batch. o: NULL for all defaults; E_OPTION_VALUE says what is out of range.
Batch *batch_new(Exec *x, const BatchOptions *o, Err *e);
void batch_free(Batch *b); // its sequences are forgotten, not freed. b may be NULL
const SeqLimits *batch_limits(const Batch *b);

// Puts a new sequence at the end of the line; it stays the caller's and must live until batch_remove.
void batch_add(Batch *b, Seq *s);
// The batch forgets it, whatever it does: waits, runs or has ended.
void batch_remove(Batch *b, Seq *s);

// Launches what can be launched and takes the tokens of the oldest step. *tokens: [*n], valid until the next
// call; maybe none. False: the device has failed, and the batch is dead. A sequence that alone cannot go on
// (E_NUMERIC: its logits are not finite; E_SAMPLING: no token is allowed) ends with SEQ_FAILED.
bool batch_step(Batch *b, const BatchToken **tokens, uint32_t *n, Err *e);
bool batch_busy(const Batch *b); // a sequence waits or runs

uint32_t batch_running(const Batch *b); // sequences in slots
uint32_t batch_waiting(const Batch *b, uint32_t *preempted);
const Seq *batch_seq(const Batch *b, uint32_t i);      // running, oldest first
uint32_t batch_computed(const Batch *b, const Seq *s); // positions of a running sequence, those in flight too
const BatchStats *batch_stats(const Batch *b);
const BatchStep *batch_last_step(const Batch *b); // of the last batch_step; tokens 0: it took none
const Kv *batch_kv(const Batch *b);
bool batch_consistent(const Batch *b); // for tests: pages, slots and states agree
#endif
