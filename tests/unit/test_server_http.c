// The server with its threads on the null device: clients that come and go, a device that dies. Runs with
// ThreadSanitizer, too.
#define SMALL_SEQS   8
#define SMALL_TOKENS 32
#define SMALL_ROWS   8
#include <pthread.h>
#include <signal.h>

#include "runtime/base/log.h"
#include "runtime/engine/engine.h"
#include "tests/unit/small_play.h"
#include "tests/unit/small_server.h"

typedef struct {
    Bench bench;
    Arena arena;
    StrBuf section;
    ApiModel model;
    Engine *engine;
    Server *server;
    pthread_t thread;
    int code;
} Site;

static void *run(void *ctx) {
    Site *s = ctx;
    s->code = server_run(s->server);
    return NULL;
}

static uint64_t fails_after; // calls of the device, from the opening on; 0: never

static void site_open(Site *s) {
    Err e;
    *s = (Site){.code = -1};
    bench_open(&s->bench, 1, (ExecOptions){0});
    Device *d0 = exec_device(s->bench.x, 0);
    null_on_launch(d0, NULL, NULL);
    if (fails_after) null_fail_at(d0, null_calls(d0) + fails_after);
    s->model = small_api_model(&s->arena, &s->section, 4);
    const ServerOptions o = small_server_options();
    s->engine = engine_new(s->bench.x, NULL, &e);
    assert_non_null(s->engine);
    s->server = server_new(s->engine, &s->model, &o, &e);
    if (!s->server) fail_msg("%s", e.msg);
    assert_int_equal(pthread_create(&s->thread, NULL, run, s), 0);
}

static void site_close(Site *s) {
    server_free(s->server);
    engine_free(s->engine);
    bench_close(&s->bench);
    buf_free(&s->section);
    arena_free(&s->arena);
}

static int connect_to(const Site *s) {
    const struct timeval patience = {20, 0};
    const int fd = small_connect(s->server);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    return fd;
}

static int ask(const Site *s, const char *path, const char *body) {
    char text[1024];
    int fd = connect_to(s),
        n = snprintf(
            text, sizeof text,
            "POST %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: %zu\r\n\r\n%s", path,
            strlen(body), body);
    assert_int_equal(send(fd, text, (size_t)n, MSG_NOSIGNAL), n);
    return fd;
}

static void read_rest(int fd, StrBuf *out) {
    char buf[4096];
    ssize_t n;
    while ((n = recv(fd, buf, sizeof buf, 0)) > 0) buf_add(out, buf, (size_t)n);
    assert_true(n == 0);
    close(fd);
}

static bool has(const StrBuf *b, const char *words) {
    return b->len && memmem(b->ptr, b->len, words, strlen(words));
}

#define STREAM(n) "{\"prompt\": [1, 2, 3], \"max_tokens\": " n ", \"stream\": true, \"temperature\": 0}"

// Half of the clients leave in the middle; the others get all of it, and the server ends when told.
static void test_clients_come_and_go(void **state) {
    (void)state;
    Site s;
    site_open(&s);
    for (int round = 0; round < 100; round++) {
        int fds[6];
        for (int i = 0; i < 6; i++)
            fds[i] = ask(&s, "/v1/completions",
                         i % 3 ? STREAM("40") : "{\"prompt\": [[1], [2, 3]], \"n\": 2, \"max_tokens\": 30}");
        for (int i = 0; i < 6; i++) {
            if (i % 2) {
                close(fds[i]);
                continue;
            }
            StrBuf got = {0};
            read_rest(fds[i], &got);
            assert_true(has(&got, "HTTP/1.1 200"));
            assert_true(has(&got, i % 3 ? "[DONE]" : "\"total_tokens\""));
            buf_free(&got);
        }
    }
    pthread_kill(s.thread, SIGTERM);
    pthread_join(s.thread, NULL);
    assert_int_equal(s.code, 0);
    EngineStats st;
    for (int i = 0; i < 200; i++) {
        engine_stats(s.engine, &st);
        if (!st.running && !st.waiting) break;
        usleep(10000);
    }
    assert_int_equal(st.running + st.waiting, 0);
    site_close(&s);
}

// What runs ends with an error, and the exit code tells the supervisor.
static void device_dies(const char *body, const char *want, const char *also) {
    Site s;
    StrBuf got = {0};
    fails_after = 200;
    site_open(&s);
    fails_after = 0;
    for (int i = 0; i < 100 && !has(&got, "engine_dead"); i++) {
        got.len = 0;
        read_rest(ask(&s, "/v1/completions", body), &got);
    }
    if (!has(&got, want) || !has(&got, also)) fail_msg(STR_FMT, STR_ARG(buf_view(&got)));
    pthread_join(s.thread, NULL);
    assert_int_equal(s.code, SERVER_EXIT_ENGINE);
    buf_free(&got);
    site_close(&s);
}

static void test_device_dies_under_a_stream(void **state) {
    (void)state;
    device_dies(STREAM("40"), "\"code\": \"engine_dead\"", "data: [DONE]");
}

static void test_device_dies_under_an_answer(void **state) {
    (void)state;
    device_dies("{\"prompt\": [1, 2, 3], \"max_tokens\": 40}", "HTTP/1.1 503", "Retry-After");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_clients_come_and_go),
        cmocka_unit_test(test_device_dies_under_a_stream),
        cmocka_unit_test(test_device_dies_under_an_answer),
    };
    server_block_signals(false);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
