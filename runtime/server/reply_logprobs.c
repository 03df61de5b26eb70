// Log probabilities, as chats, responses and completions tell them.
#include <math.h>

#include "runtime/base/num.h"
#include "runtime/server/reply.h"

// What the token adds to the text; U+FFFD for bytes that are no character by themselves.
static void token_text(const ReplyChoice *c, int32_t id, StrBuf *out) {
    uint32_t one = (uint32_t)id;
    tokenizer_decode(c->reply->model->tok, &one, 1, false, out);
}

// Finite, as JSON wants it.
static double json_logprob(float logprob) {
    return isfinite(logprob) ? MAX((double)logprob, -9999.0) : -9999.0;
}

// What names it: its text, or its id for clients that asked for ids.
static void token_name(const ReplyChoice *c, int32_t id, StrBuf *out) {
    if (c->reply->req->ids_as_tokens)
        buf_printf(out, "token_id:%d", id);
    else
        token_text(c, id, out);
}

static void chat_token(const ReplyChoice *c, int32_t id, float logprob, StrBuf *out) {
    StrBuf text = {0};
    Str bytes = tokenizer_token_bytes(c->reply->model->tok, (uint32_t)id);
    token_name(c, id, &text);
    buf_puts(out, "\"token\": ");
    json_write_string(out, buf_view(&text));
    buf_printf(out, ", \"logprob\": %.7g, \"bytes\": [", json_logprob(logprob));
    for (size_t i = 0; i < bytes.len; i++) buf_printf(out, i ? ", %u" : "%u", (unsigned char)bytes.ptr[i]);
    buf_putc(out, ']');
    buf_free(&text);
}

void reply_token_logprobs(const ReplyChoice *c, uint32_t first, uint32_t n, StrBuf *out) {
    uint32_t top = c->reply->req->sampling.top_logprobs;
    buf_putc(out, '[');
    for (uint32_t i = 0; i < n; i++) {
        const LogprobRow *row = &c->logprobs[first + i];
        buf_puts(out, i ? ", {" : "{");
        chat_token(c, c->ids[first + i], row->logprob[0], out);
        buf_puts(out, ", \"top_logprobs\": [");
        for (uint32_t k = 0; k < top && k + 1 < row->n; k++) {
            buf_puts(out, k ? ", {" : "{");
            chat_token(c, row->id[k + 1], row->logprob[k + 1], out);
            buf_putc(out, '}');
        }
        buf_puts(out, "]}");
    }
    buf_putc(out, ']');
}

void reply_chat_logprobs(const ReplyChoice *c, uint32_t first, uint32_t n, StrBuf *out) {
    buf_puts(out, "{\"content\": ");
    reply_token_logprobs(c, first, n, out);
    buf_puts(out, ", \"refusal\": null}");
}

// ---- prompts ---------------------------------------------------------------------------------------------

// rank 0: it is not among those that were asked for.
static void by_id(const ReplyChoice *c, int32_t id, float logprob, uint32_t rank, bool first, StrBuf *out) {
    StrBuf text = {0};
    token_text(c, id, &text);
    buf_printf(out, "%s\"%d\": {\"logprob\": %.7g, \"rank\": ", first ? "" : ", ", id, json_logprob(logprob));
    if (rank)
        buf_printf(out, "%u", rank);
    else
        buf_puts(out, "null");
    buf_puts(out, ", \"decoded_token\": ");
    json_write_string(out, buf_view(&text));
    buf_putc(out, '}');
    buf_free(&text);
}

static void prompt_row(const ReplyChoice *c, const LogprobRow *row, uint32_t top, StrBuf *out) {
    uint32_t own = 0;
    for (uint32_t k = 1; k < row->n && !own; k++)
        if (row->id[k] == row->id[0]) own = k;
    buf_putc(out, '{');
    by_id(c, row->id[0], row->logprob[0], own, true, out);
    for (uint32_t k = 1; k <= top && k < row->n; k++)
        if (k != own) by_id(c, row->id[k], row->logprob[k], k, false, out);
    buf_putc(out, '}');
}

void reply_prompt_logprobs(const Reply *r, uint32_t prompt, StrBuf *out) {
    const LogprobRow *rows = r->prompt_logprobs ? r->prompt_logprobs[prompt] : NULL;
    if (!r->req->prompt_logprobs) return;
    buf_puts(out, ", \"prompt_logprobs\": [null");
    for (uint32_t i = 1; rows && i < r->req->prompts[prompt].n; i++) {
        buf_puts(out, ", ");
        prompt_row(&r->choices[0], &rows[i - 1], r->req->prompt_top, out);
    }
    buf_putc(out, ']');
}

// ---- completions -----------------------------------------------------------------------------------------

typedef struct {
    const ReplyChoice *choice;
    StrBuf tokens, logprobs, tops, offsets;
    uint32_t offset, n; // characters so far; tokens so far
} Lists;

static uint32_t characters(Str s) {
    uint32_t n = 0;
    for (size_t i = 0; i < s.len; i++) n += (s.ptr[i] & 0xC0) != 0x80;
    return n;
}

// Bytes that are no character alone would all have the same name; OpenAI spells them.
static void key_name(const ReplyChoice *c, int32_t id, StrBuf *out) {
    Str bytes = tokenizer_token_bytes(c->reply->model->tok, (uint32_t)id);
    if (c->reply->req->ids_as_tokens || str_utf8_ok(bytes)) {
        token_name(c, id, out);
        return;
    }
    buf_puts(out, "bytes:");
    for (size_t i = 0; i < bytes.len; i++) buf_printf(out, "\\x%02x", (unsigned char)bytes.ptr[i]);
}

static void top_entry(Lists *l, int32_t id, float logprob, bool first) {
    StrBuf text = {0};
    key_name(l->choice, id, &text);
    if (!first) buf_puts(&l->tops, ", ");
    json_write_string(&l->tops, buf_view(&text));
    buf_printf(&l->tops, ": %.7g", json_logprob(logprob));
    buf_free(&text);
}

// The likeliest, and the token itself where it is not one of them: readers take the largest for "is greedy".
static void tops(Lists *l, const LogprobRow *row, uint32_t top) {
    bool seen = false, first = true;
    buf_putc(&l->tops, '{');
    for (uint32_t k = 0; k < top && k + 1 < row->n; k++) {
        top_entry(l, row->id[k + 1], row->logprob[k + 1], first);
        seen = seen || row->id[k + 1] == row->id[0];
        first = false;
    }
    if (!seen) top_entry(l, row->id[0], row->logprob[0], first);
    buf_putc(&l->tops, '}');
}

static void add(Lists *l, int32_t id, const LogprobRow *row, uint32_t top) {
    const char *comma = l->n++ ? ", " : "";
    StrBuf text = {0}, name = {0};
    token_text(l->choice, id, &text);
    token_name(l->choice, id, &name);
    buf_puts(&l->tokens, comma);
    json_write_string(&l->tokens, buf_view(&name));
    buf_free(&name);
    buf_printf(&l->offsets, "%s%u", comma, l->offset);
    l->offset += characters(buf_view(&text));
    buf_puts(&l->logprobs, comma), buf_puts(&l->tops, comma);
    if (row) {
        buf_printf(&l->logprobs, "%.7g", json_logprob(row->logprob[0]));
        tops(l, row, top);
    } else {
        buf_puts(&l->logprobs, "null"), buf_puts(&l->tops, "null");
    }
    buf_free(&text);
}

void reply_completion_logprobs(ReplyChoice *c, uint32_t first, uint32_t n, bool echo, StrBuf *out) {
    const Reply *r = c->reply;
    const ApiPrompt *p = &r->req->prompts[c->prompt];
    Lists l = {.choice = c, .offset = c->text_offset};
    uint32_t top = r->req->sampling.top_logprobs;
    const LogprobRow *prompt = echo && r->prompt_logprobs ? r->prompt_logprobs[c->prompt] : NULL;
    for (uint32_t i = 0; echo && i < p->n; i++)
        add(&l, (int32_t)p->ids[i], i && prompt ? &prompt[i - 1] : NULL, top);
    for (uint32_t i = 0; i < n; i++) add(&l, c->ids[first + i], &c->logprobs[first + i], top);
    c->text_offset = l.offset;
    buf_puts(out, "{\"tokens\": ["), buf_str(out, buf_view(&l.tokens));
    buf_puts(out, "], \"token_logprobs\": ["), buf_str(out, buf_view(&l.logprobs));
    buf_puts(out, "], \"top_logprobs\": ["), buf_str(out, buf_view(&l.tops));
    buf_puts(out, "], \"text_offset\": ["), buf_str(out, buf_view(&l.offsets));
    buf_puts(out, "]}");
    buf_free(&l.tokens), buf_free(&l.logprobs), buf_free(&l.tops), buf_free(&l.offsets);
}
