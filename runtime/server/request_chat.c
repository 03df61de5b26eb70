// Messages and tools as the chat template wants them, rendered and encoded.
#include <stdio.h>

#include "runtime/base/num.h"
#include "runtime/server/fields.h"
#include "runtime/server/json_build.h"
#include "runtime/server/request.h"

// ---- content ---------------------------------------------------------------------------------------------

static bool part_text(const Json *part, const char *name, Str *out, ApiError *e) {
    Str type = {0};
    if (part->kind != JSON_OBJECT) return field_wrong(e, name, "a list of objects", part);
    if (!field_str(part, "type", &type, e)) return false;
    bool refusal = str_is(type, "refusal");
    if (!refusal && !str_is(type, "text") && !str_is(type, "input_text") && !str_is(type, "output_text"))
        return api_unsupported(e, name, "`%s` has a part of type \"%.*s\"; this model reads text alone", name,
                               (int)MIN(type.len, 60u), type.ptr ? type.ptr : "");
    const Json *text = json_get(part, refusal ? "refusal" : "text");
    if (!json_is(text, JSON_STRING)) return field_wrong(e, name, "made of parts with a string `text`", text);
    return *out = text->s, true;
}

bool request_content(Arena *a, const Json *content, const char *name, Str *out, ApiError *e) {
    *out = STR("");
    if (json_absent(content)) return true;
    if (content->kind == JSON_STRING) return *out = content->s, true;
    if (content->kind != JSON_ARRAY) return field_wrong(e, name, "a string or a list of parts", content);
    StrBuf b = {0};
    bool ok = true;
    for (uint32_t i = 0; ok && i < content->n; i++) {
        Str text;
        ok = part_text(&content->items[i], name, &text, e);
        if (ok) buf_str(&b, text);
    }
    if (ok) *out = str_dup(a, buf_view(&b));
    buf_free(&b);
    return ok;
}

// ---- messages --------------------------------------------------------------------------------------------

typedef struct {
    Arena *arena;
    const char *name; // "messages[3]"
    const Json *in;
    JsonObjectBuild out;
} Message;

static const char *inside(const Message *m, const char *field) {
    return arena_printf(m->arena, "%s.%s", m->name, field);
}

static bool put_string(Message *m, const char *from, const char *to, ApiError *e) {
    const Json *j = json_get(m->in, from);
    if (json_absent(j)) return true;
    if (j->kind != JSON_STRING) return field_wrong(e, inside(m, from), "a string", j);
    json_put(&m->out, str_of(to), *j);
    return true;
}

// Templates write arguments with their own spacing when they get an object, as they do in training.
static Json arguments_value(Arena *a, Str text) {
    Source src = {"arguments", text};
    Diags ignored = {.arena = a, .n_max = 1};
    const Json *j =
        json_parse(a, &src, (JsonLimits){.dup = JSON_DUP_LAST, .depth_max = API_JSON_DEPTH}, &ignored);
    return json_is(j, JSON_OBJECT) ? *j : json_of_str(text);
}

static bool one_call(Message *m, const Json *call, JsonArrayBuild *calls, ApiError *e) {
    const char *where = inside(m, "tool_calls");
    const Json *f = json_get(call, "function"), *name = json_get(f, "name"), *id = json_get(call, "id"),
               *arguments = json_get(f, "arguments");
    if (!json_is(f, JSON_OBJECT)) return field_wrong(e, where, "a list of calls with a `function`", f);
    if (!json_is(name, JSON_STRING))
        return field_wrong(e, where, "a list of calls with a string `function.name`", name);
    bool fits = json_absent(arguments) || arguments->kind == JSON_STRING || arguments->kind == JSON_OBJECT;
    if (!fits) return field_wrong(e, where, "a list of calls with a string `function.arguments`", arguments);
    JsonObjectBuild function = {.arena = m->arena}, out = {.arena = m->arena};
    json_put(&function, STR("name"), *name);
    Json value = json_absent(arguments)           ? (Json){.kind = JSON_OBJECT}
                 : arguments->kind == JSON_STRING ? arguments_value(m->arena, arguments->s)
                                                  : *arguments;
    json_put(&function, STR("arguments"), value);
    if (json_is(id, JSON_STRING)) json_put(&out, STR("id"), *id);
    json_put(&out, STR("type"), json_of_str(STR("function")));
    json_put(&out, STR("function"), json_built(&function));
    json_append(calls, json_built(&out));
    return true;
}

static bool put_calls(Message *m, ApiError *e) {
    const Json *list = json_get(m->in, "tool_calls");
    JsonArrayBuild calls = {.arena = m->arena};
    if (json_absent(list)) return true;
    if (list->kind != JSON_ARRAY) return field_wrong(e, inside(m, "tool_calls"), "a list", list);
    if (list->n > API_TOOLS_MAX) return api_invalid(e, inside(m, "tool_calls"), "too many tool calls");
    for (uint32_t i = 0; i < list->n; i++)
        if (!one_call(m, &list->items[i], &calls, e)) return false;
    if (calls.n) json_put(&m->out, STR("tool_calls"), json_built_array(&calls));
    return true;
}

static bool put_role(Message *m, Str *role, ApiError *e) {
    static const struct {
        const char *in, *out;
    } roles[] = {{"system", "system"},       {"developer", "system"}, {"user", "user"},
                 {"assistant", "assistant"}, {"tool", "tool"},        {"function", "tool"}};
    const Json *j = json_get(m->in, "role");
    for (size_t i = 0; json_is(j, JSON_STRING) && i < COUNT_OF(roles); i++)
        if (str_is(j->s, roles[i].in)) {
            *role = str_of(roles[i].out);
            json_put(&m->out, STR("role"), json_of_str(*role));
            return true;
        }
    if (!json_is(j, JSON_STRING)) return field_wrong(e, inside(m, "role"), "a string", j);
    return api_invalid(e, inside(m, "role"),
                       "`%s.role` must be system, developer, user, assistant or tool, not \"%.*s\"", m->name,
                       (int)MIN(j->s.len, 40u), j->s.ptr);
}

static bool one_message(Message *m, ApiError *e) {
    Str role = {0}, content = {0};
    if (m->in->kind != JSON_OBJECT) return field_wrong(e, m->name, "an object", m->in);
    if (!put_role(m, &role, e)) return false;
    const Json *c = json_get(m->in, "content");
    bool assistant = str_is(role, "assistant");
    if (json_absent(c) && !assistant)
        return field_wrong(e, inside(m, "content"), "a string or a list of parts", c);
    if (!request_content(m->arena, c, inside(m, "content"), &content, e)) return false;
    json_put(&m->out, STR("content"), json_of_str(content));
    if (!put_string(m, "name", "name", e)) return false;
    if (!assistant) return put_string(m, "tool_call_id", "tool_call_id", e);
    return put_string(m, "reasoning", "reasoning_content", e) &&
           put_string(m, "reasoning_content", "reasoning_content", e) && put_calls(m, e);
}

bool request_chat_messages(Arena *a, const Json *messages, const char *name, const Json **out, ApiError *e) {
    JsonArrayBuild list = {.arena = a};
    if (!json_is(messages, JSON_ARRAY)) return field_wrong(e, name, "a list of messages", messages);
    if (!messages->n) return api_invalid(e, name, "`%s` must not be empty", name);
    if (messages->n > API_MESSAGES_MAX)
        return api_invalid(e, name, "`%s` has %u messages; at most %d are possible", name, messages->n,
                           API_MESSAGES_MAX);
    for (uint32_t i = 0; i < messages->n; i++) {
        Message m = {.arena = a, .in = &messages->items[i], .out = {.arena = a}};
        m.name = arena_printf(a, "%s[%u]", name, i);
        if (!one_message(&m, e)) return false;
        json_append(&list, json_built(&m.out));
    }
    *out = json_keep(a, json_built_array(&list));
    return true;
}

// ---- tools -----------------------------------------------------------------------------------------------

static bool name_ok(Str s) {
    if (!s.len || s.len > 128) return false;
    for (size_t i = 0; i < s.len; i++) {
        char c = s.ptr[i];
        bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
        if (!letter && !strchr("_-.:/", c)) return false;
    }
    return true;
}

static bool names_object(const Json *type) {
    bool found = type->kind == JSON_STRING && str_is(type->s, "object");
    for (uint32_t i = 0; type->kind == JSON_ARRAY && i < type->n; i++)
        found = found || (type->items[i].kind == JSON_STRING && str_is(type->items[i].s, "object"));
    return found;
}

// Arguments are an object, whatever else the schema would allow: clients read names and values from them.
static bool object_schema(Arena *a, const Json *schema, const char *where, const Json **out, ApiError *e) {
    const Json *type = json_get(schema, "type");
    JsonObjectBuild b = {.arena = a};
    if (!json_absent(type) && !names_object(type))
        return api_invalid(e, where, "`%s.function.parameters` must be the schema of an object", where);
    json_put(&b, STR("type"), json_of_str(STR("object")));
    for (uint32_t i = 0; i < schema->n; i++)
        if (!str_is(schema->members[i].key, "type"))
            json_put(&b, schema->members[i].key, schema->members[i].value);
    *out = json_keep(a, json_built(&b));
    return true;
}

static bool one_tool(Arena *a, const Json *t, const char *where, ApiTool *out, ApiError *e) {
    const Json *f = json_get(t, "function"), *name = json_get(f, "name"),
               *parameters = json_get(f, "parameters");
    if (t->kind != JSON_OBJECT) return field_wrong(e, where, "a list of objects", t);
    const Json *type = json_get(t, "type");
    if (!json_absent(type) && !(type->kind == JSON_STRING && str_is(type->s, "function")))
        return api_unsupported(e, where, "`%s`: only tools of type \"function\" are supported", where);
    if (!json_is(f, JSON_OBJECT)) return field_wrong(e, where, "an object with a `function`", f);
    if (!json_is(name, JSON_STRING) || !name_ok(name->s))
        return api_invalid(e, where, "`%s.function.name` must have 1 to 128 letters, digits, _ - . : or /",
                           where);
    if (!json_absent(parameters) && parameters->kind != JSON_OBJECT)
        return field_wrong(e, where, "a function with a JSON schema as `parameters`", parameters);
    *out = (ApiTool){.name = name->s};
    if (!json_absent(parameters) && !object_schema(a, parameters, where, &out->parameters, e)) return false;
    return field_bool(f, "strict", &out->strict, e);
}

bool request_tools(const ApiModel *m, Arena *a, const Json *tools, ApiRequest *r, ApiError *e) {
    if (json_absent(tools)) return true;
    if (tools->kind != JSON_ARRAY) return field_wrong(e, "tools", "a list", tools);
    if (!tools->n) return true;
    if (tools->n > API_TOOLS_MAX)
        return api_invalid(e, "tools", "`tools` has %u tools; at most %d are possible", tools->n,
                           API_TOOLS_MAX);
    if (!m->has_tools)
        return api_unsupported(e, "tools",
                               "`tools` is not supported: the chat template of " STR_FMT " knows no tools",
                               STR_ARG(m->name));
    ApiTool *list = ARENA_ARRAY(a, ApiTool, tools->n);
    for (uint32_t i = 0; i < tools->n; i++) {
        if (!one_tool(a, &tools->items[i], arena_printf(a, "tools[%u]", i), &list[i], e)) return false;
        for (uint32_t k = 0; k < i; k++)
            if (str_eq(list[k].name, list[i].name))
                return api_invalid(e, "tools", "`tools` has two functions named " STR_FMT,
                                   STR_ARG(list[i].name));
    }
    r->tools = list, r->n_tools = tools->n, r->tools_json = tools;
    r->tool_choice = TOOLS_AUTO;
    return true;
}

static bool choose_tool(const Json *function, ApiRequest *r, ApiError *e) {
    const Json *name = json_get(function, "name");
    if (!json_is(name, JSON_STRING))
        return field_wrong(e, "tool_choice", "an object with a function's name", name);
    for (uint32_t i = 0; i < r->n_tools; i++)
        if (str_eq(r->tools[i].name, name->s)) {
            r->tool = &r->tools[i];
            r->tool_choice = TOOLS_NAMED;
            return true;
        }
    return api_invalid(e, "tool_choice", "`tool_choice` names `%.*s`, which is not in `tools`",
                       (int)MIN(name->s.len, 128u), name->s.ptr);
}

static bool choice_word(Str word, ApiRequest *r, ApiError *e) {
    bool required = str_is(word, "required") || str_is(word, "any");
    if (!required && !str_is(word, "auto") && !str_is(word, "none"))
        return api_invalid(e, "tool_choice", "`tool_choice` must be none, auto, required or name a function");
    if (required && !r->n_tools)
        return api_invalid(e, "tool_choice", "`tool_choice` wants a call, but there are no `tools`");
    r->tool_choice = !r->n_tools || str_is(word, "none") ? TOOLS_NONE
                     : required                          ? TOOLS_REQUIRED
                                                         : TOOLS_AUTO;
    return true;
}

bool request_tool_choice(const Json *body, ApiRequest *r, ApiError *e) {
    const Json *c = json_get(body, "tool_choice");
    r->parallel_tools = true;
    if (!field_bool(body, "parallel_tool_calls", &r->parallel_tools, e)) return false;
    if (json_absent(c)) return true;
    if (c->kind == JSON_STRING) return choice_word(c->s, r, e);
    if (c->kind != JSON_OBJECT) return field_wrong(e, "tool_choice", "a string or an object", c);
    const Json *type = json_get(c, "type"), *function = json_get(c, "function");
    if (json_is(type, JSON_STRING) && str_is(type->s, "function"))
        return choose_tool(function ? function : c, r, e);
    return api_unsupported(e, "tool_choice", "`tool_choice.type` must be \"function\"");
}

// ---- rendering -------------------------------------------------------------------------------------------

static bool ends_inside_thinking(Str text) {
    for (size_t i = text.len; i-- > 0;) {
        Str rest = str_from(text, i);
        if (str_starts(rest, STR("</think>"))) return false;
        if (str_starts(rest, STR("<think>"))) return true;
    }
    return false;
}

// The template closed it: the answer does not think.
static bool ends_behind_thinking(Str text) {
    while (text.len && strchr(" \n", text.ptr[text.len - 1])) text.len--;
    return str_ends(text, STR("</think>"));
}

static bool encode(const ApiModel *m, Arena *a, const ChatText *text, const char *param, ApiPrompt *out,
                   ApiError *e) {
    Ids ids = {0};
    Err err;
    bool ok = chat_encode(m->control, text, &ids, &err) || api_invalid(e, param, "%s", err.msg);
    if (ok) {
        uint32_t *copy = ARENA_ARRAY(a, uint32_t, ids.n);
        if (ids.n) memcpy(copy, ids.ptr, ids.n * sizeof *copy);
        *out = (ApiPrompt){.text = str_dup(a, text->text), .ids = copy, .n = (uint32_t)ids.n};
    }
    ids_free(&ids);
    return ok;
}

// What rendering takes is much more than what is left of it.
static bool render(const ApiModel *m, Arena *a, ApiRequest *r, const char *param, ApiPrompt *out,
                   ApiError *e) {
    Err err;
    ChatText text;
    Arena scratch = {0};
    ChatInput in = {r->messages, r->tool_choice == TOOLS_NONE ? NULL : r->tools_json, r->kwargs};
    bool ok = chat_render(m->chat, &scratch, in, &text, &err) || api_invalid(e, param, "%s", err.msg);
    ok = ok && encode(m, a, &text, param, out, e);
    arena_free(&scratch);
    return ok;
}

// Only the turn that has begun says whether it thinks, what stands behind the last control token: those that
// talk about <think> before it do not.
static void find_thinking(const ApiModel *m, ApiRequest *r, const ApiPrompt *p) {
    const uint32_t open = tokenizer_id_of(m->tok, STR("<think>")),
                   close = tokenizer_id_of(m->tok, STR("</think>"));
    uint32_t from = p->n;
    StrBuf turn = {0};
    if (!m->has_thinking) return;
    while (from && (!tokenizer_is_special(m->tok, p->ids[from - 1]) || p->ids[from - 1] == open ||
                    p->ids[from - 1] == close))
        from--;
    tokenizer_decode(m->tok, p->ids + from, p->n - from, false, &turn);
    r->in_thinking = ends_inside_thinking(buf_view(&turn));
    r->thinks = !ends_behind_thinking(buf_view(&turn));
    buf_free(&turn);
}

static bool check_prompt(const ApiModel *m, ApiRequest *r, ApiPrompt *p, uint32_t max_tokens,
                         const char *param, ApiError *e) {
    for (uint32_t i = 0; i < p->n; i++)
        if (p->ids[i] >= m->vocab)
            return api_invalid(e, param, "the prompt has token %u, which the model does not have", p->ids[i]);
    if (!p->n) return api_invalid(e, param, "the prompt has no tokens");
    request_cut(m, r, max_tokens, p);
    find_thinking(m, r, p);
    r->prompts = p, r->n_prompts = 1;
    return request_fit(m, p->n, max_tokens, param, &r->max_tokens, e);
}

bool request_rendered(const ApiModel *m, Arena *a, const Json *ids, ApiRequest *r, uint32_t max_tokens,
                      const char *param, ApiError *e) {
    ApiPrompt *p = ARENA_NEW(a, ApiPrompt);
    if (!json_is(ids, JSON_ARRAY)) return field_wrong(e, param, "a list of token ids", ids);
    return request_ids(m, a, ids, param, p, e) && check_prompt(m, r, p, max_tokens, param, e);
}

bool request_render(const ApiModel *m, Arena *a, ApiRequest *r, uint32_t max_tokens, const char *param,
                    ApiError *e) {
    ApiPrompt *p = ARENA_NEW(a, ApiPrompt);
    if (!m->chat)
        return api_unsupported(e, param,
                               "the model `" STR_FMT "` has no chat template: /v1/completions completes text",
                               STR_ARG(m->name));
    return render(m, a, r, param, p, e) && check_prompt(m, r, p, max_tokens, param, e);
}

// ---- what the template knows -----------------------------------------------------------------------------

static bool probe(const ApiModel *m, Arena *a, const char *tools, Str *out) {
    static const char words[] =
        "{\"m\": [{\"role\": \"user\", \"content\": \"x\"}], \"k\": {\"add_generation_prompt\": "
        "true}, \"t\": %s}";
    Source src = {"probe", str_of(arena_printf(a, words, tools))};
    Diags d = {.arena = a};
    Err err;
    ChatText text;
    const Json *j = json_parse(a, &src, (JsonLimits){0}, &d);
    CHECK(j);
    if (!chat_render(m->chat, a, (ChatInput){json_get(j, "m"), json_get(j, "t"), json_get(j, "k")}, &text,
                     &err))
        return false;
    return *out = text.text, true;
}

static bool contains(Str text, Str what) { return memmem(text.ptr, text.len, what.ptr, what.len) != NULL; }

void api_model_probe(ApiModel *m) {
    Arena a = {0};
    Str text;
    m->has_tools =
        probe(m, &a,
              "[{\"type\": \"function\", \"function\": {\"name\": \"adallm_probe\", \"description\": "
              "\"x\", \"parameters\": {\"type\": \"object\", \"properties\": {}}}}]",
              &text) &&
        contains(text, STR("adallm_probe")) && contains(text, STR("<tool_call>"));
    m->has_thinking = tokenizer_id_of(m->tok, STR("</think>")) != TOKEN_NONE;
    arena_free(&a);
}
