// JSON Schema to rules. A value is described by schemas that must all hold (Conj); references, allOf, anyOf
// and oneOf are resolved into alternatives of such lists, in which no keyword refers to another schema for
// the same value any more.
#ifndef ADALLM_GRAMMAR_SCHEMA_H
#define ADALLM_GRAMMAR_SCHEMA_H
#include "runtime/grammar/json_rules.h"

typedef struct {
    const Json *json, *root; // root: base of its references
    const char *at;          // its JSON pointer
} Node;
typedef struct {
    Node *nodes;
    uint32_t n, cap;
    uint32_t n_roots; // of an alternative: schemas it comes from; with 1, all are inside of the first
} Conj;               // in the arena; none: any value

typedef struct SchemaTask SchemaTask;
typedef struct {
    Build *b;
    JsonRules rules;
    SchemaTask *tasks, **tasks_end; // rules that were asked for, in this order
} Schema;

void schema_begin(Schema *s, Build *b);
void schema_finish(Schema *s); // gives all rules that were asked for a body; the stack must be empty
// Pushes a value; a rule of its own when it is not small.
void schema_push(Schema *s, const Conj *value);
// Pushes the call of a rule that is `key` (spelled, with quotes), a colon and the value.
void schema_push_pair(Schema *s, Str key, const Conj *value);
void schema_push_key(Schema *s, Str key); // spelled key, colon, at most one space

void conj_add(Schema *s, Conj *c, Node n);
Node node_member(Schema *s, Node parent, const char *key); // json NULL when absent
Node node_in(Schema *s, Node parent, Str key, const Json *json);
Node node_item(Schema *s, Node parent, uint32_t i);
bool schema_fail(Schema *s, Node n, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
// A non-negative integer, if the keyword is there and one; else `absent`.
uint32_t node_count(Schema *s, Node n, const char *key, uint32_t absent);

// Alternatives for the value, without references between them; their number. *out lies in the arena.
uint32_t schema_alternatives(Schema *s, const Conj *value, Conj **out);
bool schema_check_keywords(Schema *s, Node n);
typedef enum {
    ABOUT_ANY,
    ABOUT_STRING,
    ABOUT_NUMBER,
    ABOUT_ARRAY,
    ABOUT_OBJECT,
    ABOUT_NOTE,
    ABOUT_REFUSED
} About;
About keyword_about(Str name);

// Each pushes the values of one type of a list of schemas without references.
void schema_push_string(Schema *s, const Conj *c);
void schema_push_number(Schema *s, const Conj *c, bool integers_only);
void schema_push_array(Schema *s, const Conj *c);
void schema_push_object(Schema *s, const Conj *c);
void schema_push_listed(Schema *s, const Conj *c, uint32_t types); // enum and const
bool schema_is_listed(const Conj *c);
const Dfa *schema_string_dfa(Schema *s, const Conj *c); // between the quotes; NULL: any string

enum {
    TYPE_NULL = 1,
    TYPE_BOOLEAN = 2,
    TYPE_STRING = 4,
    TYPE_INTEGER = 8,
    TYPE_NUMBER = 16, // and integers
    TYPE_ARRAY = 32,
    TYPE_OBJECT = 64,
    TYPE_EVERY = 127
};
#endif
