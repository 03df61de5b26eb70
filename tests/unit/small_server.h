// The small model behind HTTP: what programs share that run a server on the null device.
#ifndef ADALLM_TESTS_SMALL_SERVER_H
#define ADALLM_TESTS_SMALL_SERVER_H
#include <arpa/inet.h>
#include <sys/socket.h>

#include "compiler/frontend/tokenizer_pack.h"
#include "runtime/server/server.h"
#include "tests/unit/small_model.h"

// *section holds the tokenizer, which the model reads: it must live as long, and so must the arena.
static inline ApiModel small_api_model(Arena *a, StrBuf *section, uint32_t n_max) {
    static const Str name = {"small", 5};
    Err e;
    Diags d = {.arena = a};
    CHECK(tokenizer_pack(a, "tests/golden/models/qwen3", 672, section, &d));
    return (ApiModel){.name = name,
                      .names = &name,
                      .n_names = 1,
                      .vocab = SMALL_VOCAB,
                      .context = SMALL_CONTEXT,
                      .n_max = n_max,
                      .defaults = {.temperature = 1, .top_p = 1},
                      .tok = tokenizer_open(a, section->ptr, section->len, &e)};
}

// Times that no test runs into.
static inline ServerOptions small_server_options(void) {
    return (ServerOptions){.host = "127.0.0.1",
                           .workers = 2,
                           .body_bytes_max = 1 << 20,
                           .header_bytes_max = 32 << 10,
                           .connections_max = 256,
                           .unsent_bytes_max = 1 << 20,
                           .header_s = 60,
                           .body_s = 60,
                           .idle_s = 60,
                           .stall_s = 60,
                           .drain_s = 30,
                           .artifact = ""};
}

static inline int small_connect(const Server *s) {
    struct sockaddr_in a = {.sin_family = AF_INET,
                            .sin_port = htons((uint16_t)atoi(strrchr(server_url(s), ':') + 1))};
    const int fd = socket(AF_INET, SOCK_STREAM, 0);
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    CHECK(fd >= 0 && connect(fd, (struct sockaddr *)&a, sizeof a) == 0);
    return fd;
}
#endif
