// The Responses API: output items, whole or as typed events.
#include "runtime/server/reply.h"

static void usage(const Reply *r, StrBuf *out) {
    const ReplyUsage *u = &r->usage;
    typedef unsigned long long ull;
    buf_printf(out,
               "{\"input_tokens\": %llu, \"input_tokens_details\": {\"cached_tokens\": %llu}, "
               "\"output_tokens\": %llu, "
               "\"output_tokens_details\": {\"reasoning_tokens\": %llu}, \"total_tokens\": %llu}",
               (ull)u->prompt_tokens, (ull)u->cached_tokens, (ull)u->tokens, (ull)u->reasoning_tokens,
               (ull)(u->prompt_tokens + u->tokens));
}

// ---- items -----------------------------------------------------------------------------------------------

static void item_id(const Reply *r, const char *kind, uint32_t index, StrBuf *out) {
    buf_printf(out, "\"id\": \"%s_%s%u\"", kind, r->id + sizeof "resp_" - 1, index);
}

static void text_part(Str text, StrBuf *out) {
    buf_puts(out, "{\"type\": \"output_text\", \"text\": ");
    json_write_string(out, text);
    buf_puts(out, ", \"annotations\": [], \"logprobs\": []}");
}

static void message_item(const Reply *r, uint32_t index, const char *status, const Str *text, StrBuf *out) {
    buf_putc(out, '{');
    item_id(r, "msg", index, out);
    buf_printf(out, ", \"type\": \"message\", \"status\": \"%s\", \"role\": \"assistant\", \"content\": [",
               status);
    if (text) text_part(*text, out);
    buf_puts(out, "]}");
}

static void reasoning_item(const Reply *r, uint32_t index, const char *status, const Str *text, StrBuf *out) {
    buf_putc(out, '{');
    item_id(r, "rs", index, out);
    buf_printf(out, ", \"type\": \"reasoning\", \"status\": \"%s\", \"summary\": [], \"content\": [", status);
    if (text) {
        buf_puts(out, "{\"type\": \"reasoning_text\", \"text\": ");
        json_write_string(out, *text);
        buf_putc(out, '}');
    }
    buf_puts(out, "]}");
}

static void call_item(const Reply *r, uint32_t index, const char *status, const ReplyCall *call,
                      bool arguments, StrBuf *out) {
    buf_putc(out, '{');
    item_id(r, "fc", index, out);
    buf_printf(out,
               ", \"type\": \"function_call\", \"status\": \"%s\", \"call_id\": \"%s\", \"name\": ", status,
               call->id);
    json_write_string(out, buf_view(&call->name));
    reply_key(out, "arguments");
    json_write_string(out, arguments ? buf_view(&call->arguments) : STR(""));
    buf_putc(out, '}');
}

static bool incomplete(const ReplyChoice *c) { return c->finish == FINISH_LENGTH; }
static const char *status_of(const ReplyChoice *c) { return incomplete(c) ? "incomplete" : "completed"; }

// Reasoning, text, calls: the order in which they come.
static void items(const Reply *r, const ReplyChoice *c, StrBuf *out) {
    uint32_t n = 0;
    Str text = buf_view(&c->text), reasoning = buf_view(&c->reasoning);
    buf_putc(out, '[');
    if (reasoning.len) reasoning_item(r, n++, status_of(c), &reasoning, out);
    if (text.len || !c->n_calls) {
        if (n) buf_puts(out, ", ");
        message_item(r, n++, status_of(c), &text, out);
    }
    for (uint32_t i = 0; i < c->n_calls; i++) {
        if (n) buf_puts(out, ", ");
        call_item(r, n++, c->calls[i].whole ? "completed" : "incomplete", &c->calls[i], true, out);
    }
    buf_putc(out, ']');
}

// ---- the response object ----------------------------------------------------------------------------------

static void tools(const Reply *r, StrBuf *out) {
    static const char *const choices[] = {"none", "auto", "required", "required"};
    buf_printf(out, ", \"parallel_tool_calls\": %s, \"tool_choice\": \"%s\", \"tools\": []",
               r->req->parallel_tools ? "true" : "false", choices[r->req->tool_choice]);
}

static void response(const Reply *r, const char *status, const ApiError *e, StrBuf *out) {
    const ReplyChoice *c = &r->choices[0];
    bool done = !strcmp(status, "completed") || !strcmp(status, "incomplete");
    buf_printf(
        out,
        "{\"id\": \"%s\", \"object\": \"response\", \"created_at\": %lld, \"status\": \"%s\", \"model\": ",
        r->id, (long long)r->created, status);
    json_write_string(out, r->req->model);
    reply_key(out, "error");
    if (e) {
        buf_puts(out, "{\"code\": \"server_error\", \"message\": ");
        json_write_string(out, str_of(e->message));
        buf_putc(out, '}');
    } else {
        buf_puts(out, "null");
    }
    buf_puts(out, done && incomplete(c) ? ", \"incomplete_details\": {\"reason\": \"max_output_tokens\"}"
                                        : ", \"incomplete_details\": null");
    buf_printf(out,
               ", \"instructions\": null, \"metadata\": {}, \"max_output_tokens\": %u, \"temperature\": %g, "
               "\"top_p\": %g, "
               "\"previous_response_id\": null, \"store\": false",
               r->req->max_tokens, (double)r->req->sampling.temperature, (double)r->req->sampling.top_p);
    tools(r, out);
    reply_key(out, "output");
    if (done)
        items(r, c, out);
    else
        buf_puts(out, "[]");
    reply_key(out, "usage");
    if (done)
        usage(r, out);
    else
        buf_puts(out, "null");
    buf_putc(out, '}');
}

// ---- events ----------------------------------------------------------------------------------------------

static void event(Reply *r, StrBuf *out, const char *name) {
    buf_printf(out, "event: %s\ndata: {\"type\": \"%s\", \"sequence_number\": %u", name, name, r->sequence++);
}
static void event_end(StrBuf *out) { buf_puts(out, "}\n\n"); }

static void response_event(Reply *r, const char *name, const char *status, const ApiError *e, StrBuf *out) {
    event(r, out, name);
    reply_key(out, "response");
    response(r, status, e, out);
    event_end(out);
}

static void begin(Reply *r, StrBuf *out) {
    response_event(r, "response.created", "in_progress", NULL, out);
    response_event(r, "response.in_progress", "in_progress", NULL, out);
}

static const char *item_kind(PartKind kind) {
    return kind == PART_TEXT ? "msg" : kind == PART_REASONING ? "rs" : "fc";
}

static void place(const Reply *r, const ReplyChoice *c, StrBuf *out) {
    StrBuf id = {0};
    item_id(r, item_kind(c->block_kind), c->block, &id);
    buf_printf(out, ", \"item_" STR_FMT ", \"output_index\": %u", (int)id.len - 1, id.ptr + 1, c->block);
    buf_free(&id);
}

static void item(const Reply *r, const ReplyChoice *c, const char *status, const Str *text, StrBuf *out) {
    if (c->block_kind == PART_TEXT)
        message_item(r, c->block, status, text, out);
    else if (c->block_kind == PART_REASONING)
        reasoning_item(r, c->block, status, text, out);
    else
        call_item(r, c->block, status, &c->calls[c->n_calls - 1], text != NULL, out);
}

static void text_done(Reply *r, ReplyChoice *c, StrBuf *out) {
    Str text = buf_view(c->block_kind == PART_TEXT ? &c->text : &c->reasoning);
    bool visible = c->block_kind == PART_TEXT;
    event(r, out, visible ? "response.output_text.done" : "response.reasoning_text.done");
    place(r, c, out);
    buf_puts(out, ", \"content_index\": 0, \"text\": ");
    json_write_string(out, text);
    if (visible) buf_puts(out, ", \"logprobs\": []");
    event_end(out);
    if (!visible) return;
    event(r, out, "response.content_part.done");
    place(r, c, out);
    buf_puts(out, ", \"content_index\": 0, \"part\": ");
    text_part(text, out);
    event_end(out);
}

static void item_done(Reply *r, ReplyChoice *c, StrBuf *out) {
    if (!c->block_open) return;
    c->block_open = false;
    Str text = buf_view(c->block_kind == PART_TEXT ? &c->text : &c->reasoning);
    if (c->block_kind == PART_CALL) {
        event(r, out, "response.function_call_arguments.done");
        place(r, c, out);
        buf_puts(out, ", \"name\": ");
        json_write_string(out, buf_view(&c->calls[c->n_calls - 1].name));
        buf_puts(out, ", \"arguments\": ");
        json_write_string(out, buf_view(&c->calls[c->n_calls - 1].arguments));
        event_end(out);
    } else {
        text_done(r, c, out);
    }
    event(r, out, "response.output_item.done");
    buf_printf(out, ", \"output_index\": %u, \"item\": ", c->block);
    item(r, c, "completed", &text, out);
    event_end(out);
    c->block++;
}

static void item_added(Reply *r, ReplyChoice *c, PartKind kind, StrBuf *out) {
    item_done(r, c, out);
    c->block_open = true, c->block_kind = kind;
    event(r, out, "response.output_item.added");
    buf_printf(out, ", \"output_index\": %u, \"item\": ", c->block);
    item(r, c, "in_progress", NULL, out);
    event_end(out);
    if (kind != PART_TEXT) return;
    event(r, out, "response.content_part.added");
    place(r, c, out);
    buf_puts(out, ", \"content_index\": 0, \"part\": ");
    text_part(STR(""), out);
    event_end(out);
}

static void part(Reply *r, ReplyChoice *c, PartKind kind, Str text, StrBuf *out) {
    if (kind == PART_CALL_END) {
        item_done(r, c, out);
        return;
    }
    PartKind block = kind == PART_ARGUMENTS ? PART_CALL : kind;
    if (kind == PART_CALL || !c->block_open || c->block_kind != block) item_added(r, c, block, out);
    if (kind == PART_CALL) return;
    event(r, out,
          kind == PART_TEXT        ? "response.output_text.delta"
          : kind == PART_REASONING ? "response.reasoning_text.delta"
                                   : "response.function_call_arguments.delta");
    place(r, c, out);
    if (kind != PART_ARGUMENTS) buf_puts(out, ", \"content_index\": 0");
    reply_key(out, "delta");
    json_write_string(out, text);
    if (kind == PART_TEXT) buf_puts(out, ", \"logprobs\": []");
    event_end(out);
}

static void choice_end(Reply *r, ReplyChoice *c, StrBuf *out) {
    if (!c->block && !c->block_open) item_added(r, c, PART_TEXT, out); // an empty answer is a message, too
    item_done(r, c, out);
}

static void end(Reply *r, StrBuf *out) {
    bool cut = incomplete(&r->choices[0]);
    response_event(r, cut ? "response.incomplete" : "response.completed", cut ? "incomplete" : "completed",
                   NULL, out);
}

static void failed(Reply *r, const ApiError *e, StrBuf *out) {
    response_event(r, "response.failed", "failed", e, out);
}

static void whole(Reply *r, StrBuf *out) { response(r, status_of(&r->choices[0]), NULL, out); }

const ReplyForm reply_responses = {"text/event-stream", begin, part, choice_end, end, failed, whole};
