// Engine: requests of many threads on one batch. One thread of its own owns the Exec and steps the batch;
// other threads submit, cancel, and take what is new. Every function may be called from any thread unless it
// says otherwise.
//
//     thread of the server                           thread of the engine
//     engine_submit --- request, copied ----------->  waiting line, batch, steps
//     engine_sink_fd is readable  <---- once a step -- tokens into the task's own memory
//     engine_next: a task with news
//     engine_news: its tokens, its end
//     engine_release: done with it; cancels what has not ended
//
// Tokens are not copied into events: a task has room for all that it may generate, taken when it is
// submitted, so a slow reader costs nothing and nothing is allocated between two tokens. A task that has news
// stands once in its sink, however many tokens came.
#ifndef ADALLM_ENGINE_ENGINE_H
#define ADALLM_ENGINE_ENGINE_H
#include "runtime/base/str.h"
#include "runtime/engine/mask.h"
#include "runtime/engine/sampling.h"

typedef struct Engine Engine;
typedef struct EngineSink EngineSink; // where one consumer thread finds the tasks that have news
typedef struct EngineTask EngineTask; // one request; the handle

enum {
    ENGINE_CHOICES_MAX = 128,       // n
    ENGINE_STOP_IDS_MAX = 64,       // STOP_MAX of them with min_tokens
    ENGINE_TOKENS_ALL = UINT32_MAX, // max_tokens: as many as max_model_len leaves
    ENGINE_ALL_CHOICES = UINT32_MAX // engine_cancel
};

// ---- opening and closing ---------------------------------------------------------------------------------

// 0 is the default of every field.
typedef struct {
    uint32_t max_num_seqs;           // sequences that run at once; default and most: slots of the plan
    uint32_t max_num_batched_tokens; // tokens of one step; default and most: the largest body of the plan
    uint32_t max_model_len;          // prompt and answer of a sequence; default and most: context of the plan
    uint32_t queue_requests_max;     // requests that wait for a first slot; default 256
    uint32_t queue_tokens_max;       // prompt tokens that wait; default: no bound beside the former
    bool no_prefix_cache;            // `n` still shares its prompt
    uint32_t speculate;              // tokens a step that prompt lookup may guess for a sequence; 0: off
} EngineOptions;

// Takes all memory of the engine and starts its thread. The exec must outlive it, and is the engine's alone
// from here on. E_OPTION_VALUE says which option is out of range.
Engine *engine_new(Exec *x, const EngineOptions *o, Err *e);
// Stops (engine_stop) and frees. All tasks must have been released and all sinks freed before. e may be NULL.
void engine_free(Engine *e);

// READY takes requests. DRAINING finishes those it has and refuses new ones (E_DRAINING). STOPPED has none
// left and takes none. DEAD: the device is lost, every task has ended with ENGINE_FAILED; engine_error says
// why.
typedef enum { ENGINE_READY, ENGINE_DRAINING, ENGINE_STOPPED, ENGINE_DEAD } EngineState;
EngineState engine_state(const Engine *e);
bool engine_error(const Engine *e, Err *out); // false: the engine has not failed
void engine_drain(Engine *e);                 // returns at once
// Waits until no task is left that has not ended. False after timeout_s seconds; 0 only looks.
bool engine_wait_idle(Engine *e, double timeout_s);
void engine_stop(Engine *e); // ends every task with ENGINE_CANCELLED and waits for the thread to end

// ---- requests --------------------------------------------------------------------------------------------

// Copied by engine_submit but for what the masks point to. What a choice gets depends on this alone: not on
// what else runs, not on how the prompt was cut, cached or computed again.
typedef struct {
    const int32_t *ids;      // [n_ids] prompt
    uint32_t n_ids;          // 1 at least
    uint32_t max_tokens;     // of each choice; 0: the prompt alone is computed, for its logprobs; or
                             // ENGINE_TOKENS_ALL
    uint32_t n;              // choices; 0 counts as 1. Choice i draws with sampling.seed + i
    const int32_t *stop_ids; // [n_stop_ids] each ends a choice, and is its last token: eos ids (leave them
                             // out for ignore_eos) and stop_token_ids
    uint32_t n_stop_ids;
    Sampling sampling;            // min_tokens, penalties, bias, logprobs of the answer: see sampling.h
    bool prompt_logprobs;         // of every token of the prompt but the first
    uint32_t prompt_top_logprobs; // and of that many likeliest, at most LOGPROBS_MAX
    bool progress;                // how far the prompt is makes news, too: engine_progress
    Str salt;               // tenants with different salts never share cached prefixes; empty: the common one
    const TokenMask *masks; // [n] rules for the tokens of each choice (mask.h); NULL: none
    double deadline_s;      // clock_s() at which it ends with ENGINE_DEADLINE; 0: none
    void *user;             // engine_user gives it back
} EngineRequest;

// Checks the request against the engine's limits and puts it at the end of the waiting line. On success the
// caller owns a reference, which engine_release gives back; news arrives in `sink`, which must outlive the
// task. Errors, with numbers in their text:
//     E_IDS       no ids, an id outside the vocabulary, too many stop ids
//     E_CONTEXT   prompt, or prompt + max_tokens, does not fit into max_model_len
//     E_MEMORY    the KV pools could not hold one choice even if it were alone
//     E_SAMPLING  sampling_check; n over ENGINE_CHOICES_MAX; a mask beside speculation is fine
//     E_BUSY      the waiting line is full (HTTP 429); engine_retry_after_s guesses when it is not
//     E_DRAINING  draining or stopped (503)
//     E_DEVICE    the engine is dead (503)
EngineTask *engine_submit(Engine *e, EngineSink *sink, const EngineRequest *r, Err *err);
void *engine_user(const EngineTask *t);

// Ends a choice, or ENGINE_ALL_CHOICES, with ENGINE_CANCELLED (a stop string was seen, the client is gone).
// Its slot is free for others in the next step that the engine composes. After the end, or twice: no effect.
void engine_cancel(EngineTask *t, uint32_t choice);
// The caller will not touch the task again; one that still runs is cancelled. Exactly once for each task.
// What masks point to must live until the end was told: of such a task cancel, wait for it, then release.
void engine_release(EngineTask *t);
// Seconds until a refused request may find room, from the rate at which requests end; 1 at least.
double engine_retry_after_s(const Engine *e);

// ---- news ------------------------------------------------------------------------------------------------

// A sink belongs to one consumer thread: only it calls engine_next, and engine_news and engine_release of
// tasks of this sink. E_SYSTEM: no eventfd.
EngineSink *engine_sink_new(Engine *e, Err *err);
void engine_sink_free(EngineSink *s); // its tasks have been released. s may be NULL
// An eventfd for poll: readable when a task has news since the sink was last found empty. The engine writes
// at most once a step. engine_next clears it.
int engine_sink_fd(const EngineSink *s);
// The next task with news; NULL: none for now. After it, call engine_news until it says false. Tasks come in
// the order in which they got their first news.
EngineTask *engine_next(EngineSink *s);

typedef enum {
    ENGINE_RUNNING, // no end yet
    ENGINE_STOP,    // the last id is one of stop_ids
    ENGINE_LENGTH,  // max_tokens
    ENGINE_CONTEXT, // max_model_len, where max_tokens was ENGINE_TOKENS_ALL
    ENGINE_PROMPT,  // max_tokens 0: the prompt is computed
    ENGINE_CANCELLED,
    ENGINE_DEADLINE,
    ENGINE_FAILED // EngineNews.err says why: E_NUMERIC, E_SAMPLING (no token allowed), E_DEVICE
} EngineEnd;

// What came for one choice since the last call: tokens [first, first + n) of its answer. All pointers hold
// until engine_release.
typedef struct {
    uint32_t choice;
    uint32_t first, n;
    const int32_t *ids;         // [n]
    const LogprobRow *logprobs; // [n] where sampling.logprobs; else NULL
    EngineEnd end;              // not ENGINE_RUNNING exactly once for each choice, with its last news
    const Err *err;             // of ENGINE_FAILED; else NULL
} EngineNews;

// False: nothing more for now. Only after engine_next gave the task.
bool engine_news(EngineTask *t, EngineNews *out);

// [n_ids - 1] rows, row i for token i + 1 of the prompt: n = 1 + entries, the token's own first. Complete
// from the first news of the task on; NULL: not asked for, or the task ended before.
const LogprobRow *engine_prompt_logprobs(const EngineTask *t);

// How far the first choice's prompt is: at first what the cache had, then more with every chunk (with the
// last ones where the consumer is far behind), at last all of it, which is there before the first token is.
typedef struct {
    uint32_t total, cached, computed; // tokens; cached: by the cache at first, which count as computed
    double seconds;                   // since it was admitted
} EngineProgress;
// False: no more than it said before, or the request did not ask. Only after engine_next gave the task; again
// until it says false, and after an engine_news before its tokens are told.
bool engine_progress(EngineTask *t, EngineProgress *out);

// For usage and histograms; final once every choice has ended. Times are clock_s(); 0: has not happened.
typedef struct {
    double submitted_s, admitted_s, first_token_s, ended_s;
    uint32_t prompt_tokens;
    uint32_t cached_tokens; // of the prompt, found in the cache by the first choice
    uint32_t tokens;        // generated, all choices together
    uint32_t preemptions;
    uint32_t guessed_tokens, accepted_tokens; // speculation
} EngineUsage;
EngineUsage engine_usage(const EngineTask *t);

// ---- statistics ------------------------------------------------------------------------------------------

// Counts of values up to each bound, not cumulated; the last entry is for those above all bounds.
enum { ENGINE_BUCKETS_MAX = 24 };
typedef struct {
    const double *bounds; // [n_bounds], ascending, static
    uint32_t n_bounds;
    uint64_t counts[ENGINE_BUCKETS_MAX + 1];
    double sum;
    uint64_t count;
} EngineHistogram;

typedef struct {
    // Now.
    uint32_t running, waiting;               // sequences in slots; requests in line
    uint32_t waiting_preempted;              // sequences that wait for pages again
    uint64_t waiting_tokens;                 // prompt tokens in line
    uint32_t slots, context, batched_tokens; // limits
    uint32_t n_groups;
    struct {
        uint32_t pages, used, cached, page_tokens, window; // window 0: full attention
    } kv[ADA_KV_GROUPS_MAX];
    double kv_usage;    // pages in use of the fullest group, 0 to 1; cached ones are free
    double kv_contexts; // sequences of `context` tokens that the pools could hold at once
    double last_step_s; // clock_s() at which a step last ended; 0: never. A watchdog compares it with `busy`
    bool busy;          // there is work
    // Since the start.
    uint64_t steps, prompt_tokens, computed_prompt_tokens, generated_tokens;
    uint64_t prefix_queried_tokens, prefix_hit_tokens;
    uint64_t preemptions, evicted_pages, guessed_tokens, accepted_tokens;
    uint64_t requests, refused;                               // submitted with success; refused with E_BUSY
    uint64_t ended[ENGINE_FAILED + 1];                        // choices by EngineEnd
    EngineHistogram step_decode_s, step_mixed_s, step_tokens; // mixed: with prompt tokens
    EngineHistogram first_token_s, inter_token_s, queue_s, prefill_s, decode_s, e2e_s; // of choices
    EngineHistogram prompt_lengths, answer_lengths;
} EngineStats;
// A snapshot; its parts may be of neighbouring steps.
void engine_stats(const Engine *e, EngineStats *out);

// Who is in the batch now, for a page that shows it. Returns how many of out[max] were filled.
typedef struct {
    uint64_t request; // counts from 1
    uint32_t choice, prompt_tokens, computed_tokens, generated_tokens;
} EngineSlot;
uint32_t engine_slots(const Engine *e, EngineSlot *out, uint32_t max);
#endif
