// A verified chat program, as the machine runs it.
#ifndef ADALLM_TEXT_CHAT_PROGRAM_H
#define ADALLM_TEXT_CHAT_PROGRAM_H
#include "runtime/text/chat.h"
#include "runtime/text/chat_value.h"

struct Chat {
    uint32_t n_consts, n_globals, n_functions, n_insns;
    const ChatGlobal *globals;
    const ChatFunction *functions;
    const ChatParam *params;
    const ChatInsn *insns;
    Str strings;
    Value *consts;       // in the arena
    uint32_t *stack_max; // operands that each function needs
};

static inline Str chat_str(const Chat *c, ChatStr s) {
    return str_sub(c->strings, s.offset, s.offset + s.len);
}

// Runs the program: `globals` [n_globals], V_UNSET for those the caller does not give. The output is `*out`.
bool chat_run(Vm *vm, const Chat *chat, const Value *globals, Text *out);

// Operators (chat_operators.c).
bool chat_binary(Vm *vm, ChatOp op, const Value *a, const Value *b, Value *out); // ADD to NOT_IN
bool chat_negate(Vm *vm, const Value *a, Value *out);
bool chat_slice(Vm *vm, const Value parts[4], Value *out); // x, begin, end, step
#endif
