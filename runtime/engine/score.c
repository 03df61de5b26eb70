#include "runtime/engine/score.h"

#include <math.h>
#include <string.h>

#include "runtime/base/num.h"
#include "runtime/engine/kv.h"
#include "templates/lib/abi.h"

typedef struct {
    uint32_t seq;  // UINT32_MAX: the slot is free
    uint32_t done; // positions computed
    uint32_t n;    // of them in the current step
} ScoreSlot;

typedef struct {
    Exec *x;
    const AdaPlan *plan;
    const ScoreSeq *seqs;
    uint32_t n_seqs, next_seq, n_slots, chunk;
    Kv kv;
    ScoreSlot *slots;                 // [n_slots]
    int32_t *ids, *pos, *slot, *rows; // [tokens_max], rows: [rows_max]
    float *logits;                    // [rows_max, vocab_rows]
    ExecWrite *writes;
    ScoreSink *sink;
    void *ctx;
} Scorer;

static bool check_seqs(const Scorer *s, Err *e) {
    for (uint32_t i = 0; i < s->n_seqs; i++) {
        const ScoreSeq *q = &s->seqs[i];
        if (!q->n) return err_set(e, E_IDS, "sequence %u has no ids", i + 1);
        if (q->n > s->plan->context)
            return err_set(e, E_CONTEXT, "sequence %u has %u tokens; the context holds %u", i + 1, q->n,
                           s->plan->context);
        for (uint32_t j = 0; j < q->n; j++)
            if (q->ids[j] < 0 || (uint32_t)q->ids[j] >= s->plan->vocab_rows)
                return err_set(e, E_IDS, "sequence %u, id %u is %d, outside the vocabulary of %u", i + 1,
                               j + 1, q->ids[j], s->plan->vocab_rows);
    }
    return true;
}

static bool hold_pages(Scorer *s, uint32_t slot, uint32_t from, uint32_t n, Err *e) {
    return kv_reserve(&s->kv, slot, from, from + n) ||
           err_set(e, E_MEMORY, "no free KV pages for sequence %u", s->slots[slot].seq + 1);
}

// Gives every free slot a sequence and fills one step; returns its tokens, 0 when all is done.
static bool compose(Scorer *s, uint32_t *n_tokens, Err *e) {
    uint32_t n = 0;
    for (uint32_t i = 0; i < s->n_slots; i++) {
        ScoreSlot *l = &s->slots[i];
        l->n = 0;
        if (l->seq == UINT32_MAX && s->next_seq < s->n_seqs) *l = (ScoreSlot){.seq = s->next_seq++};
        if (l->seq == UINT32_MAX) continue;
        const ScoreSeq *q = &s->seqs[l->seq];
        l->n = MIN(q->n - l->done, MIN(s->chunk, s->plan->tokens_max - n));
        l->n = MIN(l->n, kv_reach(&s->kv, l->done) - l->done);
        if (!hold_pages(s, i, l->done, l->n, e)) return false;
        for (uint32_t j = 0; j < l->n; j++, n++)
            s->ids[n] = q->ids[l->done + j], s->pos[n] = (int32_t)(l->done + j), s->slot[n] = (int32_t)i;
    }
    *n_tokens = n;
    return true;
}

static bool run_body(Scorer *s, uint32_t n_tokens, Err *e) {
    uint32_t counts[] = {[COUNT_TOKENS] = n_tokens, [COUNT_ROWS] = 0};
    uint64_t bytes = n_tokens * sizeof *s->ids;
    const ExecWrite w[] = {{ADA_ROLE_COUNTS, 0, 0, sizeof counts, counts},
                           {ADA_ROLE_IDS, 0, 0, bytes, s->ids},
                           {ADA_ROLE_POS, 0, 0, bytes, s->pos},
                           {ADA_ROLE_SLOT, 0, 0, bytes, s->slot}};
    memcpy(s->writes, w, sizeof w);
    const uint32_t n = COUNT_OF(w) + kv_writes(&s->kv, s->writes + COUNT_OF(w));
    return exec_step(s->x, &(ExecStep){.writes = s->writes, .n_writes = n, .body_tokens = n_tokens}, e);
}

static bool emit(Scorer *s, const ScoreSlot *l, uint32_t first, uint32_t n, Err *e) {
    uint32_t cols = s->plan->vocab_rows;
    for (size_t i = 0; i < (size_t)n * cols; i++)
        if (!isfinite(s->logits[i]))
            return err_set(e, E_NUMERIC, "sequence %u: the logits after position %u are not finite",
                           l->seq + 1, first + (uint32_t)(i / cols));
    return s->sink(s->ctx, l->seq, first, n, s->logits, e);
}

// The head runs over the tokens of one slot, rows_max at a time. token: index of its first one in the step.
static bool run_head(Scorer *s, const ScoreSlot *l, uint32_t token, uint32_t n_tokens, Err *e) {
    for (uint32_t at = 0; at < l->n; at += s->plan->rows_max) {
        uint32_t n = MIN(l->n - at, s->plan->rows_max);
        uint32_t counts[] = {[COUNT_TOKENS] = n_tokens, [COUNT_ROWS] = n};
        for (uint32_t r = 0; r < n; r++) s->rows[r] = (int32_t)(token + at + r);
        const ExecWrite w[] = {{ADA_ROLE_COUNTS, 0, 0, sizeof counts, counts},
                               {ADA_ROLE_ROWS, 0, 0, n * sizeof *s->rows, s->rows}};
        const ExecRead r[] = {
            {ADA_ROLE_LOGITS, 0, (uint64_t)n * s->plan->vocab_rows * sizeof(float), s->logits}};
        ExecStep step = {.writes = w, .n_writes = COUNT_OF(w), .head_rows = n, .reads = r, .n_reads = 1};
        if (!exec_step(s->x, &step, e) || !emit(s, l, l->done + at, n, e)) return false;
    }
    return true;
}

static bool step(Scorer *s, bool *busy, Err *e) {
    uint32_t n_tokens, token = 0;
    if (!compose(s, &n_tokens, e)) return false;
    *busy = n_tokens != 0;
    if (!n_tokens) return true;
    if (!run_body(s, n_tokens, e)) return false;
    for (uint32_t i = 0; i < s->n_slots; i++) {
        ScoreSlot *l = &s->slots[i];
        if (!run_head(s, l, token, n_tokens, e)) return false;
        token += l->n;
        l->done += l->n;
        if (l->seq != UINT32_MAX && l->done == s->seqs[l->seq].n) {
            kv_release(&s->kv, i);
            l->seq = UINT32_MAX;
        }
    }
    return true;
}

static void set_up(Scorer *s, Arena *a) {
    const AdaPlan *p = s->plan;
    uint32_t pages[ADA_KV_GROUPS_MAX];
    for (uint32_t g = 0; g < p->n_kv_groups; g++) pages[g] = exec_pages(s->x, g);
    kv_init(&s->kv, a, p, pages);
    s->slots = ARENA_ARRAY(a, ScoreSlot, s->n_slots);
    for (uint32_t i = 0; i < s->n_slots; i++) s->slots[i].seq = UINT32_MAX;
    s->ids = ARENA_ARRAY(a, int32_t, p->tokens_max);
    s->pos = ARENA_ARRAY(a, int32_t, p->tokens_max);
    s->slot = ARENA_ARRAY(a, int32_t, p->tokens_max);
    s->rows = ARENA_ARRAY(a, int32_t, p->rows_max);
    s->writes = ARENA_ARRAY(a, ExecWrite, 4 + p->seqs_max * p->n_kv_groups);
    s->logits = arena_array(a, (size_t)p->rows_max * p->vocab_rows, sizeof *s->logits);
}

bool score_run(Exec *x, const ScoreSeq *seqs, uint32_t n_seqs, uint32_t batch, uint32_t chunk,
               ScoreSink *sink, void *ctx, Err *e) {
    const AdaPlan *p = exec_plan(x);
    CHECK(batch >= 1 && batch <= p->seqs_max);
    Scorer s = {
        .x = x, .plan = p, .seqs = seqs, .n_seqs = n_seqs, .n_slots = batch, .sink = sink, .ctx = ctx};
    s.chunk = chunk && chunk < p->tokens_max ? chunk : p->tokens_max;
    if (!check_seqs(&s, e)) return false;
    Arena arena = {0};
    set_up(&s, &arena);
    bool ok = true;
    for (bool busy = true; ok && busy;) ok = step(&s, &busy, e);
    arena_free(&arena);
    return ok;
}
