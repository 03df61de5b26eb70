// engine_mix X.ada: the same requests alone, in mixes, with cached prefixes, after preemption, as choices of
// one request and through the engine's threads, on the host target. Exit 0 when ids and the bits of every
// logprob are the same everywhere. Prints how much was shared and preempted.
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/num.h"
#include "runtime/engine/batch.h"
#include "runtime/engine/engine.h"

enum { N = 12, PROMPT_MAX = 120, ANSWER = 64, TOP = 3, SHARED = 50 };

typedef struct {
    int32_t prompt[PROMPT_MAX], ids[ANSWER];
    uint32_t n_prompt, n;
    Sampling sampling;
    LogprobRow logprobs[ANSWER];
    LogprobRow prompt_logprobs[PROMPT_MAX];
} Case;

static const TokenBias bias[] = {{3, 1.5f}, {40, -4}}, few_tokens[] = {{3, 60}, {40, 60}, {77, 59}};

static _Noreturn void stop(const char *where, const char *what) {
    fprintf(stderr, "%s: %s\n", where, what);
    exit(1);
}

static void make_cases(Case *cases, uint32_t vocab) {
    uint32_t x = 7;
    for (uint32_t c = 0; c < N; c++) {
        Case *k = &cases[c];
        k->n_prompt = c % 3 == 2 ? 1 + c : SHARED + c * 5;
        for (uint32_t i = 0; i < k->n_prompt; i++) {
            x = x * 1664525 + 1013904223;
            k->prompt[i] = (int32_t)((i < SHARED && c % 3 != 2 ? i * 37 + 11 : x >> 8) % vocab);
        }
        k->sampling = (Sampling){.top_p = 1, .logprobs = true, .top_logprobs = TOP, .seed = c};
        if (c % 4 > 0) k->sampling.temperature = 0.7f + (float)c / 10, k->sampling.top_k = c % 2 ? 20 : 0;
        if (c % 4 == 1) k->sampling.bias = few_tokens, k->sampling.n_bias = COUNT_OF(few_tokens);
        if (c % 4 > 1) k->sampling.top_p = 0.9f, k->sampling.repetition = 1.2f, k->sampling.frequency = 0.3f;
        if (c % 4 > 2) k->sampling.bias = bias, k->sampling.n_bias = COUNT_OF(bias);
    }
}

// ---- through a batch -------------------------------------------------------------------------------------

static Seq *add(Batch *b, const Case *c, bool prompt_logprobs) {
    Err e;
    const Request r = {.ids = c->prompt,
                       .n_ids = c->n_prompt,
                       .max_tokens = ANSWER,
                       .sampling = c->sampling,
                       .prompt_logprobs = prompt_logprobs,
                       .prompt_top_logprobs = TOP};
    Seq *s = seq_new(batch_limits(b), &r, &e);
    if (!s) stop("request", e.msg);
    batch_add(b, s);
    return s;
}

static void run(Batch *b) {
    const BatchToken *t;
    uint32_t n;
    Err e;
    while (batch_busy(b))
        if (!batch_step(b, &t, &n, &e)) stop("step", e.msg);
    if (!batch_consistent(b)) stop("batch", "not consistent");
}

static void learn(Batch *b, Case *c) {
    Seq *s = add(b, c, true);
    run(b);
    c->n = s->n_ids - s->n_prompt;
    memcpy(c->ids, s->ids + s->n_prompt, c->n * sizeof *c->ids);
    memcpy(c->logprobs, s->logprobs, c->n * sizeof *c->logprobs);
    memcpy(c->prompt_logprobs, s->prompt_logprobs, (s->n_prompt - 1) * sizeof *c->logprobs);
    batch_remove(b, s);
    seq_free(s);
}

static void same_rows(const char *where, uint32_t c, const LogprobRow *a, const LogprobRow *b, uint32_t n) {
    for (uint32_t i = 0; i < n; i++) {
        if (a[i].n == b[i].n && !memcmp(a[i].id, b[i].id, a[i].n * sizeof *a[i].id) &&
            !memcmp(a[i].logprob, b[i].logprob, a[i].n * sizeof *a[i].logprob))
            continue;
        fprintf(stderr, "%s, request %u, row %u: token %d at %.9g, not %d at %.9g\n", where, c, i, b[i].id[0],
                (double)b[i].logprob[0], a[i].id[0], (double)a[i].logprob[0]);
        exit(1);
    }
}

static void compare(const char *where, const Case *cases, uint32_t c, const int32_t *ids,
                    const LogprobRow *rows, uint32_t n) {
    const Case *k = &cases[c];
    for (uint32_t i = 0; i < k->n; i++)
        if (n != k->n || ids[i] != k->ids[i]) {
            fprintf(stderr, "%s, request %u: token %u of %u is %d, alone it is %d of %u\n", where, c, i, n,
                    i < n ? ids[i] : -1, k->ids[i], k->n);
            exit(1);
        }
    same_rows(where, c, k->logprobs, rows, n);
}

static BatchStats mix(Exec *x, const char *where, const Case *cases, BatchOptions o, uint32_t rounds,
                      bool all) {
    Err e;
    Batch *b = batch_new(x, &o, &e);
    if (!b) stop(where, e.msg);
    for (uint32_t round = 0; round < rounds; round++) {
        Seq *seqs[N];
        for (uint32_t c = 0; c < N; c++) seqs[c] = add(b, &cases[c], all);
        run(b);
        for (uint32_t c = 0; c < N; c++) {
            Seq *s = seqs[c];
            compare(where, cases, c, s->ids + s->n_prompt, s->logprobs, s->n_ids - s->n_prompt);
            if (all) same_rows(where, c, cases[c].prompt_logprobs, s->prompt_logprobs, s->n_prompt - 1);
            batch_remove(b, s);
            seq_free(s);
        }
    }
    const BatchStats stats = *batch_stats(b);
    printf("%s: %llu steps, %llu of %llu prompt tokens found, %llu preemptions\n", where,
           (unsigned long long)stats.steps, (unsigned long long)stats.hit_tokens,
           (unsigned long long)stats.queried_tokens, (unsigned long long)stats.preemptions);
    batch_free(b);
    return stats;
}

// ---- through the engine ----------------------------------------------------------------------------------

static void take_choices(EngineSink *sink, const char *where, const Case *cases, uint32_t n_tasks) {
    while (n_tasks) {
        struct pollfd p = {.fd = engine_sink_fd(sink), .events = POLLIN};
        if (poll(&p, 1, 60000) != 1) stop(where, "no news for a minute");
        for (EngineTask *t; (t = engine_next(sink));) {
            EngineNews news;
            const uint32_t first = (uint32_t)(uintptr_t)engine_user(t);
            while (engine_news(t, &news)) {
                if (news.end == ENGINE_RUNNING) continue;
                const uint32_t before = news.first; // the arrays begin with the choice's first token
                compare(where, cases, first + news.choice, news.ids - before, news.logprobs - before,
                        before + news.n);
            }
            if (engine_usage(t).ended_s == 0) continue;
            engine_release(t);
            n_tasks--;
        }
    }
}

// Choice i of a request is that request alone with its seed + i.
static void choices(Exec *x, Case *cases) {
    Err err;
    Engine *e = engine_new(x, &(EngineOptions){.no_prefix_cache = true}, &err);
    EngineSink *sink = e ? engine_sink_new(e, &err) : NULL;
    if (!sink) stop("engine", err.msg);
    for (uint32_t c = 0; c + 2 < N; c += 3) {
        const EngineRequest r = {.ids = cases[c].prompt,
                                 .n_ids = cases[c].n_prompt,
                                 .max_tokens = ANSWER,
                                 .n = 3,
                                 .sampling = cases[c].sampling,
                                 .user = (void *)(uintptr_t)c};
        if (!engine_submit(e, sink, &r, &err)) stop("submit", err.msg);
    }
    take_choices(sink, "choices", cases, N / 3);
    EngineStats stats;
    engine_stats(e, &stats);
    printf("choices: %llu of %llu prompt tokens found\n", (unsigned long long)stats.prefix_hit_tokens,
           (unsigned long long)stats.prefix_queried_tokens);
    if (!stats.prefix_hit_tokens) stop("choices", "share nothing");
    engine_sink_free(sink);
    engine_free(e);
}

static void learn_all(Exec *x, Case *cases, uint32_t n) {
    for (uint32_t c = 0; c < n; c++) { // each in a batch of its own
        Err e;
        Batch *b = batch_new(x, &(BatchOptions){.seqs = 1}, &e);
        if (!b) stop("batch", e.msg);
        learn(b, &cases[c]);
        batch_free(b);
    }
}

static Exec *open_exec(const Artifact *a, uint32_t seqs) {
    Err e;
    Exec *x = exec_open(a, &(ExecOptions){.driver = "host", .threads = 1, .seqs = seqs}, &e);
    if (!x) stop("exec", e.msg);
    return x;
}

int main(int argc, char **argv) {
    Artifact a;
    Err e;
    Pool *pool = pool_new(1);
    static Case cases[N], triples[N];
    if (argc != 2) stop("usage", "engine_mix X.ada");
    if (!artifact_open(&a, argv[1], ARTIFACT_ALL, pool, &e)) stop("artifact", e.msg);
    make_cases(cases, a.plan->vocab);
    Exec *x = open_exec(&a, 0);
    learn_all(x, cases, N);
    mix(x, "together", cases, (BatchOptions){0}, 1, false);
    mix(x, "small steps", cases, (BatchOptions){.tokens = 16, .seqs = 5, .chunk = 7}, 1, false);
    mix(x, "logprobs of prompts", cases, (BatchOptions){.tokens = 48}, 1, true);
    const BatchStats guesses = mix(x, "guesses", cases, (BatchOptions){.speculate = 4, .seqs = 4}, 2, false);
    printf("guesses: %llu of %llu right\n", (unsigned long long)guesses.accepted,
           (unsigned long long)guesses.guessed);
    if (!guesses.accepted) stop("guesses", "none was right");
    const BatchStats hits = mix(x, "again", cases, (BatchOptions){0}, 3, false);
    if (2 * hits.hit_tokens < hits.queried_tokens) stop("again", "little was found in the cache");
    for (uint32_t c = 0; c < N; c++) {
        triples[c] = cases[c - c % 3];
        triples[c].sampling.seed += c % 3;
    }
    learn_all(x, triples, N);
    choices(x, triples);
    exec_close(x);
    x = open_exec(&a, 1);
    const BatchStats few = mix(x, "few pages", cases, (BatchOptions){0}, 2, false);
    if (!few.preemptions) stop("few pages", "nobody was preempted");
    exec_close(x);
    artifact_close(&a);
    pool_free(pool);
    return 0;
}
