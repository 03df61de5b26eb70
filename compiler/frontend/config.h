// Config: what config.json and generation_config.json of a checkpoint say, under the names of config.def,
// whatever generation of Hugging Face files they come from. Every value is checked against its range; what
// the compiler cannot run is refused by name.
#ifndef ADALLM_COMPILER_CONFIG_H
#define ADALLM_COMPILER_CONFIG_H
#include "compiler/frontend/expr.h"
#include "compiler/frontend/rope.h"
#include "runtime/base/json.h"

typedef struct Family Family;

typedef enum { CONFIG_INT, CONFIG_REAL, CONFIG_BOOL, CONFIG_ACT, CONFIG_INTS, CONFIG_TYPES } ConfigKind;

typedef enum {
#define FIELD(name, ...) CFG_##name,
#include "compiler/frontend/config.def"
#undef FIELD
    CFG_COUNT
} ConfigField;

// A row of config.def, or a field that only one family has.
typedef struct {
    const char *name;
    ConfigKind kind;
    double min, max; // inclusive, of numbers
    int64_t multiple;
} ConfigRule;
extern const ConfigRule config_rules[CFG_COUNT];

typedef struct {
    bool given; // by the file; else the family's default
    Span at;    // where the value stands, or the file as a whole
    ConfigKind kind;
    double num;          // INT (exact), REAL, BOOL (0, 1); 0 when absent
    const char *act;     // ACT: the op of op.def, "silu"
    const int64_t *ints; // INTS; TYPES: 1 for a sliding layer
    uint32_t n_ints;
} ConfigValue;

enum { CONFIG_EOS_MAX = 16 };

// Defaults for sampling, from generation_config.json.
typedef struct {
    bool do_sample, has_temperature, has_top_k, has_top_p, has_min_p;
    double temperature, top_p, min_p;
    int64_t top_k;
} GenerationDefaults;

typedef struct {
    Source src, generation_src;
    const char *model_type;
    const Family *family;
    ConfigValue values[CFG_COUNT];
    ConfigValue *extra; // [family's own fields], in the order of the family
    uint32_t n_extra;
    RopeSpec rope_full, rope_sliding; // equal unless the family or the file tells them apart
    int32_t eos[CONFIG_EOS_MAX];      // generation_config.json's, else config.json's
    uint32_t n_eos;
    int32_t bos; // -1: none
    GenerationDefaults generation;
} Config;

static inline int64_t config_int(const Config *c, ConfigField f) { return (int64_t)c->values[f].num; }
static inline double config_real(const Config *c, ConfigField f) { return c->values[f].num; }
static inline bool config_bool(const Config *c, ConfigField f) { return c->values[f].num != 0; }

// Reads `path` (config.json) and the generation_config.json beside it. `family_path`: a family file, or NULL
// to choose a built-in one by model_type. All faults are reported (E_FILE, E_JSON, E_CONFIG_*, E_FAMILY);
// false then. `out` must not move afterwards (spans point into it).
bool config_read(Arena *a, const char *path, const char *family_path, Config *out, Diags *d);

// The same for the text of config.json alone; src.text must live as long as `out`.
bool config_parse(Arena *a, Source src, const char *family_path, Config *out, Diags *d);

// The value of a field by the name that config.def or the family gives it; false: there is none.
bool config_lookup(const Config *c, Str name, ExprValue *out);
const char *const *config_names(size_t *n); // those of config.def, for "did you mean"

// Longest sequence that the positions of this model allow; YaRN stretches it.
int64_t config_context_max(const Config *c);
#endif
