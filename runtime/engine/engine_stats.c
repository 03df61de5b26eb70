// What the engine counts, and how others read it.
#include <math.h>

#include "runtime/base/num.h"
#include "runtime/engine/engine_state.h"

// Bounds that vLLM's histograms of the same meaning have; of steps and lengths our own.
static const double step_s[] = {.0005, .001, .002, .003, .004, .006, .008, .01, .015, .02,
                                .03,   .04,  .06,  .08,  .1,   .15,  .2,   .3,  .5,   1};
static const double first_s[] = {.001, .005, .01, .02, .04, .06, .08, .1, .25, .5,  .75,
                                 1,    2.5,  5,   7.5, 10,  20,  40,  80, 160, 640, 2560};
static const double token_s[] = {.01, .025, .05, .075, .1,  .15, .2, .3, .4, .5,
                                 .75, 1,    2.5, 5,    7.5, 10,  20, 40, 80};
static const double request_s[] = {.3, .5, .8, 1,  1.5, 2,   2.5, 5,   10,   15,  20,
                                   30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680};
static const double lengths[] = {1, 2, 5, 10, 20, 50, 100, 200, 500, 1e3, 2e3, 5e3, 1e4, 2e4, 5e4, 1e5, 2e5};

void counts_init(Engine *e, Arena *a) {
    const struct {
        const double *bounds;
        uint32_t n;
    } all[] = {
#define HISTOGRAM(name, bounds) {bounds, COUNT_OF(bounds)},
#include "runtime/engine/engine_histograms.def"
#undef HISTOGRAM
    };
    for (uint32_t i = 0; i < HISTOGRAMS; i++)
        e->counts.histograms[i].bounds = all[i].bounds, e->counts.histograms[i].n_bounds = all[i].n;
    e->counts.slots = ARENA_ARRAY(a, SlotView, exec_plan(e->x)->seqs_max);
}

// ---- counting --------------------------------------------------------------------------------------------

#define SET(field, value) atomic_store_explicit(&(field), (value), memory_order_relaxed)
#define GET(field)        atomic_load_explicit(&(field), memory_order_relaxed)

void histogram_add(Engine *e, HistogramId id, double x) {
    Histogram *h = &e->counts.histograms[id];
    uint32_t i = 0;
    while (i < h->n_bounds && x > h->bounds[i]) i++;
    SET(h->counts[i], GET(h->counts[i]) + 1);
    SET(h->sum, GET(h->sum) + x);
}

static void count_slots(Engine *e) {
    const uint32_t n = batch_running(e->batch), before = GET(e->counts.running);
    for (uint32_t i = 0; i < MAX(n, before); i++) {
        SlotView *v = &e->counts.slots[i];
        if (i >= n) {
            SET(v->request, 0);
            continue;
        }
        const Seq *s = batch_seq(e->batch, i);
        const EngineChoice *c = s->user;
        SET(v->request, c->task->number);
        SET(v->choice, c->index);
        SET(v->prompt, s->n_prompt);
        SET(v->computed, batch_computed(e->batch, s));
        SET(v->generated, s->n_ids - s->n_prompt);
    }
    SET(e->counts.running, n);
}

static void count_batch(Engine *e) {
    const BatchStats *s = batch_stats(e->batch);
    const Kv *kv = batch_kv(e->batch);
    EngineCounts *c = &e->counts;
    uint32_t preempted;
    batch_waiting(e->batch, &preempted);
    SET(c->preempted, preempted);
    SET(c->steps, s->steps), SET(c->computed, s->prompt_tokens), SET(c->drawn, s->drawn);
    SET(c->queried, s->queried_tokens), SET(c->hits, s->hit_tokens), SET(c->preemptions, s->preemptions);
    SET(c->evicted, kv->evicted), SET(c->guessed, s->guessed), SET(c->accepted, s->accepted);
    for (uint32_t g = 0; g < kv->n_groups; g++) {
        SET(c->pages_used[g], kv->groups[g].n_pages - kv_unheld(kv, g));
        SET(c->pages_cached[g], kv->groups[g].n_cached);
    }
}

void counts_now(Engine *e) {
    count_batch(e);
    count_slots(e);
}

void counts_step(Engine *e) {
    const BatchStep *step = batch_last_step(e->batch);
    if (step->tokens) {
        histogram_add(e, step->prompt_tokens ? HISTOGRAM_step_mixed_s : HISTOGRAM_step_decode_s,
                      step->seconds);
        histogram_add(e, HISTOGRAM_step_tokens, step->tokens);
        SET(e->counts.last_step_s, e->now_s);
    }
    counts_now(e);
}

// ---- reading ---------------------------------------------------------------------------------------------

static void read_histogram(const Histogram *h, EngineHistogram *out) {
    out->bounds = h->bounds, out->n_bounds = h->n_bounds;
    for (uint32_t i = 0; i <= h->n_bounds; i++) out->count += out->counts[i] = GET(h->counts[i]);
    out->sum = GET(h->sum);
}

static void read_pages(const Engine *e, EngineStats *out) {
    const AdaPlan *p = exec_plan(e->x);
    const uint32_t whole = (uint32_t)div_up(out->context, p->page_tokens); // pages of a full context
    out->n_groups = p->n_kv_groups;
    out->kv_contexts = INFINITY;
    for (uint32_t g = 0; g < p->n_kv_groups; g++) {
        out->kv[g].pages = exec_pages(e->x, g), out->kv[g].page_tokens = p->page_tokens;
        out->kv[g].window = p->kv[g].window;
        out->kv[g].used = GET(e->counts.pages_used[g]), out->kv[g].cached = GET(e->counts.pages_cached[g]);
        out->kv_usage = MAX(out->kv_usage, (double)out->kv[g].used / out->kv[g].pages);
        out->kv_contexts =
            MIN(out->kv_contexts, (double)out->kv[g].pages / MIN(whole, p->kv[g].pages_per_seq));
    }
}

void engine_stats(const Engine *e, EngineStats *out) {
    const EngineCounts *c = &e->counts;
    *out = (EngineStats){.running = GET(c->running),
                         .waiting = GET(e->waiting),
                         .waiting_preempted = GET(c->preempted),
                         .waiting_tokens = GET(e->waiting_tokens),
                         .slots = e->options.max_num_seqs,
                         .context = e->options.max_model_len,
                         .batched_tokens = e->options.max_num_batched_tokens,
                         .last_step_s = GET(c->last_step_s),
                         .busy = GET(e->active) != 0,
                         .steps = GET(c->steps),
                         .prompt_tokens = GET(c->prompt_tokens),
                         .computed_prompt_tokens = GET(c->computed),
                         .generated_tokens = GET(c->drawn),
                         .prefix_queried_tokens = GET(c->queried),
                         .prefix_hit_tokens = GET(c->hits),
                         .preemptions = GET(c->preemptions),
                         .evicted_pages = GET(c->evicted),
                         .guessed_tokens = GET(c->guessed),
                         .accepted_tokens = GET(c->accepted),
                         .requests = GET(c->submitted),
                         .refused = GET(c->refused)};
    read_pages(e, out);
    for (uint32_t i = 0; i <= ENGINE_FAILED; i++) out->ended[i] = GET(c->ended[i]);
#define HISTOGRAM(name, bounds) read_histogram(&c->histograms[HISTOGRAM_##name], &out->name);
#include "runtime/engine/engine_histograms.def"
#undef HISTOGRAM
}

uint32_t engine_slots(const Engine *e, EngineSlot *out, uint32_t max) {
    uint32_t n = 0;
    for (uint32_t i = 0; i < exec_plan(e->x)->seqs_max && n < max; i++) {
        const SlotView *v = &e->counts.slots[i];
        const uint64_t request = GET(v->request);
        if (request)
            out[n++] =
                (EngineSlot){request, GET(v->choice), GET(v->prompt), GET(v->computed), GET(v->generated)};
    }
    return n;
}

double engine_retry_after_s(const Engine *e) {
    const double each = GET(e->counts.seconds_a_request), most = 60;
    const double s = each > 0 ? each * (GET(e->waiting) + 1.0) : 1;
    return s < 1 ? 1 : s > most ? most : s;
}
