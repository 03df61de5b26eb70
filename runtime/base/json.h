// JSON as a tree in an arena, every node with its place in the text. Parsing is done by yajl (events, no
// recursion); numbers keep their digits, so that integers of any size survive.
#ifndef ADALLM_BASE_JSON_H
#define ADALLM_BASE_JSON_H
#include "runtime/base/diag.h"

typedef enum { JSON_NULL, JSON_BOOL, JSON_INT, JSON_REAL, JSON_STRING, JSON_ARRAY, JSON_OBJECT } JsonKind;

typedef struct Json Json;
typedef struct JsonMember JsonMember;
struct Json {
    JsonKind kind;
    bool big;          // JSON_INT that does not fit int64: only `s` holds it
    uint32_t n;        // items of an array, members of an object
    size_t begin, end; // byte offsets in the source text
    Str s;             // decoded text of a string; digits of a number as written
    union {
        bool boolean;
        int64_t i;
        double real;               // JSON_REAL
        const Json *items;         // JSON_ARRAY
        const JsonMember *members; // JSON_OBJECT, in order of first appearance
    };
};
struct JsonMember {
    Str key;
    size_t key_begin;
    Json value;
};

typedef enum { JSON_DUP_REFUSE, JSON_DUP_LAST } JsonDup; // LAST: first place, last value (what Python keeps)

typedef struct {
    JsonDup dup;
    uint32_t depth_max; // 0: 64
    size_t nodes_max;   // 0: 16 million
} JsonLimits;

// Parses all of src->text (UTF-8, one value). Nodes point into the arena, never into the text. On failure
// adds one located error (E_JSON) and returns NULL.
const Json *json_parse(Arena *a, const Source *src, JsonLimits limits, Diags *d);

const Json *json_get(const Json *object, const char *key); // NULL when absent or not an object
double json_number(const Json *j);                         // JSON_INT or JSON_REAL
static inline bool json_is(const Json *j, JsonKind kind) { return j && j->kind == kind; }
static inline bool json_absent(const Json *j) { return !j || j->kind == JSON_NULL; } // missing or null
static inline Span json_span(const Source *src, const Json *j) { return (Span){src, j->begin, j->end}; }
const char *json_kind_name(JsonKind kind); // "a string", "an integer", ... for messages

// Writing: canonical text. Strings are escaped as Python's json.dumps(ensure_ascii=False) does.
void json_write_string(StrBuf *out, Str s);
#endif
