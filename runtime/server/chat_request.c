// POST /v1/chat/completions.
#include "runtime/base/num.h"
#include "runtime/server/fields.h"
#include "runtime/server/json_build.h"
#include "runtime/server/request.h"

// UINT32_MAX: all that the context holds.
static bool read_max_tokens(const ApiModel *m, const Json *body, uint32_t *out, ApiError *e) {
    static const char *const names[] = {"max_completion_tokens", "max_tokens", "n_predict"};
    *out = UINT32_MAX;
    for (size_t i = 0; i < COUNT_OF(names); i++) {
        int64_t v = -1;
        if (!field_int(body, names[i], -1, INT32_MAX, &v, e)) return false;
        if (v == 0) return api_invalid(e, names[i], "`%s` must be at least 1", names[i]);
        if (v > 0 && *out == UINT32_MAX) *out = (uint32_t)v;
    }
    (void)m;
    return true;
}

static bool read_logprobs(const Json *body, ApiRequest *r, ApiError *e) {
    uint32_t top = 0;
    bool given = !json_absent(json_get(body, "top_logprobs"));
    if (!field_bool(body, "logprobs", &r->sampling.logprobs, e) ||
        !field_u32(body, "top_logprobs", 0, LOGPROBS_MAX, &top, e))
        return false;
    if (given && top && !r->sampling.logprobs)
        return api_invalid(e, "top_logprobs", "`top_logprobs` needs `logprobs: true`");
    r->sampling.top_logprobs = top;
    return true;
}

// Qwen3 thinks or does not: "none" turns it off, every other effort leaves it on.
static bool read_effort(const Json *body, JsonObjectBuild *kwargs, ApiError *e) {
    static const char *const efforts[] = {"none", "minimal", "low", "medium", "high", "xhigh", "max"};
    Str effort = {0};
    if (!field_str(body, "reasoning_effort", &effort, e)) return false;
    if (!effort.ptr) return true;
    for (size_t i = 0; i < COUNT_OF(efforts); i++)
        if (str_is(effort, efforts[i]))
            return json_put(kwargs, STR("enable_thinking"), json_of_bool(i > 0)), true;
    return api_invalid(e, "reasoning_effort",
                       "`reasoning_effort` must be none, minimal, low, medium, high, xhigh or max");
}

static bool read_kwargs(Arena *a, const Json *body, ApiRequest *r, ApiError *e) {
    JsonObjectBuild k = {.arena = a};
    const Json *own;
    bool add = true, go_on = false;
    if (!field_bool(body, "continue_final_message", &go_on, e)) return false;
    if (go_on) add = false;
    if (!field_bool(body, "add_generation_prompt", &add, e) ||
        !field_object(body, "chat_template_kwargs", &own, e) || !read_effort(body, &k, e))
        return false;
    if (go_on && add)
        return api_invalid(e, "continue_final_message",
                           "`continue_final_message` and `add_generation_prompt` exclude each other");
    json_put(&k, STR("add_generation_prompt"), json_of_bool(add));
    if (go_on) json_put(&k, STR("continue_final_message"), json_of_bool(true));
    for (uint32_t i = 0; own && i < own->n; i++) {
        Str key = own->members[i].key;
        if (str_is(key, "messages") || str_is(key, "tools") || str_is(key, "documents"))
            return api_invalid(e, "chat_template_kwargs",
                               "`chat_template_kwargs` must not hold `" STR_FMT "`", STR_ARG(key));
        json_put(&k, key, own->members[i].value);
    }
    r->kwargs = json_keep(a, json_built(&k));
    return true;
}

// `echo`: a message of the assistant that is continued is told again with what follows.
static bool read_echo(const Json *body, ApiRequest *r, ApiError *e) {
    const Json *list = r->messages, *last = &list->items[list->n - 1], *role = json_get(last, "role");
    bool echo = false;
    if (!field_bool(body, "echo", &echo, e)) return false;
    if (echo && json_is(role, JSON_STRING) && str_is(role->s, "assistant"))
        r->echoed = json_get(last, "content")->s;
    return true;
}

// Ids stand for messages, and for all that says how to render them.
static bool refuse_template(const Json *body, ApiError *e) {
    static const char *const fields[] = {"add_generation_prompt", "continue_final_message",
                                         "chat_template_kwargs", "tools", "reasoning_effort"};
    const Json *messages = json_get(body, "messages");
    if (!json_absent(messages) && !(messages->kind == JSON_ARRAY && !messages->n))
        return api_invalid(e, "prompt_token_ids", "`prompt_token_ids` and `messages` exclude each other");
    for (size_t i = 0; i < COUNT_OF(fields); i++)
        if (!json_absent(json_get(body, fields[i])))
            return api_invalid(e, fields[i], "`%s` says how to render; `prompt_token_ids` are rendered",
                               fields[i]);
    return true;
}

static bool read_reasoning(const Json *body, ApiRequest *r, ApiError *e) {
    bool include = true;
    if (!field_bool(body, "include_reasoning", &include, e)) return false;
    return r->hide_reasoning = !include, true;
}

static bool choice_has_tools(const Json *body, ApiError *e) {
    const Json *choice = json_get(body, "tool_choice");
    bool none = json_absent(choice) || (choice->kind == JSON_STRING && str_is(choice->s, "none"));
    return none || !json_absent(json_get(body, "tools")) ||
           api_invalid(e, "tool_choice", "`tool_choice` is only for requests with `tools`");
}

bool chat_request(const ApiModel *m, Arena *arena, const Json *body, ApiRequest *r, ApiError *e) {
    uint32_t max_tokens;
    *r = (ApiRequest){.kind = API_CHAT};
    request_unknown(arena, body, API_CHAT, r);
    const Json *ids = json_get(body, "prompt_token_ids");
    bool ok = request_model(m, body, r, e) && request_neutral(body, e) &&
              request_sampling(m, arena, body, r, e) && request_stream(body, r, e) &&
              request_telemetry(body, r, e) && request_prompt(body, r, e) &&
              request_stops(arena, body, "stop", r, e) && read_logprobs(body, r, e) &&
              read_max_tokens(m, body, &max_tokens, e) && request_format(arena, body, r, e) &&
              request_tools(m, arena, json_get(body, "tools"), r, e) && read_reasoning(body, r, e) &&
              choice_has_tools(body, e) && request_tool_choice(body, r, e) && read_kwargs(arena, body, r, e);
    if (ok && !json_absent(ids))
        return refuse_template(body, e) &&
               request_rendered(m, arena, ids, r, max_tokens, "prompt_token_ids", e);
    ok = ok && request_chat_messages(arena, json_get(body, "messages"), "messages", &r->messages, e) &&
         read_echo(body, r, e);
    return ok && request_render(m, arena, r, max_tokens, "messages", e);
}

bool count_chat(const ApiModel *m, Arena *arena, const Json *body, ApiRequest *r, ApiError *e) {
    ApiModel any = *m;
    any.context = INT32_MAX; // counting is for those who do not know whether it fits
    *r = (ApiRequest){.kind = API_CHAT};
    return request_model(m, body, r, e) && request_tools(m, arena, json_get(body, "tools"), r, e) &&
           request_tool_choice(body, r, e) && read_kwargs(arena, body, r, e) &&
           request_chat_messages(arena, json_get(body, "messages"), "messages", &r->messages, e) &&
           request_render(&any, arena, r, UINT32_MAX, "messages", e);
}
