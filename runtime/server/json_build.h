// Nodes for JSON trees that are made, not parsed: what a chat template gets. All in the caller's arena.
#ifndef ADALLM_SERVER_JSON_BUILD_H
#define ADALLM_SERVER_JSON_BUILD_H
#include "runtime/base/json.h"

typedef struct {
    Arena *arena;
    JsonMember *members;
    uint32_t n, cap;
} JsonObjectBuild;

static inline Json json_of_str(Str s) { return (Json){.kind = JSON_STRING, .s = s}; }
static inline Json json_of_bool(bool b) { return (Json){.kind = JSON_BOOL, .boolean = b}; }

void json_put(JsonObjectBuild *b, Str key, Json value); // replaces a member of that name; key is not copied
Json json_built(const JsonObjectBuild *b);

typedef struct {
    Arena *arena;
    Json *items;
    uint32_t n, cap;
} JsonArrayBuild;
Json *json_append(JsonArrayBuild *b, Json value); // the item, until the next append
Json json_built_array(const JsonArrayBuild *b);
const Json *json_keep(Arena *a, Json value); // a copy in the arena

// The value as text: numbers and strings as they were written, no spaces but one after ':' and ','.
void json_write(StrBuf *out, const Json *j);
#endif
