// Family: an architecture as data. models/families/NAME.yaml says which configs it serves, where their fields
// stand, which tensors there are and what is computed from them; builder.h makes the graph of it.
//
//     family: NAME
//     matches: {model_type: [...], architectures: [...]}
//     config: FIELD: {key: KEY or [KEYS], default: EXPR or null}   # a field of config.def; no default:
//     required
//             FIELD: {key:, default:, kind: int|real|bool, min:, max:}  # a field that only this family has
//     layer_flags: FLAG: EXPR                 # computed for every `layer`; `sliding` yields to layer_types
//     weights: NAME: {kind:, shape: [EXPR, ...], shard: none|rows|cols, units: EXPR, stack: EXPR, when: EXPR}
//     layer_weights: the same, under model.layers.{layer}.
//     graph: embed, layer, head: lists of steps `- RESULT: op(ARG, ..., attribute=EXPR)`, with `when: EXPR`
//
// In a step, ARG is the result of an earlier step, `ids`, `pos`, `rows`, `inv_freq`, the name of a weight or
// another op(...). `activation(x)` is the op that the config asks for. A last argument whose weight is absent
// (its `when` is false) is left out. {expert} in a name stacks the tensors of all experts.
#ifndef ADALLM_COMPILER_FAMILY_H
#define ADALLM_COMPILER_FAMILY_H
#include "compiler/frontend/config.h"
#include "compiler/frontend/expr.h"
#include "compiler/frontend/yaml.h"
#include "compiler/ir/graph.h"

typedef enum {
    FW_LINEAR,    // of a decoder layer; may be NVFP4
    FW_EMBED,     // the embedding table
    FW_HEAD,      // the output head
    FW_ROUTER,    // stays in 16 bits
    FW_NORM,      // near 1
    FW_NORM_ZERO, // near 0: the graph adds 1
    FW_BIAS,
    FW_KINDS
} FamilyWeightKind;

enum { FAMILY_KEYS_MAX = 4 };

typedef struct {
    ConfigRule rule;
    int field; // ConfigField, or -1: the family's own
    const char *keys[FAMILY_KEYS_MAX];
    uint32_t n_keys;
    bool required;
    const Yaml *preset; // an expression or an activation; NULL: absent (0)
} FamilyField;

typedef struct {
    Str name;
    const Yaml *at; // its key
    FamilyWeightKind kind;
    const Yaml *shape; // list of 1 or 2 expressions
    ShardRule shard;
    const Yaml *units, *stack, *when; // expressions; NULL when not given
} FamilyWeight;

typedef struct {
    Str result;
    const Yaml *call, *when; // `when`: NULL when not given
} FamilyStep;

typedef struct {
    Str name;
    const Yaml *expr;
} FamilyFlag;

typedef enum { FAMILY_EMBED, FAMILY_LAYER, FAMILY_HEAD, FAMILY_PARTS } FamilyPart;
enum { FAMILY_FLAGS_MAX = 16 };

struct Family {
    Source src;
    Str name;
    const Yaml *model_types, *architectures; // lists of text
    FamilyField *fields;
    uint32_t n_fields;
    FamilyFlag flags[FAMILY_FLAGS_MAX];
    uint32_t n_flags;
    FamilyWeight *weights, *layer_weights;
    uint32_t n_weights, n_layer_weights;
    FamilyStep *steps[FAMILY_PARTS];
    uint32_t n_steps[FAMILY_PARTS];
};

// Reads a family file. NULL after located errors (E_FILE, E_YAML, E_FAMILY).
const Family *family_parse(Arena *a, Source src, Diags *d); // src.text must live as long as the family
const Family *family_read(Arena *a, const char *path, Diags *d);

// The built-in family that serves `model_type`. NULL after an E_CONFIG_UNSUPPORTED error at `at` that lists
// what is supported.
const Family *family_builtin(Arena *a, Str model_type, Span at, Diags *d);

bool family_has(const Yaml *list, Str name);
// Place of a scalar's text: inside its quotes when it has some.
Span family_text_span(const Family *f, const Yaml *y);
#endif
