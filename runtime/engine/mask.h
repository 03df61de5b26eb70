// TokenMask: which tokens a sequence may be given next, decided by someone else, e.g. a grammar. The engine
// calls both functions on its own thread, one sequence at a time, in this order:
//
//     mask  ->  the token is drawn  ->  accept  ->  mask  ->  ...
//
// accept is called as soon as the token has reached the host, for all sequences of the step, and the body and
// head of the next step already run on the device; mask is called for all of them afterwards, just before the
// tokens are drawn. A provider may start its work in accept, on threads of its own, and wait for it in mask.
// Each token is accepted once, whatever preemption or speculation do.
#ifndef ADALLM_ENGINE_MASK_H
#define ADALLM_ENGINE_MASK_H
#include <stdbool.h>
#include <stdint.h>

typedef struct {
    void *ctx; // must live until the choice has ended (engine_release says what that means)
    // A token of the answer was drawn; a stop id is accepted, too.
    void (*accept)(void *ctx, int32_t id);
    // Sets bit id % 32 of words[id / 32] for each id that may come next, and clears all others: words are
    // uint32[TOKEN_COLS(vocab) / 32] (templates/lib/abi.h), with whatever they held before. Stop ids are
    // allowed like all others, where the rule permits an end. False: any token may come, words are not
    // read. No bit at all ends the choice with ENGINE_FAILED and E_SAMPLING.
    bool (*mask)(void *ctx, uint32_t *words);
} TokenMask;
#endif
