// Families: every fixture becomes a graph; small family files show each rule and each complaint.
#include "compiler/frontend/model.h"
#include "runtime/base/num.h"
#include "tests/unit/unit.h"

static Graph *open_fixture(Arena *a, const char *dir, Model *m) {
    Diags d = {.arena = a};
    bool ok = model_open(a, dir, NULL, (ModelOptions){0}, m, &d);
    if (!ok) diags_print(&d, "test", stderr);
    assert_true(ok);
    return m->graph;
}

static uint32_t count(const Graph *g, Op op) {
    uint32_t n = 0;
    for (uint32_t i = 0; i < g->n_nodes; i++) n += g->nodes[i].op == op;
    return n;
}

static void every_fixture_becomes_a_graph(void **state) {
    (void)state;
    static const struct {
        const char *dir;
        uint32_t layers, linears, experts, norms, vocab;
    } fixtures[] = {
        {"tests/golden/models/qwen3", 4, 4 * 7 + 1, 0, 4 * 4 + 1, 672},
        {"tests/golden/models/qwen3-ct", 3, 3 * 7 + 1, 0, 3 * 4 + 1, 672},
        {"tests/golden/models/qwen3-moe", 3, 3 * 5 + 1, 9, 3 * 4 + 1, 672},
        {"tests/golden/models/gemma3", 7, 7 * 7 + 1, 0, 7 * 6 + 1, 672},
        {"tests/golden/models/gemma3-ct", 6, 6 * 7 + 1, 0, 6 * 6 + 1, 672},
        {"tests/golden/models/quantize", 2, 2 * 7 + 1, 0, 2 * 4 + 1, 672},
        {"tests/golden/models/quantize/bf16", 2, 2 * 7 + 1, 0, 2 * 4 + 1, 672},
        {"tests/golden/models/llama", 2, 2 * 7 + 1, 0, 2 * 2 + 1, 680},
        {"tests/golden/models/qwen2", 2, 2 * 7 + 1, 0, 2 * 2 + 1, 651},
    };
    for (size_t i = 0; i < COUNT_OF(fixtures); i++) {
        Arena a = {0};
        Model m;
        Graph *g = open_fixture(&a, fixtures[i].dir, &m);
        assert_int_equal(count(g, OP_attention), fixtures[i].layers);
        assert_int_equal(count(g, OP_linear), fixtures[i].linears);
        assert_int_equal(count(g, OP_expert_linear), fixtures[i].experts);
        assert_int_equal(count(g, OP_rms_norm), fixtures[i].norms);
        assert_int_equal(m.vocab_rows, fixtures[i].vocab);
        Diags d = {.arena = &a};
        assert_true(graph_verify(g, &d));
        model_close(&m);
        arena_free(&a);
    }
}

// Parameters that the graph's weights hold, each tensor once.
static uint64_t parameters(const Graph *g) {
    uint64_t sum = 0;
    for (uint32_t i = 0; i < g->n_weights; i++)
        for (uint32_t p = 0; p < g->weights[i].n_parts; p++)
            sum += g->weights[i].parts[p].rows * g->weights[i].parts[p].cols;
    return sum;
}

static void every_recipe_has_the_published_size(void **state) {
    (void)state;
    static const struct {
        const char *recipe;
        uint64_t parameters; // published counts
    } recipes[] = {
        {"models/qwen3-0.6b.yaml", 596049920},      {"models/qwen3-1.7b.yaml", 1720574976},
        {"models/qwen3-4b.yaml", 4022468096},       {"models/qwen3-8b.yaml", 8190735360},
        {"models/qwen3-14b.yaml", 14768307200},     {"models/qwen3-32b.yaml", 32762123264},
        {"models/qwen3-30b-a3b.yaml", 30532122624}, {"models/gemma3-270m.yaml", 268098176},
        {"models/gemma3-1b.yaml", 999885952},       {"models/gemma3-4b.yaml", 3880263168},
        {"models/gemma3-12b.yaml", 11766034176},    {"models/gemma3-27b.yaml", 27009346304},
        {"models/llama3.2-1b.yaml", 1235814400},    {"models/qwen2.5-0.5b.yaml", 494032768},
    };
    for (size_t i = 0; i < COUNT_OF(recipes); i++) {
        Arena a = {0};
        Diags d = {.arena = &a};
        Model m;
        bool ok = model_open(&a, recipes[i].recipe, NULL, (ModelOptions){.random_weights = true}, &m, &d);
        if (!ok) diags_print(&d, "test", stderr);
        assert_true(ok);
        assert_int_equal(parameters(m.graph), recipes[i].parameters);
        assert_true(graph_verify(m.graph, &d));
        model_close(&m);
        arena_free(&a);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_fixture_becomes_a_graph),
        cmocka_unit_test(every_recipe_has_the_published_size),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
