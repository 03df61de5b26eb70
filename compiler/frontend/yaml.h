// YAML as a small tree in an arena, every node with its place in the text: the part of YAML that recipes and
// family files use. Read with libyaml's event API under limits of our own; anchors, aliases, tags, merge
// keys, directives, several documents and duplicate keys are refused.
#ifndef ADALLM_COMPILER_YAML_H
#define ADALLM_COMPILER_YAML_H
#include "runtime/base/diag.h"

enum { YAML_BYTES_MAX = 256 << 10, YAML_DEPTH_MAX = 16, YAML_EVENTS_MAX = 10000 };

typedef enum { YAML_SCALAR, YAML_LIST, YAML_MAP } YamlKind;

typedef struct Yaml Yaml;
typedef struct YamlMember YamlMember;
struct Yaml {
    YamlKind kind;
    bool plain;        // a scalar without quotes: only such a scalar can be a number, a boolean or null
    uint32_t n;        // items of a list, members of a map
    size_t begin, end; // byte offsets in the source text
    Str s;             // text of a scalar, without NUL bytes
    union {
        const Yaml *items;         // YAML_LIST
        const YamlMember *members; // YAML_MAP, in the order of the file
    };
};
struct YamlMember {
    Yaml key; // a scalar
    Yaml value;
};

// Parses src->text from `from` on, one document. An empty text is an empty map. On failure adds one located
// error (E_YAML) and returns NULL.
const Yaml *yaml_parse(Arena *a, const Source *src, size_t from, Diags *d);

// Reads a file and parses it; *src lives in the arena. NULL after an error (E_FILE, E_LIMIT, E_YAML).
const Yaml *yaml_read(Arena *a, const char *path, const Source **src, Diags *d);

const YamlMember *yaml_find(const Yaml *map, const char *key); // NULL when absent or not a map
const Yaml *yaml_get(const Yaml *map, const char *key);        // its value
bool yaml_is_null(const Yaml *y);                              // plain `null`, `~` or nothing
const char *yaml_kind_name(const Yaml *y); // "a list", "a map", "text", "nothing", for messages
static inline Span yaml_span(const Source *src, const Yaml *y) { return (Span){src, y->begin, y->end}; }
#endif
