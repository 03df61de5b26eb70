// Structured output: the fields that ask for it, in the spellings of OpenAI, vLLM and llama.cpp.
#include "runtime/base/num.h"
#include "runtime/server/fields.h"
#include "runtime/server/request.h"

static bool set_format(ApiRequest *r, ApiFormat f, ApiError *e) {
    if (r->format.kind != FORMAT_TEXT)
        return api_invalid(e, f.param, "`%s` and `%s` both say what the answer must look like",
                           r->format.param, f.param);
    r->format = f;
    return true;
}

static bool is_schema(const Json *j) { return json_is(j, JSON_OBJECT) || json_is(j, JSON_BOOL); }

static bool set_schema(ApiRequest *r, const Json *schema, const char *param, ApiError *e) {
    if (!is_schema(schema)) return field_wrong(e, param, "a JSON schema", schema);
    return set_format(r, (ApiFormat){.kind = FORMAT_JSON_SCHEMA, .schema = schema, .param = param}, e);
}

static bool response_format(const Json *f, ApiRequest *r, ApiError *e) {
    Str type = {0};
    const Json *inner;
    if (!field_str(f, "type", &type, e)) return false;
    if (str_is(type, "text")) return true;
    if (str_is(type, "json_object")) {
        const Json *schema = json_get(f, "schema"); // llama.cpp
        if (!json_absent(schema)) return set_schema(r, schema, "response_format.schema", e);
        return set_format(r, (ApiFormat){.kind = FORMAT_JSON_OBJECT, .param = "response_format"}, e);
    }
    if (!str_is(type, "json_schema"))
        return api_invalid(e, "response_format.type",
                           "`response_format.type` must be \"text\", \"json_object\" or \"json_schema\"");
    if (!field_object(f, "json_schema", &inner, e)) return false;
    const Json *schema = inner ? json_get(inner, "schema") : json_get(f, "schema");
    if (!schema) return field_wrong(e, "response_format.json_schema", "an object with a `schema`", NULL);
    if (!set_schema(r, schema, "response_format.json_schema.schema", e)) return false;
    return !inner || field_bool(inner, "strict", &r->format.strict, e);
}

static bool choices(const Json *list, const char *param, ApiRequest *r, ApiError *e) {
    if (!json_is(list, JSON_ARRAY) || !list->n)
        return field_wrong(e, param, "a list of strings, not empty", list);
    for (uint32_t i = 0; i < list->n; i++)
        if (list->items[i].kind != JSON_STRING || !list->items[i].s.len)
            return api_invalid(e, param, "`%s[%u]` must be a string, not empty", param, i);
    return set_format(r, (ApiFormat){.kind = FORMAT_CHOICE, .schema = list, .param = param}, e);
}

static bool text_format(FormatKind kind, const Json *j, const char *param, ApiRequest *r, ApiError *e) {
    if (!json_is(j, JSON_STRING) || !j->s.len) return field_wrong(e, param, "a string, not empty", j);
    return set_format(r, (ApiFormat){.kind = kind, .text = j->s, .param = param}, e);
}

static const struct {
    const char *top, *inner; // of the body; of `structured_outputs`
    FormatKind kind;
} spellings[] = {
    {"guided_json", "json", FORMAT_JSON_SCHEMA}, {"guided_regex", "regex", FORMAT_REGEX},
    {"guided_choice", "choice", FORMAT_CHOICE},  {"guided_grammar", "grammar", FORMAT_GRAMMAR},
    {"json_schema", NULL, FORMAT_JSON_SCHEMA},   {"grammar", NULL, FORMAT_GRAMMAR},
    {NULL, "json_object", FORMAT_JSON_OBJECT},
};

static bool spelled(FormatKind kind, const Json *j, const char *param, ApiRequest *r, ApiError *e) {
    if (json_absent(j)) return true;
    switch (kind) {
    case FORMAT_JSON_SCHEMA: return set_schema(r, j, param, e);
    case FORMAT_CHOICE: return choices(j, param, r, e);
    case FORMAT_JSON_OBJECT:
        if (j->kind != JSON_BOOL) return field_wrong(e, param, "true or false", j);
        return !j->boolean || set_format(r, (ApiFormat){.kind = kind, .param = param}, e);
    default: return text_format(kind, j, param, r, e);
    }
}

bool request_format(Arena *a, const Json *body, ApiRequest *r, ApiError *e) {
    const Json *f, *s;
    if (!field_object(body, "response_format", &f, e) || !field_object(body, "structured_outputs", &s, e))
        return false;
    if (!json_absent(json_get(s, "structural_tag")))
        return api_unsupported(e, "structured_outputs.structural_tag",
                               "`structured_outputs.structural_tag` is not supported; `tools` are");
    if (f && !response_format(f, r, e)) return false;
    for (size_t i = 0; i < COUNT_OF(spellings); i++) {
        const char *top = spellings[i].top, *inner = spellings[i].inner;
        if (top && !spelled(spellings[i].kind, json_get(body, top), top, r, e)) return false;
        if (!s || !inner) continue;
        if (!spelled(spellings[i].kind, json_get(s, inner), arena_printf(a, "structured_outputs.%s", inner),
                     r, e))
            return false;
    }
    return true;
}
