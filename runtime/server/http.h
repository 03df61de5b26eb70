// What the files of the HTTP side share: a server, its connections, and calls, which are requests of clients.
// All of it belongs to the thread of server_run; a call that is being prepared belongs to a worker.
#ifndef ADALLM_SERVER_HTTP_H
#define ADALLM_SERVER_HTTP_H
#include <microhttpd.h>
#include <pthread.h>

#include "runtime/server/reply.h"
#include "runtime/server/rules.h"
#include "runtime/server/server.h"

typedef struct Call Call;
typedef struct Conn Conn;

// A prompt in the engine. With rules it outlives its call until the engine has ended it.
typedef struct {
    Call *call; // NULL: nobody waits for it
    EngineTask *task;
    Rules *rules;
    uint32_t prompt, n_open; // choices that have not ended
} Job;

typedef enum { OPEN = 1, WORK = 2, ANTHROPIC = 4, POLLED = 8 } RouteFlags;

// An answer that is there at once. content_type NULL: JSON.
typedef void RouteAnswer(Server *s, Call *c);
// What a worker does with the body: fills c->req (and c->generates) or c->doc. False: c->error.
typedef bool RouteWork(const ApiModel *m, RuleBook *book, Call *c);

typedef struct {
    const char *method, *path;
    RouteAnswer *answer; // without WORK
    RouteWork *work;     // with WORK
    unsigned flags;
} Route;

typedef enum { CONN_IDLE, CONN_HEADERS, CONN_BODY, CONN_BUSY } ConnPhase;
struct Conn {
    Conn *prev, *next;
    int fd;
    bool gone; // the peer ended its side
    ConnPhase phase;
    double since_s; // of the phase
    Call *call;
    // head.c
    Conn *next_arrived;
    bool arrived;
    uint64_t head_begin; // bytes of the connection before this request
};

typedef enum {
    CALL_BODY,      // the body is coming
    CALL_PREPARING, // a worker has it; the connection is suspended
    CALL_RUNNING,   // the engine has it
    CALL_READY,     // `doc` and `status`, to be sent
    CALL_SENT,      // the response is MHD's
} CallState;

struct Call {
    Server *server;
    Conn *conn;
    struct MHD_Connection *mhd;
    Arena arena;
    const Route *route;
    CallState state;
    bool suspended, headers_seen, streams, stream_done, too_large, told_error, failed;
    char request_id[132], method[12];
    Str path; // normalised, in the arena; without /v1
    StrBuf body, doc;
    size_t body_counted;              // of the server's body_bytes
    const char *content_type, *allow; // NULL: JSON; none
    int status;
    unsigned retry_after_s;
    ApiError error;
    Call *next_work, *prev_run, *next_run;
    // generation
    bool generates;
    ApiRequest req;
    Reply reply;
    bool has_reply;
    Job **jobs; // [n_jobs], one a prompt
    Rules *rules;
    const LogprobRow **prompt_logprobs;
    uint32_t n_jobs;
    size_t sent; // bytes of doc that have left, of a stream
    bool direct; // stream.c may write chunks
    StrBuf wire; // the rest of a chunk
    size_t wire_sent;
    double begin_s, submitted_s, first_s, last_event_s, last_progress_s;
    EngineUsage usage;
};

typedef struct {
    uint64_t requests[6]; // by status / 100; 0: gone clients
    uint64_t rejected_busy, cancelled, stalled, unknown_fields;
    uint64_t finished[4]; // by ReplyFinish
    uint64_t connections_total;
    EngineHistogram asked_n, asked_tokens, inference_s, preemptions; // of requests that were answered
} HttpCounters;

typedef struct Workers Workers;

struct Server {
    ServerOptions o;
    Engine *engine;
    const ApiModel *model;
    EngineSink *sink;
    RuleBook *book;
    struct MHD_Daemon *daemon;
    Workers *workers;
    int epoll, signals, listener;
    bool loopback, draining, stopping, dead, mhd_due;
    double drain_until_s, started_s, ticked_s;
    char url[256];
    Keys keys;
    Arena *keys_arena;     // of keys that were read again; NULL: they are the options'
    Conn *conns, *arrived; // arrived: those with news before their headers are whole
    Call *running;         // all calls that the engine has
    uint64_t body_bytes;   // of all bodies that are held
    uint32_t n_conns, n_running, n_preparing, n_orphans;
    HttpCounters counters;
    char unknown_names[64][48]; // of fields, each logged once
    uint32_t n_unknown_names;
};

// http.c
void call_resume(Call *c);
void call_suspend(Call *c);
void call_ready(Call *c, int status); // doc is whole: send it
void call_fail(Call *c);              // c->error is the answer
void conn_gone(Conn *k);              // the peer left: what it waited for is cancelled
void conn_kick(Conn *k,
               const ApiError *e); // closes, with this error where nothing was sent yet; NULL: without

// head.c
bool head_fits(Call *c, const char *url); // False: c->error
void head_begin(Conn *k);                 // the next request begins
void head_arrived(Server *s, Conn *k);    // bytes may be there
void heads_check(Server *s);              // after libmicrohttpd read: ends those that sent too much
void head_forget(Server *s, Conn *k);     // the connection ends

// cors.c
const char *cors_origin(const Call *c); // what Access-Control-Allow-Origin says; NULL: nothing
bool cors_asks_first(const Call *c);    // the call is a preflight
bool cors_preflight(Call *c);           // False: c->error
void cors_headers(const Call *c, struct MHD_Response *r);

// stream.c
void stream_push(Call *c);           // there is more in doc, or stream_done
size_t stream_unsent(const Call *c); // bytes that the client has not taken

// routes.c
const Route *route_find(Call *c, const char *url); // sets path; NULL: c->error and allow are set
bool route_guard(Call *c);                         // key, Host, Origin. False: c->error

// generate.c
void generate_submit(Call *c); // after the worker: to the engine
void generate_news(Server *s); // takes all there is
void generate_tick(Server *s, double now_s);
void generate_cancel(Call *c);                     // the client is gone
void generate_abort(Server *s, const ApiError *e); // all streams and answers end with this error
void generate_free(Call *c);

// workers.c
Workers *workers_new(uint32_t n, const ApiModel *m, RuleBook *book, Err *e);
void workers_free(Workers *w); // waits for what is being done
int workers_fd(const Workers *w);
void workers_push(Workers *w, Call *c);
Call *workers_next(Workers *w); // done, in any order; NULL: none

void access_log(const Call *c, enum MHD_RequestTerminationCode how);
void event_log(const char *event, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void metrics_init(Server *s);
void metrics_answered(Server *s, const Call *c); // its usage is summed
void metrics_write(Server *s, StrBuf *out);
#endif
