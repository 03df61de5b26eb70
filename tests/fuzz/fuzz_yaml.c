// Any bytes as YAML, as a recipe's option, and as a family file that is then built.
#include "compiler/frontend/builder.h"
#include "compiler/frontend/recipe.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void as_family(Arena *a, Source src) {
    static const char config[] =
        "{\"model_type\": \"qwen3\", \"vocab_size\": 32, \"hidden_size\": 16, \"intermediate_size\": 32, "
        "\"num_hidden_layers\": 2, \"num_attention_heads\": 2, \"head_dim\": 16}";
    Diags d = {.arena = a};
    Config c;
    const Family *f = family_parse(a, src, &d);
    if (!f || !config_parse(a, (Source){"config.json", str_of(config)}, NULL, &c, &d)) return;
    c.family = f;
    c.extra = ARENA_ARRAY(a, ConfigValue, f->n_fields);
    Source place = {.name = "here"};
    BuilderInput in = {.config = &c, .source = source_random(a, 0), .random = true, .linears = WF_NVFP4};
    in.place = &place;
    Graph *g = builder_graph(a, &in, &d);
    if (g) CHECK(graph_verify(g, &d));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    Arena a = {0};
    Diags d = {.arena = &a};
    Source src = {"fuzz.yaml", {(const char *)data, size}};
    yaml_parse(&a, &src, 0, &d);
    const char *set = arena_strndup(&a, (const char *)data, size);
    Recipe r;
    recipe_read(&a, "/", &(OptList){&set, 1}, &r, &d);
    as_family(&a, src);
    arena_free(&a);
    return 0;
}
