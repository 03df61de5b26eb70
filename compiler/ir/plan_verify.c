// The checker of plans. It knows the format and templates.def, and nothing of how plans are made.
#include "compiler/ir/plan.h"
#include "compiler/ir/template.h"
#include "runtime/base/num.h"
#include "templates/lib/abi.h"

enum { ALIGN = 256, ERRORS_MAX = 20 };

typedef struct {
    const Plan *p;
    Diags *d;
    Arena scratch;
    uint32_t n_errors;
    // of the launch being checked
    const PlanProgram *program;
    const PlanLaunch *launch;
    const PlanKernel *kernel;
    uint32_t program_index, at; // launch number inside the program
    bool *written;              // [buffers]: scratch that was written by now
} Verify;

typedef unsigned long long Ull; // for printf

__attribute__((format(printf, 2, 3))) static bool wrong(Verify *v, const char *fmt, ...) {
    if (v->n_errors++ >= ERRORS_MAX) return false;
    va_list ap;
    va_start(ap, fmt);
    const char *what = arena_vprintf(&v->scratch, fmt, ap);
    va_end(ap);
    if (!v->launch) return diag_error(v->d, E_PLAN_INVALID, SPAN_NONE, "plan: %s", what);
    return diag_error(v->d, E_PLAN_INVALID, SPAN_NONE, "plan: program %u launch %u (%s): %s",
                      v->program_index, v->at, v->kernel ? v->kernel->name : "collective", what);
}

// ---- rows ------------------------------------------------------------------------------------------------

static bool is_chain(const PlanKernel *k) { return !strcmp(k->template_, "chain"); }
static bool is_rope_attention(const PlanKernel *k) { return !strcmp(k->template_, "rope_attention"); }

static void check_kernels(Verify *v) {
    for (uint32_t i = 0; i < v->p->n_kernels; i++) {
        const PlanKernel *k = &v->p->kernels[i];
        Template t;
        for (uint32_t j = 0; j < i; j++)
            if (!strcmp(k->name, v->p->kernels[j].name)) wrong(v, "two kernels are called %s", k->name);
        if (!template_find(k->template_, &t)) {
            wrong(v, "kernel %s: there is no template `%s`", k->name, k->template_);
            continue;
        }
        bool fits = (k->n_spec == t.n_fields || k->n_spec == t.n_fields + t.n_schedule) && k->threads > 0;
        for (uint32_t j = 0; fits && j < k->n_spec; j++)
            fits = str_is(t.fields[j].key, k->spec[j].key) && t.fields[j].kind == k->spec[j].kind;
        if (!fits) wrong(v, "kernel %s: its spec does not fit template `%s`", k->name, k->template_);
        if ((is_chain(k) || is_rope_attention(k)) != (k->n_parts > 1))
            wrong(v, "kernel %s: a chain, and nothing else, has two parts or more", k->name);
    }
}

static void check_buffer(Verify *v, uint32_t i) {
    const Plan *p = v->p;
    const PlanBuffer *b = &p->buffers[i];
    if (b->space < ADA_SPACE_SCRATCH || b->space >= ADA_SPACE_SPACES || b->role >= ADA_ROLE_ROLES) {
        wrong(v, "buffer %u (%s): no such space or role", i, b->name);
        return;
    }
    if (b->space != ADA_SPACE_SCRATCH) {
        if ((b->space == ADA_SPACE_HOST) != (b->role == ADA_ROLE_RING || b->role == ADA_ROLE_LOGPROBS))
            wrong(v, "buffer %u (%s): ring and logprobs and nothing else live on the host", i, b->name);
        if (b->role == ADA_ROLE_NONE || (b->space == ADA_SPACE_KV) != (b->role == ADA_ROLE_KV_POOL))
            wrong(v, "buffer %u (%s): its role does not belong to its space", i, b->name);
        if ((b->role == ADA_ROLE_KV_POOL || b->role == ADA_ROLE_BLOCK_TABLE) && b->index >= p->n_kv_groups)
            wrong(v, "buffer %u (%s): there is no KV group %u", i, b->name, b->index);
        for (uint32_t j = 0; j < i; j++)
            if (p->buffers[j].space == b->space && p->buffers[j].role == b->role &&
                p->buffers[j].index == b->index)
                wrong(v, "buffers %u and %u have the same role", j, i);
        return;
    }
    if (b->role != ADA_ROLE_NONE) wrong(v, "buffer %u (%s): scratch has no role", i, b->name);
    if (b->program >= p->n_programs) {
        wrong(v, "buffer %u (%s): there is no program %u", i, b->name, b->program);
        return;
    }
    if (b->first_launch > b->last_launch || b->last_launch >= p->programs[b->program].n_launches)
        wrong(v, "buffer %u (%s): it lives from launch %u to %u of %u", i, b->name, b->first_launch,
              b->last_launch, p->programs[b->program].n_launches);
}

static bool is_placed(const Verify *v) { return !v->p->work || v->p->scratch_bytes; }

// Alignment, end, and no two buffers of a program at the same place at the same time.
static void check_placement(Verify *v) {
    const Plan *p = v->p;
    for (uint32_t i = 0; i < p->n_buffers; i++) {
        const PlanBuffer *a = &p->buffers[i];
        if (a->space != ADA_SPACE_SCRATCH) continue;
        if (a->offset % ALIGN)
            wrong(v, "buffer %u (%s): offset %llu is not aligned", i, a->name, (Ull)a->offset);
        if (!range_inside(a->offset, a->bytes, p->scratch_bytes))
            wrong(v, "buffer %u (%s): [%llu, +%llu) leaves the scratch arena of %llu bytes", i, a->name,
                  (Ull)a->offset, (Ull)a->bytes, (Ull)p->scratch_bytes);
        for (uint32_t j = 0; j < i; j++) {
            const PlanBuffer *b = &p->buffers[j];
            if (b->space != ADA_SPACE_SCRATCH || b->program != a->program) continue;
            if (a->last_launch < b->first_launch || b->last_launch < a->first_launch) continue;
            if (a->offset >= b->offset + b->bytes || b->offset >= a->offset + a->bytes) continue;
            wrong(v, "program %u: buffers %u (%s) and %u (%s) overlap while both live", a->program, j,
                  b->name, i, a->name);
        }
    }
}

static void check_weights(Verify *v) {
    for (uint32_t i = 0; i < v->p->n_weights; i++) {
        const PlanWeight *w = &v->p->weights[i];
        if (!w->rows || !w->cols || !w->stack || !w->bytes || w->layout < ADA_LAYOUT_ROWS_F32 ||
            w->layout >= ADA_LAYOUT_LAYOUTS)
            wrong(v, "weight %u (%s): no rows, columns, bytes or layout", i, w->name);
        if (v->p->graph && w->weight >= v->p->graph->n_weights)
            wrong(v, "weight %u (%s): the graph has no weight %u", i, w->name, w->weight);
    }
}

static bool check_programs(Verify *v) {
    const Plan *p = v->p;
    uint32_t next = 0;
    for (uint32_t i = 0; i < p->n_programs; i++) {
        const PlanProgram *g = &p->programs[i];
        uint32_t most = g->kind == ADA_PROGRAM_BODY ? p->tokens_max : p->rows_max;
        if (g->kind < ADA_PROGRAM_BODY || g->kind >= ADA_PROGRAM_KINDS || !g->bucket || g->bucket > most)
            wrong(v, "program %u: bucket %u of kind %d, at most %u are possible", i, g->bucket, g->kind,
                  most);
        if (i && g->kind == p->programs[i - 1].kind && g->bucket <= p->programs[i - 1].bucket)
            wrong(v, "program %u: buckets do not ascend", i);
        if (g->first_launch != next || g->n_launches > p->n_launches - next)
            return wrong(v, "program %u: its launches do not follow those of the one before", i);
        next += g->n_launches;
    }
    return next == p->n_launches || wrong(v, "launches %u and later belong to no program", next);
}

// ---- sizes of arguments: the shapes of templates.def with the numbers of the spec ------------------------

typedef struct {
    Verify *v;
    const Template *t;
    Str rest;
} Shape;

static const struct {
    const char *symbol, *keys[2];
} symbols[] = {
    {"H", {"hidden", NULL}},
    {"K", {"k", NULL}},
    {"N", {"n", NULL}},
    {"F", {"f", "k"}},
    {"E", {"experts", NULL}},
    {"k", {"topk", "k"}},
    {"V", {"vocab_rows", "vocab"}},
    {"D", {"head_dim", NULL}},
    {"Hq", {"heads", NULL}},
    {"Hkv", {"kv_heads", NULL}},
    {"j", {"rows_each", NULL}},
};

static bool spec_value(const PlanKernel *k, const char *key, uint64_t *out) {
    for (uint32_t i = 0; key && i < k->n_spec; i++)
        if (!strcmp(k->spec[i].key, key)) {
            *out = k->spec[i].u;
            return true;
        }
    return false;
}

static bool symbol_value(const Shape *s, Str name, uint64_t *out) {
    const Verify *v = s->v;
    // Rows of a head program are gathered from all tokens of the body's largest bucket.
    if (str_is(name, "T"))
        return *out = strcmp(s->t->name, "gather_rows") ? v->program->bucket : v->p->tokens_max, true;
    if (str_is(name, "R")) return *out = v->program->bucket, true;
    if (str_is(name, "S")) return *out = v->p->seqs_max, true;
    if (str_is(name, "P")) return spec_value(v->kernel, "pages_per_seq", out);
    for (size_t i = 0; i < COUNT_OF(symbols); i++)
        if (str_is(name, symbols[i].symbol))
            return spec_value(v->kernel, symbols[i].keys[0], out) ||
                   spec_value(v->kernel, symbols[i].keys[1], out);
    return false;
}

static bool is_digit(char c) { return c >= '0' && c <= '9'; }
static bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

// factor: [number] [symbol], as in 2Hkv
static bool factor(Shape *s, uint64_t *out) {
    size_t digits = 0, letters = 0;
    uint64_t number = 1, symbol = 1;
    while (digits < s->rest.len && is_digit(s->rest.ptr[digits])) digits++;
    if (digits && !str_to_u64(str_sub(s->rest, 0, digits), &number)) return false;
    s->rest = str_from(s->rest, digits);
    while (letters < s->rest.len && is_letter(s->rest.ptr[letters])) letters++;
    if (letters && !symbol_value(s, str_sub(s->rest, 0, letters), &symbol)) return false;
    s->rest = str_from(s->rest, letters);
    return (digits || letters) && u64_mul(number, symbol, out);
}

static bool next_is(Shape *s, char c) {
    if (!s->rest.len || s->rest.ptr[0] != c) return false;
    s->rest = str_from(s->rest, 1);
    return true;
}

static bool sum(Shape *s, uint64_t *out) {
    uint64_t more;
    if (!factor(s, out)) return false;
    while (next_is(s, '+'))
        if (!factor(s, &more) || !u64_add(*out, more, out)) return false;
    return true;
}

// dim: product of factors and of sums in brackets, or half of it: D/2
static bool dim(Shape *s, uint64_t *out) {
    *out = 1;
    do {
        uint64_t more;
        bool bracket = next_is(s, '(');
        if (!(bracket ? sum(s, &more) : factor(s, &more)) || !u64_mul(*out, more, out)) return false;
        if (bracket && !next_is(s, ')')) return false;
    } while (next_is(s, '*'));
    uint64_t by;
    if (!next_is(s, '/')) return true;
    if (!factor(s, &by) || !by) return false;
    *out /= by;
    return true;
}

// "f32[T,H]" -> bytes
static bool type_bytes(Verify *v, const Template *t, Str type, uint64_t *out) {
    Shape s = {v, t, type};
    *out = 4;
    while (s.rest.len && s.rest.ptr[0] != '[') s.rest = str_from(s.rest, 1);
    if (str_starts(type, STR("sampling"))) *out = sizeof(SamplingRow);
    if (!next_is(&s, '[')) return false;
    do {
        uint64_t more;
        if (!dim(&s, &more) || !u64_mul(*out, more, out)) return false;
    } while (next_is(&s, ','));
    return next_is(&s, ']') && !s.rest.len;
}

// ---- launches --------------------------------------------------------------------------------------------

static void check_cache(Verify *v, const PlanBuffer *b, uint64_t offset) {
    uint64_t heads = 0, dims = 0, page = 0, bytes = 0;
    if (b->role != ADA_ROLE_KV_POOL) {
        wrong(v, "buffer %s is no KV pool", b->name);
        return;
    }
    const AdaKvGroup *g = &v->p->kv[b->index];
    spec_value(v->kernel, "kv_heads", &heads), spec_value(v->kernel, "head_dim", &dims);
    spec_value(v->kernel, "page_bytes", &page);
    if (page != g->page_bytes)
        wrong(v, "pages of %llu bytes, KV group has %llu", (Ull)page, (Ull)g->page_bytes);
    if (!u64_mul(2ull * v->p->page_tokens, heads, &bytes) || !u64_mul(bytes, dims, &bytes) ||
        !range_inside(offset, bytes, g->page_bytes))
        wrong(v, "its layer leaves the page of KV pool %s", b->name);
}

// The pitch of an act or row argument; 0: rows of f32, end to end.
static uint64_t act_pitch(const Verify *v, const Template *t, const TemplateArg *arg) {
    uint64_t pitch = 0;
    if (!str_starts(arg->type, STR("act")) && !str_starts(arg->type, STR("row"))) return 0;
    bool out = str_is(arg->name, "out") && strcmp(t->name, "gather_rows");
    spec_value(v->kernel, out ? "out_pitch" : "x_pitch", &pitch);
    return pitch;
}

// Rows of pitch bytes: "act[T*k,F]" without its last dimension.
static bool act_bytes(Verify *v, const Template *t, Str type, uint64_t pitch, uint64_t *out) {
    size_t comma = type.len;
    while (comma && type.ptr[comma - 1] != ',') comma--;
    Shape s = {v, t, str_from(str_sub(type, 0, comma ? comma - 1 : 0), strlen("act["))};
    return comma && dim(&s, out) && !s.rest.len && u64_mul(*out, pitch, out);
}

// Bytes of an argument; a linear may leave gaps between its rows.
static uint64_t needed(Verify *v, const Template *t, const TemplateArg *arg) {
    uint64_t bytes = 0, stride = 0, n = 0, pitch = act_pitch(v, t, arg);
    if (pitch && act_bytes(v, t, arg->type, pitch, &bytes)) return bytes;
    if (str_is(arg->type, "ring")) return RING_SLOTS * RING_SLOT_BYTES(v->p->rows_max);
    if (str_is(arg->type, "work")) return 1 << 16;
    const uint64_t slots = v->p->seqs_max, cols = TOKEN_COLS((uint64_t)v->p->vocab);
    if (str_is(arg->type, "token_counts")) return 2 * slots * cols;
    if (str_is(arg->type, "token_lists")) return slots * sizeof(TokenLists);
    if (str_is(arg->type, "token_mask")) return slots * cols / 8;
    if (str_is(arg->type, "logprobs")) return LOGPROBS_BYTES(v->p->rows_max);
    if (!type_bytes(v, t, arg->type, &bytes)) {
        wrong(v, "cannot tell the size of `" STR_FMT "`", STR_ARG(arg->name));
        return 0;
    }
    uint64_t each = 0; // moe_down: rows of every expert of a token
    if (str_is(arg->name, "out") && spec_value(v->kernel, "each", &each) && each) {
        spec_value(v->kernel, "topk", &each);
        return bytes * each;
    }
    if (str_is(arg->name, "out") && spec_value(v->kernel, "out_stride", &stride) &&
        spec_value(v->kernel, "n", &n)) {
        if (stride < n) wrong(v, "rows of %llu stand %llu apart", (Ull)n, (Ull)stride);
        return 4 * ((uint64_t)(v->program->bucket - 1) * stride + n);
    }
    return bytes;
}

static void touch(Verify *v, uint32_t index, bool writes) {
    const PlanBuffer *b = &v->p->buffers[index];
    if (b->space != ADA_SPACE_SCRATCH) return;
    if (b->program != v->program_index)
        wrong(v, "uses buffer %u (%s) of program %u", index, b->name, b->program);
    else if (v->at < b->first_launch || v->at > b->last_launch)
        wrong(v, "uses buffer %u (%s), which lives from launch %u to %u", index, b->name, b->first_launch,
              b->last_launch);
    if (!writes && !v->written[index]) wrong(v, "reads buffer %u (%s) before it is written", index, b->name);
    if (writes) v->written[index] = true;
}

static bool arg_exists(Verify *v, const AdaArg *a) {
    if (a->kind == ADA_ARG_NONE)
        return !a->index && !a->offset ? true : wrong(v, "a null pointer has an index");
    if (a->kind == ADA_ARG_BUFFER && a->index < v->p->n_buffers) return true;
    if (a->kind == ADA_ARG_WEIGHT && a->index < v->p->n_weights) return true;
    return wrong(v, "there is no %s %u", a->kind == ADA_ARG_BUFFER ? "buffer" : "weight", a->index);
}

static void check_arg(Verify *v, const Template *t, const TemplateArg *arg, const AdaArg *a) {
    if (!arg_exists(v, a) || a->kind == ADA_ARG_NONE) return;
    bool weight = a->kind == ADA_ARG_WEIGHT, packed = str_starts(arg->type, STR("packed"));
    if (weight ? arg->writes : packed) {
        wrong(v, "`" STR_FMT "` cannot be a %s", STR_ARG(arg->name), weight ? "weight" : "buffer");
        return;
    }
    if (!weight) touch(v, a->index, arg->writes);
    if (packed) {
        uint64_t ahead = 0;
        bool next = str_is(arg->name, "next");
        if (!next && a->offset) wrong(v, "`" STR_FMT "` starts inside a weight", STR_ARG(arg->name));
        if (next && (!spec_value(v->kernel, "next_bytes", &ahead) ||
                     !range_inside(a->offset, ahead, v->p->weights[a->index].bytes)))
            wrong(v, "fetches more than there is of weight %s", v->p->weights[a->index].name);
        return;
    }
    if (str_is(arg->type, "kv")) {
        if (weight)
            wrong(v, "a weight is no KV pool");
        else
            check_cache(v, &v->p->buffers[a->index], a->offset);
        return;
    }
    uint64_t total = weight ? v->p->weights[a->index].bytes : v->p->buffers[a->index].bytes;
    uint64_t bytes = needed(v, t, arg);
    if (!range_inside(a->offset, bytes, total))
        wrong(v, "`" STR_FMT "` needs %llu bytes from %llu on, %s has %llu", STR_ARG(arg->name), (Ull)bytes,
              (Ull)a->offset, weight ? v->p->weights[a->index].name : v->p->buffers[a->index].name,
              (Ull)total);
}

static void check_collective(Verify *v) {
    const PlanLaunch *l = v->launch;
    bool gather = l->kind == ADA_LAUNCH_ALL_GATHER;
    if (l->n_args != (gather ? 2u : 1u) || v->p->n_ranks < 2) {
        wrong(v, "%u arguments on %u ranks", l->n_args, v->p->n_ranks);
        return;
    }
    if (l->rows > v->program->bucket || !l->rows || !l->cols) wrong(v, "%u rows of %u", l->rows, l->cols);
    for (uint32_t i = 0; i < l->n_args; i++) {
        const AdaArg *a = &l->args[i];
        if (a->kind != ADA_ARG_BUFFER || !arg_exists(v, a)) {
            wrong(v, "argument %u is no buffer", i);
            continue;
        }
        uint64_t bytes = 4ull * l->rows * l->cols * (i ? v->p->n_ranks : 1);
        if (!gather) touch(v, a->index, false);
        touch(v, a->index, gather && i);
        if (!range_inside(a->offset, bytes, v->p->buffers[a->index].bytes))
            wrong(v, "argument %u needs %llu bytes", i, (Ull)bytes);
    }
}

// linear and moe_combine with `add` read what they write.
static bool adds(const Verify *v, const TemplateArg *arg) {
    uint64_t add = 0;
    return str_is(arg->name, "out") && spec_value(v->kernel, "add", &add) && add;
}

static void check_launch(Verify *v) {
    const PlanLaunch *l = v->launch;
    Template t;
    if (l->count != COUNT_TOKENS && l->count != COUNT_ROWS) wrong(v, "count %u", l->count);
    if (l->kind == ADA_LAUNCH_ALL_REDUCE || l->kind == ADA_LAUNCH_ALL_GATHER) {
        check_collective(v);
        return;
    }
    if (l->kind != ADA_LAUNCH_KERNEL || l->kernel >= v->p->n_kernels) {
        wrong(v, "there is no kernel %u", l->kernel);
        return;
    }
    v->kernel = &v->p->kernels[l->kernel];
    if (!template_find(v->kernel->template_, &t)) return; // told before
    if (!l->grid) wrong(v, "no blocks");
    if (l->n_args != t.n_args) {
        wrong(v, "%u arguments, template %s takes %u", l->n_args, t.name, t.n_args);
        return;
    }
    // Reads first: what a launch reads must have been written by an earlier one.
    for (int writes = 0; writes < 2; writes++)
        for (uint32_t i = 0; i < t.n_args; i++)
            if (t.args[i].writes == (writes == 1)) {
                if ((t.args[i].reads || adds(v, &t.args[i])) && writes && l->args[i].kind == ADA_ARG_BUFFER &&
                    l->args[i].index < v->p->n_buffers)
                    touch(v, l->args[i].index, false);
                check_arg(v, &t, &t.args[i], &l->args[i]);
            }
}

// The arguments that rope_write and attention have in common are the same, but `q`, which nobody else reads.
static bool same_layer(const PlanLaunch *rope, const PlanLaunch *attention) {
    static const char *const names[] = {"pool", "kv_scale", "block_table", "pos", "slot", "q", "counts"};
    Template of[2];
    if (!template_find("rope_write", &of[0]) || !template_find("attention", &of[1])) return false;
    for (size_t i = 0; i < COUNT_OF(names); i++) {
        const AdaArg *args[2] = {0};
        for (uint32_t j = 0; j < 2; j++)
            for (uint32_t k = 0; k < of[j].n_args; k++)
                if (str_is(of[j].args[k].name, names[i])) args[j] = &(j ? attention : rope)->args[k];
        if (!args[0] || !args[1] || args[0]->kind != args[1]->kind || args[0]->index != args[1]->index ||
            args[0]->offset != args[1]->offset)
            return false;
    }
    return true;
}

// rope_attention holds the tokens of its program, has the blocks of attention, and stands for two launches of
// one layer, behind which nobody reads `q`.
static void check_rope_attention(Verify *v, uint32_t i, const PlanProgram *program) {
    const Plan *p = v->p;
    const PlanChain *c = &p->chains[i];
    const PlanKernel *k = &p->kernels[c->kernel];
    const PlanLaunch *l = &p->launches[c->first_launch];
    uint64_t tokens = 0, tiled = 1;
    spec_value(k, "tokens", &tokens);
    if (k->n_parts != 2 || strcmp(k->parts[0].template_, "rope_write") ||
        strcmp(k->parts[1].template_, "attention") || !spec_value(&k->parts[1], "tiled", &tiled) || tiled) {
        wrong(v, "chain %u: kernel %s is not rope_write and the decode form of attention", i, k->name);
        return;
    }
    if (program->kind != ADA_PROGRAM_BODY || program->bucket > tokens)
        wrong(v, "chain %u: kernel %s holds %llu tokens of %u", i, k->name, (Ull)tokens, program->bucket);
    if (c->grid != l[1].grid || k->threads != k->parts[1].threads)
        wrong(v, "chain %u: %u blocks of %u threads, attention has %u of %u", i, c->grid, k->threads,
              l[1].grid, k->parts[1].threads);
    if (!same_layer(&l[0], &l[1])) wrong(v, "chain %u: rope_write and attention of two layers", i);
    const uint32_t at = c->first_launch - program->first_launch;
    for (uint32_t j = 0; j < 2; j++)
        for (uint32_t n = 0; n < l[j].n_args; n++) {
            const AdaArg *arg = &l[j].args[n];
            if (arg->kind != ADA_ARG_BUFFER || arg->index >= p->n_buffers) continue;
            const PlanBuffer *b = &p->buffers[arg->index];
            if (b->space == ADA_SPACE_SCRATCH && (b->first_launch > at || b->last_launch < at + 1))
                wrong(v, "chain %u: buffer %u (%s) is not kept for both of its launches", i, arg->index,
                      b->name);
        }
    const AdaArg *q = &l[1].args[0];
    if (q->kind != ADA_ARG_BUFFER || q->index >= p->n_buffers ||
        p->buffers[q->index].last_launch != c->first_launch + 1 - program->first_launch)
        wrong(v, "chain %u: the queries are not attention's alone", i);
}

// The launches of a chain are its kernel's parts, of one program, and of no other chain.
static void check_chain(Verify *v, uint32_t i, uint32_t *behind) {
    const Plan *p = v->p;
    const PlanChain *c = &p->chains[i];
    uint32_t program = 0;
    if (c->kernel >= p->n_kernels || p->kernels[c->kernel].n_parts != c->n_launches || !c->grid) {
        wrong(v, "chain %u: kernel %u, %u launches, grid %u", i, c->kernel, c->n_launches, c->grid);
        return;
    }
    const PlanKernel *k = &p->kernels[c->kernel];
    while (program < p->n_programs &&
           c->first_launch >= p->programs[program].first_launch + p->programs[program].n_launches)
        program++;
    if (c->first_launch < *behind || program == p->n_programs ||
        !range_inside(c->first_launch - p->programs[program].first_launch, c->n_launches,
                      p->programs[program].n_launches)) {
        wrong(v, "chain %u: launches %u + %u are not of one program, or of two chains", i, c->first_launch,
              c->n_launches);
        return;
    }
    *behind = c->first_launch + c->n_launches;
    for (uint32_t j = 0; j < c->n_launches; j++) {
        const PlanLaunch *l = &p->launches[c->first_launch + j];
        if (l->kind != ADA_LAUNCH_KERNEL || l->kernel >= p->n_kernels ||
            strcmp(p->kernels[l->kernel].name, k->parts[j].name) != 0)
            wrong(v, "chain %u: launch %u is no part of kernel %s", i, c->first_launch + j, k->name);
    }
    if (c->together != is_chain(k))
        wrong(v, "chain %u: blocks of template %s %s each other", i, k->template_,
              is_chain(k) ? "wait for" : "do not wait for");
    if (is_rope_attention(k)) check_rope_attention(v, i, &p->programs[program]);
}

bool plan_verify(const Plan *p, Diags *d) {
    Verify v = {.p = p, .d = d};
    check_kernels(&v);
    check_weights(&v);
    if (!p->n_programs) wrong(&v, "there is no program");
    bool programs = check_programs(&v);
    for (uint32_t i = 0; i < p->n_buffers; i++) check_buffer(&v, i);
    if (is_placed(&v)) check_placement(&v);
    v.written = ARENA_ARRAY(&v.scratch, bool, p->n_buffers);
    for (uint32_t i = 0; programs && !v.n_errors && i < p->n_programs; i++) {
        v.program = &p->programs[i], v.program_index = i;
        for (v.at = 0; v.at < v.program->n_launches; v.at++) {
            v.launch = &p->launches[v.program->first_launch + v.at];
            v.kernel = NULL;
            check_launch(&v);
        }
        v.launch = NULL;
    }
    for (uint32_t i = 0, behind = 0; programs && i < p->n_chains; i++) check_chain(&v, i, &behind);
    arena_free(&v.scratch);
    return v.n_errors == 0;
}
