#include "compiler/frontend/expr.h"

#include <math.h>

#include "runtime/base/num.h"

enum { DEPTH_MAX = 32 };

typedef struct {
    Str text;
    size_t pos;
    Span at;
    const ExprScope *scope;
    Diags *diags;
    int depth;
    bool failed;
} Parser;

static double fail(Parser *p, size_t begin, size_t end, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
static double fail(Parser *p, size_t begin, size_t end, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    const char *why = arena_vprintf(p->diags->arena, fmt, ap);
    va_end(ap);
    Span at = p->at;
    if (at.src && at.begin != (size_t)-1) at.end = at.begin + MAX(end, begin + 1), at.begin += begin;
    if (!p->failed) diag_error(p->diags, E_FAMILY, at, "%s", why);
    p->failed = true;
    p->pos = p->text.len;
    return 0;
}

static bool is_word_char(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
}

static Str peek(Parser *p) { // the next token; empty at the end
    while (p->pos < p->text.len && p->text.ptr[p->pos] == ' ') p->pos++;
    size_t n = 0, left = p->text.len - p->pos;
    const char *s = p->text.ptr + p->pos;
    if (!left) return (Str){s, 0};
    if ((s[0] >= '0' && s[0] <= '9') || s[0] == '.') {
        while (n < left &&
               (is_word_char(s[n]) || s[n] == '.' || ((s[n] == '-' || s[n] == '+') && s[n - 1] == 'e')))
            n++;
        return (Str){s, n};
    }
    while (n < left && is_word_char(s[n])) n++;
    if (n) return (Str){s, n};
    static const char *const pairs[] = {"**", "==", "!=", "<=", ">="};
    for (size_t i = 0; i < COUNT_OF(pairs) && left > 1; i++)
        if (!memcmp(s, pairs[i], 2)) return (Str){s, 2};
    return (Str){s, 1};
}

static bool take(Parser *p, const char *token) {
    Str t = peek(p);
    if (!str_is(t, token)) return false;
    p->pos += t.len;
    return true;
}

static bool expect(Parser *p, const char *token) {
    if (take(p, token)) return true;
    fail(p, p->pos, p->pos + 1, "`%s` is missing here", token);
    return false;
}

static double expr_or(Parser *p);

static double call(Parser *p, Str name, size_t begin) {
    double x = expr_or(p);
    if (str_is(name, "sqrt")) return expect(p, ")") ? sqrt(x) : 0;
    if (!str_is(name, "min") && !str_is(name, "max"))
        return fail(p, begin, begin + name.len,
                    "no function is called `" STR_FMT "`; there are sqrt, min, max", STR_ARG(name));
    while (take(p, ",")) {
        double y = expr_or(p);
        x = str_is(name, "min") ? fmin(x, y) : fmax(x, y);
    }
    expect(p, ")");
    return x;
}

static bool lookup(Parser *p, Str name, size_t begin, ExprValue *out) {
    *out = (ExprValue){0};
    if (p->scope->lookup(p->scope->ctx, name, out)) return true;
    bool first = !p->failed;
    fail(p, begin, begin + name.len, "nothing is called `" STR_FMT "` here", STR_ARG(name));
    if (first) diag_did_you_mean(p->diags, name, p->scope->names, p->scope->n_names);
    return false;
}

static double primary(Parser *p) {
    Str t = peek(p);
    size_t begin = p->pos;
    double v;
    if (!t.len) return fail(p, begin, begin + 1, "the expression ends too early");
    p->pos += t.len;
    if (str_is(t, "(")) {
        v = expr_or(p);
        return expect(p, ")") ? v : 0;
    }
    if (str_to_double(t, &v)) return v;
    if (str_is(t, "true") || str_is(t, "false")) return str_is(t, "true");
    if (!is_word_char(t.ptr[0]) || (t.ptr[0] >= '0' && t.ptr[0] <= '9'))
        return fail(p, begin, begin + t.len, "`" STR_FMT "` cannot stand here", STR_ARG(t));
    if (take(p, "(")) return call(p, t, begin);
    ExprValue value;
    if (!lookup(p, t, begin, &value)) return 0;
    if (value.is_list)
        return fail(p, begin, begin + t.len, "`" STR_FMT "` is a list: only `x in " STR_FMT "` can ask it",
                    STR_ARG(t), STR_ARG(t));
    return value.num;
}

static double unary(Parser *p);

static double power(Parser *p) {
    double x = primary(p);
    return take(p, "**") ? pow(x, unary(p)) : x;
}

// Every way back into the grammar passes here, so that this one counter bounds the recursion.
static double unary(Parser *p) {
    if (++p->depth > DEPTH_MAX) return fail(p, p->pos, p->pos + 1, "nested too deeply");
    double v = take(p, "-") ? -unary(p) : power(p);
    p->depth--;
    return v;
}

static double product(Parser *p) {
    double x = unary(p);
    for (;;) {
        if (take(p, "*"))
            x *= unary(p);
        else if (take(p, "/"))
            x /= unary(p);
        else if (take(p, "%"))
            x = fmod(x, unary(p));
        else
            return x;
    }
}

static double sum(Parser *p) {
    double x = product(p);
    for (;;) {
        if (take(p, "+"))
            x += product(p);
        else if (take(p, "-"))
            x -= product(p);
        else
            return x;
    }
}

static double member(Parser *p, double x) {
    Str name = peek(p);
    size_t begin = p->pos;
    ExprValue list;
    p->pos += name.len;
    if (!name.len || !lookup(p, name, begin, &list))
        return fail(p, begin, begin + 1, "a list is missing here");
    if (!list.is_list) return fail(p, begin, begin + name.len, "`" STR_FMT "` is not a list", STR_ARG(name));
    for (uint32_t i = 0; i < list.n_items; i++)
        if ((double)list.items[i] == x) return 1;
    return 0;
}

static double comparison(Parser *p) {
    double x = sum(p);
    if (take(p, "==")) return x == sum(p);
    if (take(p, "!=")) return x != sum(p);
    if (take(p, "<=")) return x <= sum(p);
    if (take(p, ">=")) return x >= sum(p);
    if (take(p, "<")) return x < sum(p);
    if (take(p, ">")) return x > sum(p);
    if (take(p, "in")) return member(p, x);
    return x;
}

static double negation(Parser *p) {
    bool odd = false;
    while (take(p, "not")) odd = !odd;
    double x = comparison(p);
    return odd ? x == 0 : x;
}

static double expr_and(Parser *p) {
    double x = negation(p);
    while (take(p, "and")) {
        double y = negation(p);
        x = x != 0 && y != 0;
    }
    return x;
}

static double expr_or(Parser *p) {
    double x = expr_and(p);
    while (take(p, "or")) {
        double y = expr_and(p);
        x = x != 0 || y != 0;
    }
    return x;
}

bool expr_eval(Str text, Span at, const ExprScope *scope, double *out, Diags *d) {
    Parser p = {.text = text, .at = at, .scope = scope, .diags = d};
    *out = expr_or(&p);
    if (!p.failed && peek(&p).len) fail(&p, p.pos, p.text.len, "the expression should end here");
    if (!p.failed && !isfinite(*out)) fail(&p, 0, text.len, "the result is not a finite number");
    return !p.failed;
}
