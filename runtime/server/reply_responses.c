// The Responses API: output items, whole or as typed events.
#include "runtime/base/num.h"
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

static const ReplyBlock nothing = {.kind = PART_TEXT};

// An answer without any is a message, too.
static const ReplyBlock *block_at(const ReplyChoice *c, uint32_t index) {
    return index < c->n_blocks ? &c->blocks[index] : &nothing;
}

static Str text_of(const ReplyChoice *c, const ReplyBlock *b) {
    return str_sub(buf_view(b->kind == PART_TEXT ? &c->text : &c->reasoning), b->from, b->to);
}

// Those of the block's tokens from `first` on.
static void logprobs(const ReplyChoice *c, const ReplyBlock *b, uint32_t first, StrBuf *out) {
    reply_key(out, "logprobs");
    first = MAX(first, b->first_id);
    if (c->reply->req->sampling.logprobs && b->end_id > first)
        reply_token_logprobs(c, first, b->end_id - first, out);
    else
        buf_puts(out, "[]");
}

static void text_part(const ReplyChoice *c, const ReplyBlock *b, StrBuf *out) {
    buf_puts(out, "{\"type\": \"output_text\", \"text\": ");
    json_write_string(out, text_of(c, b));
    buf_puts(out, ", \"annotations\": []");
    logprobs(c, b, 0, out);
    buf_putc(out, '}');
}

static void message_item(const ReplyChoice *c, uint32_t index, const char *status, bool begun, StrBuf *out) {
    buf_putc(out, '{');
    item_id(c->reply, "msg", index, out);
    buf_printf(out, ", \"type\": \"message\", \"status\": \"%s\", \"role\": \"assistant\", \"content\": [",
               status);
    if (!begun) text_part(c, block_at(c, index), out);
    buf_puts(out, "]}");
}

static void reasoning_item(const ReplyChoice *c, uint32_t index, const char *status, bool begun,
                           StrBuf *out) {
    buf_putc(out, '{');
    item_id(c->reply, "rs", index, out);
    buf_printf(out, ", \"type\": \"reasoning\", \"status\": \"%s\", \"summary\": [], \"content\": [", status);
    if (!begun) {
        buf_puts(out, "{\"type\": \"reasoning_text\", \"text\": ");
        json_write_string(out, text_of(c, block_at(c, index)));
        buf_putc(out, '}');
    }
    buf_puts(out, "]}");
}

static const ReplyCall *call_at(const ReplyChoice *c, uint32_t index) {
    return &c->calls[block_at(c, index)->call];
}

static void call_item(const ReplyChoice *c, uint32_t index, const char *status, bool begun, StrBuf *out) {
    const ReplyCall *call = call_at(c, index);
    buf_putc(out, '{');
    item_id(c->reply, "fc", index, out);
    buf_printf(out,
               ", \"type\": \"function_call\", \"status\": \"%s\", \"call_id\": \"%s\", \"name\": ", status,
               call->id);
    json_write_string(out, buf_view(&call->name));
    reply_key(out, "arguments");
    json_write_string(out, begun ? STR("") : buf_view(&call->arguments));
    buf_putc(out, '}');
}

// begun: without what it will hold.
static void item(const ReplyChoice *c, uint32_t index, const char *status, bool begun, StrBuf *out) {
    const PartKind kind = block_at(c, index)->kind;
    if (kind == PART_TEXT)
        message_item(c, index, status, begun, out);
    else if (kind == PART_REASONING)
        reasoning_item(c, index, status, begun, out);
    else
        call_item(c, index, status, begun, out);
}

static bool incomplete(const ReplyChoice *c) { return c->finish == FINISH_LENGTH; }
static const char *status_of(const ReplyChoice *c) { return incomplete(c) ? "incomplete" : "completed"; }

static void items(const ReplyChoice *c, StrBuf *out) {
    buf_putc(out, '[');
    for (uint32_t i = 0; i < MAX(c->n_blocks, 1u); i++) {
        const bool cut = block_at(c, i)->kind == PART_CALL ? !call_at(c, i)->whole : incomplete(c);
        if (i) buf_puts(out, ", ");
        item(c, i, cut ? "incomplete" : "completed", false, out);
    }
    buf_putc(out, ']');
}

// ---- the response object ----------------------------------------------------------------------------------

static void tools(const Reply *r, StrBuf *out) {
    static const char *const choices[] = {"none", "auto", "required", "required"};
    buf_printf(out, ", \"parallel_tool_calls\": %s, \"tool_choice\": \"%s\", \"tools\": []",
               r->req->parallel_tools ? "true" : "false", choices[r->req->tool_choice]);
}

static void raw_message(const Reply *r, const char *key, const int32_t *ids, uint32_t n, StrBuf *out) {
    StrBuf text = {0};
    tokenizer_decode(r->model->tok, (const uint32_t *)ids, n, false, &text);
    reply_key(out, key);
    buf_puts(out, "[{\"type\": \"raw_message_tokens\", \"message\": ");
    json_write_string(out, buf_view(&text));
    reply_key(out, "tokens");
    reply_ids(out, ids, n);
    buf_puts(out, "}]");
    buf_free(&text);
}

// Prompt and answer as the model had them, on demand.
static void raw_messages(const Reply *r, StrBuf *out) {
    const ApiPrompt *p = &r->req->prompts[0];
    if (!r->req->return_ids) return;
    raw_message(r, "input_messages", (const int32_t *)p->ids, p->n, out);
    raw_message(r, "output_messages", r->choices[0].ids, r->choices[0].n_ids, out);
}

// Without its last brace.
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
               "\"top_p\": %g, \"top_logprobs\": %u, "
               "\"previous_response_id\": null, \"store\": false",
               r->req->max_tokens, (double)r->req->sampling.temperature, (double)r->req->sampling.top_p,
               r->req->sampling.top_logprobs);
    tools(r, out);
    reply_key(out, "output");
    if (done)
        items(c, out);
    else
        buf_puts(out, "[]");
    reply_key(out, "usage");
    if (done)
        usage(r, out), raw_messages(r, out);
    else
        buf_puts(out, "null");
}

// ---- events ----------------------------------------------------------------------------------------------

static void event(Reply *r, StrBuf *out, const char *name) {
    buf_printf(out, "event: %s\ndata: {\"type\": \"%s\", \"sequence_number\": %u", name, name, r->sequence++);
}
static void event_end(StrBuf *out) { buf_puts(out, "}\n\n"); }

static void response_begin(Reply *r, const char *name, const char *status, const ApiError *e, StrBuf *out) {
    event(r, out, name);
    reply_key(out, "response");
    response(r, status, e, out);
    buf_putc(out, '}');
}

static void response_event(Reply *r, const char *name, const char *status, const ApiError *e, StrBuf *out) {
    response_begin(r, name, status, e, out);
    event_end(out);
}

static void progress(Reply *r, ReplyChoice *c, const EngineProgress *p, StrBuf *out) {
    (void)c;
    response_begin(r, "response.in_progress", "in_progress", NULL, out);
    reply_prompt_progress(p, out);
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

static void text_done(Reply *r, ReplyChoice *c, StrBuf *out) {
    const ReplyBlock *b = block_at(c, c->block);
    bool visible = c->block_kind == PART_TEXT;
    event(r, out, visible ? "response.output_text.done" : "response.reasoning_text.done");
    place(r, c, out);
    buf_puts(out, ", \"content_index\": 0, \"text\": ");
    json_write_string(out, text_of(c, b));
    if (visible) logprobs(c, b, 0, out);
    event_end(out);
    if (!visible) return;
    event(r, out, "response.content_part.done");
    place(r, c, out);
    buf_puts(out, ", \"content_index\": 0, \"part\": ");
    text_part(c, b, out);
    event_end(out);
}

static void item_done(Reply *r, ReplyChoice *c, StrBuf *out) {
    if (!c->block_open) return;
    c->block_open = false;
    if (c->block_kind == PART_CALL) {
        event(r, out, "response.function_call_arguments.done");
        place(r, c, out);
        buf_puts(out, ", \"name\": ");
        json_write_string(out, buf_view(&call_at(c, c->block)->name));
        buf_puts(out, ", \"arguments\": ");
        json_write_string(out, buf_view(&call_at(c, c->block)->arguments));
        event_end(out);
    } else {
        text_done(r, c, out);
    }
    event(r, out, "response.output_item.done");
    buf_printf(out, ", \"output_index\": %u, \"item\": ", c->block);
    item(c, c->block, "completed", false, out);
    event_end(out);
    c->block++;
}

static void item_added(Reply *r, ReplyChoice *c, PartKind kind, StrBuf *out) {
    item_done(r, c, out);
    c->block_open = true, c->block_kind = kind;
    event(r, out, "response.output_item.added");
    buf_printf(out, ", \"output_index\": %u, \"item\": ", c->block);
    item(c, c->block, "in_progress", true, out);
    event_end(out);
    if (kind != PART_TEXT) return;
    event(r, out, "response.content_part.added");
    place(r, c, out);
    buf_puts(out, ", \"content_index\": 0, \"part\": ");
    text_part(c, &nothing, out);
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
    if (kind == PART_TEXT) logprobs(c, block_at(c, c->block), c->n_told, out);
    c->n_told = c->n_ids;
    reply_timings(r, out);
    event_end(out);
}

static void choice_end(Reply *r, ReplyChoice *c, StrBuf *out) {
    if (!c->block && !c->block_open) item_added(r, c, PART_TEXT, out); // an empty answer is a message, too
    item_done(r, c, out);
}

static void end(Reply *r, StrBuf *out) {
    const char *status = status_of(&r->choices[0]);
    response_begin(r, incomplete(&r->choices[0]) ? "response.incomplete" : "response.completed", status, NULL,
                   out);
    reply_timings(r, out);
    event_end(out);
}

static void failed(Reply *r, const ApiError *e, StrBuf *out) {
    response_event(r, "response.failed", "failed", e, out);
}

static void whole(Reply *r, StrBuf *out) {
    response(r, status_of(&r->choices[0]), NULL, out);
    reply_timings(r, out);
    buf_putc(out, '}');
}

const ReplyForm reply_responses = {
    "text/event-stream", begin, part, choice_end, end, failed, whole, progress};
