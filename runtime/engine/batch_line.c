// Who waits and who runs.
#include "runtime/base/log.h"
#include "runtime/base/num.h"
#include "runtime/engine/batch_state.h"

enum { FORESIGHT_PAGES = 2 };

// ---- waiting ---------------------------------------------------------------------------------------------

void line_add(Batch *b, Seq *s) {
    Seq *before = b->waiting_last; // new ones are the youngest of all; those that return go further ahead
    while (before && before->arrival > s->arrival) before = before->prev;
    s->prev = before, s->next = before ? before->next : b->waiting_first;
    *(s->prev ? &s->prev->next : &b->waiting_first) = s;
    *(s->next ? &s->next->prev : &b->waiting_last) = s;
    s->state = SEQ_WAITING;
    b->n_waiting++;
    b->n_preempted += s->n_entered != 0;
}

void line_remove(Batch *b, Seq *s) {
    *(s->prev ? &s->prev->next : &b->waiting_first) = s->next;
    *(s->next ? &s->next->prev : &b->waiting_last) = s->prev;
    s->next = s->prev = NULL;
    b->n_waiting--;
    b->n_preempted -= s->n_entered != 0;
}

// ---- entering --------------------------------------------------------------------------------------------

// Pages that need not be computed: the last known token always is, for its logits.
static uint32_t known_pages(const Batch *b, const Seq *s) {
    bool pending;
    uint32_t most = MIN(s->n_keys, (s->n_ids - 1) / b->plan->page_tokens);
    if (s->prompt_logprobs && s->n_prompt_logprobs + 1 < s->n_prompt) most = 0; // every logit is wanted
    return kv_match(&b->kv, NO_SLOT, s->keys, most, b->stats.steps + 1, &pending);
}

// Tokens that a sequence should find room for beyond those it has, or what enters would soon be thrown out
// again. One that was thrown out asks for more: it comes back less often, and stays longer.
static uint32_t foreseen(const Batch *b, const Seq *s, uint32_t n_tokens, uint32_t doubled) {
    const uint64_t more = ((uint64_t)FORESIGHT_PAGES * b->plan->page_tokens) << MIN(doubled, 16u);
    return (uint32_t)MIN(n_tokens + more, s->limit);
}

static bool has_room(const Batch *b, const Seq *s, uint32_t shared) {
    uint64_t spare[ADA_KV_GROUPS_MAX] = {0};
    for (uint32_t i = 0; i < b->n_running; i++) {
        const Seq *q = b->running[i];
        const uint32_t tokens = foreseen(b, q, MAX(q->n_ids, b->slots[q->slot].cached), 0);
        for (uint32_t g = 0; g < b->kv.n_groups; g++) spare[g] += kv_missing(&b->kv, g, q->slot, tokens);
    }
    return kv_has_room(&b->kv, s->keys, shared, foreseen(b, s, s->n_ids, s->n_entered), spare);
}

static uint32_t free_slot(const Batch *b) {
    for (uint32_t i = 0; i < b->options.seqs; i++)
        if (b->slots[i].state == SLOT_FREE) return i;
    return NO_SLOT;
}

static void run_in_order(Batch *b, Seq *s) {
    uint32_t i = b->n_running++;
    for (; i && b->running[i - 1]->arrival > s->arrival; i--) b->running[i] = b->running[i - 1];
    b->running[i] = s;
}

static bool enter(Batch *b, Seq *s, uint32_t slot, uint32_t shared, Err *e) {
    const uint32_t cached = shared * b->plan->page_tokens;
    line_remove(b, s);
    kv_share(&b->kv, slot, s->keys, shared);
    b->slots[slot] = (Slot){SLOT_TAKEN, s, cached};
    if (!s->n_entered++) {
        s->first_hit = MIN(cached, s->n_prompt);
        s->entered_s = clock_s();
        if (b->options.entered) b->options.entered(b->options.ctx, s);
        b->stats.queried_tokens += s->n_prompt, b->stats.hit_tokens += cached;
    }
    s->slot = slot, s->state = SEQ_PREFILL, s->n_published = shared, s->in_step = 0;
    b->n_prefilling++, b->n_masked += s->has_mask;
    run_in_order(b, s);
    return sampling_enter(&b->stage, b->x, slot, &s->sampling, s->ids, s->n_prompt, s->n_ids, s->stop_ids,
                          s->n_stop_ids, e);
}

// Without room it looks again only when pages were given back.
bool line_admit(Batch *b, Err *e) {
    for (Seq *s; (s = b->waiting_first);) {
        if (b->no_room_for == s && b->no_room_since == b->kv.given_back) return true;
        uint32_t slot = free_slot(b), shared = slot == NO_SLOT ? 0 : known_pages(b, s);
        if (slot == NO_SLOT) return true;
        if (!has_room(b, s, shared)) {
            b->no_room_for = s, b->no_room_since = b->kv.given_back;
            return true;
        }
        if (!enter(b, s, slot, shared, e)) return false;
    }
    return true;
}

// ---- leaving ---------------------------------------------------------------------------------------------

static void drop_rows(Batch *b, const Seq *s) {
    for (uint32_t i = 0; i < STEPS; i++) {
        Step *t = &b->steps[i];
        for (uint32_t r = 0; r < t->n_rows; r++)
            if (t->rows[r].seq == s) t->rows[r].seq = NULL;
        for (uint32_t c = 0; c < t->n_chunks; c++)
            if (t->chunks[c].seq == s) t->chunks[c].seq = NULL;
    }
}

static void stop_running(Batch *b, const Seq *s) {
    uint32_t i = 0;
    while (b->running[i] != s) i++;
    for (b->n_running--; i < b->n_running; i++) b->running[i] = b->running[i + 1];
    b->n_prefilling -= s->state == SEQ_PREFILL, b->n_masked -= s->has_mask;
}

void line_leave(Batch *b, Seq *s, bool again) {
    Slot *slot = &b->slots[s->slot];
    stop_running(b, s);
    drop_rows(b, s);
    slot->state = SLOT_LEAVING, slot->seq = NULL;
    b->n_leaving++;
    b->steady = false;
    s->slot = NO_SLOT;
    if (again)
        line_add(b, s);
    else
        s->state = SEQ_ENDED;
}

void line_settle(Batch *b) {
    for (uint32_t i = 0; i < b->plan->seqs_max && b->n_leaving; i++) {
        if (b->slots[i].state != SLOT_LEAVING) continue;
        kv_release(&b->kv, i);
        b->slots[i] = (Slot){0};
        b->n_leaving--;
    }
}
