// Steps to the device, tokens back.
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "runtime/base/log.h"
#include "runtime/base/num.h"
#include "runtime/engine/batch_state.h"

// ---- to the device ---------------------------------------------------------------------------------------

// A step without rows advances one for nobody: so that the host sees its end.
static uint32_t advance_rows(const Step *t) { return MAX(t->n_rows, 1); }

static uint32_t step_writes(Batch *b, const Step *t, const uint32_t *counts) {
    const uint64_t from = t->n_carried * sizeof(int32_t), all = t->n_tokens * sizeof(int32_t);
    const ExecWrite writes[] = {
        {ADA_ROLE_COUNTS, 0, 0, 2 * sizeof *counts, counts},
        {ADA_ROLE_IDS, 0, from, all - from, b->ids + t->n_carried},
        {ADA_ROLE_POS, 0, 0, all, b->pos},
        {ADA_ROLE_SLOT, 0, 0, all, b->slot},
        {ADA_ROLE_ROWS, 0, 0, t->n_rows * sizeof(int32_t), b->rows},
        {ADA_ROLE_SAMPLING, 0, 0, t->n_rows * sizeof(SamplingRow), b->sampling},
    };
    memcpy(b->writes, writes, sizeof writes);
    return COUNT_OF(writes);
}

static void count_launched(Batch *b, Step *t) {
    t->launched_s = clock_s();
    b->carried = t->n_draws;
    b->steady = !t->n_prompt_tokens && !t->masked && !t->guesses && t->n_tokens == t->n_draws &&
                t->n_rows == t->n_draws;
    b->n_launched++;
    b->stats.steps++;
    b->stats.tokens += t->n_tokens, b->stats.prompt_tokens += t->n_prompt_tokens;
}

bool launch(Batch *b, Step *t, Err *e) {
    const uint32_t counts[] = {[COUNT_TOKENS] = t->n_tokens, [COUNT_ROWS] = advance_rows(t)};
    uint32_t n = t->repeats ? 0 : step_writes(b, t, counts);
    n += kv_writes(&b->kv, b->writes + n);
    ExecStep step = {.writes = b->writes, .n_writes = n, .body_tokens = t->n_tokens, .head_rows = t->n_rows};
    if (!t->masked) step.sample_rows = t->n_rows, step.advance_rows = advance_rows(t);
    if (!exec_step(b->x, &step, e)) return false;
    count_launched(b, t);
    line_settle(b); // tokens of the dead are on their way
    if (t->masked) b->pending = t;
    return true;
}

static uint32_t mask_writes(Batch *b, const Step *t) {
    const uint64_t words = TOKEN_COLS((uint64_t)b->plan->vocab) / 32, bytes = words * sizeof(uint32_t);
    uint32_t n = 0;
    for (uint32_t r = 0; r < t->n_draws; r++) {
        const Seq *s = t->rows[r].seq;
        if (!s || !s->has_mask) continue;
        uint32_t *mask = b->masks + s->slot * words;
        if (!s->mask.mask(s->mask.ctx, mask)) memset(mask, 0xFF, bytes);
        b->writes[n++] = (ExecWrite){ADA_ROLE_TOKEN_MASK, 0, s->slot * bytes, bytes, mask};
    }
    return n;
}

bool launch_draws(Batch *b, Err *e) {
    const Step *t = b->pending;
    b->pending = NULL;
    ExecStep step = {.writes = b->writes,
                     .n_writes = mask_writes(b, t),
                     .sample_rows = t->n_rows,
                     .advance_rows = advance_rows(t)};
    return exec_step(b->x, &step, e);
}

// ---- back ------------------------------------------------------------------------------------------------

static void emit(Batch *b, uint32_t *n, Seq *s, int32_t id, SeqEnd end, const LogprobRow *logprobs) {
    b->tokens[(*n)++] = (BatchToken){s, id, end, logprobs};
    if (end == SEQ_GOES_ON) return;
    s->end = end;
    line_leave(b, s, false);
}

void fail_seq(Batch *b, Seq *s, ErrCode code, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    s->err->code = code;
    vsnprintf(s->err->msg, sizeof s->err->msg, fmt, ap);
    va_end(ap);
    if (code == E_NUMERIC) kv_forget(&b->kv, s->slot); // nobody goes on from what may not be finite
}

static bool check_status(Batch *b, Seq *s, uint32_t status) {
    if (status == ROW_NONE_ALLOWED)
        fail_seq(b, s, E_SAMPLING, "no token at all may follow %u tokens", s->n_ids);
    else if (status != ROW_OK)
        fail_seq(b, s, E_NUMERIC, "the logits after %u tokens are not finite", s->n_ids);
    return status == ROW_OK;
}

// Pages that generated tokens fill may be found, too. Their positions were launched long ago.
static void publish_generated(Batch *b, Seq *s) {
    const uint32_t P = b->plan->page_tokens;
    const uint32_t full = MIN(s->n_ids, b->slots[s->slot].cached) / P;
    if (full <= s->n_published) return;
    seq_extend_keys(s, P);
    for (; s->n_published < full; s->n_published++)
        kv_publish(&b->kv, s->slot, s->n_published, &s->keys[s->n_published], 0);
}

static const LogprobRow *keep_logprobs(Seq *s, const LogprobRow *row) {
    if (!s->logprobs) return NULL;
    LogprobRow *kept = &s->logprobs[s->n_ids - s->n_prompt];
    *kept = *row;
    return kept;
}

static void take_draw(Batch *b, uint32_t *n, Seq *s, int32_t id, const LogprobRow *logprobs) {
    const LogprobRow *kept = keep_logprobs(s, logprobs);
    s->ids[s->n_ids++] = id;
    b->stats.drawn++;
    publish_generated(b, s);
    if (s->has_mask) s->mask.accept(s->mask.ctx, id);
    emit(b, n, s, id, seq_end_after(s, id), kept);
}

// Of the positions that were computed those up to here are what they should be.
static bool check_guess(Batch *b, const Row *row) {
    Seq *s = row->seq;
    if (row->kind == ROW_GUESS && (s->n_ids != row->pos + 1 || s->ids[row->pos] != row->guess)) return false;
    b->slots[row->slot].cached = row->pos + 1;
    b->stats.accepted += row->kind == ROW_GUESS, s->n_accepted += row->kind == ROW_GUESS;
    return true;
}

static void take_row(Batch *b, uint32_t *n, const Row *row, const ExecTokens *told, uint32_t r) {
    Seq *s = row->seq;
    const LogprobRow *logprobs = (const LogprobRow *)told->logprobs + r;
    if (!check_status(b, s, told->status[r])) {
        emit(b, n, s, -1, SEQ_FAILED, NULL);
    } else if (row->kind == ROW_DRAW || row->kind == ROW_GUESS) {
        take_draw(b, n, s, told->next[r], logprobs);
    } else if (row->kind == ROW_LAST) {
        emit(b, n, s, -1, SEQ_PROMPT, NULL);
    } else {
        s->prompt_logprobs[row->pos] = *logprobs;
        s->n_prompt_logprobs = row->pos + 1;
    }
}

// Prompt rows first: of a sequence, its first token comes last.
static bool take_rows(Batch *b, uint32_t *n, const Step *t, const ExecTokens *told, Err *e) {
    for (uint32_t i = 0; i < t->n_rows; i++) {
        const uint32_t r = (i + t->n_draws) % t->n_rows;
        const Row *row = &t->rows[r];
        if (!row->seq || (t->guesses && row->kind <= ROW_GUESS && !check_guess(b, row))) continue;
        if (row->kind <= ROW_GUESS && told->status[r] == ROW_OK &&
            (told->next[r] < 0 || (uint32_t)told->next[r] >= b->plan->vocab))
            return err_set(e, E_DEVICE, "the sampler gave token %d, outside the vocabulary of %u",
                           told->next[r], b->plan->vocab);
        take_row(b, n, row, told, r);
    }
    return true;
}

static void tell_chunks(const Batch *b, const Step *t) {
    for (uint32_t i = 0; b->options.computed && i < t->n_chunks; i++)
        if (t->chunks[i].seq) b->options.computed(b->options.ctx, t->chunks[i].seq, t->chunks[i].end);
}

bool take(Batch *b, uint32_t *n, Err *e) {
    const Step *t = &b->steps[b->n_taken % STEPS];
    ExecTokens told;
    if (!exec_tokens(b->x, &told, e)) return false;
    const double now = clock_s();
    b->last_step = (BatchStep){t->n_tokens, t->n_prompt_tokens, now - MAX(t->launched_s, b->taken_s)};
    b->taken_s = now;
    b->n_taken++;
    tell_chunks(b, t);
    return take_rows(b, n, t, &told, e);
}
