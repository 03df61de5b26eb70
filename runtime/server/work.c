// What workers do with bodies. Nothing here touches a connection.
#include "runtime/base/num.h"
#include "runtime/server/fields.h"
#include "runtime/server/routes.h"

typedef bool ReadRequest(const ApiModel *m, Arena *a, const Json *body, ApiRequest *r, ApiError *e);

static bool generate(const ApiModel *m, RuleBook *book, Call *c, ReadRequest *read) {
    const Json *body = api_parse_body(&c->arena, buf_view(&c->body), &c->error);
    return c->generates = body && read(m, &c->arena, body, &c->req, &c->error) &&
                          rules_make(book, &c->req, &c->rules, &c->error);
}

bool work_generate_chat(const ApiModel *m, RuleBook *book, Call *c) {
    return generate(m, book, c, chat_request);
}
bool work_generate_completion(const ApiModel *m, RuleBook *book, Call *c) {
    return generate(m, book, c, completion_request);
}
bool work_generate_messages(const ApiModel *m, RuleBook *book, Call *c) {
    return generate(m, book, c, messages_request);
}
bool work_generate_responses(const ApiModel *m, RuleBook *book, Call *c) {
    return generate(m, book, c, responses_request);
}

bool work_count_tokens(const ApiModel *m, RuleBook *book, Call *c) {
    (void)book;
    const Json *body = api_parse_body(&c->arena, buf_view(&c->body), &c->error);
    if (!body || !count_request(m, &c->arena, body, &c->req, &c->error)) return false;
    buf_printf(&c->doc, "{\"input_tokens\": %u}\n", c->req.prompts[0].n);
    return true;
}

bool work_apply_template(const ApiModel *m, RuleBook *book, Call *c) {
    (void)book;
    const Json *body = api_parse_body(&c->arena, buf_view(&c->body), &c->error);
    if (!body || !count_chat(m, &c->arena, body, &c->req, &c->error)) return false;
    buf_puts(&c->doc, "{\"prompt\": ");
    json_write_string(&c->doc, c->req.prompts[0].text);
    buf_puts(&c->doc, "}\n");
    return true;
}

// ---- /tokenize, /detokenize -------------------------------------------------------------------------------

static bool encode(const ApiModel *m, Call *c, Str text, EncodeOptions o, Ids *ids) {
    Err e;
    return tokenizer_encode(m->tok, text, o, ids, &e) || api_invalid(&c->error, "prompt", "%s", e.msg);
}

static bool encode_body(const ApiModel *m, Call *c, const Json *body, Ids *ids) {
    Str text = {0};
    EncodeOptions o = {.special = true, .add_special = true};
    if (!json_absent(json_get(body, "messages"))) {
        if (!count_chat(m, &c->arena, body, &c->req, &c->error)) return false;
        for (uint32_t i = 0; i < c->req.prompts[0].n; i++) ids_add(ids, c->req.prompts[0].ids[i]);
        return true;
    }
    const char *name = json_get(body, "prompt") ? "prompt" : "content";
    if (json_get(body, "content")) o.add_special = false; // llama.cpp's way of asking
    if (!field_str(body, name, &text, &c->error) ||
        !field_bool(body, "add_special_tokens", &o.add_special, &c->error) ||
        !field_bool(body, "add_special", &o.add_special, &c->error) ||
        !field_bool(body, "parse_special", &o.special, &c->error))
        return false;
    if (!text.ptr) return field_wrong(&c->error, "prompt", "a string", NULL);
    return encode(m, c, text, o, ids);
}

// llama.cpp's list: each id with its text, or with its bytes where they are no text by themselves.
static void write_pieces(const ApiModel *m, const Ids *ids, StrBuf *out) {
    buf_putc(out, '[');
    for (size_t i = 0; i < ids->n; i++) {
        Str bytes = tokenizer_token_bytes(m->tok, ids->ptr[i]);
        buf_printf(out, "%s{\"id\": %u, \"piece\": ", i ? ", " : "", ids->ptr[i]);
        if (str_utf8_ok(bytes)) {
            json_write_string(out, bytes);
        } else {
            for (size_t k = 0; k < bytes.len; k++)
                buf_printf(out, k ? ", %u" : "[%u", (unsigned char)bytes.ptr[k]);
            buf_putc(out, ']');
        }
        buf_putc(out, '}');
    }
    buf_putc(out, ']');
}

static void write_token_strs(const ApiModel *m, const Ids *ids, StrBuf *out) {
    buf_puts(out, ", \"token_strs\": [");
    for (size_t i = 0; i < ids->n; i++) {
        StrBuf text = {0};
        tokenizer_decode(m->tok, &ids->ptr[i], 1, false, &text);
        if (i) buf_puts(out, ", ");
        json_write_string(out, buf_view(&text));
        buf_free(&text);
    }
    buf_putc(out, ']');
}

bool work_tokenize(const ApiModel *m, RuleBook *book, Call *c) {
    (void)book;
    Ids ids = {0};
    bool strs = false, pieces = false;
    const Json *body = api_parse_body(&c->arena, buf_view(&c->body), &c->error);
    bool ok = body && request_model(m, body, &c->req, &c->error) &&
              field_bool(body, "return_token_strs", &strs, &c->error) &&
              field_bool(body, "with_pieces", &pieces, &c->error) && encode_body(m, c, body, &ids);
    if (ok) {
        buf_printf(&c->doc, "{\"count\": %zu, \"max_model_len\": %u, \"tokens\": ", ids.n, m->context);
        if (pieces)
            write_pieces(m, &ids, &c->doc);
        else
            reply_ids(&c->doc, (const int32_t *)ids.ptr, (uint32_t)ids.n);
        if (strs)
            write_token_strs(m, &ids, &c->doc);
        else
            buf_puts(&c->doc, ", \"token_strs\": null");
        buf_puts(&c->doc, "}\n");
    }
    ids_free(&ids);
    return ok;
}

bool work_detokenize(const ApiModel *m, RuleBook *book, Call *c) {
    (void)book;
    const Json *list;
    ApiPrompt p = {0};
    const Json *body = api_parse_body(&c->arena, buf_view(&c->body), &c->error);
    if (!body || !request_model(m, body, &c->req, &c->error) ||
        !field_array(body, "tokens", API_JSON_NODES, &list, &c->error))
        return false;
    if (!list) return field_wrong(&c->error, "tokens", "a list of token ids", NULL);
    if (list->n && !request_ids(m, &c->arena, list, "tokens", &p, &c->error)) return false;
    StrBuf text = {0};
    tokenizer_decode(m->tok, p.ids, p.n, false, &text);
    buf_puts(&c->doc, "{\"prompt\": ");
    json_write_string(&c->doc, buf_view(&text));
    buf_puts(&c->doc, ", \"content\": ");
    json_write_string(&c->doc, buf_view(&text));
    buf_puts(&c->doc, "}\n");
    buf_free(&text);
    return true;
}
