// The chat program: what adallmc makes of a Jinja template and the runtime runs. Little-endian, fixed widths.
//
//     0  +------------------------------+
//        | ChatHeader                   |
//        +------------------------------+
//        | ChatConst[n_consts]          |  16 bytes each
//        +------------------------------+
//        | ChatGlobal[n_globals]        |  16 bytes each: variables of the template as a whole
//        +------------------------------+
//        | ChatFunction[n_functions]    |  24 bytes each; 0 is the template, the others are its macros
//        +------------------------------+
//        | ChatParam[n_params]          |   8 bytes each
//        +------------------------------+
//        | ChatInsn[n_insns]            |  16 bytes each
//        +------------------------------+
//        | strings, UTF-8               |  string_bytes, the end of the section
//        +------------------------------+
//
// A stack machine. Every function has its own locals and its own part of the operand stack, the loop stack
// and the capture stack; at a given instruction their depths are always the same, which the verifier proves.
// Jumps are relative to the instruction that jumps and never backwards except to a FOR_NEXT.
#ifndef ADALLM_TEXT_CHAT_FORMAT_H
#define ADALLM_TEXT_CHAT_FORMAT_H
#include <assert.h>
#include <stdint.h>

#define CHAT_MAGIC "ADACHAT1"

typedef struct {
    char magic[8];
    uint32_t n_consts, n_globals, n_functions, n_params, n_insns, string_bytes;
} ChatHeader;
static_assert(sizeof(ChatHeader) == 32, "tables follow at a multiple of 8");

enum { // what one program may need at most
    CHAT_INSNS_MAX = 1 << 20,
    CHAT_LOCALS_MAX = 1024, // of one function
    CHAT_STACK_MAX = 2560,  // operands of one function
    CHAT_LOOPS_MAX = 24,    // nested in one function
    CHAT_CAPTURES_MAX = 24, // nested in one function
    CHAT_CALLS_MAX = 32,    // macros calling macros
    CHAT_ARGS_MAX = 64      // of one call, by place and by name together
};

typedef struct {
    uint32_t offset, len; // into the strings
} ChatStr;

typedef enum {
    CHAT_UNDEFINED,
    CHAT_NONE,
    CHAT_FALSE,
    CHAT_TRUE,
    CHAT_INT,
    CHAT_REAL,
    CHAT_STRING
} ChatConstKind;
typedef struct {
    uint32_t kind, reserved;
    union {
        int64_t i;
        double real;
        ChatStr s;
    };
} ChatConst;
static_assert(sizeof(ChatConst) == 16, "rows are 16 bytes");

typedef struct {
    ChatStr name;
    uint32_t initial; // constant, until the caller gives a value
    uint32_t reserved;
} ChatGlobal;
static_assert(sizeof(ChatGlobal) == 16, "rows are 16 bytes");

typedef struct {
    ChatStr name;
    uint32_t entry;    // instruction
    uint32_t n_locals; // the first n_params are the arguments
    uint32_t first_param, n_params;
} ChatFunction;
static_assert(sizeof(ChatFunction) == 24, "rows are 24 bytes");

typedef struct {
    ChatStr name;
} ChatParam;
static_assert(sizeof(ChatParam) == 8, "rows are 8 bytes");

//     op        n             arg                            line of the template
//     +---------+-------------+------------------------------+---------------------+----------+
//     | 16 bits | 16 bits     | 32 bits, signed for jumps    | 32 bits             | 32 bits 0|
//     +---------+-------------+------------------------------+---------------------+----------+
// Calls: n = values by place in the low byte, values by name (name and value on the stack) in the high byte.
typedef struct {
    uint16_t op, n;
    int32_t arg;
    uint32_t line, reserved;
} ChatInsn;
static_assert(sizeof(ChatInsn) == 16, "rows are 16 bytes");

typedef enum {
#define OP(name, pops, pushes, what) CHAT_OP_##name,
#include "runtime/text/chat_ops.def"
#undef OP
    CHAT_OPS
} ChatOp;

typedef enum {
#define FILTER(name, text, min, max, params) CHAT_FILTER_##name,
#include "runtime/text/chat_builtins.def"
    CHAT_FILTERS
} ChatFilter;

typedef enum {
#define TEST(name, text, min, max) CHAT_TEST_##name,
#include "runtime/text/chat_builtins.def"
    CHAT_TESTS
} ChatTest;

typedef enum {
#define METHOD(name, text, min, max) CHAT_METHOD_##name,
#include "runtime/text/chat_builtins.def"
    CHAT_METHODS
} ChatMethod;

typedef enum {
#define FUNCTION(name, text, min, max) CHAT_FUNCTION_##name,
#include "runtime/text/chat_builtins.def"
    CHAT_FUNCTIONS
} ChatBuiltin;

typedef enum {
#define LOOP_VAR(name, text) CHAT_LOOP_##name,
#include "runtime/text/chat_builtins.def"
    CHAT_LOOP_VARS
} ChatLoopVar;
#endif
