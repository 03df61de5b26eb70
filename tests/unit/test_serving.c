// The engine's threads: clients that submit, cancel and leave while tokens come, on the null device
// (small_play.h). Built with ThreadSanitizer, too: tests/run.py tsan.
#define SMALL_SEQS   16
#define SMALL_TOKENS 48
#define SMALL_ROWS   16
#include <malloc.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>

#include "runtime/base/log.h"
#include "runtime/engine/engine.h"
#include "tests/unit/small_play.h"

enum { CLIENTS = 4, REQUESTS = 120, OPEN = 12 };

static Engine *open_engine(const Bench *b, EngineOptions o) {
    Err e;
    Engine *engine = engine_new(b->x, &o, &e);
    if (!engine) fail_msg("%s", e.msg);
    return engine;
}

static EngineSink *open_sink(Engine *e) {
    Err err;
    EngineSink *s = engine_sink_new(e, &err);
    if (!s) fail_msg("%s", err.msg);
    return s;
}

// ---- slow devices ----------------------------------------------------------------------------------------

// What waits is seen to wait.
static void play_slowly(void *ctx, const char *kernel, void *const *args, uint32_t n_args) {
    if (!strcmp(kernel, "body")) usleep(2000);
    small_play(ctx, kernel, args, n_args);
}

static void play_a_while(void *ctx, const char *kernel, void *const *args, uint32_t n_args) {
    if (!strcmp(kernel, "body")) usleep(20);
    small_play(ctx, kernel, args, n_args);
}

// The device waits before each step until the test lets it go on.
static atomic_int steps_allowed;

static void play_when_allowed(void *ctx, const char *kernel, void *const *args, uint32_t n_args) {
    if (!strcmp(kernel, "body")) {
        while (atomic_load(&steps_allowed) <= 0) usleep(50);
        atomic_fetch_sub(&steps_allowed, 1);
    }
    small_play(ctx, kernel, args, n_args);
}

// cmocka cannot fail on any thread but its own.
static _Noreturn void die(const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    abort();
}

// ---- a client --------------------------------------------------------------------------------------------

typedef struct {
    int32_t ids[SMALL_CONTEXT];
    uint32_t n_prompt, max_tokens, n, n_got[4], n_open, cancel_after;
    uint64_t seed;
    int32_t answer[4][SMALL_CONTEXT];
    EngineTask *task;
    bool leave; // goes away instead of waiting for the end
    bool masked, progress;
    uint32_t computed;    // of the prompt, as it was told; UINT32_MAX: nothing was
    uint32_t accepted[4]; // of each choice; the engine's thread counts
    TokenMask masks[4];
} Call;

static uint32_t allowed(uint32_t accepted) { return accepted * 3 % SMALL_VOCAB; }

static void accept(void *ctx, int32_t id) {
    uint32_t *accepted = ctx;
    if ((uint32_t)id != allowed(*accepted)) die("the mask did not hold");
    ++*accepted;
}

static bool mask(void *ctx, uint32_t *words) {
    const uint32_t id = allowed(*(const uint32_t *)ctx);
    memset(words, 0, TOKEN_COLS(SMALL_VOCAB) / 8);
    words[id / 32] |= 1u << id % 32;
    return true;
}

static void begin(Engine *e, EngineSink *sink, Call *c) {
    Err err;
    for (uint32_t i = 0; i < 4; i++) c->masks[i] = (TokenMask){&c->accepted[i], accept, mask};
    const EngineRequest r = {.ids = c->ids,
                             .n_ids = c->n_prompt,
                             .max_tokens = c->max_tokens,
                             .n = c->n,
                             .sampling = {.seed = c->seed},
                             .masks = c->masked ? c->masks : NULL,
                             .progress = c->progress,
                             .user = c};
    c->n_open = c->n, c->computed = UINT32_MAX;
    while (!(c->task = engine_submit(e, sink, &r, &err)))
        if (err.code == E_BUSY)
            usleep(200);
        else
            die("%s", err.msg);
}

static void check_answer(const Call *c, uint32_t choice, EngineEnd end) {
    int32_t ids[SMALL_CONTEXT];
    const uint32_t n = c->n_got[choice];
    memcpy(ids, c->ids, c->n_prompt * sizeof *ids);
    for (uint32_t i = 0; i < n; i++) {
        ids[c->n_prompt + i] = c->answer[choice][i];
        const int32_t want =
            c->masked ? (int32_t)allowed(i) : truth(ids, c->n_prompt + i, c->seed + choice, i);
        if (c->answer[choice][i] != want) die("wrong token");
    }
    if (end != ENGINE_CANCELLED && (end != ENGINE_LENGTH || n != c->max_tokens)) die("wrong end %d", end);
}

static void hear_progress(Call *c) {
    EngineProgress p;
    while (engine_progress(c->task, &p)) {
        if (!c->progress) die("progress that nobody wanted");
        const bool grows = c->computed == UINT32_MAX ? p.computed == p.cached : p.computed > c->computed;
        if (!grows || p.total != c->n_prompt || p.computed > p.total || p.cached >= p.total)
            die("no progress");
        c->computed = p.computed;
    }
}

// True: the call is over.
static bool hear(Call *c) {
    EngineNews news;
    hear_progress(c);
    while (engine_news(c->task, &news)) {
        hear_progress(c);
        if (c->progress && !news.choice && news.n && c->computed != c->n_prompt)
            die("tokens before the end of the prompt");
        if (news.first != c->n_got[news.choice]) die("tokens lost");
        memcpy(&c->answer[news.choice][news.first], news.ids, news.n * sizeof *news.ids);
        c->n_got[news.choice] += news.n;
        if (news.end == ENGINE_RUNNING) continue;
        check_answer(c, news.choice, news.end);
        c->n_open--;
    }
    if (c->n_open && c->n_got[0] >= c->cancel_after) {
        if (c->leave) return true;
        engine_cancel(c->task, c->n > 1 ? 0 : ENGINE_ALL_CHOICES);
    }
    return !c->n_open;
}

typedef struct {
    Engine *e;
    unsigned seed;
    uint32_t done;
} Client;

static Call random_call(unsigned *seed) {
    Call c = {.n_prompt = 1 + (uint32_t)rand_r(seed) % 30, .n = 1 + (uint32_t)(rand_r(seed) % 4 == 0) * 2};
    c.max_tokens = 1 + (uint32_t)rand_r(seed) % (SMALL_CONTEXT - c.n_prompt);
    c.seed = (uint64_t)rand_r(seed) % 7;
    c.cancel_after = rand_r(seed) % 3 ? UINT32_MAX : (uint32_t)rand_r(seed) % 6;
    c.leave = rand_r(seed) % 2;
    c.masked = rand_r(seed) % 5 == 0;
    c.progress = rand_r(seed) % 2;
    c.leave &= !c.masked; // its masks are asked until the end
    for (uint32_t i = 0; i < c.n_prompt; i++) c.ids[i] = i < 13 ? 5 : rand_r(seed) % SMALL_VOCAB;
    return c;
}

static void *client(void *ctx) {
    Client *me = ctx;
    EngineSink *sink = open_sink(me->e);
    Call *calls = calloc(REQUESTS, sizeof *calls);
    for (uint32_t begun = 0; me->done < REQUESTS;) {
        while (begun < REQUESTS && begun - me->done < OPEN) {
            calls[begun] = random_call(&me->seed);
            begin(me->e, sink, &calls[begun++]);
        }
        struct pollfd p = {.fd = engine_sink_fd(sink), .events = POLLIN};
        poll(&p, 1, 1000);
        for (EngineTask *t; (t = engine_next(sink));) {
            if (!hear(engine_user(t))) continue;
            engine_release(t);
            me->done++;
        }
    }
    engine_sink_free(sink);
    free(calls);
    return NULL;
}

static void check_idle(Engine *e) {
    EngineStats s;
    if (!engine_wait_idle(e, 20)) die("tasks are stuck");
    for (int i = 0; i < 200; i++, usleep(1000)) { // counts follow the last end
        engine_stats(e, &s);
        if (!s.running && !s.kv[0].used && !s.kv[1].used) break;
    }
    assert_int_equal(s.running, 0);
    assert_int_equal(s.waiting, 0);
    assert_int_equal(s.waiting_tokens, 0);
    assert_int_equal(s.kv[0].used, 0);
    assert_int_equal(s.kv[1].used, 0);
    assert_false(s.busy);
}

static void clients_come_and_go(void **state) {
    (void)state;
    for (uint32_t seqs = 3; seqs <= SMALL_SEQS; seqs += 13) { // with three, pages run out
        Bench b;
        Client clients[CLIENTS];
        pthread_t threads[CLIENTS];
        EngineStats s;
        bench_open(&b, 1, (ExecOptions){.seqs = seqs});
        null_on_launch(exec_device(b.x, 0), play_a_while, NULL);
        if (seqs > 3) null_work_later(exec_device(b.x, 0));
        Engine *e =
            open_engine(&b, (EngineOptions){.queue_requests_max = 20, .speculate = seqs == 3 ? 0 : 3});
        for (uint32_t i = 0; i < CLIENTS; i++) {
            clients[i] = (Client){e, i + 1, 0};
            assert_int_equal(pthread_create(&threads[i], NULL, client, &clients[i]), 0);
        }
        for (uint32_t i = 0; i < 50; i++, usleep(200)) engine_stats(e, &s);
        for (uint32_t i = 0; i < CLIENTS; i++) pthread_join(threads[i], NULL);
        check_idle(e);
        engine_stats(e, &s);
        uint64_t ended = 0;
        for (uint32_t i = 0; i <= ENGINE_FAILED; i++) ended += s.ended[i];
        assert_int_equal(s.requests, CLIENTS * REQUESTS);
        assert_int_equal(s.e2e_s.count, ended);
        assert_true(ended > s.requests && s.ended[ENGINE_CANCELLED] && s.prefix_hit_tokens);
        assert_true(!s.ended[ENGINE_FAILED] && (seqs > 3 || s.preemptions));
        engine_free(e);
        bench_close(&b);
    }
}

// ---- one by one ------------------------------------------------------------------------------------------

static Call call_of(uint32_t n_prompt, uint32_t max_tokens) {
    Call c = {.n_prompt = n_prompt, .max_tokens = max_tokens, .n = 1, .cancel_after = UINT32_MAX};
    for (uint32_t i = 0; i < n_prompt; i++) c.ids[i] = (int32_t)(i * i % SMALL_VOCAB);
    return c;
}

static EngineEnd wait_end(EngineSink *sink, EngineTask *t, EngineNews *news) {
    for (;;) {
        while (engine_news(t, news)) // what engine_next told of before
            if (news->end != ENGINE_RUNNING) return news->end;
        struct pollfd p = {.fd = engine_sink_fd(sink), .events = POLLIN};
        assert_int_equal(poll(&p, 1, 5000), 1);
        while (engine_next(sink)) {
        }
    }
}

static void refuse(Engine *e, EngineSink *s, const EngineRequest *r, ErrCode code) {
    Err err;
    assert_null(engine_submit(e, s, r, &err));
    assert_int_equal(err.code, code);
}

static void requests_are_refused_at_the_door(void **state) {
    (void)state;
    Bench b;
    Err err;
    int32_t ids[SMALL_CONTEXT] = {0};
    bench_open(&b, 1, (ExecOptions){0});
    assert_null(engine_new(b.x, &(EngineOptions){.max_num_seqs = SMALL_SEQS + 1}, &err));
    assert_int_equal(err.code, E_OPTION_VALUE);
    Engine *e = open_engine(&b, (EngineOptions){.max_model_len = 40});
    EngineSink *s = open_sink(e);
    refuse(e, s, &(EngineRequest){.ids = ids, .max_tokens = 1}, E_IDS);
    refuse(e, s, &(EngineRequest){.ids = ids, .n_ids = 30, .max_tokens = 11}, E_CONTEXT);
    refuse(e, s, &(EngineRequest){.ids = ids, .n_ids = 3, .max_tokens = 1, .n = ENGINE_CHOICES_MAX + 1},
           E_SAMPLING);
    refuse(e, s, &(EngineRequest){.ids = ids, .n_ids = 3, .max_tokens = 1, .sampling = {.top_logprobs = 21}},
           E_SAMPLING);
    engine_drain(e);
    assert_int_equal(engine_state(e), ENGINE_DRAINING);
    refuse(e, s, &(EngineRequest){.ids = ids, .n_ids = 3, .max_tokens = 1}, E_DRAINING);
    engine_stop(e);
    assert_int_equal(engine_state(e), ENGINE_STOPPED);
    refuse(e, s, &(EngineRequest){.ids = ids, .n_ids = 3, .max_tokens = 1}, E_DRAINING);
    assert_true(engine_retry_after_s(e) >= 1);
    engine_sink_free(s);
    engine_free(e);
    bench_close(&b);
}

static void wait_for_tokens(EngineSink *s, EngineTask *const *tasks, uint32_t n_tasks, uint32_t n) {
    for (uint32_t i = 0; i < n_tasks;) {
        EngineNews news;
        for (EngineTask *t; (t = engine_next(s));)
            while (engine_news(t, &news)) {
            }
        if (engine_usage(tasks[i]).tokens >= n)
            i++;
        else
            usleep(200);
    }
}

static void the_line_is_bounded(void **state) {
    (void)state;
    Bench b;
    Err err;
    EngineTask *tasks[8];
    uint32_t n = 0;
    Call c = call_of(3, 20);
    bench_open(&b, 1, (ExecOptions){0});
    atomic_store(&steps_allowed, 0);
    null_on_launch(exec_device(b.x, 0), play_when_allowed, NULL);
    Engine *e = open_engine(&b, (EngineOptions){.max_num_seqs = 1, .queue_requests_max = 3});
    EngineSink *s = open_sink(e);
    const EngineRequest r = {.ids = c.ids, .n_ids = 3, .max_tokens = 20};
    for (; n < 8 && (tasks[n] = engine_submit(e, s, &r, &err)); n++)
        while (n == 0 && engine_usage(tasks[0]).admitted_s == 0) usleep(100);
    assert_int_equal(n, 4); // one runs, three wait
    assert_int_equal(err.code, E_BUSY);
    EngineStats stats;
    engine_stats(e, &stats);
    assert_int_equal(stats.waiting, 3);
    assert_int_equal(stats.waiting_tokens, 9);
    const double full = (double)stats.kv[0].pages / SMALL_FULL_PAGES,
                 ring = (double)stats.kv[1].pages / SMALL_RING_PAGES;
    assert_true(stats.kv_contexts == MIN(full, ring));
    atomic_store(&steps_allowed, 1000000);
    for (uint32_t i = 0; i < n; i++) engine_release(tasks[i]);
    check_idle(e);
    engine_stats(e, &stats);
    assert_int_equal(stats.refused, 1);
    engine_sink_free(s);
    engine_free(e);
    bench_close(&b);
}

static void deadlines_and_cancels_end_tasks(void **state) {
    (void)state;
    Bench b;
    Err err;
    EngineNews news;
    bench_open(&b, 1, (ExecOptions){0});
    atomic_store(&steps_allowed, 8);
    null_on_launch(exec_device(b.x, 0), play_when_allowed, NULL);
    Engine *e = open_engine(&b, (EngineOptions){.max_num_seqs = 1});
    EngineSink *s = open_sink(e);
    Call c = call_of(3, 40);
    EngineRequest r = {.ids = c.ids, .n_ids = 3, .max_tokens = 40, .deadline_s = clock_s() + 0.5};
    EngineTask *late = engine_submit(e, s, &r, &err), *waits;
    wait_for_tokens(s, &late, 1, 1);
    const double deadline_s = r.deadline_s;
    r.deadline_s = 0;
    waits = engine_submit(e, s, &r, &err);
    engine_cancel(waits, ENGINE_ALL_CHOICES); // never got a slot
    while (clock_s() <= deadline_s) usleep(1000);
    atomic_store(&steps_allowed, 1000000);
    assert_int_equal(wait_end(s, waits, &news), ENGINE_CANCELLED);
    assert_int_equal(news.n, 0);
    assert_int_equal(wait_end(s, late, &news), ENGINE_DEADLINE);
    engine_cancel(late, 0), engine_cancel(late, 7); // too late, and no such choice
    EngineUsage u = engine_usage(late);
    assert_true(u.tokens > 0 && u.tokens < 40 && u.prompt_tokens == 3);
    assert_true(u.submitted_s <= u.admitted_s && u.admitted_s < u.first_token_s &&
                u.first_token_s < u.ended_s);
    null_on_launch(exec_device(b.x, 0), play_slowly, NULL); // nothing runs
    EngineTask *stopped = engine_submit(e, s, &r, &err);
    wait_for_tokens(s, &stopped, 1, 1);
    engine_stop(e);
    assert_int_equal(wait_end(s, stopped, &news), ENGINE_CANCELLED);
    engine_release(late), engine_release(waits), engine_release(stopped);
    engine_sink_free(s);
    engine_free(e);
    bench_close(&b);
}

static void a_lost_device_ends_all(void **state) {
    (void)state;
    for (uint64_t at = 3; at < 40; at += 4) {
        Bench b;
        Err err;
        EngineNews news;
        Call c = call_of(9, 30);
        bench_open(&b, 1, (ExecOptions){0});
        Engine *e = open_engine(&b, (EngineOptions){0});
        EngineSink *s = open_sink(e);
        null_fail_at(exec_device(b.x, 0), null_calls(exec_device(b.x, 0)) + at);
        const EngineRequest r = {.ids = c.ids, .n_ids = 9, .max_tokens = 30, .n = 3};
        EngineTask *t = engine_submit(e, s, &r, &err);
        for (uint32_t i = 0; i < 3; i++) {
            assert_int_equal(wait_end(s, t, &news), ENGINE_FAILED);
            assert_int_equal(news.err->code, E_DEVICE);
        }
        assert_int_equal(engine_state(e), ENGINE_DEAD);
        assert_true(engine_error(e, &err) && strstr(err.msg, "fails as told"));
        refuse(e, s, &r, E_DEVICE);
        assert_true(engine_wait_idle(e, 1));
        engine_release(t);
        engine_sink_free(s);
        engine_free(e);
        bench_close(&b);
    }
}

static void everything_asked_for_arrives(void **state) {
    (void)state;
    Bench b;
    Err err;
    EngineNews news;
    bench_open(&b, 1, (ExecOptions){0});
    Engine *e = open_engine(&b, (EngineOptions){0});
    EngineSink *s = open_sink(e);
    Call c = call_of(20, 0);
    EngineRequest r = {
        .ids = c.ids, .n_ids = 20, .prompt_logprobs = true, .prompt_top_logprobs = 2, .user = &c};
    EngineTask *t = engine_submit(e, s, &r, &err);
    assert_int_equal(wait_end(s, t, &news), ENGINE_PROMPT);
    assert_ptr_equal(engine_user(t), &c);
    const LogprobRow *rows = engine_prompt_logprobs(t);
    for (uint32_t i = 0; i < 19; i++) assert_int_equal(rows[i].id[0], c.ids[i + 1]);
    engine_release(t);
    r = (EngineRequest){
        .ids = c.ids, .n_ids = 20, .max_tokens = ENGINE_TOKENS_ALL, .sampling = {.logprobs = true}};
    t = engine_submit(e, s, &r, &err);
    uint32_t n = 0;
    for (EngineEnd end = ENGINE_RUNNING; end == ENGINE_RUNNING; usleep(100))
        while (engine_next(s))
            while (engine_news(t, &news)) {
                for (uint32_t i = 0; i < news.n; i++) assert_int_equal(news.logprobs[i].id[0], news.ids[i]);
                n += news.n, end = news.end;
            }
    assert_int_equal(news.end, ENGINE_CONTEXT);
    assert_int_equal(n, SMALL_CONTEXT - 20);
    assert_int_equal(engine_usage(t).cached_tokens, 16); // four pages of the first request
    engine_release(t);
    engine_sink_free(s);
    engine_free(e);
    bench_close(&b);
}

static void expect_progress(EngineSink *s, EngineTask *t, uint32_t cached, uint32_t computed) {
    EngineProgress p;
    while (!engine_progress(t, &p)) {
        struct pollfd ready = {.fd = engine_sink_fd(s), .events = POLLIN};
        assert_int_equal(poll(&ready, 1, 5000), 1);
        while (engine_next(s)) {
        }
    }
    assert_int_equal(p.total, 20);
    assert_int_equal(p.cached, cached);
    assert_int_equal(p.computed, computed);
    assert_true(p.seconds >= 0);
}

// The begin, then every chunk.
static void progress_is_told(void **state) {
    (void)state;
    Bench b;
    Err err;
    EngineNews news;
    Call c = call_of(20, 2);
    bench_open(&b, 1, (ExecOptions){0});
    atomic_store(&steps_allowed, 1); // a step's end is told once the next one is launched
    null_on_launch(exec_device(b.x, 0), play_when_allowed, NULL);
    Engine *e = open_engine(&b, (EngineOptions){.max_num_seqs = 1, .max_num_batched_tokens = 8});
    EngineSink *s = open_sink(e);
    const EngineRequest r = {.ids = c.ids, .n_ids = 20, .max_tokens = 2, .progress = true};
    EngineTask *t = engine_submit(e, s, &r, &err);
    for (uint32_t computed = 0; computed < 20; computed += 8) {
        expect_progress(s, t, 0, computed);
        assert_false(engine_news(t, &news));
        atomic_fetch_add(&steps_allowed, 1);
    }
    expect_progress(s, t, 0, 20);
    atomic_store(&steps_allowed, 1000000);
    assert_int_equal(wait_end(s, t, &news), ENGINE_LENGTH);
    engine_release(t);
    t = engine_submit(e, s, &r, &err);
    expect_progress(s, t, 16, 16); // four pages of the first
    expect_progress(s, t, 16, 20);
    assert_int_equal(wait_end(s, t, &news), ENGINE_LENGTH);
    engine_release(t);
    engine_sink_free(s);
    engine_free(e);
    bench_close(&b);
}

// Between the first token and the last nothing is allocated.
static void tokens_allocate_nothing(void **state) {
    (void)state;
    enum { TASKS = 8 };
    Bench b;
    Err err;
    EngineTask *tasks[TASKS];
    Call c = call_of(9, 0);
    bench_open(&b, 1, (ExecOptions){0});
    null_on_launch(exec_device(b.x, 0), play_when_allowed, NULL);
    Engine *e = open_engine(&b, (EngineOptions){0});
    EngineSink *s = open_sink(e);
    const EngineRequest r = {
        .ids = c.ids, .n_ids = 9, .max_tokens = 36, .sampling = {.logprobs = true}, .progress = true};
    for (uint32_t i = 0; i < TASKS; i++) tasks[i] = engine_submit(e, s, &r, &err);
    atomic_store(&steps_allowed, 12);
    wait_for_tokens(s, tasks, TASKS, 3);
    const struct mallinfo2 before = mallinfo2();
    atomic_fetch_add(&steps_allowed, 18);
    wait_for_tokens(s, tasks, TASKS, 20);
    const struct mallinfo2 after = mallinfo2();
    assert_int_equal(before.uordblks, after.uordblks);
    for (uint32_t i = 0; i < TASKS; i++) engine_release(tasks[i]);
    atomic_store(&steps_allowed, 1000000);
    engine_sink_free(s);
    engine_free(e);
    bench_close(&b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(everything_asked_for_arrives),
        cmocka_unit_test(requests_are_refused_at_the_door),
        cmocka_unit_test(the_line_is_bounded),
        cmocka_unit_test(deadlines_and_cancels_end_tasks),
        cmocka_unit_test(a_lost_device_ends_all),
        cmocka_unit_test(clients_come_and_go),
        cmocka_unit_test(progress_is_told),
        cmocka_unit_test(tokens_allocate_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
