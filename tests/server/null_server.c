// null_server [STEP_US [WAITING [SLOTS [POOL]]]]: the small model on the null device behind HTTP, for soak.py
// and test_storm.py. A step takes STEP_US; WAITING requests may stand in line, SLOTS run. The KV pool holds
// POOL sequences of full length: half of the slots, so that sequences are preempted. Prints where it listens;
// SIGTERM ends it. Exit 0 when neither slot nor page was left taken, nor memory.
#define SMALL_SEQS           64
#define SMALL_TOKENS         256
#define SMALL_ROWS           64
#define SMALL_CONTEXT_TOKENS 144
#include <malloc.h>
#include <time.h>

#include "runtime/base/log.h"
#include "runtime/engine/engine.h"
#include "tests/unit/small_play.h"
#include "tests/unit/small_server.h"

static void timed_play(void *ctx, const char *kernel, void *const *args, uint32_t n_args) {
    const long *step_us = ctx;
    if (!strcmp(kernel, "body")) {
        const struct timespec t = {0, *step_us * 1000};
        nanosleep(&t, NULL);
    }
    small_play(NULL, kernel, args, n_args);
}

enum { GROWN_MAX = 256 << 10 }; // malloc's threads keep some of what was freed

// Of all that malloc has given out; 0 under ASan, which finds what is left by itself.
static size_t bytes_in_use(void) {
    const struct mallinfo2 m = mallinfo2();
    return m.uordblks + m.hblkhd;
}

// What is still taken when the server has ended.
static int left_over(const Engine *engine, size_t bytes_before) {
    const size_t bytes = bytes_in_use(), grown = bytes - MIN(bytes, bytes_before);
    EngineStats st;
    uint32_t used = 0;
    engine_stats(engine, &st);
    for (uint32_t g = 0; g < st.n_groups; g++) used += st.kv[g].used;
    fprintf(stderr,
            "left: %u sequences, %u requests in line, %u pages, %zu bytes; %llu preemptions, %llu tokens\n",
            st.running, st.waiting, used, grown, (unsigned long long)st.preemptions,
            (unsigned long long)st.generated_tokens);
    return st.running || st.waiting || used || grown > GROWN_MAX;
}

static int serve(const Bench *b, const ApiModel *m, const EngineOptions *options) {
    Err e;
    ServerOptions o = small_server_options();
    o.connections_max = 1024, o.unsent_bytes_max = 4 << 10;
    o.header_s = o.body_s = o.stall_s = 2, o.idle_s = 5, o.ping_s = 1;
    Engine *engine = engine_new(b->x, options, &e);
    Server *s = engine ? server_new(engine, m, &o, &e) : NULL;
    if (!s) fprintf(stderr, "%s\n", e.msg), exit(1);
    printf("ready at %s, model small\n", server_url(s));
    fflush(stdout);
    const size_t bytes_before = bytes_in_use();
    int code = server_run(s);
    engine_wait_idle(engine, 10);
    code = code ? code : left_over(engine, bytes_before);
    server_free(s);
    engine_free(engine);
    return code;
}

static uint32_t argument(int argc, char **argv, int i, uint32_t otherwise) {
    return argc > i ? (uint32_t)atoi(argv[i]) : otherwise;
}

int main(int argc, char **argv) {
    Bench b;
    Arena arena = {0};
    StrBuf section = {0};
    long step_us = argument(argc, argv, 1, 1000);
    const uint32_t slots = argument(argc, argv, 3, 16), pool = argument(argc, argv, 4, slots / 2);
    const EngineOptions options = {.queue_requests_max = argument(argc, argv, 2, 32),
                                   .max_num_seqs = slots,
                                   .max_num_batched_tokens = slots * 4};
    server_block_signals(false);
    ApiModel m = small_api_model(&arena, &section, 8);
    bench_open(&b, 1, (ExecOptions){.seqs = pool});
    null_on_launch(exec_device(b.x, 0), timed_play, &step_us);
    int code = serve(&b, &m, &options);
    bench_close(&b);
    buf_free(&section);
    arena_free(&arena);
    return code;
}
