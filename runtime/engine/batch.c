#include "runtime/engine/batch.h"

#include <stdlib.h>

#include "runtime/base/num.h"
#include "runtime/engine/batch_state.h"

// ---- opening ---------------------------------------------------------------------------------------------

static bool set_option(const char *name, uint32_t *value, uint32_t least, uint32_t most, Err *e) {
    if (!*value) *value = most;
    if (*value >= least && *value <= most) return true;
    return err_set(e, E_OPTION_VALUE, "%s is %u; this artifact allows %u to %u", name, *value, least, most);
}

// Every sequence that runs gets a token in a step, and a row.
static bool set_options(Batch *b, const BatchOptions *o, Err *e) {
    const AdaPlan *p = b->plan;
    if (o) b->options = *o;
    BatchOptions *v = &b->options;
    return set_option("max_num_seqs", &v->seqs, 1, p->seqs_max, e) &&
           set_option("max_num_batched_tokens", &v->tokens, v->seqs, p->tokens_max, e) &&
           set_option("max_model_len", &v->context, 1, p->context, e) &&
           set_option("chunk", &v->chunk, 1, UINT32_MAX, e);
}

static void set_up(Batch *b) {
    const AdaPlan *p = b->plan;
    Arena *a = &b->arena;
    b->limits = (SeqLimits){.plan = p, .context = b->options.context};
    for (uint32_t g = 0; g < p->n_kv_groups; g++) b->limits.pages[g] = exec_pages(b->x, g);
    kv_init(&b->kv, a, p, b->limits.pages);
    b->slots = ARENA_ARRAY(a, Slot, p->seqs_max);
    b->running = ARENA_ARRAY(a, Seq *, p->seqs_max);
    for (uint32_t i = 0; i < STEPS; i++) {
        b->steps[i].rows = ARENA_ARRAY(a, Row, p->rows_max);
        b->steps[i].chunks = ARENA_ARRAY(a, Chunk, p->seqs_max);
    }
    b->ids = ARENA_ARRAY(a, int32_t, p->tokens_max);
    b->pos = ARENA_ARRAY(a, int32_t, p->tokens_max);
    b->slot = ARENA_ARRAY(a, int32_t, p->tokens_max);
    b->rows = ARENA_ARRAY(a, int32_t, p->rows_max);
    b->sampling = ARENA_ARRAY(a, SamplingRow, p->rows_max);
    b->masks = ARENA_ARRAY(a, uint32_t, p->seqs_max * (TOKEN_COLS((size_t)p->vocab) / 32));
    b->writes = ARENA_ARRAY(a, ExecWrite, 8 + p->seqs_max * (p->n_kv_groups + 1));
    b->prompt_rows = ARENA_ARRAY(a, PromptRow, p->rows_max);
    b->guesses = ARENA_ARRAY(a, int32_t, p->rows_max);
    b->tokens = ARENA_ARRAY(a, BatchToken, p->rows_max);
    b->stage = sampling_stage(a, p);
}

Batch *batch_new(Exec *x, const BatchOptions *o, Err *e) {
    Batch *b = xmalloc(sizeof *b);
    *b = (Batch){.x = x, .plan = exec_plan(x)};
    if (!set_options(b, o, e)) {
        free(b);
        return NULL;
    }
    set_up(b);
    return b;
}

void batch_free(Batch *b) {
    if (!b) return;
    exec_forget(b->x);
    arena_free(&b->arena);
    free(b);
}

// ---- coming and going ------------------------------------------------------------------------------------

void batch_add(Batch *b, Seq *s) {
    CHECK(s->state == SEQ_NEW);
    s->arrival = b->arrivals++;
    line_add(b, s);
}

// Nobody awaits what is in flight: its slots and pages are free at once.
static void forget_steps(Batch *b) {
    if (b->n_running || !(batch_in_flight(b) || b->n_leaving)) return;
    exec_forget(b->x);
    b->n_taken = b->n_launched, b->pending = NULL;
    b->carried = 0, b->steady = false;
    line_settle(b);
}

void batch_remove(Batch *b, Seq *s) {
    if (s->state == SEQ_WAITING) line_remove(b, s);
    if (s->state == SEQ_PREFILL || s->state == SEQ_DECODE) line_leave(b, s, false);
    s->state = SEQ_ENDED;
    forget_steps(b);
}

// ---- stepping --------------------------------------------------------------------------------------------

// Once nothing is in flight the host knows every token, and nobody leaves behind a row.
static void settle(Batch *b) {
    if (batch_in_flight(b)) return;
    line_settle(b);
    if (!b->steady || b->options.speculate) b->carried = 0;
}

static bool launch_ahead(Batch *b, Err *e) {
    const uint32_t ahead = b->options.speculate ? 1 : AHEAD; // guesses follow from known tokens
    while (!b->pending && batch_in_flight(b) < ahead) {
        Step *t = &b->steps[b->n_launched % STEPS];
        settle(b);
        if (!line_admit(b, e)) return false;
        if (compose(b, t) != COMPOSED) return true;
        if (!launch(b, t, e)) return false;
        if (b->pending && batch_in_flight(b) == 1 && !launch_draws(b, e)) return false;
    }
    return true;
}

static bool take_oldest(Batch *b, uint32_t *n, Err *e) {
    if (batch_in_flight(b) && !take(b, n, e)) return false;
    return !b->pending || launch_draws(b, e);
}

bool batch_step(Batch *b, const BatchToken **tokens, uint32_t *n, Err *e) {
    *tokens = b->tokens, *n = 0;
    b->last_step = (BatchStep){0};
    if (b->dead) return err_set(e, E_DEVICE, "the batch failed before");
    b->dead = !launch_ahead(b, e) || !take_oldest(b, n, e);
    forget_steps(b);
    return !b->dead;
}

// ---- looking ---------------------------------------------------------------------------------------------

const SeqLimits *batch_limits(const Batch *b) { return &b->limits; }
bool batch_busy(const Batch *b) { return b->n_running || b->n_waiting; }
uint32_t batch_running(const Batch *b) { return b->n_running; }
const Seq *batch_seq(const Batch *b, uint32_t i) { return b->running[i]; }
uint32_t batch_computed(const Batch *b, const Seq *s) { return b->slots[s->slot].cached; }
const BatchStats *batch_stats(const Batch *b) { return &b->stats; }
const BatchStep *batch_last_step(const Batch *b) { return &b->last_step; }
const Kv *batch_kv(const Batch *b) { return &b->kv; }

uint32_t batch_waiting(const Batch *b, uint32_t *preempted) {
    *preempted = b->n_preempted;
    return b->n_waiting;
}

static bool line_consistent(const Batch *b) {
    uint32_t n = 0;
    for (const Seq *s = b->waiting_first; s; s = s->next, n++)
        if (s->state != SEQ_WAITING ||
            (s->next ? s->next->prev != s || s->next->arrival <= s->arrival : b->waiting_last != s))
            return false;
    return n == b->n_waiting;
}

static bool running_consistent(const Batch *b, uint32_t i) {
    const Seq *s = b->running[i];
    const Slot *slot = &b->slots[s->slot];
    return (s->state == SEQ_PREFILL || s->state == SEQ_DECODE) && slot->state == SLOT_TAKEN &&
           slot->seq == s && s->n_ids <= s->limit && s->n_published <= s->n_keys &&
           slot->cached <= s->limit && (!i || b->running[i - 1]->arrival < s->arrival) &&
           (s->state == SEQ_DECODE || slot->cached < s->n_ids);
}

bool batch_consistent(const Batch *b) {
    uint32_t taken = 0, leaving = 0;
    for (uint32_t i = 0; i < b->plan->seqs_max; i++) {
        bool holds = false;
        for (uint32_t g = 0; g < b->kv.n_groups; g++) holds |= b->kv.groups[g].end[i] != 0;
        if (holds && b->slots[i].state == SLOT_FREE) return false;
        taken += b->slots[i].state == SLOT_TAKEN, leaving += b->slots[i].state == SLOT_LEAVING;
    }
    for (uint32_t i = 0; i < b->n_running; i++)
        if (!running_consistent(b, i)) return false;
    return taken == b->n_running && leaving == b->n_leaving && line_consistent(b) && kv_consistent(&b->kv);
}
