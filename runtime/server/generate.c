// From a prepared request to the engine, and from its news to the client.
#include <math.h>
#include <stdlib.h>
#include <time.h>

#include "runtime/base/log.h"
#include "runtime/base/num.h"
#include "runtime/server/http.h"

// ---- to the engine ---------------------------------------------------------------------------------------

static void link_running(Call *c) {
    Server *s = c->server;
    c->next_run = s->running;
    if (s->running) s->running->prev_run = c;
    s->running = c;
    s->n_running++;
}

static void unlink_running(Call *c) {
    Server *s = c->server;
    if (c->prev_run) c->prev_run->next_run = c->next_run;
    if (c->next_run) c->next_run->prev_run = c->prev_run;
    if (s->running == c) s->running = c->next_run;
    c->prev_run = c->next_run = NULL;
    s->n_running--;
}

static void free_job(Server *s, Job *j) {
    if (!j->call) s->n_orphans--;
    engine_release(j->task);
    rules_drop(j->rules);
    free(j);
}

// The engine may be asking the rules right now: such a job is kept until the engine has ended it.
static void release_jobs(Call *c) {
    for (uint32_t i = 0; i < c->n_jobs; i++) {
        Job *j = c->jobs[i];
        if (!j->rules || !j->n_open) {
            free_job(c->server, j);
            continue;
        }
        j->call = NULL;
        c->server->n_orphans++;
        engine_cancel(j->task, ENGINE_ALL_CHOICES);
    }
    c->n_jobs = 0;
}

static bool engine_refused(Call *c, const Err *why) {
    Server *s = c->server;
    switch (why->code) {
    case E_BUSY:
        s->counters.rejected_busy++;
        api_error(&c->error, 429, "rate_limit_error", "server_overloaded", NULL,
                  "The server is at its limit: %s", why->msg);
        c->error.retry_after_s = (unsigned)ceil(engine_retry_after_s(s->engine));
        return false;
    case E_DRAINING:
        api_error(&c->error, 503, "unavailable_error", "draining", NULL, "The server is shutting down.");
        return c->error.retry_after_s = 5, false;
    case E_DEVICE:
        api_error(&c->error, 503, "unavailable_error", "engine_dead", NULL, "The device failed.");
        return c->error.retry_after_s = 5, false;
    case E_CONTEXT:
        return api_error(&c->error, 400, "invalid_request_error", "context_length_exceeded", NULL, "%s",
                         why->msg);
    default: return api_invalid(&c->error, NULL, "%s", why->msg);
    }
}

static Job *submit_one(Call *c, uint32_t i, Err *e) {
    const ApiRequest *q = &c->req;
    const ApiPrompt *p = &q->prompts[i];
    const bool echoed = q->echo && q->sampling.logprobs;
    Job *j = xmalloc(sizeof *j);
    *j = (Job){.call = c, .rules = rules_hold(c->rules), .prompt = i, .n_open = q->n};
    EngineRequest r = {.ids = (const int32_t *)p->ids,
                       .n_ids = p->n,
                       .max_tokens = q->max_tokens,
                       .n = q->n,
                       .stop_ids = q->eos_ids,
                       .n_stop_ids = q->n_eos_ids,
                       .sampling = q->sampling,
                       .prompt_logprobs = q->prompt_logprobs || echoed,
                       .prompt_top_logprobs = MAX(q->prompt_top, echoed ? q->sampling.top_logprobs : 0),
                       .progress = q->progress,
                       .salt = q->cache_salt,
                       .masks = c->rules ? rules_masks(c->rules, i) : NULL,
                       .deadline_s = c->server->o.request_s > 0 ? clock_s() + c->server->o.request_s : 0,
                       .user = j};
    r.sampling.seed += (uint64_t)i * q->n;
    j->task = engine_submit(c->server->engine, c->server->sink, &r, e);
    if (j->task) return j;
    rules_drop(j->rules);
    free(j);
    return NULL;
}

static bool submit_all(Call *c) {
    Err e;
    c->jobs = ARENA_ARRAY(&c->arena, Job *, c->req.n_prompts);
    c->prompt_logprobs = ARENA_ARRAY(&c->arena, const LogprobRow *, c->req.n_prompts);
    for (uint32_t i = 0; i < c->req.n_prompts; i++) {
        Job *j = submit_one(c, i, &e);
        if (!j) {
            release_jobs(c);
            return engine_refused(c, &e);
        }
        c->jobs[c->n_jobs++] = j;
    }
    return true;
}

static void count_unknown(Call *c) {
    Server *s = c->server;
    for (uint32_t i = 0; i < c->req.n_unknown; i++) {
        Str name = c->req.unknown[i];
        bool seen = !name.len || name.len >= sizeof s->unknown_names[0];
        s->counters.unknown_fields++;
        for (uint32_t k = 0; k < s->n_unknown_names && !seen; k++) seen = str_is(name, s->unknown_names[k]);
        if (seen || s->n_unknown_names == COUNT_OF(s->unknown_names)) continue;
        memcpy(s->unknown_names[s->n_unknown_names], name.ptr, name.len);
        event_log("unknown_field", "requests have a field that does nothing here: %s",
                  s->unknown_names[s->n_unknown_names++]);
    }
}

void generate_submit(Call *c) {
    Server *s = c->server;
    count_unknown(c);
    c->submitted_s = c->last_event_s = c->last_progress_s = clock_s();
    if (s->draining) {
        api_error(&c->error, 503, "unavailable_error", "draining", NULL, "The server is shutting down.");
        c->error.retry_after_s = 5;
        call_fail(c);
        return;
    }
    if (!submit_all(c)) {
        call_fail(c);
        return;
    }
    const char *hex = arena_printf(&c->arena, "%016llx%08x", (unsigned long long)(c->submitted_s * 1e9),
                                   (unsigned)(uintptr_t)c);
    reply_begin(&c->reply, &c->arena, s->model, &c->req, hex, str_of(c->request_id), time(NULL));
    c->reply.prompt_logprobs = c->prompt_logprobs;
    c->has_reply = true;
    c->state = CALL_RUNNING;
    link_running(c);
    reply_open(&c->reply, &c->doc);
    if (!c->req.stream) return;
    c->streams = true;
    call_ready(c, 200); // the headers leave at once
}

// ---- from the engine -------------------------------------------------------------------------------------

static void sum_usage(Call *c) {
    EngineUsage *sum = &c->usage;
    for (uint32_t i = 0; i < c->n_jobs; i++) {
        EngineUsage u = engine_usage(c->jobs[i]->task);
        sum->cached_tokens += u.cached_tokens;
        sum->prompt_tokens += u.prompt_tokens;
        sum->preemptions += u.preemptions;
        if (!sum->first_token_s || u.first_token_s < sum->first_token_s) sum->first_token_s = u.first_token_s;
        if (!sum->admitted_s || u.admitted_s < sum->admitted_s) sum->admitted_s = u.admitted_s;
    }
    c->reply.usage.cached_tokens = sum->cached_tokens;
}

static void end_call(Call *c) {
    unlink_running(c);
    c->stream_done = true;
    release_jobs(c);
    if (c->streams)
        stream_push(c);
    else if (c->state == CALL_RUNNING)
        call_ready(c, 200);
}

// What timings tell, so far; the wait for a slot is not the prompt's.
static void measure(Call *c) {
    if (!c->req.timings || c->first_s == 0) return;
    c->reply.prompt_s = MAX(c->first_s - engine_usage(c->jobs[0]->task).admitted_s, 0);
    c->reply.predicted_s = clock_s() - c->first_s;
}

static void finish_call(Call *c) {
    sum_usage(c);
    metrics_answered(c->server, c);
    for (uint32_t i = 0; i < c->reply.n_choices; i++)
        c->server->counters.finished[c->reply.choices[i].finish]++;
    measure(c);
    reply_close(&c->reply, &c->doc);
    end_call(c);
}

static void fail_call(Call *c, const ApiError *e) {
    c->error = *e;
    c->told_error = true;
    for (uint32_t i = 0; i < c->n_jobs; i++) engine_cancel(c->jobs[i]->task, ENGINE_ALL_CHOICES);
    sum_usage(c);
    if (c->streams) {
        reply_failed(&c->reply, e, &c->doc);
        end_call(c);
    } else {
        unlink_running(c);
        c->stream_done = true;
        release_jobs(c);
        call_fail(c);
    }
}

static void describe_end(const EngineNews *news, ApiError *e) {
    if (news->end == ENGINE_DEADLINE) {
        api_error(e, 504, "timeout_error", "request_timeout", NULL, "The request took longer than it may.");
    } else if (news->end == ENGINE_FAILED && news->err && news->err->code == E_SAMPLING) {
        api_error(e, 400, "invalid_request_error", "no_token_allowed", NULL,
                  "No token may follow: what the request forbids and what it asks for leave none.");
    } else if (news->end == ENGINE_FAILED && news->err && news->err->code == E_DEVICE) {
        api_error(e, 503, "unavailable_error", "engine_dead", NULL, "The device failed.");
        e->retry_after_s = 5;
    } else if (news->end == ENGINE_CANCELLED) {
        api_error(e, 503, "unavailable_error", "draining", NULL, "The server was told to stop.");
        e->retry_after_s = 5;
    } else {
        api_server_error(e);
    }
}

static bool is_failure(const EngineNews *n) {
    return n->end == ENGINE_DEADLINE || n->end == ENGINE_FAILED || n->end == ENGINE_CANCELLED;
}

// False: the call is over, and let go of its jobs.
static bool take_news(Call *c, Job *j, const EngineNews *news) {
    ReplyChoice *choice = &c->reply.choices[j->prompt * c->req.n + news->choice];
    if (is_failure(news) && !choice->over) {
        ApiError e;
        if (news->end == ENGINE_FAILED)
            event_log("request_failed", "%s: %s", c->request_id, news->err ? news->err->msg : "");
        describe_end(news, &e);
        fail_call(c, &e);
        return false;
    }
    if (news->n && !c->first_s) c->first_s = clock_s();
    if (news->n && !news->first && !news->choice)
        c->reply.usage.cached_tokens += engine_usage(j->task).cached_tokens;
    measure(c);
    if (!reply_news(&c->reply, choice, news, &c->doc)) engine_cancel(j->task, news->choice);
    if (!reply_over(&c->reply)) return true;
    finish_call(c);
    return false;
}

static void orphan_news(Server *s, Job *j) {
    EngineNews news;
    while (engine_news(j->task, &news)) j->n_open -= news.end != ENGINE_RUNNING;
    if (!j->n_open) free_job(s, j);
}

static void tell_progress(Call *c, const Job *j) {
    EngineProgress p;
    while (c->req.progress && engine_progress(j->task, &p)) reply_progress(&c->reply, j->prompt, &p, &c->doc);
}

static void job_news(Server *s, Job *j) {
    Call *c = j->call;
    EngineNews news;
    if (!c) {
        orphan_news(s, j);
        return;
    }
    c->prompt_logprobs[j->prompt] = engine_prompt_logprobs(j->task);
    tell_progress(c, j);
    while (engine_news(j->task, &news)) {
        tell_progress(c, j);              // the prompt's end comes before its first token
        bool orphaned = j->rules != NULL; // the job outlives the call
        j->n_open -= news.end != ENGINE_RUNNING;
        bool last = !j->n_open;
        if (take_news(c, j, &news)) continue;
        if (orphaned && !last) orphan_news(s, j);
        return;
    }
    c->last_event_s = clock_s();
    if (c->streams) stream_push(c);
}

void generate_news(Server *s) {
    for (EngineTask *t; (t = engine_next(s->sink));) job_news(s, engine_user(t));
}

// ---- time ------------------------------------------------------------------------------------------------

static void ping(Call *c, double now) {
    if (stream_unsent(c)) return;
    buf_puts(&c->doc,
             c->route->flags & ANTHROPIC ? "event: ping\ndata: {\"type\": \"ping\"}\n\n" : ": ping\n\n");
    c->last_event_s = now;
    stream_push(c);
}

// A reader that takes nothing holds no slot for long.
static bool stalled(const Call *c, double now) {
    size_t unsent = stream_unsent(c);
    return unsent > c->server->o.unsent_bytes_max ||
           (unsent && now - c->last_progress_s > c->server->o.stall_s);
}

// A stream may be stalled after the engine is done with it, too.
void generate_tick(Server *s, double now) {
    for (Conn *k = s->conns, *next; k; k = next) {
        next = k->next;
        Call *c = k->call;
        if (!c || !c->streams || c->state != CALL_SENT || c->status == 499) continue;
        if (stalled(c, now)) {
            s->counters.stalled++;
            event_log("stalled", "%s: the client does not read", c->request_id);
            generate_cancel(c);
            conn_kick(k, NULL);
        } else if (!c->stream_done && s->o.ping_s > 0 && now - c->last_event_s > s->o.ping_s) {
            ping(c, now);
        }
    }
}

void generate_cancel(Call *c) {
    if (!c->has_reply || c->stream_done) return;
    c->status = 499;
    unlink_running(c);
    c->stream_done = true;
    sum_usage(c);
    release_jobs(c);
}

void generate_abort(Server *s, const ApiError *e) {
    for (Call *c = s->running, *next; c; c = next) {
        next = c->next_run;
        fail_call(c, e);
    }
}

void generate_free(Call *c) {
    rules_drop(c->rules);
    if (!c->has_reply) return;
    if (!c->stream_done) generate_cancel(c);
    reply_end(&c->reply);
}
