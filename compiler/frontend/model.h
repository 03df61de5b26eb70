// Model: from MODEL on the command line to a Graph and its weights. Recipe, config, family, checkpoint.
#ifndef ADALLM_COMPILER_MODEL_H
#define ADALLM_COMPILER_MODEL_H
#include "compiler/frontend/builder.h"
#include "compiler/frontend/config.h"
#include "compiler/frontend/recipe.h"
#include "compiler/frontend/source.h"
#include "compiler/ir/graph.h"

typedef struct {
    bool random_weights; // seeded weights of the right shapes; needs no tensors
    bool has_seed;       // else the recipe's seed
    uint64_t seed;
} ModelOptions;

typedef struct {
    Recipe recipe; // `context` has its final value
    Config config;
    Graph *graph;
    WeightSource *source;
    BuilderHead head;          // id NO_ID: as the checkpoint has it
    Checkpoint *checkpoint;    // NULL with random weights; its files stay mapped until model_close
    const char *name;          // served name
    const char *dir;           // checkpoint folder, else the folder of config.json
    const char *tokenizer_dir; // folder that holds tokenizer.json; NULL when there is none
    uint32_t vocab_rows;       // height of the embedding table, of the logits
    const char **notes;        // lines that the user should see: "skipped 437 vision tensors (814 MB)"
    uint32_t n_notes;
} Model;

// MODEL is a recipe file or a checkpoint folder. All faults that can be found together are reported; false
// then. `out` must not move afterwards (spans and the graph point into it).
bool model_open(Arena *a, const char *path, const OptList *sets, ModelOptions options, Model *out, Diags *d);
void model_close(Model *m); // unmaps the checkpoint; also after a failed model_open
#endif
