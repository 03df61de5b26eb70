// GBNF, the grammars of llama.cpp: `name ::= alternatives`, "text", [characters], `.`, (groups), * + ? {m,n},
// comments from `#` to the end of the line. The text is read once, to a list of steps in the order in which
// the fragments are pushed; rules that are small and do not call themselves are then copied to where they are
// called, which lets masks be kept by the state of the caller.
#include <stdlib.h>

#include "runtime/base/num.h"
#include "runtime/grammar/automaton.h"
#include "runtime/grammar/charset.h"
#include "runtime/grammar/dfa.h"
#include "runtime/grammar/regex.h"
#include "runtime/text/tokenizer_utf8.h"

enum { COPY_STATES_MAX = 48 }; // of a rule that is copied

typedef enum { STEP_TEXT, STEP_CLASS, STEP_CALL, STEP_EMPTY, STEP_CAT, STEP_ALT, STEP_REPEAT } StepKind;
typedef struct {
    StepKind kind;
    uint32_t a, b; // CALL: rule; CAT, ALT: n; REPEAT: least, most
    Str text;
    CharSet set; // in the heap until the grammar is made
} Step;

typedef struct {
    Str name;
    uint32_t first, n; // steps
    bool defined, visited, done;
    size_t line; // where it was first named
} GbnfRule;

typedef struct {
    uint32_t n_alts;
    uint32_t n_items; // of the alternative under way
} Group;

typedef struct {
    Build *b;
    Str text;
    size_t at;
    Step *steps;
    uint32_t n_steps, cap_steps;
    GbnfRule *rules; // same numbers as those of the build
    uint32_t n_rules, cap_rules;
    Group groups[GRAMMAR_NEST_MAX + 1];
    uint32_t n_groups;
} Gbnf;

static bool bad(Gbnf *g, const char *why) {
    size_t line = 1;
    for (size_t i = 0; i < MIN(g->at, g->text.len); i++) line += g->text.ptr[i] == '\n';
    return build_fail(g->b, E_GRAMMAR, "line %zu of the grammar: %s", line, why);
}

static char peek(const Gbnf *g, size_t ahead) {
    return g->at + ahead < g->text.len ? g->text.ptr[g->at + ahead] : 0;
}
static bool more(const Gbnf *g) { return g->at < g->text.len && !g->b->failed; }

static void skip_space(Gbnf *g, bool newlines) {
    for (; more(g); g->at++) {
        char c = peek(g, 0);
        if (c == '#') {
            while (more(g) && peek(g, 0) != '\n' && peek(g, 0) != '\r') g->at++;
            c = peek(g, 0);
        }
        bool space = c == ' ' || c == '\t' || (newlines && (c == '\n' || c == '\r'));
        if (!space) return;
    }
}

static Step *add_step(Gbnf *g, StepKind kind, uint32_t a, uint32_t b) {
    if (g->n_steps == g->cap_steps) {
        g->cap_steps = MAX(g->cap_steps * 2, 256u);
        g->steps = xrealloc(g->steps, g->cap_steps, sizeof *g->steps);
    }
    g->steps[g->n_steps] = (Step){.kind = kind, .a = a, .b = b};
    return &g->steps[g->n_steps++];
}

// ---- rules and names -------------------------------------------------------------------------------------
static bool is_name(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
}

static Str take_name(Gbnf *g) {
    size_t begin = g->at;
    while (is_name(peek(g, 0))) g->at++;
    return str_sub(g->text, begin, g->at);
}

static uint32_t rule_of_name(Gbnf *g, Str name) {
    build_work(g->b, g->n_rules / 8 + 1);
    for (uint32_t i = 0; i < g->n_rules; i++)
        if (str_eq(g->rules[i].name, name)) return i;
    if (g->n_rules == g->cap_rules) {
        g->cap_rules = MAX(g->cap_rules * 2, 32u);
        g->rules = xrealloc(g->rules, g->cap_rules, sizeof *g->rules);
    }
    uint32_t rule = build_rule(g->b, arena_strndup(&g->b->arena, name.ptr, MIN(name.len, 100u)));
    if (g->b->failed) return 0;
    g->rules[g->n_rules++] = (GbnfRule){.name = name, .line = g->at};
    return rule;
}

// ---- characters ------------------------------------------------------------------------------------------
static bool take_hex(Gbnf *g, int n, uint32_t *out) {
    for (*out = 0; n; n--, g->at++) {
        char c = peek(g, 0), low = c | 0x20;
        bool digit = c >= '0' && c <= '9', letter = low >= 'a' && low <= 'f';
        if (!digit && !letter) return bad(g, "wrong hexadecimal escape");
        *out = *out * 16 + (uint32_t)(digit ? c - '0' : low - 'a' + 10);
    }
    return *out <= CHAR_LAST || bad(g, "there is no such character");
}

static bool take_char(Gbnf *g, uint32_t *out) {
    uint32_t len;
    *out = utf8_take((const uint8_t *)g->text.ptr + g->at, &len);
    g->at += len;
    if (*out != '\\') return true;
    char c = peek(g, 0);
    g->at++;
    switch (c) {
    case 'x': return take_hex(g, 2, out);
    case 'u': return take_hex(g, 4, out);
    case 'U': return take_hex(g, 8, out);
    case 't': *out = '\t'; return true;
    case 'r': *out = '\r'; return true;
    case 'n': *out = '\n'; return true;
    case '\\':
    case '"':
    case '[':
    case ']':
    case '-':
    case '^':
    case '/': *out = (uint8_t)c; return true;
    default: return bad(g, "unknown escape");
    }
}

static bool take_text(Gbnf *g) {
    StrBuf text = {0};
    uint32_t cp;
    g->at++;
    while (more(g) && peek(g, 0) != '"' && peek(g, 0) != '\n') {
        if (!take_char(g, &cp)) break;
        if (cp >= 0xD800 && cp <= 0xDFFF)
            bad(g, "half of a surrogate pair is no character");
        else
            buf_utf8(&text, cp);
    }
    if (!g->b->failed && peek(g, 0) != '"') bad(g, "the text does not end with `\"`");
    g->at++;
    Str kept = str_dup(&g->b->arena, buf_view(&text));
    buf_free(&text);
    add_step(g, STEP_TEXT, 0, 0)->text = kept;
    return !g->b->failed;
}

static bool take_class(Gbnf *g) {
    Step *step = add_step(g, STEP_CLASS, 0, 0);
    CharSet *set = &step->set;
    g->at++;
    bool negated = peek(g, 0) == '^';
    g->at += negated;
    while (more(g) && peek(g, 0) != ']' && peek(g, 0) != '\n') {
        uint32_t lo, hi;
        if (!take_char(g, &lo)) return false;
        hi = lo;
        if (peek(g, 0) == '-' && peek(g, 1) != ']') {
            g->at++;
            if (!more(g)) break;
            if (!take_char(g, &hi)) return false;
        }
        if (hi < lo) return bad(g, "wrong range in [...]");
        charset_add(set, lo, hi);
    }
    if (peek(g, 0) != ']') return bad(g, "`[` without `]`");
    g->at++;
    if (negated) charset_negate(set);
    return true;
}

// ---- alternatives ----------------------------------------------------------------------------------------
static Group *group(Gbnf *g) { return &g->groups[g->n_groups - 1]; }

static void end_alternative(Gbnf *g) {
    Group *p = group(g);
    if (p->n_items == 0) add_step(g, STEP_EMPTY, 0, 0);
    if (p->n_items > 1) add_step(g, STEP_CAT, p->n_items, 0);
    p->n_items = 0;
    p->n_alts++;
}

static bool open_group(Gbnf *g) {
    if (g->n_groups > GRAMMAR_NEST_MAX)
        return build_fail(g->b, E_LIMIT, "groups of the grammar are nested more than %d deep",
                          GRAMMAR_NEST_MAX);
    g->groups[g->n_groups++] = (Group){0};
    return true;
}

static void close_group(Gbnf *g) {
    end_alternative(g);
    if (group(g)->n_alts > 1) add_step(g, STEP_ALT, group(g)->n_alts, 0);
    g->n_groups--;
}

static bool take_number(Gbnf *g, uint32_t *out) {
    size_t begin = g->at;
    for (*out = 0; peek(g, 0) >= '0' && peek(g, 0) <= '9'; g->at++)
        *out = MIN(*out * 10 + (uint32_t)(peek(g, 0) - '0'), 1000000u);
    return g->at > begin;
}

// {m}, {m,}, {m,n}, {,n}
static bool take_braces(Gbnf *g, uint32_t *least, uint32_t *most) {
    g->at++;
    skip_space(g, true);
    bool has_least = take_number(g, least);
    skip_space(g, true);
    *most = *least;
    bool comma = peek(g, 0) == ',';
    if (comma) {
        g->at++;
        skip_space(g, true);
        if (!take_number(g, most)) *most = NFA_NO_END;
        skip_space(g, true);
    }
    if (peek(g, 0) != '}' || (!has_least && !comma)) return bad(g, "wrong {m,n}");
    g->at++;
    if (*most < *least) return bad(g, "{m,n} with n < m");
    if (*least > GRAMMAR_REPEAT_MAX || (*most != NFA_NO_END && *most > GRAMMAR_REPEAT_MAX))
        return build_fail(g->b, E_LIMIT, "more than %d repetitions in the grammar", GRAMMAR_REPEAT_MAX);
    return true;
}

static void take_quantifiers(Gbnf *g) {
    while (!g->b->failed) {
        skip_space(g, g->n_groups > 1);
        char c = peek(g, 0);
        uint32_t least = c == '+', most = c == '?' ? 1 : NFA_NO_END;
        if (c == '{') {
            if (!take_braces(g, &least, &most)) return;
        } else if (c == '*' || c == '+' || c == '?') {
            g->at++;
        } else {
            return;
        }
        add_step(g, STEP_REPEAT, least, most);
    }
}

static void take_call(Gbnf *g) {
    Str name = take_name(g);
    uint32_t rule = rule_of_name(g, name);
    add_step(g, STEP_CALL, rule, 0);
}

static void take_any(Gbnf *g) {
    charset_add(&add_step(g, STEP_CLASS, 0, 0)->set, 0, CHAR_LAST);
    g->at++;
}

// One item with what repeats it. False: the alternative ends here, or an error is told.
static bool take_item(Gbnf *g) {
    char c = peek(g, 0);
    if (c == '"') {
        take_text(g);
    } else if (c == '[') {
        take_class(g);
    } else if (c == '.') {
        take_any(g);
    } else if (is_name(c)) {
        take_call(g);
    } else if (c == '(') {
        g->at++;
        open_group(g);
        return !g->b->failed;
    } else if (c == ')' && g->n_groups > 1) {
        g->at++;
        close_group(g);
    } else {
        return false;
    }
    group(g)->n_items++;
    take_quantifiers(g);
    return !g->b->failed;
}

// A rule goes on in the next line behind `|`, in a group, or where the line begins with `|`.
static bool goes_on(Gbnf *g) {
    size_t at = g->at;
    skip_space(g, true);
    if (peek(g, 0) == '|') {
        g->at++;
        end_alternative(g);
        skip_space(g, true);
        return true;
    }
    g->at = at;
    return false;
}

static void take_rule(Gbnf *g) {
    Str name = take_name(g);
    if (!name.len) {
        bad(g, "the name of a rule is expected");
        return;
    }
    uint32_t rule = rule_of_name(g, name);
    skip_space(g, false);
    if (peek(g, 0) != ':' || peek(g, 1) != ':' || peek(g, 2) != '=') bad(g, "`::=` is expected");
    if (!g->b->failed && g->rules[rule].defined) bad(g, "the rule is defined twice");
    if (g->b->failed) return;
    g->at += 3;
    g->rules[rule].defined = true;
    g->rules[rule].first = g->n_steps;
    g->n_groups = 0;
    open_group(g);
    skip_space(g, true);
    do {
        skip_space(g, g->n_groups > 1);
    } while (take_item(g) || (!g->b->failed && goes_on(g)));
    if (g->b->failed) return;
    if (g->n_groups > 1) bad(g, "`(` without `)`");
    close_group(g);
    g->rules[rule].n = g->n_steps - g->rules[rule].first;
    skip_space(g, false);
    if (more(g) && peek(g, 0) != '\n' && peek(g, 0) != '\r')
        bad(g, "an item, `|` or the end of the line is expected");
}

static void take_rules(Gbnf *g) {
    skip_space(g, true);
    while (more(g)) {
        take_rule(g);
        skip_space(g, true);
    }
    for (uint32_t i = 0; i < g->n_rules && !g->b->failed; i++) {
        g->at = g->rules[i].line;
        if (!g->rules[i].defined)
            bad(g, arena_printf(&g->b->arena, "rule `%s` is not defined", g->b->rules[i].name));
    }
}

// ---- making ----------------------------------------------------------------------------------------------
static bool is_copied(const Gbnf *g, uint32_t rule) {
    return g->rules[rule].done && g->b->rules[rule].dfa->n <= COPY_STATES_MAX;
}

static void push_steps(Gbnf *g, const GbnfRule *rule) {
    Build *b = g->b;
    for (uint32_t i = rule->first; i < rule->first + rule->n && !b->failed; i++) {
        const Step *s = &g->steps[i];
        switch (s->kind) {
        case STEP_TEXT: nfa_bytes(b, s->text); break;
        case STEP_CLASS: nfa_charset(b, &s->set, false); break;
        case STEP_EMPTY: nfa_empty(b); break;
        case STEP_CAT: nfa_cat(b, s->a); break;
        case STEP_ALT: nfa_alt(b, s->a); break;
        case STEP_REPEAT: nfa_repeat(b, s->a, s->b); break;
        case STEP_CALL:
            if (is_copied(g, s->a))
                nfa_dfa(b, b->rules[s->a].dfa);
            else
                nfa_call(b, s->a);
        }
    }
}

// Rules after those that they call, as far as they do not call each other in a circle: a walk with its stack.
static void make_rules(Gbnf *g) {
    typedef struct {
        uint32_t rule, step;
    } Open;
    Open *open = xmalloc((g->n_rules + 1) * sizeof *open);
    for (uint32_t r = 0; r < g->n_rules && !g->b->failed; r++) {
        uint32_t n = 0;
        if (!g->rules[r].visited) open[n++] = (Open){r, 0};
        g->rules[r].visited = true;
        while (n && !g->b->failed) {
            Open *o = &open[n - 1];
            GbnfRule *rule = &g->rules[o->rule];
            if (o->step == rule->n) {
                push_steps(g, rule);
                build_define(g->b, o->rule);
                rule->done = true;
                n--;
                continue;
            }
            const Step *s = &g->steps[rule->first + o->step++];
            if (s->kind != STEP_CALL || g->rules[s->a].visited) continue;
            g->rules[s->a].visited = true;
            open[n++] = (Open){s->a, 0};
        }
    }
    free(open);
}

Grammar *grammar_from_gbnf(Str text, Err *e) {
    Build b;
    build_begin(&b, e);
    Gbnf *g = ARENA_NEW(&b.arena, Gbnf);
    *g = (Gbnf){.b = &b, .text = text};
    uint32_t root = 0;
    if (text.len > GRAMMAR_TEXT_MAX)
        build_fail(&b, E_LIMIT, "the grammar is longer than %d bytes", GRAMMAR_TEXT_MAX);
    else if (!regex_is_utf8(text, &g->at))
        bad(g, "not UTF-8");
    g->at = 0;
    if (!b.failed) take_rules(g);
    if (!b.failed) {
        uint32_t n = g->n_rules;
        root = rule_of_name(g, STR("root"));
        if (root == n) bad(g, "there is no rule `root`");
    }
    if (!b.failed) make_rules(g);
    for (uint32_t i = 0; i < g->n_steps; i++) charset_free(&g->steps[i].set);
    free(g->steps);
    free(g->rules);
    return automaton_make(&b, root);
}
