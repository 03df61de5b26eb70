#include "compiler/frontend/builder.h"

#include <math.h>

#include "compiler/ir/op.h"
#include "runtime/base/num.h"

enum { NAMES_MAX = 64, CALL_DEPTH_MAX = 8, LISTED_MAX = 8 };

// Values that exist only while a layer is built.
typedef struct {
    int32_t index; // -1: outside of the layers
    bool flags[FAMILY_FLAGS_MAX];
    bool sliding;
    double window, rope_factor, k_scale, v_scale;
} Layer;

// Tensors that are not as they should be, told in one error.
typedef struct {
    StrBuf list;
    uint32_t n;
} Complaint;

typedef struct {
    Arena *arena;
    const BuilderInput *in;
    const Config *config;
    const Family *family;
    Graph *graph;
    Diags *diags;
    Layer layer;
    FamilyPart part; // being built
    struct {
        Str name;
        ValueId value;
    } names[NAMES_MAX];
    uint32_t n_names;
    ValueId *weight_values; // [cap_weight_values], the node of each weight
    uint32_t cap_weight_values;
    Complaint missing, misshapen, mixed;
    const FamilyStep *step; // being built
    const char *origin;
} Builder;

static Span span_of(Builder *b, const Yaml *y) { return yaml_span(&b->family->src, y); }

// ---- expressions ---------------------------------------------------------------------------------------

static bool number(ExprValue *out, double v) {
    *out = (ExprValue){.num = v};
    return true;
}

static bool lookup(void *ctx, Str name, ExprValue *out) {
    const Builder *b = ctx;
    const Layer *l = &b->layer;
    if (l->index >= 0) {
        if (str_is(name, "layer")) return number(out, l->index);
        if (str_is(name, "window")) return number(out, l->window);
        if (str_is(name, "rope_factor")) return number(out, l->rope_factor);
        if (str_is(name, "k_scale")) return number(out, l->k_scale);
        if (str_is(name, "v_scale")) return number(out, l->v_scale);
        if (str_is(name, "sliding")) return number(out, l->sliding);
        for (uint32_t i = 0; i < b->family->n_flags; i++)
            if (str_eq(name, b->family->flags[i].name)) return number(out, l->flags[i]);
    }
    return config_lookup(b->config, name, out);
}

static bool eval_text(Builder *b, Str text, Span at, double *out) {
    ExprScope scope = {.lookup = lookup, .ctx = b};
    scope.names = config_names(&scope.n_names);
    return expr_eval(text, at, &scope, out, b->diags);
}

static bool eval(Builder *b, const Yaml *y, double *out) {
    return eval_text(b, y->s, family_text_span(b->family, y), out);
}

// `when` is true where there is none.
static bool eval_when(Builder *b, const Yaml *when, bool *out) {
    double v = 1;
    if (when && !eval(b, when, &v)) return false;
    *out = v != 0;
    return true;
}

static bool eval_count(Builder *b, const Yaml *y, uint64_t *out) {
    double v;
    if (!eval(b, y, &v)) return false;
    if (v < 1 || v > 0x1p40 || v != floor(v))
        return diag_error(b->diags, E_FAMILY, span_of(b, y), "this is %g, but must be a positive integer", v);
    *out = (uint64_t)v;
    return true;
}

// ---- weights -------------------------------------------------------------------------------------------

static void complain(Complaint *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void complain(Complaint *c, const char *fmt, ...) {
    char text[512];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (c->n++ < LISTED_MAX) buf_printf(&c->list, "%s%s", c->n > 1 ? ", " : "", text);
}

static const char *more(Arena *a, const Complaint *c) {
    return c->n > LISTED_MAX ? arena_printf(a, " and %u more", c->n - LISTED_MAX) : "";
}

static RandomKind random_kind(FamilyWeightKind k) {
    switch (k) {
    case FW_NORM: return RANDOM_NORM_ONE;
    case FW_NORM_ZERO: return RANDOM_NORM_ZERO;
    case FW_BIAS: return RANDOM_BIAS;
    default: return RANDOM_LINEAR;
    }
}

static DType dtype_of(WeightFormat f) {
    static const DType types[] = {[WF_F32] = DT_F32,
                                  [WF_BF16] = DT_BF16,
                                  [WF_F16] = DT_F16,
                                  [WF_NVFP4] = DT_NVFP4,
                                  [WF_E4M3] = DT_E4M3};
    return types[f];
}

static const char *shape_text(Arena *a, uint32_t rank, const uint64_t *shape) {
    StrBuf t = {0};
    for (uint32_t i = 0; i < rank && i < 3; i++)
        buf_printf(&t, "%s%llu", i ? "x" : "", (unsigned long long)shape[i]);
    const char *s = arena_strdup(a, rank ? buf_cstr(&t) : "a scalar");
    buf_free(&t);
    return s;
}

// Asks the source for one tensor; what is wrong with it is kept for the end.
static WeightFormat find_tensor(Builder *b, const FamilyWeight *w, Str name, const uint64_t *shape) {
    WeightFormat format = w->kind == FW_LINEAR ? b->in->linears : WF_BF16;
    uint32_t rank = w->shape->n;
    WeightInfo info;
    if (b->in->random) source_random_declare(b->in->source, name, format, rank, shape, random_kind(w->kind));
    if (!source_info(b->in->source, name, &info)) {
        complain(&b->missing, "`" STR_FMT "`", STR_ARG(name));
        return format;
    }
    bool same = info.rank == rank;
    for (uint32_t i = 0; same && i < rank; i++) same = info.shape[i] == shape[i];
    if (!same)
        complain(&b->misshapen, "`" STR_FMT "` (%s, not %s)", STR_ARG(name),
                 shape_text(b->arena, info.rank, info.shape), shape_text(b->arena, rank, shape));
    return info.format;
}

static Str replaced(Arena *a, Str s, const char *what, const char *by) {
    Str at = {0};
    for (size_t i = 0; i + strlen(what) <= s.len && !at.ptr; i++)
        if (!memcmp(s.ptr + i, what, strlen(what))) at = str_from(s, i);
    if (!at.ptr) return s;
    return str_of(arena_printf(a, STR_FMT "%s" STR_FMT, (int)(s.len - at.len), s.ptr, by,
                               STR_ARG(str_from(at, strlen(what)))));
}

static Str full_name(Builder *b, const FamilyWeight *w, bool of_layer) {
    if (!of_layer) return w->name;
    return str_of(arena_printf(b->arena, "model.layers.%d." STR_FMT, b->layer.index, STR_ARG(w->name)));
}

static bool eval_weight(Builder *b, const FamilyWeight *w, uint64_t *shape, uint64_t *units,
                        uint64_t *stack) {
    *units = 0, *stack = 1;
    for (uint32_t i = 0; i < w->shape->n; i++)
        if (!eval_count(b, &w->shape->items[i], &shape[i])) return false;
    if (w->units && !eval_count(b, w->units, units)) return false;
    if (w->stack && !eval_count(b, w->stack, stack)) return false;
    if (w->kind == FW_LINEAR && shape[w->shape->n - 1] % 16)
        return diag_error(b->diags, E_CONFIG_VALUE, SPAN_FILE(&b->config->src),
                          "`" STR_FMT "` would have %llu columns, which must be a multiple of 16",
                          STR_ARG(w->name), (unsigned long long)shape[w->shape->n - 1]);
    if (*units > UINT32_MAX || *stack > 1 << 16)
        return diag_error(b->diags, E_FAMILY, span_of(b, w->at), "too many parts");
    return true;
}

static bool add_weight(Builder *b, const FamilyWeight *w, bool of_layer, WeightId *out) {
    uint64_t shape[2] = {0}, units, n;
    if (!eval_weight(b, w, shape, &units, &n)) return false;
    Str name = full_name(b, w, of_layer);
    Weight weight = {.name = replaced(b->arena, name, "{expert}.", ""), .n_parts = (uint32_t)n};
    weight.parts = ARENA_ARRAY(b->arena, WeightPart, n);
    WeightFormat format = WF_BF16;
    for (uint32_t e = 0; e < n; e++) {
        Str tensor = w->stack ? replaced(b->arena, name, "{expert}", arena_printf(b->arena, "%u", e)) : name;
        WeightFormat one = find_tensor(b, w, tensor, shape);
        if (e && one != format) complain(&b->mixed, "`" STR_FMT "`", STR_ARG(tensor));
        if (!e) format = one;
        bool vector = w->shape->n == 1;
        weight.parts[e] = (WeightPart){.tensor = tensor,
                                       .rows = vector ? 1 : shape[0],
                                       .cols = vector ? shape[0] : shape[1],
                                       .rule = w->shard,
                                       .units = (uint32_t)units};
    }
    Type t = {.dtype = dtype_of(format)};
    if (w->stack) t.dim[t.rank++] = (int64_t)n;
    for (uint32_t i = 0; i < w->shape->n; i++) t.dim[t.rank++] = (int64_t)shape[i];
    weight.type = t;
    *out = graph_add_weight(b->graph, weight);
    return true;
}

// Puts a quantised copy in the place of the head's weight `id`; beside it where it is the embedding table.
static bool quantize_head(Builder *b, WeightId *id, bool tied) {
    BuilderHead *h = b->in->head;
    const Weight *w = &b->graph->weights[*id];
    WeightInfo info, copy;
    Err e = {0};
    bool faulty = b->missing.n || b->misshapen.n; // told at the end
    if (faulty || !source_info(b->in->source, w->parts[0].tensor, &info)) return true;
    h->tied = tied, h->id = *id, h->plain = *w;
    h->kept = info.format == WF_NVFP4;
    if (h->kept) return true;
    if (h->format == WF_NVFP4 && info.shape[1] % 16)
        return diag_error(b->diags, E_CONFIG_VALUE, SPAN_FILE(&b->config->src),
                          "`head: nvfp4` needs rows of a multiple of 16 columns; `" STR_FMT "` has %llu",
                          STR_ARG(w->name), (unsigned long long)info.shape[1]);
    if (!source_quantized_copy(b->in->source, &info, h->format, h->method, &copy, &e))
        return diag_err(b->diags, SPAN_FILE(b->in->place), &e);
    Weight quantized = *w;
    quantized.parts = ARENA_NEW(b->arena, WeightPart);
    *quantized.parts = *w->parts;
    quantized.parts->tensor = copy.name;
    quantized.type.dtype = dtype_of(copy.format);
    h->plain.name = quantized.name = STR("lm_head.weight");
    if (tied)
        *id = h->id = graph_add_weight(b->graph, quantized);
    else
        b->graph->weights[*id] = quantized;
    return true;
}

// The weight of the head part of the graph that its linear reads.
static bool head_weight(Builder *b, FamilyWeightKind kind, WeightId *id) {
    bool tied = kind == FW_EMBED;
    if (!b->in->head || b->part != FAMILY_HEAD || (kind != FW_HEAD && !tied)) return true;
    WeightId done = tied ? graph_find_weight(b->graph, STR("lm_head.weight")) : *id;
    if (done != NO_ID && done == b->in->head->id) {
        *id = done;
        return true;
    }
    return quantize_head(b, id, tied);
}

// The node that yields a weight; made at its first use.
static ValueId weight_value(Builder *b, WeightId id, Span at) {
    if (id >= b->cap_weight_values) {
        uint32_t cap = MAX(id + 1, b->cap_weight_values * 2);
        ValueId *bigger = ARENA_ARRAY(b->arena, ValueId, cap);
        for (uint32_t i = 0; i < cap; i++) bigger[i] = i < b->cap_weight_values ? b->weight_values[i] : NO_ID;
        b->weight_values = bigger, b->cap_weight_values = cap;
    }
    if (b->weight_values[id] != NO_ID) return b->weight_values[id];
    Str name = b->graph->weights[id].name;
    Attr attr = {.key = "name", .kind = ATTR_NAME, .name = arena_strndup(b->arena, name.ptr, name.len)};
    ValueId v = graph_add(b->graph, OP_weight, NULL, 0, &attr, 1, b->layer.index, b->origin, at, b->diags);
    return b->weight_values[id] = v;
}

static bool same_rope(const RopeSpec *x, const RopeSpec *y) {
    return x->kind == y->kind && x->theta == y->theta && x->factor == y->factor &&
           x->low_freq_factor == y->low_freq_factor && x->high_freq_factor == y->high_freq_factor &&
           x->original_max == y->original_max && x->beta_fast == y->beta_fast &&
           x->beta_slow == y->beta_slow && x->truncate == y->truncate &&
           x->attention_factor == y->attention_factor;
}

// The constant table of this layer's RoPE.
static ValueId inv_freq_value(Builder *b, Span at) {
    const Config *c = b->config;
    bool own = b->layer.sliding && !same_rope(&c->rope_full, &c->rope_sliding);
    Str name = own ? STR("rope.sliding.inv_freq") : STR("rope.inv_freq");
    WeightId id = graph_find_weight(b->graph, name);
    if (id == NO_ID) {
        uint32_t n = (uint32_t)config_int(c, CFG_head_dim) / 2;
        float *data = ARENA_ARRAY(b->arena, float, n);
        rope_inv_freq(own ? &c->rope_sliding : &c->rope_full, n * 2, data);
        id = graph_add_weight(b->graph, (Weight){.name = name, .type = {DT_F32, 1, {n}}, .data = data});
    }
    return weight_value(b, id, at);
}

static const FamilyWeight *declared(const FamilyWeight *w, uint32_t n, Str name) {
    for (uint32_t i = 0; i < n; i++)
        if (str_eq(w[i].name, name)) return &w[i];
    return NULL;
}

// ---- steps ---------------------------------------------------------------------------------------------

typedef struct {
    Str text;
    size_t pos;
    Span at; // of text
    int depth;
} Cursor;

static Span here(const Cursor *c, size_t begin, size_t end) {
    Span at = c->at;
    at.end = at.begin + MAX(end, begin + 1), at.begin += begin;
    return at;
}

static char peek(Cursor *c) {
    while (c->pos < c->text.len && c->text.ptr[c->pos] == ' ') c->pos++;
    return c->pos < c->text.len ? c->text.ptr[c->pos] : 0;
}

static Str take_name(Cursor *c) {
    size_t begin = (peek(c), c->pos);
    while (c->pos < c->text.len) {
        char ch = c->text.ptr[c->pos];
        bool word = (ch >= 'a' && ch <= 'z') || (ch >= 'A' && ch <= 'Z') || (ch >= '0' && ch <= '9');
        if (!word && ch != '_' && ch != '.' && ch != '{' && ch != '}') break;
        c->pos++;
    }
    return str_sub(c->text, begin, c->pos);
}

// The text of an attribute, up to the comma or parenthesis that ends it.
static Str take_expr(Cursor *c) {
    size_t begin = (peek(c), c->pos);
    for (int open = 0; c->pos < c->text.len; c->pos++) {
        char ch = c->text.ptr[c->pos];
        if (open == 0 && (ch == ',' || ch == ')')) break;
        open += (ch == '(') - (ch == ')');
    }
    return str_sub(c->text, begin, c->pos);
}

static bool unknown_name(Builder *b, Str name, Span at) {
    const char *names[NAMES_MAX + 256];
    size_t n = 0;
    for (uint32_t i = 0; i < b->n_names; i++) names[n++] = str_dup(b->arena, b->names[i].name).ptr;
    for (uint32_t i = 0; i < b->family->n_layer_weights && n < COUNT_OF(names); i++)
        names[n++] = b->family->layer_weights[i].name.ptr;
    for (uint32_t i = 0; i < b->family->n_weights && n < COUNT_OF(names); i++)
        names[n++] = b->family->weights[i].name.ptr;
    diag_error(b->diags, E_FAMILY, at, "no value and no weight is called `" STR_FMT "` here", STR_ARG(name));
    diag_did_you_mean(b->diags, name, names, n);
    return false;
}

// A value or weight by name; *out is NO_ID for a weight that this config does without.
static bool resolve(Builder *b, Str name, Span at, ValueId *out) {
    for (uint32_t i = b->n_names; i-- > 0;)
        if (str_eq(b->names[i].name, name)) {
            *out = b->names[i].value;
            return true;
        }
    if (b->layer.index >= 0 && str_is(name, "inv_freq")) return (*out = inv_freq_value(b, at)) != NO_ID;
    bool of_layer = b->layer.index >= 0;
    const FamilyWeight *w =
        of_layer ? declared(b->family->layer_weights, b->family->n_layer_weights, name) : NULL;
    if (!w) of_layer = false, w = declared(b->family->weights, b->family->n_weights, name);
    if (!w) return unknown_name(b, name, at);
    bool there;
    *out = NO_ID;
    if (!eval_when(b, w->when, &there)) return false;
    if (!there) return true;
    WeightId id = graph_find_weight(b->graph, replaced(b->arena, full_name(b, w, of_layer), "{expert}.", ""));
    if (id == NO_ID && !add_weight(b, w, of_layer, &id)) return false;
    if (!head_weight(b, w->kind, &id)) return false;
    return (*out = weight_value(b, id, at)) != NO_ID;
}

static bool read_attr(Builder *b, Op op, Str key, Cursor *c, Attr *out) {
    const char *attrs = op_info(op)->attrs;
    Str name;
    AttrKind kind = ATTR_REAL;
    while (op_next_attr(&attrs, &name, &kind) && !str_eq(name, key)) kind = ATTR_REAL;
    *out = (Attr){.key = arena_strndup(b->arena, key.ptr, key.len), .kind = kind};
    Str text = take_expr(c);
    Span at = here(c, (size_t)(text.ptr - c->text.ptr), c->pos);
    if (kind == ATTR_NAME) {
        out->name = arena_strndup(b->arena, text.ptr, text.len);
        return true;
    }
    double v;
    if (!eval_text(b, text, at, &v)) return false;
    out->real = v;
    if (kind == ATTR_REAL) return true;
    if (v != floor(v) || fabs(v) > 0x1p53)
        return diag_error(b->diags, E_FAMILY, at, "`" STR_FMT "` is %g, but must be an integer", STR_ARG(key),
                          v);
    out->i = (int64_t)v;
    return true;
}

static bool find_op(Builder *b, Str name, Span at, Op *out) {
    if (str_is(name, "activation")) name = str_of(b->config->values[CFG_activation].act);
    if (op_find(name, out)) return true;
    diag_error(b->diags, E_FAMILY, at, "no op is called `" STR_FMT "`", STR_ARG(name));
    diag_did_you_mean(b->diags, name, op_names(), OP_COUNT);
    return false;
}

typedef struct {
    ValueId inputs[INPUTS_MAX];
    Attr attrs[ATTRS_MAX];
    uint32_t n_inputs, n_attrs;
    bool ended; // by a weight that is absent
} Args;

static bool build_call(Builder *b, Cursor *c, Str name, size_t begin, ValueId *out);

static bool read_arg(Builder *b, Op op, Cursor *c, Args *args) {
    Str name = take_name(c);
    size_t begin = c->pos - name.len;
    Span at = here(c, begin, c->pos);
    char next = peek(c);
    if (!name.len)
        return diag_error(b->diags, E_FAMILY, at, "a value, a weight or an attribute is missing here");
    if (next == '=') {
        c->pos++;
        if (args->n_attrs == ATTRS_MAX) return diag_error(b->diags, E_FAMILY, at, "too many attributes");
        return read_attr(b, op, name, c, &args->attrs[args->n_attrs++]);
    }
    ValueId v;
    if (next == '(' ? !build_call(b, c, name, begin, &v) : !resolve(b, name, at, &v)) return false;
    if (args->ended || args->n_inputs == INPUTS_MAX)
        return diag_error(b->diags, E_FAMILY, at, "only the last input may be a weight that is absent");
    if (v == NO_ID)
        args->ended = true;
    else
        args->inputs[args->n_inputs++] = v;
    return true;
}

// The quantised rows of x: those of an earlier linear of the layer that reads x, or new ones.
static ValueId quantized(Builder *b, ValueId x, Span at) {
    const Graph *g = b->graph;
    for (NodeId i = g->n_nodes; i-- > 0 && g->nodes[i].layer == b->layer.index;)
        if (g->nodes[i].op == OP_quantize_rows && g->nodes[i].inputs[0] == x) return g->nodes[i].result;
    return graph_add(b->graph, OP_quantize_rows, &x, 1, NULL, 0, b->layer.index, b->origin, at, b->diags);
}

// A linear of NVFP4 weights reads quantised rows when the recipe says so.
static bool quantize_input(Builder *b, Op op, Args *args, Span at) {
    bool linear = (op == OP_linear || op == OP_expert_linear) && args->n_inputs >= 2;
    if (!b->in->a8 || !linear || b->graph->values[args->inputs[1]].type.dtype != DT_NVFP4) return true;
    return (args->inputs[0] = quantized(b, args->inputs[0], at)) != NO_ID;
}

// `name` has been read and a parenthesis follows.
static bool build_call(Builder *b, Cursor *c, Str name, size_t begin, ValueId *out) {
    Args args = {0};
    Op op;
    if (++c->depth > CALL_DEPTH_MAX) return diag_error(b->diags, E_FAMILY, c->at, "nested too deeply");
    if (!find_op(b, name, here(c, begin, begin + name.len), &op)) return false;
    c->pos++;
    while (peek(c) != ')') {
        if (!read_arg(b, op, c, &args)) return false;
        if (peek(c) == ',')
            c->pos++;
        else if (peek(c) != ')')
            return diag_error(b->diags, E_FAMILY, here(c, c->pos, c->pos + 1), "`,` or `)` is missing here");
    }
    c->pos++;
    c->depth--;
    if (!quantize_input(b, op, &args, here(c, begin, c->pos))) return false;
    *out = graph_add(b->graph, op, args.inputs, args.n_inputs, args.attrs, args.n_attrs, b->layer.index,
                     b->origin, here(c, begin, c->pos), b->diags);
    return *out != NO_ID;
}

static bool bind(Builder *b, Str name, ValueId value) {
    for (uint32_t i = 0; i < b->n_names; i++)
        if (str_eq(b->names[i].name, name)) {
            b->names[i].value = value;
            return true;
        }
    if (b->n_names == NAMES_MAX)
        return diag_error(b->diags, E_FAMILY, SPAN_FILE(&b->family->src), "more than %d results", NAMES_MAX);
    b->names[b->n_names].name = name;
    b->names[b->n_names++].value = value;
    return true;
}

static bool build_step(Builder *b, const FamilyStep *s) {
    bool wanted;
    if (!eval_when(b, s->when, &wanted)) return false;
    if (!wanted) return true;
    size_t line, col;
    Cursor c = {.text = s->call->s, .at = family_text_span(b->family, s->call)};
    span_line_col(c.at, &line, &col);
    b->origin = arena_printf(b->arena, "%s:%zu", b->family->src.name, line);
    Str name = take_name(&c);
    size_t begin = c.pos - name.len;
    ValueId v;
    if (peek(&c) != '(')
        return diag_error(b->diags, E_FAMILY, here(&c, begin, c.pos), "a step must be `op(...)`");
    if (!build_call(b, &c, name, begin, &v)) return false;
    if (peek(&c))
        return diag_error(b->diags, E_FAMILY, here(&c, c.pos, c.text.len), "the step should end here");
    return bind(b, s->result, v);
}

static bool build_part(Builder *b, FamilyPart part) {
    b->part = part;
    for (uint32_t i = 0; i < b->family->n_steps[part]; i++)
        if (!build_step(b, &b->family->steps[part][i])) return false;
    return true;
}

// ---- layers --------------------------------------------------------------------------------------------

static bool kv_scale(Builder *b, const char *which, double *out, bool *present) {
    Err e = {0};
    float v = 1;
    Str name = str_of(arena_printf(b->arena, "model.layers.%d.self_attn.%s", b->layer.index, which));
    if (!source_scalar(b->in->source, name, &v, present, &e))
        return diag_err(b->diags, SPAN_FILE(b->in->place), &e);
    *out = *present ? (double)v : 1;
    return true;
}

// One scale alone serves both.
static bool read_kv_scales(Builder *b) {
    bool k, v;
    Layer *l = &b->layer;
    if (!kv_scale(b, "k_scale", &l->k_scale, &k) || !kv_scale(b, "v_scale", &l->v_scale, &v)) return false;
    if (k && !v) l->v_scale = l->k_scale;
    if (v && !k) l->k_scale = l->v_scale;
    return true;
}

static bool start_layer(Builder *b, int32_t index) {
    const Config *c = b->config;
    Layer *l = &b->layer;
    *l = (Layer){.index = index};
    for (uint32_t i = 0; i < b->family->n_flags; i++) {
        double v;
        if (!eval(b, b->family->flags[i].expr, &v)) return false;
        l->flags[i] = v != 0;
        if (str_is(b->family->flags[i].name, "sliding")) l->sliding = v != 0;
    }
    const ConfigValue *types = &c->values[CFG_layer_types];
    if (types->given) l->sliding = types->ints[index];
    if (l->sliding && !config_int(c, CFG_sliding_window))
        return diag_error(b->diags, E_CONFIG_VALUE,
                          types->given ? types->at : c->values[CFG_sliding_window].at,
                          "layer %d slides, but there is no `sliding_window`", index);
    l->window = l->sliding ? config_real(c, CFG_sliding_window) : 0;
    l->rope_factor = l->sliding ? c->rope_sliding.attention_factor : c->rope_full.attention_factor;
    return read_kv_scales(b);
}

static bool add_inputs(Builder *b) {
    static const char *const names[] = {"ids", "pos", "rows"};
    b->origin = b->family->src.name;
    for (size_t i = 0; i < COUNT_OF(names); i++) {
        Attr attr = {.key = "name", .kind = ATTR_NAME, .name = names[i]};
        ValueId v = graph_add(b->graph, OP_input, NULL, 0, &attr, 1, -1, b->origin,
                              SPAN_FILE(&b->family->src), b->diags);
        if (v == NO_ID || !bind(b, str_of(names[i]), v)) return false;
    }
    return true;
}

static bool build(Builder *b) {
    b->layer.index = -1;
    if (!add_inputs(b) || !build_part(b, FAMILY_EMBED)) return false;
    int32_t layers = (int32_t)config_int(b->config, CFG_layers);
    for (int32_t i = 0; i < layers; i++)
        if (!start_layer(b, i) || !build_part(b, FAMILY_LAYER)) return false;
    b->layer = (Layer){.index = -1};
    return build_part(b, FAMILY_HEAD);
}

static bool report_tensors(Builder *b) {
    Span at = SPAN_FILE(b->in->place);
    if (b->missing.n)
        diag_error(b->diags, E_TENSOR_MISSING, at, "%u tensor%s missing: %s%s", b->missing.n,
                   b->missing.n == 1 ? " is" : "s are", buf_cstr(&b->missing.list),
                   more(b->arena, &b->missing));
    if (b->misshapen.n)
        diag_error(b->diags, E_TENSOR_SHAPE, at,
                   "%u tensor%s another shape than the configuration says: %s%s", b->misshapen.n,
                   b->misshapen.n == 1 ? " has" : "s have", buf_cstr(&b->misshapen.list),
                   more(b->arena, &b->misshapen));
    if (b->mixed.n)
        diag_error(b->diags, E_QUANT_UNSUPPORTED, at,
                   "experts of one layer must be stored in one format; others than expert 0: %s%s",
                   buf_cstr(&b->mixed.list), more(b->arena, &b->mixed));
    bool ok = !b->missing.n && !b->misshapen.n && !b->mixed.n;
    buf_free(&b->missing.list), buf_free(&b->misshapen.list), buf_free(&b->mixed.list);
    return ok;
}

uint64_t builder_vocab_rows(const Config *c, WeightSource *source) {
    WeightInfo info;
    for (uint32_t i = 0; i < c->family->n_weights; i++)
        if (c->family->weights[i].kind == FW_EMBED &&
            source_info(source, c->family->weights[i].name, &info) && info.rank == 2)
            return info.shape[0];
    return 0;
}

Graph *builder_graph(Arena *a, const BuilderInput *in, Diags *d) {
    Builder *b = ARENA_NEW(a, Builder);
    *b = (Builder){.arena = a, .in = in, .config = in->config, .family = in->config->family, .diags = d};
    b->graph = graph_new(a);
    if (in->head) in->head->id = NO_ID;
    bool ok = build(b);
    return report_tensors(b) && ok ? b->graph : NULL;
}
