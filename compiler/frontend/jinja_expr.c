// Expressions: operator precedence with an explicit stack, code written as it goes.
//
// `a if c else b` is the one form whose parts run in another order than they stand: the code of `a` is lifted
// out when `if` appears and put back behind the condition. Jumps are relative and never leave their part, so
// that moving it is copying it.
#include <stdlib.h>

#include "compiler/frontend/jinja_code.h"
#include "runtime/base/num.h"

typedef enum {
    // groups, each closed by its bracket
    G_BASE,
    G_PAREN,
    G_LIST,
    G_DICT,
    G_INDEX,
    G_CALL,
    // operators, in order of precedence
    P_COND_TEST,
    P_COND_ELSE,
    P_OR,
    P_AND,
    P_NOT,
    P_COMPARE,
    P_ADD,
    P_CONCAT,
    P_MUL,
    P_POW,
    P_FILTER, // `|` and `is` bind looser than a sign, tighter than all others
    P_SIGN,
    P_TEST_ARG
} Level;

typedef struct {
    Level level;
    const Tok *tok;      // where it began
    uint32_t operand_at; // code of the operand that is being read
    ChatInsn call;       // operator or call to emit when it is complete
    bool negate;         // `is not`
    uint32_t patch;      // jump that waits for its target
    uint32_t n, n_named; // elements so far; colons of an index
    bool have;           // an index has a value since the last colon
    bool by_name;        // the argument being read has a name
    bool in_value;       // a dict reads a value
    ChatInsn *lifted;
    uint32_t n_lifted;
    const char *params; // names that arguments may have; NULL: any
    uint32_t min, max;  // arguments
} Entry;

typedef enum { LAST_VALUE, LAST_NAME, LAST_ATTR, LAST_LOOP, LAST_TEST } Last;

// Together they bound the operand stack of the program: an open entry holds three values at most beside its
// elements.
enum { ENTRIES_MAX = 3 * JINJA_NESTING_MAX, HELD_MAX = 1000 };
static_assert(3 * ENTRIES_MAX + HELD_MAX + 2 * CHAT_ARGS_MAX < CHAT_STACK_MAX, "accepted by the verifier");

typedef struct {
    Jinja *j;
    Entry stack[ENTRIES_MAX];
    uint32_t n;
    ExprMode mode;
    bool want_operand;
    Last last;
    const Tok *last_tok; // its name
    uint32_t last_at;    // its code
} Expr;

// What templates may call, with the numbers of arguments.
typedef struct {
    const char *name, *params;
    uint32_t min, max;
} Builtin;

static const Builtin filters[] = {
#define FILTER(id, text, min, max, params) {text, params, min, max},
#include "runtime/text/chat_builtins.def"
};
static const Builtin tests[] = {
#define TEST(id, text, min, max) {text, "", min, max},
#include "runtime/text/chat_builtins.def"
};
static const Builtin methods[] = {
#define METHOD(id, text, min, max) {text, "", min, max},
#include "runtime/text/chat_builtins.def"
};
static const Builtin functions[] = {
#define FUNCTION(id, text, min, max) {text, max == 255 ? NULL : "", min, max},
#include "runtime/text/chat_builtins.def"
};
static const char *const loop_vars[] = {
#define LOOP_VAR(id, text) text,
#include "runtime/text/chat_builtins.def"
};

static int32_t builtin_find(const Builtin *table, size_t n, Str name) {
    for (size_t i = 0; i < n; i++)
        if (str_is(name, table[i].name)) return (int32_t)i;
    return -1;
}

static bool builtin_unknown(Jinja *j, const Tok *name, const char *what, const Builtin *table, size_t n) {
    const char *names[64];
    for (size_t i = 0; i < n && i < COUNT_OF(names); i++) names[i] = table[i].name;
    jinja_fail(j, E_TEMPLATE_UNSUPPORTED, name, "%s %s is not supported", what, jinja_tok_text(j, name));
    diag_did_you_mean(j->diags, name->s, names, MIN(n, COUNT_OF(names)));
    return false;
}

static Entry *top(Expr *x) { return &x->stack[x->n - 1]; }
static bool is_group(const Entry *e) { return e->level <= G_CALL; }

static Entry *push(Expr *x, Level level) {
    if (x->n == COUNT_OF(x->stack)) {
        jinja_fail(x->j, E_TEMPLATE, x->j->tok, "expression nested too deeply");
        return NULL;
    }
    x->stack[x->n++] = (Entry){.level = level, .tok = x->j->tok, .operand_at = x->j->n_code};
    x->want_operand = true;
    return top(x);
}

static void operand_done(Expr *x, Last last, const Tok *tok, uint32_t at) {
    x->want_operand = false;
    x->last = last, x->last_tok = tok, x->last_at = at;
}

static void emit_none(Jinja *j) {
    jinja_emit(j, CHAT_OP_CONST, 0, jinja_const(j, (ChatConst){.kind = CHAT_NONE}));
}

// ---- operators -----------------------------------------------------------------------------------

static bool check_args(Expr *x, const Entry *e) {
    uint32_t given = e->n;
    if (given + e->n_named > CHAT_ARGS_MAX)
        return jinja_fail(x->j, E_TEMPLATE_UNSUPPORTED, e->tok, "more than %d arguments", CHAT_ARGS_MAX);
    if (given && e->call.op == CHAT_OP_FUNCTION && !e->params)
        return jinja_fail(x->j, E_TEMPLATE_UNSUPPORTED, e->tok, "%s takes arguments by name only",
                          jinja_tok_text(x->j, e->tok));
    if (given > e->max || given + e->n_named < e->min)
        return jinja_fail(x->j, E_TEMPLATE, e->tok, "%s takes %u to %u arguments, not %u",
                          jinja_tok_text(x->j, e->tok), e->min, e->max, given + e->n_named);
    return true;
}

static bool emit_call(Expr *x, const Entry *e) {
    if (!check_args(x, e)) return false;
    uint32_t at = jinja_emit(x->j, (ChatOp)e->call.op, e->n | e->n_named << 8, e->call.arg);
    x->j->code[at].line = (uint32_t)e->tok->begin;
    if (e->negate) jinja_emit(x->j, CHAT_OP_NOT, 0, 0);
    return true;
}

static void paste(Jinja *j, const Entry *e) {
    for (uint32_t i = 0; i < e->n_lifted; i++) {
        uint32_t at = jinja_emit(j, CHAT_OP_CONST, 0, 0);
        j->code[at] = e->lifted[i];
    }
}

// The condition is complete: condition, jump, lifted value, jump; what follows is for "else".
static uint32_t finish_condition(Jinja *j, const Entry *e) {
    uint32_t otherwise = jinja_emit(j, CHAT_OP_JUMP_FALSE, 0, 0);
    paste(j, e);
    uint32_t end = jinja_emit(j, CHAT_OP_JUMP, 0, 0);
    jinja_land(j, otherwise);
    return end;
}

static bool pop_operator(Expr *x) {
    Jinja *j = x->j;
    Entry e = x->stack[--x->n];
    switch (e.level) {
    case P_OR:
    case P_AND:
    case P_COND_ELSE: jinja_land(j, e.patch); break;
    case P_COND_TEST: { // without "else": undefined
        uint32_t end = finish_condition(j, &e);
        jinja_emit(j, CHAT_OP_CONST, 0, 0);
        jinja_land(j, end);
        break;
    }
    case P_TEST_ARG: e.n = 1; return emit_call(x, &e);
    default: jinja_emit(j, (ChatOp)e.call.op, 0, 0);
    }
    x->last = LAST_VALUE;
    return true;
}

// Completes every operator that binds at least as tightly.
static bool reduce(Expr *x, Level level) {
    while (!is_group(top(x)) && top(x)->level >= level)
        if (!pop_operator(x)) return false;
    return true;
}

static bool push_binary(Expr *x, Level level, ChatOp op) {
    if (!reduce(x, level == P_COMPARE ? P_ADD : level)) return false;
    if (level == P_COMPARE && top(x)->level == P_COMPARE)
        return jinja_fail(x->j, E_TEMPLATE_UNSUPPORTED, x->j->tok, "a chain of comparisons is not supported");
    Entry *e = push(x, level);
    if (!e) return false;
    e->call.op = (uint16_t)op;
    if (level == P_AND || level == P_OR) e->patch = jinja_emit(x->j, op, 0, 0);
    e->operand_at = x->j->n_code;
    x->j->tok++;
    return true;
}

static bool push_condition(Expr *x) {
    Jinja *j = x->j;
    if (!reduce(x, P_OR)) return false;
    if (top(x)->level == P_COND_TEST && !pop_operator(x)) return false;
    uint32_t from = top(x)->operand_at;
    Entry *e = push(x, P_COND_TEST);
    if (!e) return false;
    e->n_lifted = j->n_code - from;
    e->lifted = ARENA_ARRAY(j->arena, ChatInsn, e->n_lifted);
    if (e->n_lifted) memcpy(e->lifted, j->code + from, e->n_lifted * sizeof *e->lifted);
    j->n_code = e->operand_at = from;
    j->tok++;
    return true;
}

static bool turn_to_else(Expr *x) {
    Jinja *j = x->j;
    Entry *e = top(x);
    e->patch = finish_condition(j, e);
    e->level = P_COND_ELSE;
    e->operand_at = j->n_code;
    j->tok++;
    return x->want_operand = true;
}

// ---- operands ------------------------------------------------------------------------------------

static bool constant(Expr *x, ChatConst c) {
    operand_done(x, LAST_VALUE, x->j->tok, jinja_emit(x->j, CHAT_OP_CONST, 0, jinja_const(x->j, c)));
    x->j->tok++;
    return true;
}

static bool strings(Expr *x) { // neighbours are one
    Jinja *j = x->j;
    const Tok *first = j->tok;
    StrBuf all = {0};
    for (; j->tok->kind == TOK_STRING; j->tok++) buf_str(&all, j->tok->s);
    j->tok--; // for the place of the instruction
    operand_done(x, LAST_VALUE, first, jinja_emit(j, CHAT_OP_CONST, 0, jinja_string(j, buf_view(&all))));
    j->tok++;
    buf_free(&all);
    return true;
}

// `strftime_now is defined`: yes. Functions are no values otherwise.
static bool tests_a_function(const Jinja *j) {
    bool known =
        builtin_find(functions, COUNT_OF(functions), j->tok->s) >= 0 || jinja_function(j, j->tok->s) > 0;
    if (!known || !jinja_tok_is(j->tok + 1, "is")) return false;
    const Tok *test = j->tok + 2 + jinja_tok_is(j->tok + 2, "not");
    return jinja_tok_is(test, "defined") || jinja_tok_is(test, "undefined");
}

static bool name(Expr *x) {
    static const struct {
        const char *name;
        ChatConstKind kind;
    } words[] = {{"true", CHAT_TRUE},   {"True", CHAT_TRUE}, {"false", CHAT_FALSE},
                 {"False", CHAT_FALSE}, {"none", CHAT_NONE}, {"None", CHAT_NONE}};
    Jinja *j = x->j;
    const Tok *t = j->tok;
    for (size_t i = 0; i < COUNT_OF(words); i++)
        if (str_is(t->s, words[i].name)) return constant(x, (ChatConst){.kind = words[i].kind});
    if (jinja_is_keyword(t->s))
        return jinja_fail(j, E_TEMPLATE, t, "expected a value instead of %s", jinja_tok_text(j, t));
    bool of_macros = str_is(t->s, "varargs") || str_is(t->s, "kwargs") || str_is(t->s, "caller");
    if (of_macros && j->function)
        return jinja_fail(j, E_TEMPLATE_UNSUPPORTED, t, "%s inside of a macro is not supported",
                          jinja_tok_text(j, t));
    if (tests_a_function(j)) return constant(x, (ChatConst){.kind = CHAT_TRUE});
    if (str_is(t->s, "loop") && j->loop >= 0) {
        operand_done(x, LAST_LOOP, t, j->n_code);
    } else {
        uint32_t at = j->n_code;
        jinja_load(j, t->s);
        operand_done(x, LAST_NAME, t, at);
    }
    j->tok++;
    return true;
}

static bool open_bracket(Expr *x, Level level, const char *close, ChatOp empty) {
    Jinja *j = x->j;
    if (!push(x, level)) return false;
    j->tok++;
    if (!jinja_is(j, close)) return true;
    x->n--;
    uint32_t at = jinja_emit(j, empty, 0, 0);
    j->tok++;
    return operand_done(x, LAST_VALUE, j->tok, at), true;
}

static bool prefix(Expr *x, Level level, ChatOp op) {
    if (!is_group(top(x)) && top(x)->level > level)
        return jinja_fail(x->j, E_TEMPLATE, x->j->tok, "expected a value instead of %s",
                          jinja_tok_text(x->j, x->j->tok));
    Entry *e = push(x, level);
    if (!e) return false;
    e->call.op = (uint16_t)op;
    x->j->tok++;
    return true;
}

static bool operand(Expr *x) {
    Jinja *j = x->j;
    const Tok *t = j->tok;
    switch (t->kind) {
    case TOK_STRING: return strings(x);
    case TOK_INT: return constant(x, (ChatConst){.kind = CHAT_INT, .i = t->i});
    case TOK_FLOAT: return constant(x, (ChatConst){.kind = CHAT_REAL, .real = t->real});
    case TOK_NAME: return str_is(t->s, "not") ? prefix(x, P_NOT, CHAT_OP_NOT) : name(x);
    default: break;
    }
    if (jinja_is(j, "(")) return open_bracket(x, G_PAREN, ")", CHAT_OP_TUPLE);
    if (jinja_is(j, "[")) return open_bracket(x, G_LIST, "]", CHAT_OP_LIST);
    if (jinja_is(j, "{")) return open_bracket(x, G_DICT, "}", CHAT_OP_DICT);
    if (jinja_is(j, "-")) return prefix(x, P_SIGN, CHAT_OP_NEG);
    if (jinja_is(j, "+")) return prefix(x, P_SIGN, CHAT_OP_POS);
    return jinja_fail(j, E_TEMPLATE, t, "expected a value instead of %s", jinja_tok_text(j, t));
}

// ---- what follows a value ------------------------------------------------------------------------

// In Python these are methods of every dict before they are keys of this one.
static bool is_dict_method(Str s) {
    static const char *const names[] = {"clear", "copy",    "fromkeys",   "get",    "items", "keys",
                                        "pop",   "popitem", "setdefault", "update", "values"};
    for (size_t i = 0; i < COUNT_OF(names); i++)
        if (str_is(s, names[i])) return true;
    return false;
}

static bool loop_attr(Expr *x, const Tok *attr) {
    Jinja *j = x->j;
    for (size_t i = 0; i < COUNT_OF(loop_vars); i++) {
        if (!str_is(attr->s, loop_vars[i])) continue;
        operand_done(x, LAST_VALUE, attr, jinja_emit(j, CHAT_OP_LOOP_VAR, (uint32_t)j->loop, (int64_t)i));
        return true;
    }
    jinja_fail(j, E_TEMPLATE_UNSUPPORTED, attr, "`loop." STR_FMT "` is not supported",
               (int)MIN(attr->s.len, (size_t)60), attr->s.ptr);
    diag_did_you_mean(j->diags, attr->s, loop_vars, CHAT_LOOP_ITEM);
    return false;
}

static bool dot(Expr *x) {
    Jinja *j = x->j;
    const Tok *attr = ++j->tok;
    if (attr->kind == TOK_INT) {
        jinja_emit(j, CHAT_OP_CONST, 0, jinja_const(j, (ChatConst){.kind = CHAT_INT, .i = attr->i}));
        uint32_t at = jinja_emit(j, CHAT_OP_ITEM, 0, 0);
        j->tok++;
        return operand_done(x, LAST_VALUE, attr, at), true;
    }
    if (attr->kind != TOK_NAME)
        return jinja_fail(j, E_TEMPLATE, attr, "expected a name after `.` instead of %s",
                          jinja_tok_text(j, attr));
    j->tok++;
    if (x->last == LAST_LOOP) return loop_attr(x, attr);
    bool called = jinja_is(j, "(");
    if (!called && is_dict_method(attr->s))
        return jinja_fail(j, E_TEMPLATE_UNSUPPORTED, attr, "the method %s without a call is not supported",
                          jinja_tok_text(j, attr));
    uint32_t at = called ? j->n_code : jinja_emit(j, CHAT_OP_ATTR, 0, jinja_string(j, attr->s));
    return operand_done(x, LAST_ATTR, attr, at), true;
}

// The name of an argument, if it has one; called where an argument may begin.
static bool argument_name(Expr *x, Entry *e) {
    Jinja *j = x->j;
    e->by_name = j->tok->kind == TOK_NAME && jinja_tok_is(j->tok + 1, "=");
    e->operand_at = j->n_code;
    if (j->tok[0].kind == TOK_OP && (jinja_is(j, "*") || jinja_is(j, "**")))
        return jinja_fail(j, E_TEMPLATE_UNSUPPORTED, j->tok, "unpacked arguments are not supported");
    if (!e->by_name) {
        if (e->n_named) return jinja_fail(j, E_TEMPLATE, j->tok, "an argument by place after one by name");
        return true;
    }
    Str given = j->tok->s;
    bool known = !e->params;
    for (const char *p = e->params; p && *p && !known;) {
        size_t len = strcspn(p, " ");
        known = str_eq(given, (Str){p, len});
        p += len + (p[len] == ' ');
    }
    if (!known)
        return jinja_fail(j, E_TEMPLATE_UNSUPPORTED, j->tok,
                          "%s has no supported argument named `" STR_FMT "`", jinja_tok_text(j, e->tok),
                          (int)MIN(given.len, (size_t)60), given.ptr);
    jinja_emit(j, CHAT_OP_CONST, 0, jinja_string(j, given));
    j->tok += 2;
    e->operand_at = j->n_code;
    return true;
}

static bool close_call(Expr *x) {
    Entry e = x->stack[--x->n];
    if (!emit_call(x, &e)) return false;
    x->j->tok++;
    return operand_done(x, LAST_VALUE, e.tok, x->j->n_code - 1), true;
}

// At `(`: arguments of the call that `e` describes.
static bool open_call(Expr *x, Entry what) {
    Jinja *j = x->j;
    Entry *e = push(x, G_CALL);
    if (!e) return false;
    what.level = G_CALL;
    *e = what;
    j->tok++;
    if (jinja_is(j, ")")) return close_call(x);
    return argument_name(x, e);
}

static Entry describe(const Tok *tok, ChatOp op, int32_t id, const Builtin *b) {
    return (Entry){.tok = tok,
                   .call = {.op = (uint16_t)op, .arg = id},
                   .params = b ? b->params : NULL,
                   .min = b ? b->min : 0,
                   .max = b ? b->max : CHAT_ARGS_MAX};
}

static bool call_function(Expr *x, const Tok *tok) {
    Jinja *j = x->j;
    j->n_code = x->last_at; // the name is not loaded
    int32_t id = jinja_function(j, tok->s);
    if (id > 0) return open_call(x, describe(tok, CHAT_OP_CALL, id, NULL));
    id = builtin_find(functions, COUNT_OF(functions), tok->s);
    if (id >= 0) return open_call(x, describe(tok, CHAT_OP_FUNCTION, id, &functions[id]));
    return open_call(x, describe(tok, CHAT_OP_CALL, -1 - (int32_t)jinja_string(j, tok->s), NULL));
}

static bool call(Expr *x) {
    Jinja *j = x->j;
    const Tok *tok = x->last_tok;
    if (x->last == LAST_NAME) return call_function(x, tok);
    if (x->last != LAST_ATTR)
        return jinja_fail(j, E_TEMPLATE_UNSUPPORTED, j->tok,
                          "calling the result of an expression is not supported");
    int32_t id = builtin_find(methods, COUNT_OF(methods), tok->s);
    if (id < 0) return builtin_unknown(j, tok, "method", methods, COUNT_OF(methods));
    return open_call(x, describe(tok, CHAT_OP_METHOD, id, &methods[id]));
}

static bool filter(Expr *x) {
    Jinja *j = x->j;
    if (x->n && !reduce(x, P_FILTER)) return false;
    const Tok *tok = ++j->tok;
    if (tok->kind != TOK_NAME)
        return jinja_fail(j, E_TEMPLATE, tok, "expected a filter after `|` instead of %s",
                          jinja_tok_text(j, tok));
    int32_t id = builtin_find(filters, COUNT_OF(filters), tok->s);
    if (id < 0) return builtin_unknown(j, tok, "filter", filters, COUNT_OF(filters));
    j->tok++;
    Entry e = describe(tok, CHAT_OP_FILTER, id, &filters[id]);
    if (jinja_is(j, "(")) return open_call(x, e);
    if (!emit_call(x, &e)) return false;
    return operand_done(x, LAST_VALUE, tok, j->n_code - 1), true;
}

static bool test(Expr *x) {
    Jinja *j = x->j;
    if (!reduce(x, P_FILTER)) return false;
    if (x->last == LAST_TEST) return jinja_fail(j, E_TEMPLATE, j->tok, "a chain of `is`");
    j->tok++;
    bool negate = jinja_accept(j, "not");
    const Tok *tok = j->tok;
    if (tok->kind != TOK_NAME)
        return jinja_fail(j, E_TEMPLATE, tok, "expected a test after `is` instead of %s",
                          jinja_tok_text(j, tok));
    Str known = tok->s; // written None and True as well
    if (str_is(known, "None")) known = STR("none");
    if (str_is(known, "True")) known = STR("true");
    if (str_is(known, "False")) known = STR("false");
    int32_t id = builtin_find(tests, COUNT_OF(tests), known);
    if (id < 0) return builtin_unknown(j, tok, "test", tests, COUNT_OF(tests));
    j->tok++;
    Entry e = describe(tok, CHAT_OP_TEST, id, &tests[id]);
    e.negate = negate;
    if (jinja_is(j, "(") && tests[id].max) return open_call(x, e);
    bool operand_next = j->tok->kind <= TOK_FLOAT || jinja_is(j, "[") || jinja_is(j, "{");
    if (!tests[id].max || !operand_next || (j->tok->kind == TOK_NAME && jinja_is_keyword(j->tok->s))) {
        if (!emit_call(x, &e)) return false;
        return operand_done(x, LAST_TEST, tok, j->n_code - 1), true;
    }
    Entry *arg = push(x, P_TEST_ARG);
    if (!arg) return false;
    e.level = P_TEST_ARG;
    e.operand_at = j->n_code;
    *arg = e;
    return true;
}

// ---- closing -------------------------------------------------------------------------------------

// At `:` or `]` of x[a:b:c].
static bool index_part(Expr *x) {
    Jinja *j = x->j;
    Entry *e = top(x);
    bool close = jinja_is(j, "]");
    if (close && !e->n) {
        x->n--;
        uint32_t at = jinja_emit(j, CHAT_OP_ITEM, 0, 0);
        j->tok++;
        return operand_done(x, LAST_VALUE, j->tok, at), true;
    }
    if (!e->have) emit_none(j);
    e->have = false;
    if (!close) {
        if (++e->n > 2) return jinja_fail(j, E_TEMPLATE, j->tok, "a slice has at most two colons");
        j->tok++;
        e->operand_at = j->n_code;
        if (jinja_is(j, ":") || jinja_is(j, "]")) return index_part(x);
        e->have = true;
        return x->want_operand = true;
    }
    if (e->n == 1) emit_none(j);
    x->n--;
    uint32_t at = jinja_emit(j, CHAT_OP_SLICE, 0, 0);
    j->tok++;
    return operand_done(x, LAST_VALUE, j->tok, at), true;
}

static bool open_index(Expr *x) {
    Jinja *j = x->j;
    Entry *e = push(x, G_INDEX);
    if (!e) return false;
    j->tok++;
    e->have = !jinja_is(j, ":");
    return e->have || index_part(x);
}

static bool close_sequence(Expr *x, ChatOp op, uint32_t n) {
    x->n--;
    uint32_t at = jinja_emit(x->j, op, n, 0);
    x->j->tok++;
    return operand_done(x, LAST_VALUE, x->j->tok, at), true;
}

static bool close_bracket(Expr *x) {
    Jinja *j = x->j;
    Entry *e = top(x);
    switch (e->level) {
    case G_PAREN:
        if (e->n) return close_sequence(x, CHAT_OP_TUPLE, e->n + !x->want_operand);
        x->n--;
        j->tok++;
        return operand_done(x, LAST_VALUE, j->tok, j->n_code), true;
    case G_LIST: return close_sequence(x, CHAT_OP_LIST, e->n + !x->want_operand);
    case G_DICT:
        if (!e->in_value && !x->want_operand)
            return jinja_fail(j, E_TEMPLATE, j->tok, "expected `:` and a value in the dict");
        return close_sequence(x, CHAT_OP_DICT, e->n + !x->want_operand);
    case G_INDEX: return index_part(x);
    case G_CALL:
        if (!x->want_operand) *(e->by_name ? &e->n_named : &e->n) += 1;
        return close_call(x);
    default: return jinja_fail(j, E_TEMPLATE, j->tok, "unexpected %s", jinja_tok_text(j, j->tok));
    }
}

// At a comma; *more is false where it is not part of the expression.
static bool comma(Expr *x, bool *more) {
    Jinja *j = x->j;
    Entry *e = top(x);
    bool tuple = x->mode == EXPR_TUPLE || x->mode == EXPR_TUPLE_NO_IF;
    if (e->level == G_INDEX)
        return jinja_fail(j, E_TEMPLATE_UNSUPPORTED, j->tok, "an index with a comma is not supported");
    if (e->level == G_BASE && !tuple) return *more = false, true;
    if (e->level == G_DICT && !e->in_value)
        return jinja_fail(j, E_TEMPLATE, j->tok, "expected `:` and a value in the dict");
    if (e->level == G_CALL && e->by_name)
        e->n_named++;
    else
        e->n++;
    uint32_t held = 0; // values that wait on the stack
    for (uint32_t i = 0; i < x->n; i++) held += 2 * (x->stack[i].n + x->stack[i].n_named);
    if (held > HELD_MAX)
        return jinja_fail(j, E_TEMPLATE_UNSUPPORTED, j->tok, "more than %d elements in one expression",
                          HELD_MAX / 2);
    e->in_value = false;
    e->operand_at = j->n_code;
    j->tok++;
    x->want_operand = true;
    if (jinja_is(j, ")") || jinja_is(j, "]") || jinja_is(j, "}")) return close_bracket(x);
    return e->level != G_CALL || argument_name(x, e);
}

static bool colon(Expr *x, bool *more) {
    Jinja *j = x->j;
    Entry *e = top(x);
    if (e->level == G_INDEX) return index_part(x);
    if (e->level != G_DICT || e->in_value) return *more = false, true;
    const ChatInsn *key = &j->code[j->n_code - 1];
    if (key->op == CHAT_OP_CONST && j->consts[key->arg].kind != CHAT_STRING)
        return jinja_fail(j, E_TEMPLATE_UNSUPPORTED, j->tok - 1,
                          "a dict key that is no string is not supported");
    e->in_value = true;
    j->tok++;
    e->operand_at = j->n_code;
    return x->want_operand = true;
}

typedef struct {
    const char *text;
    Level level;
    ChatOp op;
} Operator;

static const Operator operators[] = {
    {"or", P_OR, CHAT_OP_OR},      {"and", P_AND, CHAT_OP_AND},   {"==", P_COMPARE, CHAT_OP_EQ},
    {"!=", P_COMPARE, CHAT_OP_NE}, {"<", P_COMPARE, CHAT_OP_LT},  {"<=", P_COMPARE, CHAT_OP_LE},
    {">", P_COMPARE, CHAT_OP_GT},  {">=", P_COMPARE, CHAT_OP_GE}, {"in", P_COMPARE, CHAT_OP_IN},
    {"+", P_ADD, CHAT_OP_ADD},     {"-", P_ADD, CHAT_OP_SUB},     {"~", P_CONCAT, CHAT_OP_CONCAT},
    {"*", P_MUL, CHAT_OP_MUL},     {"/", P_MUL, CHAT_OP_DIV},     {"//", P_MUL, CHAT_OP_FLOORDIV},
    {"%", P_MUL, CHAT_OP_MOD},     {"**", P_POW, CHAT_OP_POW},
};

static bool no_loop_value(Expr *x) {
    if (x->last != LAST_LOOP) return true;
    return jinja_fail(x->j, E_TEMPLATE_UNSUPPORTED, x->last_tok, "`loop` is supported only as `loop.name`");
}

// After a value; *more is false at the end of the expression.
static bool after_operand(Expr *x, bool *more) {
    Jinja *j = x->j;
    if (jinja_is(j, ".")) return dot(x);
    if (!no_loop_value(x)) return false;
    if (jinja_is(j, "[")) return open_index(x);
    if (jinja_is(j, "(")) return call(x);
    if (jinja_is(j, "|")) return filter(x);
    if (jinja_is(j, "is")) return test(x);
    for (size_t i = 0; i < COUNT_OF(operators); i++)
        if (jinja_is(j, operators[i].text)) return push_binary(x, operators[i].level, operators[i].op);
    if (jinja_is(j, "not") && jinja_tok_is(j->tok + 1, "in")) {
        j->tok++;
        return push_binary(x, P_COMPARE, CHAT_OP_NOT_IN);
    }
    if (!reduce(x, P_OR)) return false;
    bool no_if = x->mode == EXPR_NO_IF || x->mode == EXPR_TUPLE_NO_IF;
    if (jinja_is(j, "if") && !(no_if && top(x)->level == G_BASE)) return push_condition(x);
    if (jinja_is(j, "else") && top(x)->level == P_COND_TEST) return turn_to_else(x);
    if (!reduce(x, P_COND_TEST)) return false;
    bool closing = jinja_is(j, ")") || jinja_is(j, "]") || jinja_is(j, "}");
    if (closing && top(x)->level != G_BASE) return close_bracket(x); // else of the parameters of a macro
    if (jinja_is(j, ",")) return comma(x, more);
    if (jinja_is(j, ":")) return colon(x, more);
    *more = false;
    return true;
}

static bool run(Expr *x) {
    Jinja *j = x->j;
    bool more = true;
    while (more) {
        bool tuple_ends = x->want_operand && x->n == 1 && top(x)->n && j->tok->kind == TOK_END; // `a,`
        if (tuple_ends) break;
        if (!(x->want_operand ? operand(x) : after_operand(x, &more))) return false;
    }
    if (x->n != 1)
        return jinja_fail(j, E_TEMPLATE, j->tok, "expected an operator or a closing bracket instead of %s",
                          jinja_tok_text(j, j->tok));
    if (top(x)->n) jinja_emit(j, CHAT_OP_TUPLE, top(x)->n + !x->want_operand, 0);
    return true;
}

static Expr *start(Jinja *j, ExprMode mode) {
    Expr *x = xmalloc(sizeof *x);
    *x = (Expr){.j = j, .mode = mode};
    push(x, G_BASE);
    return x;
}

bool jinja_expr(Jinja *j, ExprMode mode) {
    Expr *x = start(j, mode);
    bool ok = run(x);
    free(x);
    return ok;
}

bool jinja_filters(Jinja *j) {
    if (!jinja_is(j, "|")) return true;
    Expr *x = start(j, EXPR_FULL);
    operand_done(x, LAST_VALUE, j->tok, j->n_code);
    bool ok = run(x);
    free(x);
    return ok;
}
