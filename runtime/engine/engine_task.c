// Tasks: how they reach the engine, and how their news reaches the consumer.
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "runtime/base/log.h"
#include "runtime/base/num.h"
#include "runtime/engine/engine_state.h"

enum { QUEUE_REQUESTS = 256 };

// ---- lifetime --------------------------------------------------------------------------------------------

static void sink_drop(EngineSink *s) {
    if (atomic_fetch_sub(&s->refs, 1) != 1) return;
    close(s->fd);
    free(s);
}

void task_drop(EngineTask *t) {
    if (atomic_fetch_sub(&t->refs, 1) != 1) return;
    for (uint32_t i = 0; i < t->n_choices; i++) seq_free(t->choices[i].seq);
    sink_drop(t->sink);
    free(t);
}

// An eventfd takes any write that is not 2^64 - 1 too many.
static void signal_fd(int fd) {
    while (eventfd_write(fd, 1) != 0 && errno == EINTR) {
    }
}

// ---- to the engine ---------------------------------------------------------------------------------------

void engine_wake(Engine *e) {
    if (atomic_exchange(&e->sleeping, false)) signal_fd(e->wake_fd);
}

static void command(EngineTask *t, unsigned what) {
    Engine *e = t->engine;
    atomic_fetch_or(&t->commands, what);
    if (!atomic_exchange(&t->has_command, true)) {
        atomic_fetch_add(&t->refs, 1);
        EngineTask *head = atomic_load(&e->commands);
        do t->next_command = head;
        while (!atomic_compare_exchange_weak(&e->commands, &head, t));
    }
    engine_wake(e);
}

EngineTask *commands_take(Engine *e) {
    EngineTask *newest = atomic_exchange(&e->commands, NULL), *oldest = NULL;
    while (newest) {
        EngineTask *t = newest;
        newest = t->next_command;
        t->next_command = oldest, oldest = t;
    }
    return oldest;
}

static bool check_open(const Engine *e, Err *err) {
    switch ((EngineState)atomic_load(&e->state)) {
    case ENGINE_READY: return true;
    case ENGINE_DEAD: *err = e->death; return false;
    default: return err_set(err, E_DRAINING, "the engine is draining: it takes no new requests");
    }
}

static bool full(const Engine *e, uint32_t waiting, uint64_t tokens, Err *err) {
    const uint32_t most = e->options.queue_requests_max ? e->options.queue_requests_max : QUEUE_REQUESTS;
    if (waiting > most) {
        err_set(err, E_BUSY, "%u requests wait already; the waiting line is full", waiting - 1);
        return true;
    }
    if (!e->options.queue_tokens_max || tokens <= e->options.queue_tokens_max || waiting <= 1) return false;
    err_set(err, E_BUSY, "the waiting line would hold %llu prompt tokens; at most %u may wait",
            (unsigned long long)tokens, e->options.queue_tokens_max);
    return true;
}

static bool enter_line(Engine *e, uint32_t tokens, Err *err) {
    const uint32_t waiting = atomic_fetch_add(&e->waiting, 1) + 1;
    const uint64_t waiting_tokens = atomic_fetch_add(&e->waiting_tokens, tokens) + tokens;
    if (!full(e, waiting, waiting_tokens, err)) return true;
    atomic_fetch_sub(&e->waiting, 1);
    atomic_fetch_sub(&e->waiting_tokens, tokens);
    count_one(&e->counts.refused);
    return false;
}

static EngineTask *task_new(Engine *e, EngineSink *sink, const EngineRequest *r, uint32_t n) {
    EngineTask *t = calloc(1, sizeof *t + n * sizeof *t->choices);
    if (!t) return NULL;
    atomic_fetch_add(&sink->refs, 1);
    t->engine = e, t->sink = sink, t->user = r->user;
    t->deadline_s = r->deadline_s, t->submitted_s = clock_s();
    t->n_choices = t->n_open = n;
    t->n_prompt = r->n_ids, t->progress = r->progress;
    t->number = atomic_fetch_add(&e->numbers, 1) + 1;
    atomic_init(&t->refs, 1);
    return t;
}

// Choices of a request find each other's prompt, whatever others may find.
static Str salt_of(const Engine *e, const EngineRequest *r, char own[32], uint64_t number) {
    if (!e->options.no_prefix_cache) return r->salt;
    return (Str){own, (size_t)snprintf(own, 32, "request %llu", (unsigned long long)number)};
}

static bool make_choices(EngineTask *t, const EngineRequest *r, Err *err) {
    char own[32];
    Request q = {.ids = r->ids,
                 .n_ids = r->n_ids,
                 .max_tokens = r->max_tokens,
                 .stop_ids = r->stop_ids,
                 .n_stop_ids = r->n_stop_ids,
                 .sampling = r->sampling,
                 .prompt_logprobs = r->prompt_logprobs,
                 .prompt_top_logprobs = r->prompt_top_logprobs,
                 .salt = salt_of(t->engine, r, own, t->number)};
    for (uint32_t i = 0; i < t->n_choices; i++) {
        EngineChoice *c = &t->choices[i];
        c->task = t, c->index = i;
        q.mask = r->masks ? &r->masks[i] : NULL;
        q.user = c;
        c->seq = seq_new(batch_limits(t->engine->batch), &q, err);
        if (!c->seq) return false;
        q.prompt_logprobs = false; // once is enough
        q.sampling.seed++;
    }
    return true;
}

static EngineTask *submit(Engine *e, EngineSink *sink, const EngineRequest *r, Err *err) {
    const uint32_t n = MAX(r->n, 1);
    if (!check_open(e, err)) return NULL;
    if (n > ENGINE_CHOICES_MAX) {
        err_set(err, E_SAMPLING, "n is %u; at most %d choices are possible", n, ENGINE_CHOICES_MAX);
        return NULL;
    }
    EngineTask *t = task_new(e, sink, r, n);
    if (!t) {
        err_set(err, E_MEMORY, "no memory for a request");
        return NULL;
    }
    if (!make_choices(t, r, err) || !enter_line(e, r->n_ids, err)) {
        task_drop(t);
        return NULL;
    }
    atomic_fetch_add(&t->refs, 1); // the engine's
    atomic_fetch_add(&e->active, 1);
    count_one(&e->counts.submitted);
    command(t, COMMAND_SUBMIT);
    return t;
}

EngineTask *engine_submit(Engine *e, EngineSink *sink, const EngineRequest *r, Err *err) {
    atomic_fetch_add(&e->submitting, 1);
    EngineTask *t = submit(e, sink, r, err);
    atomic_fetch_sub(&e->submitting, 1);
    return t;
}

void *engine_user(const EngineTask *t) { return t->user; }

void engine_cancel(EngineTask *t, uint32_t choice) {
    if (choice != ENGINE_ALL_CHOICES && choice >= t->n_choices) return;
    for (uint32_t i = 0; i < t->n_choices; i++)
        if (choice == ENGINE_ALL_CHOICES || choice == i) atomic_store(&t->choices[i].cancel, true);
    command(t, COMMAND_CANCEL);
}

void engine_release(EngineTask *t) {
    atomic_store(&t->released, true);
    if (atomic_load(&t->ended_s) == 0) engine_cancel(t, ENGINE_ALL_CHOICES);
    task_drop(t);
}

// ---- to the consumer -------------------------------------------------------------------------------------

EngineSink *engine_sink_new(Engine *e, Err *err) {
    const int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (fd < 0) {
        err_errno(err, E_SYSTEM, "eventfd");
        return NULL;
    }
    EngineSink *s = xmalloc(sizeof *s);
    *s = (EngineSink){.engine = e, .fd = fd};
    atomic_init(&s->refs, 1);
    return s;
}

int engine_sink_fd(const EngineSink *s) { return s->fd; }

// Tasks that have news, in the order in which they got it.
static EngineTask *take_news(EngineSink *s) {
    EngineTask *newest = atomic_exchange(&s->news, NULL), *oldest = NULL;
    while (newest) {
        EngineTask *t = newest;
        newest = t->next_news;
        t->next_news = oldest, oldest = t;
    }
    return oldest;
}

static void drop_news(EngineTask *t) {
    while (t) {
        EngineTask *next = t->next_news;
        task_drop(t);
        t = next;
    }
}

void engine_sink_free(EngineSink *s) {
    if (!s) return;
    atomic_store(&s->closed, true);
    drop_news(s->first);
    drop_news(take_news(s));
    sink_drop(s);
}

void task_news(Engine *e, EngineTask *t) {
    EngineSink *s = t->sink;
    if (atomic_load(&t->released) || atomic_exchange(&t->has_news, true)) return;
    atomic_fetch_add(&t->refs, 1);
    EngineTask *head = atomic_load(&s->news);
    do t->next_news = head;
    while (!atomic_compare_exchange_weak(&s->news, &head, t));
    if (!head && !s->touched) {
        atomic_fetch_add(&s->refs, 1);
        s->touched = true;
        s->next_touched = e->touched, e->touched = s;
    }
}

void sinks_wake(Engine *e) {
    while (e->touched) {
        EngineSink *s = e->touched;
        e->touched = s->next_touched;
        s->touched = false;
        if (atomic_load(&s->closed)) // its owner may have left before the last news came
            drop_news(take_news(s));
        else
            signal_fd(s->fd);
        sink_drop(s);
    }
}

EngineTask *engine_next(EngineSink *s) {
    for (;;) {
        if (!s->first) {
            eventfd_t ignored;
            while (eventfd_read(s->fd, &ignored) != 0 && errno == EINTR) {
            }
            s->first = take_news(s);
            if (!s->first) return NULL;
        }
        EngineTask *t = s->first;
        s->first = t->next_news;
        const bool released = atomic_load(&t->released);
        atomic_store(&t->has_news, false); // before the news is read: what comes later is told again
        task_drop(t);
        if (!released) return t;
    }
}

bool engine_news(EngineTask *t, EngineNews *out) {
    for (uint32_t i = 0; i < t->n_choices; i++) {
        EngineChoice *c = &t->choices[i];
        const EngineEnd end = (EngineEnd)atomic_load_explicit(&c->end, memory_order_acquire);
        const uint32_t n = atomic_load_explicit(&c->n_public, memory_order_acquire);
        if (c->told || (n == c->seen && end == ENGINE_RUNNING)) continue;
        const Seq *s = c->seq;
        *out = (EngineNews){.choice = i,
                            .first = c->seen,
                            .n = n - c->seen,
                            .ids = s->ids + s->n_prompt + c->seen,
                            .logprobs = s->logprobs ? s->logprobs + c->seen : NULL,
                            .end = end,
                            .err = end == ENGINE_FAILED ? c->err : NULL};
        c->seen = n, c->told = end != ENGINE_RUNNING;
        return true;
    }
    return false;
}

const LogprobRow *engine_prompt_logprobs(const EngineTask *t) {
    const EngineChoice *c = &t->choices[0];
    const bool ended = atomic_load_explicit(&c->end, memory_order_acquire) == ENGINE_PROMPT;
    const bool some = atomic_load_explicit(&c->n_public, memory_order_acquire) != 0;
    return ended || some ? c->seq->prompt_logprobs : NULL;
}

// False: all was told. A place that is written meanwhile holds more than it did, and nothing is told twice.
static bool next_chunk(EngineTask *t) {
    const uint32_t n = atomic_load_explicit(&t->n_chunks, memory_order_acquire), before = t->told_to;
    if (n - t->told_chunks > CHUNKS_KEPT) t->told_chunks = n - CHUNKS_KEPT;
    while (t->told_chunks < n && t->told_to == before) {
        const uint32_t to =
            atomic_load_explicit(&t->chunks[t->told_chunks++ % CHUNKS_KEPT], memory_order_relaxed);
        t->told_to = MAX(before, to);
    }
    return t->told_to > before;
}

bool engine_progress(EngineTask *t, EngineProgress *out) {
    const double entered_s = atomic_load(&t->entered_s); // what the cache had is there before
    if (!t->progress || entered_s == 0) return false;
    if (!t->told_begin)
        t->told_begin = true, t->told_cached = t->told_to = atomic_load(&t->cached);
    else if (!next_chunk(t))
        return false;
    *out = (EngineProgress){t->n_prompt, t->told_cached, t->told_to, clock_s() - entered_s};
    return true;
}

EngineUsage engine_usage(const EngineTask *t) {
    return (EngineUsage){.submitted_s = t->submitted_s,
                         .admitted_s = atomic_load(&t->entered_s),
                         .first_token_s = atomic_load(&t->first_s),
                         .ended_s = atomic_load(&t->ended_s),
                         .prompt_tokens = t->n_prompt,
                         .cached_tokens = atomic_load(&t->cached),
                         .tokens = atomic_load(&t->tokens),
                         .preemptions = atomic_load(&t->preemptions),
                         .guessed_tokens = atomic_load(&t->guessed),
                         .accepted_tokens = atomic_load(&t->accepted)};
}
