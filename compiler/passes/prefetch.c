// prefetch: on a GPU, launches that leave the memory idle fetch into L2 what the next matrix product reads
// first. Weights depend on nothing, so this is safe anywhere; each launch takes the bytes that memory can
// deliver while it runs, one range after the other.
#include "compiler/passes/plan_work.h"
#include "runtime/base/num.h"

// Microseconds of memory that a launch can give away: what is left of a small kernel once the first lines are
// on their way, the end of a matrix product. More would make the launch itself longer: it ends only when
// memory has taken in its last request.
enum { PREFETCH_LINE = 128 };
static const struct {
    const char *template_;
    double idle_us;
} idle[] = {{"norm_add", 1.0}, {"rope_write", 0.8}, {"linear", 0.7}, {"gate_up", 0.7}};

static double idle_us(const Step *s) {
    for (size_t i = 0; s->template_ && i < COUNT_OF(idle); i++)
        if (!strcmp(idle[i].template_, s->template_)) return idle[i].idle_us;
    return 0;
}

// The weight that a matrix product streams; NO_ID: the step streams none that is known before it runs.
static uint32_t streamed(const Plan *p, const Step *s) {
    bool product = s->template_ && (!strcmp(s->template_, "linear") || !strcmp(s->template_, "gate_up"));
    if (!product || s->args[1].kind != OPERAND_WEIGHT) return NO_ID;
    return p->weights[s->args[1].id].kind == PLAN_WEIGHT_VALUES ? s->args[1].id : NO_ID;
}

static SpecField *next_bytes(Step *s) {
    for (uint32_t i = 0; i < s->n_spec; i++)
        if (!strcmp(s->spec[i].key, "next_bytes")) return &s->spec[i];
    return NULL;
}

// Attention leaves the memory idle for longer, where it has few keys to read. The product after it is short
// and waits for more than its bytes, so what helps is the larger one of the next two; but experts in between
// would drive the second out of L2.
static void fetch_in_attention(const Plan *p, PlanWork *w, uint32_t i) {
    uint32_t weight = NO_ID;
    SpecField *bytes = next_bytes(&w->steps[i]);
    for (uint32_t j = i + 1, n = 0; j < w->n_steps && n < 2; j++) {
        const char *name = w->steps[j].template_;
        if (name && !strncmp(name, "moe_", 4)) break;
        uint32_t id = streamed(p, &w->steps[j]);
        if (id == NO_ID) continue;
        if (weight == NO_ID || p->weights[id].bytes > p->weights[weight].bytes) weight = id;
        n++;
    }
    if (weight == NO_ID || !bytes) return;
    bytes->u = p->weights[weight].bytes;
    w->steps[i].args[w->steps[i].n_args - 1] = (Operand){OPERAND_WEIGHT, weight, 0};
}

bool pass_prefetch(Plan *p, const PassContext *c, Diags *d) {
    PlanWork *w = p->work;
    (void)d;
    if (!c->target->half_rows) return true;
    for (uint32_t i = 0; i < w->n_steps; i++) {
        if (w->steps[i].template_ && !strcmp(w->steps[i].template_, "attention")) fetch_in_attention(p, w, i);
        uint32_t weight = streamed(p, &w->steps[i]), first = i;
        if (weight == NO_ID) continue;
        // The launches since the product before, that one included.
        while (first > 0 && (first == i || streamed(p, &w->steps[first]) == NO_ID)) first--;
        uint64_t offset = 0, left = MIN(p->weights[weight].bytes, c->target->l2_bytes / 2);
        for (uint32_t j = first; j < i && left; j++) {
            SpecField *bytes = next_bytes(&w->steps[j]);
            uint64_t n = (uint64_t)(idle_us(&w->steps[j]) * c->target->dram_gbs * 1e3);
            n = MIN(left, n / PREFETCH_LINE * PREFETCH_LINE);
            if (!bytes || !n) continue;
            bytes->u = n; // `next` is the last argument
            w->steps[j].args[w->steps[j].n_args - 1] = (Operand){OPERAND_WEIGHT, weight, offset};
            offset += n, left -= n;
        }
    }
    return true;
}
