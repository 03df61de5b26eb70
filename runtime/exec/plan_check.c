#include "runtime/exec/plan_check.h"

#include <stdio.h>
#include <string.h>

#include "runtime/base/num.h"
#include "templates/lib/abi.h"

enum { ARGS_MAX = 16, THREADS_MAX = 1024 };
#define BYTES_MAX ((uint64_t)1 << 42) // of a buffer or arena: far above any machine, far below overflow

typedef struct {
    Artifact *a;
    const AdaPlan *p;
    uint64_t at; // offset of the section in the file, for messages
    Err *e;
} PlanChecker;

static bool bad(const PlanChecker *c, const char *row, uint32_t i, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
static bool bad(const PlanChecker *c, const char *row, uint32_t i, const char *fmt, ...) {
    char what[512];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(what, sizeof what, fmt, ap);
    va_end(ap);
    return err_set(c->e, E_ARTIFACT, "plan section (offset %llu): %s %u: %s", (unsigned long long)c->at, row,
                   i, what);
}

// ---- header ----------------------------------------------------------------------------------------------

static bool check_range(const PlanChecker *c, const char *what, uint64_t value, uint64_t min, uint64_t max) {
    if (value >= min && value <= max) return true;
    return err_set(c->e, E_ARTIFACT, "plan section (offset %llu): %s is %llu; %llu to %llu are possible",
                   (unsigned long long)c->at, what, (unsigned long long)value, (unsigned long long)min,
                   (unsigned long long)max);
}

static bool check_numbers(const PlanChecker *c) {
    const AdaPlan *p = c->p;
    return check_range(c, "n_ranks", p->n_ranks, c->a->super->n_ranks, c->a->super->n_ranks) &&
           check_range(c, "n_kv_groups", p->n_kv_groups, 1, ADA_KV_GROUPS_MAX) &&
           check_range(c, "vocab_rows", p->vocab_rows, 1, 1 << 24) &&
           check_range(c, "vocab", p->vocab, 1, p->vocab_rows) &&
           check_range(c, "hidden", p->hidden, 1, 1 << 20) &&
           check_range(c, "n_layers", p->n_layers, 1, 1 << 16) &&
           check_range(c, "context", p->context, 1, 1 << 26) &&
           check_range(c, "tokens_max", p->tokens_max, 1, 1 << 20) &&
           check_range(c, "rows_max", p->rows_max, 1, p->tokens_max) &&
           check_range(c, "seqs_max", p->seqs_max, 1, p->rows_max) &&
           check_range(c, "page_tokens", p->page_tokens, 1, 1 << 16) &&
           check_range(c, "scratch_bytes", p->scratch_bytes, 0, BYTES_MAX);
}

static bool check_kv(const PlanChecker *c) {
    for (uint32_t g = 0; g < c->p->n_kv_groups; g++) {
        const AdaKvGroup *k = &c->p->kv[g];
        uint64_t need = c->p->context; // a ring holds the window of the first token of a chunk, and the chunk
        if (k->window) need = MIN(need, (uint64_t)k->window - 1 + MAX(c->p->tokens_max, c->p->page_tokens));
        if ((uint64_t)k->pages_per_seq * c->p->page_tokens < need || k->pages_per_seq > 1 << 26)
            return bad(c, "KV group", g, "%u pages of %u tokens for a sequence that needs %llu",
                       k->pages_per_seq, c->p->page_tokens, (unsigned long long)need);
        if (!k->page_bytes || k->page_bytes > BYTES_MAX || k->window > 1 << 26)
            return bad(c, "KV group", g, "pages of %llu bytes, window %u", (unsigned long long)k->page_bytes,
                       k->window);
    }
    return true;
}

// ---- tables ----------------------------------------------------------------------------------------------

static bool find_table(const PlanChecker *c, uint64_t bytes, const char *name, AdaTable t, size_t row,
                       const void *out) {
    if (t.offset % (row == 1 ? 1 : 8) || !range_inside(t.offset, (uint64_t)t.count * row, bytes))
        return err_set(c->e, E_ARTIFACT,
                       "plan section (offset %llu): table of %s: %u rows of %zu bytes at %u do not fit "
                       "%llu bytes",
                       (unsigned long long)c->at, name, t.count, row, t.offset, (unsigned long long)bytes);
    *(const void **)out = (const uint8_t *)c->p + t.offset;
    return true;
}

static bool find_tables(const PlanChecker *c, uint64_t bytes) {
    Artifact *a = c->a;
    const AdaPlan *p = c->p;
    if (!find_table(c, bytes, "strings", p->strings, 1, &a->strings) ||
        !find_table(c, bytes, "buffers", p->buffers, sizeof *a->buffers, &a->buffers) ||
        !find_table(c, bytes, "kernels", p->kernels, sizeof *a->kernels, &a->kernels) ||
        !find_table(c, bytes, "launches", p->launches, sizeof *a->launches, &a->launches) ||
        !find_table(c, bytes, "args", p->args, sizeof *a->args, &a->args) ||
        !find_table(c, bytes, "programs", p->programs, sizeof *a->programs, &a->programs) ||
        !find_table(c, bytes, "weights", p->weights, sizeof *a->weights, &a->weights) ||
        !find_table(c, bytes, "bindings", p->bindings, sizeof *a->bindings, &a->bindings) ||
        !find_table(c, bytes, "chains", p->chains, sizeof *a->chains, &a->chains))
        return false;
    uint32_t n = p->strings.count;
    if (!n || a->strings[0] || a->strings[n - 1])
        return err_set(c->e, E_ARTIFACT,
                       "plan section (offset %llu): the string table must begin and end with a zero "
                       "byte",
                       (unsigned long long)c->at);
    return true;
}

// ---- rows ------------------------------------------------------------------------------------------------

static bool string_ok(const PlanChecker *c, const char *row, uint32_t i, uint32_t offset) {
    if (offset < c->p->strings.count) return true;
    return bad(c, row, i, "string %u lies outside the table of %u bytes", offset, c->p->strings.count);
}

static bool check_buffer(const PlanChecker *c, uint32_t i) {
    const AdaBuffer *b = &c->a->buffers[i];
    if (!string_ok(c, "buffer", i, b->name)) return false;
    if (!b->space || b->space >= ADA_SPACE_SPACES || b->role >= ADA_ROLE_ROLES)
        return bad(c, "buffer", i, "space %u, role %u", b->space, b->role);
    if ((b->role == ADA_ROLE_KV_POOL) != (b->space == ADA_SPACE_KV))
        return bad(c, "buffer", i, "KV pools and nothing else live in the KV space");
    if ((b->role == ADA_ROLE_RING || b->role == ADA_ROLE_LOGPROBS) != (b->space == ADA_SPACE_HOST))
        return bad(c, "buffer", i, "ring and logprobs and nothing else live in the host's memory");
    bool grouped = b->role == ADA_ROLE_KV_POOL || b->role == ADA_ROLE_BLOCK_TABLE;
    if (grouped ? b->index >= c->p->n_kv_groups : b->index != 0)
        return bad(c, "buffer", i, "index %u of %u KV groups", b->index, c->p->n_kv_groups);
    if (b->bytes > BYTES_MAX || (!b->bytes && b->space != ADA_SPACE_KV))
        return bad(c, "buffer", i, "%llu bytes", (unsigned long long)b->bytes);
    if (b->program != UINT32_MAX && b->program >= c->p->programs.count)
        return bad(c, "buffer", i, "program %u of %u", b->program, c->p->programs.count);
    if (b->space == ADA_SPACE_SCRATCH) {
        if (b->offset % 256 || !range_inside(b->offset, b->bytes, c->p->scratch_bytes))
            return bad(c, "buffer", i, "%llu bytes at %llu do not fit the scratch arena of %llu",
                       (unsigned long long)b->bytes, (unsigned long long)b->offset,
                       (unsigned long long)c->p->scratch_bytes);
        if (b->first_launch > b->last_launch)
            return bad(c, "buffer", i, "its lifetime ends before it begins");
    } else if (b->offset) {
        return bad(c, "buffer", i, "an offset outside the scratch arena");
    }
    return true;
}

static bool check_kernel(const PlanChecker *c, uint32_t i) {
    const AdaKernel *k = &c->a->kernels[i];
    if (!string_ok(c, "kernel", i, k->name) || !string_ok(c, "kernel", i, k->template_) ||
        !string_ok(c, "kernel", i, k->spec))
        return false;
    const char *name = c->a->strings + k->name;
    size_t n = strlen(name),
           ok = strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_");
    if (!n || n > 255 || n != ok) return bad(c, "kernel", i, "its name is no symbol");
    if (!k->threads || k->threads > THREADS_MAX || k->shared_bytes > (uint64_t)1 << 30)
        return bad(c, "kernel", i, "%u threads, %llu bytes of shared memory", k->threads,
                   (unsigned long long)k->shared_bytes);
    return true;
}

static bool check_weight(const PlanChecker *c, uint32_t i) {
    const AdaWeight *w = &c->a->weights[i];
    if (!string_ok(c, "weight", i, w->name)) return false;
    if (!w->layout || w->layout >= ADA_LAYOUT_LAYOUTS || !w->rows || !w->cols || !w->stack)
        return bad(c, "weight", i, "layout %u, %llu x %llu x %llu", w->layout, (unsigned long long)w->stack,
                   (unsigned long long)w->rows, (unsigned long long)w->cols);
    for (uint32_t r = 0; r < c->p->n_ranks; r++) {
        const AdaBinding *b = artifact_binding(c->a, i, r);
        if (b->offset % 256 || !b->bytes || !range_inside(b->offset, b->bytes, c->a->weight_bytes))
            return bad(c, "weight", i, "rank %u: %llu bytes at %llu do not fit the weights section of %llu",
                       r, (unsigned long long)b->bytes, (unsigned long long)b->offset,
                       (unsigned long long)c->a->weight_bytes);
    }
    return true;
}

// Bytes behind an argument; a KV pool counts as one page, the least it has.
static uint64_t arg_bytes(const PlanChecker *c, const AdaArg *arg) {
    uint64_t bytes = UINT64_MAX;
    if (arg->kind == ADA_ARG_BUFFER) {
        const AdaBuffer *b = &c->a->buffers[arg->index];
        bytes = b->space == ADA_SPACE_KV ? c->p->kv[b->index].page_bytes : b->bytes;
    } else {
        for (uint32_t r = 0; r < c->p->n_ranks; r++)
            bytes = MIN(bytes, artifact_binding(c->a, arg->index, r)->bytes);
    }
    return bytes - MIN(bytes, arg->offset);
}

static bool check_arg(const PlanChecker *c, uint32_t i) {
    const AdaArg *arg = &c->a->args[i];
    if (arg->kind >= ADA_ARG_KINDS) return bad(c, "argument", i, "kind %u", arg->kind);
    if (arg->kind == ADA_ARG_NONE) return true;
    uint32_t n = arg->kind == ADA_ARG_BUFFER ? c->p->buffers.count : c->p->weights.count;
    if (arg->index >= n) return bad(c, "argument", i, "index %u of %u", arg->index, n);
    if (!arg_bytes(c, arg))
        return bad(c, "argument", i, "offset %llu lies behind its end", (unsigned long long)arg->offset);
    return true;
}

static bool check_collective(const PlanChecker *c, uint32_t i) {
    const AdaLaunch *l = &c->a->launches[i];
    uint32_t n_args = l->kind == ADA_LAUNCH_ALL_GATHER ? 2 : 1;
    if (l->n_args != n_args) return bad(c, "launch", i, "a collective with %u arguments", l->n_args);
    if (!l->rows || !l->cols || l->rows > 1 << 24 || l->cols > 1 << 24)
        return bad(c, "launch", i, "a collective over %u x %u", l->rows, l->cols);
    for (uint32_t k = 0; k < n_args; k++) {
        const AdaArg *arg = &c->a->args[l->first_arg + k];
        uint64_t need = (uint64_t)l->rows * l->cols * 4 * (k ? c->p->n_ranks : 1);
        if (arg->kind != ADA_ARG_BUFFER || arg_bytes(c, arg) < need)
            return bad(c, "launch", i, "argument %u has fewer than %llu bytes", k, (unsigned long long)need);
    }
    return true;
}

static bool check_launch(const PlanChecker *c, uint32_t i) {
    const AdaLaunch *l = &c->a->launches[i];
    if (!l->kind || l->kind >= ADA_LAUNCH_KINDS) return bad(c, "launch", i, "kind %u", l->kind);
    if (!string_ok(c, "launch", i, l->origin)) return false;
    if (l->n_args > ARGS_MAX || !range_inside(l->first_arg, l->n_args, c->p->args.count))
        return bad(c, "launch", i, "arguments %u + %u of %u", l->first_arg, l->n_args, c->p->args.count);
    if (l->count > COUNT_ROWS) return bad(c, "launch", i, "count %u", l->count);
    if (l->kind != ADA_LAUNCH_KERNEL) return check_collective(c, i);
    if (l->kernel >= c->p->kernels.count || !l->grid || l->grid > INT32_MAX)
        return bad(c, "launch", i, "kernel %u of %u, grid %u", l->kernel, c->p->kernels.count, l->grid);
    return true;
}

static bool check_program(const PlanChecker *c, uint32_t i) {
    const AdaProgram *p = &c->a->programs[i];
    if (!p->kind || p->kind >= ADA_PROGRAM_KINDS) return bad(c, "program", i, "kind %u", p->kind);
    uint32_t max = p->kind == ADA_PROGRAM_BODY ? c->p->tokens_max : c->p->rows_max;
    if (!p->bucket || p->bucket > max) return bad(c, "program", i, "bucket %u of %u", p->bucket, max);
    if (!range_inside(p->first_launch, p->n_launches, c->p->launches.count))
        return bad(c, "program", i, "launches %u + %u of %u", p->first_launch, p->n_launches,
                   c->p->launches.count);
    return true;
}

// Its launches are of one program and of no other chain.
static bool check_chain(const PlanChecker *c, uint32_t i) {
    const AdaChain *h = &c->a->chains[i];
    if (h->kernel >= c->p->kernels.count || !h->grid || h->grid > INT32_MAX || h->n_launches < 2 ||
        h->n_launches > ADA_CHAIN_LAUNCHES_MAX ||
        !range_inside(h->first_launch, h->n_launches, c->p->launches.count))
        return bad(c, "chain", i, "kernel %u of %u, launches %u + %u of %u, grid %u", h->kernel,
                   c->p->kernels.count, h->first_launch, h->n_launches, c->p->launches.count, h->grid);
    if (i && h->first_launch < c->a->chains[i - 1].first_launch + c->a->chains[i - 1].n_launches)
        return bad(c, "chain", i, "launch %u is of the chain before", h->first_launch);
    if (h->together > 1) return bad(c, "chain", i, "together is %u, not 0 or 1", h->together);
    uint32_t n_args = 0;
    for (uint32_t j = 0; j < h->n_launches; j++) {
        const AdaLaunch *l = &c->a->launches[h->first_launch + j];
        if (l->kind != ADA_LAUNCH_KERNEL) return bad(c, "chain", i, "launch %u runs no kernel", j);
        n_args += l->n_args;
    }
    if (n_args > ADA_CHAIN_ARGS_MAX) return bad(c, "chain", i, "%u arguments", n_args);
    for (uint32_t j = 0; j < c->p->programs.count; j++) {
        const AdaProgram *g = &c->a->programs[j];
        if (h->first_launch >= g->first_launch && h->first_launch - g->first_launch < g->n_launches)
            return h->n_launches <= g->n_launches - (h->first_launch - g->first_launch) ||
                   bad(c, "chain", i, "its launches go beyond program %u", j);
    }
    return bad(c, "chain", i, "launch %u is of no program", h->first_launch);
}

// ---- across tables ---------------------------------------------------------------------------------------

// The runtime reads and writes these; each must be there once and hold a full batch.
static bool check_role(const PlanChecker *c, AdaRole role, uint32_t index, uint64_t need) {
    uint32_t n = 0, found = 0;
    for (uint32_t i = 0; i < c->p->buffers.count; i++)
        if (c->a->buffers[i].role == role && c->a->buffers[i].index == index) n++, found = i;
    const char *name = artifact_role_name(role);
    if (n != 1) return bad(c, "role", role, "%u buffers are %s %u instead of one", n, name, index);
    if (c->a->buffers[found].bytes < need)
        return bad(c, "buffer", found, "%s has %llu bytes and needs %llu", name,
                   (unsigned long long)c->a->buffers[found].bytes, (unsigned long long)need);
    return true;
}

static bool check_roles(const PlanChecker *c) {
    const AdaPlan *p = c->p;
    uint64_t tokens = (uint64_t)p->tokens_max * 4, rows = (uint64_t)p->rows_max * 4;
    for (uint32_t g = 0; g < p->n_kv_groups; g++)
        if (!check_role(c, ADA_ROLE_KV_POOL, g, 0) ||
            !check_role(c, ADA_ROLE_BLOCK_TABLE, g, (uint64_t)p->seqs_max * p->kv[g].pages_per_seq * 4))
            return false;
    return check_role(c, ADA_ROLE_COUNTS, 0, 16) && check_role(c, ADA_ROLE_IDS, 0, tokens) &&
           check_role(c, ADA_ROLE_POS, 0, tokens) && check_role(c, ADA_ROLE_SLOT, 0, tokens) &&
           check_role(c, ADA_ROLE_ROWS, 0, rows) && check_role(c, ADA_ROLE_LOGITS, 0, rows * p->vocab_rows) &&
           check_role(c, ADA_ROLE_SAMPLING, 0, (uint64_t)p->rows_max * sizeof(SamplingRow)) &&
           check_role(c, ADA_ROLE_TOKEN_COUNTS, 0,
                      (uint64_t)p->seqs_max * TOKEN_COLS((uint64_t)p->vocab) * 2) &&
           check_role(c, ADA_ROLE_TOKEN_LISTS, 0, (uint64_t)p->seqs_max * sizeof(TokenLists)) &&
           check_role(c, ADA_ROLE_TOKEN_MASK, 0,
                      (uint64_t)p->seqs_max * TOKEN_COLS((uint64_t)p->vocab) / 8) &&
           check_role(c, ADA_ROLE_RING, 0, RING_SLOTS * RING_SLOT_BYTES(p->rows_max)) &&
           check_role(c, ADA_ROLE_LOGPROBS, 0, LOGPROBS_BYTES(p->rows_max)) &&
           check_role(c, ADA_ROLE_NEXT, 0, rows) && check_role(c, ADA_ROLE_STATUS, 0, rows);
}

// Whatever count may come, a program must hold it.
static bool check_buckets(const PlanChecker *c) {
    static const char *const names[] = {"", "body", "head", "sample", "advance"};
    for (uint32_t kind = ADA_PROGRAM_BODY; kind < ADA_PROGRAM_KINDS; kind++) {
        uint32_t need = kind == ADA_PROGRAM_BODY   ? c->p->tokens_max
                        : kind == ADA_PROGRAM_HEAD ? c->p->rows_max
                                                   : c->p->seqs_max;
        uint32_t largest = 0;
        for (uint32_t i = 0; i < c->p->programs.count; i++)
            if (c->a->programs[i].kind == kind) largest = MAX(largest, c->a->programs[i].bucket);
        if (largest < need)
            return err_set(c->e, E_ARTIFACT,
                           "plan section (offset %llu): the largest %s program holds %u of %u rows",
                           (unsigned long long)c->at, names[kind], largest, need);
    }
    return true;
}

static bool check_rows(const PlanChecker *c, uint32_t n, bool (*check)(const PlanChecker *, uint32_t)) {
    for (uint32_t i = 0; i < n; i++)
        if (!check(c, i)) return false;
    return true;
}

bool plan_check(Artifact *a, const uint8_t *section, uint64_t bytes, Err *e) {
    const AdaPlan *p = (const AdaPlan *)section;
    PlanChecker c = {a, p, 0, e};
    for (uint32_t i = 0; i < a->super->n_sections; i++)
        if (a->sections[i].kind == ADA_PLAN) c.at = a->sections[i].offset;
    if (bytes < sizeof *p || memcmp(p->magic, "ADAPLAN3", 8) != 0)
        return err_set(e, E_ARTIFACT, "plan section (offset %llu): no header of %zu bytes with its magic",
                       (unsigned long long)c.at, sizeof *p);
    a->plan = p;
    if (!check_numbers(&c) || !check_kv(&c) || !find_tables(&c, bytes)) return false;
    if (p->bindings.count != (uint64_t)p->weights.count * p->n_ranks)
        return err_set(e, E_ARTIFACT, "plan section (offset %llu): %u bindings for %u weights of %u ranks",
                       (unsigned long long)c.at, p->bindings.count, p->weights.count, p->n_ranks);
    return check_rows(&c, p->buffers.count, check_buffer) && check_rows(&c, p->kernels.count, check_kernel) &&
           check_rows(&c, p->weights.count, check_weight) && check_rows(&c, p->args.count, check_arg) &&
           check_rows(&c, p->launches.count, check_launch) &&
           check_rows(&c, p->programs.count, check_program) && check_rows(&c, p->chains.count, check_chain) &&
           check_roles(&c) && check_buckets(&c);
}
