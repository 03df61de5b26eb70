// absorb: on a GPU, what one step takes over from its neighbour. A branch is added to the residual by the
// product that makes it, a norm quantises what it writes, and a product may norm its own rows, so that small
// batches need no launch for it.
#include "compiler/passes/plan_work.h"

static SpecField *field_of(Step *s, const char *key) {
    for (uint32_t i = 0; i < s->n_spec; i++)
        if (!strcmp(s->spec[i].key, key)) return &s->spec[i];
    return NULL;
}

static uint64_t field_u(const Step *s, const char *key) {
    for (uint32_t i = 0; i < s->n_spec; i++)
        if (!strcmp(s->spec[i].key, key)) return s->spec[i].u;
    return 0;
}

static bool is_step(const Step *s, const char *template_) {
    return s->template_ && !strcmp(s->template_, template_);
}

// Places of arguments in templates.def.
enum { NORM_RESIDUAL, NORM_BRANCH, NORM_W = 3, NORM_OUT };
enum { LINEAR_OUT = 4, COMBINE_OUT = 2 };
enum { QUANTIZE_X, QUANTIZE_OUT };

// The argument in which `maker` gives value v and nothing beside it, to the one who reads it; NULL: none.
static Operand *sole_result(const PlanWork *w, Step *maker, ValueId v) {
    Operand *out = is_step(maker, "linear")        ? &maker->args[LINEAR_OUT]
                   : is_step(maker, "moe_combine") ? &maker->args[COMBINE_OUT]
                                                   : NULL;
    return out && out->kind == OPERAND_VALUE && out->id == v && w->uses[v] == 1 ? out : NULL;
}

// norm_add of a branch that the step before makes: that one adds it, and the norm reads the sum.
static void absorb_branch(const PlanWork *w, Step *maker, Step *norm) {
    if (!is_step(norm, "norm_add") || !field_u(norm, "has_branch") || field_u(norm, "has_post")) return;
    Operand *out = sole_result(w, maker, norm->args[NORM_BRANCH].id);
    if (!out || maker->program != norm->program) return;
    uint64_t row = 4 * field_u(norm, "hidden");
    *out = norm->args[NORM_RESIDUAL];
    field_of(maker, "add")->u = 1;
    maker->updated = norm->updated, maker->update = norm->update;
    maker->read_per_row += row;
    norm->args[NORM_RESIDUAL].id = norm->update;
    norm->args[NORM_BRANCH] = (Operand){OPERAND_NONE, 0, 0};
    field_of(norm, "has_branch")->u = 0;
    norm->updated = norm->update = NO_ID;
    norm->read_per_row -= row, norm->write_per_row -= row;
}

// quantize_rows of what a norm gives to it alone: the norm writes quantised rows. False: it does not.
static bool absorb_quantize(const PlanWork *w, Step *norm, const Step *quantize) {
    if (!is_step(quantize, "quantize_rows") || !is_step(norm, "norm_add") || !field_u(norm, "has_out"))
        return false;
    ValueId x = quantize->args[QUANTIZE_X].id;
    if (norm->args[NORM_OUT].id != x || w->uses[x] != 1 || field_u(norm, "wide")) return false;
    norm->args[NORM_OUT] = quantize->args[QUANTIZE_OUT];
    field_of(norm, "e4m3")->u = 1;
    field_of(norm, "out_pitch")->u = field_u(quantize, "out_pitch");
    norm->write_per_row += quantize->write_per_row;
    norm->write_per_row -= 4 * field_u(norm, "hidden");
    return true;
}

// A norm for one product alone, which comes next: the product could make its rows of x itself.
static void absorb_norm(const PlanWork *w, uint32_t at, Step *product) {
    const Step *norm = &w->steps[at];
    if (!is_step(norm, "norm_add") || field_u(norm, "has_branch") || !field_u(norm, "has_out")) return;
    if (!is_step(product, "linear") && !is_step(product, "gate_up")) return;
    ValueId x = norm->args[NORM_OUT].id;
    if (product->args[PRODUCT_X].id != x || w->uses[x] != 1 || field_u(norm, "wide")) return;
    if (field_u(product, "add") || product->program != norm->program) return;
    field_of(product, "norm")->u = 1;
    field_of(product, "eps")->f = field_of(&w->steps[at], "eps")->f;
    product->args[PRODUCT_RESIDUAL] = norm->args[NORM_RESIDUAL];
    product->args[PRODUCT_NORM_W] = norm->args[NORM_W];
    product->norm = at;
}

bool pass_absorb(Plan *p, const PassContext *c, Diags *d) {
    PlanWork *w = p->work;
    (void)d;
    if (!c->target->half_rows) return true;
    uint32_t n = 0;
    for (uint32_t i = 0; i < w->n_steps; i++) {
        Step *s = &w->steps[i];
        if (n && absorb_quantize(w, &w->steps[n - 1], s)) continue;
        if (n) absorb_branch(w, &w->steps[n - 1], s);
        bool nothing = is_step(s, "norm_add") && !field_u(s, "has_branch") && !field_u(s, "has_out");
        if (!nothing) w->steps[n++] = *s;
    }
    w->n_steps = n;
    for (uint32_t i = 0; i + 1 < n; i++) absorb_norm(w, i, &w->steps[i + 1]);
    return true;
}
