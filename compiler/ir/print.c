// Graph to text. IR.md has the grammar.

#include "compiler/ir/op.h"
#include "compiler/ir/text.h"

bool text_is_word_char(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           strchr("._-+/", c) != NULL;
}

void text_print_name(Str s, StrBuf *out) {
    bool plain = s.len > 0;
    for (size_t i = 0; i < s.len; i++) plain = plain && s.ptr[i] && text_is_word_char(s.ptr[i]);
    if (plain) {
        buf_str(out, s);
        return;
    }
    buf_putc(out, '"');
    for (size_t i = 0; i < s.len; i++) {
        unsigned char c = (unsigned char)s.ptr[i];
        if (c < 0x20 || c == 0x7F || c == '"' || c == '\\')
            buf_printf(out, "\\%02x", c);
        else
            buf_putc(out, (char)c);
    }
    buf_putc(out, '"');
}

// The fewest digits that read back as the same value.
void text_print_double(double x, StrBuf *out) {
    char s[40];
    for (int digits = 6; digits <= 17; digits++) {
        double back;
        snprintf(s, sizeof s, "%.*g", digits, x);
        if (!str_to_double(str_of(s), &back) || back == x) break;
    }
    buf_puts(out, s);
}

void text_print_float(float x, StrBuf *out) {
    char s[40];
    for (int digits = 6; digits <= 9; digits++) {
        double back;
        snprintf(s, sizeof s, "%.*g", digits, (double)x);
        if (!str_to_double(str_of(s), &back) || (float)back == x) break;
    }
    buf_puts(out, s);
}

static void print_part(const WeightPart *p, StrBuf *out) {
    static const char *const rules[] = {"whole", "rows", "cols"};
    buf_puts(out, rules[p->rule]);
    if (p->units) buf_printf(out, "/%u", p->units);
    buf_putc(out, '(');
    text_print_name(p->tensor, out);
    buf_printf(out, " [%llu,%llu])", (unsigned long long)p->rows, (unsigned long long)p->cols);
}

static void print_constant(const Weight *w, StrBuf *out) {
    uint64_t n;
    if (!w->data || !type_count(w->type, 1, 1, &n) || n > CONSTANT_SHOWN_MAX) {
        buf_puts(out, " hidden");
        return;
    }
    buf_puts(out, " {");
    for (uint64_t i = 0; i < n; i++) {
        if (i) buf_puts(out, ", ");
        text_print_float(w->data[i], out);
    }
    buf_putc(out, '}');
}

static void print_weight(const Weight *w, StrBuf *out) {
    buf_puts(out, w->n_parts ? "weight @" : "constant @");
    text_print_name(w->name, out);
    buf_puts(out, " : ");
    type_print(w->type, out);
    buf_puts(out, " =");
    if (!w->n_parts) print_constant(w, out);
    for (uint32_t i = 0; i < w->n_parts; i++) {
        buf_puts(out, w->n_parts == 1 ? " " : "\n    ");
        print_part(&w->parts[i], out);
    }
    if (w->add != 0) {
        buf_puts(out, " add ");
        text_print_float(w->add, out);
    }
    buf_putc(out, '\n');
}

static void print_attrs(const Node *n, StrBuf *out) {
    if (!n->n_attrs) return;
    buf_puts(out, " {");
    for (uint32_t i = 0; i < n->n_attrs; i++) {
        const Attr *a = &n->attrs[i];
        if (i) buf_puts(out, ", ");
        buf_printf(out, "%s=", a->key);
        if (a->kind == ATTR_INT) buf_printf(out, "%lld", (long long)a->i);
        if (a->kind == ATTR_REAL) text_print_double(a->real, out);
        if (a->kind == ATTR_NAME) text_print_name(str_of(a->name), out);
    }
    buf_putc(out, '}');
}

// "  ; layer 3, models/families/qwen3.yaml:31"
static void print_place(const Node *n, StrBuf *out) {
    if (n->layer < 0 && !*n->origin) return;
    buf_puts(out, "  ; ");
    if (n->layer >= 0) buf_printf(out, "layer %d%s", n->layer, *n->origin ? ", " : "");
    for (const char *s = n->origin; *s; s++) buf_putc(out, *s == '\n' || *s == '\r' ? ' ' : *s);
}

static void print_node(const Graph *g, const Node *n, StrBuf *out) {
    for (uint32_t i = 0; i < n->n_results; i++)
        buf_printf(out, "%s%%%u%s", i ? ", " : "", n->result + i, i + 1 == n->n_results ? " = " : "");
    buf_puts(out, op_name(n->op));
    for (uint32_t i = 0; i < n->n_inputs; i++) buf_printf(out, "%s %%%u", i ? "," : "", n->inputs[i]);
    print_attrs(n, out);
    for (uint32_t i = 0; i < n->n_results; i++) {
        buf_puts(out, i ? ", " : " : ");
        type_print(g->values[n->result + i].type, out);
    }
    print_place(n, out);
    buf_putc(out, '\n');
}

void graph_print(const Graph *g, StrBuf *out) {
    buf_puts(out, "graph");
    if (g->n_ranks != 1) buf_printf(out, " ranks %u", g->n_ranks);
    buf_putc(out, '\n');
    for (uint32_t i = 0; i < g->n_weights; i++) print_weight(&g->weights[i], out);
    for (uint32_t i = 0; i < g->n_nodes; i++) print_node(g, &g->nodes[i], out);
}
