// Values of a running chat program. Text knows, byte by byte, whether the template or the caller wrote it.
// All memory comes from the arena of the call, counted against its limit; functions that can fail return
// false after vm_fail.
#ifndef ADALLM_TEXT_CHAT_VALUE_H
#define ADALLM_TEXT_CHAT_VALUE_H
#include "runtime/base/json.h"
#include "runtime/text/chat_format.h"

enum { FROM_TEMPLATE = 0, FROM_INPUT = 1 };

typedef struct {
    const char *ptr; // UTF-8
    size_t len;
    const uint8_t *marks; // one a byte, or NULL: all bytes are from `origin`
    uint8_t origin;       // FROM_TEMPLATE or FROM_INPUT
} Text;

typedef enum {
    V_UNSET, // a local without a value, an argument that was not given
    V_UNDEFINED,
    V_NONE,
    V_BOOL,
    V_INT,
    V_BIG, // an integer beyond 64 bits: its digits, in text
    V_REAL,
    V_TEXT,
    V_LIST,
    V_DICT,
    V_SPACE // namespace(): a dict that `set` may change
} ValueKind;

typedef struct ChatList ChatList;
typedef struct ChatDict ChatDict;
typedef struct {
    ValueKind kind;
    bool safe; // text that went through `safe`: Markup, which escapes what is added to it
    union {
        bool boolean;
        int64_t i;
        double real;
        Text text;
        ChatList *list;
        ChatDict *dict;
    };
} Value;

// What Python would have: views and iterators run like lists, but cannot be written or indexed, and an
// iterator is true, has no length and is empty after its first use.
typedef enum { SEQ_LIST, SEQ_TUPLE, SEQ_VIEW, SEQ_ITERATOR } SeqKind;

struct ChatList {
    Value *items;
    size_t n, cap;
    SeqKind kind;
    bool used; // an iterator
};

typedef struct {
    Text key;
    Value value;
} ChatPair;

struct ChatDict {
    ChatPair *pairs; // in order of insertion
    size_t n, cap;
};

// The machine as the helpers see it: memory, budget, failure.
typedef struct Vm {
    Arena *arena;
    size_t arena_start; // bytes used before the call
    uint64_t steps_left;
    uint32_t line; // of the template, being run
    bool failed;
    bool own_words; // `error` is what the template said in raise_exception
    ErrCode code;
    Text error;
} Vm;

bool vm_fail(Vm *vm, ErrCode code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));         // always false
bool vm_spend(Vm *vm, uint64_t steps);             // false when the budget is used up
void *vm_alloc(Vm *vm, size_t count, size_t size); // zeroed; NULL after vm_fail

#define V_NULL ((Value){.kind = V_NONE})
static inline Value v_bool(bool b) { return (Value){.kind = V_BOOL, .boolean = b}; }
static inline Value v_int(int64_t i) { return (Value){.kind = V_INT, .i = i}; }
static inline Value v_real(double d) { return (Value){.kind = V_REAL, .real = d}; }
static inline Value v_text(Text t) { return (Value){.kind = V_TEXT, .text = t}; }
static inline Text text_own(const char *s) { return (Text){.ptr = s, .len = strlen(s)}; } // the template's
static inline Str text_str(Text t) { return (Str){t.ptr, t.len}; }
Text text_slice(Text t, size_t begin, size_t end);
bool text_join(Vm *vm, Text a, Text b, Text *out);

// A text that grows.
typedef struct {
    Vm *vm;
    char *ptr;
    uint8_t *marks; // made when the second origin appears
    size_t len, cap;
    uint8_t origin;
} TextBuf;
bool tb_text(TextBuf *b, Text t);
bool tb_bytes(TextBuf *b, const char *s, size_t len, uint8_t origin);
bool tb_puts(TextBuf *b, const char *s); // by the template
Text tb_view(const TextBuf *b);

ChatList *list_new(Vm *vm, size_t cap); // NULL after vm_fail
bool list_add(Vm *vm, ChatList *l, Value v);
static inline bool v_plain(const Value *v) { return v->kind == V_LIST && v->list->kind <= SEQ_TUPLE; }
static inline Value v_list(ChatList *l) { return (Value){.kind = V_LIST, .list = l}; }
ChatDict *dict_new(Vm *vm, size_t cap);
Value *dict_find(Vm *vm, const ChatDict *d, Str key); // NULL: no such key
bool dict_set(Vm *vm, ChatDict *d, Text key, Value v);

bool value_from_json(Vm *vm, const Json *j, Value *out); // NULL gives none
const char *value_kind_name(const Value *v);             // "a string", for messages
bool value_true(const Value *v);
bool value_equal(Vm *vm, const Value *a, const Value *b, bool *out);
// -1, 0, 1; fails for kinds that have no order.
bool value_compare(Vm *vm, const Value *a, const Value *b, int *out);
bool value_is_number(const Value *v);         // also booleans, as in Python
double value_real(const Value *v);            // of a number
bool value_int(const Value *v, int64_t *out); // of an integer or boolean that fits
// What a loop runs over: items of a list, keys of a dict, characters of a string, nothing of undefined.
bool value_items(Vm *vm, const Value *v, ChatList **out);

bool value_str(Vm *vm, const Value *v, Text *out); // Python's str()
bool value_print(TextBuf *b, const Value *v);      // the same, appended
typedef struct {
    int indent; // -1: one line
    Text item_separator, key_separator;
    bool ascii, sort_keys;
} JsonStyle;
bool value_json(TextBuf *b, const Value *v, JsonStyle style); // Python's json.dumps()

// Characters.
size_t utf8_count(Str s);
size_t utf8_step(Str s, size_t at);  // bytes of the character at `at`, at least 1
size_t utf8_back(Str s, size_t end); // where the character before `end` begins
uint32_t utf8_value(Str s, size_t at);
bool utf8_is_space(uint32_t c);                                    // Python's str.isspace
Text text_strip(Text t, const Text *chars, bool left, bool right); // chars NULL: whitespace
#endif
