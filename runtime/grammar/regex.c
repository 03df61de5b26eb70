#include "runtime/grammar/regex.h"

#include <stdlib.h>

#include "runtime/base/num.h"
#include "runtime/grammar/automaton.h"
#include "runtime/text/tokenizer_utf8.h"

typedef struct {
    uint32_t n_alts; // alternatives that are complete, one fragment each
    bool items;      // the alternative under way has a fragment
    size_t open_at;  // its parenthesis
} Group;

typedef struct {
    Build *b;
    Str text;
    size_t at;
    RegexMode mode;
    bool json;
    const char *where;
    Group groups[GRAMMAR_NEST_MAX + 1];
    uint32_t n_groups;  // open ones, the whole expression included
    bool begins, ended; // of the outermost alternative under way: it is bound to the start; `$` was seen
    bool atom;          // a quantifier may follow
} Regex;

static bool bad(Regex *r, size_t at, const char *why) {
    return build_fail(r->b, E_GRAMMAR, "%sbyte %zu of the expression: %s", r->where, at, why);
}

static bool more(const Regex *r) { return r->at < r->text.len && !r->b->failed; }
static char peek(const Regex *r, size_t ahead) {
    return r->at + ahead < r->text.len ? r->text.ptr[r->at + ahead] : 0;
}
static uint32_t take_char(Regex *r) {
    uint32_t len, cp = utf8_take((const uint8_t *)r->text.ptr + r->at, &len);
    r->at += len;
    return cp;
}

bool regex_is_utf8(Str text, size_t *bad_at) {
    for (size_t i = 0; i < text.len;) {
        Utf8 c = utf8_first((const uint8_t *)text.ptr + i, text.len - i);
        *bad_at = i;
        if (c.kind != UTF8_OK) return false;
        i += c.len;
    }
    return true;
}

// ---- alternatives and groups -----------------------------------------------------------------------------
static Group *group(Regex *r) { return &r->groups[r->n_groups - 1]; }

static void add_item(Regex *r) {
    if (group(r)->items) nfa_cat(r->b, 2);
    group(r)->items = true;
}

static void push_anything(Regex *r) {
    nfa_any_char(r->b, r->json);
    nfa_repeat(r->b, 0, NFA_NO_END);
}

// At the start of an alternative: what is not bound to the start of the text may begin anywhere.
static void begin_alternative(Regex *r) {
    r->atom = false;
    if (r->n_groups != 1) return;
    r->ended = false;
    r->begins = peek(r, 0) == '^';
    if (r->begins) r->at++;
    if (r->mode == REGEX_WHOLE || r->begins) return;
    push_anything(r);
    add_item(r);
}

static void end_alternative(Regex *r) {
    if (r->n_groups == 1 && r->mode == REGEX_ANYWHERE && !r->ended) {
        push_anything(r);
        add_item(r);
    }
    if (!group(r)->items) nfa_empty(r->b);
    group(r)->n_alts++;
    group(r)->items = false;
}

// Behind `(`: nothing, `?:`, or a name that nobody asks for.
static bool group_prefix(Regex *r) {
    if (peek(r, 0) != '?') return true;
    size_t at = r->at, name = 0;
    if (peek(r, 1) == ':') return r->at += 2, true;
    if (peek(r, 1) == 'P' && peek(r, 2) == '<') name = 3;
    if (peek(r, 1) == '<' && peek(r, 2) != '=' && peek(r, 2) != '!') name = 2;
    if (!name) return bad(r, at, "look-around and flags are not supported");
    for (r->at += name; peek(r, 0) && peek(r, 0) != '>'; r->at++) {
    }
    return peek(r, 0) ? (r->at++, true) : bad(r, at, "the name of the group does not end");
}

static bool open_group(Regex *r) {
    size_t at = r->at++;
    if (r->n_groups > GRAMMAR_NEST_MAX)
        return build_fail(r->b, E_LIMIT, "%sbyte %zu of the expression: groups are nested more than %d deep",
                          r->where, at, GRAMMAR_NEST_MAX);
    if (!group_prefix(r)) return false;
    r->groups[r->n_groups++] = (Group){.open_at = at};
    begin_alternative(r);
    return true;
}

static bool close_group(Regex *r) {
    if (r->n_groups == 1) return bad(r, r->at, "`)` without `(`");
    r->at++;
    end_alternative(r);
    nfa_alt(r->b, group(r)->n_alts);
    r->n_groups--;
    r->atom = true;
    return true;
}

// ---- escapes and classes ---------------------------------------------------------------------------------
static bool take_hex(Regex *r, size_t n_least, size_t n_most, uint32_t *out) {
    uint32_t v = 0;
    size_t n = 0;
    for (; n < n_most; n++, r->at++) {
        char c = peek(r, 0), low = c | 0x20;
        if (c >= '0' && c <= '9')
            v = v * 16 + (uint32_t)(c - '0');
        else if (low >= 'a' && low <= 'f')
            v = v * 16 + (uint32_t)(low - 'a' + 10);
        else
            break;
    }
    *out = v;
    return n >= n_least && v <= CHAR_LAST;
}

static bool hex_escape(Regex *r, char letter, uint32_t *out) {
    size_t at = r->at;
    bool ok, braced = peek(r, 0) == '{';
    if (braced) {
        r->at++;
        ok = take_hex(r, 1, 6, out) && peek(r, 0) == '}';
        r->at++;
    } else {
        size_t n = letter == 'x' ? 2 : 4;
        ok = take_hex(r, n, n, out);
    }
    return ok || bad(r, at, "wrong hexadecimal escape");
}

static bool category_escape(Regex *r, CharSet *out, bool negated) {
    size_t at = r->at;
    Str name = {r->text.ptr + r->at, 1};
    if (peek(r, 0) == '{') {
        const char *end = memchr(name.ptr, '}', r->text.len - r->at);
        if (!end) return bad(r, at, "`\\p{` does not end");
        name = (Str){name.ptr + 1, (size_t)(end - name.ptr) - 1};
        r->at += name.len + 1;
    }
    r->at++;
    if (name.len && *name.ptr == '^') negated = !negated, name = str_from(name, 1);
    return (at < r->text.len && charset_add_category(out, name, negated)) ||
           bad(r, at, "unknown Unicode category (general categories such as L, Lu, N, Nd are supported)");
}

// The escape behind `\`: one character (*cp), or a class (*is_class) added to *out.
static bool take_escape(Regex *r, CharSet *out, uint32_t *cp, bool *is_class) {
    static const char letters[] = "ntrfav", values[] = "\n\t\r\f\a\v";
    size_t at = r->at++;
    *is_class = false;
    if (!more(r)) return bad(r, at, "the expression ends with `\\`");
    uint32_t c = take_char(r);
    const char *simple = c < 0x80 ? strchr(letters, (int)c) : NULL;
    if (c == 'x' || c == 'u') return hex_escape(r, (char)c, cp);
    if (c == 'p' || c == 'P') return *is_class = true, category_escape(r, out, c == 'P');
    if (c && simple) return *cp = (uint8_t)values[simple - letters], true;
    if (c < 0x80 && strchr("dDwWsS", (int)c) && c) return *is_class = charset_add_class(out, (char)c);
    if (c == '0') return *cp = 0, true;
    bool word = (c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z');
    if (c < 0x80 && word)
        return bad(r, at, c <= '9' ? "back references are not supported" : "unknown or unsupported escape");
    *cp = c;
    return true;
}

static bool posix_class(Regex *r, CharSet *out) {
    static const struct {
        const char *name, *ranges;
    } classes[] = {{"[:alpha:]", "AZaz"},    {"[:digit:]", "09"},       {"[:alnum:]", "09AZaz"},
                   {"[:upper:]", "AZ"},      {"[:lower:]", "az"},       {"[:space:]", "\t\r  "},
                   {"[:xdigit:]", "09AFaf"}, {"[:punct:]", "!/:@[`{~"}, {"[:word:]", "09AZ__az"}};
    for (size_t i = 0; i < COUNT_OF(classes); i++) {
        if (!str_starts(str_from(r->text, r->at), str_of(classes[i].name))) continue;
        for (const char *p = classes[i].ranges; *p; p += 2) charset_add(out, (uint8_t)p[0], (uint8_t)p[1]);
        r->at += strlen(classes[i].name);
        return true;
    }
    return false;
}

// One character or class inside [...].
static bool class_item(Regex *r, CharSet *out, uint32_t *cp, bool *is_class) {
    *is_class = peek(r, 0) == '[' && peek(r, 1) == ':' && posix_class(r, out);
    if (*is_class) return true;
    if (peek(r, 0) != '\\') return *cp = take_char(r), true;
    if (peek(r, 1) == 'b') return *cp = '\b', r->at += 2, true;
    return take_escape(r, out, cp, is_class);
}

static bool take_class(Regex *r, CharSet *out) {
    size_t open = r->at++;
    bool negated = peek(r, 0) == '^', first = true, is_class;
    r->at += negated;
    for (; more(r) && (first || peek(r, 0) != ']'); first = false) {
        size_t at = r->at;
        uint32_t lo = 0, hi;
        if (!class_item(r, out, &lo, &is_class)) return false;
        if (is_class) continue;
        hi = lo;
        if (peek(r, 0) == '-' && peek(r, 1) && peek(r, 1) != ']') {
            r->at++;
            if (!class_item(r, out, &hi, &is_class)) return false;
            if (is_class || hi < lo) return bad(r, at, "wrong range in the class");
        }
        charset_add(out, lo, hi);
    }
    if (!more(r)) return bad(r, open, "`[` without `]`");
    r->at++;
    if (negated) charset_negate(out);
    return true;
}

// ---- atoms and quantifiers -------------------------------------------------------------------------------
static void push_set(Regex *r, CharSet *s) {
    nfa_charset(r->b, s, r->json);
    r->atom = true;
}

static void any_but_newline(Regex *r) {
    CharSet s = {0};
    charset_add(&s, '\n', '\n');
    charset_negate(&s);
    push_set(r, &s);
    charset_free(&s);
    r->at++;
}

static bool dollar(Regex *r) {
    size_t at = r->at++;
    if (r->n_groups != 1 || (more(r) && peek(r, 0) != '|'))
        return bad(r, at,
                   "`$` is supported at the end of the expression or of an outermost alternative alone");
    r->ended = true;
    return true;
}

static bool take_atom(Regex *r) {
    CharSet s = {0};
    uint32_t cp = 0;
    bool ok = true, is_class = true;
    switch (peek(r, 0)) {
    case '(': return open_group(r);
    case ')': return close_group(r);
    case '$': return dollar(r);
    case '^':
        return bad(r, r->at,
                   "`^` is supported at the start of the expression or of an outermost alternative alone");
    case '*':
    case '+':
    case '?': return bad(r, r->at, "nothing to repeat");
    case '.': any_but_newline(r); return true;
    case '[': ok = take_class(r, &s); break;
    case '\\': ok = take_escape(r, &s, &cp, &is_class); break;
    default: cp = take_char(r), is_class = false;
    }
    if (ok && !is_class) charset_add(&s, cp, cp);
    if (ok) push_set(r, &s);
    charset_free(&s);
    return ok;
}

static bool take_number(Regex *r, uint32_t *out) {
    size_t begin = r->at;
    for (*out = 0; peek(r, 0) >= '0' && peek(r, 0) <= '9'; r->at++)
        *out = MIN(*out * 10 + (uint32_t)(peek(r, 0) - '0'), 1000000u);
    return r->at > begin;
}

// {m}, {m,}, {m,n}; anything else in braces is text, as everywhere.
static bool braces(Regex *r, uint32_t *least, uint32_t *most) {
    size_t at = r->at++;
    bool ok = take_number(r, least);
    *most = *least;
    if (ok && peek(r, 0) == ',') {
        r->at++;
        if (peek(r, 0) == '}')
            *most = NFA_NO_END;
        else
            ok = take_number(r, most);
    }
    ok = ok && peek(r, 0) == '}';
    r->at = ok ? r->at + 1 : at;
    return ok;
}

static bool quantifier(Regex *r, uint32_t *least, uint32_t *most) {
    *least = peek(r, 0) == '+';
    *most = peek(r, 0) == '?' ? 1 : NFA_NO_END;
    switch (peek(r, 0)) {
    case '*':
    case '+':
    case '?': r->at++; return true;
    case '{': return braces(r, least, most);
    default: return false;
    }
}

static bool take_quantifier(Regex *r) {
    size_t at = r->at;
    uint32_t least, most;
    if (!quantifier(r, &least, &most)) return true;
    if (peek(r, 0) == '?') r->at++; // lazy: the same texts
    if (peek(r, 0) && strchr("*+?", peek(r, 0))) return bad(r, r->at, "two quantifiers in a row");
    if (most < least) return bad(r, at, "{m,n} with n < m");
    if (least > GRAMMAR_REPEAT_MAX || (most != NFA_NO_END && most > GRAMMAR_REPEAT_MAX))
        return build_fail(r->b, E_LIMIT, "%sbyte %zu of the expression: more than %d repetitions", r->where,
                          at, GRAMMAR_REPEAT_MAX);
    nfa_repeat(r->b, least, most);
    return true;
}

static void step(Regex *r) {
    if (peek(r, 0) == '|') {
        r->at++;
        end_alternative(r);
        begin_alternative(r);
        return;
    }
    r->atom = false;
    if (!take_atom(r) || !r->atom) return;
    r->atom = false;
    if (take_quantifier(r) && !r->b->failed) add_item(r);
}

void regex_push(Build *b, Str pattern, RegexMode mode, bool json, const char *where) {
    if (b->failed) return;
    Regex *r = ARENA_NEW(&b->arena, Regex);
    *r = (Regex){.b = b, .text = pattern, .mode = mode, .json = json, .where = where, .n_groups = 1};
    size_t at;
    if (pattern.len > GRAMMAR_TEXT_MAX)
        build_fail(b, E_LIMIT, "%sthe expression is longer than %d bytes", where, GRAMMAR_TEXT_MAX);
    else if (!regex_is_utf8(pattern, &at))
        bad(r, at, "not UTF-8");
    if (b->failed) return;
    begin_alternative(r);
    while (more(r)) step(r);
    if (r->n_groups > 1) bad(r, group(r)->open_at, "`(` without `)`");
    if (b->failed) return;
    end_alternative(r);
    nfa_alt(b, group(r)->n_alts);
}

Grammar *grammar_from_regex(Str pattern, Err *e) {
    Build b;
    build_begin(&b, e);
    uint32_t root = build_rule(&b, NULL);
    regex_push(&b, pattern, REGEX_WHOLE, false, "");
    build_define(&b, root);
    return automaton_make(&b, root);
}
