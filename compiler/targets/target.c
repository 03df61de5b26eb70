#include "compiler/targets/target.h"

#include "runtime/base/num.h"

const Target *target_at(uint32_t i) {
    if (!i) return &target_host;
    return i - 1 < n_targets_cuda ? &targets_cuda[i - 1] : NULL;
}

const Target *target_find(Str name, Span at, Diags *d) {
    const char *names[32];
    size_t n = 0;
    const Target *t;
    for (uint32_t i = 0; n < COUNT_OF(names) && (t = target_at(i)); i++) {
        if (str_is(name, t->name)) return t;
        names[n++] = t->name;
    }
    diag_error(d, E_OPTION_VALUE, at, "unknown target `" STR_FMT "`", STR_ARG(name));
    diag_did_you_mean(d, name, names, n);
    return NULL;
}

static bool same_fields(const SpecField *a, const SpecField *b, uint32_t n) {
    for (uint32_t i = 0; i < n; i++) {
        bool same = a[i].kind == 'n'   ? !strcmp(a[i].n, b[i].n)
                    : a[i].kind == 'f' ? a[i].f == b[i].f
                                       : a[i].u == b[i].u;
        if (!same) return false;
    }
    return true;
}

bool target_kernel_is(const PlanKernel *k, const char *template_, const SpecField *spec, uint32_t n_spec,
                      const KernelChoice *c) {
    return !strcmp(k->template_, template_) && k->n_spec == n_spec + c->n_schedule &&
           k->threads == c->threads && k->shared_bytes == c->shared_bytes &&
           same_fields(k->spec, spec, n_spec) && same_fields(k->spec + n_spec, c->schedule, c->n_schedule);
}

double target_floor_us(const Target *t, uint64_t bytes, uint64_t flops) {
    return MAX((double)bytes / (t->dram_gbs * 1e3), (double)flops / (t->tflops_acc32 * 1e6));
}
