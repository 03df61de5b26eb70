#include "runtime/engine/batch.h"

#include <stdlib.h>
#include <string.h>

#include "runtime/base/num.h"

enum {
    NOBODY = UINT32_MAX,
    AHEAD = 2 // decode steps in flight: the device begins one while the host takes the tokens of the last
};

typedef enum { SEQ_FREE, SEQ_PREFILL, SEQ_DECODE, SEQ_ENDED } SeqState;

typedef struct {
    SeqState state;
    int32_t *ids;    // [context]: prompt, then what was generated
    uint32_t n_ids;  // known
    uint32_t cached; // positions [0, cached) stand in the KV cache
    uint32_t limit;  // the sequence ends when it has this many ids
    uint32_t n_prompt;
    uint64_t arrival; // prompts are prefilled in this order
    const int32_t *eos_ids;
    uint32_t n_eos_ids;
    Sampling sampling; // without its bias, which the device has
    bool masked;
} Seq;

struct Batch {
    Arena arena;
    Exec *x;
    const AdaPlan *plan;
    Kv kv;
    Seq *seqs; // [seqs_max]
    uint32_t chunk;
    uint64_t arrivals;
    bool resident; // the device holds ids, positions and sampling rows of row_slot, ready for the next decode
                   // step
    bool dead;
    SamplingStage stage;
    uint32_t n_rows;
    uint32_t
        *row_slot; // [rows_max] which sequence each logits row belongs to; NOBODY: its tokens are dropped
    // Staging for one step.
    int32_t *ids, *pos, *slot; // [tokens_max]
    int32_t *rows;             // [rows_max]
    SamplingRow *sampling;     // [rows_max]
    int32_t *next;             // [rows_max]
    uint32_t *status;          // [rows_max]
    LogprobRow *logprobs;      // [rows_max]
    BatchToken *tokens;        // [rows_max]
};

Batch *batch_new(Exec *x, uint32_t chunk) {
    Batch *b = xmalloc(sizeof *b);
    const AdaPlan *p = exec_plan(x);
    *b = (Batch){.x = x, .plan = p, .chunk = chunk && chunk < p->tokens_max ? chunk : p->tokens_max};
    uint32_t pages[ADA_KV_GROUPS_MAX];
    for (uint32_t g = 0; g < p->n_kv_groups; g++) pages[g] = exec_pages(x, g);
    Arena *a = &b->arena;
    kv_init(&b->kv, a, p, pages);
    b->seqs = ARENA_ARRAY(a, Seq, p->seqs_max);
    for (uint32_t s = 0; s < p->seqs_max; s++) b->seqs[s].ids = ARENA_ARRAY(a, int32_t, p->context);
    b->ids = ARENA_ARRAY(a, int32_t, p->tokens_max);
    b->pos = ARENA_ARRAY(a, int32_t, p->tokens_max);
    b->slot = ARENA_ARRAY(a, int32_t, p->tokens_max);
    b->rows = ARENA_ARRAY(a, int32_t, p->rows_max);
    b->row_slot = ARENA_ARRAY(a, uint32_t, p->rows_max);
    b->sampling = ARENA_ARRAY(a, SamplingRow, p->rows_max);
    b->next = ARENA_ARRAY(a, int32_t, p->rows_max);
    b->status = ARENA_ARRAY(a, uint32_t, p->rows_max);
    b->logprobs = ARENA_ARRAY(a, LogprobRow, p->rows_max);
    b->tokens = ARENA_ARRAY(a, BatchToken, p->rows_max);
    b->stage = sampling_stage(a, p);
    return b;
}

void batch_free(Batch *b) {
    if (!b) return;
    exec_forget(b->x);
    arena_free(&b->arena);
    free(b);
}

// ---- entering and leaving --------------------------------------------------------------------------------

static bool check_request(const Batch *b, const Request *r, Err *e) {
    if (!r->n_ids) return err_set(e, E_IDS, "the prompt has no tokens; at least one is needed");
    if (r->n_ids >= b->plan->context)
        return err_set(e, E_CONTEXT,
                       "the prompt has %u tokens; the context of %u leaves room for %u and an answer",
                       r->n_ids, b->plan->context, b->plan->context - 1);
    for (uint32_t i = 0; i < r->n_ids; i++)
        if (r->ids[i] < 0 || (uint32_t)r->ids[i] >= b->plan->vocab_rows)
            return err_set(e, E_IDS, "token %u of the prompt is %d, outside the vocabulary of %u", i,
                           r->ids[i], b->plan->vocab_rows);
    return sampling_check(&r->sampling, b->plan, r->n_eos_ids, e);
}

static uint32_t limit_of(const Batch *b, const Request *r) {
    uint32_t room = b->plan->context - r->n_ids;
    return r->n_ids + (r->max_tokens && r->max_tokens < room ? r->max_tokens : room);
}

static bool upload_tables(Batch *b, uint32_t slot, Err *e) {
    ExecWrite w[ADA_KV_GROUPS_MAX];
    for (uint32_t g = 0; g < b->kv.n_groups; g++) {
        const KvGroup *k = &b->kv.groups[g];
        uint64_t bytes = (uint64_t)k->pages_per_seq * sizeof *k->table;
        w[g] = (ExecWrite){ADA_ROLE_BLOCK_TABLE, g, slot * bytes, bytes,
                           k->table + (size_t)slot * k->pages_per_seq};
    }
    return exec_step(b->x, &(ExecStep){.writes = w, .n_writes = b->kv.n_groups}, e);
}

// Takes the pages for the whole life of the sequence at once: none can run out between two tokens.
static bool enter(Batch *b, uint32_t slot, const Request *r, uint32_t cached, Err *e) {
    Seq *s = &b->seqs[slot];
    uint32_t limit = limit_of(b, r);
    bool changed;
    if (!kv_reserve(&b->kv, slot, limit, &changed))
        return err_set(e, E_MEMORY, "no free KV pages for a sequence of up to %u tokens", limit);
    if ((changed && !upload_tables(b, slot, e)) ||
        !sampling_enter(&b->stage, b->x, slot, &r->sampling, r->ids, r->n_ids, r->eos_ids, r->n_eos_ids, e)) {
        b->dead = true;
        return false;
    }
    memcpy(s->ids, r->ids, r->n_ids * sizeof *s->ids);
    s->n_ids = s->n_prompt = r->n_ids;
    s->cached = cached, s->limit = limit;
    s->eos_ids = r->eos_ids, s->n_eos_ids = r->n_eos_ids;
    s->sampling = r->sampling, s->masked = false;
    s->arrival = b->arrivals++;
    s->state = SEQ_PREFILL;
    return true;
}

bool batch_add(Batch *b, const Request *r, uint32_t *slot, Err *e) {
    if (!check_request(b, r, e)) return false;
    for (uint32_t i = 0; i < b->plan->seqs_max; i++)
        if (b->seqs[i].state == SEQ_FREE) {
            *slot = i;
            return enter(b, i, r, 0, e);
        }
    return err_set(e, E_MEMORY, "all %u slots are taken", b->plan->seqs_max);
}

bool batch_continue(Batch *b, uint32_t slot, const Request *r, uint32_t *reused, Err *e) {
    Seq *s = &b->seqs[slot];
    CHECK(s->state == SEQ_ENDED);
    if (!check_request(b, r, e)) return false;
    uint32_t keep = 0; // the last token is always computed: its logits are wanted
    while (keep < s->cached && keep + 1 < r->n_ids && s->ids[keep] == r->ids[keep]) keep++;
    *reused = keep = kv_can_rewind(&b->kv, s->cached, keep) ? keep : 0;
    return enter(b, slot, r, keep, e);
}

// Nobody takes the tokens that the steps in flight draw for this slot.
static bool drop_row(Batch *b, uint32_t slot) { // false: there are none
    bool dropped = false;
    for (uint32_t r = 0; r < b->n_rows && exec_in_flight(b->x); r++)
        if (b->row_slot[r] == slot) b->row_slot[r] = NOBODY, dropped = true;
    return dropped;
}

void batch_release(Batch *b, uint32_t slot) {
    if (b->seqs[slot].state == SEQ_DECODE) b->resident = false;
    drop_row(b, slot);
    kv_release(&b->kv, slot);
    b->seqs[slot].state = SEQ_FREE;
}

// A step in flight draws under the old rule: its token is drawn again.
static bool take_back(Batch *b, uint32_t slot, Err *e) {
    Seq *s = &b->seqs[slot];
    if (!drop_row(b, slot)) return true;
    b->resident = false;
    s->cached = s->n_ids - 1;
    return sampling_recount(&b->stage, b->x, slot, &s->sampling, s->ids, s->n_prompt, s->n_ids, e);
}

bool batch_allow(Batch *b, uint32_t slot, const uint32_t *mask, Err *e) {
    Seq *s = &b->seqs[slot];
    const uint64_t bytes = TOKEN_COLS((uint64_t)b->plan->vocab) / 8;
    const ExecWrite write = {ADA_ROLE_TOKEN_MASK, 0, slot * bytes, bytes, mask};
    CHECK(s->state == SEQ_PREFILL || s->state == SEQ_DECODE);
    if (s->masked != (mask != NULL) && s->state == SEQ_DECODE) b->resident = false; // its row changes
    s->masked = mask != NULL;
    if (take_back(b, slot, e) && (!mask || exec_step(b->x, &(ExecStep){.writes = &write, .n_writes = 1}, e)))
        return true;
    b->dead = true;
    return false;
}

// ---- stepping --------------------------------------------------------------------------------------------

static void add_row(Batch *b, uint32_t slot, uint32_t token) {
    const Seq *s = &b->seqs[slot];
    b->rows[b->n_rows] = (int32_t)token;
    b->sampling[b->n_rows] =
        sampling_row(&s->sampling, slot, s->n_ids - s->n_prompt, s->n_eos_ids, s->masked);
    b->row_slot[b->n_rows++] = slot;
}

static uint32_t add_tokens(Batch *b, uint32_t at, uint32_t slot, uint32_t n) {
    Seq *s = &b->seqs[slot];
    for (uint32_t i = 0; i < n; i++) {
        b->ids[at + i] = s->ids[s->cached + i];
        b->pos[at + i] = (int32_t)(s->cached + i);
        b->slot[at + i] = (int32_t)slot;
    }
    s->cached += n;
    return at + n;
}

static uint32_t oldest_prefill(const Batch *b, uint64_t after) { // slot; UINT32_MAX: none
    uint32_t best = UINT32_MAX;
    for (uint32_t i = 0; i < b->plan->seqs_max; i++)
        if (b->seqs[i].state == SEQ_PREFILL && b->seqs[i].arrival >= after &&
            (best == UINT32_MAX || b->seqs[i].arrival < b->seqs[best].arrival))
            best = i;
    return best;
}

// Fills one step with prompt tokens, oldest request first; returns how many.
static uint32_t compose_prefill(Batch *b) {
    uint32_t n = 0;
    b->n_rows = 0;
    for (uint32_t slot = oldest_prefill(b, 0); slot != UINT32_MAX && n < b->plan->tokens_max;
         slot = oldest_prefill(b, b->seqs[slot].arrival + 1)) {
        Seq *s = &b->seqs[slot];
        uint32_t room = MIN(b->chunk, b->plan->tokens_max - n);
        n = add_tokens(b, n, slot, MIN(room, s->n_ids - s->cached));
        if (s->cached == s->n_ids) add_row(b, slot, n - 1);
    }
    return n;
}

static uint32_t compose_decode(Batch *b) {
    uint32_t n = 0;
    b->n_rows = 0;
    for (uint32_t slot = 0; slot < b->plan->seqs_max; slot++) {
        if (b->seqs[slot].state != SEQ_DECODE) continue;
        add_row(b, slot, n);
        n = add_tokens(b, n, slot, 1);
    }
    return n;
}

static bool logprobs_wanted(const Batch *b) {
    for (uint32_t r = 0; r < b->n_rows; r++)
        if (b->row_slot[r] != NOBODY && b->seqs[b->row_slot[r]].sampling.logprobs) return true;
    return false;
}

// Launches what was composed. With reads the step has ended when this returns.
static bool run_step(Batch *b, uint32_t n_tokens, bool advance, const ExecRead *reads, uint32_t n_reads,
                     Err *e) {
    uint32_t counts[] = {[COUNT_TOKENS] = n_tokens, [COUNT_ROWS] = b->n_rows};
    uint64_t t = n_tokens * sizeof(int32_t), r = b->n_rows * sizeof(int32_t);
    const ExecWrite writes[] = {
        {ADA_ROLE_COUNTS, 0, 0, sizeof counts, counts},
        {ADA_ROLE_IDS, 0, 0, t, b->ids},
        {ADA_ROLE_POS, 0, 0, t, b->pos},
        {ADA_ROLE_SLOT, 0, 0, t, b->slot},
        {ADA_ROLE_ROWS, 0, 0, r, b->rows},
        {ADA_ROLE_SAMPLING, 0, 0, b->n_rows * sizeof(SamplingRow), b->sampling},
    };
    ExecStep step = {.writes = writes,
                     .n_writes = COUNT_OF(writes),
                     .body_tokens = n_tokens,
                     .head_rows = b->n_rows,
                     .sample_rows = b->n_rows,
                     .advance_rows = advance ? b->n_rows : 0,
                     .reads = reads,
                     .n_reads = n_reads};
    return exec_step(b->x, &step, e);
}

static SeqEnd end_of(const Batch *b, const Seq *s, int32_t id) {
    for (uint32_t i = 0; i < s->n_eos_ids; i++)
        if (s->eos_ids[i] == id) return SEQ_EOS;
    if (s->n_ids < s->limit) return SEQ_GOES_ON;
    return s->limit == b->plan->context ? SEQ_CONTEXT : SEQ_MAX_TOKENS;
}

static bool take_tokens(Batch *b, uint32_t *n, Err *e) {
    for (uint32_t r = 0; r < b->n_rows; r++) {
        uint32_t slot = b->row_slot[r];
        if (slot == NOBODY) continue;
        Seq *s = &b->seqs[slot];
        if (b->status[r] == ROW_NONE_ALLOWED)
            return err_set(e, E_SAMPLING, "sequence %u may draw no token at all after %u tokens", slot,
                           s->n_ids);
        if (b->status[r] != ROW_OK)
            return err_set(e, E_NUMERIC, "the logits of sequence %u after %u tokens are not finite", slot,
                           s->n_ids);
        if (b->next[r] < 0 || (uint32_t)b->next[r] >= b->plan->vocab)
            return err_set(e, E_DEVICE, "the sampler gave token %d, outside the vocabulary of %u", b->next[r],
                           b->plan->vocab);
        s->ids[s->n_ids++] = b->next[r];
        SeqEnd end = end_of(b, s, b->next[r]);
        s->state = end == SEQ_GOES_ON ? SEQ_DECODE : SEQ_ENDED;
        if (end != SEQ_GOES_ON) b->resident = false, b->row_slot[r] = NOBODY;
        b->tokens[(*n)++] =
            (BatchToken){slot, b->next[r], end, s->sampling.logprobs ? &b->logprobs[r] : NULL};
    }
    return true;
}

// ---- prefill ---------------------------------------------------------------------------------------------

static bool prefill(Batch *b, uint32_t *n, Err *e) {
    b->resident = false;
    uint32_t n_tokens = compose_prefill(b);
    uint64_t r = b->n_rows * sizeof(int32_t), l = logprobs_wanted(b) ? b->n_rows * sizeof(LogprobRow) : 0;
    const ExecRead reads[] = {
        {ADA_ROLE_NEXT, 0, r, b->next},
        {ADA_ROLE_STATUS, 0, r, b->status},
        {ADA_ROLE_LOGPROBS, exec_ring_slot(b->x) * sizeof(LogprobRow) * b->plan->rows_max, l, b->logprobs}};
    return run_step(b, n_tokens, false, reads, COUNT_OF(reads), e) && take_tokens(b, n, e);
}

// ---- decode ----------------------------------------------------------------------------------------------

// Whether the batch will be the same when the steps in flight have ended, but for sequences that end by
// themselves: their further tokens are dropped. A masked sequence waits for its next mask.
static bool may_repeat(const Batch *b) {
    const uint32_t ahead = exec_in_flight(b->x);
    if (!b->resident || ahead == AHEAD) return false;
    for (uint32_t r = 0; r < b->n_rows; r++) {
        const Seq *s = &b->seqs[b->row_slot[r]];
        if (s->n_ids + ahead >= s->limit || (ahead && s->masked)) return false;
    }
    return true;
}

// The device advanced ids, positions and sampling by itself: only the books are kept here.
static bool repeat_decode(Batch *b, Err *e) {
    const uint32_t n = b->n_rows;
    for (uint32_t r = 0; r < n; r++) b->seqs[b->row_slot[r]].cached++;
    return exec_step(b->x, &(ExecStep){.body_tokens = n, .head_rows = n, .sample_rows = n, .advance_rows = n},
                     e);
}

static bool take_ring(Batch *b, uint32_t *n, Err *e) {
    ExecTokens t;
    if (!exec_tokens(b->x, &t, e)) return false;
    memcpy(b->next, t.next, b->n_rows * sizeof *b->next);
    memcpy(b->status, t.status, b->n_rows * sizeof *b->status);
    if (logprobs_wanted(b)) memcpy(b->logprobs, t.logprobs, b->n_rows * sizeof *b->logprobs);
    return take_tokens(b, n, e);
}

static bool decode(Batch *b, uint32_t *n, Err *e) {
    if (!b->resident && !exec_in_flight(b->x)) {
        uint32_t n_tokens = compose_decode(b);
        if (!n_tokens) return true;
        b->resident = true;
        if (!run_step(b, n_tokens, true, NULL, 0, e)) return false;
    }
    while (may_repeat(b))
        if (!repeat_decode(b, e)) return false;
    return take_ring(b, n, e);
}

// ---- all together ----------------------------------------------------------------------------------------

static bool awaits_tokens(const Batch *b) {
    for (uint32_t r = 0; r < b->n_rows && exec_in_flight(b->x); r++)
        if (b->row_slot[r] != NOBODY) return true;
    return false;
}

bool batch_prefilling(const Batch *b) { return !awaits_tokens(b) && oldest_prefill(b, 0) != UINT32_MAX; }

bool batch_step(Batch *b, const BatchToken **tokens, uint32_t *n, Err *e) {
    *tokens = b->tokens, *n = 0;
    if (b->dead) return err_set(e, E_DEVICE, "the batch failed before");
    if (!awaits_tokens(b)) exec_forget(b->x);
    bool ok = batch_prefilling(b) ? prefill(b, n, e) : decode(b, n, e);
    b->dead = !ok;
    return ok;
}

bool batch_busy(const Batch *b) {
    for (uint32_t i = 0; i < b->plan->seqs_max; i++)
        if (b->seqs[i].state == SEQ_PREFILL || b->seqs[i].state == SEQ_DECODE) return true;
    return false;
}

bool batch_consistent(const Batch *b) {
    for (uint32_t i = 0; i < b->plan->seqs_max; i++) {
        const Seq *s = &b->seqs[i];
        bool holds = false;
        for (uint32_t g = 0; g < b->kv.n_groups; g++) holds |= b->kv.groups[g].held[i] != 0;
        if (holds != (s->state != SEQ_FREE)) return false;
        if (s->state != SEQ_FREE &&
            (s->cached > s->n_ids + (b->dead ? RING_SLOTS : 0) || // a failed step may leave others in flight
             s->n_ids > s->limit || s->limit > b->plan->context))
            return false;
    }
    return kv_consistent(&b->kv);
}
