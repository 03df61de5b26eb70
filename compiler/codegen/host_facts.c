// What the host templates need and how far their launches can be cut. Sizes are those of templates/host/*.h.
#include "compiler/codegen/host.h"
#include "runtime/base/num.h"

enum { GROUP_ROWS = 32 }; // rows of a weight that one block takes at least: two tiles

static uint64_t value(const SpecField *spec, uint32_t n_spec, const char *key) {
    for (uint32_t i = 0; i < n_spec; i++)
        if (!strcmp(spec[i].key, key)) return spec[i].u;
    CHECK(!"a field of the template");
    return 0;
}

static bool one_of(const char *name, const char *const *names, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (!strcmp(name, names[i])) return true;
    return false;
}

uint64_t codegen_host_scratch(const char *template_, const SpecField *spec, uint32_t n_spec) {
    static const char *const matmuls[] = {"linear", "gate_up", "moe_gate_up", "moe_down"};
    if (one_of(template_, matmuls, COUNT_OF(matmuls))) return 256 << 10;
    if (!strcmp(template_, "rope_write")) return value(spec, n_spec, "head_dim") * 2 * sizeof(float);
    if (!strcmp(template_, "attention")) {
        uint64_t d = value(spec, n_spec, "head_dim"), page = value(spec, n_spec, "page_tokens");
        return (64 << 10) + page * 64 + 2 * page * d * sizeof(float) + 32 * d * sizeof(float);
    }
    if (!strcmp(template_, "sample")) return 16384 + 192 + value(spec, n_spec, "vocab") * 12;
    return 0;
}

uint32_t codegen_host_units(const char *template_, const SpecField *spec, uint32_t n_spec, uint32_t bucket) {
    static const char *const by_n[] = {"linear", "moe_down"}, *const by_f[] = {"gate_up", "moe_gate_up"};
    uint64_t units = bucket;
    if (one_of(template_, by_n, COUNT_OF(by_n))) units = div_up(value(spec, n_spec, "n"), GROUP_ROWS);
    if (one_of(template_, by_f, COUNT_OF(by_f))) units = div_up(value(spec, n_spec, "f"), GROUP_ROWS);
    if (!strcmp(template_, "attention")) units = bucket * value(spec, n_spec, "kv_heads") * 2;
    if (!strcmp(template_, "advance")) units = 1;
    return units > UINT32_MAX ? UINT32_MAX : (uint32_t)units;
}
