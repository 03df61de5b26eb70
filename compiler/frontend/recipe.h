// Recipe: what to compile and how. A YAML file, or a checkpoint folder with the default of every field, then
// the `--set key=value` of the command line, whose values are written as in YAML. recipe.def is the table.
#ifndef ADALLM_COMPILER_RECIPE_H
#define ADALLM_COMPILER_RECIPE_H
#include "compiler/frontend/yaml.h"
#include "runtime/base/cli.h"

enum { RECIPE_BUCKETS_MAX = 8 };

typedef struct {
    uint32_t items[RECIPE_BUCKETS_MAX];
    uint32_t n;
} RecipeList;

typedef const char *RecipePATH, *RecipeTEXT, *RecipeCHOICE; // PATH and TEXT: NULL when not given
typedef int64_t RecipeINT;
typedef RecipeList RecipeLIST;

typedef enum {
#define FIELD(name, ...) RECIPE_##name,
#include "compiler/frontend/recipe.def"
#undef FIELD
    RECIPE_COUNT
} RecipeField;

typedef struct {
#define FIELD(name, kind, ...) Recipe##kind name;
#include "compiler/frontend/recipe.def"
#undef FIELD
    const char *path;      // of the recipe file; NULL when MODEL is a folder
    Span at[RECIPE_COUNT]; // where the value stands; SPAN_NONE for a default
    bool given[RECIPE_COUNT];
} Recipe;

// Reads MODEL: a recipe file, or a checkpoint folder. Paths become relative to the current folder. All
// faults are reported (E_FILE, E_YAML, E_RECIPE_KEY, E_RECIPE_VALUE); false then.
bool recipe_read(Arena *a, const char *path, const OptList *sets, Recipe *out, Diags *d);

// The table of fields as text for `adallmc compile --help`.
void recipe_help(StrBuf *out);
#endif
