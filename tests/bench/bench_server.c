// bench_server [STEP_US]: what HTTP costs a token, on the null device: 64 streams of 128 tokens, read by a
// process of its own. "server" is the processor time of the thread that does all input and output. With
// STEP_US each step takes as long, so that each token is an event of its own; without it the device is faster
// than any reader, and one event tells several tokens.
#define SMALL_SEQS           64
#define SMALL_TOKENS         256
#define SMALL_ROWS           64
#define SMALL_CONTEXT_TOKENS 144
#include <arpa/inet.h>
#include <poll.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>

#include "compiler/frontend/tokenizer_pack.h"
#include "runtime/base/log.h"
#include "runtime/engine/engine.h"
#include "runtime/server/server.h"
#include "tests/unit/small_play.h"

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

static int connect_to(const char *url) {
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(strrchr(url, ':') + 1))};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    CHECK(fd >= 0 && connect(fd, (struct sockaddr *)&a, sizeof a) == 0);
    return fd;
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
static void client(const char *url) {
    static const char end[] = "0\r\n\r\n";
    struct pollfd p[STREAMS];
    uint32_t rounds[STREAMS] = {0}, open = STREAMS;
    static char buf[1 << 16];
    for (int i = 0; i < STREAMS; i++) p[i] = (struct pollfd){connect_to(url), POLLIN, 0}, ask(p[i].fd);
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

static ApiModel model_of(Arena *a) {
    StrBuf *section = ARENA_NEW(a, StrBuf);
    Err e;
    Diags d = {.arena = a};
    static const Str name = {"small", 5};
    CHECK(tokenizer_pack(a, "tests/golden/models/qwen3", 672, section, &d));
    return (ApiModel){.name = name,
                      .names = &name,
                      .n_names = 1,
                      .vocab = SMALL_VOCAB,
                      .context = SMALL_CONTEXT,
                      .n_max = 1,
                      .defaults = {.temperature = 1, .top_p = 1},
                      .tok = tokenizer_open(a, section->ptr, section->len, &e)};
}

static void serve(const Bench *b, const ApiModel *m) {
    Err e;
    ServerOptions o = {.host = "127.0.0.1",
                       .workers = 1,
                       .body_bytes_max = 1 << 20,
                       .header_bytes_max = 32 << 10,
                       .connections_max = 256,
                       .unsent_bytes_max = 1 << 20,
                       .header_s = 60,
                       .body_s = 60,
                       .idle_s = 60,
                       .stall_s = 60,
                       .drain_s = 10,
                       .artifact = ""};
    Engine *engine = engine_new(b->x, NULL, &e);
    CHECK(engine);
    Server *s = server_new(engine, m, &o, &e);
    if (!s) fprintf(stderr, "%s\n", e.msg), exit(1);
    const pid_t child = fork();
    if (!child) {
        client(server_url(s));
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

static void timed_play(void *ctx, const char *kernel, void *const *args, uint32_t n_args) {
    const struct timespec t = {0, *(const long *)ctx * 1000};
    if (!strcmp(kernel, "body")) nanosleep(&t, NULL);
    small_play(NULL, kernel, args, n_args);
}

int main(int argc, char **argv) {
    long step_us = argc > 1 ? atol(argv[1]) : 0;
    Bench b;
    Arena arena = {0};
    server_block_signals(false);
    ApiModel m = model_of(&arena);
    bench_open(&b, 1, (ExecOptions){0});
    null_on_launch(exec_device(b.x, 0), step_us ? timed_play : NULL,
                   &step_us); // NULL: the device's own draws
    if (step_us) rounds_max = 8;
    serve(&b, &m);
    bench_close(&b);
    arena_free(&arena);
    return 0;
}
