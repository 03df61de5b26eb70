#include "runtime/engine/sampling.h"

#include <float.h>
#include <math.h>
#include <string.h>

#include "runtime/base/num.h"

SamplingStage sampling_stage(Arena *a, const AdaPlan *p) {
    return (SamplingStage){ARENA_ARRAY(a, uint16_t, TOKEN_COLS(p->vocab)), ARENA_NEW(a, TokenLists)};
}

static bool penalises(const Sampling *s) {
    return (s->repetition != 0 && s->repetition != 1) || s->presence != 0 || s->frequency != 0;
}

static bool stops_later(const Sampling *s, uint32_t n_eos_ids) { return s->min_tokens && n_eos_ids; }

static bool check_bias(const Sampling *s, const AdaPlan *p, Err *e) {
    if (s->n_bias > BIAS_MAX)
        return err_set(e, E_SAMPLING, "logit biases for %u tokens; at most %d are possible", s->n_bias,
                       BIAS_MAX);
    for (uint32_t i = 0; i < s->n_bias; i++) {
        int32_t id = s->bias[i].id;
        if (id < 0 || (uint32_t)id >= p->vocab)
            return err_set(e, E_SAMPLING, "a logit bias for token %d, outside the vocabulary of %u", id,
                           p->vocab);
        if (i && id <= s->bias[i - 1].id)
            return err_set(e, E_SAMPLING, "logit biases must ascend: token %d follows %d", id,
                           s->bias[i - 1].id);
        if (!isfinite(s->bias[i].bias))
            return err_set(e, E_SAMPLING, "the logit bias of token %d is not finite", id);
    }
    return true;
}

bool sampling_check(const Sampling *s, const AdaPlan *p, uint32_t n_eos_ids, Err *e) {
    if (!(s->repetition >= 0) || !isfinite(s->repetition))
        return err_set(e, E_SAMPLING, "repetition penalty %g; it must be above 0", (double)s->repetition);
    if (!isfinite(s->presence) || !isfinite(s->frequency))
        return err_set(e, E_SAMPLING, "presence penalty %g, frequency penalty %g; they must be finite",
                       (double)s->presence, (double)s->frequency);
    if (s->top_logprobs > LOGPROBS_MAX)
        return err_set(e, E_SAMPLING, "%u logprobs a token; at most %d are possible", s->top_logprobs,
                       LOGPROBS_MAX);
    if (s->min_tokens && n_eos_ids > STOP_MAX)
        return err_set(e, E_SAMPLING, "min_tokens with %u end tokens; at most %d are possible", n_eos_ids,
                       STOP_MAX);
    return check_bias(s, p, e);
}

// ids: [n_ids], the prompt and what was drawn after it.
static ExecWrite counts_write(const SamplingStage *stage, uint32_t slot, const int32_t *ids,
                              uint32_t n_prompt, uint32_t n_ids, uint32_t vocab) {
    const uint64_t bytes = TOKEN_COLS((uint64_t)vocab) * sizeof *stage->counts;
    memset(stage->counts, 0, bytes);
    for (uint32_t i = 0; i < n_ids; i++) {
        if ((uint32_t)ids[i] >= vocab) continue;
        uint16_t *count = &stage->counts[ids[i]];
        if (i < n_prompt)
            *count = COUNT_PROMPT;
        else if ((*count & COUNT_MOST) < COUNT_MOST)
            ++*count;
    }
    return (ExecWrite){ADA_ROLE_TOKEN_COUNTS, 0, slot * bytes, bytes, stage->counts};
}

static void fill_lists(TokenLists *l, const Sampling *s, const int32_t *eos_ids, uint32_t n_eos_ids) {
    memset(l, 0, sizeof *l);
    for (uint32_t i = 0; i < s->n_bias; i++) l->bias_id[i] = s->bias[i].id, l->bias[i] = s->bias[i].bias;
    for (uint32_t i = 0; stops_later(s, n_eos_ids) && i < n_eos_ids; i++) l->stop[i] = eos_ids[i];
}

bool sampling_enter(const SamplingStage *stage, Exec *x, uint32_t slot, const Sampling *s, const int32_t *ids,
                    uint32_t n_prompt, uint32_t n_ids, const int32_t *eos_ids, uint32_t n_eos_ids, Err *e) {
    ExecWrite writes[2];
    uint32_t n = 0;
    if (penalises(s)) writes[n++] = counts_write(stage, slot, ids, n_prompt, n_ids, exec_plan(x)->vocab);
    if (s->n_bias || stops_later(s, n_eos_ids)) {
        fill_lists(stage->lists, s, eos_ids, n_eos_ids);
        writes[n++] =
            (ExecWrite){ADA_ROLE_TOKEN_LISTS, 0, slot * sizeof(TokenLists), sizeof(TokenLists), stage->lists};
    }
    return !n || exec_step(x, &(ExecStep){.writes = writes, .n_writes = n}, e);
}

SamplingRow sampling_row(const Sampling *s, uint32_t slot, uint64_t step, uint32_t n_eos_ids, bool masked) {
    bool stops = stops_later(s, n_eos_ids);
    return (SamplingRow){
        .temperature = s->temperature,
        .top_p = MAX(s->top_p, FLT_MIN), // at 0 the likeliest token stays
        .min_p = s->min_p,
        .top_k = s->top_k,
        .seed = s->seed,
        .step = step,
        .features = (penalises(s) ? SAMPLE_PENALTIES : 0u) | (s->n_bias ? SAMPLE_BIAS : 0u) |
                    (stops ? SAMPLE_STOP : 0u) | (masked ? SAMPLE_MASK : 0u) |
                    (s->logprobs ? SAMPLE_LOGPROBS : 0u),
        .slot = slot,
        .repetition = s->repetition != 0 ? s->repetition : 1,
        .presence = s->presence,
        .frequency = s->frequency,
        .min_tokens = s->min_tokens,
        .n_bias = (uint16_t)s->n_bias,
        .n_stop = (uint16_t)(stops ? n_eos_ids : 0),
        .top_logprobs = s->top_logprobs,
    };
}
