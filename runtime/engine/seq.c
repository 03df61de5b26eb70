#include "runtime/engine/seq.h"

#include <stdlib.h>
#include <string.h>

#include "runtime/base/num.h"

// ---- checks ----------------------------------------------------------------------------------------------

static bool check_ids(const SeqLimits *l, const Request *r, Err *e) {
    const AdaPlan *p = l->plan;
    if (!r->n_ids) return err_set(e, E_IDS, "the prompt has no tokens; at least one is needed");
    for (uint32_t i = 0; i < r->n_ids && r->n_ids <= l->context; i++)
        if (r->ids[i] < 0 || (uint32_t)r->ids[i] >= p->vocab_rows)
            return err_set(e, E_IDS, "token %u of the prompt is %d, outside the vocabulary of %u", i,
                           r->ids[i], p->vocab_rows);
    if (r->n_stop_ids > STOP_IDS_MAX)
        return err_set(e, E_IDS, "%u stop ids; at most %d are possible", r->n_stop_ids, STOP_IDS_MAX);
    for (uint32_t i = 0; i < r->n_stop_ids; i++)
        if (r->stop_ids[i] < 0 || (uint32_t)r->stop_ids[i] >= p->vocab_rows)
            return err_set(e, E_IDS, "stop id %d, outside the vocabulary of %u", r->stop_ids[i],
                           p->vocab_rows);
    return true;
}

static bool check_length(const SeqLimits *l, const Request *r, Err *e) {
    const uint32_t least = r->max_tokens != 0; // tokens of the answer
    if (r->n_ids > l->context - least)
        return err_set(e, E_CONTEXT, "the prompt has %u tokens; the context of %u leaves room for %u%s",
                       r->n_ids, l->context, l->context - least, least ? " and an answer" : "");
    if (r->max_tokens != TOKENS_ALL && r->max_tokens > l->context - r->n_ids)
        return err_set(e, E_CONTEXT,
                       "the prompt has %u tokens and max_tokens is %u, together %llu; the context holds %u",
                       r->n_ids, r->max_tokens, (unsigned long long)r->n_ids + r->max_tokens, l->context);
    return true;
}

static uint32_t limit_of(const SeqLimits *l, const Request *r) {
    return r->max_tokens == TOKENS_ALL ? l->context : r->n_ids + r->max_tokens;
}

static bool check_pages(const SeqLimits *l, uint32_t limit, Err *e) {
    for (uint32_t g = 0; g < l->plan->n_kv_groups; g++) {
        uint32_t need = (uint32_t)div_up(limit, l->plan->page_tokens);
        need = MIN(need, l->plan->kv[g].pages_per_seq);
        if (need > l->pages[g])
            return err_set(e, E_MEMORY, "%u tokens take %u KV pages of group %u; there are %u", limit, need,
                           g, l->pages[g]);
    }
    return true;
}

static bool check(const SeqLimits *l, const Request *r, Err *e) {
    if (!check_ids(l, r, e) || !check_length(l, r, e) || !check_pages(l, limit_of(l, r), e)) return false;
    if (r->prompt_logprobs && r->prompt_top_logprobs > LOGPROBS_MAX)
        return err_set(e, E_SAMPLING, "%u logprobs a token of the prompt; at most %d are possible",
                       r->prompt_top_logprobs, LOGPROBS_MAX);
    return sampling_check(&r->sampling, l->plan, r->n_stop_ids, e);
}

// ---- memory ----------------------------------------------------------------------------------------------

// One block: the sequence, then its arrays.
typedef struct {
    size_t keys, ids, stops, bias, logprobs, prompt_logprobs, err, total;
} Places;

static size_t place(size_t *total, size_t bytes) {
    size_t at = (*total + 15) / 16 * 16;
    *total = at + bytes;
    return at;
}

// limit is at most the plan's context: nothing overflows.
static Places places_of(const SeqLimits *l, const Request *r) {
    const uint32_t limit = limit_of(l, r);
    Places p = {.total = sizeof(Seq)};
    p.err = place(&p.total, sizeof(Err));
    p.keys = place(&p.total, limit / l->plan->page_tokens * sizeof(Sha256));
    p.stops = place(&p.total, r->n_stop_ids * sizeof(int32_t));
    p.bias = place(&p.total, r->sampling.n_bias * sizeof(TokenBias));
    p.ids = place(&p.total, limit * sizeof(int32_t));
    p.logprobs = place(&p.total, r->sampling.logprobs ? (limit - r->n_ids) * sizeof(LogprobRow) : 0);
    p.prompt_logprobs = place(&p.total, r->prompt_logprobs ? (r->n_ids - 1) * sizeof(LogprobRow) : 0);
    return p;
}

static void *copy(char *dst, const void *src, size_t bytes) {
    if (bytes) memcpy(dst, src, bytes);
    return dst;
}

Seq *seq_new(const SeqLimits *l, const Request *r, Err *e) {
    if (!check(l, r, e)) return NULL;
    const Places p = places_of(l, r);
    char *block = malloc(p.total); // not cleared: of a long answer most may never be touched
    if (!block) {
        err_set(e, E_MEMORY, "no memory for a request of %zu bytes", p.total);
        return NULL;
    }
    Seq *s = (Seq *)block;
    *s = (Seq){.user = r->user,
               .n_prompt = r->n_ids,
               .n_ids = r->n_ids,
               .limit = limit_of(l, r),
               .to_context = r->max_tokens == TOKENS_ALL,
               .n_stop_ids = r->n_stop_ids,
               .prompt_top_logprobs = r->prompt_top_logprobs,
               .sampling = r->sampling,
               .has_mask = r->mask != NULL,
               .root = prefix_begin(r->salt)};
    if (r->mask) s->mask = *r->mask;
    s->err = (Err *)(block + p.err);
    s->err->code = E_NONE;
    s->keys = (Sha256 *)(block + p.keys);
    s->ids = copy(block + p.ids, r->ids, r->n_ids * sizeof *r->ids);
    s->stop_ids = copy(block + p.stops, r->stop_ids, r->n_stop_ids * sizeof *r->stop_ids);
    s->sampling.bias = copy(block + p.bias, r->sampling.bias, r->sampling.n_bias * sizeof *r->sampling.bias);
    if (r->sampling.logprobs) s->logprobs = (LogprobRow *)(block + p.logprobs);
    if (r->prompt_logprobs) s->prompt_logprobs = (LogprobRow *)(block + p.prompt_logprobs);
    seq_extend_keys(s, l->plan->page_tokens);
    return s;
}

void seq_free(Seq *s) { free(s); }

// ---- running ---------------------------------------------------------------------------------------------

SeqEnd seq_end_after(const Seq *s, int32_t id) {
    for (uint32_t i = 0; i < s->n_stop_ids; i++)
        if (s->stop_ids[i] == id) return SEQ_STOP;
    if (s->n_ids < s->limit) return SEQ_GOES_ON;
    return s->to_context ? SEQ_CONTEXT : SEQ_MAX_TOKENS;
}

void seq_extend_keys(Seq *s, uint32_t page_tokens) {
    for (; (s->n_keys + 1) * page_tokens <= s->n_ids; s->n_keys++)
        s->keys[s->n_keys] = prefix_next(s->n_keys ? &s->keys[s->n_keys - 1] : &s->root,
                                         s->ids + (size_t)s->n_keys * page_tokens, page_tokens);
}
