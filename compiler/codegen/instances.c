#include "compiler/codegen/instances.h"

#include <ctype.h>

#include "runtime/base/num.h"

enum { ORIGINS_SHOWN = 3 };

static bool is_identifier(const char *s) {
    if (!isalpha((unsigned char)*s) && *s != '_') return false;
    while (isalnum((unsigned char)*s) || *s == '_') s++;
    return *s == 0;
}

bool instance_check(const PlanKernel *k, bool schedule, Template *out, Diags *d) {
    if (!template_find(k->template_, out))
        return diag_error(d, E_CODEGEN, SPAN_NONE, "kernel %s: there is no template `%s`", k->name,
                          k->template_);
    if (!is_identifier(k->name))
        return diag_error(d, E_CODEGEN, SPAN_NONE, "kernel `%s`: the name is not a C identifier", k->name);
    uint32_t n = out->n_fields + (schedule ? out->n_schedule : 0);
    bool same = k->n_spec == n;
    for (uint32_t i = 0; same && i < n; i++) {
        const SpecField *f = &k->spec[i];
        same = str_is(out->fields[i].key, f->key) && out->fields[i].kind == f->kind &&
               (f->kind != 'n' || (f->n && is_identifier(f->n)));
    }
    if (!same)
        return diag_error(d, E_CODEGEN, SPAN_NONE,
                          "kernel %s: its spec does not have the fields of template `%s`", k->name,
                          k->template_);
    return true;
}

static void put_upper(StrBuf *out, const char *s) {
    for (; *s; s++) buf_putc(out, (char)toupper((unsigned char)*s));
}

void instance_put_camel(StrBuf *out, const char *name) {
    bool first = true;
    for (; *name; name++) {
        if (*name != '_') buf_putc(out, first ? (char)toupper((unsigned char)*name) : *name);
        first = *name == '_';
    }
}

void instance_put_value(StrBuf *out, const SpecField *f) {
    if (f->kind == 'u') {
        buf_printf(out, "%llu", (unsigned long long)f->u);
    } else if (f->kind == 'f') {
        char text[40];
        snprintf(text, sizeof text, "%.17g", f->f); // as many digits as name one double; C rounds it to float
        buf_printf(out, "%s%sf", text, strpbrk(text, ".e") ? "" : ".0");
    } else {
        put_upper(out, f->key), buf_putc(out, '_'), put_upper(out, f->n);
    }
}

// One comment line: what a newline or a trailing backslash would end is left out.
static void put_comment(StrBuf *out, const char *text) {
    buf_puts(out, "// ");
    for (; *text; text++) buf_putc(out, *text == '\\' || (unsigned char)*text < ' ' ? ' ' : *text);
    buf_putc(out, '\n');
}

void instance_put_origins(StrBuf *out, const Plan *p, uint32_t kernel) {
    uint32_t n = 0;
    const char *last = "";
    for (uint32_t i = 0; i < p->n_launches; i++) {
        const PlanLaunch *l = &p->launches[i];
        if (l->kind != ADA_LAUNCH_KERNEL || l->kernel != kernel || !l->origin || !strcmp(l->origin, last))
            continue;
        if (n++ < ORIGINS_SHOWN) put_comment(out, l->origin);
        last = l->origin;
    }
    if (n > ORIGINS_SHOWN) buf_printf(out, "// and %u more launches\n", n - ORIGINS_SHOWN);
}

static void put_instance(StrBuf *out, const Plan *p, uint32_t kernel) {
    const PlanKernel *k = &p->kernels[kernel];
    buf_putc(out, '\n');
    instance_put_origins(out, p, kernel);
    buf_printf(out, "KERNEL %s(void *const *args, uint32_t block, uint32_t n_blocks, void *scratch) {\n",
               k->name);
    buf_printf(out, "    %s(args, block, n_blocks, scratch, (", k->template_);
    instance_put_camel(out, k->template_);
    buf_puts(out, "Spec){");
    for (uint32_t i = 0; i < k->n_spec; i++) {
        buf_printf(out, "%s.%s = ", i ? ", " : "", k->spec[i].key);
        instance_put_value(out, &k->spec[i]);
    }
    buf_printf(out, "%s});\n}\n", k->n_spec ? "" : "0");
}

bool instances_print(const Plan *p, StrBuf *out, Diags *d) {
    bool ok = true;
    Template t;
    for (uint32_t i = 0; i < p->n_kernels; i++) ok &= instance_check(&p->kernels[i], false, &t, d);
    if (!ok) return false;
    buf_puts(out, "// The kernels of one plan: instances of templates/host. Written by adallmc.\n");
    for (uint32_t i = 0; i < p->n_kernels; i++) {
        bool seen = false;
        for (uint32_t j = 0; j < i; j++) seen |= !strcmp(p->kernels[i].template_, p->kernels[j].template_);
        if (!seen) buf_printf(out, "#include \"templates/host/%s.h\"\n", p->kernels[i].template_);
    }
    buf_puts(out, "\n#define KERNEL __attribute__((visibility(\"default\"))) void\n");
    for (uint32_t i = 0; i < p->n_kernels; i++) put_instance(out, p, i);
    return true;
}
