// bench_server [STEP_US]: what HTTP costs a token, on the null device: 64 streams of 128 tokens, read by a
// process of its own. "server" is the processor time of the thread that does all input and output. With
// STEP_US each step takes as long, so that each token is an event of its own, and the time that the device
// waits between two steps is told, beside that of the scheduler alone; without it the device is faster than
// any reader, and one event tells several tokens.
#define SMALL_SEQS           64
#define SMALL_TOKENS         256
#define SMALL_ROWS           64
#define SMALL_CONTEXT_TOKENS 144
#include <poll.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>

#include "runtime/base/log.h"
#include "runtime/engine/batch.h"
#include "runtime/engine/engine.h"
#include "tests/unit/small_play.h"
#include "tests/unit/small_server.h"

enum { STREAMS = 64, TOKENS = 128 };
static uint32_t rounds_max = 60;
static uint64_t bytes_read, events_read; // of the client's process

static double cpu_s(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static double user_s(void) {
    struct rusage u;
    getrusage(RUSAGE_THREAD, &u);
    return (double)u.ru_utime.tv_sec + (double)u.ru_utime.tv_usec * 1e-6;
}

static void ask(int fd) {
    char body[160], text[400];
    int n = snprintf(
        body, sizeof body,
        "{\"prompt\": [1, 2, 3, 4, 5, 6, 7, 8], \"max_tokens\": %d, \"temperature\": 0, \"stream\": true}",
        TOKENS);
    n = snprintf(text, sizeof text,
                 "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%s", n, body);
    CHECK(send(fd, text, (size_t)n, 0) == n);
}

// Reads until `end` of every stream, as often as there are rounds.
static void client(const Server *s) {
    static const char end[] = "0\r\n\r\n";
    struct pollfd p[STREAMS];
    uint32_t rounds[STREAMS] = {0}, open = STREAMS;
    static char buf[1 << 16];
    for (int i = 0; i < STREAMS; i++) p[i] = (struct pollfd){small_connect(s), POLLIN, 0}, ask(p[i].fd);
    while (open) {
        CHECK(poll(p, STREAMS, 10000) > 0);
        for (int i = 0; i < STREAMS; i++) {
            if (!p[i].revents) continue;
            ssize_t n = recv(p[i].fd, buf, sizeof buf, 0);
            CHECK(n > 0);
            for (const char *at = buf; (at = memmem(at, (size_t)(buf + n - at), "data: {", 7)); at += 7)
                events_read++;
            bytes_read += (size_t)n;
            if (n < 5 || memcmp(buf + n - 5, end, 5) != 0) continue;
            if (++rounds[i] < rounds_max)
                ask(p[i].fd);
            else
                close(p[i].fd), p[i].fd = -1, open--;
        }
    }
}

static void serve(const Bench *b, const ApiModel *m) {
    Err e;
    ServerOptions o = small_server_options();
    o.workers = 1;
    Engine *engine = engine_new(b->x, NULL, &e);
    CHECK(engine);
    Server *s = server_new(engine, m, &o, &e);
    if (!s) fprintf(stderr, "%s\n", e.msg), exit(1);
    fflush(stdout);
    const pid_t child = fork();
    if (!child) {
        client(s);
        printf("%.2f events a token, %.0f bytes a token\n",
               (double)events_read / (STREAMS * TOKENS) / rounds_max,
               (double)bytes_read / (STREAMS * TOKENS) / rounds_max);
        fflush(stdout);
        kill(getppid(), SIGTERM);
        _exit(0);
    }
    const double begin = clock_s(), user = user_s(), cpu = cpu_s(CLOCK_PROCESS_CPUTIME_ID),
                 own = cpu_s(CLOCK_THREAD_CPUTIME_ID);
    CHECK(server_run(s) == 0);
    const double tokens = (double)STREAMS * TOKENS * rounds_max, took = clock_s() - begin;
    const double server_us = (cpu_s(CLOCK_THREAD_CPUTIME_ID) - own) / tokens * 1e6;
    printf("%d streams of %d tokens: %.0f tokens/s; server %.2f us a token (%.2f of it outside the kernel), "
           "with "
           "the engine %.2f us\n",
           STREAMS, TOKENS, tokens / took, server_us, (user_s() - user) / tokens * 1e6,
           (cpu_s(CLOCK_PROCESS_CPUTIME_ID) - cpu) / tokens * 1e6);
    waitpid(child, NULL, 0);
    server_free(s);
    engine_free(engine);
}

// ---- steps of a length -----------------------------------------------------------------------------------

// Between steps of all streams: how long the device had nothing to do.
enum { GAPS_MAX = 1 << 16 };
typedef struct {
    long step_us;
    double ended; // when the last step of all streams did; 0: it was another one
    double us[GAPS_MAX];
    uint32_t n;
} Gaps;

static void timed_play(void *ctx, const char *kernel, void *const *args, uint32_t n_args) {
    Gaps *g = ctx;
    const struct timespec t = {0, g->step_us * 1000};
    if (!strcmp(kernel, "body")) {
        const bool all = ((const uint32_t *)args[8])[COUNT_TOKENS] == STREAMS;
        if (all && g->ended > 0 && g->n < GAPS_MAX) g->us[g->n++] = (clock_s() - g->ended) * 1e6;
        g->ended = all;
        nanosleep(&t, NULL);
    }
    small_play(NULL, kernel, args, n_args);
    if (!strcmp(kernel, "advance") && g->ended > 0) g->ended = clock_s();
}

static int by_value(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void print_gaps(Gaps *g, const char *what) {
    double sum = 0;
    for (uint32_t i = 0; i < g->n; i++) sum += g->us[i];
    qsort(g->us, g->n, sizeof *g->us, by_value);
    CHECK(g->n);
    printf("%s: the device waits %.2f us between two steps of %d (p50 %.2f, p99 %.2f; %u steps)\n", what,
           sum / g->n, STREAMS, g->us[g->n / 2], g->us[(uint64_t)g->n * 99 / 100], g->n);
    g->n = 0, g->ended = 0;
}

// The scheduler alone, as adallm-rt bench has it.
static void batch_alone(const Bench *b) {
    Err e;
    static const int32_t ids[] = {1, 2, 3, 4, 5, 6, 7, 8};
    Batch *batch = batch_new(b->x, NULL, &e);
    const Request r = {.ids = ids, .n_ids = COUNT_OF(ids), .max_tokens = TOKENS};
    for (uint32_t round = 0; round < rounds_max; round++) {
        Seq *seqs[STREAMS];
        for (uint32_t i = 0; i < STREAMS; i++)
            batch_add(batch, seqs[i] = seq_new(batch_limits(batch), &r, &e));
        while (batch_busy(batch)) {
            const BatchToken *t;
            uint32_t n;
            CHECK(batch_step(batch, &t, &n, &e));
        }
        for (uint32_t i = 0; i < STREAMS; i++) batch_remove(batch, seqs[i]), seq_free(seqs[i]);
    }
    batch_free(batch);
}

int main(int argc, char **argv) {
    static Gaps gaps;
    gaps.step_us = argc > 1 ? atol(argv[1]) : 0;
    Bench b;
    Arena arena = {0};
    StrBuf section = {0};
    server_block_signals(false);
    ApiModel m = small_api_model(&arena, &section, 1);
    bench_open(&b, 1, (ExecOptions){0});
    null_on_launch(exec_device(b.x, 0), NULL, NULL); // the device's own draws
    if (gaps.step_us) {
        rounds_max = 8;
        null_on_launch(exec_device(b.x, 0), timed_play, &gaps);
        null_work_later(exec_device(b.x, 0));
        batch_alone(&b);
        print_gaps(&gaps, "batch alone");
    }
    serve(&b, &m);
    if (gaps.step_us) print_gaps(&gaps, "served");
    bench_close(&b);
    buf_free(&section);
    arena_free(&arena);
    return 0;
}
