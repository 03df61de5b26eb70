#include "compiler/codegen/cuda_instances.h"

#include <stdio.h>

#include "compiler/codegen/instances.h"

typedef unsigned long long Ull; // for printf

// static constexpr uint32_t k = 4096;
static void put_member(StrBuf *out, const SpecField *f) {
    buf_puts(out, "    static constexpr ");
    if (f->kind == 'u')
        buf_puts(out, f->u > UINT32_MAX ? "uint64_t" : "uint32_t");
    else if (f->kind == 'f')
        buf_puts(out, "float");
    else
        instance_put_camel(out, f->key); // the enum is called as the field
    buf_printf(out, " %s = ", f->key);
    instance_put_value(out, f);
    buf_puts(out, f->kind == 'u' && f->u > UINT32_MAX ? "ull;\n" : ";\n");
}

static Ull blocks_per_sm(const PlanKernel *k) {
    for (uint32_t i = 0; i < k->n_spec; i++)
        if (!strcmp(k->spec[i].key, "per_sm") && k->spec[i].u) return k->spec[i].u;
    return 1;
}

static void put_spec(StrBuf *out, const char *name, const PlanKernel *k) {
    buf_printf(out, "struct %s {\n", name);
    for (uint32_t i = 0; i < k->n_spec; i++) put_member(out, &k->spec[i]);
    buf_printf(out, "    static constexpr uint32_t threads = %u;\n", k->threads);
    buf_printf(out, "    static constexpr uint32_t shared_bytes = %llu;\n};\n\n", (Ull)k->shared_bytes);
}

// Spec0, Spec1, ... of the parts; n_args: of all of them.
static bool put_parts(const PlanKernel *k, uint32_t *n_args, StrBuf *out, Diags *d) {
    *n_args = 0;
    for (uint32_t i = 0; i < k->n_parts; i++) {
        Template t;
        if (!instance_check(&k->parts[i], true, &t, d)) return false;
        *n_args += t.n_args;
        char name[32];
        snprintf(name, sizeof name, "Spec%u", i);
        put_spec(out, name, &k->parts[i]);
    }
    return true;
}

// What rope_attention.cu calls: rope_attention<rope_write's spec, attention's, tokens>(arguments of both).
static bool rope_attention_print(const PlanKernel *k, StrBuf *out, Diags *d) {
    uint32_t n_args;
    Template rope;
    if (!put_parts(k, &n_args, out, d) || !instance_check(&k->parts[0], true, &rope, d)) return false;
    buf_printf(out, "extern \"C\" __global__ void __launch_bounds__(%u, %llu)\n", k->threads,
               blocks_per_sm(&k->parts[1]));
    buf_printf(out, "    %s(const __grid_constant__ Args<%u> args) {\n", k->name, n_args);
    buf_printf(
        out,
        "    rope_attention<Spec0, Spec1, %llu>(*(const Args<%u> *)args.p, *(const Args<%u> *)(args.p + "
        "%u));\n}\n",
        (Ull)k->spec[0].u, rope.n_args, n_args - rope.n_args, rope.n_args);
    return true;
}

// What chain.cu calls: chain<Chain<threads, grid, early, opaque>, LinkLinear<Spec0>,
// LinkRopeWrite<Spec1>>(pointers).
static bool chain_print(const PlanKernel *k, StrBuf *out, Diags *d) {
    uint32_t n_args;
    if (!put_parts(k, &n_args, out, d)) return false;
    buf_printf(out, "extern \"C\" __global__ void __launch_bounds__(%u, 1)\n", k->threads);
    buf_printf(out, "    %s(const __grid_constant__ Args<%u> args) {\n", k->name, n_args);
    buf_printf(out, "    chain<Chain<%u, %llu, %llu, %s>", k->threads, (Ull)k->spec[0].u, (Ull)k->spec[1].u,
               k->spec[2].u ? "true" : "false");
    for (uint32_t i = 0; i < k->n_parts; i++) {
        buf_puts(out, ", Link");
        instance_put_camel(out, k->parts[i].template_);
        buf_printf(out, "<Spec%u>", i);
    }
    buf_puts(out, ">(args.p);\n}\n");
    return true;
}

bool cuda_instance_print(const Plan *p, uint32_t kernel, StrBuf *out, size_t *code, Diags *d) {
    const PlanKernel *k = &p->kernels[kernel];
    Template t;
    if (!instance_check(k, true, &t, d)) return false;
    buf_printf(out, "// An instance of templates/%s.cu, written by adallmc.\n", k->template_);
    instance_put_origins(out, p, kernel);
    *code = out->len;
    buf_printf(out, "#define INSTANCE\n#include \"templates/%s.cu\"\n\n", k->template_);
    if (k->n_parts) return (!strcmp(k->template_, "chain") ? chain_print : rope_attention_print)(k, out, d);
    put_spec(out, "Spec", k);
    buf_printf(out, "extern \"C\" __global__ void __launch_bounds__(Spec::threads, %llu)\n",
               blocks_per_sm(k));
    buf_printf(out, "    %s(const __grid_constant__ Args<%u> args) {\n    %s<Spec>(args);\n}\n", k->name,
               t.n_args, k->template_);
    return true;
}
