// The machine: one function an operation, a table of them, a loop. The verifier has proven depths and
// indices; kinds of values are looked at here.
#include "runtime/base/num.h"
#include "runtime/text/chat_builtins.h"
#include "runtime/text/chat_program.h"

typedef struct {
    ChatList *items;
    size_t next; // index of the item behind the current one
} Loop;

typedef struct {
    uint32_t back; // instruction to go on with
    uint32_t function;
    uint32_t first_local, first_loop;
} Frame;

typedef struct {
    Vm *vm;
    const Chat *chat;
    uint32_t pc;
    bool done;
    Value *globals;
    Value *stack; // [stack_cap]
    uint32_t n_stack, stack_cap;
    Value *locals; // [locals_cap]
    uint32_t n_locals, locals_cap;
    Frame frames[CHAT_CALLS_MAX + 1];
    uint32_t n_frames;
    Loop loops[CHAT_LOOPS_MAX * (CHAT_CALLS_MAX + 1)];
    uint32_t n_loops;
    TextBuf outs[(CHAT_CAPTURES_MAX + 1) * (CHAT_CALLS_MAX + 1)];
    uint32_t n_outs;
} Machine;

static void push(Machine *m, Value v) { m->stack[m->n_stack++] = v; }
static Value pop(Machine *m) { return m->stack[--m->n_stack]; }
static Value *top(Machine *m) { return &m->stack[m->n_stack - 1]; }
static Frame *frame(Machine *m) { return &m->frames[m->n_frames - 1]; }
static Value *local(Machine *m, uint32_t slot) { return &m->locals[frame(m)->first_local + slot]; }
static TextBuf *output(Machine *m) { return &m->outs[m->n_outs - 1]; }
static void jump(Machine *m, const ChatInsn *in) { m->pc = (uint32_t)((int64_t)m->pc - 1 + in->arg); }

// What was never set reads as undefined.
static Value readable(Value v) { return v.kind == V_UNSET ? (Value){.kind = V_UNDEFINED} : v; }

#define OPERATION(name) static bool op_##name(Machine *m, const ChatInsn *in)
#define UNUSED_INSN     (void)in

// ---- values --------------------------------------------------------------------------------------

OPERATION(CONST) { return push(m, m->chat->consts[in->arg]), true; }
OPERATION(GLOBAL) { return push(m, readable(m->globals[in->arg])), true; }
OPERATION(SET_GLOBAL) { return m->globals[in->arg] = pop(m), true; }
OPERATION(LOCAL) { return push(m, readable(*local(m, (uint32_t)in->arg))), true; }
OPERATION(SET_LOCAL) { return *local(m, (uint32_t)in->arg) = pop(m), true; }
OPERATION(POP) {
    UNUSED_INSN;
    return pop(m), true;
}

OPERATION(CLEAR) {
    for (uint32_t i = 0; i < in->n; i++) *local(m, (uint32_t)in->arg + i) = (Value){.kind = V_UNSET};
    return vm_spend(m->vm, in->n / 8);
}

static bool make_list(Machine *m, uint32_t n, SeqKind kind) {
    ChatList *l = list_new(m->vm, n);
    if (!l) return false;
    m->n_stack -= n;
    for (uint32_t i = 0; i < n; i++) l->items[l->n++] = m->stack[m->n_stack + i];
    l->kind = kind;
    return push(m, v_list(l)), true;
}

OPERATION(LIST) { return make_list(m, in->n, SEQ_LIST); }
OPERATION(TUPLE) { return make_list(m, in->n, SEQ_TUPLE); }

// n pairs from the stack.
static bool make_dict(Machine *m, uint32_t n, ValueKind kind) {
    ChatDict *d = dict_new(m->vm, n);
    if (!d) return false;
    m->n_stack -= 2 * n;
    for (uint32_t i = 0; i < n; i++) {
        const Value *pair = &m->stack[m->n_stack + 2 * i];
        if (pair->kind != V_TEXT)
            return vm_fail(m->vm, E_CHAT, "a key of a dict must be a string, not %s", value_kind_name(pair));
        if (!dict_set(m->vm, d, pair[0].text, pair[1])) return false;
    }
    return push(m, (Value){.kind = kind, .dict = d}), true;
}

OPERATION(DICT) { return make_dict(m, in->n, V_DICT); }

OPERATION(UNPACK) {
    ChatList *l;
    Value v = pop(m);
    if (!value_items(m->vm, &v, &l)) return false;
    if (l->n != in->n) return vm_fail(m->vm, E_CHAT, "%u names for %zu values", in->n, l->n);
    for (size_t i = l->n; i-- > 0;) push(m, l->items[i]);
    return true;
}

OPERATION(APPEND) {
    UNUSED_INSN;
    Value v = pop(m);
    if (top(m)->kind != V_LIST) return vm_fail(m->vm, E_CHAT, "no list to append to");
    return list_add(m->vm, top(m)->list, v);
}

// ---- operators -----------------------------------------------------------------------------------

static bool binary(Machine *m, const ChatInsn *in) {
    Value b = pop(m), a = pop(m), out = {.kind = V_UNDEFINED};
    if (!chat_binary(m->vm, (ChatOp)in->op, &a, &b, &out)) return false;
    return push(m, out), true;
}

#define BINARY(name)                                                                                         \
    OPERATION(name) { return binary(m, in); }
BINARY(ADD)
BINARY(SUB)
BINARY(MUL)
BINARY(DIV)
BINARY(FLOORDIV)
BINARY(MOD)
BINARY(POW)
BINARY(CONCAT)
BINARY(EQ)
BINARY(NE)
BINARY(LT)
BINARY(LE)
BINARY(GT)
BINARY(GE)
BINARY(IN)
BINARY(NOT_IN)

OPERATION(NOT) {
    UNUSED_INSN;
    return *top(m) = v_bool(!value_true(top(m))), true;
}

OPERATION(NEG) {
    UNUSED_INSN;
    Value v = pop(m), out = {.kind = V_UNDEFINED};
    if (!chat_negate(m->vm, &v, &out)) return false;
    return push(m, out), true;
}

OPERATION(POS) {
    UNUSED_INSN;
    if (!value_is_number(top(m)))
        return vm_fail(m->vm, E_CHAT, "`+` does not work on %s", value_kind_name(top(m)));
    if (top(m)->kind == V_BOOL) *top(m) = v_int(top(m)->boolean);
    return true;
}

// ---- jumps ---------------------------------------------------------------------------------------

OPERATION(JUMP) { return jump(m, in), true; }

OPERATION(JUMP_FALSE) {
    Value v = pop(m);
    if (!value_true(&v)) jump(m, in);
    return true;
}

static bool keep_if(Machine *m, const ChatInsn *in, bool wanted) {
    if (value_true(top(m)) == wanted)
        jump(m, in);
    else
        m->n_stack--;
    return true;
}

OPERATION(AND) { return keep_if(m, in, false); }
OPERATION(OR) { return keep_if(m, in, true); }

OPERATION(JUMP_SET) {
    const Value *v = local(m, in->n);
    if (v->kind == V_UNSET) return true;
    push(m, *v);
    return jump(m, in), true;
}

// ---- parts ---------------------------------------------------------------------------------------

OPERATION(ATTR) {
    Value v = pop(m), out = {.kind = V_UNDEFINED};
    if (!chat_attr(m->vm, &v, m->chat->consts[in->arg].text, &out)) return false;
    return push(m, out), true;
}

OPERATION(ITEM) {
    UNUSED_INSN;
    Value index = pop(m), v = pop(m), out = {.kind = V_UNDEFINED};
    if (!chat_item(m->vm, &v, &index, &out)) return false;
    return push(m, out), true;
}

OPERATION(SLICE) {
    UNUSED_INSN;
    Value out = {.kind = V_UNDEFINED};
    m->n_stack -= 4;
    if (!chat_slice(m->vm, &m->stack[m->n_stack], &out)) return false;
    return push(m, out), true;
}

OPERATION(SET_ATTR) {
    Value v = pop(m), space = pop(m);
    if (space.kind != V_SPACE)
        return vm_fail(m->vm, E_CHAT, "an attribute can be set only of a namespace, not of %s",
                       value_kind_name(&space));
    return dict_set(m->vm, space.dict, m->chat->consts[in->arg].text, v);
}

// ---- calls ---------------------------------------------------------------------------------------

// Place of the parameter `name` among those of a list like "old new count"; -1 when it is not there.
static int param_place(const char *params, Str name) {
    int place = 0;
    for (const char *p = params; *p; place++) {
        size_t len = strcspn(p, " ");
        if (str_eq(name, (Str){p, len})) return place;
        p += len + (p[len] == ' ');
    }
    return -1;
}

// Takes the arguments off the stack and puts them in the order of the parameters.
static bool builtin_args(Machine *m, const ChatInsn *in, const char *params,
                         Value args[CHAT_BUILTIN_ARGS_MAX]) {
    uint32_t by_place = in->n & 0xFF, by_name = in->n >> 8;
    m->n_stack -= by_place + 2 * by_name;
    const Value *given = &m->stack[m->n_stack];
    for (uint32_t i = 0; i < CHAT_BUILTIN_ARGS_MAX; i++)
        args[i] = i < by_place ? given[i] : (Value){.kind = V_UNSET};
    for (uint32_t i = 0; i < by_name; i++) {
        const Value *pair = &given[by_place + 2 * i];
        int place = pair->kind == V_TEXT ? param_place(params, text_str(pair->text)) : -1;
        if (place < 0 || place >= CHAT_BUILTIN_ARGS_MAX || args[place].kind != V_UNSET)
            return vm_fail(m->vm, E_CHAT, "an argument of an unknown name, or twice the same");
        args[place] = pair[1];
    }
    return true;
}

OPERATION(FILTER) {
    Value args[CHAT_BUILTIN_ARGS_MAX], v, out = {.kind = V_UNDEFINED};
    if (!builtin_args(m, in, chat_filter_params[in->arg], args)) return false;
    v = pop(m);
    if (!chat_filter(m->vm, (ChatFilter)in->arg, &v, args, &out)) return false;
    return push(m, readable(out)), true;
}

OPERATION(TEST) {
    Value args[CHAT_BUILTIN_ARGS_MAX], v;
    bool yes;
    if (!builtin_args(m, in, "", args)) return false;
    v = pop(m);
    if (!chat_test(m->vm, (ChatTest)in->arg, &v, &args[0], &yes)) return false;
    return push(m, v_bool(yes)), true;
}

OPERATION(METHOD) {
    Value args[CHAT_BUILTIN_ARGS_MAX], v, out = {.kind = V_UNDEFINED};
    if (!builtin_args(m, in, "", args)) return false;
    v = pop(m);
    if (!chat_method(m->vm, (ChatMethod)in->arg, &v, args, &out)) return false;
    return push(m, readable(out)), true;
}

OPERATION(FUNCTION) {
    Value args[CHAT_BUILTIN_ARGS_MAX], out = {.kind = V_UNDEFINED};
    if (in->arg == CHAT_FUNCTION_NAMESPACE) return make_dict(m, in->n >> 8, V_SPACE);
    if (in->arg == CHAT_FUNCTION_DICT) return make_dict(m, in->n >> 8, V_DICT);
    if (!builtin_args(m, in, "", args) || !chat_function(m->vm, (ChatBuiltin)in->arg, args, &out))
        return false;
    return push(m, out), true;
}

// Room for the operands and locals of a function; both stacks are indexed, so that they may move.
static bool make_room(Machine *m, Value **values, uint32_t *cap, uint32_t used, uint32_t more) {
    if (more <= *cap - used) return true;
    uint32_t want = MAX(*cap * 2, used + more);
    Value *grown = vm_alloc(m->vm, want, sizeof *grown);
    if (!grown) return false;
    if (used) memcpy(grown, *values, used * sizeof *grown);
    *values = grown, *cap = want;
    return true;
}

static bool enter(Machine *m, uint32_t function, uint32_t back) {
    const ChatFunction *f = &m->chat->functions[function];
    if (m->n_frames == COUNT_OF(m->frames))
        return vm_fail(m->vm, E_LIMIT, "macros calling macros over %d deep", CHAT_CALLS_MAX);
    if (!make_room(m, &m->stack, &m->stack_cap, m->n_stack, m->chat->stack_max[function] + 1) ||
        !make_room(m, &m->locals, &m->locals_cap, m->n_locals, f->n_locals))
        return false;
    m->frames[m->n_frames++] = (Frame){back, function, m->n_locals, m->n_loops};
    for (uint32_t i = 0; i < f->n_locals; i++) m->locals[m->n_locals++] = (Value){.kind = V_UNSET};
    m->outs[m->n_outs++] = (TextBuf){.vm = m->vm};
    m->pc = f->entry;
    return vm_spend(m->vm, f->n_locals / 4);
}

static bool bind(Machine *m, const ChatFunction *f, const Value *given, uint32_t by_place, uint32_t by_name) {
    if (by_place > f->n_params)
        return vm_fail(m->vm, E_CHAT, "a macro of %u parameters is given %u", f->n_params, by_place);
    for (uint32_t i = 0; i < by_place; i++) *local(m, i) = given[i];
    for (uint32_t i = 0; i < by_name; i++) {
        const Value *pair = &given[by_place + 2 * i];
        uint32_t p = 0;
        while (p < f->n_params &&
               !(pair->kind == V_TEXT &&
                 str_eq(text_str(pair->text), chat_str(m->chat, m->chat->params[f->first_param + p].name))))
            p++;
        if (p == f->n_params || local(m, p)->kind != V_UNSET)
            return vm_fail(m->vm, E_CHAT,
                           "a macro is given an argument that it does not have, or twice the same");
        *local(m, p) = pair[1];
    }
    return true;
}

OPERATION(CALL) {
    uint32_t by_place = in->n & 0xFF, by_name = in->n >> 8;
    uint32_t first = m->n_stack - by_place - 2 * by_name;
    if (!enter(m, (uint32_t)in->arg, m->pc)) return false;
    if (!bind(m, &m->chat->functions[in->arg], &m->stack[first], by_place, by_name)) return false;
    m->n_stack = first;
    return true;
}

OPERATION(RETURN) {
    UNUSED_INSN;
    if (m->n_frames == 1) return m->done = true;
    m->pc = frame(m)->back;
    m->n_locals = frame(m)->first_local;
    m->n_frames--;
    push(m, v_text(tb_view(&m->outs[--m->n_outs])));
    return true;
}

// ---- output --------------------------------------------------------------------------------------

OPERATION(TEXT) { return tb_text(output(m), m->chat->consts[in->arg].text); }

OPERATION(PRINT) {
    UNUSED_INSN;
    Value v = pop(m);
    return value_print(output(m), &v);
}

OPERATION(CAPTURE) {
    UNUSED_INSN;
    return m->outs[m->n_outs++] = (TextBuf){.vm = m->vm}, true;
}
OPERATION(CAPTURE_END) {
    UNUSED_INSN;
    return push(m, v_text(tb_view(&m->outs[--m->n_outs]))), true;
}

// ---- loops ---------------------------------------------------------------------------------------

OPERATION(FOR) {
    UNUSED_INSN;
    Loop *l = &m->loops[m->n_loops];
    Value v = pop(m);
    *l = (Loop){0};
    if (!value_items(m->vm, &v, &l->items)) return false;
    m->n_loops++;
    return true;
}

OPERATION(FOR_NEXT) {
    Loop *l = &m->loops[m->n_loops - 1];
    if (l->next == l->items->n) return jump(m, in), true;
    push(m, l->items->items[l->next++]);
    return true;
}

OPERATION(FOR_END) {
    UNUSED_INSN;
    return m->n_loops--, true;
}

static Value neighbour(const Loop *l, size_t at) {
    return at < l->items->n ? l->items->items[at] : (Value){.kind = V_UNDEFINED};
}

OPERATION(LOOP_VAR) {
    const Loop *l = &m->loops[frame(m)->first_loop + in->n];
    int64_t at = (int64_t)l->next - 1, n = (int64_t)l->items->n;
    Value v = {.kind = V_UNDEFINED};
    switch ((ChatLoopVar)in->arg) {
    case CHAT_LOOP_INDEX: v = v_int(at + 1); break;
    case CHAT_LOOP_INDEX0: v = v_int(at); break;
    case CHAT_LOOP_REVINDEX: v = v_int(n - at); break;
    case CHAT_LOOP_REVINDEX0: v = v_int(n - at - 1); break;
    case CHAT_LOOP_FIRST: v = v_bool(at == 0); break;
    case CHAT_LOOP_LAST: v = v_bool(at == n - 1); break;
    case CHAT_LOOP_LENGTH: v = v_int(n); break;
    case CHAT_LOOP_PREVITEM: v = neighbour(l, (size_t)at - 1); break;
    case CHAT_LOOP_NEXTITEM: v = neighbour(l, (size_t)at + 1); break;
    case CHAT_LOOP_DEPTH: v = v_int(1); break; // of recursion, which there is none
    case CHAT_LOOP_DEPTH0: v = v_int(0); break;
    case CHAT_LOOP_ITEM: v = neighbour(l, (size_t)at); break;
    case CHAT_LOOP_EMPTY: v = v_bool(l->next == 0); break;
    case CHAT_LOOP_VARS: break;
    }
    return push(m, readable(v)), true;
}

// ---- the loop ------------------------------------------------------------------------------------

static bool (*const operations[])(Machine *m, const ChatInsn *in) = {
#define OP(name, pops, pushes, what) op_##name,
#include "runtime/text/chat_ops.def"
#undef OP
};

bool chat_run(Vm *vm, const Chat *chat, const Value *globals, Text *out) {
    Machine *m = vm_alloc(vm, 1, sizeof *m);
    if (!m || !(m->globals = vm_alloc(vm, chat->n_globals, sizeof *m->globals))) return false;
    m->vm = vm, m->chat = chat;
    for (uint32_t i = 0; i < chat->n_globals; i++)
        m->globals[i] = globals[i].kind != V_UNSET ? globals[i] : chat->consts[chat->globals[i].initial];
    if (!enter(m, 0, 0)) return false;
    while (!m->done) {
        const ChatInsn *in = &chat->insns[m->pc++];
        vm->line = in->line;
        if (!vm_spend(vm, 1) || !operations[in->op](m, in)) return false;
    }
    vm->line = 0;
    *out = tb_view(&m->outs[0]);
    return true;
}
