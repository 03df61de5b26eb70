// POST /v1/messages of the Anthropic API: its blocks become messages and tools of the chat.
#include "runtime/base/num.h"
#include "runtime/server/fields.h"
#include "runtime/server/json_build.h"
#include "runtime/server/request.h"

typedef struct {
    Arena *arena;
    JsonArrayBuild out;
    StrBuf text, reasoning;
    JsonArrayBuild calls;
} Blocks;

static void put(JsonObjectBuild *b, const char *key, Json v) { json_put(b, str_of(key), v); }

static Json kept(Arena *a, const StrBuf *b) { return json_of_str(str_dup(a, buf_view(b))); }

// What was gathered so far becomes a message.
static void flush(Blocks *b, Str role) {
    if (!b->text.len && !b->calls.n && !b->reasoning.len) return;
    JsonObjectBuild m = {.arena = b->arena};
    put(&m, "role", json_of_str(role));
    put(&m, "content", kept(b->arena, &b->text));
    if (b->reasoning.len) put(&m, "reasoning_content", kept(b->arena, &b->reasoning));
    if (b->calls.n) put(&m, "tool_calls", json_built_array(&b->calls));
    json_append(&b->out, json_built(&m));
    b->text.len = b->reasoning.len = 0;
    b->calls = (JsonArrayBuild){.arena = b->arena};
}

static bool tool_use(Blocks *b, const Json *block, const char *where, ApiError *e) {
    const Json *name = json_get(block, "name"), *input = json_get(block, "input"),
               *id = json_get(block, "id");
    if (!json_is(name, JSON_STRING) || !name->s.len)
        return field_wrong(e, where, "a tool_use with a string `name`, not empty", name);
    if (!json_is(id, JSON_STRING) || !id->s.len)
        return field_wrong(e, where, "a tool_use with a string `id`, not empty", id);
    if (!json_is(input, JSON_OBJECT))
        return field_wrong(e, where, "a tool_use with an object `input`", input);
    JsonObjectBuild f = {.arena = b->arena}, call = {.arena = b->arena};
    put(&f, "name", *name);
    put(&f, "arguments", *input);
    put(&call, "id", *id);
    put(&call, "type", json_of_str(STR("function")));
    put(&call, "function", json_built(&f));
    json_append(&b->calls, json_built(&call));
    return true;
}

// Blocks of a result stand on lines of their own.
static bool result_text(Arena *a, const Json *content, const char *where, Str *out, ApiError *e) {
    StrBuf b = {0};
    bool ok = true;
    if (!json_is(content, JSON_ARRAY)) return request_content(a, content, where, out, e);
    for (uint32_t i = 0; ok && i < content->n; i++) {
        Str text;
        Json one = {.kind = JSON_ARRAY, .n = 1, .items = &content->items[i]};
        ok = request_content(a, &one, where, &text, e);
        if (ok && i) buf_putc(&b, '\n');
        if (ok) buf_str(&b, text);
    }
    if (ok) *out = str_dup(a, buf_view(&b));
    buf_free(&b);
    return ok;
}

static bool tool_result(Blocks *b, const Json *block, const char *where, ApiError *e) {
    Str text;
    const Json *id = json_get(block, "tool_use_id");
    if (!json_is(id, JSON_STRING) || !id->s.len)
        return field_wrong(e, where, "a tool_result with a string `tool_use_id`, not empty", id);
    if (!result_text(b->arena, json_get(block, "content"), where, &text, e)) return false;
    flush(b, STR("user"));
    JsonObjectBuild m = {.arena = b->arena};
    put(&m, "role", json_of_str(STR("tool")));
    put(&m, "content", json_of_str(text));
    put(&m, "tool_call_id", *id);
    json_append(&b->out, json_built(&m));
    return true;
}

static bool one_block(Blocks *b, const Json *block, bool assistant, const char *where, ApiError *e) {
    Str type = {0}, text = {0};
    if (block->kind != JSON_OBJECT) return field_wrong(e, where, "a list of blocks", block);
    if (!field_str(block, "type", &type, e)) return false;
    if (str_is(type, "text")) {
        if (!json_is(json_get(block, "text"), JSON_STRING))
            return field_wrong(e, where, "a text block with a string `text`", json_get(block, "text"));
        buf_str(&b->text, json_get(block, "text")->s);
        return true;
    }
    if (assistant && str_is(type, "thinking")) {
        const Json *thinking = json_get(block, "thinking");
        if (!json_is(thinking, JSON_STRING))
            return field_wrong(e, where, "a thinking block with a string `thinking`", thinking);
        text = thinking->s;
        buf_str(&b->reasoning, text);
        return true;
    }
    if (assistant && str_is(type, "redacted_thinking")) {
        const Json *data = json_get(block, "data");
        return (json_is(data, JSON_STRING) && data->s.len) ||
               field_wrong(e, where, "a redacted_thinking with a string `data`, not empty", data);
    }
    if (assistant && str_is(type, "tool_use")) return tool_use(b, block, where, e);
    if (!assistant && str_is(type, "tool_result")) return tool_result(b, block, where, e);
    return api_unsupported(e, where, "`%s` has a block of type \"%.*s\", which this model does not read",
                           where, (int)MIN(type.len, 60u), type.ptr ? type.ptr : "");
}

static bool one_message(Blocks *b, const Json *m, uint32_t i, ApiError *e) {
    const char *where = arena_printf(b->arena, "messages[%u].content", i);
    Str role = {0};
    if (m->kind != JSON_OBJECT) return field_wrong(e, "messages", "a list of objects", m);
    if (!field_str(m, "role", &role, e)) return false;
    bool assistant = str_is(role, "assistant");
    if (!assistant && !str_is(role, "user") && !str_is(role, "system"))
        return api_invalid(e, "messages", "`messages[%u].role` must be user or assistant", i);
    const Json *c = json_get(m, "content");
    if (json_is(c, JSON_STRING)) {
        buf_str(&b->text, c->s);
        if (!c->s.len) return api_invalid(e, "messages", "`%s` must not be empty", where);
    } else if (!json_is(c, JSON_ARRAY)) {
        return field_wrong(e, where, "a string or a list of blocks", c);
    }
    for (uint32_t k = 0; c->kind == JSON_ARRAY && k < c->n; k++)
        if (!one_block(b, &c->items[k], assistant, where, e)) return false;
    flush(b, role);
    return true;
}

// Claude Code's first block changes with every request: no prompt would be found in the cache.
static bool is_billing(const Json *block) {
    const Json *text = json_get(block, "text");
    return json_is(text, JSON_STRING) && str_starts(text->s, STR("x-anthropic-billing-header"));
}

static bool read_system(Blocks *b, const Json *body, ApiError *e) {
    const Json *system = json_get(body, "system");
    const bool list = json_is(system, JSON_ARRAY);
    for (uint32_t i = 0; i < (list ? system->n : 1u); i++) {
        Str text;
        Json one = {.kind = JSON_ARRAY, .n = 1, .items = list ? &system->items[i] : NULL};
        if (list && is_billing(&system->items[i])) continue;
        if (!request_content(b->arena, list ? &one : system, "system", &text, e)) return false;
        buf_str(&b->text, text);
    }
    flush(b, STR("system"));
    return true;
}

static bool read_messages(Arena *a, const Json *body, ApiRequest *r, ApiError *e) {
    const Json *list = json_get(body, "messages");
    Blocks b = {.arena = a, .out = {.arena = a}, .calls = {.arena = a}};
    bool ok = json_is(list, JSON_ARRAY) || field_wrong(e, "messages", "a list of messages", list);
    if (ok && !list->n) ok = api_invalid(e, "messages", "`messages` must not be empty");
    if (ok && list->n > API_MESSAGES_MAX)
        ok = api_invalid(e, "messages", "`messages` has %u messages; at most %d are possible", list->n,
                         API_MESSAGES_MAX);
    ok = ok && read_system(&b, body, e);
    for (uint32_t i = 0; ok && i < list->n; i++) ok = one_message(&b, &list->items[i], i, e);
    if (ok) r->messages = json_keep(a, json_built_array(&b.out));
    if (ok && !b.out.n) ok = api_invalid(e, "messages", "`messages` hold no text");
    buf_free(&b.text), buf_free(&b.reasoning);
    return ok;
}

// Tools of this API as functions of the chat.
static bool read_tools(const ApiModel *m, Arena *a, const Json *body, ApiRequest *r, ApiError *e) {
    const Json *list;
    JsonArrayBuild tools = {.arena = a};
    if (!field_array(body, "tools", API_TOOLS_MAX, &list, e)) return false;
    for (uint32_t i = 0; list && i < list->n; i++) {
        const Json *t = &list->items[i], *type = json_get(t, "type"), *about = json_get(t, "description"),
                   *schema = json_get(t, "input_schema"), *name = json_get(t, "name");
        if (json_is(type, JSON_STRING) && !str_is(type->s, "custom"))
            return api_unsupported(e, "tools", "`tools[%u]`: this server has no tools of its own", i);
        JsonObjectBuild f = {.arena = a}, tool = {.arena = a};
        if (name) put(&f, "name", *name);
        if (json_is(about, JSON_STRING)) put(&f, "description", *about);
        if (schema) put(&f, "parameters", *schema);
        put(&tool, "type", json_of_str(STR("function")));
        put(&tool, "function", json_built(&f));
        json_append(&tools, json_built(&tool));
    }
    return request_tools(m, a, json_keep(a, json_built_array(&tools)), r, e);
}

static bool read_choice(Arena *a, const Json *body, ApiRequest *r, ApiError *e) {
    const Json *c;
    Str type = {0}, name = {0};
    bool one = false;
    if (!field_object(body, "tool_choice", &c, e)) return false;
    r->parallel_tools = true;
    if (!c) return true;
    if (!field_str(c, "type", &type, e) || !field_str(c, "name", &name, e) ||
        !field_bool(c, "disable_parallel_tool_use", &one, e))
        return false;
    JsonObjectBuild as_chat = {.arena = a}, choice = {.arena = a};
    if (str_is(type, "tool")) {
        put(&choice, "type", json_of_str(STR("function")));
        put(&choice, "name", json_of_str(name.ptr ? name : STR("")));
        put(&as_chat, "tool_choice", json_built(&choice));
    } else {
        put(&as_chat, "tool_choice", json_of_str(type));
    }
    put(&as_chat, "parallel_tool_calls", json_of_bool(!one));
    Json j = json_built(&as_chat);
    return request_tool_choice(&j, r, e);
}

// An answer that the client began is gone on with.
static bool ends_with_answer(const Json *body) {
    const Json *list = json_get(body, "messages");
    if (!json_is(list, JSON_ARRAY) || !list->n) return false;
    const Json *role = json_get(&list->items[list->n - 1], "role");
    return json_is(role, JSON_STRING) && str_is(role->s, "assistant");
}

static bool read_thinking(Arena *a, const Json *body, ApiRequest *r, ApiError *e) {
    const Json *t, *own;
    Str type = {0};
    JsonObjectBuild k = {.arena = a};
    if (!field_object(body, "thinking", &t, e) || !field_object(body, "chat_template_kwargs", &own, e))
        return false;
    if (t && !field_str(t, "type", &type, e)) return false;
    put(&k, "add_generation_prompt", json_of_bool(!ends_with_answer(body)));
    if (ends_with_answer(body)) put(&k, "continue_final_message", json_of_bool(true));
    // who does not ask for thinking does not get it: clients would not know what to do with the block
    put(&k, "enable_thinking", json_of_bool(str_is(type, "enabled") || str_is(type, "adaptive")));
    for (uint32_t i = 0; own && i < own->n; i++) json_put(&k, own->members[i].key, own->members[i].value);
    r->kwargs = json_keep(a, json_built(&k));
    return true;
}

static bool read_prompt(const ApiModel *m, Arena *a, const Json *body, ApiRequest *r, ApiError *e) {
    *r = (ApiRequest){.kind = API_MESSAGES};
    request_unknown(a, body, API_MESSAGES, r);
    return request_model(m, body, r, e) && request_sampling(m, a, body, r, e) &&
           read_tools(m, a, body, r, e) && read_choice(a, body, r, e) && read_thinking(a, body, r, e) &&
           read_messages(a, body, r, e);
}

bool messages_request(const ApiModel *m, Arena *arena, const Json *body, ApiRequest *r, ApiError *e) {
    uint32_t most = 0;
    if (!read_prompt(m, arena, body, r, e)) return false;
    if (json_absent(json_get(body, "max_tokens")))
        return field_wrong(e, "max_tokens", "an integer, at least 1", NULL);
    if (!field_bool(body, "stream", &r->stream, e) ||
        !field_u32(body, "max_tokens", 1, INT32_MAX, &most, e) ||
        !request_stops(arena, body, "stop_sequences", r, e) ||
        !request_render(m, arena, r, UINT32_MAX, "messages", e))
        return false;
    r->max_tokens = MIN(r->max_tokens, most); // agents of this API ask for more than is left
    return true;
}

bool count_request(const ApiModel *m, Arena *arena, const Json *body, ApiRequest *r, ApiError *e) {
    ApiModel any = *m;
    any.context = INT32_MAX; // counting is for those who do not know whether it fits
    return read_prompt(m, arena, body, r, e) && request_render(&any, arena, r, UINT32_MAX, "messages", e);
}
