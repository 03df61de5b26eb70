// text_completion: whole, and as a stream of objects of the same kind.
#include "runtime/server/reply.h"

static void head(const Reply *r, StrBuf *out) {
    buf_printf(out, "{\"id\": \"%s\", \"object\": \"text_completion\", \"created\": %lld, \"model\": ", r->id,
               (long long)r->created);
    json_write_string(out, r->req->model);
    reply_fingerprint(r, out);
}

static void prompt_text(const Reply *r, const ReplyChoice *c, StrBuf *out) {
    const ApiPrompt *p = &r->req->prompts[c->prompt];
    if (p->text.len)
        buf_str(out, p->text);
    else
        tokenizer_decode(r->model->tok, p->ids, p->n, false, out);
}

static void choice(Reply *r, ReplyChoice *c, Str text, uint32_t first, bool echo, StrBuf *out) {
    buf_printf(out, "{\"index\": %u, \"text\": ", c->index);
    json_write_string(out, text);
    reply_key(out, "logprobs");
    if (r->req->sampling.logprobs)
        reply_completion_logprobs(c, first, c->n_ids - first, echo, out);
    else
        buf_puts(out, "null");
    if (r->req->return_ids) {
        reply_key(out, "token_ids");
        reply_ids(out, c->ids ? c->ids + first : NULL, c->n_ids - first);
    }
    if (r->req->return_ids && !c->told_prompt) {
        reply_key(out, "prompt_token_ids");
        reply_ids(out, (const int32_t *)r->req->prompts[c->prompt].ids, r->req->prompts[c->prompt].n);
    }
    c->told_prompt = true;
    if (!r->req->stream) reply_prompt_logprobs(r, c->prompt, out);
    c->n_told = c->n_ids;
    if (c->over) {
        buf_printf(out, ", \"finish_reason\": \"%s\", \"stop_reason\": ", reply_finish_name(c));
        reply_stop_reason(c, out);
        buf_putc(out, '}');
    } else {
        buf_puts(out, ", \"finish_reason\": null}");
    }
}

static void event(Reply *r, ReplyChoice *c, Str text, bool echo, StrBuf *out) {
    buf_puts(out, "data: ");
    head(r, out);
    buf_puts(out, ", \"choices\": [");
    choice(r, c, text, c->n_told, echo, out);
    buf_putc(out, ']');
    reply_usage_so_far(r, c, out);
    reply_timings(r, out);
    buf_puts(out, "}\n\n");
}

static void progress(Reply *r, ReplyChoice *c, const EngineProgress *p, StrBuf *out) {
    buf_puts(out, "data: ");
    head(r, out);
    buf_printf(
        out, ", \"choices\": [{\"index\": %u, \"text\": \"\", \"logprobs\": null, \"finish_reason\": null}]",
        c->index);
    reply_usage_so_far(r, c, out);
    reply_prompt_progress(p, out);
    buf_puts(out, "}\n\n");
}

static void begin(Reply *r, StrBuf *out) { (void)r, (void)out; }

// The prompt is echoed with the first news, which has its log probabilities.
static void echo_prompt(Reply *r, ReplyChoice *c, StrBuf *out) {
    if (!r->req->echo || c->block_open) return;
    StrBuf text = {0};
    uint32_t n_ids = c->n_ids;
    bool over = c->over;
    c->block_open = true;
    prompt_text(r, c, &text);
    c->n_ids = c->n_told, c->over = false;
    event(r, c, buf_view(&text), true, out);
    c->n_ids = n_ids, c->over = over;
    buf_free(&text);
}

static void part(Reply *r, ReplyChoice *c, PartKind kind, Str text, StrBuf *out) {
    (void)kind;
    echo_prompt(r, c, out);
    event(r, c, text, false, out);
}

static void choice_end(Reply *r, ReplyChoice *c, StrBuf *out) {
    echo_prompt(r, c, out);
    event(r, c, buf_view(&c->run), false, out);
}

static void end(Reply *r, StrBuf *out) {
    if (r->req->include_usage) {
        buf_puts(out, "data: ");
        head(r, out);
    }
    reply_openai_end(r, out);
}

static void whole(Reply *r, StrBuf *out) {
    head(r, out);
    buf_puts(out, ", \"choices\": [");
    for (uint32_t i = 0; i < r->n_choices; i++) {
        ReplyChoice *c = &r->choices[i];
        StrBuf text = {0};
        if (r->req->echo) prompt_text(r, c, &text);
        buf_str(&text, buf_view(&c->text));
        if (i) buf_puts(out, ", ");
        choice(r, c, buf_view(&text), 0, r->req->echo, out);
        buf_free(&text);
    }
    buf_puts(out, "], \"usage\": ");
    reply_usage(out, &r->usage);
    reply_timings(r, out);
    buf_putc(out, '}');
}

const ReplyForm reply_completions = {"text/event-stream", begin, part,    choice_end, end,
                                     reply_openai_failed, whole, progress};
