// Server: an engine behind HTTP. One thread does all input and output; a few prepare requests (parse, render,
// encode); the engine has its own.
#ifndef ADALLM_SERVER_SERVER_H
#define ADALLM_SERVER_SERVER_H
#include "runtime/engine/engine.h"
#include "runtime/server/auth.h"
#include "runtime/server/request.h"

typedef struct {
    const char *host, *socket;        // socket: path of a unix socket, instead of host and port
    uint16_t port;                    // 0: any free one
    const char *const *allowed_hosts; // [n] names beside localhost that a Host header may have
    size_t n_allowed_hosts;
    const char *const *allowed_origins; // [n] of web pages that may read answers; "*": all
    size_t n_allowed_origins;
    Keys keys;
    const char *key_file; // read again at SIGHUP; may be NULL
    uint32_t workers;
    uint64_t body_bytes_max, header_bytes_max, connections_max, unsent_bytes_max;
    double header_s, body_s, idle_s, stall_s, request_s, ping_s, drain_s;
    bool log_requests;
    const char *artifact; // its path, for /props
} ServerOptions;

typedef struct Server Server;

// SIGTERM, SIGINT and, with a key file, SIGHUP wait for server_run from here on: before the first thread is
// made.
void server_block_signals(bool has_keys);

// Binds and listens. Engine and model must outlive the server. E_OPTION_VALUE, E_SYSTEM.
Server *server_new(Engine *engine, const ApiModel *model, const ServerOptions *o, Err *e);
void server_free(Server *s); // s may be NULL
const char *server_url(const Server *s);

// Serves until it was told to stop and everything is answered: SIGTERM and SIGINT drain, a second one stops
// at once; SIGHUP reads the keys again. Returns the process's exit code: 0, or SERVER_EXIT_ENGINE when the
// engine died.
enum { SERVER_EXIT_ENGINE = 10 };
int server_run(Server *s);
#endif
