#include "runtime/server/reply.h"

#include <stdio.h>
#include <stdlib.h>

#include "runtime/base/num.h"

static const ReplyForm *form_of(ApiKind kind) {
    static const ReplyForm *const forms[] = {&reply_chat, &reply_completions, &reply_messages,
                                             &reply_responses};
    return forms[kind];
}

static const char *id_prefix(ApiKind kind) {
    static const char *const prefixes[] = {"chatcmpl-", "cmpl-", "msg_", "resp_"};
    return prefixes[kind];
}

// ---- parts -----------------------------------------------------------------------------------------------

static void flush_run(ReplyChoice *c) {
    Reply *r = c->reply;
    if (!c->run.len) return;
    if (r->req->stream) r->form->part(r, c, c->run_kind, buf_view(&c->run), r->out);
    c->run.len = 0;
}

static ReplyBlock *block_add(ReplyChoice *c, ReplyBlock b) {
    c->blocks = xrealloc(c->blocks, c->n_blocks + 1u, sizeof *c->blocks);
    c->blocks[c->n_blocks] = b;
    return &c->blocks[c->n_blocks++];
}

static void gather_text(ReplyChoice *c, PartKind kind, Str text) {
    StrBuf *all = kind == PART_TEXT ? &c->text : &c->reasoning;
    ReplyBlock *b = c->n_blocks ? &c->blocks[c->n_blocks - 1] : NULL;
    if (!b || b->kind != kind)
        b = block_add(c, (ReplyBlock){.kind = kind, .from = all->len, .first_id = c->answer.text_from});
    buf_str(all, text);
    b->to = all->len, b->end_id = c->n_ids;
}

static void gather(ReplyChoice *c, const AnswerPart *p) {
    switch (p->kind) {
    case PART_REASONING:
    case PART_TEXT: gather_text(c, p->kind, p->text); break;
    case PART_CALL:
        block_add(c, (ReplyBlock){.kind = PART_CALL, .call = c->n_calls});
        c->calls = xrealloc(c->calls, c->n_calls + 1u, sizeof *c->calls);
        c->calls[c->n_calls] = (ReplyCall){0};
        reply_call_id(c->reply, c->index, c->n_calls, c->calls[c->n_calls].id);
        buf_str(&c->calls[c->n_calls++].name, p->text);
        break;
    case PART_ARGUMENTS: buf_str(&c->calls[c->n_calls - 1].arguments, p->text); break;
    case PART_CALL_END: c->calls[c->n_calls - 1].whole = true; break;
    }
}

static void on_part(void *ctx, const AnswerPart *p) {
    ReplyChoice *c = ctx;
    Reply *r = c->reply;
    if (r->gathers) gather(c, p);
    if (!r->gathers && p->kind == PART_CALL) c->n_calls++;
    if (!r->req->stream) return;
    bool joins = p->kind != PART_CALL && p->kind != PART_CALL_END;
    if (c->run_kind != p->kind || !joins) flush_run(c);
    if (!joins) {
        r->form->part(r, c, p->kind, p->text, r->out);
        return;
    }
    c->run_kind = p->kind;
    buf_str(&c->run, p->text);
}

// ---- life ------------------------------------------------------------------------------------------------

void reply_begin(Reply *r, Arena *arena, const ApiModel *m, const ApiRequest *req, const char *hex_id,
                 Str request_id, int64_t now) {
    *r =
        (Reply){.req = req, .model = m, .form = form_of(req->kind), .created = now, .request_id = request_id};
    snprintf(r->id, sizeof r->id, "%s%s", id_prefix(req->kind), hex_id);
    r->gathers = !req->stream || req->kind == API_RESPONSES;
    r->n_choices = req->n_prompts * req->n;
    r->choices = ARENA_ARRAY(arena, ReplyChoice, r->n_choices);
    for (uint32_t i = 0; i < req->n_prompts; i++) r->usage.prompt_tokens += req->prompts[i].n;
    for (uint32_t i = 0; i < r->n_choices; i++) {
        ReplyChoice *c = &r->choices[i];
        c->reply = r, c->index = i, c->prompt = i / req->n, c->stop_id = -1;
    }
}

void reply_end(Reply *r) {
    for (uint32_t i = 0; i < r->n_choices; i++) {
        ReplyChoice *c = &r->choices[i];
        if (c->open) answer_end(&c->answer);
        for (uint32_t k = 0; r->gathers && k < c->n_calls; k++)
            buf_free(&c->calls[k].name), buf_free(&c->calls[k].arguments);
        free(c->calls), free(c->blocks);
        buf_free(&c->text), buf_free(&c->reasoning), buf_free(&c->run);
    }
}

void reply_open(Reply *r, StrBuf *out) {
    r->out = out;
    if (r->req->stream) r->form->begin(r, out);
    for (uint32_t i = 0; i < r->n_choices; i++) {
        ReplyChoice *c = &r->choices[i];
        answer_begin(&c->answer, r->req, r->model->tok, on_part, c);
        c->open = true;
    }
}

void reply_progress(Reply *r, uint32_t prompt, const EngineProgress *p, StrBuf *out) {
    if (r->form->progress) r->form->progress(r, &r->choices[prompt * r->req->n], p, out);
}

static bool is_model_eos(const ApiRequest *req, int32_t id) {
    for (uint32_t i = 0; i < req->n_model_eos; i++)
        if (req->eos_ids[i] == id) return true;
    return false;
}

static void take_tokens(ReplyChoice *c, const EngineNews *news) {
    const ApiRequest *req = c->reply->req;
    uint32_t n = news->n;
    if (n && !c->ids)
        c->ids = news->ids - news->first, c->logprobs = news->logprobs ? news->logprobs - news->first : NULL;
    for (uint32_t i = 0; i < n && !c->cancelled; i++) {
        bool stop_id = news->end == ENGINE_STOP && i + 1 == n;
        c->n_tokens++;
        if (stop_id && !is_model_eos(req, news->ids[i])) c->stop_id = news->ids[i];
        if (stop_id && !req->include_stop) break;
        c->n_ids++;
        c->cancelled = !answer_push(&c->answer, (uint32_t)news->ids[i]);
        if (req->sampling.logprobs) flush_run(c);
    }
}

static ReplyFinish finish_of(const ReplyChoice *c, EngineEnd end) {
    bool cut = end == ENGINE_LENGTH || end == ENGINE_CONTEXT;
    if ((cut || end == ENGINE_PROMPT) && !c->cancelled) return FINISH_LENGTH;
    return answer_made_calls(&c->answer) ? FINISH_CALLS : FINISH_STOP;
}

bool reply_news(Reply *r, ReplyChoice *c, const EngineNews *news, StrBuf *out) {
    r->out = out;
    if (c->over) return true;
    bool before = c->cancelled;
    take_tokens(c, news);
    bool ends = c->cancelled || news->end != ENGINE_RUNNING;
    if (ends) {
        answer_finish(&c->answer);
        c->finish = finish_of(c, news->end);
        if (c->answer.stopped) c->stop_string = c->answer.stop.strings[c->answer.stop.which];
    }
    // The end of a completion has the last text; other ends have none. The usage so far is without this
    // choice.
    bool kept = ends && r->req->stream && r->req->kind == API_COMPLETIONS;
    if (!kept) flush_run(c);
    if (ends) {
        r->usage.tokens += c->n_tokens;
        r->usage.reasoning_tokens += c->answer.n_reasoning_tokens;
        c->over = true;
        r->n_over++;
        if (r->req->stream) r->form->choice_end(r, c, out);
        c->run.len = 0;
    }
    return !(c->cancelled && !before && news->end == ENGINE_RUNNING);
}

void reply_close(Reply *r, StrBuf *out) {
    r->out = out;
    if (r->req->stream)
        r->form->end(r, out);
    else
        r->form->whole(r, out);
}

void reply_failed(Reply *r, const ApiError *e, StrBuf *out) { r->form->failed(r, e, out); }

// ---- for the forms ---------------------------------------------------------------------------------------

const char *reply_finish_name(const ReplyChoice *c) {
    static const char *const names[] = {"stop", "stop", "length", "tool_calls"};
    return names[c->finish];
}

void reply_key(StrBuf *out, const char *key) { buf_printf(out, ", \"%s\": ", key); }

void reply_usage(StrBuf *out, const ReplyUsage *u) {
    typedef unsigned long long ull;
    buf_printf(out,
               "{\"prompt_tokens\": %llu, \"completion_tokens\": %llu, \"total_tokens\": %llu, "
               "\"prompt_tokens_details\": {\"cached_tokens\": %llu}, \"completion_tokens_details\": "
               "{\"reasoning_tokens\": %llu}}",
               (ull)u->prompt_tokens, (ull)u->tokens, (ull)(u->prompt_tokens + u->tokens),
               (ull)u->cached_tokens, (ull)u->reasoning_tokens);
}

void reply_fingerprint(const Reply *r, StrBuf *out) {
    reply_key(out, "system_fingerprint");
    if (r->model->fingerprint)
        json_write_string(out, str_of(r->model->fingerprint));
    else
        buf_puts(out, "null");
}

static uint64_t tokens_so_far(const Reply *r) {
    uint64_t n = r->usage.tokens;
    for (uint32_t i = 0; i < r->n_choices; i++)
        if (!r->choices[i].over) n += r->choices[i].n_tokens;
    return n;
}

void reply_timings(const Reply *r, StrBuf *out) {
    if (!r->req->timings) return;
    const ReplyUsage *u = &r->usage;
    const double n = (double)(u->prompt_tokens - u->cached_tokens), m = (double)tokens_so_far(r);
    if (r->req->stream && m == 0) return;
    buf_printf(out,
               ", \"timings\": {\"cache_n\": %llu, \"prompt_n\": %.0f, \"prompt_ms\": %.3f, "
               "\"prompt_per_token_ms\": %.3f, \"prompt_per_second\": %.3f, \"predicted_n\": %.0f, "
               "\"predicted_ms\": %.3f, \"predicted_per_token_ms\": %.3f, \"predicted_per_second\": %.3f}",
               (unsigned long long)u->cached_tokens, n, r->prompt_s * 1e3, n > 0 ? r->prompt_s * 1e3 / n : 0,
               r->prompt_s > 0 ? n / r->prompt_s : 0, m, r->predicted_s * 1e3,
               m > 0 ? r->predicted_s * 1e3 / m : 0,
               m > 1 && r->predicted_s > 0 ? m / r->predicted_s : 0); // the first one took no time
}

void reply_prompt_progress(const EngineProgress *p, StrBuf *out) {
    buf_printf(out,
               ", \"prompt_progress\": {\"total\": %u, \"cache\": %u, \"processed\": %u, \"time_ms\": %.0f}",
               p->total, p->cached, p->computed, p->seconds * 1e3);
}

void reply_ids(StrBuf *out, const int32_t *ids, uint32_t n) {
    buf_putc(out, '[');
    for (uint32_t i = 0; i < n; i++) buf_printf(out, i ? ", %d" : "%d", ids[i]);
    buf_putc(out, ']');
}

void reply_call_id(const Reply *r, uint32_t choice, uint32_t call, char out[40]) {
    const char *hex = strpbrk(r->id, "-_") + 1;
    snprintf(out, 40, "%s_%.20s%x%x", r->req->kind == API_MESSAGES ? "toolu" : "call", hex, choice, call);
}

void reply_stop_reason(const ReplyChoice *c, StrBuf *out) {
    if (c->stop_string.ptr)
        json_write_string(out, c->stop_string);
    else if (c->stop_id >= 0)
        buf_printf(out, "%d", c->stop_id);
    else
        buf_puts(out, "null");
}

void reply_usage_so_far(const Reply *r, const ReplyChoice *c, StrBuf *out) {
    if (!r->req->usage_in_each) return;
    ReplyUsage u = r->usage;
    if (!c->over) u.tokens += c->n_tokens;
    reply_key(out, "usage");
    reply_usage(out, &u);
}

void reply_openai_end(const Reply *r, StrBuf *out) {
    if (r->req->include_usage) {
        buf_puts(out, ", \"choices\": [], \"usage\": ");
        reply_usage(out, &r->usage);
        reply_timings(r, out);
        buf_puts(out, "}\n\n");
    }
    buf_puts(out, "data: [DONE]\n\n");
}

void reply_openai_failed(Reply *r, const ApiError *e, StrBuf *out) {
    buf_puts(out, "data: ");
    api_error_write(out, e, API_STYLE_OPENAI, r->request_id);
    buf_puts(out, "\n\ndata: [DONE]\n\n");
}
