// Inside batch: what its files share. Only they include this.
#ifndef ADALLM_ENGINE_BATCH_STATE_H
#define ADALLM_ENGINE_BATCH_STATE_H
#include "runtime/engine/batch.h"

enum {
    NO_SLOT = UINT32_MAX,
    AHEAD = 2,         // steps in flight: the device begins one while the host takes the tokens of the last
    STEPS = RING_SLOTS // remembered: those in flight, the one before them, the one that is composed
};

// LEAVING: its sequence has gone, but a step in flight may have a row for it, whose token is computed once
// more by the next one.
typedef enum { SLOT_FREE, SLOT_TAKEN, SLOT_LEAVING } SlotState;
typedef struct {
    SlotState state;
    Seq *seq;
    uint32_t cached; // positions [0, cached) are computed by the steps launched so far
} Slot;

// DRAW: a token of the answer. PROMPT: logprobs of the token at pos + 1 of the prompt. LAST: tells that the
// prompt is computed. GUESS: a draw after a token at pos that was guessed; it counts when the guess was
// right.
typedef enum { ROW_DRAW, ROW_GUESS, ROW_PROMPT, ROW_LAST } RowKind;
typedef struct {
    Seq *seq; // NULL: nobody takes it
    uint32_t slot, pos;
    RowKind kind;
    int32_t guess; // the token at pos
} Row;

typedef struct {
    Row row;
    uint32_t token;
} PromptRow;

typedef struct {
    Seq *seq; // NULL: nobody asks
    uint32_t end;
} Chunk;

typedef struct {
    uint64_t number;
    Row *rows;                // [rows_max]
    uint32_t n_rows, n_draws; // draws come first
    Chunk *chunks;            // [n_chunks] of prompts; one a sequence at most
    uint32_t n_chunks;
    uint32_t n_tokens, n_prompt_tokens;
    uint32_t n_carried; // tokens whose ids the device has
    bool repeats, masked, guesses;
    double launched_s;
} Step;

struct Batch {
    Arena arena;
    Exec *x;
    const AdaPlan *plan;
    BatchOptions options; // without zeros
    SeqLimits limits;
    Kv kv;
    Slot *slots;   // [seqs_max]
    Seq **running; // [n_running] oldest first
    uint32_t n_running, n_prefilling, n_masked, n_leaving;
    Seq *waiting_first, *waiting_last;
    const Seq *no_room_for; // when so many pages were given back
    uint64_t no_room_since;
    uint32_t n_waiting, n_preempted;
    uint64_t arrivals;
    Step steps[STEPS];
    uint64_t n_launched, n_taken; // steps[n_launched % STEPS] is composed next
    Step *pending;                // its body runs, its tokens are not drawn yet: they wait for masks
    uint32_t carried; // rows of the last step, from the first on, whose tokens the device has as ids
    bool steady;      // the device could repeat the last step as it is
    bool dead;
    double taken_s; // when the last step was taken
    SamplingStage stage;
    BatchStats stats;
    BatchStep last_step;
    // Staging for one step.
    int32_t *ids, *pos, *slot; // [tokens]
    int32_t *rows;             // [rows_max]
    SamplingRow *sampling;     // [rows_max]
    uint32_t *masks;           // [seqs_max, TOKEN_COLS(vocab) / 32]; NULL until somebody has one
    ExecWrite *writes;
    PromptRow *prompt_rows; // [rows_max]
    int32_t *guesses;       // [rows_max]
    BatchToken *tokens;     // [rows_max]
};

static inline uint32_t batch_in_flight(const Batch *b) { return (uint32_t)(b->n_launched - b->n_taken); }
static inline Step *batch_last(Batch *b) { return &b->steps[(b->n_launched + STEPS - 1) % STEPS]; }

// ---- batch_line.c: who waits and who runs ----------------------------------------------------------------

void line_add(Batch *b, Seq *s); // at its place by arrival
void line_remove(Batch *b, Seq *s);
// Gives slots to those who wait, in their order, as long as there is room.
bool line_admit(Batch *b, Err *e);
// The sequence has no slot any more. again: it waits for another.
void line_leave(Batch *b, Seq *s, bool again);
void line_settle(Batch *b); // slots that are left are free

// ---- batch_compose.c: what the next step does ------------------------------------------------------------

// COMPOSE_LATER: something must be taken back that a step in flight needs; once none is, it will go on.
typedef enum { COMPOSED, COMPOSE_NOTHING, COMPOSE_LATER } Composed;
Composed compose(Batch *b, Step *s);

// ---- batch_launch.c: to the device and back --------------------------------------------------------------

bool launch(Batch *b, Step *s, Err *e);
bool launch_draws(Batch *b, Err *e); // of b->pending, whose masks can be told now
bool take(Batch *b, uint32_t *n, Err *e);
void fail_seq(Batch *b, Seq *s, ErrCode code, const char *fmt, ...) __attribute__((format(printf, 4, 5)));
#endif
