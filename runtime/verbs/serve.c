// adallm-rt serve, and adallm-rt X.ada: the model behind HTTP.
#include "runtime/server/server.h"

#include <stdio.h>
#include <time.h>

#include "runtime/base/cli.h"
#include "runtime/base/log.h"
#include "runtime/base/num.h"
#include "runtime/base/version.h"
#include "runtime/verbs/open.h"
#include "runtime/verbs/verbs.h"

typedef struct {
    const char *host, *socket, *key_file, *generation_config, *speculate;
    uint64_t port, max_model_len, max_num_seqs, max_num_batched_tokens, max_waiting, max_waiting_tokens,
        speculate_tokens;
    uint64_t ranks, workers, body_bytes, header_bytes, connections, unsent_bytes;
    double header_s, body_s, idle_s, stall_s, request_s, ping_s, drain_s;
    bool no_auth, no_prefix_cache, quiet;
    OptList names, hosts, origins;
    RunOptions run;
    CliResult cli;
} Args;

static const Args defaults = {.host = "127.0.0.1",
                              .generation_config = "vllm",
                              .port = 8000,
                              .workers = 2,
                              .speculate_tokens = 4,
                              .body_bytes = 4 << 20,
                              .header_bytes = 16 << 10,
                              .connections = 2048,
                              .unsent_bytes = 256 << 10,
                              .header_s = 10,
                              .body_s = 30,
                              .idle_s = 90,
                              .stall_s = 30,
                              .request_s = 600,
                              .ping_s = 5,
                              .drain_s = 60};

static bool parse_args(Args *x, int argc, char **argv, Arena *a, Diags *d) {
    const Option options[] = {
#define OPTION(name, kind, metavar, min, max, member, help)                                                  \
    {name, kind, metavar, min, max, &x->member, NULL, help},
#define RUN_OPTIONS RUN_OPTION_ROWS(&x->run),
#include "runtime/verbs/serve_options.def"
#undef OPTION
#undef RUN_OPTIONS
    };
    const Command cmd = {"adallm-rt X.ada [options]  |  adallm-rt serve X.ada [options]",
                         "Serves a model to clients of the OpenAI API (/v1/chat/completions, "
                         "/v1/completions, /v1/responses, /v1/models), the Anthropic API "
                         "(/v1/messages), and of vLLM and llama-server (/tokenize, /detokenize, /props, "
                         "/metrics). /health says whether it lives, /ready "
                         "whether it takes requests, / is a page to chat with.\n\nWhat an answer is depends "
                         "on its request alone, not on what else runs. SIGTERM "
                         "ends the server when running requests are answered, a second one at once. Exit "
                         "status 10: the device failed.",
                         options,
                         COUNT_OF(options),
                         1,
                         1};
    *x = defaults;
    bool ok = cli_environment(&cmd, "ADALLM_", a, d);
    ok = cli_parse(&cmd, argc, argv, a, &x->cli, d) && ok;
    if (x->cli.help) cli_environment_help(&cmd, "ADALLM_", stdout);
    return ok;
}

// ---- the model -------------------------------------------------------------------------------------------

typedef struct {
    Args args;
    Opened opened;
    Exec *exec;
    Engine *engine;
    ApiModel model;
    ServerOptions options;
    Server *server;
} Serve;

static bool check_args(Serve *s, Diags *d) {
    const Args *x = &s->args;
    const uint32_t ranks = s->opened.artifact.plan->n_ranks;
    const bool advice = !strcmp(x->generation_config, "auto");
    if (x->speculate && strcmp(x->speculate, "ngram") != 0)
        return diag_error(d, E_OPTION_VALUE, SPAN_NONE, "--speculate wants ngram, not `%s`", x->speculate);
    if (!advice && strcmp(x->generation_config, "vllm") != 0)
        return diag_error(d, E_OPTION_VALUE, SPAN_NONE, "--generation-config wants auto or vllm, not `%s`",
                          x->generation_config);
    if (x->ranks && x->ranks != ranks)
        return diag_error(
            d, E_OPTION_VALUE, SPAN_NONE,
            "--tensor-parallel-size %llu: this artifact is for %u; `tensor_parallel` of its recipe says so",
            (unsigned long long)x->ranks, ranks);
    return true;
}

static void set_names(Serve *s) {
    Arena *a = &s->opened.artifact.arena;
    const OptList *given = &s->args.names;
    uint32_t n = given->n ? (uint32_t)given->n : 1;
    Str *names = ARENA_ARRAY(a, Str, n);
    names[0] = str_of(s->opened.manifest.model);
    for (uint32_t i = 0; i < given->n; i++) names[i] = str_of(given->items[i]);
    s->model.names = names, s->model.n_names = n, s->model.name = names[0];
}

static void set_defaults(Serve *s) {
    const Manifest *m = &s->opened.manifest;
    s->model.defaults = (Sampling){.temperature = 1, .top_p = 1};
    if (strcmp(s->args.generation_config, "auto") != 0) return;
    s->model.defaults = (Sampling){.temperature = (float)m->temperature,
                                   .top_p = (float)m->top_p,
                                   .min_p = (float)m->min_p,
                                   .top_k = m->top_k};
    fprintf(
        stderr,
        "adallm-rt: requests that do not say otherwise get temperature %g, top_p %g, top_k %u, min_p %g\n",
        m->temperature, m->top_p, m->top_k, m->min_p);
}

static bool open_chat(Serve *s, Err *e) {
    Arena *a = &s->opened.artifact.arena;
    ApiModel *m = &s->model;
    Str section;
    if (!artifact_section(&s->opened.artifact, ADA_CHAT, 0, &section)) return true;
    m->chat = chat_open(a, section.ptr, section.len, e);
    if (!m->chat) return false;
    m->control = chat_control(a, m->tok);
    api_model_probe(m);
    return true;
}

static void set_fingerprint(Serve *s) {
    const uint8_t *root = s->opened.artifact.super->merkle_root;
    s->model.fingerprint = arena_printf(&s->opened.artifact.arena, "adallm-%s-%02x%02x%02x%02x%02x%02x",
                                        ADALLM_VERSION, root[0], root[1], root[2], root[3], root[4], root[5]);
}

static bool open_model(Serve *s, Err *e) {
    ApiModel *m = &s->model;
    EngineStats st;
    engine_stats(s->engine, &st);
    m->tok = opened_tokenizer(&s->opened, e);
    if (!m->tok) return false;
    m->vocab = s->opened.artifact.plan->vocab;
    m->context = st.context;
    m->eos_ids = s->opened.manifest.eos_ids, m->n_eos_ids = s->opened.manifest.n_eos_ids;
    m->n_max = API_CHOICES_MAX;
    m->created = time(NULL);
    set_fingerprint(s);
    set_names(s);
    set_defaults(s);
    return open_chat(s, e);
}

static bool open_engine(Serve *s, Err *e) {
    const Args *x = &s->args;
    ExecOptions o = run_exec_options(&s->opened, &x->run, (uint32_t)x->max_num_seqs);
    s->exec = opened_exec(&s->opened, &o, e);
    if (!s->exec) return false;
    EngineOptions options = {.max_num_seqs = (uint32_t)x->max_num_seqs,
                             .max_num_batched_tokens = (uint32_t)x->max_num_batched_tokens,
                             .max_model_len = (uint32_t)x->max_model_len,
                             .queue_requests_max = (uint32_t)x->max_waiting,
                             .queue_tokens_max = (uint32_t)x->max_waiting_tokens,
                             .no_prefix_cache = x->no_prefix_cache,
                             .speculate = x->speculate ? (uint32_t)x->speculate_tokens : 0};
    s->engine = engine_new(s->exec, &options, e);
    return s->engine != NULL;
}

// ---- serving ---------------------------------------------------------------------------------------------

static bool loopback_name(const char *host) {
    return !strcmp(host, "localhost") || !strncmp(host, "127.", 4) || !strcmp(host, "::1");
}

// As browsers send it: a scheme and a host, in small letters, without a path.
static bool origin_ok(const char *o) {
    const char *host = strstr(o, "://");
    if (!strcmp(o, "*") || !strcmp(o, "null")) return true;
    return host && host > o && host[3] && !strpbrk(host + 3, "/ ,\"*");
}

static bool add_origins(Serve *s, const char *given, OptList *out, Err *e) {
    Arena *a = &s->opened.artifact.arena;
    Source src = {"--allowed-origins", str_of(given)};
    Diags d = {.arena = a, .n_max = 1};
    const char *one[1] = {given}, **items = one;
    size_t n = 1;
    if (*given == '[') { // vLLM's way: a list in JSON
        const Json *list = json_parse(a, &src, (JsonLimits){.depth_max = 2}, &d);
        if (!json_is(list, JSON_ARRAY))
            return err_set(e, E_OPTION_VALUE, "--allowed-origins wants a list of strings, not `%s`", given);
        items = ARENA_ARRAY(a, const char *, list->n + 1), n = list->n;
        for (size_t i = 0; i < n; i++)
            items[i] = list->items[i].kind == JSON_STRING
                           ? arena_strndup(a, list->items[i].s.ptr, list->items[i].s.len)
                           : "";
    }
    const char **all = ARENA_ARRAY(a, const char *, out->n + n + 1);
    if (out->n) memcpy(all, out->items, out->n * sizeof *all);
    for (size_t i = 0; i < n; i++) {
        if (!origin_ok(items[i]))
            return err_set(e, E_OPTION_VALUE,
                           "--allowed-origins wants *, or origins as https://host:port, not `%s`", items[i]);
        all[out->n + i] = items[i];
    }
    *out = (OptList){all, out->n + n};
    return true;
}

static bool set_origins(Serve *s, Err *e) {
    OptList all = {0};
    for (size_t i = 0; i < s->args.origins.n; i++)
        if (!add_origins(s, s->args.origins.items[i], &all, e)) return false;
    s->options.allowed_origins = all.items, s->options.n_allowed_origins = all.n;
    return true;
}

static bool set_options(Serve *s, Err *e) {
    const Args *x = &s->args;
    Arena *a = &s->opened.artifact.arena;
    s->options = (ServerOptions){.host = x->host,
                                 .socket = x->socket,
                                 .port = (uint16_t)x->port,
                                 .allowed_hosts = x->hosts.items,
                                 .n_allowed_hosts = x->hosts.n,
                                 .key_file = x->key_file,
                                 .workers = (uint32_t)x->workers,
                                 .body_bytes_max = x->body_bytes,
                                 .header_bytes_max = x->header_bytes,
                                 .connections_max = x->connections,
                                 .unsent_bytes_max = x->unsent_bytes,
                                 .header_s = x->header_s,
                                 .body_s = x->body_s,
                                 .idle_s = x->idle_s,
                                 .stall_s = x->stall_s,
                                 .request_s = x->request_s,
                                 .ping_s = x->ping_s,
                                 .drain_s = x->drain_s,
                                 .log_requests = !x->quiet,
                                 .artifact = x->cli.args[0]};
    if (!set_origins(s, e)) return false;
    if (x->key_file) return keys_read(a, x->key_file, &s->options.keys, e);
    if (x->socket || x->no_auth || loopback_name(x->host)) return true;
    return err_set(
        e, E_OPTION_VALUE,
        "--host %s lets other machines in: --api-key-file says who may come, --no-auth lets everybody",
        x->host);
}

static int serve(Serve *s, Diags *d) {
    Err e;
    const double begin = clock_s();
    if (!check_args(s, d)) return 0;
    if (!set_options(s, &e) || !open_engine(s, &e) || !open_model(s, &e) ||
        !(s->server = server_new(s->engine, &s->model, &s->options, &e))) {
        diag_err(d, SPAN_NONE, &e);
        return 0;
    }
    EngineStats st;
    engine_stats(s->engine, &st);
    printf("adallm-rt: ready at %s, model " STR_FMT ", %u sequences of %u tokens, after %.2f s\n",
           server_url(s->server), STR_ARG(s->model.name), st.slots, st.context,
           s->opened.open_s + clock_s() - begin);
    fflush(stdout);
    return server_run(s->server);
}

int verb_serve(int argc, char **argv) {
    Arena arena = {0};
    Diags d = {.arena = &arena};
    Serve s = {0};
    Err e;
    int code = 0;
    if (parse_args(&s.args, argc, argv, &arena, &d) && !s.args.cli.help) {
        server_block_signals(s.args.key_file != NULL);
        if (opened_open(&s.opened, s.args.cli.args[0], ARTIFACT_ALL, s.args.run.threads, &e))
            code = serve(&s, &d);
        else
            diag_err(&d, SPAN_NONE, &e);
        server_free(s.server);
        engine_free(s.engine);
        exec_close(s.exec);
        opened_close(&s.opened);
    }
    diags_print(&d, "adallm-rt", stderr);
    if (diags_exit_code(&d)) code = diags_exit_code(&d);
    arena_free(&arena);
    return code;
}
