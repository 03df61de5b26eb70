#include "compiler/codegen/explain.h"

#include <stdlib.h>

#include "compiler/ir/plan_text.h"
#include "runtime/base/json.h"
#include "runtime/base/num.h"

enum { PICTURE_COLUMNS = 48, PICTURE_ROWS = 40 };

typedef unsigned long long Ull; // for printf

typedef struct {
    double us;
    uint64_t read, written, flops;
    uint32_t n;
} Sum;

static void sum_add(Sum *s, const PlanLaunch *l) {
    s->us += l->predicted_us;
    s->read += l->bytes_read, s->written += l->bytes_written, s->flops += l->flops;
    s->n++;
}

static Sum sum_program(const Plan *p, const PlanProgram *g) {
    Sum s = {0};
    for (uint32_t i = 0; i < g->n_launches; i++) sum_add(&s, &p->launches[g->first_launch + i]);
    return s;
}

// What a program does with one name (a kernel or a collective), in the order of first launch.
typedef struct {
    const char *name;
    const PlanLaunch *first;
    Sum sum;
} Share;

// At most `max` shares; a program has few different kernels.
static uint32_t shares(const Plan *p, const PlanProgram *g, Share *out, uint32_t max) {
    uint32_t n = 0;
    for (uint32_t i = 0; i < g->n_launches; i++) {
        const PlanLaunch *l = &p->launches[g->first_launch + i];
        const char *name = plan_launch_name(p, l);
        uint32_t at = 0;
        while (at < n && strcmp(out[at].name, name)) at++;
        if (at == max) continue;
        if (at == n) out[n++] = (Share){.name = name, .first = l};
        sum_add(&out[at].sum, l);
    }
    return n;
}

static Share *all_shares(const Plan *p, const PlanProgram *g, uint32_t *n) {
    uint32_t max = p->n_kernels + 2;
    Share *list = xrealloc(NULL, max, sizeof *list);
    *n = shares(p, g, list, max);
    return list;
}

static const char *unit(AdaProgramKind kind) { return kind == ADA_PROGRAM_BODY ? "tokens" : "rows"; }

static uint64_t weight_bytes(const Plan *p, AdaLayout layout, uint32_t *n) {
    uint64_t bytes = 0;
    *n = 0;
    for (uint32_t i = 0; i < p->n_weights; i++)
        if (p->weights[i].layout == layout) bytes += p->weights[i].bytes, ++*n;
    return bytes;
}

static uint64_t state_bytes(const Plan *p) {
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < p->n_buffers; i++)
        if (p->buffers[i].space == ADA_SPACE_STATE) bytes += p->buffers[i].bytes;
    return bytes;
}

// ---- text ----------------------------------------------------------------------------------------------

static void put_bytes(StrBuf *out, uint64_t bytes) {
    if (bytes < 10 << 10)
        buf_printf(out, "%llu B", (Ull)bytes);
    else if (bytes < 10 << 20)
        buf_printf(out, "%.1f KiB", (double)bytes / 1024);
    else
        buf_printf(out, "%.1f MiB", (double)bytes / (1 << 20));
}

static void text_memory(const Plan *p, StrBuf *out) {
    uint64_t all = 0;
    buf_puts(out, "\nmemory of one rank\n");
    for (int l = ADA_LAYOUT_ROWS_F32; l < ADA_LAYOUT_LAYOUTS; l++) {
        uint32_t n;
        uint64_t bytes = weight_bytes(p, (AdaLayout)l, &n);
        if (!n) continue;
        buf_printf(out, "  %-24s %6u  ", plan_layout_names[l], n);
        put_bytes(out, bytes);
        buf_putc(out, '\n');
        all += bytes;
    }
    buf_printf(out, "  %-24s %6u  ", "weights together", p->n_weights);
    put_bytes(out, all);
    buf_printf(out, "\n  %-24s %6s  ", "state", "");
    put_bytes(out, state_bytes(p));
    buf_printf(out, "\n  %-24s %6s  ", "scratch", "");
    put_bytes(out, p->scratch_bytes);
    buf_puts(out, "\n\nKV cache, FP8 E4M3\n");
    for (uint32_t i = 0; i < p->n_kv_groups; i++) {
        const AdaKvGroup *g = &p->kv[i];
        if (g->window)
            buf_printf(out, "  group %u: %u layers, window %u", i, g->n_layers, g->window);
        else
            buf_printf(out, "  group %u: %u layers, full attention", i, g->n_layers);
        buf_printf(out, ", %llu B a token, pages of %u tokens, at most %u pages (",
                   (Ull)(g->page_bytes / MAX(p->page_tokens, 1u)), p->page_tokens, g->pages_per_seq);
        put_bytes(out, g->page_bytes * g->pages_per_seq);
        buf_puts(out, ") a sequence\n");
    }
}

static void text_kernels(const Plan *p, const KernelFacts *facts, StrBuf *out) {
    buf_printf(out, "\nkernels (%u)\n", p->n_kernels);
    for (uint32_t i = 0; i < p->n_kernels; i++) {
        const PlanKernel *k = &p->kernels[i];
        buf_printf(out, "  %s\n      %s", k->name, k->template_);
        for (uint32_t j = 0; j < k->n_spec; j++) {
            const SpecField *f = &k->spec[j];
            if (f->kind == 'u') buf_printf(out, " %s=%llu", f->key, (Ull)f->u);
            if (f->kind == 'f') buf_printf(out, " %s=%g", f->key, f->f);
            if (f->kind == 'n') buf_printf(out, " %s=%s", f->key, f->n);
        }
        if (facts)
            buf_printf(out, "\n      %u threads, %u registers each, %llu B of shared memory", k->threads,
                       facts[i].registers, (Ull)(k->shared_bytes + facts[i].static_bytes));
        buf_putc(out, '\n');
    }
}

static void text_launch_row(StrBuf *out, const char *name, uint32_t n, const Sum *s) {
    buf_printf(out, "  %-44s %5u %12llu %12llu %14llu %11.1f", name, n, (Ull)s->read, (Ull)s->written,
               (Ull)s->flops, s->us);
}

// Rows: scratch buffers in order of birth. Columns: time, from the first launch to the last.
static void text_picture(const Plan *p, uint32_t program, StrBuf *out) {
    uint32_t n_launches = MAX(p->programs[program].n_launches, 1u), shown = 0, n = 0;
    for (uint32_t i = 0; i < p->n_buffers; i++) {
        const PlanBuffer *b = &p->buffers[i];
        if (b->space != ADA_SPACE_SCRATCH || b->program != program) continue;
        if (!n++) buf_printf(out, "  %-44s %12s %12s  over time\n", "scratch buffer", "offset", "bytes");
        if (shown == PICTURE_ROWS) continue;
        shown++;
        char row[PICTURE_COLUMNS + 1];
        memset(row, '.', PICTURE_COLUMNS);
        uint64_t from = (uint64_t)b->first_launch * PICTURE_COLUMNS / n_launches;
        uint64_t to = ((uint64_t)b->last_launch + 1) * PICTURE_COLUMNS / n_launches;
        for (uint64_t c = from; c < PICTURE_COLUMNS && (c < to || c == from); c++) row[c] = '#';
        row[PICTURE_COLUMNS] = 0;
        buf_printf(out, "  %-44s %12llu %12llu  %s %u-%u\n", b->name, (Ull)b->offset, (Ull)b->bytes, row,
                   b->first_launch, b->last_launch);
    }
    if (n > shown) buf_printf(out, "  and %u more\n", n - shown);
}

static bool is_of(const PlanChain *c, const PlanProgram *g) {
    return c->first_launch >= g->first_launch && c->first_launch - g->first_launch < g->n_launches;
}

// Microseconds of the program when its chains run as one.
static double chained_us(const Plan *p, const PlanProgram *g) {
    double us = sum_program(p, g).us;
    for (uint32_t i = 0; i < p->n_chains; i++) {
        const PlanChain *c = &p->chains[i];
        if (!is_of(c, g)) continue;
        us += c->predicted_us;
        for (uint32_t j = 0; j < c->n_launches; j++) us -= p->launches[c->first_launch + j].predicted_us;
    }
    return us;
}

static void text_chains(const Plan *p, const PlanProgram *g, StrBuf *out) {
    bool any = false;
    for (uint32_t i = 0; i < p->n_chains; i++) {
        const PlanChain *c = &p->chains[i];
        if (!is_of(c, g)) continue;
        if (!any)
            buf_printf(out, "  %-44s %5s %12s %12s %14s %11s\n", "launches as one", "grid", "first",
                       "launches", "blocks wait", "us");
        any = true;
        buf_printf(out, "  %-44s %5u %12u %12u %14s %11.1f\n", p->kernels[c->kernel].name, c->grid,
                   c->first_launch - g->first_launch, c->n_launches, c->together ? "yes" : "no",
                   c->predicted_us);
    }
    if (any) buf_printf(out, "  the program with these: predicted %.1f us\n", chained_us(p, g));
}

static void text_program(const Plan *p, uint32_t index, StrBuf *out) {
    const PlanProgram *g = &p->programs[index];
    Sum all = sum_program(p, g);
    buf_printf(out, "\nprogram %u: %s, bucket of %u %s, %u launches, predicted %.1f us\n", index,
               plan_program_names[g->kind], g->bucket, unit(g->kind), g->n_launches, all.us);
    buf_printf(out, "  %-44s %5s %12s %12s %14s %11s\n", "kernel", "times", "bytes read", "written", "flops",
               "us");
    uint32_t n;
    Share *list = all_shares(p, g, &n);
    for (uint32_t i = 0; i < n; i++) {
        text_launch_row(out, list[i].name, list[i].sum.n, &list[i].sum);
        buf_printf(out, " %5.1f %%\n", all.us > 0 ? 100 * list[i].sum.us / all.us : 0.0);
    }
    free(list);
    text_picture(p, index, out);
    buf_printf(out, "  %-44s %5s %12s %12s %14s %11s\n", "launch", "grid", "bytes read", "written", "flops",
               "us");
    for (uint32_t i = 0; i < g->n_launches; i++) {
        const PlanLaunch *l = &p->launches[g->first_launch + i];
        Sum one = {0};
        sum_add(&one, l);
        text_launch_row(out, plan_launch_name(p, l), l->grid, &one);
        buf_printf(out, "  %s\n", l->origin ? l->origin : "");
    }
    text_chains(p, g, out);
}

void explain_text(const Plan *p, const Target *t, const KernelFacts *facts, StrBuf *out) {
    buf_printf(out,
               "target %s (%s): %u units, %.4g GB/s, %.4g TFLOPS with fp32 sums, a launch costs %.3g us\n",
               t->name, t->about, t->units, t->dram_gbs, t->tflops_acc32, t->launch_us);
    buf_printf(out, "%u rank%s, context %u, %u sequences, %u tokens a step, %u rows of logits\n", p->n_ranks,
               p->n_ranks == 1 ? "" : "s", p->context, p->seqs_max, p->tokens_max, p->rows_max);
    text_memory(p, out);
    text_kernels(p, facts, out);
    for (uint32_t i = 0; i < p->n_programs; i++) text_program(p, i, out);
    buf_puts(out, "\nconsidered and not taken\n");
    const char *last = "";
    for (uint32_t i = 0; i < p->n_rejected; i++) {
        if (strcmp(last, p->rejected[i].what)) buf_printf(out, "  %s\n", p->rejected[i].what);
        last = p->rejected[i].what;
        buf_printf(out, "      %s\n", p->rejected[i].reason);
    }
}

// ---- JSON ----------------------------------------------------------------------------------------------

static void key(StrBuf *out, const char *name) {
    if (out->len && out->ptr[out->len - 1] != '{' && out->ptr[out->len - 1] != '[') buf_putc(out, ',');
    if (!name) return;
    json_write_string(out, str_of(name));
    buf_putc(out, ':');
}
static void put_u(StrBuf *out, const char *name, uint64_t x) {
    key(out, name);
    buf_printf(out, "%llu", (Ull)x);
}
static void put_f(StrBuf *out, const char *name, double x) {
    key(out, name);
    buf_printf(out, "%.9g", x);
}
static void put_s(StrBuf *out, const char *name, const char *s) {
    key(out, name);
    json_write_string(out, str_of(s ? s : ""));
}
static void open(StrBuf *out, const char *name, char bracket) {
    key(out, name);
    buf_putc(out, bracket);
}

static void put_sum(StrBuf *out, const Sum *s) {
    put_f(out, "predicted_us", s->us);
    put_u(out, "bytes_read", s->read);
    put_u(out, "bytes_written", s->written);
    put_u(out, "flops", s->flops);
}

static void json_target(const Target *t, StrBuf *out) {
    open(out, "target", '{');
    put_s(out, "name", t->name);
    put_s(out, "about", t->about);
    put_u(out, "sm", t->sm);
    put_u(out, "units", t->units);
    put_f(out, "dram_gbs", t->dram_gbs);
    put_f(out, "tflops_acc32", t->tflops_acc32);
    put_f(out, "launch_us", t->launch_us);
    buf_putc(out, '}');
}

static void json_memory(const Plan *p, StrBuf *out) {
    open(out, "memory", '{');
    open(out, "weights", '{');
    for (int l = ADA_LAYOUT_ROWS_F32; l < ADA_LAYOUT_LAYOUTS; l++) {
        uint32_t n;
        uint64_t bytes = weight_bytes(p, (AdaLayout)l, &n);
        if (n) put_u(out, plan_layout_names[l], bytes);
    }
    buf_putc(out, '}');
    put_u(out, "state", state_bytes(p));
    put_u(out, "scratch", p->scratch_bytes);
    buf_putc(out, '}');
    open(out, "kv", '[');
    for (uint32_t i = 0; i < p->n_kv_groups; i++) {
        open(out, NULL, '{');
        put_u(out, "window", p->kv[i].window);
        put_u(out, "layers", p->kv[i].n_layers);
        put_u(out, "pages_per_seq", p->kv[i].pages_per_seq);
        put_u(out, "page_bytes", p->kv[i].page_bytes);
        put_u(out, "bytes_per_token", p->kv[i].page_bytes / MAX(p->page_tokens, 1u));
        buf_putc(out, '}');
    }
    buf_putc(out, ']');
}

static void json_kernels(const Plan *p, const KernelFacts *facts, StrBuf *out) {
    open(out, "kernels", '[');
    for (uint32_t i = 0; i < p->n_kernels; i++) {
        const PlanKernel *k = &p->kernels[i];
        open(out, NULL, '{');
        put_s(out, "name", k->name);
        put_s(out, "template", k->template_);
        open(out, "spec", '{');
        for (uint32_t j = 0; j < k->n_spec; j++) {
            const SpecField *f = &k->spec[j];
            if (f->kind == 'u') put_u(out, f->key, f->u);
            if (f->kind == 'f') put_f(out, f->key, f->f);
            if (f->kind == 'n') put_s(out, f->key, f->n);
        }
        buf_putc(out, '}');
        if (facts) {
            put_u(out, "threads", k->threads);
            put_u(out, "registers", facts[i].registers);
            put_u(out, "shared_bytes", k->shared_bytes + facts[i].static_bytes);
        }
        buf_putc(out, '}');
    }
    buf_putc(out, ']');
}

static void json_weights(const Plan *p, StrBuf *out) {
    open(out, "weights", '[');
    for (uint32_t i = 0; i < p->n_weights; i++) {
        const PlanWeight *w = &p->weights[i];
        open(out, NULL, '{');
        put_s(out, "name", w->name);
        put_s(out, "layout", plan_layout_names[w->layout]);
        put_u(out, "stack", w->stack);
        put_u(out, "rows", w->rows);
        put_u(out, "cols", w->cols);
        put_u(out, "bytes", w->bytes);
        buf_putc(out, '}');
    }
    buf_putc(out, ']');
}

static void json_chains(const Plan *p, const PlanProgram *g, StrBuf *out) {
    put_f(out, "chained_us", chained_us(p, g));
    open(out, "chains", '[');
    for (uint32_t i = 0; i < p->n_chains; i++) {
        const PlanChain *c = &p->chains[i];
        if (!is_of(c, g)) continue;
        open(out, NULL, '{');
        put_s(out, "name", p->kernels[c->kernel].name);
        put_u(out, "first", c->first_launch - g->first_launch);
        put_u(out, "launches", c->n_launches);
        put_u(out, "grid", c->grid);
        put_u(out, "together", c->together);
        put_f(out, "predicted_us", c->predicted_us);
        buf_putc(out, '}');
    }
    buf_putc(out, ']');
}

static void json_program(const Plan *p, uint32_t index, StrBuf *out) {
    const PlanProgram *g = &p->programs[index];
    Sum all = sum_program(p, g);
    open(out, NULL, '{');
    put_s(out, "kind", plan_program_names[g->kind]);
    put_u(out, "bucket", g->bucket);
    put_sum(out, &all);
    open(out, "kernels", '[');
    uint32_t n;
    Share *list = all_shares(p, g, &n);
    for (uint32_t i = 0; i < n; i++) {
        open(out, NULL, '{');
        put_s(out, "name", list[i].name);
        put_u(out, "times", list[i].sum.n);
        put_sum(out, &list[i].sum);
        buf_putc(out, '}');
    }
    free(list);
    buf_putc(out, ']');
    open(out, "launches", '[');
    for (uint32_t i = 0; i < g->n_launches; i++) {
        const PlanLaunch *l = &p->launches[g->first_launch + i];
        Sum one = {0};
        sum_add(&one, l);
        open(out, NULL, '{');
        put_s(out, "name", plan_launch_name(p, l));
        put_u(out, "grid", l->grid);
        put_sum(out, &one);
        put_s(out, "origin", l->origin);
        buf_putc(out, '}');
    }
    buf_putc(out, ']');
    json_chains(p, g, out);
    buf_putc(out, '}');
}

void explain_json(const Plan *p, const Target *t, const KernelFacts *facts, StrBuf *out) {
    buf_putc(out, '{');
    json_target(t, out);
    json_memory(p, out);
    json_weights(p, out);
    json_kernels(p, facts, out);
    open(out, "programs", '[');
    for (uint32_t i = 0; i < p->n_programs; i++) json_program(p, i, out);
    buf_putc(out, ']');
    open(out, "rejected", '[');
    for (uint32_t i = 0; i < p->n_rejected; i++) {
        open(out, NULL, '{');
        put_s(out, "what", p->rejected[i].what);
        put_s(out, "reason", p->rejected[i].reason);
        buf_putc(out, '}');
    }
    buf_puts(out, "]}\n");
}
