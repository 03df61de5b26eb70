// bucket: the steps once for every bucket of their program, as launches on buffers of the bucket's size.
#include <math.h>

#include "compiler/passes/plan_work.h"
#include "runtime/base/num.h"
#include "templates/lib/abi.h"

enum {
    PREFILL_FIRST = 16,
    PREFILL_RATIO = 4,
    GPU_PREFILL_FIRST = 128, // below it the decode kernels are as good
    GPU_PREFILL_RATIO = 2,
    HEAD_ROWS = 16,
    WORK_LEAST = 64 << 10
};

static void add_bucket(BucketList *l, uint32_t n) {
    if (!l->n || l->items[l->n - 1] < n) l->items[l->n++] = n;
}

// BODY: the decode batches, then prefill chunks that grow by a ratio, so that a chunk is never run in a much
// larger bucket. HEAD: the batches and a few rows more, for logits after every token. SAMPLE, ADVANCE: the
// batches.
void plan_buckets(const PassContext *c, const Plan *p, AdaProgramKind kind, BucketList *out) {
    (void)p;
    *out = (BucketList){ARENA_ARRAY(c->arena, uint32_t, c->n_buckets + 20), 0};
    for (uint32_t i = 0; i < c->n_buckets; i++) add_bucket(out, c->buckets[i]);
    if (kind == ADA_PROGRAM_HEAD) add_bucket(out, HEAD_ROWS);
    if (kind != ADA_PROGRAM_BODY) return;
    bool gpu = c->target->half_rows;
    for (uint64_t n = gpu ? GPU_PREFILL_FIRST : PREFILL_FIRST; n < c->prefill_tokens;
         n *= gpu ? GPU_PREFILL_RATIO : PREFILL_RATIO)
        add_bucket(out, (uint32_t)n);
    add_bucket(out, c->prefill_tokens);
}

typedef struct {
    Plan *p;
    PlanWork *w;
    const PassContext *c;
    uint32_t cap_buffers, cap_launches, cap_programs;
    uint32_t role[ADA_ROLE_ROLES]; // -> buffers
    uint32_t table[ADA_KV_GROUPS_MAX], pool[ADA_KV_GROUPS_MAX];
    uint32_t *scratch; // [storages] -> buffers, of the program being made
} Bucket;

static uint32_t add_buffer(Bucket *b, const PlanBuffer *buffer) {
    Plan *p = b->p;
    p->buffers = plan_grow(b->c->arena, p->buffers, p->n_buffers, &b->cap_buffers, sizeof *p->buffers);
    p->buffers[p->n_buffers] = *buffer;
    return p->n_buffers++;
}

// The largest that any launch of any bucket wants; 0: no launch has any.
static uint64_t work_bytes(const Bucket *b) {
    uint64_t most = 0;
    for (uint32_t i = 0; i < b->w->n_steps; i++) {
        const Step *s = &b->w->steps[i];
        for (uint32_t j = 0; j < s->n_args; j++)
            if (s->args[j].kind == OPERAND_ROLE && s->args[j].id == ADA_ROLE_WORK)
                most = MAX(most, WORK_LEAST);
        for (uint32_t j = 0; s->kernels && j < b->w->buckets[s->program].n; j++)
            most = MAX(most, s->kernels[j].choice.work_bytes);
    }
    return most;
}

static uint64_t hidden_row_bytes(const Bucket *b) {
    for (uint32_t i = 0; i < b->w->n_storages; i++)
        if (b->w->storages[i].role == ADA_ROLE_HIDDEN) return b->w->storages[i].row_bytes;
    CHECK(!"the schedule found the hidden state");
    return 0;
}

static void add_states(Bucket *b) {
    const Plan *p = b->p;
    const uint64_t cols = TOKEN_COLS((uint64_t)p->vocab);
    const struct {
        AdaRole role;
        const char *name;
        uint64_t bytes;
    } states[] = {
        {ADA_ROLE_COUNTS, "counts", 16},
        {ADA_ROLE_IDS, "ids", 4ull * p->tokens_max},
        {ADA_ROLE_POS, "pos", 4ull * p->tokens_max},
        {ADA_ROLE_SLOT, "slot", 4ull * p->tokens_max},
        {ADA_ROLE_ROWS, "rows", 4ull * p->rows_max},
        {ADA_ROLE_HIDDEN, "hidden", p->tokens_max * hidden_row_bytes(b)},
        {ADA_ROLE_LOGITS, "logits", 4ull * p->rows_max * p->vocab_rows},
        {ADA_ROLE_SAMPLING, "sampling", sizeof(SamplingRow) * (uint64_t)p->rows_max},
        {ADA_ROLE_NEXT, "next", 4ull * p->rows_max},
        {ADA_ROLE_STATUS, "status", 4ull * p->rows_max},
        {ADA_ROLE_RING, "ring", RING_SLOTS * RING_SLOT_BYTES(p->rows_max)},
        {ADA_ROLE_WORK, "work", work_bytes(b)},
        {ADA_ROLE_TOKEN_COUNTS, "token_counts", 2 * cols * p->seqs_max},
        {ADA_ROLE_TOKEN_LISTS, "token_lists", sizeof(TokenLists) * (uint64_t)p->seqs_max},
        {ADA_ROLE_TOKEN_MASK, "token_mask", cols / 8 * p->seqs_max},
        {ADA_ROLE_LOGPROBS, "logprobs", LOGPROBS_BYTES(p->rows_max)},
    };
    for (size_t i = 0; i < COUNT_OF(states); i++) {
        if (!states[i].bytes) continue;
        bool host = states[i].role == ADA_ROLE_RING || states[i].role == ADA_ROLE_LOGPROBS;
        AdaSpace space = host ? ADA_SPACE_HOST : ADA_SPACE_STATE;
        b->role[states[i].role] = add_buffer(b, &(PlanBuffer){.name = states[i].name,
                                                              .space = space,
                                                              .role = states[i].role,
                                                              .program = UINT32_MAX,
                                                              .bytes = states[i].bytes});
    }
    for (uint32_t g = 0; g < p->n_kv_groups; g++) {
        PlanBuffer table = {.name = arena_printf(b->c->arena, "block_table.%u", g),
                            .space = ADA_SPACE_STATE,
                            .role = ADA_ROLE_BLOCK_TABLE,
                            .index = g,
                            .program = UINT32_MAX,
                            .bytes = 4ull * p->seqs_max * p->kv[g].pages_per_seq};
        b->table[g] = add_buffer(b, &table);
        PlanBuffer pool = {.name = arena_printf(b->c->arena, "kv_pool.%u", g),
                           .space = ADA_SPACE_KV,
                           .role = ADA_ROLE_KV_POOL,
                           .index = g,
                           .program = UINT32_MAX};
        b->pool[g] = add_buffer(b, &pool);
    }
}

static uint32_t storage_buffer(Bucket *b, uint32_t storage, uint32_t program, uint32_t bucket, uint32_t at) {
    const Storage *st = &b->w->storages[storage];
    if (st->role) return b->role[st->role];
    uint32_t *i = &b->scratch[storage];
    if (*i == NO_ID)
        *i = add_buffer(b, &(PlanBuffer){.name = st->name,
                                         .space = ADA_SPACE_SCRATCH,
                                         .program = program,
                                         .bytes = st->row_bytes * bucket,
                                         .first_launch = at});
    b->p->buffers[*i].last_launch = at;
    return *i;
}

static AdaArg make_arg(Bucket *b, Operand o, uint32_t program, uint32_t bucket, uint32_t at) {
    const PlanWork *w = b->w;
    switch (o.kind) {
    case OPERAND_NONE: break;
    case OPERAND_WEIGHT: return (AdaArg){ADA_ARG_WEIGHT, o.id, o.offset};
    case OPERAND_ROLE: return (AdaArg){ADA_ARG_BUFFER, b->role[o.id], 0};
    case OPERAND_TABLE: return (AdaArg){ADA_ARG_BUFFER, b->table[w->kv[o.id].group], 0};
    case OPERAND_POOL: return (AdaArg){ADA_ARG_BUFFER, b->pool[w->kv[o.id].group], w->kv[o.id].page_offset};
    case OPERAND_VALUE: {
        uint32_t buffer = storage_buffer(b, w->storage_of[o.id], program, bucket, at);
        return (AdaArg){ADA_ARG_BUFFER, buffer, w->offset_in[o.id]};
    }
    }
    return (AdaArg){ADA_ARG_NONE, 0, 0};
}

// Rows come from the norm before the product, or the product makes them.
static bool is_read(const Step *s, uint32_t which, uint32_t arg) {
    if (s->norm == NO_ID) return true;
    bool folds = s->kernels[which].choice.spared_us > 0;
    return arg == PRODUCT_X ? !folds : arg == PRODUCT_RESIDUAL || arg == PRODUCT_NORM_W ? folds : true;
}

static void add_launch(Bucket *b, const Step *s, uint32_t program, uint32_t which, uint32_t bucket) {
    Plan *p = b->p;
    if (s->kernels && s->kernels[which].skip) return;
    PlanLaunch l = {.kind = s->kind, .n_args = s->n_args, .count = s->count, .origin = s->origin};
    uint32_t at = p->n_launches - p->programs[program].first_launch;
    for (uint32_t i = 0; i < s->n_args; i++)
        if (is_read(s, which, i)) l.args[i] = make_arg(b, s->args[i], program, bucket, at);
    step_cost(s, bucket, p->seqs_max, &l.bytes_read, &l.bytes_written, &l.flops);
    if (s->kind == ADA_LAUNCH_KERNEL) {
        const StepKernel *k = &s->kernels[which];
        l.kernel = k->kernel;
        l.grid = k->choice.grid;
        l.predicted_us = k->choice.predicted_us;
    } else {
        const Target *t = b->c->target;
        l.rows = bucket, l.cols = s->cols;
        l.predicted_us = t->launch_us + t->barrier_us * p->n_ranks +
                         target_floor_us(t, l.bytes_read + l.bytes_written, l.flops);
    }
    l.predicted_us = floor(l.predicted_us * 100 + 0.5) / 100; // more digits would say more than is known
    p->launches = plan_grow(b->c->arena, p->launches, p->n_launches, &b->cap_launches, sizeof *p->launches);
    p->launches[p->n_launches++] = l;
}

static void add_program(Bucket *b, AdaProgramKind kind, uint32_t which, uint32_t bucket) {
    Plan *p = b->p;
    p->programs = plan_grow(b->c->arena, p->programs, p->n_programs, &b->cap_programs, sizeof *p->programs);
    PlanProgram *program = &p->programs[p->n_programs++];
    *program = (PlanProgram){kind, bucket, p->n_launches, 0};
    for (uint32_t i = 0; i < b->w->n_storages; i++) b->scratch[i] = NO_ID;
    for (uint32_t i = 0; i < b->w->n_steps; i++)
        if (b->w->steps[i].program == kind) add_launch(b, &b->w->steps[i], p->n_programs - 1, which, bucket);
    program->n_launches = p->n_launches - program->first_launch;
}

bool pass_bucket(Plan *p, const PassContext *c, Diags *d) {
    (void)d;
    Bucket b = {.p = p, .w = p->work, .c = c};
    b.scratch = ARENA_ARRAY(c->arena, uint32_t, b.w->n_storages);
    add_states(&b);
    for (int kind = ADA_PROGRAM_BODY; kind < ADA_PROGRAM_KINDS; kind++) {
        const BucketList *l = &b.w->buckets[kind];
        for (uint32_t i = 0; i < l->n; i++) add_program(&b, (AdaProgramKind)kind, i, l->items[i]);
    }
    return true;
}
