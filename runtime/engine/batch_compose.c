// What the next step does: which tokens of which sequences, and which rows get logits.
#include <string.h>

#include "runtime/base/num.h"
#include "runtime/engine/batch_state.h"
#include "runtime/engine/lookup.h"

enum { GROW_PAGES = 4 }; // taken at once while there are plenty: each taking writes to the device

static uint32_t cached(const Batch *b, const Seq *s) { return b->slots[s->slot].cached; }

// A token more would be within its limit. The last one is never fed back.
static bool wants_token(const Batch *b, const Seq *s) {
    return s->state == SEQ_DECODE && cached(b, s) + 1 < s->limit;
}

static bool decodes_wait(const Batch *b) { return b->options.prefill_first && b->n_prefilling; }

// ---- pages -----------------------------------------------------------------------------------------------

static bool plenty(const Batch *b) {
    for (uint32_t g = 0; g < b->kv.n_groups; g++)
        if (kv_unheld(&b->kv, g) < (uint64_t)b->n_running * GROW_PAGES) return false;
    return true;
}

// The page of the next position, and a few more where that is cheap.
static bool hold_next(Batch *b, const Seq *s) {
    const uint32_t at = cached(b, s);
    if (kv_holds(&b->kv, s->slot, at)) return true;
    uint32_t to = MIN(at + GROW_PAGES * b->plan->page_tokens, MIN(s->limit, kv_reach(&b->kv, at)));
    return (s->state == SEQ_DECODE && plenty(b) && kv_reserve(&b->kv, s->slot, at, to)) ||
           kv_reserve(&b->kv, s->slot, at, at + 1);
}

static void trim_all(Batch *b) {
    for (uint32_t i = 0; i < b->n_running; i++)
        kv_trim(&b->kv, b->running[i]->slot, cached(b, b->running[i]) + 1);
}

static void preempt(Batch *b, Seq *s) {
    line_leave(b, s, true);
    line_settle(b);
    b->carried = 0;
    b->stats.preemptions++;
}

// Every sequence that goes on in this step holds the page of its next token, the oldest first; where none is
// left the youngest gives way. A prompt that is the youngest may wait.
static bool hold_pages(Batch *b) { // false: later
    bool trimmed = false;
    for (uint32_t i = 0; i < b->n_running; i++) {
        Seq *s = b->running[i];
        if (s->state == SEQ_DECODE && (!wants_token(b, s) || decodes_wait(b))) continue;
        while (!hold_next(b, s)) {
            if (!trimmed) {
                trim_all(b);
                trimmed = true;
                continue;
            }
            if (s->state == SEQ_PREFILL && i + 1 == b->n_running) break;
            if (batch_in_flight(b)) return false;
            Seq *youngest = b->running[b->n_running - 1];
            preempt(b, youngest);
            if (youngest == s) break;
        }
    }
    return true;
}

// ---- tokens and rows -------------------------------------------------------------------------------------

static void add_token(Batch *b, Step *t, uint32_t slot, uint32_t pos, int32_t id) {
    CHECK(kv_writable(&b->kv, slot, pos)); // or somebody else would read what is not his
    b->ids[t->n_tokens] = id;
    b->pos[t->n_tokens] = (int32_t)pos;
    b->slot[t->n_tokens++] = (int32_t)slot;
}

static void add_row(Batch *b, Step *t, Row row, uint32_t token, SamplingRow sampling) {
    t->rows[t->n_rows] = row;
    b->rows[t->n_rows] = (int32_t)token;
    b->sampling[t->n_rows++] = sampling;
}

// After the last token that was added s draws the next one.
static void add_draw(Batch *b, Step *t, Seq *s, RowKind kind) {
    const uint32_t pos = cached(b, s) - 1;
    add_row(b, t, (Row){s, s->slot, pos, kind, b->ids[t->n_tokens - 1]}, t->n_tokens - 1,
            sampling_row(&s->sampling, s->slot, pos + 1 - s->n_prompt, s->n_stop_ids, s->has_mask));
    t->n_draws++;
    t->masked |= s->has_mask;
}

static void add_decode(Batch *b, Step *t, Seq *s, int32_t id) {
    add_token(b, t, s->slot, b->slots[s->slot].cached++, id);
    add_draw(b, t, s, ROW_DRAW);
    s->in_step = t->number;
}

// Rows of the last step, up to the last one whose sequence goes on, whose tokens the device has at the same
// places. False: a page is missing for one that is dead.
static bool add_carried(Batch *b, Step *t) {
    const Step *last = batch_last(b);
    uint32_t n = 0;
    for (uint32_t r = 0; r < b->carried && !decodes_wait(b); r++)
        if (last->rows[r].seq && wants_token(b, last->rows[r].seq)) n = r + 1;
    for (uint32_t r = 0; r < n; r++) {
        const Row *q = &last->rows[r];
        const bool live = q->seq && wants_token(b, q->seq);
        if (!live && !kv_holds(&b->kv, q->slot, q->pos + 1) &&
            !kv_reserve(&b->kv, q->slot, q->pos + 1, q->pos + 2))
            return false;
    }
    for (uint32_t r = 0; r < n; r++) {
        const Row *q = &last->rows[r];
        if (q->seq && wants_token(b, q->seq)) {
            add_decode(b, t, q->seq, 0);
            continue;
        }
        add_token(b, t, q->slot, q->pos + 1, 0);
        b->stats.wasted++;
    }
    t->n_carried = n;
    return true;
}

// What the device keeps count of, a wrong guess would spoil.
static bool may_guess(const Seq *s) {
    return !s->has_mask && s->sampling.presence == 0 && s->sampling.frequency == 0 &&
           (s->sampling.repetition == 0 || s->sampling.repetition == 1);
}

// Rows and tokens that nobody needs for certain go to guesses, the oldest sequence first.
static void add_guesses(Batch *b, Step *t, Seq *s, uint32_t *spare) {
    const uint32_t at = cached(b, s), end = MIN(s->limit, kv_reach(&b->kv, at - 1));
    if (!may_guess(s) || at + 1 >= end) return; // a guess at position `at` draws the token behind it
    const uint32_t most = MIN(MIN(b->options.speculate, *spare), end - at - 1);
    uint32_t n = lookup_guess(s->ids, s->n_ids, most, b->guesses);
    while (n && !kv_reserve(&b->kv, s->slot, at - 1, at + n)) n--;
    for (uint32_t i = 0; i < n; i++) {
        add_token(b, t, s->slot, b->slots[s->slot].cached++, b->guesses[i]);
        add_draw(b, t, s, ROW_GUESS);
    }
    t->guesses |= n != 0;
    b->stats.guessed += n, s->n_guessed += n;
    *spare -= n;
}

// Whose last token the host knows.
static void add_known(Batch *b, Step *t) {
    uint32_t spare = MIN(b->plan->seqs_max, b->options.tokens) - b->n_running;
    for (uint32_t i = 0; i < b->n_running && !decodes_wait(b); i++) {
        Seq *s = b->running[i];
        if (!wants_token(b, s) || s->in_step == t->number || s->n_ids != cached(b, s) + 1) continue;
        add_decode(b, t, s, s->ids[s->n_ids - 1]);
        if (b->options.speculate) add_guesses(b, t, s, &spare);
    }
}

// ---- prompts ---------------------------------------------------------------------------------------------

// Pages that others computed meanwhile need not be computed again. False: the next one is being computed by
// an older sequence in this very step.
static bool take_shared(Batch *b, const Step *t, Seq *s) {
    const uint32_t P = b->plan->page_tokens, at = cached(b, s), own = at / P;
    const uint32_t most = MIN(s->n_keys, (s->n_ids - 1) / P);
    bool pending;
    if (at % P || own >= most || s->prompt_logprobs) return true;
    kv_trim(&b->kv, s->slot, at);
    const uint32_t shared = kv_match(&b->kv, s->slot, s->keys, most, t->number, &pending);
    if (shared > own) {
        kv_share(&b->kv, s->slot, s->keys, shared);
        b->slots[s->slot].cached = shared * P;
        s->n_published = shared;
        if (s->n_entered == 1) {
            s->first_hit += MIN(shared * P, s->n_prompt) - MIN(at, s->n_prompt);
            b->stats.hit_tokens += (shared - own) * P;
        }
    }
    return !pending;
}

static bool wants_row(const Seq *s, uint32_t pos) {
    return s->prompt_logprobs && pos + 1 < s->n_prompt && pos >= s->n_prompt_logprobs;
}

static uint32_t rows_of(const Seq *s, uint32_t at, uint32_t n) {
    uint32_t rows = at + n == s->n_ids;
    for (uint32_t i = 0; i < n && s->prompt_logprobs; i++) rows += wants_row(s, at + i);
    return rows;
}

static uint32_t chunk_of(Batch *b, const Step *t, const Seq *s, uint32_t rows_most) {
    const uint32_t at = cached(b, s);
    uint32_t n = MIN(b->options.tokens - t->n_tokens, MIN(b->options.chunk, s->n_ids - at));
    n = MIN(n, kv_reach(&b->kv, at) - at);
    while (n && rows_of(s, at, n) > rows_most) n = MIN(n - 1, MAX(rows_most, n / 2));
    while (n && !kv_reserve(&b->kv, s->slot, at, at + n)) { // without its last page
        const uint32_t to = (at + n - 1) / b->plan->page_tokens * b->plan->page_tokens;
        n = MAX(to, at) - at;
    }
    return n;
}

static void publish(Batch *b, const Step *t, Seq *s) {
    const uint32_t full = MIN(cached(b, s) / b->plan->page_tokens, s->n_keys);
    for (; s->n_published < full; s->n_published++)
        kv_publish(&b->kv, s->slot, s->n_published, &s->keys[s->n_published], t->number);
}

static uint32_t add_chunk(Batch *b, Step *t, Seq *s, uint32_t rows_most, uint32_t *n_prompt_rows) {
    const uint32_t at = cached(b, s), n = chunk_of(b, t, s, rows_most), rows = rows_of(s, at, n);
    for (uint32_t i = 0; i < n; i++) {
        if (wants_row(s, at + i))
            b->prompt_rows[(*n_prompt_rows)++] =
                (PromptRow){{s, s->slot, at + i, ROW_PROMPT, 0}, t->n_tokens};
        add_token(b, t, s->slot, at + i, s->ids[at + i]);
    }
    b->slots[s->slot].cached += n;
    t->n_prompt_tokens += n;
    if (n) t->chunks[t->n_chunks++] = (Chunk){s, at + n};
    publish(b, t, s);
    if (!n || at + n < s->n_ids) return n ? rows : 0;
    s->state = SEQ_DECODE;
    b->n_prefilling--;
    if (s->limit > s->n_prompt)
        add_draw(b, t, s, ROW_DRAW);
    else
        b->prompt_rows[(*n_prompt_rows)++] =
            (PromptRow){{s, s->slot, at + n - 1, ROW_LAST, 0}, t->n_tokens - 1};
    return rows;
}

// Draws come first: the rows that the next step goes on from.
static void add_prompt_rows(Batch *b, Step *t, uint32_t n) {
    for (uint32_t i = 0; i < n; i++) {
        const PromptRow *r = &b->prompt_rows[i];
        SamplingRow sampling = {.top_p = 1, .repetition = 1, .slot = r->row.slot};
        if (r->row.kind == ROW_PROMPT) {
            sampling.features = SAMPLE_LOGPROBS | SAMPLE_GIVEN;
            sampling.seed = (uint64_t)r->row.seq->ids[r->row.pos + 1];
            sampling.top_logprobs = r->row.seq->prompt_top_logprobs;
        }
        add_row(b, t, r->row, r->token, sampling);
    }
}

static void add_prompts(Batch *b, Step *t) {
    uint32_t n_prompt_rows = 0, guesses = 0;
    for (uint32_t r = 0; r < t->n_draws; r++) guesses += t->rows[r].kind == ROW_GUESS;
    uint32_t spare = b->plan->seqs_max - b->n_running - guesses;
    for (uint32_t i = 0; i < b->n_running && t->n_tokens < b->options.tokens; i++) {
        Seq *s = b->running[i];
        if (s->state != SEQ_PREFILL || !take_shared(b, t, s)) continue;
        const uint32_t rows = add_chunk(b, t, s, spare + 1, &n_prompt_rows);
        spare -= rows ? rows - 1 : 0; // one row is its own
    }
    add_prompt_rows(b, t, n_prompt_rows);
}

// ---- the step --------------------------------------------------------------------------------------------

static bool may_repeat(Batch *b) {
    const Step *last = batch_last(b);
    if (!b->steady || b->n_running != last->n_draws || b->n_prefilling || b->n_masked) return false;
    if (b->options.speculate) return false;
    for (uint32_t r = 0; r < last->n_draws; r++) {
        const Seq *s = last->rows[r].seq;
        if (!wants_token(b, s) || !hold_next(b, s)) return false;
    }
    return true;
}

// The device advanced ids, positions and sampling by itself: only the books are kept here.
static void repeat(Batch *b, Step *t) {
    const Step *last = batch_last(b);
    t->repeats = true;
    t->n_rows = t->n_draws = t->n_tokens = t->n_carried = last->n_draws;
    for (uint32_t r = 0; r < t->n_rows; r++) {
        t->rows[r] = last->rows[r];
        t->rows[r].pos++;
        b->slots[t->rows[r].slot].cached++;
    }
}

Composed compose(Batch *b, Step *t) {
    *t = (Step){.rows = t->rows, .chunks = t->chunks, .number = b->stats.steps + 1};
    if (!b->n_running) return COMPOSE_NOTHING;
    if (may_repeat(b)) {
        repeat(b, t);
        return COMPOSED;
    }
    if (!hold_pages(b) || !add_carried(b, t)) return COMPOSE_LATER;
    add_known(b, t);
    add_prompts(b, t);
    return t->n_draws || t->n_prompt_tokens ? COMPOSED : COMPOSE_NOTHING;
}
