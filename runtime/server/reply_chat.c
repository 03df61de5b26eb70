// chat.completion and its chunks.
#include "runtime/server/reply.h"

static void head(const Reply *r, const char *object, StrBuf *out) {
    buf_printf(out, "{\"id\": \"%s\", \"object\": \"%s\", \"created\": %lld, \"model\": ", r->id, object,
               (long long)r->created);
    json_write_string(out, r->req->model);
    reply_fingerprint(r, out);
}

static void chunk_begin(const Reply *r, uint32_t index, StrBuf *out) {
    buf_puts(out, "data: ");
    head(r, "chat.completion.chunk", out);
    buf_printf(out, ", \"choices\": [{\"index\": %u, \"delta\": {", index);
}

// With the first chunk, and with the whole.
static void prompt_ids(Reply *r, StrBuf *out) {
    if (!r->req->return_ids || r->choices[0].told_prompt) return;
    r->choices[0].told_prompt = true;
    reply_key(out, "prompt_token_ids");
    reply_ids(out, (const int32_t *)r->req->prompts[0].ids, r->req->prompts[0].n);
}

static void chunk_end(Reply *r, ReplyChoice *c, bool last, StrBuf *out) {
    bool logprobs = r->req->sampling.logprobs && c->n_told < c->n_ids;
    buf_puts(out, "}, \"logprobs\": ");
    if (logprobs)
        reply_chat_logprobs(c, c->n_told, c->n_ids - c->n_told, out);
    else
        buf_puts(out, "null");
    if (r->req->return_ids) {
        reply_key(out, "token_ids");
        reply_ids(out, c->ids ? c->ids + c->n_told : NULL, c->n_ids - c->n_told);
    }
    c->n_told = c->n_ids;
    if (last) {
        buf_printf(out, ", \"finish_reason\": \"%s\", \"stop_reason\": ", reply_finish_name(c));
        reply_stop_reason(c, out);
    } else {
        buf_puts(out, ", \"finish_reason\": null");
    }
    buf_puts(out, "}]");
    prompt_ids(r, out);
    reply_usage_so_far(r, c, out);
    reply_timings(r, out);
    buf_puts(out, "}\n\n");
}

static void progress(Reply *r, ReplyChoice *c, const EngineProgress *p, StrBuf *out) {
    chunk_begin(r, c->index, out);
    buf_puts(out, "}, \"logprobs\": null, \"finish_reason\": null}]");
    reply_usage_so_far(r, c, out);
    reply_prompt_progress(p, out);
    buf_puts(out, "}\n\n");
}

static void begin(Reply *r, StrBuf *out) {
    for (uint32_t i = 0; i < r->n_choices; i++) {
        chunk_begin(r, i, out);
        buf_puts(out, "\"role\": \"assistant\", \"content\": ");
        json_write_string(out, r->req->echoed);
        chunk_end(r, &r->choices[i], false, out);
    }
}

static void delta(const Reply *r, const ReplyChoice *c, PartKind kind, Str text, StrBuf *out) {
    uint32_t call = c->n_calls ? c->n_calls - 1 : 0;
    char id[40];
    switch (kind) {
    case PART_TEXT:
        buf_puts(out, "\"content\": ");
        json_write_string(out, text);
        break;
    case PART_REASONING:
        buf_puts(out, "\"reasoning_content\": ");
        json_write_string(out, text);
        buf_puts(out, ", \"reasoning\": ");
        json_write_string(out, text);
        break;
    case PART_CALL:
        reply_call_id(r, c->index, call, id);
        buf_printf(out,
                   "\"tool_calls\": [{\"index\": %u, \"id\": \"%s\", \"type\": \"function\", \"function\": "
                   "{\"name\": ",
                   call, id);
        json_write_string(out, text);
        buf_puts(out, ", \"arguments\": \"\"}}]");
        break;
    default:
        buf_printf(out, "\"tool_calls\": [{\"index\": %u, \"function\": {\"arguments\": ", call);
        json_write_string(out, text);
        buf_puts(out, "}}]");
    }
}

static void part(Reply *r, ReplyChoice *c, PartKind kind, Str text, StrBuf *out) {
    if (kind == PART_CALL_END || (kind == PART_REASONING && r->req->hide_reasoning)) return;
    chunk_begin(r, c->index, out);
    delta(r, c, kind, text, out);
    chunk_end(r, c, false, out);
}

static void choice_end(Reply *r, ReplyChoice *c, StrBuf *out) {
    chunk_begin(r, c->index, out);
    chunk_end(r, c, true, out);
}

static void end(Reply *r, StrBuf *out) {
    if (r->req->include_usage) {
        buf_puts(out, "data: ");
        head(r, "chat.completion.chunk", out);
    }
    reply_openai_end(r, out);
}

static void calls(const ReplyChoice *c, StrBuf *out) {
    reply_key(out, "tool_calls");
    buf_putc(out, '[');
    for (uint32_t i = 0; i < c->n_calls; i++) {
        buf_printf(out, "%s{\"id\": \"%s\", \"type\": \"function\", \"function\": {\"name\": ", i ? ", " : "",
                   c->calls[i].id);
        json_write_string(out, buf_view(&c->calls[i].name));
        buf_puts(out, ", \"arguments\": ");
        json_write_string(out, buf_view(&c->calls[i].arguments));
        buf_puts(out, "}}");
    }
    buf_putc(out, ']');
}

static void content(const ReplyChoice *c, StrBuf *out) {
    StrBuf text = {0};
    buf_str(&text, c->reply->req->echoed);
    buf_str(&text, buf_view(&c->text));
    json_write_string(out, buf_view(&text));
    buf_free(&text);
}

static void message(const ReplyChoice *c, StrBuf *out) {
    buf_puts(out, "{\"role\": \"assistant\", \"content\": ");
    if (!c->text.len && !c->reply->req->echoed.len && c->n_calls)
        buf_puts(out, "null");
    else
        content(c, out);
    buf_puts(out, ", \"refusal\": null");
    if (c->reasoning.len && !c->reply->req->hide_reasoning) {
        reply_key(out, "reasoning_content");
        json_write_string(out, buf_view(&c->reasoning));
        reply_key(out, "reasoning");
        json_write_string(out, buf_view(&c->reasoning));
    }
    if (c->n_calls) calls(c, out);
    buf_putc(out, '}');
}

static void whole(Reply *r, StrBuf *out) {
    head(r, "chat.completion", out);
    buf_puts(out, ", \"choices\": [");
    for (uint32_t i = 0; i < r->n_choices; i++) {
        const ReplyChoice *c = &r->choices[i];
        buf_printf(out, "%s{\"index\": %u, \"message\": ", i ? ", " : "", i);
        message(c, out);
        reply_key(out, "logprobs");
        if (r->req->sampling.logprobs)
            reply_chat_logprobs(c, 0, c->n_ids, out);
        else
            buf_puts(out, "null");
        buf_printf(out, ", \"finish_reason\": \"%s\", \"stop_reason\": ", reply_finish_name(c));
        reply_stop_reason(c, out);
        if (r->req->return_ids) {
            reply_key(out, "token_ids");
            reply_ids(out, c->ids, c->n_ids);
        }
        buf_putc(out, '}');
    }
    buf_puts(out, "], \"usage\": ");
    reply_usage(out, &r->usage);
    reply_timings(r, out);
    reply_prompt_logprobs(r, 0, out);
    prompt_ids(r, out);
    buf_puts(out, "}");
}

const ReplyForm reply_chat = {"text/event-stream", begin, part,    choice_end, end,
                              reply_openai_failed, whole, progress};
