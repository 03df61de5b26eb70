// Plan to text.
#include "compiler/ir/plan_text.h"
#include "compiler/ir/text.h"
#include "runtime/base/num.h"

const char *const plan_space_names[ADA_SPACE_SPACES] = {[ADA_SPACE_SCRATCH] = "scratch",
                                                        [ADA_SPACE_STATE] = "state",
                                                        [ADA_SPACE_KV] = "kv",
                                                        [ADA_SPACE_HOST] = "host"};
const char *const plan_role_names[ADA_ROLE_ROLES] = {
    [ADA_ROLE_NONE] = "none",
    [ADA_ROLE_COUNTS] = "counts",
    [ADA_ROLE_IDS] = "ids",
    [ADA_ROLE_POS] = "pos",
    [ADA_ROLE_SLOT] = "slot",
    [ADA_ROLE_ROWS] = "rows",
    [ADA_ROLE_HIDDEN] = "hidden",
    [ADA_ROLE_BLOCK_TABLE] = "block_table",
    [ADA_ROLE_LOGITS] = "logits",
    [ADA_ROLE_KV_POOL] = "kv_pool",
    [ADA_ROLE_NEXT] = "next",
    [ADA_ROLE_SAMPLING] = "sampling",
    [ADA_ROLE_STATUS] = "status",
    [ADA_ROLE_RING] = "ring",
    [ADA_ROLE_WORK] = "work",
    [ADA_ROLE_TOKEN_COUNTS] = "token_counts",
    [ADA_ROLE_TOKEN_LISTS] = "token_lists",
    [ADA_ROLE_TOKEN_MASK] = "token_mask",
    [ADA_ROLE_LOGPROBS] = "logprobs",
};
const char *const plan_program_names[ADA_PROGRAM_KINDS] = {[ADA_PROGRAM_BODY] = "body",
                                                           [ADA_PROGRAM_HEAD] = "head",
                                                           [ADA_PROGRAM_SAMPLE] = "sample",
                                                           [ADA_PROGRAM_ADVANCE] = "advance"};
const char *const plan_layout_names[ADA_LAYOUT_LAYOUTS] = {
    [ADA_LAYOUT_ROWS_F32] = "rows_f32",     [ADA_LAYOUT_ROWS_BF16] = "rows_bf16",
    [ADA_LAYOUT_HOST_NVFP4] = "host_nvfp4", [ADA_LAYOUT_HOST_BF16] = "host_bf16",
    [ADA_LAYOUT_HOST_F16] = "host_f16",     [ADA_LAYOUT_HOST_F32] = "host_f32",
    [ADA_LAYOUT_MMA_NVFP4] = "mma_nvfp4",   [ADA_LAYOUT_MMA_NVFP4_PAIRS] = "mma_nvfp4_pairs",
    [ADA_LAYOUT_HOST_E4M3] = "host_e4m3",   [ADA_LAYOUT_MMA_E4M3] = "mma_e4m3",
    [ADA_LAYOUT_MMA_F16] = "mma_f16",       [ADA_LAYOUT_MMA_F16_PAIRS] = "mma_f16_pairs",
};
const char *const plan_weight_kind_names[PLAN_WEIGHT_KINDS] = {"values", "row_scales", "bound"};

#define NUMBER(name)                                                                                         \
    { #name, offsetof(Plan, name) }
const PlanNumber plan_numbers[] = {
    NUMBER(n_ranks), NUMBER(vocab_rows), NUMBER(vocab),      NUMBER(hidden),   NUMBER(n_layers),
    NUMBER(context), NUMBER(seqs_max),   NUMBER(tokens_max), NUMBER(rows_max), NUMBER(page_tokens),
};
const size_t n_plan_numbers = COUNT_OF(plan_numbers);

const char *plan_launch_name(const Plan *p, const PlanLaunch *l) {
    if (l->kind == ADA_LAUNCH_ALL_REDUCE) return "all_reduce";
    if (l->kind == ADA_LAUNCH_ALL_GATHER) return "all_gather";
    return p->kernels[l->kernel].name;
}

typedef unsigned long long Ull; // for printf

static void put_name(StrBuf *out, const char *name) { text_print_name(str_of(name), out); }

static void print_weight(const PlanWeight *w, uint32_t i, StrBuf *out) {
    buf_printf(out, "weight @%u ", i);
    put_name(out, w->name);
    buf_printf(out, " %s %s [%llu,%llu,%llu] bytes %llu of %u%s\n", plan_weight_kind_names[w->kind],
               plan_layout_names[w->layout], (Ull)w->stack, (Ull)w->rows, (Ull)w->cols, (Ull)w->bytes,
               w->weight, w->same_on_all_ranks ? " same" : "");
}

static void print_kernel(const PlanKernel *k, StrBuf *out) {
    buf_puts(out, "kernel ");
    put_name(out, k->name);
    buf_puts(out, " = ");
    put_name(out, k->template_);
    buf_puts(out, " {");
    for (uint32_t i = 0; i < k->n_spec; i++) {
        const SpecField *f = &k->spec[i];
        buf_printf(out, "%s%s=", i ? ", " : "", f->key);
        if (f->kind == 'u')
            buf_printf(out, "%llu", (Ull)f->u);
        else if (f->kind == 'f')
            text_print_double(f->f, out);
        else
            put_name(out, f->n);
    }
    buf_printf(out, "} threads %u shared %llu", k->threads, (Ull)k->shared_bytes);
    for (uint32_t i = 0; i < k->n_parts; i++) {
        buf_puts(out, i ? " " : " of ");
        put_name(out, k->parts[i].name);
    }
    buf_putc(out, '\n');
}

static void print_buffer(const PlanBuffer *b, uint32_t i, StrBuf *out) {
    buf_printf(out, "buffer %%%u ", i);
    put_name(out, b->name);
    buf_printf(out, " %s %s %u", plan_space_names[b->space], plan_role_names[b->role], b->index);
    if (b->program == UINT32_MAX)
        buf_puts(out, " all");
    else
        buf_printf(out, " %u", b->program);
    buf_printf(out, " at %llu bytes %llu live %u %u\n", (Ull)b->offset, (Ull)b->bytes, b->first_launch,
               b->last_launch);
}

static void print_launch(const Plan *p, const PlanLaunch *l, StrBuf *out) {
    buf_puts(out, "    launch ");
    put_name(out, plan_launch_name(p, l));
    buf_puts(out, "(");
    for (uint32_t i = 0; i < l->n_args; i++) {
        const AdaArg *a = &l->args[i];
        if (i) buf_puts(out, ", ");
        if (a->kind == ADA_ARG_NONE) {
            buf_puts(out, "_");
            continue;
        }
        buf_printf(out, "%c%u", a->kind == ADA_ARG_BUFFER ? '%' : '@', a->index);
        if (a->offset) buf_printf(out, "[%llu]", (Ull)a->offset);
    }
    buf_puts(out, ")");
    if (l->kind == ADA_LAUNCH_KERNEL)
        buf_printf(out, " grid %u", l->grid);
    else
        buf_printf(out, " rows %u cols %u", l->rows, l->cols);
    buf_printf(out, " count %u read %llu written %llu flops %llu us ", l->count, (Ull)l->bytes_read,
               (Ull)l->bytes_written, (Ull)l->flops);
    text_print_double(l->predicted_us, out);
    if (l->origin && *l->origin) buf_printf(out, "  ; %s", l->origin);
    buf_putc(out, '\n');
}

void plan_print(const Plan *p, StrBuf *out) {
    buf_puts(out, "plan ");
    put_name(out, p->target ? p->target : "");
    for (size_t i = 0; i < n_plan_numbers; i++)
        buf_printf(out, " %s %u", plan_numbers[i].key,
                   *(const uint32_t *)((const char *)p + plan_numbers[i].offset));
    buf_printf(out, " scratch %llu\n", (Ull)p->scratch_bytes);
    for (uint32_t i = 0; i < p->n_kv_groups; i++)
        buf_printf(out, "kv window %u pages_per_seq %u page_bytes %llu layers %u\n", p->kv[i].window,
                   p->kv[i].pages_per_seq, (Ull)p->kv[i].page_bytes, p->kv[i].n_layers);
    for (uint32_t i = 0; i < p->n_weights; i++) print_weight(&p->weights[i], i, out);
    for (uint32_t i = 0; i < p->n_kernels; i++) print_kernel(&p->kernels[i], out);
    for (uint32_t i = 0; i < p->n_buffers; i++) print_buffer(&p->buffers[i], i, out);
    for (uint32_t i = 0; i < p->n_programs; i++) {
        const PlanProgram *g = &p->programs[i];
        buf_printf(out, "program %s %u\n", plan_program_names[g->kind], g->bucket);
        for (uint32_t j = 0; j < g->n_launches; j++) print_launch(p, &p->launches[g->first_launch + j], out);
    }
    for (uint32_t i = 0; i < p->n_chains; i++) {
        const PlanChain *c = &p->chains[i];
        buf_puts(out, "chain ");
        put_name(out, p->kernels[c->kernel].name);
        buf_printf(out, " first %u launches %u grid %u%s us ", c->first_launch, c->n_launches, c->grid,
                   c->together ? " together" : "");
        text_print_double(c->predicted_us, out);
        buf_putc(out, '\n');
    }
    for (uint32_t i = 0; i < p->n_rejected; i++) {
        buf_puts(out, "rejected ");
        put_name(out, p->rejected[i].what);
        buf_putc(out, ' ');
        put_name(out, p->rejected[i].reason);
        buf_putc(out, '\n');
    }
}
