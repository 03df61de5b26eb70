// Opens a chat program: nothing in it is believed. Tables must lie inside the section, references inside
// their tables, strings must be UTF-8; then every instruction that can be reached is visited once with the
// depths of the three stacks, which must agree on all ways that lead to it.
#include "runtime/base/num.h"
#include "runtime/text/chat_builtins.h"
#include "runtime/text/chat_program.h"

enum { GLOBALS_MAX = 1 << 16, FUNCTIONS_MAX = 1 << 10, UNSEEN = -1 };

typedef struct {
    int32_t stack; // operands before the instruction; UNSEEN
    uint16_t function;
    uint8_t loops, captures;
} State;

typedef struct {
    Chat *chat;
    const ChatConst *consts;
    State *states;  // [n_insns]
    uint32_t *todo; // [n_insns]
    uint32_t n_todo;
    uint32_t function;
    Err *e;
} Verify;

static bool bad(Verify *v, uint32_t insn, const char *why) {
    return err_set(v->e, E_TEMPLATE, "chat program: instruction %u: %s", insn, why);
}

static bool damaged(Err *e, const char *why) { return err_set(e, E_TEMPLATE, "chat program: %s", why); }

// ---- tables --------------------------------------------------------------------------------------

static bool string_ok(Str strings, ChatStr s) {
    if (!range_inside(s.offset, s.len, strings.len)) return false;
    Str text = str_sub(strings, s.offset, s.offset + s.len);
    for (size_t at = 0, n; at < text.len; at += n)
        if (!(n = str_utf8_len(str_from(text, at)))) return false;
    return true;
}

static bool take(const char **at, const char *end, size_t count, size_t size, const void *table) {
    size_t bytes;
    if (!size_mul(count, size, &bytes) || bytes > (size_t)(end - *at)) return false;
    *(const void **)table = *at;
    *at += bytes;
    return true;
}

static bool map_tables(Chat *c, const ChatConst **consts, uint32_t *n_params, const void *section, size_t len,
                       Err *e) {
    ChatHeader h;
    if (len < sizeof h || (uintptr_t)section % 8) return damaged(e, "the section is too short");
    memcpy(&h, section, sizeof h);
    if (memcmp(h.magic, CHAT_MAGIC, sizeof h.magic)) return damaged(e, "it does not begin with " CHAT_MAGIC);
    if (h.n_insns > CHAT_INSNS_MAX || h.n_globals > GLOBALS_MAX || h.n_functions > FUNCTIONS_MAX ||
        !h.n_functions)
        return damaged(e, "an impossible number of rows");
    const char *at = (const char *)section + sizeof h, *end = (const char *)section + len;
    bool ok = take(&at, end, h.n_consts, sizeof(ChatConst), consts) &&
              take(&at, end, h.n_globals, sizeof(ChatGlobal), &c->globals) &&
              take(&at, end, h.n_functions, sizeof(ChatFunction), &c->functions) &&
              take(&at, end, h.n_params, sizeof(ChatParam), &c->params) &&
              take(&at, end, h.n_insns, sizeof(ChatInsn), &c->insns) && (size_t)(end - at) == h.string_bytes;
    if (!ok) return damaged(e, "its tables do not fill the section");
    c->strings = (Str){at, h.string_bytes};
    c->n_consts = h.n_consts, c->n_globals = h.n_globals, c->n_functions = h.n_functions,
    c->n_insns = h.n_insns;
    *n_params = h.n_params;
    return true;
}

static bool load_const(const Chat *c, const ChatConst *from, Value *to) {
    static const Value fixed[] = {[CHAT_UNDEFINED] = {.kind = V_UNDEFINED},
                                  [CHAT_NONE] = {.kind = V_NONE},
                                  [CHAT_FALSE] = {.kind = V_BOOL},
                                  [CHAT_TRUE] = {.kind = V_BOOL, .boolean = true}};
    if (from->kind > CHAT_STRING) return false;
    if (from->kind == CHAT_INT) return *to = v_int(from->i), true;
    if (from->kind == CHAT_REAL) return *to = v_real(from->real), true;
    if (from->kind < CHAT_INT) return *to = fixed[from->kind], true;
    Str s = chat_str(c, from->s);
    *to = v_text((Text){.ptr = s.ptr, .len = s.len});
    return true;
}

static bool check_tables(Chat *c, Arena *a, const ChatConst *consts, uint32_t n_params, Err *e) {
    c->consts = ARENA_ARRAY(a, Value, c->n_consts);
    for (uint32_t i = 0; i < c->n_consts; i++) {
        if (consts[i].kind == CHAT_STRING && !string_ok(c->strings, consts[i].s))
            return damaged(e, "a string outside of its table or not UTF-8");
        if (!load_const(c, &consts[i], &c->consts[i])) return damaged(e, "a constant of an unknown kind");
    }
    for (uint32_t i = 0; i < c->n_globals; i++)
        if (!string_ok(c->strings, c->globals[i].name) || c->globals[i].initial >= c->n_consts)
            return damaged(e, "a variable outside of its tables");
    for (uint32_t i = 0; i < n_params; i++)
        if (!string_ok(c->strings, c->params[i].name)) return damaged(e, "a parameter without a name");
    for (uint32_t i = 0; i < c->n_functions; i++) {
        const ChatFunction *f = &c->functions[i];
        bool ok = string_ok(c->strings, f->name) && f->entry < c->n_insns && f->n_locals <= CHAT_LOCALS_MAX &&
                  f->n_params <= f->n_locals && f->n_params <= CHAT_ARGS_MAX &&
                  range_inside(f->first_param, f->n_params, n_params);
        if (!ok || (i == 0 && f->n_params)) return damaged(e, "a function outside of its tables");
    }
    return true;
}

// ---- code ----------------------------------------------------------------------------------------

static const struct {
    int8_t pops, pushes;
} effects[] = {
#define OP(name, pops, pushes, what) {pops, pushes},
#include "runtime/text/chat_ops.def"
#undef OP
};

// Operands of the instructions whose row in chat_ops.def says -1; -1 again when the instruction is wrong.
static int32_t pops_of(const Chat *c, const ChatInsn *in) {
    uint32_t by_place = in->n & 0xFF, by_name = in->n >> 8, max = 0;
    uint32_t id = (uint32_t)in->arg, args = by_place + by_name;
    if (in->op == CHAT_OP_LIST || in->op == CHAT_OP_TUPLE) return in->n;
    if (in->op == CHAT_OP_DICT) return 2 * in->n;
    if (in->op == CHAT_OP_UNPACK) return in->n ? 1 : -1;
    if (args > CHAT_ARGS_MAX) return -1;
    int32_t values = (int32_t)(by_place + 2 * by_name);
    switch (in->op) {
    case CHAT_OP_FILTER:
        if (id >= CHAT_FILTERS || args > chat_filter_max[id] || args < chat_filter_min[id]) return -1;
        return 1 + values;
    case CHAT_OP_TEST: max = id < CHAT_TESTS ? chat_test_max[id] : 0; break;
    case CHAT_OP_METHOD: max = id < CHAT_METHODS ? chat_method_max[id] : 0; break;
    case CHAT_OP_FUNCTION: {
        if (id >= CHAT_FUNCTIONS || args > chat_function_max[id] || args < chat_function_min[id]) return -1;
        bool any = id == CHAT_FUNCTION_DICT || id == CHAT_FUNCTION_NAMESPACE;
        return (any ? by_place : by_name) ? -1 : values;
    }
    default: return id > 0 && id < c->n_functions ? values : -1;
    }
    bool known = in->op == CHAT_OP_TEST ? id < CHAT_TESTS && args >= chat_test_min[id]
                                        : id < CHAT_METHODS && args >= chat_method_min[id];
    return known && args <= max && !by_name ? 1 + values : -1;
}

static bool arg_ok(const Verify *v, uint32_t at, const ChatInsn *in, State s) {
    const Chat *c = v->chat;
    uint32_t arg = (uint32_t)in->arg, n_locals = c->functions[v->function].n_locals;
    switch (in->op) {
    case CHAT_OP_CONST: return arg < c->n_consts;
    case CHAT_OP_GLOBAL:
    case CHAT_OP_SET_GLOBAL: return arg < c->n_globals;
    case CHAT_OP_LOCAL:
    case CHAT_OP_SET_LOCAL: return arg < n_locals;
    case CHAT_OP_CLEAR: return range_inside(arg, in->n, n_locals);
    case CHAT_OP_TEXT:
    case CHAT_OP_ATTR:
    case CHAT_OP_SET_ATTR: return arg < c->n_consts && v->consts[arg].kind == CHAT_STRING;
    case CHAT_OP_LOOP_VAR: return arg < CHAT_LOOP_VARS && in->n < s.loops;
    case CHAT_OP_JUMP_SET:
    case CHAT_OP_JUMP:
    case CHAT_OP_JUMP_FALSE:
    case CHAT_OP_AND:
    case CHAT_OP_OR:
    case CHAT_OP_FOR_NEXT: {
        int64_t target = (int64_t)at + in->arg;
        if (target < 0 || target >= c->n_insns || in->arg == 0) return false;
        if (in->op == CHAT_OP_JUMP_SET && in->n >= n_locals) return false;
        return in->arg > 0 || (in->op == CHAT_OP_JUMP && c->insns[target].op == CHAT_OP_FOR_NEXT);
    }
    default: return true;
    }
}

static bool flow(Verify *v, uint32_t from, int64_t to, State s, int32_t extra) {
    Chat *c = v->chat;
    s.stack += extra;
    if (to >= c->n_insns) return bad(v, from, "the program runs off its end");
    if (s.stack > CHAT_STACK_MAX) return bad(v, from, "too many operands");
    c->stack_max[v->function] = MAX(c->stack_max[v->function], (uint32_t)s.stack);
    State *there = &v->states[to];
    if (there->stack == UNSEEN) {
        *there = s;
        v->todo[v->n_todo++] = (uint32_t)to;
        return true;
    }
    bool same = there->stack == s.stack && there->loops == s.loops && there->captures == s.captures &&
                there->function == s.function;
    return same || bad(v, from, "two ways to one instruction leave different stacks");
}

// Depths of the loop and capture stacks after the instruction.
static bool nest(Verify *v, uint32_t at, uint16_t op, State *s) {
    if (op == CHAT_OP_FOR && s->loops++ == CHAT_LOOPS_MAX) return bad(v, at, "loops nested too deeply");
    if (op == CHAT_OP_CAPTURE && s->captures++ == CHAT_CAPTURES_MAX)
        return bad(v, at, "captures nested too deeply");
    if ((op == CHAT_OP_FOR_NEXT || op == CHAT_OP_FOR_END) && !s->loops) return bad(v, at, "no loop is open");
    if (op == CHAT_OP_CAPTURE_END && s->captures-- == 0) return bad(v, at, "no capture is open");
    if (op == CHAT_OP_FOR_END) s->loops--;
    if (op == CHAT_OP_RETURN && (s->loops || s->captures || s->stack))
        return bad(v, at, "a return leaves something open");
    return true;
}

static bool visit(Verify *v, uint32_t at) {
    const ChatInsn *in = &v->chat->insns[at];
    State s = v->states[at];
    if (in->op >= CHAT_OPS) return bad(v, at, "unknown operation");
    if (!arg_ok(v, at, in, s)) return bad(v, at, "its argument is out of range");
    int32_t pops = effects[in->op].pops, pushes = in->op == CHAT_OP_UNPACK ? in->n : effects[in->op].pushes;
    if (pops < 0) pops = pops_of(v->chat, in);
    if (pops < 0) return bad(v, at, "wrong arguments of a call");
    // APPEND works on the list under its operand, which stays
    if (s.stack < pops + (in->op == CHAT_OP_APPEND)) return bad(v, at, "too few operands");
    s.stack -= pops;
    if (!nest(v, at, in->op, &s)) return false;
    if (in->op == CHAT_OP_RETURN) return true;
    int64_t target = (int64_t)at + in->arg;
    switch (in->op) {
    case CHAT_OP_JUMP: return flow(v, at, target, s, 0);
    case CHAT_OP_AND:
    case CHAT_OP_OR:
    case CHAT_OP_JUMP_SET: return flow(v, at, target, s, 1) && flow(v, at, (int64_t)at + 1, s, 0);
    case CHAT_OP_JUMP_FALSE:
    case CHAT_OP_FOR_NEXT: return flow(v, at, target, s, 0) && flow(v, at, (int64_t)at + 1, s, pushes);
    default: return flow(v, at, (int64_t)at + 1, s, pushes);
    }
}

static bool check_code(Verify *v) {
    for (uint32_t i = 0; i < v->chat->n_insns; i++) v->states[i].stack = UNSEEN;
    for (uint32_t f = 0; f < v->chat->n_functions; f++) {
        v->function = f;
        uint32_t entry = v->chat->functions[f].entry;
        if (v->states[entry].stack != UNSEEN) return bad(v, entry, "two functions share it");
        if (!flow(v, entry, entry, (State){.function = (uint16_t)f}, 0)) return false;
        while (v->n_todo)
            if (!visit(v, v->todo[--v->n_todo])) return false;
    }
    return true;
}

Chat *chat_open(Arena *arena, const void *section, size_t len, Err *e) {
    Chat *c = ARENA_NEW(arena, Chat);
    Verify v = {.chat = c, .e = e};
    uint32_t n_params = 0;
    if (!map_tables(c, &v.consts, &n_params, section, len, e) ||
        !check_tables(c, arena, v.consts, n_params, e))
        return NULL;
    c->stack_max = ARENA_ARRAY(arena, uint32_t, c->n_functions);
    Arena scratch = {0};
    v.states = ARENA_ARRAY(&scratch, State, c->n_insns);
    v.todo = ARENA_ARRAY(&scratch, uint32_t, c->n_insns);
    bool ok = check_code(&v);
    arena_free(&scratch);
    return ok ? c : NULL;
}
