#include "compiler/pack/pack_plan.h"

#include <stdlib.h>

#include "runtime/base/num.h"

// The string table: every string once, found again through a hash table of offsets.
typedef struct {
    StrBuf bytes;
    uint32_t *slots; // offset + 1; 0: empty
    uint32_t n, cap; // cap: a power of two
} Strings;

static uint32_t *find_slot(const Strings *t, Str s) {
    for (uint32_t i = (uint32_t)str_hash(s) & (t->cap - 1);; i = (i + 1) & (t->cap - 1))
        if (!t->slots[i] || str_is(s, t->bytes.ptr + t->slots[i] - 1)) return &t->slots[i];
}

static void grow(Strings *t) {
    Strings bigger = {.bytes = t->bytes, .n = t->n, .cap = t->cap ? 2 * t->cap : 256};
    bigger.slots = xrealloc(NULL, bigger.cap, sizeof *bigger.slots);
    memset(bigger.slots, 0, bigger.cap * sizeof *bigger.slots);
    for (uint32_t i = 0; i < t->cap; i++)
        if (t->slots[i]) *find_slot(&bigger, str_of(t->bytes.ptr + t->slots[i] - 1)) = t->slots[i];
    free(t->slots);
    *t = bigger;
}

static uint32_t intern(Strings *t, const char *text) {
    Str s = str_of(text ? text : "");
    if (2 * t->n >= t->cap) grow(t);
    uint32_t *slot = find_slot(t, s);
    if (!*slot) {
        CHECK(t->bytes.len < UINT32_MAX - s.len - 2);
        *slot = (uint32_t)t->bytes.len + 1;
        buf_str(&t->bytes, s);
        buf_putc(&t->bytes, '\0');
        t->n++;
    }
    return *slot - 1;
}

static const char *spec_text(const PlanKernel *k, StrBuf *buf) {
    buf->len = 0;
    for (uint32_t i = 0; i < k->n_spec; i++) {
        const SpecField *f = &k->spec[i];
        if (i) buf_putc(buf, ' ');
        switch (f->kind) {
        case 'u': buf_printf(buf, "%s=%llu", f->key, (unsigned long long)f->u); break;
        case 'f': buf_printf(buf, "%s=%.9g", f->key, f->f); break;
        default: buf_printf(buf, "%s=%s", f->key, f->n); break;
        }
    }
    for (uint32_t i = 0; i < k->n_parts; i++) buf_printf(buf, " %s", k->parts[i].name);
    return buf_cstr(buf);
}

// ---- tables ----------------------------------------------------------------------------------------------

static AdaTable put_table(StrBuf *out, size_t base, const void *rows, size_t row, uint32_t n) {
    while ((out->len - base) % 8) buf_putc(out, '\0');
    CHECK(out->len - base + (uint64_t)row * n < UINT32_MAX);
    AdaTable t = {(uint32_t)(out->len - base), n};
    buf_add(out, rows, row * n);
    return t;
}

static AdaTable put_buffers(const Plan *p, StrBuf *out, size_t base, Strings *s) {
    AdaBuffer *rows = xrealloc(NULL, p->n_buffers + 1, sizeof *rows);
    for (uint32_t i = 0; i < p->n_buffers; i++) {
        const PlanBuffer *b = &p->buffers[i];
        rows[i] =
            (AdaBuffer){intern(s, b->name), (uint16_t)b->space, (uint16_t)b->role, b->index,      b->program,
                        b->offset,          b->bytes,           b->first_launch,   b->last_launch};
        if (b->space != ADA_SPACE_SCRATCH) rows[i].offset = rows[i].first_launch = rows[i].last_launch = 0;
    }
    AdaTable t = put_table(out, base, rows, sizeof *rows, p->n_buffers);
    free(rows);
    return t;
}

static AdaTable put_kernels(const Plan *p, StrBuf *out, size_t base, Strings *s) {
    AdaKernel *rows = xrealloc(NULL, p->n_kernels + 1, sizeof *rows);
    StrBuf spec = {0};
    for (uint32_t i = 0; i < p->n_kernels; i++) {
        const PlanKernel *k = &p->kernels[i];
        rows[i] = (AdaKernel){intern(s, k->name), intern(s, k->template_), intern(s, spec_text(k, &spec)),
                              k->threads, k->shared_bytes};
    }
    AdaTable t = put_table(out, base, rows, sizeof *rows, p->n_kernels);
    buf_free(&spec);
    free(rows);
    return t;
}

static void put_launches(const Plan *p, StrBuf *out, size_t base, Strings *s, AdaPlan *h) {
    AdaLaunch *rows = xrealloc(NULL, p->n_launches + 1, sizeof *rows);
    StrBuf args = {0};
    uint32_t n_args = 0;
    for (uint32_t i = 0; i < p->n_launches; i++) {
        const PlanLaunch *l = &p->launches[i];
        rows[i] = (AdaLaunch){.kind = l->kind,
                              .kernel = l->kind == ADA_LAUNCH_KERNEL ? l->kernel : 0,
                              .first_arg = n_args,
                              .n_args = l->n_args,
                              .grid = l->grid,
                              .count = l->count,
                              .rows = l->rows,
                              .cols = l->cols,
                              .bytes_read = l->bytes_read,
                              .bytes_written = l->bytes_written,
                              .flops = l->flops,
                              .predicted_us = (float)l->predicted_us,
                              .origin = intern(s, l->origin)};
        buf_add(&args, l->args, l->n_args * sizeof *l->args);
        n_args += l->n_args;
    }
    h->launches = put_table(out, base, rows, sizeof *rows, p->n_launches);
    h->args = put_table(out, base, args.ptr, sizeof(AdaArg), n_args);
    buf_free(&args);
    free(rows);
}

static AdaTable put_programs(const Plan *p, StrBuf *out, size_t base) {
    AdaProgram *rows = xrealloc(NULL, p->n_programs + 1, sizeof *rows);
    for (uint32_t i = 0; i < p->n_programs; i++) {
        const PlanProgram *g = &p->programs[i];
        rows[i] = (AdaProgram){g->kind, g->bucket, g->first_launch, g->n_launches};
    }
    AdaTable t = put_table(out, base, rows, sizeof *rows, p->n_programs);
    free(rows);
    return t;
}

static AdaTable put_chains(const Plan *p, StrBuf *out, size_t base) {
    AdaChain *rows = xrealloc(NULL, p->n_chains + 1, sizeof *rows);
    for (uint32_t i = 0; i < p->n_chains; i++) {
        const PlanChain *c = &p->chains[i];
        rows[i] = (AdaChain){c->kernel, c->first_launch,        c->n_launches,
                             c->grid,   (float)c->predicted_us, c->together};
    }
    AdaTable t = put_table(out, base, rows, sizeof *rows, p->n_chains);
    free(rows);
    return t;
}

static AdaTable put_weights(const Plan *p, StrBuf *out, size_t base, Strings *s) {
    AdaWeight *rows = xrealloc(NULL, p->n_weights + 1, sizeof *rows);
    for (uint32_t i = 0; i < p->n_weights; i++) {
        const PlanWeight *w = &p->weights[i];
        rows[i] = (AdaWeight){intern(s, w->name), w->layout, w->rows, w->cols, w->stack};
    }
    AdaTable t = put_table(out, base, rows, sizeof *rows, p->n_weights);
    free(rows);
    return t;
}

void pack_plan(const Plan *p, const AdaBinding *bindings, StrBuf *out) {
    AdaPlan h = {.magic = "ADAPLAN", // the eighth byte follows
                 .n_ranks = p->n_ranks,
                 .n_kv_groups = p->n_kv_groups,
                 .vocab_rows = p->vocab_rows,
                 .vocab = p->vocab,
                 .hidden = p->hidden,
                 .n_layers = p->n_layers,
                 .context = p->context,
                 .seqs_max = p->seqs_max,
                 .tokens_max = p->tokens_max,
                 .rows_max = p->rows_max,
                 .page_tokens = p->page_tokens,
                 .scratch_bytes = p->scratch_bytes};
    h.magic[7] = '3';
    memcpy(h.kv, p->kv, p->n_kv_groups * sizeof *h.kv);
    size_t base = out->len;
    buf_add(out, &h, sizeof h);
    Strings strings = {0};
    intern(&strings, ""); // offset 0
    h.buffers = put_buffers(p, out, base, &strings);
    h.kernels = put_kernels(p, out, base, &strings);
    put_launches(p, out, base, &strings, &h);
    h.programs = put_programs(p, out, base);
    h.chains = put_chains(p, out, base);
    h.weights = put_weights(p, out, base, &strings);
    h.bindings = put_table(out, base, bindings, sizeof *bindings, p->n_weights * p->n_ranks);
    h.strings = put_table(out, base, strings.bytes.ptr, 1, (uint32_t)strings.bytes.len);
    memcpy(out->ptr + base, &h, sizeof h);
    buf_free(&strings.bytes);
    free(strings.slots);
}
