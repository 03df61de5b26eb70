#include "compiler/frontend/model.h"

#include <limits.h>
#include <stdlib.h>

#include "compiler/frontend/builder.h"
#include "compiler/frontend/checkpoint.h"
#include "runtime/base/file.h"
#include "runtime/base/num.h"

enum { NOTES_MAX = 16, NAMES_SHOWN = 4 };

static void note(Arena *a, Model *m, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
static void note(Arena *a, Model *m, const char *fmt, ...) {
    va_list ap;
    if (!m->notes) m->notes = ARENA_ARRAY(a, const char *, NOTES_MAX);
    if (m->n_notes == NOTES_MAX) return;
    va_start(ap, fmt);
    m->notes[m->n_notes++] = arena_vprintf(a, fmt, ap);
    va_end(ap);
}

// ---- files ---------------------------------------------------------------------------------------------

static const char *folder_of(Arena *a, const char *path) {
    const char *slash = strrchr(path, '/');
    return slash ? arena_strndup(a, path, (size_t)(slash - path) + (slash == path)) : ".";
}

// The recipe as a whole, for what is missing in it.
static Span recipe_span(Arena *a, const Recipe *r) {
    Source *src = ARENA_NEW(a, Source);
    src->name = r->path;
    return r->path ? SPAN_FILE(src) : SPAN_NONE;
}

static bool need_checkpoint(Arena *a, const Recipe *r, Diags *d) {
    if (r->model && dir_exists(r->model)) return true;
    if (r->model) {
        diag_error(d, E_FILE, r->at[RECIPE_model], "there is no checkpoint folder `%s`", r->model);
        diag_hint(d,
                  "put the checkpoint there, name another with --set model=FOLDER, or use --random-weights");
    } else {
        diag_error(d, E_RECIPE_VALUE, recipe_span(a, r),
                   "the recipe has no `model`, the folder of a checkpoint");
        diag_hint(d, "add `model: FOLDER`, or use --random-weights");
    }
    return false;
}

// Where config.json is: with random weights the recipe's `config` goes first, else the checkpoint's own.
static const char *find_config(Arena *a, const Recipe *r, ModelOptions o, Diags *d) {
    if (!o.random_weights && !need_checkpoint(a, r, d)) return NULL;
    const char *own = r->model ? path_join(a, r->model, "config.json") : NULL;
    if (own && (!r->config || (!o.random_weights && file_exists(own)))) return own;
    if (!r->config) {
        diag_error(d, E_RECIPE_VALUE, recipe_span(a, r), "the recipe has neither `config` nor `model`");
        return NULL;
    }
    const char *path = dir_exists(r->config) ? path_join(a, r->config, "config.json") : r->config;
    if (file_exists(path)) return path;
    diag_error(d, E_FILE, r->at[RECIPE_config], "there is no configuration at `%s`", path);
    return NULL;
}

static bool find_tokenizer(Arena *a, Model *m, Diags *d) {
    const Recipe *r = &m->recipe;
    const char *places[] = {r->tokenizer, r->model, m->dir};
    for (size_t i = 0; i < COUNT_OF(places) && !m->tokenizer_dir; i++)
        if (places[i] && file_exists(path_join(a, places[i], "tokenizer.json"))) m->tokenizer_dir = places[i];
    if (!r->tokenizer || m->tokenizer_dir == r->tokenizer) return true;
    return diag_error(d, E_FILE, r->at[RECIPE_tokenizer], "there is no tokenizer.json in `%s`", r->tokenizer);
}

// The recipe's name, else that of its file, else that of the checkpoint's folder.
static const char *model_name(Arena *a, const Model *m) {
    if (m->recipe.name) return m->recipe.name;
    const char *path = m->recipe.path;
    char real[PATH_MAX];
    if (!path) path = realpath(m->dir, real) ? real : m->dir;
    const char *slash = strrchr(path, '/');
    Str base = str_of(slash ? slash + 1 : path);
    if (m->recipe.path && str_ends(base, STR(".yaml"))) base.len -= 5;
    return arena_strndup(a, base.ptr, base.len);
}

// ---- weights -------------------------------------------------------------------------------------------

static bool open_checkpoint(Arena *a, Model *m, Diags *d) {
    const char *how = m->recipe.quantize;
    m->checkpoint = checkpoint_open(a, m->recipe.model, d);
    if (!m->checkpoint) return false;
    QuantizePolicy policy = {.method = strcmp(how, "mse") ? QUANT_MAX : QUANT_MSE};
    bool automatic = !strcmp(how, "auto");
    bool wanted = automatic ? !checkpoint_is_quantized(m->checkpoint) : strcmp(how, "none") != 0;
    m->source = source_checkpoint(a, m->checkpoint, wanted ? &policy : NULL, d);
    if (!m->source) return false;
    if (automatic && wanted)
        note(a, m,
             "the checkpoint is not quantised: its linears become NVFP4 (`quantize: max`) while compiling");
    if (m->checkpoint->n_vision)
        note(a, m, "skipped %zu vision or audio tensor%s (%.1f MB)", m->checkpoint->n_vision,
             m->checkpoint->n_vision == 1 ? "" : "s", (double)m->checkpoint->vision_bytes / 1e6);
    return true;
}

// The table of the checkpoint decides; a config may promise fewer rows (padding), never more.
static bool settle_vocab(Arena *a, Model *m, Diags *d) {
    ConfigValue *vocab = &m->config.values[CFG_vocab];
    uint64_t rows = builder_vocab_rows(&m->config, m->source);
    if (rows && vocab->given && rows < (uint64_t)vocab->num)
        return diag_error(d, E_TENSOR_SHAPE, vocab->at,
                          "the vocabulary has %.0f entries, but the embedding table only %llu rows",
                          vocab->num, (unsigned long long)rows);
    if (rows > (uint64_t)config_rules[CFG_vocab].max)
        return diag_error(d, E_TENSOR_SHAPE, vocab->at, "an embedding table of %llu rows is too high",
                          (unsigned long long)rows);
    if (rows && vocab->given && rows > (uint64_t)vocab->num)
        note(a, m, "the embedding table has %llu rows for %.0f entries of the vocabulary",
             (unsigned long long)rows, vocab->num);
    if (rows) vocab->num = (double)rows;
    m->vocab_rows = (uint32_t)vocab->num;
    return true;
}

static void note_unused(Arena *a, Model *m) {
    size_t n;
    const Str *names = source_unused(m->source, a, &n);
    if (!n) return;
    StrBuf list = {0};
    for (size_t i = 0; i < n && i < NAMES_SHOWN; i++)
        buf_printf(&list, "%s" STR_FMT, i ? ", " : "", STR_ARG(names[i]));
    note(a, m, "%zu tensor%s of the checkpoint %s not used: %s%s", n, n == 1 ? "" : "s",
         n == 1 ? "is" : "are", buf_cstr(&list), n > NAMES_SHOWN ? ", ..." : "");
    buf_free(&list);
}

static bool build_graph(Arena *a, Model *m, ModelOptions o, Diags *d) {
    Source *place = ARENA_NEW(a, Source);
    place->name = m->dir;
    BuilderInput in = {.config = &m->config, .source = m->source, .random = o.random_weights, .place = place};
    in.linears = strcmp(m->recipe.quantize, "none") ? WF_NVFP4 : WF_BF16;
    in.a8 = !strcmp(m->recipe.gemm, "w4a8");
    m->head = (BuilderHead){.id = NO_ID};
    bool quantize = strcmp(m->recipe.head, "bf16") != 0;
    m->head.format = strcmp(m->recipe.head, "fp8") ? WF_NVFP4 : WF_E4M3;
    m->head.method = strcmp(m->recipe.quantize, "mse") ? QUANT_MAX : QUANT_MSE;
    if (quantize) in.head = &m->head;
    m->graph = builder_graph(a, &in, d);
    if (m->graph && m->head.kept)
        note(a, m, "the output head is stored in NVFP4 and stays so (`head: %s`)", m->recipe.head);
    if (m->head.kept) m->head.id = NO_ID;
    return m->graph != NULL;
}

// ---- all together --------------------------------------------------------------------------------------

static bool settle_context(Model *m, Diags *d) {
    Recipe *r = &m->recipe;
    int64_t most = config_context_max(&m->config);
    if (r->given[RECIPE_context] && r->context > most)
        return diag_error(d, E_RECIPE_VALUE, r->at[RECIPE_context],
                          "`context` %lld is more than the %lld positions of this model",
                          (long long)r->context, (long long)most);
    r->context = MIN(r->context, most);
    r->chunk = MIN(r->chunk, r->context);
    return true;
}

bool model_open(Arena *a, const char *path, const OptList *sets, ModelOptions o, Model *m, Diags *d) {
    *m = (Model){0};
    if (!recipe_read(a, path, sets, &m->recipe, d)) return false;
    const char *config_path = find_config(a, &m->recipe, o, d);
    if (!config_path) return false;
    bool ok = config_read(a, config_path, m->recipe.family, &m->config, d);
    m->dir = o.random_weights ? folder_of(a, config_path) : m->recipe.model;
    m->name = model_name(a, m);
    ok = find_tokenizer(a, m, d) && ok;
    ok = ok && settle_context(m, d);
    if (o.random_weights)
        m->source = source_random(a, o.has_seed ? o.seed : (uint64_t)m->recipe.seed);
    else
        ok = ok && open_checkpoint(a, m, d);
    if (!ok || !settle_vocab(a, m, d) || !build_graph(a, m, o, d)) return false;
    if (!o.random_weights) note_unused(a, m);
    return true;
}

void model_close(Model *m) {
    checkpoint_close(m->checkpoint);
    m->checkpoint = NULL;
}
