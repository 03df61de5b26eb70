// Seq: one sequence, from the request to its last token. It has its own memory, taken once, for all that may
// come: nothing is allocated while it runs.
#ifndef ADALLM_ENGINE_SEQ_H
#define ADALLM_ENGINE_SEQ_H
#include "runtime/engine/mask.h"
#include "runtime/engine/prefix.h"
#include "runtime/engine/sampling.h"

enum { TOKENS_ALL = UINT32_MAX, STOP_IDS_MAX = 64 };

typedef struct {
    const int32_t *ids; // prompt, copied
    uint32_t n_ids;
    uint32_t max_tokens;     // to generate; 0: none, the prompt alone is computed; TOKENS_ALL
    const int32_t *stop_ids; // each ends the sequence; copied
    uint32_t n_stop_ids;     // STOP_IDS_MAX at most
    Sampling sampling;       // its bias is copied
    bool prompt_logprobs;    // of every token of the prompt but the first
    uint32_t prompt_top_logprobs;
    const TokenMask *mask; // copied; NULL: none
    Str salt;              // of cached prefixes: those of others are not seen
    void *user;
} Request;

// What a sequence may be: constants of a batch, readable from any thread.
typedef struct {
    const AdaPlan *plan;
    uint32_t context; // prompt and answer
    uint32_t pages[ADA_KV_GROUPS_MAX];
} SeqLimits;

typedef enum { SEQ_NEW, SEQ_WAITING, SEQ_PREFILL, SEQ_DECODE, SEQ_ENDED } SeqState;
typedef enum { SEQ_GOES_ON, SEQ_STOP, SEQ_MAX_TOKENS, SEQ_CONTEXT, SEQ_PROMPT, SEQ_FAILED } SeqEnd;

typedef struct Seq Seq;
struct Seq {
    void *user;
    // The request.
    int32_t *ids;                // [limit] prompt, then what was generated
    LogprobRow *logprobs;        // [limit - n_prompt]; NULL: not asked for
    LogprobRow *prompt_logprobs; // [n_prompt - 1]; NULL: not asked for
    Sha256 *keys;                // [limit / page_tokens] of full pages
    int32_t *stop_ids;
    Sampling sampling;
    TokenMask mask;
    uint32_t n_prompt, limit, n_stop_ids, prompt_top_logprobs;
    bool has_mask, to_context;
    Sha256 root; // before the first key
    // Where it stands.
    SeqState state;
    SeqEnd end;
    Err *err;             // of SEQ_FAILED, inside the sequence
    uint32_t n_ids;       // known
    uint32_t n_keys;      // known
    uint32_t n_published; // pages of these that others may find
    uint32_t n_prompt_logprobs;
    uint32_t slot;      // while prefilling and decoding
    uint32_t first_hit; // tokens found in the cache when it first entered
    uint32_t n_guessed, n_accepted;
    double entered_s;   // clock_s() of its first slot
    uint32_t n_entered; // how often it got a slot: 1 + preemptions
    uint64_t arrival;   // oldest first
    uint64_t in_step;   // number of the last step that was given its tokens
    Seq *next, *prev;   // waiting line
};

// Checks the request and copies it. NULL: E_IDS (no ids, an id outside the vocabulary, stop ids), E_CONTEXT
// (no room for prompt and max_tokens), E_SAMPLING (sampling_check), E_MEMORY (the KV pools never hold it;
// no memory).
Seq *seq_new(const SeqLimits *l, const Request *r, Err *e);
void seq_free(Seq *s); // no batch has it. s may be NULL

// What happens after token id was added.
SeqEnd seq_end_after(const Seq *s, int32_t id);
// Learns the keys of pages that known ids fill.
void seq_extend_keys(Seq *s, uint32_t page_tokens);
#endif
