#include "runtime/engine/engine.h"

#include <poll.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "runtime/base/log.h"
#include "runtime/base/num.h"
#include "runtime/engine/engine_state.h"

static const double expire_every_s = 0.02, smoothing = 0.1;

// ---- ends ------------------------------------------------------------------------------------------------

static void unlink_live(Engine *e, EngineTask *t) {
    *(t->prev ? &t->prev->next : &e->live) = t->next;
    if (t->next) t->next->prev = t->prev;
}

static void leave_line(Engine *e, EngineTask *t) {
    if (t->entered) return;
    t->entered = true;
    atomic_fetch_sub(&e->waiting, 1);
    atomic_fetch_sub(&e->waiting_tokens, t->n_prompt);
}

static void count_request_end(Engine *e) {
    EngineCounts *c = &e->counts;
    const double each = atomic_load(&c->seconds_a_request), since = e->now_s - e->request_ended_s;
    if (e->request_ended_s > 0)
        atomic_store(&c->seconds_a_request, each > 0 ? each + smoothing * (since - each) : since);
    e->request_ended_s = e->now_s;
}

static void end_task(Engine *e, EngineTask *t) {
    leave_line(e, t);
    unlink_live(e, t);
    count_request_end(e);
    pthread_mutex_lock(&e->lock);
    if (atomic_fetch_sub(&e->active, 1) == 1) pthread_cond_broadcast(&e->idle);
    pthread_mutex_unlock(&e->lock);
    task_drop(t);
}

static void measure_end(Engine *e, const EngineChoice *c) {
    const EngineTask *t = c->task;
    histogram_add(e, HISTOGRAM_e2e_s, e->now_s - t->submitted_s);
    histogram_add(e, HISTOGRAM_answer_lengths, c->seq->n_ids - c->seq->n_prompt);
    if (c->first_s > 0) histogram_add(e, HISTOGRAM_decode_s, e->now_s - c->first_s);
}

// All but `end` is in place before it: the consumer reads after it.
static void end_choice(Engine *e, EngineChoice *c, EngineEnd end, Err *err) {
    EngineTask *t = c->task;
    batch_remove(e->batch, c->seq);
    measure_end(e, c);
    count_one(&e->counts.ended[end]);
    if (c->seq->n_entered) atomic_fetch_add(&t->preemptions, c->seq->n_entered - 1);
    atomic_fetch_add(&t->guessed, c->seq->n_guessed);
    atomic_fetch_add(&t->accepted, c->seq->n_accepted);
    c->err = err;
    const bool last = --t->n_open == 0;
    if (last) atomic_store(&t->ended_s, e->now_s);
    atomic_store_explicit(&c->end, end, memory_order_release);
    task_news(e, t);
    if (last) end_task(e, t);
}

static void end_open(Engine *e, EngineTask *t, EngineEnd end, Err *err) {
    for (uint32_t i = 0, n = t->n_choices, left = t->n_open; i < n && left; i++) {
        EngineChoice *c = &t->choices[i];
        if (atomic_load_explicit(&c->end, memory_order_relaxed) != ENGINE_RUNNING) continue;
        left--;
        end_choice(e, c, end, err); // of the last one the task may be gone
    }
}

static void end_all(Engine *e, EngineEnd end, Err *err) {
    e->now_s = clock_s();
    for (EngineTask *t = e->live, *next; t; t = next) {
        next = t->next;
        end_open(e, t, end, err);
    }
    sinks_wake(e);
}

static void die(Engine *e, const Err *why) {
    e->death = *why;
    e->death.code = E_DEVICE;
    atomic_store(&e->state, ENGINE_DEAD);
    log_line("engine", "dead: %s", why->msg);
    end_all(e, ENGINE_FAILED, &e->death);
}

// ---- commands --------------------------------------------------------------------------------------------

static void start(Engine *e, EngineTask *t) {
    t->prev = NULL, t->next = e->live;
    if (e->live) e->live->prev = t;
    e->live = t;
    atomic_fetch_add_explicit(&e->counts.prompt_tokens, (uint64_t)t->n_prompt * t->n_choices,
                              memory_order_relaxed);
    histogram_add(e, HISTOGRAM_prompt_lengths, t->n_prompt);
    if (atomic_load(&e->state) == ENGINE_DEAD) {
        end_open(e, t, ENGINE_FAILED, &e->death);
        return;
    }
    for (uint32_t i = 0; i < t->n_choices; i++) batch_add(e->batch, t->choices[i].seq);
}

static void cancel(Engine *e, EngineTask *t) {
    for (uint32_t i = 0; i < t->n_choices; i++) {
        EngineChoice *c = &t->choices[i];
        if (!atomic_exchange(&c->cancel, false)) continue;
        if (atomic_load_explicit(&c->end, memory_order_relaxed) == ENGINE_RUNNING)
            end_choice(e, c, ENGINE_CANCELLED, NULL);
    }
}

static void obey(Engine *e) {
    e->now_s = clock_s();
    for (EngineTask *t = commands_take(e), *next; t; t = next) {
        next = t->next_command;
        atomic_store(&t->has_command, false); // before the commands are read: later ones come again
        const unsigned what = atomic_exchange(&t->commands, 0);
        if (what & COMMAND_SUBMIT) start(e, t);
        if (what & COMMAND_CANCEL) cancel(e, t);
        task_drop(t);
    }
}

static void expire(Engine *e) {
    if (e->now_s - e->expired_s < expire_every_s) return;
    e->expired_s = e->now_s;
    for (EngineTask *t = e->live, *next; t; t = next) {
        next = t->next;
        if (t->deadline_s > 0 && t->deadline_s <= e->now_s) end_open(e, t, ENGINE_DEADLINE, NULL);
    }
}

// ---- tokens ----------------------------------------------------------------------------------------------

// Called inside batch_step, when a sequence gets its first slot.
static void entered(void *ctx, Seq *s) {
    Engine *e = ctx;
    EngineTask *t = ((EngineChoice *)s->user)->task;
    const bool first = !t->entered;
    if (first) atomic_store(&t->cached, s->first_hit), atomic_store(&t->entered_s, s->entered_s);
    leave_line(e, t);
    histogram_add(e, HISTOGRAM_queue_s, s->entered_s - t->submitted_s);
    if (!first || !t->progress) return;
    task_news(e, t);
    sinks_wake(e); // now: the step may take long
}

// Called inside batch_step.
static void computed(void *ctx, Seq *s, uint32_t n) {
    const EngineChoice *c = s->user;
    EngineTask *t = c->task;
    if (!t->progress || c->index) return;
    const uint32_t at = atomic_load_explicit(&t->n_chunks, memory_order_relaxed);
    atomic_store_explicit(&t->chunks[at % CHUNKS_KEPT], MIN(n, t->n_prompt), memory_order_relaxed);
    atomic_store_explicit(&t->n_chunks, at + 1, memory_order_release);
    task_news(ctx, t);
}

static void first_token(Engine *e, EngineChoice *c) {
    EngineTask *t = c->task;
    c->first_s = e->now_s;
    if (c->index == 0) atomic_store(&t->cached, c->seq->first_hit);
    if (atomic_load_explicit(&t->first_s, memory_order_relaxed) == 0) atomic_store(&t->first_s, e->now_s);
    histogram_add(e, HISTOGRAM_first_token_s, e->now_s - t->submitted_s);
    histogram_add(e, HISTOGRAM_prefill_s, e->now_s - c->seq->entered_s);
}

static void give_token(Engine *e, EngineChoice *c) {
    EngineTask *t = c->task;
    const uint32_t n = atomic_load_explicit(&c->n_public, memory_order_relaxed);
    if (!n)
        first_token(e, c);
    else
        histogram_add(e, HISTOGRAM_inter_token_s, e->now_s - c->last_s);
    c->last_s = e->now_s;
    atomic_store_explicit(&t->tokens, atomic_load_explicit(&t->tokens, memory_order_relaxed) + 1,
                          memory_order_relaxed);
    atomic_store_explicit(&c->n_public, n + 1, memory_order_release);
}

static EngineEnd end_of(SeqEnd end) {
    switch (end) {
    case SEQ_GOES_ON: return ENGINE_RUNNING;
    case SEQ_STOP: return ENGINE_STOP;
    case SEQ_MAX_TOKENS: return ENGINE_LENGTH;
    case SEQ_CONTEXT: return ENGINE_CONTEXT;
    case SEQ_PROMPT: return ENGINE_PROMPT;
    case SEQ_FAILED: break;
    }
    return ENGINE_FAILED;
}

static void give(Engine *e, const BatchToken *token) {
    EngineChoice *c = token->seq->user;
    if (token->id >= 0) give_token(e, c);
    if (token->end == SEQ_PROMPT && c->index == 0) atomic_store(&c->task->cached, c->seq->first_hit);
    if (token->end == SEQ_GOES_ON)
        task_news(e, c->task);
    else
        end_choice(e, c, end_of(token->end), token->end == SEQ_FAILED ? c->seq->err : NULL);
}

static void step(Engine *e) {
    const BatchToken *tokens;
    uint32_t n;
    Err why;
    if (!batch_step(e->batch, &tokens, &n, &why)) {
        die(e, &why);
        return;
    }
    e->now_s = clock_s();
    for (uint32_t i = 0; i < n; i++) give(e, &tokens[i]);
    counts_step(e);
    sinks_wake(e);
}

// ---- the thread ------------------------------------------------------------------------------------------

static int sleep_ms(const Engine *e) { // -1: for good
    double first = 0;
    for (const EngineTask *t = e->live; t; t = t->next)
        if (t->deadline_s > 0 && (first == 0 || t->deadline_s < first)) first = t->deadline_s;
    return first == 0 ? -1 : 1 + (int)MIN(MAX(first - e->now_s, 0) * 1e3, 1e6);
}

// Whoever gives a command after `sleeping` is set writes to wake_fd.
static void wait_for_commands(Engine *e) {
    counts_now(e);
    atomic_store(&e->sleeping, true);
    if (!atomic_load(&e->commands) && !atomic_load(&e->stop)) {
        struct pollfd p = {.fd = e->wake_fd, .events = POLLIN};
        poll(&p, 1, sleep_ms(e));
    }
    atomic_store(&e->sleeping, false);
    eventfd_t ignored;
    eventfd_read(e->wake_fd, &ignored);
}

static void *run(void *ctx) {
    Engine *e = ctx;
    while (!atomic_load(&e->stop)) {
        obey(e);
        expire(e);
        sinks_wake(e);
        if (atomic_load(&e->state) != ENGINE_DEAD && batch_busy(e->batch))
            step(e);
        else
            wait_for_commands(e);
    }
    obey(e);
    end_all(e, ENGINE_CANCELLED, NULL);
    counts_now(e);
    return NULL;
}

// ---- opening and closing ---------------------------------------------------------------------------------

static bool open_batch(Engine *e, Err *err) {
    EngineOptions *o = &e->options;
    const AdaPlan *p = exec_plan(e->x);
    const BatchOptions b = {.seqs = o->max_num_seqs,
                            .tokens = o->max_num_batched_tokens,
                            .context = o->max_model_len,
                            .speculate = o->speculate,
                            .entered = entered,
                            .computed = computed,
                            .ctx = e};
    e->batch = batch_new(e->x, &b, err);
    if (!o->max_num_seqs) o->max_num_seqs = p->seqs_max;
    if (!o->max_num_batched_tokens) o->max_num_batched_tokens = p->tokens_max;
    if (!o->max_model_len) o->max_model_len = p->context;
    return e->batch != NULL;
}

static bool start_thread(Engine *e, Err *err) {
    e->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (e->wake_fd < 0) return err_errno(err, E_SYSTEM, "eventfd");
    e->has_thread = pthread_create(&e->thread, NULL, run, e) == 0;
    if (e->has_thread) pthread_setname_np(e->thread, "engine");
    return e->has_thread || err_set(err, E_SYSTEM, "cannot start the engine's thread");
}

static void init_idle(Engine *e) {
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&e->idle, &monotonic);
    pthread_condattr_destroy(&monotonic);
    pthread_mutex_init(&e->lock, NULL);
}

Engine *engine_new(Exec *x, const EngineOptions *o, Err *err) {
    Engine *e = xmalloc(sizeof *e);
    *e = (Engine){.x = x, .wake_fd = -1};
    if (o) e->options = *o;
    init_idle(e);
    counts_init(e, &e->arena);
    if (open_batch(e, err) && start_thread(e, err)) return e;
    engine_free(e);
    return NULL;
}

void engine_free(Engine *e) {
    if (!e) return;
    engine_stop(e);
    for (EngineTask *t = commands_take(e), *next; t; t = next)
        next = t->next_command, task_drop(t); // too late
    batch_free(e->batch);
    if (e->wake_fd >= 0) close(e->wake_fd);
    pthread_cond_destroy(&e->idle);
    pthread_mutex_destroy(&e->lock);
    arena_free(&e->arena);
    free(e);
}

EngineState engine_state(const Engine *e) { return (EngineState)atomic_load(&e->state); }

bool engine_error(const Engine *e, Err *out) {
    if (engine_state(e) != ENGINE_DEAD) return false;
    *out = e->death;
    return true;
}

void engine_drain(Engine *e) {
    uint32_t ready = ENGINE_READY;
    atomic_compare_exchange_strong(&e->state, &ready, ENGINE_DRAINING);
}

bool engine_wait_idle(Engine *e, double timeout_s) {
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    const double whole = (double)until.tv_sec + timeout_s + (double)until.tv_nsec * 1e-9;
    until.tv_sec = (time_t)whole, until.tv_nsec = (long)((whole - (double)until.tv_sec) * 1e9);
    pthread_mutex_lock(&e->lock);
    int late = 0;
    while (atomic_load(&e->active) && !late) late = pthread_cond_timedwait(&e->idle, &e->lock, &until);
    const bool idle = atomic_load(&e->active) == 0;
    pthread_mutex_unlock(&e->lock);
    return idle;
}

// Once nobody is inside engine_submit, every task that was accepted has its command in the stack.
void engine_stop(Engine *e) {
    if (!e->has_thread) return;
    engine_drain(e);
    while (atomic_load(&e->submitting)) usleep(100);
    atomic_store(&e->stop, true);
    engine_wake(e);
    pthread_join(e->thread, NULL);
    e->has_thread = false;
    uint32_t draining = ENGINE_DRAINING;
    atomic_compare_exchange_strong(&e->state, &draining, ENGINE_STOPPED);
}
