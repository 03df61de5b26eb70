// null_server [STEP_US [WAITING]]: the small model on the null device behind HTTP, for soak.py. A step takes
// STEP_US; the KV pool holds half of the slots at full length, so that sequences are preempted. Prints where
// it listens; SIGTERM ends it. Exit 0 when neither slot nor page was left taken.
#define SMALL_SEQS           16
#define SMALL_TOKENS         64
#define SMALL_ROWS           16
#define SMALL_CONTEXT_TOKENS 144
#include <time.h>

#include "compiler/frontend/tokenizer_pack.h"
#include "runtime/base/log.h"
#include "runtime/engine/engine.h"
#include "runtime/server/server.h"
#include "tests/unit/small_play.h"

static void timed_play(void *ctx, const char *kernel, void *const *args, uint32_t n_args) {
    const long *step_us = ctx;
    if (!strcmp(kernel, "body")) {
        const struct timespec t = {0, *step_us * 1000};
        nanosleep(&t, NULL);
    }
    small_play(NULL, kernel, args, n_args);
}

static ApiModel model_of(Arena *a, StrBuf *section) {
    Err e;
    Diags d = {.arena = a};
    static const Str name = {"small", 5};
    if (!tokenizer_pack(a, "tests/golden/models/qwen3", 672, section, &d)) exit(1);
    return (ApiModel){.name = name,
                      .names = &name,
                      .n_names = 1,
                      .vocab = SMALL_VOCAB,
                      .context = SMALL_CONTEXT,
                      .n_max = 8,
                      .defaults = {.temperature = 1, .top_p = 1},
                      .tok = tokenizer_open(a, section->ptr, section->len, &e)};
}

// What is still taken when the server has ended.
static int left_over(const Engine *engine) {
    EngineStats st;
    uint32_t used = 0;
    engine_stats(engine, &st);
    for (uint32_t g = 0; g < st.n_groups; g++) used += st.kv[g].used;
    fprintf(stderr, "left: %u sequences, %u requests in line, %u pages; %llu preemptions, %llu tokens\n",
            st.running, st.waiting, used, (unsigned long long)st.preemptions,
            (unsigned long long)st.generated_tokens);
    return st.running || st.waiting || used;
}

static int serve(const Bench *b, const ApiModel *m, const EngineOptions *options) {
    Err e;
    const ServerOptions o = {.host = "127.0.0.1",
                             .workers = 2,
                             .body_bytes_max = 1 << 20,
                             .header_bytes_max = 32 << 10,
                             .connections_max = 1024,
                             .unsent_bytes_max = 4 << 10,
                             .header_s = 2,
                             .body_s = 2,
                             .idle_s = 5,
                             .stall_s = 2,
                             .drain_s = 30,
                             .ping_s = 1,
                             .artifact = ""};
    Engine *engine = engine_new(b->x, options, &e);
    Server *s = engine ? server_new(engine, m, &o, &e) : NULL;
    if (!s) fprintf(stderr, "%s\n", e.msg), exit(1);
    printf("ready at %s, model small\n", server_url(s));
    fflush(stdout);
    int code = server_run(s);
    engine_wait_idle(engine, 10);
    code = code ? code : left_over(engine);
    server_free(s);
    engine_free(engine);
    return code;
}

int main(int argc, char **argv) {
    Bench b;
    Arena arena = {0};
    StrBuf section = {0};
    long step_us = argc > 1 ? atol(argv[1]) : 1000;
    const EngineOptions options = {.queue_requests_max = argc > 2 ? (uint32_t)atoi(argv[2]) : 32};
    server_block_signals(false);
    ApiModel m = model_of(&arena, &section);
    bench_open(&b, 1, (ExecOptions){.seqs = SMALL_SEQS / 2});
    null_on_launch(exec_device(b.x, 0), timed_play, &step_us);
    int code = serve(&b, &m, &options);
    bench_close(&b);
    buf_free(&section);
    arena_free(&arena);
    return code;
}
