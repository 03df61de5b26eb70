// Inside engine: what its files share. Only they include this.
//
// Who may touch what: fields marked [e] belong to the engine's thread, [c] to the consumer of the sink;
// everything else is constant after engine_submit, or atomic.
#ifndef ADALLM_ENGINE_ENGINE_STATE_H
#define ADALLM_ENGINE_ENGINE_STATE_H
#include <pthread.h>
#include <stdatomic.h>

#include "runtime/engine/batch.h"
#include "runtime/engine/engine.h"

// ---- statistics ------------------------------------------------------------------------------------------

// One writer, the engine's thread; read by anybody.
typedef struct {
    const double *bounds;
    uint32_t n_bounds;
    _Atomic uint64_t counts[ENGINE_BUCKETS_MAX + 1];
    _Atomic double sum;
} Histogram;

typedef enum {
#define HISTOGRAM(name, bounds) HISTOGRAM_##name,
#include "runtime/engine/engine_histograms.def"
#undef HISTOGRAM
    HISTOGRAMS
} HistogramId;

typedef struct {
    _Atomic uint64_t request; // 0: nobody
    _Atomic uint32_t choice, prompt, computed, generated;
} SlotView;

typedef struct {
    Histogram histograms[HISTOGRAMS];
    _Atomic uint64_t steps, prompt_tokens, computed, drawn, queried, hits, preemptions, evicted, guessed,
        accepted;
    _Atomic uint64_t refused, submitted, ended[ENGINE_FAILED + 1];
    _Atomic uint32_t running, preempted, pages_used[ADA_KV_GROUPS_MAX], pages_cached[ADA_KV_GROUPS_MAX];
    _Atomic double last_step_s, seconds_a_request; // the latter: between the ends of requests, smoothed
    SlotView *slots;                               // [seqs_max]
} EngineCounts;

// ---- tasks -----------------------------------------------------------------------------------------------

typedef struct {
    EngineTask *task;
    Seq *seq; // [e], but that the consumer reads tokens that were made public
    uint32_t index;
    _Atomic uint32_t n_public; // tokens that the consumer may read
    _Atomic uint32_t end;      // EngineEnd; once it is told, n_public is final
    atomic_bool cancel;
    Err *err;               // of ENGINE_FAILED; read after `end`
    double first_s, last_s; // [e] when its first and its latest token came
    uint32_t seen;          // [c] tokens told
    bool told;              // [c] its end was told
} EngineChoice;

enum { CHUNKS_KEPT = 16 };
enum { COMMAND_SUBMIT = 1, COMMAND_CANCEL = 2 };

struct EngineTask {
    Engine *engine;
    EngineSink *sink;
    void *user;
    uint64_t number;
    double submitted_s, deadline_s;
    // Held by the consumer until engine_release, by the engine until the end, by each list that it stands in.
    atomic_uint refs;
    atomic_bool released;
    atomic_bool has_news; // stands in its sink
    EngineTask *next_news;
    atomic_bool has_command; // stands in engine->commands
    atomic_uint commands;
    EngineTask *next_command;
    EngineTask *prev, *next; // [e] live tasks
    bool entered;            // [e] one of its choices got a slot
    uint32_t n_open;         // [e] choices without an end
    _Atomic double entered_s, first_s, ended_s;
    _Atomic uint32_t cached, tokens, preemptions, guessed, accepted;
    // Where `progress`: how far the prompt was after each chunk, the last CHUNKS_KEPT of n_chunks.
    bool progress;
    _Atomic uint32_t n_chunks, chunks[CHUNKS_KEPT];
    bool told_begin;                            // [c]
    uint32_t told_chunks, told_cached, told_to; // [c] of what engine_progress told
    uint32_t n_prompt, n_choices;
    EngineChoice choices[];
};

struct EngineSink {
    Engine *engine;
    int fd;
    atomic_uint refs; // its owner, its tasks, and the engine before it writes fd
    atomic_bool closed;
    _Atomic(EngineTask *) news; // stack
    EngineTask *first;          // [c] taken from it, in order
    EngineSink *next_touched;   // [e]
    bool touched;               // [e]
};

struct Engine {
    Arena arena;
    Batch *batch; // [e]
    Exec *x;      // [e]
    EngineOptions options;
    pthread_t thread;
    bool has_thread;
    _Atomic uint32_t state; // EngineState
    atomic_bool stop;
    atomic_uint submitting; // calls of engine_submit that may still push a command
    Err death;              // before state is ENGINE_DEAD
    _Atomic uint64_t numbers;
    _Atomic uint32_t active, waiting; // tasks without an end; those without a first slot
    _Atomic uint64_t waiting_tokens;
    _Atomic(EngineTask *) commands; // stack
    atomic_bool sleeping;
    int wake_fd;
    pthread_mutex_t lock; // of `idle` alone
    pthread_cond_t idle;
    EngineTask *live;                  // [e]
    EngineSink *touched;               // [e] sinks whose consumers must be woken
    double now_s;                      // [e] when the tokens of this step came
    double expired_s, request_ended_s; // [e] when deadlines were last looked at; when a request last ended
    EngineCounts counts;
};

// ---- engine_task.c ---------------------------------------------------------------------------------------

void task_drop(EngineTask *t);            // one reference less
void task_news(Engine *e, EngineTask *t); // [e] it has news for its consumer
void sinks_wake(Engine *e);               // [e] once a step
EngineTask *commands_take(Engine *e);     // [e] oldest first, linked by next_command
void engine_wake(Engine *e);

// ---- engine_stats.c --------------------------------------------------------------------------------------

void counts_init(Engine *e, Arena *a);
void counts_step(Engine *e); // [e] after a step
void counts_now(Engine *e);  // [e] what changed without one
void histogram_add(Engine *e, HistogramId id, double x);
static inline void count_one(_Atomic uint64_t *n) { atomic_fetch_add_explicit(n, 1, memory_order_relaxed); }
#endif
