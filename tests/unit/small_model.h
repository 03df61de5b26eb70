// A plan by hand, for tests of artifact, exec and engine: constants for weights, and four kernels whose work
// a test does itself on the null device (null_on_launch). Two KV groups: full attention, and a window that
// wraps.
#ifndef ADALLM_TESTS_SMALL_MODEL_H
#define ADALLM_TESTS_SMALL_MODEL_H
#include "compiler/pack/pack.h"
#include "runtime/base/num.h"
#include "templates/lib/abi.h"

// A test may have more of these; rows at least as many as sequences.
#ifndef SMALL_SEQS
#define SMALL_SEQS   4
#define SMALL_TOKENS 8
#define SMALL_ROWS   4
#endif
#ifndef SMALL_CONTEXT_TOKENS
#define SMALL_CONTEXT_TOKENS 48
#endif
enum {
    SMALL_VOCAB = 61,
    SMALL_CONTEXT = SMALL_CONTEXT_TOKENS,
    SMALL_PAGE = 4,
    SMALL_WINDOW = 6,
    SMALL_FULL_PAGES = SMALL_CONTEXT / SMALL_PAGE,
    SMALL_RING_PAGES = (SMALL_WINDOW - 1 + SMALL_TOKENS + SMALL_PAGE - 1) / SMALL_PAGE,
    SMALL_COLS = 16
};

typedef struct {
    Plan plan;
    PlanBuffer buffers[21];
    PlanKernel kernels[4];
    PlanLaunch launches[8];
    PlanProgram programs[8];
    PlanWeight weights[2];
    Graph *graph;
    PackInput input;
    float logits[3 * 2];
} SmallModel;

static inline uint32_t small_buffer(SmallModel *m, const char *name, AdaSpace space, AdaRole role,
                                    uint32_t index, uint64_t bytes) {
    m->buffers[m->plan.n_buffers] = (PlanBuffer){
        .name = name, .space = space, .role = role, .index = index, .program = UINT32_MAX, .bytes = bytes};
    return m->plan.n_buffers++;
}

static inline void small_program(SmallModel *m, AdaProgramKind kind, uint32_t bucket, const uint32_t *args,
                                 uint32_t n) {
    PlanLaunch *l = &m->launches[m->plan.n_launches];
    *l = (PlanLaunch){.kind = ADA_LAUNCH_KERNEL,
                      .kernel = kind - 1u,
                      .n_args = n,
                      .grid = 1,
                      .count = COUNT_ROWS,
                      .bytes_read = 100,
                      .predicted_us = 1.5,
                      .origin = "by hand"};
    for (uint32_t i = 0; i < n; i++) l->args[i] = (AdaArg){ADA_ARG_BUFFER, args[i], 0};
    m->programs[m->plan.n_programs++] = (PlanProgram){kind, bucket, m->plan.n_launches++, 1};
}

static inline void small_buffers(SmallModel *m) {
    const uint32_t R = SMALL_ROWS, T = SMALL_TOKENS;
    uint32_t counts = small_buffer(m, "counts", ADA_SPACE_STATE, ADA_ROLE_COUNTS, 0, 16);
    uint32_t ids = small_buffer(m, "ids", ADA_SPACE_STATE, ADA_ROLE_IDS, 0, T * 4);
    uint32_t pos = small_buffer(m, "pos", ADA_SPACE_STATE, ADA_ROLE_POS, 0, T * 4);
    uint32_t slot = small_buffer(m, "slot", ADA_SPACE_STATE, ADA_ROLE_SLOT, 0, T * 4);
    uint32_t rows = small_buffer(m, "rows", ADA_SPACE_STATE, ADA_ROLE_ROWS, 0, R * 4);
    uint32_t full = small_buffer(m, "table0", ADA_SPACE_STATE, ADA_ROLE_BLOCK_TABLE, 0,
                                 SMALL_SEQS * SMALL_FULL_PAGES * 4);
    uint32_t ring = small_buffer(m, "table1", ADA_SPACE_STATE, ADA_ROLE_BLOCK_TABLE, 1,
                                 SMALL_SEQS * SMALL_RING_PAGES * 4);
    uint32_t pool0 = small_buffer(m, "pool0", ADA_SPACE_KV, ADA_ROLE_KV_POOL, 0, 0);
    uint32_t pool1 = small_buffer(m, "pool1", ADA_SPACE_KV, ADA_ROLE_KV_POOL, 1, 0);
    uint32_t hidden = small_buffer(m, "hidden", ADA_SPACE_STATE, ADA_ROLE_HIDDEN, 0, T * 4);
    uint32_t logits = small_buffer(m, "logits", ADA_SPACE_STATE, ADA_ROLE_LOGITS, 0, R * SMALL_VOCAB * 4);
    uint32_t sampling =
        small_buffer(m, "sampling", ADA_SPACE_STATE, ADA_ROLE_SAMPLING, 0, R * sizeof(SamplingRow));
    uint32_t next = small_buffer(m, "next", ADA_SPACE_STATE, ADA_ROLE_NEXT, 0, R * 4);
    uint32_t status = small_buffer(m, "status", ADA_SPACE_STATE, ADA_ROLE_STATUS, 0, R * 4);
    const uint32_t cols = TOKEN_COLS(SMALL_VOCAB), S = SMALL_SEQS;
    uint32_t tokens =
        small_buffer(m, "token_counts", ADA_SPACE_STATE, ADA_ROLE_TOKEN_COUNTS, 0, S * cols * 2);
    uint32_t lists =
        small_buffer(m, "token_lists", ADA_SPACE_STATE, ADA_ROLE_TOKEN_LISTS, 0, S * sizeof(TokenLists));
    uint32_t mask = small_buffer(m, "token_mask", ADA_SPACE_STATE, ADA_ROLE_TOKEN_MASK, 0, S * cols / 8);
    uint32_t logprobs =
        small_buffer(m, "logprobs", ADA_SPACE_HOST, ADA_ROLE_LOGPROBS, 0, LOGPROBS_BYTES(SMALL_ROWS));
    uint32_t told =
        small_buffer(m, "told", ADA_SPACE_HOST, ADA_ROLE_RING, 0, RING_SLOTS * RING_SLOT_BYTES(SMALL_ROWS));
    uint32_t scratch = small_buffer(m, "scratch", ADA_SPACE_SCRATCH, ADA_ROLE_NONE, 0, 512);
    const uint32_t body[] = {ids, pos, slot, full, ring, pool0, pool1, hidden, counts, scratch};
    const uint32_t head[] = {hidden, rows, logits, counts},
                   sample[] = {logits, sampling, next, status, counts, tokens, lists, mask, logprobs};
    const uint32_t advance[] = {next, ids, pos, counts, status, told};
    for (uint32_t i = 0; i < 2; i++) { // two buckets of each
        small_program(m, ADA_PROGRAM_BODY, i ? T : 2, body, COUNT_OF(body));
        small_program(m, ADA_PROGRAM_HEAD, i ? R : 1, head, COUNT_OF(head));
        small_program(m, ADA_PROGRAM_SAMPLE, i ? R : 1, sample, COUNT_OF(sample));
        small_program(m, ADA_PROGRAM_ADVANCE, i ? R : 1, advance, COUNT_OF(advance));
    }
}

static inline void small_weights(SmallModel *m, Arena *a) {
    float *data = ARENA_ARRAY(a, float, 40 * SMALL_COLS);
    for (int i = 0; i < 40 * SMALL_COLS; i++) data[i] = (float)i / 8;
    m->graph = graph_new(a);
    Weight matrix = {.name = STR("matrix"), .type = {DT_BF16, 2, {40, SMALL_COLS}}, .data = data};
    Weight vector = {.name = STR("vector"), .type = {DT_F32, 1, {SMALL_COLS}}, .data = data, .add = 1};
    m->weights[0] = (PlanWeight){.name = "matrix",
                                 .layout = ADA_LAYOUT_HOST_BF16,
                                 .weight = graph_add_weight(m->graph, matrix),
                                 .rows = 20,
                                 .cols = SMALL_COLS,
                                 .stack = 2,
                                 .bytes = 2 * 32 * SMALL_COLS * 2};
    m->weights[1] = (PlanWeight){.name = "vector",
                                 .layout = ADA_LAYOUT_ROWS_F32,
                                 .weight = graph_add_weight(m->graph, vector),
                                 .rows = 1,
                                 .cols = SMALL_COLS,
                                 .stack = 1,
                                 .bytes = SMALL_COLS * 4};
}

// Fills *m (which must not move) with a model of n_ranks ranks, ready for pack_artifact.
static inline void small_model(SmallModel *m, Arena *a, uint32_t n_ranks, Pool *pool) {
    static const char *const names[] = {"body", "head", "sample", "advance"};
    static const int32_t ids[] = {1, 2, 3}, columns[] = {0, 60}, eos[] = {7};
    static const PackCode code = {ADA_CODE_X86_64, "code", 4};
    static const PackInputHash input = {"config.json", {{1, 2, 3}}};
    *m = (SmallModel){.logits = {1, 2, 3, 4, 5, 6}};
    small_buffers(m);
    small_weights(m, a);
    for (uint32_t i = 0; i < 4; i++)
        m->kernels[i] = (PlanKernel){.name = names[i], .template_ = names[i], .threads = 1};
    m->plan.arena = a, m->plan.graph = m->graph, m->plan.target = "host";
    m->plan.buffers = m->buffers, m->plan.kernels = m->kernels, m->plan.launches = m->launches;
    m->plan.programs = m->programs, m->plan.weights = m->weights;
    m->plan.n_kernels = 4, m->plan.n_weights = 2, m->plan.n_ranks = n_ranks, m->plan.n_kv_groups = 2;
    m->plan.kv[0] = (AdaKvGroup){0, SMALL_FULL_PAGES, SMALL_PAGE * 4, 1, 0};
    m->plan.kv[1] = (AdaKvGroup){SMALL_WINDOW, SMALL_RING_PAGES, SMALL_PAGE * 4, 1, 0};
    m->plan.vocab_rows = m->plan.vocab = SMALL_VOCAB, m->plan.hidden = m->plan.n_layers = 1;
    m->plan.context = SMALL_CONTEXT, m->plan.seqs_max = SMALL_SEQS, m->plan.tokens_max = SMALL_TOKENS;
    m->plan.rows_max = SMALL_ROWS, m->plan.page_tokens = SMALL_PAGE, m->plan.scratch_bytes = 512;
    m->input = (PackInput){.plan = &m->plan,
                           .code = &code,
                           .n_code = 1,
                           .explain = STR("{\"rejected\": []}"),
                           .pool = pool,
                           .facts = {.model = "small",
                                     .family = "none",
                                     .eos_ids = eos,
                                     .n_eos_ids = 1,
                                     .sampling = {.top_p = 1},
                                     .inputs = &input,
                                     .n_inputs = 1},
                           .selftest = {ids, columns, m->logits, 3, 2, 0.5f}};
}
#endif
