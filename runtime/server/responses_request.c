// POST /v1/responses, without state: input items become messages of the chat.
#include "runtime/base/num.h"
#include "runtime/server/fields.h"
#include "runtime/server/json_build.h"
#include "runtime/server/request.h"

enum { INCLUDE_MAX = 32 };

static void put(JsonObjectBuild *b, const char *key, Json v) { json_put(b, str_of(key), v); }

static void message(JsonArrayBuild *out, const char *role, Json content) {
    JsonObjectBuild m = {.arena = out->arena};
    put(&m, "role", json_of_str(str_of(role)));
    put(&m, "content", content);
    json_append(out, json_built(&m));
}

static bool function_call(JsonArrayBuild *out, const Json *item, const char *where, ApiError *e) {
    const Json *name = json_get(item, "name"), *arguments = json_get(item, "arguments"),
               *id = json_get(item, "call_id");
    if (!json_is(name, JSON_STRING)) return field_wrong(e, where, "a call with a string `name`", name);
    if (!json_is(arguments, JSON_STRING))
        return field_wrong(e, where, "a call with a string `arguments`", arguments);
    JsonObjectBuild f = {.arena = out->arena}, call = {.arena = out->arena}, m = {.arena = out->arena};
    JsonArrayBuild calls = {.arena = out->arena};
    put(&f, "name", *name);
    put(&f, "arguments", *arguments);
    if (json_is(id, JSON_STRING)) put(&call, "id", *id);
    put(&call, "type", json_of_str(STR("function")));
    put(&call, "function", json_built(&f));
    json_append(&calls, json_built(&call));
    put(&m, "role", json_of_str(STR("assistant")));
    put(&m, "content", json_of_str(STR("")));
    put(&m, "tool_calls", json_built_array(&calls));
    json_append(out, json_built(&m));
    return true;
}

static bool call_output(JsonArrayBuild *out, const Json *item, const char *where, ApiError *e) {
    Str text;
    const Json *id = json_get(item, "call_id");
    if (!request_content(out->arena, json_get(item, "output"), where, &text, e)) return false;
    JsonObjectBuild m = {.arena = out->arena};
    put(&m, "role", json_of_str(STR("tool")));
    put(&m, "content", json_of_str(text));
    if (json_is(id, JSON_STRING)) put(&m, "tool_call_id", *id);
    json_append(out, json_built(&m));
    return true;
}

static bool one_item(JsonArrayBuild *out, const Json *item, uint32_t i, ApiError *e) {
    const char *where = arena_printf(out->arena, "input[%u]", i);
    Str type = STR("message");
    if (item->kind != JSON_OBJECT) return field_wrong(e, where, "an object", item);
    if (!field_str(item, "type", &type, e)) return false;
    if (str_is(type, "message")) {
        json_append(out, *item);
        return true;
    }
    if (str_is(type, "function_call")) return function_call(out, item, where, e);
    if (str_is(type, "function_call_output")) return call_output(out, item, where, e);
    if (str_is(type, "reasoning")) return true; // of an earlier turn
    return api_unsupported(
        e, where, "`%s` has the type \"%.*s\"; message, function_call and function_call_output are supported",
        where, (int)MIN(type.len, 60u), type.ptr);
}

static bool read_input(Arena *a, const Json *body, ApiRequest *r, ApiError *e) {
    const Json *in = json_get(body, "input");
    Str instructions = {0};
    JsonArrayBuild out = {.arena = a};
    if (!field_str(body, "instructions", &instructions, e)) return false;
    if (instructions.len) message(&out, "system", json_of_str(instructions));
    if (json_is(in, JSON_STRING)) {
        message(&out, "user", *in);
    } else if (json_is(in, JSON_ARRAY) && in->n && in->n <= API_MESSAGES_MAX) {
        for (uint32_t i = 0; i < in->n; i++)
            if (!one_item(&out, &in->items[i], i, e)) return false;
    } else {
        return field_wrong(e, "input", "a string or a list of items, not empty", in);
    }
    Json list = json_built_array(&out);
    return request_chat_messages(a, &list, "input", &r->messages, e);
}

// Tools of this API have their function's fields one level up.
static bool read_tools(const ApiModel *m, Arena *a, const Json *body, ApiRequest *r, ApiError *e) {
    const Json *list;
    JsonArrayBuild tools = {.arena = a};
    if (!field_array(body, "tools", API_TOOLS_MAX, &list, e)) return false;
    for (uint32_t i = 0; list && i < list->n; i++) {
        static const char *const fields[] = {"name", "description", "parameters", "strict"};
        const Json *t = &list->items[i], *type = json_get(t, "type");
        if (!json_is(type, JSON_STRING) || !str_is(type->s, "function"))
            return api_unsupported(e, "tools", "`tools[%u].type`: only \"function\" is supported", i);
        JsonObjectBuild f = {.arena = a}, tool = {.arena = a};
        for (size_t k = 0; k < COUNT_OF(fields); k++) {
            const Json *v = json_get(t, fields[k]);
            if (!json_absent(v)) put(&f, fields[k], *v);
        }
        put(&tool, "type", json_of_str(STR("function")));
        put(&tool, "function", json_built(&f));
        json_append(&tools, json_built(&tool));
    }
    return request_tools(m, a, json_keep(a, json_built_array(&tools)), r, e);
}

// text.format is response_format without its inner object.
static bool read_format(Arena *a, const Json *body, ApiRequest *r, ApiError *e) {
    const Json *text, *format, *other = json_get(body, "structured_outputs");
    if (!field_object(body, "text", &text, e) || !field_object(text, "format", &format, e)) return false;
    if (!format) return request_format(a, body, r, e);
    JsonObjectBuild b = {.arena = a};
    put(&b, "response_format", *format);
    if (other) put(&b, "structured_outputs", *other);
    Json j = json_built(&b);
    return request_format(a, &j, r, e);
}

static bool read_reasoning(Arena *a, const Json *body, ApiRequest *r, ApiError *e) {
    const Json *o, *own;
    Str effort = {0};
    JsonObjectBuild k = {.arena = a};
    if (!field_object(body, "reasoning", &o, e) || !field_object(body, "chat_template_kwargs", &own, e))
        return false;
    if (o && !field_str(o, "effort", &effort, e)) return false;
    put(&k, "add_generation_prompt", json_of_bool(true));
    if (effort.ptr) put(&k, "enable_thinking", json_of_bool(!str_is(effort, "none")));
    for (uint32_t i = 0; own && i < own->n; i++) json_put(&k, own->members[i].key, own->members[i].value);
    r->kwargs = json_keep(a, json_built(&k));
    return true;
}

static bool stateless(const Json *body, ApiError *e) {
    static const char *const fields[] = {"previous_response_id", "conversation"};
    bool background = false;
    for (size_t i = 0; i < COUNT_OF(fields); i++)
        if (!json_absent(json_get(body, fields[i])))
            return api_unsupported(e, fields[i],
                                   "`%s` is not supported: this server keeps no state; send the whole input",
                                   fields[i]);
    if (!field_bool(body, "background", &background, e)) return false;
    return !background ||
           api_unsupported(e, "background", "`background` is not supported: this server keeps no state");
}

// Of what may be included only log probabilities are there; the rest belongs to tools of OpenAI's servers.
static bool read_logprobs(const Json *body, ApiRequest *r, ApiError *e) {
    const Json *list;
    uint32_t top = 0;
    if (!field_array(body, "include", INCLUDE_MAX, &list, e) ||
        !field_u32(body, "top_logprobs", 0, LOGPROBS_MAX, &top, e))
        return false;
    for (uint32_t i = 0; list && i < list->n; i++) {
        const Json *j = &list->items[i];
        if (j->kind != JSON_STRING) return field_wrong(e, "include", "a list of strings", j);
        r->sampling.logprobs |= str_is(j->s, "message.output_text.logprobs");
    }
    if (top && !r->sampling.logprobs)
        return api_invalid(e, "top_logprobs",
                           "`top_logprobs` needs \"message.output_text.logprobs\" in `include`");
    r->sampling.top_logprobs = top;
    return true;
}

static bool read_raw_messages(const Json *body, ApiRequest *r, ApiError *e) {
    r->return_ids = false; // another API's field
    return field_bool(body, "enable_response_messages", &r->return_ids, e);
}

bool responses_request(const ApiModel *m, Arena *arena, const Json *body, ApiRequest *r, ApiError *e) {
    int64_t most = -1;
    *r = (ApiRequest){.kind = API_RESPONSES};
    request_unknown(arena, body, API_RESPONSES, r);
    if (!stateless(body, e) || !request_model(m, body, r, e) || !request_sampling(m, arena, body, r, e) ||
        !read_logprobs(body, r, e) || !field_bool(body, "stream", &r->stream, e) ||
        !read_raw_messages(body, r, e) || !request_telemetry(body, r, e) ||
        !request_stops(arena, body, "stop", r, e) || !read_format(arena, body, r, e) ||
        !read_tools(m, arena, body, r, e) || !request_tool_choice(body, r, e) ||
        !read_reasoning(arena, body, r, e) || !read_input(arena, body, r, e) ||
        !field_int(body, "max_output_tokens", 1, INT32_MAX, &most, e))
        return false;
    return request_render(m, arena, r, most < 0 ? UINT32_MAX : (uint32_t)most, "input", e);
}
