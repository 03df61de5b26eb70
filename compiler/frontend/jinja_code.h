// What the two halves of the template compiler share: the program being built, and the names in scope.
#ifndef ADALLM_FRONTEND_JINJA_CODE_H
#define ADALLM_FRONTEND_JINJA_CODE_H
#include "compiler/frontend/jinja_lex.h"
#include "runtime/text/chat_format.h"

// A name that some scope sets. A `set` may not have run when the name is read: then the next scope outwards
// counts, and last the variables of the whole template.
typedef struct {
    Str name;
    uint32_t slot;
    bool definite; // loop targets and macro parameters are always set
} JinjaName;

typedef struct {
    uint32_t first_name;
    uint32_t clear_at;   // the CLEAR that begins it
    uint32_t first_slot; // slots taken since then are unset by it
} JinjaScope;

typedef struct {
    uint32_t *rows; // row + 1, 0 is free; rows are found by their string
    uint32_t n, cap;
} JinjaTable;

typedef struct {
    Arena *arena;
    const Source *src;
    Diags *diags;
    const Tok *tok; // next token of the tag at work

    ChatInsn *code; // heap, like all that grows; `line` holds a place in the template until the end
    uint32_t n_code, cap_code;
    ChatConst *consts;
    uint32_t n_consts, cap_consts;
    ChatGlobal *globals;
    uint32_t n_globals, cap_globals;
    ChatFunction *functions;
    uint32_t n_functions, cap_functions;
    ChatParam *params;
    uint32_t n_params, cap_params;
    StrBuf strings;
    JinjaTable const_table, global_table;

    JinjaName *names;
    uint32_t n_names, cap_names;
    JinjaScope scopes[JINJA_NESTING_MAX];
    uint32_t n_scopes;
    uint32_t function; // being compiled
    uint32_t n_loops;  // open FORs of this function
    int32_t loop;      // the one that `loop` means here; -1: none
} Jinja;

bool jinja_fail(Jinja *j, ErrCode code, const Tok *at, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
bool jinja_is(const Jinja *j, const char *word);   // the next token is this name or operator
bool jinja_accept(Jinja *j, const char *word);     // and steps over it
bool jinja_expect(Jinja *j, const char *word);     // or fails
bool jinja_expect_name(Jinja *j, const Tok **out); // a name that is no keyword
bool jinja_tok_is(const Tok *t, const char *word); // TOK_NAME or TOK_OP
bool jinja_is_keyword(Str name);
const char *jinja_tok_text(const Jinja *j, const Tok *t); // for messages

uint32_t jinja_emit(Jinja *j, ChatOp op, uint32_t n, int64_t arg); // index of the instruction
void jinja_land(Jinja *j, uint32_t jump);                          // the jump goes to what comes next
void jinja_jump_back(Jinja *j, ChatOp op, uint32_t target);
uint32_t jinja_string(Jinja *j, Str s); // constants
uint32_t jinja_const(Jinja *j, ChatConst c);
uint32_t jinja_global(Jinja *j, Str name);
int32_t jinja_function(const Jinja *j, Str name); // index of a macro, or -1

bool jinja_push_scope(Jinja *j, const Tok *at);
void jinja_pop_scope(Jinja *j);
bool jinja_declare(Jinja *j, const Tok *name, bool definite, uint32_t *slot); // in the innermost scope
void jinja_load(Jinja *j, Str name);
bool jinja_store(Jinja *j, const Tok *name); // pops the value into a name of the innermost scope

// Compiles the expression at j->tok; its value ends on the stack. Stops at the first token that cannot
// continue it.
typedef enum { EXPR_FULL, EXPR_NO_IF, EXPR_TUPLE, EXPR_TUPLE_NO_IF } ExprMode;
bool jinja_expr(Jinja *j, ExprMode mode);
// `| filter | filter` at j->tok, applied to the value on the stack.
bool jinja_filters(Jinja *j);

bool jinja_statements(Jinja *j); // the whole template
#endif
