// The Anthropic API: a message of blocks, whole or as events.
#include "runtime/server/reply.h"

static const char *stop_reason(const ReplyChoice *c) {
    if (c->stop_string.ptr) return "stop_sequence";
    return c->finish == FINISH_CALLS ? "tool_use" : c->finish == FINISH_LENGTH ? "max_tokens" : "end_turn";
}

static void stop_sequence(const ReplyChoice *c, StrBuf *out) {
    if (c->stop_string.ptr)
        json_write_string(out, c->stop_string);
    else
        buf_puts(out, "null");
}

static void event(StrBuf *out, const char *name) {
    buf_printf(out, "event: %s\ndata: {\"type\": \"%s\"", name, name);
}
static void event_end(StrBuf *out) { buf_puts(out, "}\n\n"); }

static void usage(const Reply *r, StrBuf *out) {
    typedef unsigned long long ull;
    buf_printf(
        out,
        "{\"input_tokens\": %llu, \"cache_creation_input_tokens\": 0, \"cache_read_input_tokens\": %llu, "
        "\"output_tokens\": %llu}",
        (ull)(r->usage.prompt_tokens - r->usage.cached_tokens), (ull)r->usage.cached_tokens,
        (ull)r->usage.tokens);
}

static void head(const Reply *r, StrBuf *out) {
    buf_printf(out, "{\"id\": \"%s\", \"type\": \"message\", \"role\": \"assistant\", \"model\": ", r->id);
    json_write_string(out, r->req->model);
}

static void begin(Reply *r, StrBuf *out) {
    event(out, "message_start");
    buf_puts(out, ", \"message\": ");
    head(r, out);
    buf_puts(out, ", \"content\": [], \"stop_reason\": null, \"stop_sequence\": null, \"usage\": ");
    usage(r, out);
    buf_puts(out, "}");
    event_end(out);
}

static void delta(const ReplyChoice *c, const char *type, const char *key, Str text, StrBuf *out) {
    event(out, "content_block_delta");
    buf_printf(out, ", \"index\": %u, \"delta\": {\"type\": \"%s\", \"%s\": ", c->block, type, key);
    json_write_string(out, text);
    buf_putc(out, '}');
    event_end(out);
}

static void block_stop(ReplyChoice *c, StrBuf *out) {
    if (!c->block_open) return;
    if (c->block_kind == PART_REASONING) delta(c, "signature_delta", "signature", STR(""), out);
    c->block_open = false;
    event(out, "content_block_stop");
    buf_printf(out, ", \"index\": %u", c->block++);
    event_end(out);
}

static void block_start(Reply *r, ReplyChoice *c, PartKind kind, Str name, StrBuf *out) {
    char id[40];
    block_stop(c, out);
    c->block_open = true, c->block_kind = kind;
    event(out, "content_block_start");
    buf_printf(out, ", \"index\": %u, \"content_block\": ", c->block);
    if (kind == PART_TEXT) {
        buf_puts(out, "{\"type\": \"text\", \"text\": \"\"}");
    } else if (kind == PART_REASONING) {
        buf_puts(out, "{\"type\": \"thinking\", \"thinking\": \"\", \"signature\": \"\"}");
    } else {
        reply_call_id(r, c->index, c->n_calls - 1, id);
        buf_printf(out, "{\"type\": \"tool_use\", \"id\": \"%s\", \"name\": ", id);
        json_write_string(out, name);
        buf_puts(out, ", \"input\": {}}");
    }
    event_end(out);
}

static void part(Reply *r, ReplyChoice *c, PartKind kind, Str text, StrBuf *out) {
    switch (kind) {
    case PART_CALL: block_start(r, c, PART_CALL, text, out); return;
    case PART_CALL_END: block_stop(c, out); return;
    case PART_ARGUMENTS: delta(c, "input_json_delta", "partial_json", text, out); return;
    default: break;
    }
    if (!c->block_open || c->block_kind != kind) block_start(r, c, kind, text, out);
    if (kind == PART_TEXT)
        delta(c, "text_delta", "text", text, out);
    else
        delta(c, "thinking_delta", "thinking", text, out);
}

static void choice_end(Reply *r, ReplyChoice *c, StrBuf *out) {
    (void)r;
    block_stop(c, out);
}

static void end(Reply *r, StrBuf *out) {
    const ReplyChoice *c = &r->choices[0];
    event(out, "message_delta");
    buf_printf(out, ", \"delta\": {\"stop_reason\": \"%s\", \"stop_sequence\": ", stop_reason(c));
    stop_sequence(c, out);
    buf_puts(out, "}, \"usage\": ");
    usage(r, out);
    event_end(out);
    event(out, "message_stop");
    event_end(out);
}

static void failed(Reply *r, const ApiError *e, StrBuf *out) {
    buf_puts(out, "event: error\ndata: ");
    api_error_write(out, e, API_STYLE_ANTHROPIC, r->request_id);
    buf_puts(out, "\n\n");
}

static void call_block(const ReplyCall *call, StrBuf *out) {
    buf_printf(out, "{\"type\": \"tool_use\", \"id\": \"%s\", \"name\": ", call->id);
    json_write_string(out, buf_view(&call->name));
    reply_key(out, "input");
    if (call->whole) // else it is not JSON: cut by max_tokens
        buf_str(out, buf_view(&call->arguments));
    else
        buf_puts(out, "{}");
    buf_putc(out, '}');
}

static void block(const ReplyChoice *c, const ReplyBlock *b, StrBuf *out) {
    if (b->kind == PART_CALL) {
        call_block(&c->calls[b->call], out);
    } else if (b->kind == PART_REASONING) {
        buf_puts(out, "{\"type\": \"thinking\", \"thinking\": ");
        json_write_string(out, str_sub(buf_view(&c->reasoning), b->from, b->to));
        buf_puts(out, ", \"signature\": \"\"}");
    } else {
        buf_puts(out, "{\"type\": \"text\", \"text\": ");
        json_write_string(out, str_sub(buf_view(&c->text), b->from, b->to));
        buf_putc(out, '}');
    }
}

static void whole(Reply *r, StrBuf *out) {
    const ReplyChoice *c = &r->choices[0];
    head(r, out);
    buf_puts(out, ", \"content\": [");
    for (uint32_t i = 0; i < c->n_blocks; i++) {
        if (i) buf_puts(out, ", ");
        block(c, &c->blocks[i], out);
    }
    buf_printf(out, "], \"stop_reason\": \"%s\", \"stop_sequence\": ", stop_reason(c));
    stop_sequence(c, out);
    buf_puts(out, ", \"usage\": ");
    usage(r, out);
    buf_putc(out, '}');
}

const ReplyForm reply_messages = {"text/event-stream", begin, part, choice_end, end, failed, whole, NULL};
