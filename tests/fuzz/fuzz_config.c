// Any bytes as config.json; a model that is accepted must become a graph that the verifier accepts.
#include "compiler/frontend/builder.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { LAYERS_BUILT = 8, EXPERTS_BUILT = 16 }; // bounds time, not what is checked

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    Arena a = {0};
    Diags d = {.arena = &a};
    Config c;
    Source place = {.name = "here"};
    if (config_parse(&a, (Source){"config.json", {(const char *)data, size}}, NULL, &c, &d) &&
        config_int(&c, CFG_layers) <= LAYERS_BUILT && config_int(&c, CFG_experts) <= EXPERTS_BUILT) {
        BuilderInput in = {.config = &c, .source = source_random(&a, 0), .random = true, .linears = WF_NVFP4};
        in.place = &place;
        Graph *g = builder_graph(&a, &in, &d);
        CHECK(g ? graph_verify(g, &d) : d.n_errors > 0);
    }
    arena_free(&a);
    return 0;
}
