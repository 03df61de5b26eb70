// Statements: a stack of open blocks, each closed by its own end.
#include <stdlib.h>

#include "compiler/frontend/jinja_code.h"
#include "runtime/base/num.h"

typedef enum { B_IF, B_FOR, B_MACRO, B_SET, B_FILTER, B_GENERATION } BlockKind;

typedef struct {
    BlockKind kind;
    Tok tok;            // the word that opened it
    uint32_t otherwise; // jump that waits for elif, else or the end; FOR_NEXT of a loop
    uint32_t ends;      // chain of jumps to the end, through their arg; 0 ends it
    bool has_else;
    uint32_t next;      // FOR: where an iteration begins
    int32_t outer_loop; // what `loop` meant outside
    const Tok *target;  // SET, FILTER: a copy of the tokens from the name on
} Block;

typedef struct {
    Jinja *j;
    Block stack[JINJA_NESTING_MAX];
    uint32_t n;
} Blocks;

enum { MACROS_MAX = 256 };

static Block *top(Blocks *b) { return &b->stack[b->n - 1]; }

static const char *const openers[] = {"if", "for", "macro", "set", "filter", "generation"};

static Block *open_block(Blocks *b, BlockKind kind, const Tok *tok) {
    if (b->n == JINJA_NESTING_MAX) {
        jinja_fail(b->j, E_TEMPLATE, tok, "blocks nested too deeply (over %d)", JINJA_NESTING_MAX);
        return NULL;
    }
    b->stack[b->n] = (Block){.kind = kind, .tok = *tok, .outer_loop = b->j->loop};
    return &b->stack[b->n++];
}

static bool end_of_tag(Jinja *j) {
    return j->tok->kind == TOK_END ||
           jinja_fail(j, E_TEMPLATE, j->tok, "expected the end of the tag instead of %s",
                      jinja_tok_text(j, j->tok));
}

// Jumps to one place that is not known yet.
static void chain(Jinja *j, uint32_t *head) {
    uint32_t at = jinja_emit(j, CHAT_OP_JUMP, 0, *head);
    *head = at;
}

static void land_chain(Jinja *j, uint32_t head) {
    while (head) {
        uint32_t next = (uint32_t)j->code[head].arg;
        jinja_land(j, head);
        head = next;
    }
}

// ---- if ------------------------------------------------------------------------------------------

static bool condition(Jinja *j, Block *b) {
    if (!jinja_expr(j, EXPR_TUPLE_NO_IF)) return false;
    b->otherwise = jinja_emit(j, CHAT_OP_JUMP_FALSE, 0, 0);
    return end_of_tag(j);
}

static bool stmt_if(Blocks *b, const Tok *word) {
    Block *block = open_block(b, B_IF, word);
    return block && condition(b->j, block);
}

static bool branch(Blocks *b, const Tok *word) {
    Jinja *j = b->j;
    Block *block = top(b);
    if (block->has_else) return jinja_fail(j, E_TEMPLATE, word, "%s after `else`", jinja_tok_text(j, word));
    bool is_else = str_is(word->s, "else");
    chain(j, &block->ends);
    jinja_land(j, block->otherwise);
    block->otherwise = 0;
    block->has_else = is_else;
    return is_else ? end_of_tag(j) : condition(j, block);
}

static void end_if(Jinja *j, Block *b) {
    if (!b->has_else) jinja_land(j, b->otherwise);
    land_chain(j, b->ends);
}

// ---- for -----------------------------------------------------------------------------------------

enum { TARGETS_MAX = 8 };

static bool targets(Jinja *j, bool in_for, const Tok **out, uint32_t *n) {
    bool bracket = jinja_accept(j, "(");
    do {
        if (*n == TARGETS_MAX)
            return jinja_fail(j, E_TEMPLATE_UNSUPPORTED, j->tok, "more than %d names", TARGETS_MAX);
        if (!jinja_expect_name(j, &out[*n])) return false;
        if (jinja_is(j, ".") || (str_is(out[*n]->s, "loop") && (in_for || j->loop >= 0)))
            return jinja_fail(j, E_TEMPLATE_UNSUPPORTED, out[*n], "this name cannot be assigned here");
        ++*n;
    } while (jinja_accept(j, ","));
    return !bracket || jinja_expect(j, ")");
}

// Item on the stack, into the names of the innermost scope.
static bool store_targets(Jinja *j, const Tok *const *names, uint32_t n, bool definite) {
    uint32_t slot;
    if (n > 1) jinja_emit(j, CHAT_OP_UNPACK, n, 0);
    for (uint32_t i = 0; i < n; i++) {
        if (!definite) {
            if (!jinja_store(j, names[i])) return false;
        } else {
            if (!jinja_declare(j, names[i], true, &slot)) return false;
            jinja_emit(j, CHAT_OP_SET_LOCAL, 0, slot);
        }
    }
    return true;
}

static bool enter_loop(Jinja *j, const Tok *at, uint32_t *next) {
    if (j->n_loops == CHAT_LOOPS_MAX)
        return jinja_fail(j, E_TEMPLATE, at, "loops nested too deeply (over %d)", CHAT_LOOPS_MAX);
    j->n_loops++;
    jinja_emit(j, CHAT_OP_FOR, 0, 0);
    *next = jinja_emit(j, CHAT_OP_FOR_NEXT, 0, 0);
    return true;
}

// `for x in list if condition`: a loop of its own makes the list of the items that pass.
static bool loop_filter(Jinja *j, const Tok *const *names, uint32_t n, uint32_t list_at) {
    uint32_t next;
    if (!enter_loop(j, j->tok - 1, &next) || !jinja_push_scope(j, j->tok)) return false;
    if (!store_targets(j, names, n, true) || !jinja_expr(j, EXPR_FULL)) return false;
    uint32_t refused = jinja_emit(j, CHAT_OP_JUMP_FALSE, 0, 0);
    jinja_emit(j, CHAT_OP_LOOP_VAR, j->n_loops - 1, CHAT_LOOP_ITEM);
    jinja_emit(j, CHAT_OP_APPEND, 0, 0);
    jinja_land(j, refused);
    jinja_jump_back(j, CHAT_OP_JUMP, next);
    jinja_pop_scope(j);
    jinja_land(j, next);
    jinja_emit(j, CHAT_OP_FOR_END, 0, 0);
    j->n_loops--;
    j->code[list_at].op = CHAT_OP_LIST;
    return true;
}

static bool stmt_for(Blocks *b, const Tok *word) {
    Jinja *j = b->j;
    const Tok *names[TARGETS_MAX];
    uint32_t n = 0;
    if (!targets(j, true, names, &n) || !jinja_expect(j, "in")) return false;
    uint32_t list_at = jinja_emit(j, CHAT_OP_CLEAR, 0, 0); // the list of a filter, if there is one
    if (!jinja_expr(j, EXPR_TUPLE_NO_IF)) return false;
    if (jinja_accept(j, "if") && !loop_filter(j, names, n, list_at)) return false;
    if (jinja_is(j, "recursive"))
        return jinja_fail(j, E_TEMPLATE_UNSUPPORTED, j->tok, "`recursive` loops are not supported");
    if (!end_of_tag(j)) return false;
    Block *block = open_block(b, B_FOR, word);
    if (!block || !enter_loop(j, word, &block->next) || !jinja_push_scope(j, word)) return false;
    block->otherwise = block->next;
    j->loop = (int32_t)j->n_loops - 1;
    return store_targets(j, names, n, true);
}

// After the last statement of the body: back, out, and on the way out whether there was an item.
static void end_loop_body(Jinja *j, Block *b) {
    jinja_jump_back(j, CHAT_OP_JUMP, b->next);
    jinja_pop_scope(j);
    jinja_land(j, b->next);
    land_chain(j, b->ends);
    b->ends = 0;
    if (b->has_else) jinja_emit(j, CHAT_OP_LOOP_VAR, j->n_loops - 1, CHAT_LOOP_EMPTY);
    jinja_emit(j, CHAT_OP_FOR_END, 0, 0);
    j->n_loops--;
    j->loop = b->outer_loop;
}

static bool loop_else(Blocks *b, const Tok *word) {
    Jinja *j = b->j;
    Block *block = top(b);
    if (block->has_else) return jinja_fail(j, E_TEMPLATE, word, "`else` after `else`");
    block->has_else = true;
    end_loop_body(j, block);
    block->otherwise = jinja_emit(j, CHAT_OP_JUMP_FALSE, 0, 0);
    return jinja_push_scope(j, word) && end_of_tag(j);
}

static void end_for(Jinja *j, Block *b) {
    if (!b->has_else) {
        end_loop_body(j, b);
    } else {
        jinja_pop_scope(j);
        jinja_land(j, b->otherwise);
    }
}

static bool stmt_loop_control(Blocks *b, const Tok *word) {
    Jinja *j = b->j;
    for (uint32_t i = b->n; i-- > 0;) {
        Block *block = &b->stack[i];
        if (block->kind == B_IF || (block->kind == B_FOR && block->has_else)) continue;
        if (block->kind != B_FOR)
            return jinja_fail(j, E_TEMPLATE_UNSUPPORTED, word, "%s out of a `%s` block is not supported",
                              jinja_tok_text(j, word), openers[block->kind]);
        if (str_is(word->s, "break"))
            chain(j, &block->ends);
        else
            jinja_jump_back(j, CHAT_OP_JUMP, block->next);
        return end_of_tag(j);
    }
    return jinja_fail(j, E_TEMPLATE, word, "%s outside of a loop", jinja_tok_text(j, word));
}

// ---- macro ---------------------------------------------------------------------------------------

static bool parameters(Jinja *j) {
    ChatFunction *f = &j->functions[j->function];
    const Tok *name;
    bool defaults = false;
    if (!jinja_expect(j, "(")) return false;
    while (!jinja_accept(j, ")")) {
        uint32_t slot, before = j->functions[j->function].n_locals;
        f = &j->functions[j->function];
        if (f->n_params && !jinja_expect(j, ",")) return false;
        if (jinja_accept(j, ")")) break;
        if (!jinja_expect_name(j, &name) || !jinja_declare(j, name, true, &slot)) return false;
        if (slot != before)
            return jinja_fail(j, E_TEMPLATE, name, "parameter %s appears twice", jinja_tok_text(j, name));
        if (f->n_params == CHAT_ARGS_MAX)
            return jinja_fail(j, E_TEMPLATE_UNSUPPORTED, name, "more than %d parameters", CHAT_ARGS_MAX);
        if (j->n_params == j->cap_params) {
            j->cap_params = MAX(j->cap_params * 2, 64u);
            j->params = xrealloc(j->params, j->cap_params, sizeof *j->params);
        }
        uint32_t text = jinja_string(j, name->s); // moves the constants
        j->params[j->n_params++].name = j->consts[text].s;
        f->n_params++;
        if (jinja_accept(j, "=")) {
            defaults = true;
            uint32_t given = jinja_emit(j, CHAT_OP_JUMP_SET, slot, 0);
            if (!jinja_expr(j, EXPR_FULL)) return false;
            jinja_land(j, given);
            jinja_emit(j, CHAT_OP_SET_LOCAL, 0, slot);
        } else if (defaults) {
            return jinja_fail(j, E_TEMPLATE, name, "a parameter without a default after one with a default");
        }
    }
    return end_of_tag(j);
}

static bool stmt_macro(Blocks *b, const Tok *word) {
    Jinja *j = b->j;
    for (uint32_t i = 0; i < b->n; i++)
        if (b->stack[i].kind != B_IF)
            return jinja_fail(j, E_TEMPLATE_UNSUPPORTED, word,
                              "a macro inside of a `%s` block is not supported", openers[b->stack[i].kind]);
    const Tok *name;
    if (!jinja_expect_name(j, &name)) return false;
    if (j->n_functions > MACROS_MAX)
        return jinja_fail(j, E_TEMPLATE_UNSUPPORTED, name, "more than %d macros", MACROS_MAX);
    Block *block = open_block(b, B_MACRO, word);
    if (!block) return false;
    block->otherwise = jinja_emit(j, CHAT_OP_JUMP, 0, 0);
    if (j->n_functions == j->cap_functions) {
        j->cap_functions *= 2;
        j->functions = xrealloc(j->functions, j->cap_functions, sizeof *j->functions);
    }
    uint32_t text = jinja_string(j, name->s); // moves the constants
    j->functions[j->n_functions] =
        (ChatFunction){.name = j->consts[text].s, .entry = j->n_code, .first_param = j->n_params};
    j->function = j->n_functions++;
    // A scope without CLEAR: the caller sets all locals.
    j->scopes[j->n_scopes++] = (JinjaScope){.first_name = j->n_names, .clear_at = UINT32_MAX};
    return parameters(j);
}

static void end_macro(Jinja *j, Block *b) {
    jinja_emit(j, CHAT_OP_RETURN, 0, 0);
    j->n_names = j->scopes[--j->n_scopes].first_name;
    j->function = 0;
    jinja_land(j, b->otherwise);
}

// ---- set, filter, generation ---------------------------------------------------------------------

// The tag is gone when its block ends: keep what stands in it.
static const Tok *keep_tokens(Jinja *j) {
    size_t n = 1;
    while (j->tok[n - 1].kind != TOK_END) n++;
    Tok *copy = ARENA_ARRAY(j->arena, Tok, n);
    memcpy(copy, j->tok, n * sizeof *copy);
    return copy;
}

static bool open_capture(Blocks *b, BlockKind kind, const Tok *word, const Tok *target) {
    Jinja *j = b->j;
    uint32_t captures = 0;
    for (uint32_t i = 0; i < b->n; i++) captures += b->stack[i].kind == B_SET || b->stack[i].kind == B_FILTER;
    if (captures == CHAT_CAPTURES_MAX)
        return jinja_fail(j, E_TEMPLATE, word, "blocks nested too deeply (over %d)", CHAT_CAPTURES_MAX);
    Block *block = open_block(b, kind, word);
    if (!block) return false;
    block->target = target;
    jinja_emit(j, CHAT_OP_CAPTURE, 0, 0);
    return jinja_push_scope(j, word);
}

static bool set_attribute(Jinja *j, const Tok *object) {
    const Tok *attr;
    jinja_load(j, object->s);
    j->tok++;
    if (!jinja_expect_name(j, &attr) || !jinja_expect(j, "=") || !jinja_expr(j, EXPR_TUPLE)) return false;
    jinja_emit(j, CHAT_OP_SET_ATTR, 0, jinja_string(j, attr->s));
    return end_of_tag(j);
}

static bool stmt_set(Blocks *b, const Tok *word) {
    Jinja *j = b->j;
    const Tok *names[TARGETS_MAX], *first = j->tok;
    uint32_t n = 0;
    if (j->tok->kind == TOK_NAME && jinja_tok_is(j->tok + 1, ".")) {
        j->tok++;
        return set_attribute(j, first);
    }
    const Tok *kept = keep_tokens(j);
    if (!targets(j, false, names, &n)) return false;
    if (jinja_accept(j, "="))
        return jinja_expr(j, EXPR_TUPLE) && end_of_tag(j) && store_targets(j, names, n, false);
    if (n > 1 || first->kind != TOK_NAME) return jinja_expect(j, "=");
    if (jinja_is(j, "|")) { // filters run at the end, but are checked here first
        uint32_t at = j->n_code;
        jinja_emit(j, CHAT_OP_CONST, 0, 0);
        if (!jinja_filters(j)) return false;
        j->n_code = at;
    }
    return end_of_tag(j) && open_capture(b, B_SET, word, kept);
}

static bool end_set(Jinja *j, Block *b) {
    jinja_pop_scope(j);
    const Tok *end = j->tok;
    j->tok = b->target + 1;
    jinja_emit(j, CHAT_OP_CAPTURE_END, 0, 0);
    bool ok = jinja_filters(j) && jinja_store(j, b->target);
    j->tok = end;
    return ok;
}

static bool stmt_filter(Blocks *b, const Tok *word) {
    Jinja *j = b->j;
    // `filter f` is `| f`: the word before the name is read as the bar
    j->tok = word;
    Tok *kept = (Tok *)keep_tokens(j);
    kept->kind = TOK_OP;
    kept->s = STR("|");
    const Tok *begin = j->tok = kept;
    uint32_t at = j->n_code;
    jinja_emit(j, CHAT_OP_CONST, 0, 0);
    if (!jinja_filters(j) || !end_of_tag(j)) return false;
    j->n_code = at;
    return open_capture(b, B_FILTER, word, begin);
}

static bool end_filter(Jinja *j, Block *b) {
    jinja_pop_scope(j);
    const Tok *end = j->tok;
    j->tok = b->target;
    jinja_emit(j, CHAT_OP_CAPTURE_END, 0, 0);
    bool ok = jinja_filters(j);
    jinja_emit(j, CHAT_OP_PRINT, 0, 0);
    j->tok = end;
    return ok;
}

// Marks what the model wrote, for training; here only a scope.
static bool stmt_generation(Blocks *b, const Tok *word) {
    return open_block(b, B_GENERATION, word) && jinja_push_scope(b->j, word) && end_of_tag(b->j);
}

// ---- all -----------------------------------------------------------------------------------------

static bool close_block(Blocks *b, const Tok *word) {
    static const char *const ends[] = {"endif", "endfor", "endmacro", "endset", "endfilter", "endgeneration"};
    Jinja *j = b->j;
    size_t kind = 0;
    while (kind < COUNT_OF(ends) && !str_is(word->s, ends[kind])) kind++;
    if (!b->n)
        return jinja_fail(j, E_TEMPLATE, word, "%s without its `%s`", jinja_tok_text(j, word), openers[kind]);
    Block *block = top(b);
    if (block->kind != kind)
        return jinja_fail(j, E_TEMPLATE, word, "%s inside of a `%s` block that is still open",
                          jinja_tok_text(j, word), openers[block->kind]);
    if (kind == B_MACRO && j->tok->kind == TOK_NAME) j->tok++; // its name may stand here
    if (!end_of_tag(j)) return false;
    b->n--;
    switch (block->kind) {
    case B_IF: end_if(j, block); break;
    case B_FOR: end_for(j, block); break;
    case B_MACRO: end_macro(j, block); break;
    case B_SET: return end_set(j, block);
    case B_FILTER: return end_filter(j, block);
    case B_GENERATION: jinja_pop_scope(j); break;
    }
    return true;
}

static bool unknown_statement(Jinja *j, const Tok *word) {
    static const char *const known[] = {"if",     "elif",       "else",         "endif",    "for",
                                        "endfor", "set",        "endset",       "macro",    "endmacro",
                                        "filter", "endfilter",  "break",        "continue", "raw",
                                        "endraw", "generation", "endgeneration"};
    jinja_fail(j, E_TEMPLATE_UNSUPPORTED, word, "the statement %s is not supported", jinja_tok_text(j, word));
    diag_did_you_mean(j->diags, word->s, known, COUNT_OF(known));
    return false;
}

static bool statement(Blocks *b) {
    static const struct {
        const char *name;
        bool (*run)(Blocks *b, const Tok *word);
    } table[] = {{"if", stmt_if},
                 {"for", stmt_for},
                 {"set", stmt_set},
                 {"macro", stmt_macro},
                 {"filter", stmt_filter},
                 {"generation", stmt_generation},
                 {"break", stmt_loop_control},
                 {"continue", stmt_loop_control}};
    Jinja *j = b->j;
    const Tok *word = j->tok;
    if (word->kind != TOK_NAME)
        return jinja_fail(j, E_TEMPLATE, word, "expected a statement instead of %s", jinja_tok_text(j, word));
    j->tok++;
    for (size_t i = 0; i < COUNT_OF(table); i++)
        if (str_is(word->s, table[i].name)) return table[i].run(b, word);
    bool is_else = str_is(word->s, "else");
    if (is_else && b->n && top(b)->kind == B_FOR) return loop_else(b, word);
    if (is_else || str_is(word->s, "elif")) {
        if (b->n && top(b)->kind == B_IF) return branch(b, word);
        return jinja_fail(j, E_TEMPLATE, word, "%s without its `if`", jinja_tok_text(j, word));
    }
    if (str_starts(word->s, STR("end")))
        for (size_t i = 0; i < COUNT_OF(openers); i++)
            if (str_is(str_from(word->s, 3), openers[i])) return close_block(b, word);
    return unknown_statement(j, word);
}

static bool piece(Blocks *b, const Piece *p) {
    Jinja *j = b->j;
    if (p->kind == PIECE_TEXT) {
        Tok place = {.begin = p->begin, .end = p->end};
        j->tok = &place;
        jinja_emit(j, CHAT_OP_TEXT, 0, jinja_string(j, p->text));
        j->tok = NULL;
        return true;
    }
    j->tok = p->toks;
    if (p->kind == PIECE_BLOCK) return statement(b);
    if (!jinja_expr(j, EXPR_TUPLE) || !end_of_tag(j)) return false;
    jinja_emit(j, CHAT_OP_PRINT, 0, 0);
    return true;
}

bool jinja_statements(Jinja *j) {
    Blocks *b = xmalloc(sizeof *b);
    *b = (Blocks){.j = j};
    JinjaLexer lex;
    jinja_lex_start(&lex, j->arena, j->src, j->diags);
    Piece p;
    bool ok;
    while ((ok = jinja_lex_next(&lex, &p)) && p.kind != PIECE_EOF && (ok = piece(b, &p))) {
    }
    if (ok && b->n)
        ok = jinja_fail(j, E_TEMPLATE, &top(b)->tok, "`%s` without its `end%s`", openers[top(b)->kind],
                        openers[top(b)->kind]);
    if (ok) {
        Tok end = {.begin = j->src->text.len};
        j->tok = &end;
        jinja_emit(j, CHAT_OP_RETURN, 0, 0);
    }
    jinja_lex_free(&lex);
    free(b);
    j->tok = NULL;
    return ok;
}
