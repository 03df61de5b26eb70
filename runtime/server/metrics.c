// GET /metrics: Prometheus text 0.0.4, each series as adallm: and, where routers know it, as vllm:.
#include <math.h>

#include "runtime/base/log.h"
#include "runtime/base/num.h"
#include "runtime/server/http.h"

typedef struct {
    StrBuf *out;
    StrBuf label; // model_name="..."
} Writer;

// Label values escape backslash, quote and newline.
static void set_label(Writer *w, Str name) {
    buf_puts(&w->label, "model_name=\"");
    for (size_t i = 0; i < name.len; i++) {
        if (name.ptr[i] == '\n') {
            buf_puts(&w->label, "\\n");
            continue;
        }
        if (name.ptr[i] == '"' || name.ptr[i] == '\\') buf_putc(&w->label, '\\');
        buf_putc(&w->label, name.ptr[i]);
    }
    buf_puts(&w->label, "\",engine=\"0\"");
}

static void head(Writer *w, const char *space, const char *name, const char *kind, const char *help) {
    buf_printf(w->out, "# HELP %s:%s %s\n# TYPE %s:%s %s\n", space, name, help, space, name, kind);
}

static void number(Writer *w, const char *space, const char *name, const char *kind, const char *help,
                   double v) {
    if (!*name) return;
    head(w, space, name, kind, help);
    buf_printf(w->out, "%s:%s{" STR_FMT "} %.17g\n", space, name, STR_ARG(buf_view(&w->label)), v);
}

static void histogram(Writer *w, const char *space, const char *name, const char *help,
                      const EngineHistogram *h) {
    uint64_t below = 0;
    if (!*name) return;
    head(w, space, name, "histogram", help);
    for (uint32_t i = 0; i < h->n_bounds; i++) {
        below += h->counts[i];
        buf_printf(w->out, "%s:%s_bucket{" STR_FMT ",le=\"%g\"} %llu\n", space, name,
                   STR_ARG(buf_view(&w->label)), h->bounds[i], (unsigned long long)below);
    }
    below += h->counts[h->n_bounds];
    buf_printf(w->out, "%s:%s_bucket{" STR_FMT ",le=\"+Inf\"} %llu\n", space, name,
               STR_ARG(buf_view(&w->label)), (unsigned long long)below);
    buf_printf(w->out, "%s:%s_sum{" STR_FMT "} %.9g\n", space, name, STR_ARG(buf_view(&w->label)), h->sum);
    buf_printf(w->out, "%s:%s_count{" STR_FMT "} %llu\n", space, name, STR_ARG(buf_view(&w->label)),
               (unsigned long long)below);
}

static void labelled(Writer *w, const char *space, const char *name, const char *label, const char *value,
                     double v) {
    buf_printf(w->out, "%s:%s{" STR_FMT ",%s=\"%s\"} %.17g\n", space, name, STR_ARG(buf_view(&w->label)),
               label, value, v);
}

// ---- of requests ------------------------------------------------------------------------------------------

void metrics_init(Server *s) {
    static const double few[] = {1, 2, 5, 10, 20},
                        sizes[] = {1, 2, 5, 10, 20, 50, 100, 200, 500, 1e3, 2e3, 5e3, 1e4, 2e4, 5e4, 1e5},
                        seconds[] = {0.3, 0.5, 0.8, 1,  1.5, 2,   2.5, 5,   10, 15,
                                     20,  30,  40,  50, 60,  120, 240, 480, 960},
                        times[] = {0, 1, 2, 5, 10};
    HttpCounters *c = &s->counters;
    c->asked_n = (EngineHistogram){.bounds = few, .n_bounds = COUNT_OF(few)};
    c->asked_tokens = (EngineHistogram){.bounds = sizes, .n_bounds = COUNT_OF(sizes)};
    c->inference_s = (EngineHistogram){.bounds = seconds, .n_bounds = COUNT_OF(seconds)};
    c->preemptions = (EngineHistogram){.bounds = times, .n_bounds = COUNT_OF(times)};
}

static void observe(EngineHistogram *h, double v) {
    uint32_t i = 0;
    while (i < h->n_bounds && v > h->bounds[i]) i++;
    h->counts[i]++;
    h->count++;
    h->sum += v;
}

void metrics_answered(Server *s, const Call *c) {
    HttpCounters *to = &s->counters;
    observe(&to->asked_n, c->req.n);
    observe(&to->asked_tokens, c->req.max_tokens);
    observe(&to->preemptions, c->usage.preemptions);
    if (c->usage.admitted_s > 0) observe(&to->inference_s, MAX(clock_s() - c->usage.admitted_s, 0));
}

static void finished(Writer *w, const Server *s, const char *space) {
    static const char *const names[] = {"", "stop", "length", "tool_calls"};
    head(w, space, "request_success_total", "counter", "Answers that ended, by reason.");
    for (int i = FINISH_STOP; i <= FINISH_CALLS; i++)
        labelled(w, space, "request_success_total", "finished_reason", names[i],
                 (double)s->counters.finished[i]);
}

static void responses(Writer *w, const Server *s) {
    static const char *const names[] = {"gone", "1xx", "2xx", "3xx", "4xx", "5xx"};
    head(w, "adallm", "http_responses_total", "counter",
         "Answered requests by status; gone: the client left.");
    for (int i = 0; i < 6; i++)
        labelled(w, "adallm", "http_responses_total", "status", names[i], (double)s->counters.requests[i]);
}

static void cache_info(Writer *w, const EngineStats *st) {
    if (!st->n_groups) return;
    head(w, "vllm", "cache_config_info", "gauge",
         "Size of the KV cache: pages, tokens, and sequences of the full context.");
    buf_printf(w->out,
               "vllm:cache_config_info{" STR_FMT
               ",block_size=\"%u\",num_gpu_blocks=\"%u\",cache_dtype=\"fp8\",kv_cache_size_tokens=\"%.0f\","
               "kv_cache_max_concurrency=\"%.17g\"} 1\n",
               STR_ARG(buf_view(&w->label)), st->kv[0].page_tokens, st->kv[0].pages,
               floor(st->kv_contexts * st->context), st->kv_contexts);
    head(w, "adallm", "kv_pages", "gauge", "KV pages of a group by state.");
    for (uint32_t g = 0; g < st->n_groups; g++) {
        char group[48];
        snprintf(group, sizeof group, "%u\",state=\"used", g);
        labelled(w, "adallm", "kv_pages", "group", group, st->kv[g].used);
        snprintf(group, sizeof group, "%u\",state=\"cached", g);
        labelled(w, "adallm", "kv_pages", "group", group, st->kv[g].cached);
        snprintf(group, sizeof group, "%u\",state=\"all", g);
        labelled(w, "adallm", "kv_pages", "group", group, st->kv[g].pages);
    }
}

static void waiting_by_reason(Writer *w, const EngineStats *st) {
    static const char name[] = "num_requests_waiting_by_reason";
    head(w, "vllm", name, "gauge", "Requests that wait, for a slot or for pages again.");
    labelled(w, "vllm", name, "reason", "capacity", st->waiting);
    labelled(w, "vllm", name, "reason", "deferred", st->waiting_preempted);
}

// Names that older routers still read.
static void old_names(Writer *w, const EngineStats *st) {
    double rate =
        st->prefix_queried_tokens ? (double)st->prefix_hit_tokens / (double)st->prefix_queried_tokens : 0;
    number(w, "vllm", "gpu_cache_usage_perc", "gauge", "KV pages in use, 0 to 1.", st->kv_usage);
    number(w, "vllm", "gpu_prefix_cache_hit_rate", "gauge", "Part of prompt tokens found in the cache.",
           rate);
    number(w, "vllm", "gpu_prefix_cache_queries_total", "counter", "Prompt tokens looked up.",
           (double)st->prefix_queried_tokens);
    number(w, "vllm", "gpu_prefix_cache_hits_total", "counter", "Prompt tokens found.",
           (double)st->prefix_hit_tokens);
}

// What dashboards of llama-server read.
static void llama_names(Writer *w, const EngineStats *st) {
    const double asked = (double)st->prefix_queried_tokens, cached = (double)st->prefix_hit_tokens;
    number(w, "llamacpp", "prompt_tokens_total", "counter", "Prompt tokens that were computed.",
           (double)st->computed_prompt_tokens);
    number(w, "llamacpp", "prompt_tokens_cache_total", "counter", "Prompt tokens found in the cache.",
           cached);
    number(w, "llamacpp", "prompt_cache_hit_ratio", "gauge", "Part of prompt tokens found in the cache.",
           asked > 0 ? cached / asked : 0);
    number(w, "llamacpp", "prompt_seconds_total", "counter", "Seconds of prompts.", st->prefill_s.sum);
    number(w, "llamacpp", "tokens_predicted_total", "counter", "Tokens generated.",
           (double)st->generated_tokens);
    number(w, "llamacpp", "tokens_predicted_seconds_total", "counter", "Seconds of answers.",
           st->decode_s.sum);
    number(w, "llamacpp", "n_decode_total", "counter", "Steps of the engine.", (double)st->steps);
    number(w, "llamacpp", "requests_processing", "gauge", "Sequences in the batch.", st->running);
    number(w, "llamacpp", "requests_deferred", "gauge", "Requests that wait for a slot.", st->waiting);
}

void metrics_write(Server *s, StrBuf *out) {
    EngineStats st;
    Writer w = {.out = out};
    engine_stats(s->engine, &st);
    set_label(&w, s->model->name);
#define GAUGE(own, vllm, help, value)                                                                        \
    number(&w, "adallm", own, "gauge", help, value), number(&w, "vllm", vllm, "gauge", help, value);
#define COUNTER(own, vllm, help, value)                                                                      \
    number(&w, "adallm", own, "counter", help, (double)(value)),                                             \
        number(&w, "vllm", vllm, "counter", help, (double)(value));
#define HISTOGRAM(own, vllm, help, value)                                                                    \
    histogram(&w, "adallm", own, help, &value), histogram(&w, "vllm", vllm, help, &value);
#include "runtime/server/metrics.def"
#undef GAUGE
#undef COUNTER
#undef HISTOGRAM
    finished(&w, s, "adallm");
    finished(&w, s, "vllm");
    responses(&w, s);
    cache_info(&w, &st);
    waiting_by_reason(&w, &st);
    old_names(&w, &st);
    llama_names(&w, &st);
    buf_free(&w.label);
}
