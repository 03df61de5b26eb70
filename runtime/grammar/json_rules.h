// Pieces of JSON text that every schema is made of, as fragments that call rules.
#ifndef ADALLM_GRAMMAR_JSON_RULES_H
#define ADALLM_GRAMMAR_JSON_RULES_H
#include "runtime/grammar/nfa.h"

typedef struct {
    uint32_t space, number, integer, any, any_object, any_array; // rules
    const Dfa *string;                                           // `"`, characters, `"`
    struct JsonString *strings;                                  // rules by their bounds
} JsonRules;

// Makes the rules; the stack of fragments must be empty.
void json_rules_begin(Build *b, JsonRules *j);

void json_push_space(Build *b, const JsonRules *j); // whitespace or none
void json_push_any(Build *b, const JsonRules *j);   // any value
void json_push_any_object(Build *b, const JsonRules *j);
void json_push_any_array(Build *b, const JsonRules *j);
void json_push_number(Build *b, const JsonRules *j);
void json_push_integer(Build *b, const JsonRules *j);
// A string of count_min to count_max characters (NFA_NO_END: any number); a pair \ud83d\ude00 is one.
void json_push_string(Build *b, JsonRules *j, uint32_t count_min, uint32_t count_max);
#endif
