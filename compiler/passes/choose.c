// choose: the target chooses a kernel for every step and bucket; equal ones are one kernel
// with a readable name.
#include "compiler/passes/plan_work.h"
#include "runtime/base/num.h"

// How kernels are called: fields in braces, then a word for each field that is not 0. Kernels that differ in
// something else get a number.
static const struct {
    const char *template_, *name, *flags;
} names[] = {
    {"embed", "embed_{format}_h{hidden}", ""},
    {"norm_add", "norm_add_h{hidden}", "has_branch add has_post post has_out norm e4m3 e4m3 count rows"},
    {"linear", "linear_{format}_n{n}_k{k}", "x_e4m3 e4m3 has_bias bias softcap cap add add count rows"},
    {"linear_f32", "linear_f32_n{n}_k{k}", "has_bias bias softcap cap count rows"},
    {"gate_up", "gate_up_{format}_{act}_f{f}_k{k}", "x_e4m3 e4m3"},
    {"act_mul", "act_mul_{act}_f{f}", ""},
    {"rope_write", "rope_write_q{heads}_kv{kv_heads}_d{head_dim}", "has_norm norm"},
    {"attention", "attention_q{heads}_kv{kv_heads}_d{head_dim}", "window window"},
    {"moe_route", "moe_route_e{experts}_k{k}", ""},
    {"moe_gate_up", "moe_gate_up_{format}_{act}_e{experts}_f{f}_k{k}", "x_e4m3 e4m3"},
    {"moe_down", "moe_down_{format}_e{experts}_n{n}_k{k}", "x_e4m3 e4m3"},
    {"moe_combine", "moe_combine_n{n}_k{topk}", "add add"},
    {"gather_rows", "gather_rows_h{hidden}", ""},
    {"quantize_rows", "quantize_rows_k{k}", "count rows"},
    {"sample", "sample_v{vocab_rows}", ""},
    {"advance", "advance_step", ""},
};

static const SpecField *find_field(const Step *s, Str key) {
    for (uint32_t i = 0; i < s->n_spec; i++)
        if (str_is(key, s->spec[i].key)) return &s->spec[i];
    CHECK(!"a field of the template");
    return NULL;
}

static void put_field(StrBuf *b, const SpecField *f) {
    if (f->kind == 'n')
        buf_puts(b, f->n);
    else
        buf_printf(b, "%llu", (unsigned long long)f->u);
}

static bool is_set(const SpecField *f) { return f->kind == 'f' ? f->f != 0 : f->u != 0; }

static Str next_word(const char **at) {
    const char *begin = *at + strspn(*at, " ");
    *at = begin + strcspn(begin, " ");
    return (Str){begin, (size_t)(*at - begin)};
}

static void base_name(const Step *s, StrBuf *b) {
    size_t row = 0;
    while (row < COUNT_OF(names) && strcmp(names[row].template_, s->template_)) row++;
    CHECK(row < COUNT_OF(names));
    for (const char *c = names[row].name; *c; c++) {
        if (*c != '{') {
            buf_putc(b, *c);
            continue;
        }
        size_t len = strcspn(++c, "}");
        put_field(b, find_field(s, (Str){c, len}));
        c += len;
    }
    if (!strcmp(s->template_, "linear")) { // a share of joined rows: linear_bf16_n32_k32_of96
        const SpecField *stride = find_field(s, STR("out_stride"));
        if (stride->u != find_field(s, STR("n"))->u) buf_puts(b, "_of"), put_field(b, stride);
    }
    for (const char *at = names[row].flags; *at;) {
        Str key = next_word(&at), word = next_word(&at);
        if (is_set(find_field(s, key))) buf_printf(b, "_" STR_FMT, STR_ARG(word));
    }
}

typedef struct {
    Plan *p;
    const PassContext *c;
    Diags *d;
    uint32_t cap_kernels, cap_rejected;
} Chooser;

static bool name_taken(const Plan *p, const char *name) {
    for (uint32_t i = 0; i < p->n_kernels; i++)
        if (!strcmp(p->kernels[i].name, name)) return true;
    return false;
}

const char *plan_kernel_name(Arena *a, const Plan *p, const char *base) {
    const char *name = base;
    for (uint32_t n = 2; name_taken(p, name); n++) name = arena_printf(a, "%s_%u", base, n);
    return name;
}

// The kernel of a step with this choice; *added tells whether it is new.
static uint32_t intern(Chooser *x, const Step *s, const KernelChoice *choice, bool *added) {
    Plan *p = x->p;
    *added = false;
    for (uint32_t i = 0; i < p->n_kernels; i++)
        if (target_kernel_is(&p->kernels[i], s->template_, s->spec, s->n_spec, choice)) return i;
    *added = true;
    StrBuf b = {0};
    base_name(s, &b);
    if (choice->spared_us > 0) buf_puts(&b, "_norm");
    for (uint32_t i = 0; i < choice->n_schedule; i++)
        if (!strcmp(choice->schedule[i].key, "cols") && choice->schedule[i].u)
            buf_printf(&b, "_t%llu", 8 * (unsigned long long)choice->schedule[i].u);
    const char *name = plan_kernel_name(x->c->arena, p, arena_strdup(x->c->arena, buf_cstr(&b)));
    buf_free(&b);
    PlanKernel k = {.name = name, .template_ = s->template_, .n_spec = s->n_spec + choice->n_schedule};
    k.spec = ARENA_ARRAY(x->c->arena, SpecField, k.n_spec);
    memcpy(k.spec, s->spec, s->n_spec * sizeof *s->spec);
    memcpy(k.spec + s->n_spec, choice->schedule, choice->n_schedule * sizeof *s->spec);
    k.threads = choice->threads, k.shared_bytes = choice->shared_bytes;
    p->kernels = plan_grow(x->c->arena, p->kernels, p->n_kernels, &x->cap_kernels, sizeof *p->kernels);
    p->kernels[p->n_kernels] = k;
    return p->n_kernels++;
}

static void add_rejected(Chooser *x, const char *what, const KernelAnswer *answer) {
    Plan *p = x->p;
    for (uint32_t i = 0; i < answer->n_rejected; i++) {
        p->rejected =
            plan_grow(x->c->arena, p->rejected, p->n_rejected, &x->cap_rejected, sizeof *p->rejected);
        p->rejected[p->n_rejected++] =
            (PlanRejected){what, arena_strdup(x->c->arena, answer->rejected[i].reason)};
    }
}

static bool fits_template(const Step *s) {
    Template t;
    if (!template_find(s->template_, &t) || t.n_args != s->n_args || t.n_fields != s->n_spec) return false;
    for (uint32_t i = 0; i < s->n_spec; i++)
        if (!str_is(t.fields[i].key, s->spec[i].key) || t.fields[i].kind != s->spec[i].kind) return false;
    return true;
}

// What was rejected is the same for every step of a kernel and bucket: it is told once.
static bool choose(Chooser *x, Step *s, uint32_t i, uint32_t bucket, uint64_t *told) {
    KernelAsk ask = {.template_ = s->template_,
                     .spec = s->spec,
                     .n_spec = s->n_spec,
                     .bucket = bucket,
                     .refusals = x->c->refusals};
    step_cost(s, bucket, x->p->seqs_max, &ask.bytes_read, &ask.bytes_written, &ask.flops);
    KernelAnswer answer;
    const Target *t = x->c->target;
    if (!t->choose(t, &ask, &answer))
        return diag_error(x->d, E_NO_KERNEL, SPAN_NONE, "%s: %s", s->origin,
                          answer.n_rejected ? answer.rejected[0].reason : "no kernel is legal");
    bool added;
    uint32_t k = intern(x, s, &answer.best, &added);
    s->kernels[i] = (StepKernel){answer.best, k, false};
    if (answer.best.spared_us > 0) x->p->work->steps[s->norm].kernels[i].skip = true;
    if (added) told[k] = 0;
    if (told[k] >> i & 1) return true;
    told[k] |= 1ull << i;
    add_rejected(
        x,
        arena_printf(x->c->arena, "%s, bucket %u, grid %u", x->p->kernels[k].name, bucket, answer.best.grid),
        &answer);
    return true;
}

bool pass_choose(Plan *p, const PassContext *c, Diags *d) {
    Chooser x = {.p = p, .c = c, .d = d};
    PlanWork *w = p->work;
    size_t kernels_max = 0;
    for (int kind = ADA_PROGRAM_BODY; kind < ADA_PROGRAM_KINDS; kind++)
        plan_buckets(c, p, (AdaProgramKind)kind, &w->buckets[kind]);
    for (uint32_t i = 0; i < w->n_steps; i++) kernels_max += w->buckets[w->steps[i].program].n;
    uint64_t *told = ARENA_ARRAY(c->arena, uint64_t, kernels_max);
    for (uint32_t i = 0; i < w->n_steps; i++) {
        Step *s = &w->steps[i];
        const BucketList *buckets = &w->buckets[s->program];
        if (s->kind != ADA_LAUNCH_KERNEL) continue;
        CHECK(fits_template(s) && buckets->n <= 64);
        s->kernels = ARENA_ARRAY(c->arena, StepKernel, buckets->n);
        for (uint32_t j = 0; j < buckets->n; j++)
            if (!choose(&x, s, j, buckets->items[j], told)) return false;
    }
    return true;
}
