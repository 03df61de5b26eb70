// Numbers between bounds: the automaton of plain decimals, cut down by that of each bound.
#include <stdlib.h>

#include "runtime/base/num.h"
#include "runtime/grammar/dfa.h"
#include "runtime/grammar/regex.h"
#include "runtime/grammar/schema.h"

enum { DIGITS_MAX = 64, MULTIPLE_MAX = 1000, FRACTION_MAX = 17 };

// |value| = whole.fraction, without zeros that say nothing but for a whole of "0".
typedef struct {
    bool negative, zero;
    char whole[DIGITS_MAX + 1], fraction[DIGITS_MAX + 1];
} Decimal;

// Digits of the number with the point moved behind `point` of them; false when they are too many.
static bool place_point(Decimal *d, const char *digits, int n, int point) {
    char all[2 * DIGITS_MAX + 1];
    if (n > DIGITS_MAX || point > DIGITS_MAX || point < -DIGITS_MAX) return false;
    int before = point > 0 ? point : 1, zeros = point > 0 ? 0 : 1 - point, len = 0;
    while (len < zeros) all[len++] = '0';
    for (int i = 0; i < n && len < 2 * DIGITS_MAX; i++) all[len++] = digits[i];
    while (len < before) all[len++] = '0';
    int first = 0;
    while (first < before - 1 && all[first] == '0') first++;
    while (len > before && all[len - 1] == '0') len--;
    if (before - first > DIGITS_MAX || len - before > DIGITS_MAX) return false;
    memcpy(d->whole, all + first, (size_t)(before - first));
    memcpy(d->fraction, all + before, (size_t)(len - before));
    d->whole[before - first] = d->fraction[len - before] = 0;
    d->zero = !*d->fraction && d->whole[0] == '0';
    if (d->zero) d->negative = false;
    return true;
}

// s: a JSON number.
static bool decimal_of(Str s, Decimal *d) {
    char digits[DIGITS_MAX];
    int n = 0, point = -1;
    size_t i = 0;
    *d = (Decimal){.negative = s.len && s.ptr[0] == '-'};
    for (i = d->negative; i < s.len && (s.ptr[i] | 0x20) != 'e'; i++) {
        if (s.ptr[i] == '.') {
            point = n;
        } else if (n < DIGITS_MAX) {
            digits[n++] = s.ptr[i];
        } else {
            return false;
        }
    }
    if (point < 0) point = n;
    int64_t e = 0;
    if (i < s.len) {
        i += 1 + (i + 1 < s.len && s.ptr[i + 1] == '+');
        if (!str_to_i64(str_from(s, i), &e) || e > DIGITS_MAX || e < -DIGITS_MAX) return false;
    }
    return place_point(d, digits, n, point + (int)e);
}

// ---- magnitudes ------------------------------------------------------------------------------------------
static void push_text(Schema *s, StrBuf *pattern) {
    regex_push(s->b, buf_view(pattern), REGEX_WHOLE, false, "");
    buf_free(pattern);
}

// Alternatives of an expression: digits that are above (below) these in the same number of digits.
static void add_above(StrBuf *p, const char *digits, const char *rest) {
    for (size_t j = 0; digits[j]; j++)
        if (digits[j] < '9')
            buf_printf(p, "%.*s[%c-9][0-9]{%zu}%s|", (int)j, digits, digits[j] + 1, strlen(digits) - j - 1,
                       rest);
}

static void add_below(StrBuf *p, const char *digits, const char *rest) {
    for (size_t j = 0; digits[j]; j++) {
        char least = j == 0 && digits[1] ? '1' : '0';
        if (digits[j] > least)
            buf_printf(p, "%.*s[%c-%c][0-9]{%zu}%s|", (int)j, digits, least, digits[j] - 1,
                       strlen(digits) - j - 1, rest);
    }
}

#define ANY_FRACTION "(\\.[0-9]+)?"

// Decimals >= whole.fraction, or > when strict.
static void push_least(Schema *s, const Decimal *d, bool strict) {
    StrBuf p = {0};
    const char *w = d->whole, *f = d->fraction;
    add_above(&p, w, ANY_FRACTION);
    buf_printf(&p, "[1-9][0-9]{%zu,}" ANY_FRACTION "|", strlen(w));
    for (size_t j = 0; f[j]; j++)
        if (f[j] < '9') buf_printf(&p, "%s\\.%.*s[%c-9][0-9]*|", w, (int)j, f, f[j] + 1);
    if (strict)
        buf_printf(&p, "%s\\.%s0*[1-9][0-9]*", w, f);
    else if (*f)
        buf_printf(&p, "%s\\.%s[0-9]*", w, f);
    else
        buf_printf(&p, "%s" ANY_FRACTION, w);
    push_text(s, &p);
}

// Decimals <= whole.fraction, or < when strict.
static void push_most(Schema *s, const Decimal *d, bool strict) {
    StrBuf p = {0};
    const char *w = d->whole, *f = d->fraction;
    size_t len = strlen(w);
    add_below(&p, w, ANY_FRACTION);
    if (len > 1) buf_printf(&p, "0" ANY_FRACTION "|");
    if (len > 2) buf_printf(&p, "[1-9][0-9]{0,%zu}" ANY_FRACTION "|", len - 2);
    if (len == 2) buf_puts(&p, "[1-9]" ANY_FRACTION "|");
    for (size_t j = 0; f[j]; j++) {
        if (f[j + 1]) buf_printf(&p, "%s\\.%.*s|", w, (int)(j + 1), f);
        if (f[j] > '0') buf_printf(&p, "%s\\.%.*s[0-%c][0-9]*|", w, (int)j, f, f[j] - 1);
    }
    if (*f) buf_printf(&p, "%s", w);
    if (!*f && !strict) buf_printf(&p, "%s(\\.0+)?", w);
    if (*f && !strict) buf_printf(&p, "|%s\\.%s0*", w, f);
    if (p.len && p.ptr[p.len - 1] == '|') p.len--;
    if (p.len)
        push_text(s, &p);
    else
        nfa_never(s->b);
}

// ---- bounds ----------------------------------------------------------------------------------------------
static void push_any_decimal(Schema *s) {
    regex_push(s->b, STR("[0-9]+" ANY_FRACTION), REGEX_WHOLE, false, "");
}

static void push_minus(Schema *s) { nfa_bytes(s->b, STR("-")); }

// Numbers >= d (least) or <= d, > and < when strict. A zero with a minus sign counts as negative, which keeps
// it out where it makes a difference.
static const Dfa *bound(Schema *s, const Decimal *d, bool least, bool strict) {
    static const Decimal zero = {.whole = "0", .zero = true};
    bool toward_zero = d->negative == least; // the numbers between d and zero are in
    if (d->zero) {
        if (!least) push_minus(s);
        push_least(s, &zero, strict || !least);
        if (!least) nfa_cat(s->b, 2);
        if (!least && !strict) {
            push_most(s, &zero, false);
            nfa_alt(s->b, 2);
        }
        return dfa_pop(s->b);
    }
    if (d->negative) push_minus(s);
    (toward_zero ? push_most : push_least)(s, d, strict);
    if (d->negative) nfa_cat(s->b, 2);
    if (toward_zero) { // and all on the other side of zero
        if (!d->negative) push_minus(s);
        push_any_decimal(s);
        if (!d->negative) nfa_cat(s->b, 2);
        nfa_alt(s->b, 2);
    }
    return dfa_pop(s->b);
}

static const Dfa *cut_down(Schema *s, const Dfa *d, const Dfa *by) {
    return d && by ? dfa_product(s->b, d, by, DFA_BOTH) : NULL;
}

static const Dfa *dfa_of(Schema *s, const char *pattern) {
    regex_push(s->b, str_of(pattern), REGEX_WHOLE, false, "");
    return dfa_pop(s->b);
}

// ---- multiples -------------------------------------------------------------------------------------------
// Whole numbers by their remainder: digit c leads from r to (10 r + c) mod n.
static const Dfa *multiples(Schema *s, uint32_t n) {
    Build *b = s->b;
    uint32_t begin = (uint32_t)b->n_nodes, start = nfa_node(b), end = nfa_node(b),
             first = (uint32_t)b->n_nodes;
    for (uint32_t r = 0; r < n; r++) nfa_node(b);
    for (uint32_t r = 0; r <= n && !b->failed; r++) // r == n: the start
        for (uint32_t c = 0; c < 10 && !b->failed; c++) {
            nfa_range(b, (uint8_t)('0' + c), (uint8_t)('0' + c));
            Frag digit = nfa_take(b);
            nfa_edge(b, r == n ? start : first + r, digit.start);
            nfa_edge(b, digit.end, first + ((r == n ? 0 : r) * 10 + c) % n);
        }
    nfa_edge(b, first, end);
    nfa_push(b, (Frag){begin, start, end});
    return dfa_pop(b);
}

static const Dfa *signed_dfa(Schema *s, const Dfa *d) {
    if (!d) return NULL;
    nfa_bytes(s->b, STR("-"));
    nfa_repeat(s->b, 0, 1);
    nfa_dfa(s->b, d);
    nfa_cat(s->b, 2);
    return dfa_pop(s->b);
}

// Multiples of a whole number, or of 0.1, 0.01 and so on.
static const Dfa *multiple_of(Schema *s, Node m) {
    Decimal d;
    bool ok = (json_is(m.json, JSON_INT) || json_is(m.json, JSON_REAL)) && decimal_of(m.json->s, &d) &&
              !d.negative && !d.zero;
    if (!ok) {
        schema_fail(s, m, "must be a number greater than 0");
        return NULL;
    }
    size_t places = strlen(d.fraction);
    if (!places && strlen(d.whole) <= 4 && atoi(d.whole) <= MULTIPLE_MAX)
        return signed_dfa(s, multiples(s, (uint32_t)atoi(d.whole)));
    bool power = d.whole[0] == '0' && places && places <= FRACTION_MAX && d.fraction[places - 1] == '1';
    for (size_t i = 0; i + 1 < places; i++) power &= d.fraction[i] == '0';
    if (power) {
        char pattern[64];
        snprintf(pattern, sizeof pattern, "-?[0-9]+(\\.[0-9]{1,%zu})?", places);
        return dfa_of(s, pattern);
    }
    schema_fail(s, m, "whole numbers up to %d and 0.1, 0.01, ... alone are supported", MULTIPLE_MAX);
    return NULL;
}

// ---- all together ----------------------------------------------------------------------------------------
static const struct {
    const char *keyword, *flag; // flag: the boolean of draft 4 that makes it strict
    bool least, strict;
} bounds[] = {{"minimum", "exclusiveMinimum", true, false},
              {"maximum", "exclusiveMaximum", false, false},
              {"exclusiveMinimum", NULL, true, true},
              {"exclusiveMaximum", NULL, false, true}};

static const Dfa *cut_by_bound(Schema *s, const Dfa *d, Node n, size_t which) {
    Node v = node_member(s, n, bounds[which].keyword);
    if (!v.json || (!bounds[which].flag && json_is(v.json, JSON_BOOL))) return d;
    Decimal limit;
    if (!json_is(v.json, JSON_INT) && !json_is(v.json, JSON_REAL))
        return schema_fail(s, v, "must be a number"), NULL;
    if (!decimal_of(v.json->s, &limit)) return schema_fail(s, v, "has more than %d digits", DIGITS_MAX), NULL;
    const Json *flag = bounds[which].flag ? json_get(n.json, bounds[which].flag) : NULL;
    bool strict = bounds[which].strict || (json_is(flag, JSON_BOOL) && flag->boolean);
    return cut_down(s, d, bound(s, &limit, bounds[which].least, strict));
}

static bool is_bounded(const Conj *c) {
    for (uint32_t i = 0; i < c->n; i++)
        for (uint32_t k = 0; k < c->nodes[i].json->n; k++)
            if (keyword_about(c->nodes[i].json->members[k].key) == ABOUT_NUMBER) return true;
    return false;
}

void schema_push_number(Schema *s, const Conj *c, bool integers_only) {
    if (!is_bounded(c)) {
        (integers_only ? json_push_integer : json_push_number)(s->b, &s->rules);
        return;
    }
    const Dfa *d =
        dfa_of(s, integers_only ? "0|-?[1-9][0-9]{0,17}" : "-?(0|[1-9][0-9]{0,17})(\\.[0-9]{1,17})?");
    for (uint32_t i = 0; i < c->n && d; i++) {
        for (size_t k = 0; k < COUNT_OF(bounds) && d; k++) d = cut_by_bound(s, d, c->nodes[i], k);
        Node m = node_member(s, c->nodes[i], "multipleOf");
        if (d && m.json) d = cut_down(s, d, multiple_of(s, m));
    }
    if (d) nfa_dfa(s->b, d);
}
