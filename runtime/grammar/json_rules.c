#include "runtime/grammar/json_rules.h"

#include "runtime/grammar/dfa.h"
#include "runtime/grammar/regex.h"

typedef struct JsonString JsonString;
struct JsonString {
    uint32_t count_min, count_max, rule;
    JsonString *next;
};

static uint32_t rule_of_regex(Build *b, const char *name, const char *pattern) {
    uint32_t rule = build_rule(b, name);
    regex_push(b, str_of(pattern), REGEX_WHOLE, false, "");
    build_define(b, rule);
    return rule;
}

// One character of a JSON string: any but `"`, `\` and controls, an escape, \uXXXX but no lone surrogate.
#define ESCAPED                                                                                              \
    "\\\\([\"\\\\/bfnrt]|u([0-9abcefABCEF][0-9a-fA-F]{3}|[dD][0-7][0-9a-fA-F]{2}|"                           \
    "[dD][89abAB][0-9a-fA-F]{2}\\\\u[dD][c-fC-F][0-9a-fA-F]{2}))"

static void push_pair(Build *b, JsonRules *j) {
    json_push_string(b, j, 0, NFA_NO_END);
    nfa_bytes(b, STR(":"));
    nfa_bytes(b, STR(" "));
    nfa_repeat(b, 0, 1);
    json_push_any(b, j);
    nfa_cat(b, 4);
}

static void push_item(Build *b, JsonRules *j, bool object) {
    if (object)
        push_pair(b, j);
    else
        json_push_any(b, j);
}

// `{` or `[`, items with commas between, the closing one.
static void define_list(Build *b, JsonRules *j, uint32_t rule, bool object) {
    nfa_bytes(b, object ? STR("{") : STR("["));
    json_push_space(b, j);
    push_item(b, j, object);
    nfa_bytes(b, STR(","));
    json_push_space(b, j);
    push_item(b, j, object);
    nfa_cat(b, 3);
    nfa_repeat(b, 0, NFA_NO_END);
    json_push_space(b, j);
    nfa_cat(b, 3);
    nfa_repeat(b, 0, 1);
    nfa_bytes(b, object ? STR("}") : STR("]"));
    nfa_cat(b, 4);
    build_define(b, rule);
}

static void define_any(Build *b, JsonRules *j, uint32_t rule) {
    json_push_string(b, j, 0, NFA_NO_END);
    json_push_number(b, j);
    json_push_any_object(b, j);
    json_push_any_array(b, j);
    nfa_bytes(b, STR("true"));
    nfa_bytes(b, STR("false"));
    nfa_bytes(b, STR("null"));
    nfa_alt(b, 7);
    build_define(b, rule);
}

void json_rules_begin(Build *b, JsonRules *j) {
    *j = (JsonRules){0};
    j->space = rule_of_regex(b, "space", " |\n( {0,24}|\t{1,8})");
    j->number = rule_of_regex(b, "number", "-?(0|[1-9][0-9]{0,17})(\\.[0-9]{1,17})?([eE][+-]?[0-9]{1,2})?");
    j->integer = rule_of_regex(b, "integer", "-?(0|[1-9][0-9]{0,17})");
    regex_push(b, STR("\"([^\"\\\\\\x00-\\x1F]|" ESCAPED ")*\""), REGEX_WHOLE, false, "");
    j->string = dfa_pop(b);
    j->any = build_rule(b, "value");
    j->any_object = build_rule(b, "object");
    j->any_array = build_rule(b, "array");
    define_list(b, j, j->any_object, true);
    define_list(b, j, j->any_array, false);
    define_any(b, j, j->any);
}

void json_push_space(Build *b, const JsonRules *j) {
    nfa_call(b, j->space);
    nfa_repeat(b, 0, 1);
}

void json_push_any(Build *b, const JsonRules *j) { nfa_call(b, j->any); }
void json_push_any_object(Build *b, const JsonRules *j) { nfa_call(b, j->any_object); }
void json_push_any_array(Build *b, const JsonRules *j) { nfa_call(b, j->any_array); }
void json_push_number(Build *b, const JsonRules *j) { nfa_call(b, j->number); }
void json_push_integer(Build *b, const JsonRules *j) { nfa_call(b, j->integer); }

static uint32_t string_rule(Build *b, JsonRules *j, uint32_t count_min, uint32_t count_max) {
    for (const JsonString *s = j->strings; s; s = s->next)
        if (s->count_min == count_min && s->count_max == count_max) return s->rule;
    uint32_t rule = build_rule(b, "string");
    if (b->failed) return 0;
    b->rules[rule] = (Rule){"string", j->string, true, count_min, count_max};
    b->n_states += j->string->n;
    JsonString *s = ARENA_NEW(&b->arena, JsonString);
    *s = (JsonString){count_min, count_max, rule, j->strings};
    j->strings = s;
    return rule;
}

void json_push_string(Build *b, JsonRules *j, uint32_t count_min, uint32_t count_max) {
    if (!b->failed) nfa_call(b, string_rule(b, j, count_min, count_max));
}
