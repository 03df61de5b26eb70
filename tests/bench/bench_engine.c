// bench_engine: what the engine costs a token, on the null device, whose kernels take no time: batch alone,
// and with the engine's thread and a consumer. Context and prompts are as short as those of the small model.
#define SMALL_SEQS   64
#define SMALL_TOKENS 256
#define SMALL_ROWS   64
#include <poll.h>
#include <pthread.h>
#include <time.h>

#include "runtime/base/log.h"
#include "runtime/engine/batch.h"
#include "runtime/engine/engine.h"
#include "tests/unit/small_play.h"

enum { TOKENS = 40, PROMPT = 8, ROUNDS = 200 };

static double cpu_s(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void fill(int32_t *ids, uint32_t i) {
    for (uint32_t k = 0; k < PROMPT; k++) ids[k] = (int32_t)((i * 7 + k * 3) % SMALL_VOCAB);
}

// Long answers, all of one length, then ends that are spread: a batch that changes at every step.
static void bench_batch(const Bench *b, uint32_t n_seqs, bool spread) {
    Err e;
    Batch *batch = batch_new(b->x, NULL, &e);
    uint64_t tokens = 0, steps = 0;
    double took = 0;
    for (uint32_t round = 0; round < ROUNDS; round++) {
        Seq *seqs[SMALL_SEQS];
        int32_t ids[PROMPT];
        for (uint32_t i = 0; i < n_seqs; i++) {
            fill(ids, i);
            const Request r = {.ids = ids, .n_ids = PROMPT, .max_tokens = spread ? 8 + i % 32 : TOKENS};
            seqs[i] = seq_new(batch_limits(batch), &r, &e);
            batch_add(batch, seqs[i]);
        }
        const double begin = clock_s();
        while (batch_busy(batch)) {
            const BatchToken *t;
            uint32_t n;
            CHECK(batch_step(batch, &t, &n, &e));
            tokens += n, steps += n != 0;
        }
        took += clock_s() - begin;
        for (uint32_t i = 0; i < n_seqs; i++) batch_remove(batch, seqs[i]), seq_free(seqs[i]);
    }
    printf("batch of %2u, %s: %6.3f us a token, %6.2f us a step\n", n_seqs,
           spread ? "ends spread  " : "ends together", took / (double)tokens * 1e6,
           took / (double)steps * 1e6);
    batch_free(batch);
}

static void bench_engine(const Bench *b, uint32_t n_seqs) {
    Err err;
    Engine *e = engine_new(b->x, NULL, &err);
    EngineSink *sink = engine_sink_new(e, &err);
    int32_t ids[PROMPT];
    uint64_t tokens = 0;
    uint32_t begun = 0, ended = 0;
    const uint32_t n = n_seqs * ROUNDS;
    const double begin = clock_s(), cpu = cpu_s();
    while (ended < n) {
        while (begun < n && begun - ended < n_seqs) {
            fill(ids, begun++);
            const EngineRequest r = {.ids = ids, .n_ids = PROMPT, .max_tokens = TOKENS};
            CHECK(engine_submit(e, sink, &r, &err));
        }
        struct pollfd p = {.fd = engine_sink_fd(sink), .events = POLLIN};
        poll(&p, 1, -1);
        for (EngineTask *t; (t = engine_next(sink));) {
            EngineNews news = {0};
            while (engine_news(t, &news)) tokens += news.n;
            if (news.end == ENGINE_RUNNING) continue;
            engine_release(t);
            ended++;
        }
    }
    printf("engine of %2u: %.3f us a token, %.3f us of CPU time on both threads\n", n_seqs,
           (clock_s() - begin) / (double)tokens * 1e6, (cpu_s() - cpu) / (double)tokens * 1e6);
    engine_sink_free(sink);
    engine_free(e);
}

int main(void) {
    static const uint32_t sizes[] = {1, 16, 64};
    Bench b;
    bench_open(&b, 1, (ExecOptions){0});
    null_on_launch(exec_device(b.x, 0), NULL, NULL); // the device's own draws
    for (uint32_t i = 0; i < COUNT_OF(sizes); i++) {
        bench_batch(&b, sizes[i], false);
        bench_batch(&b, sizes[i], true);
        bench_engine(&b, sizes[i]);
    }
    bench_close(&b);
    return 0;
}
