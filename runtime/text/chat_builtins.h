// What templates call: filters, tests, methods, global functions (chat_builtins.def). `args` are in the order
// of their parameters, V_UNSET where none was given; the value they work on is apart.
#ifndef ADALLM_TEXT_CHAT_BUILTINS_H
#define ADALLM_TEXT_CHAT_BUILTINS_H
#include "runtime/text/chat_value.h"

bool chat_filter(Vm *vm, ChatFilter filter, const Value *v, const Value *args, Value *out);
bool chat_test(Vm *vm, ChatTest test, const Value *v, const Value *arg, bool *out);
bool chat_method(Vm *vm, ChatMethod method, const Value *v, const Value *args, Value *out);
bool chat_function(Vm *vm, ChatBuiltin function, const Value *args, Value *out); // not namespace, dict

bool chat_attr(Vm *vm, const Value *v, Text name, Value *out); // x.name, and x["name"] for dicts
bool chat_item(Vm *vm, const Value *v, const Value *index, Value *out);
bool chat_in(Vm *vm, const Value *needle, const Value *hay, bool *out);

// Texts (chat_text.c).
typedef enum { CASE_LOWER, CASE_UPPER, CASE_CAPITAL, CASE_TITLE, CASE_TITLE_FILTER } TextCase;
bool text_case(Vm *vm, Text t, TextCase how, Text *out);
size_t text_find(Str hay, Str needle, size_t from);                                  // hay.len + 1: not there
bool text_replace(Vm *vm, Text t, Text from, Text to, int64_t count, Text *out);     // count < 0: all
bool text_split(Vm *vm, Text t, const Text *separator, int64_t max, ChatList **out); // NULL: at whitespace
bool text_rsplit(Vm *vm, Text t, const Text *separator, int64_t max, ChatList **out);
bool text_lines(Vm *vm, Text t, ChatList **out);
bool text_indent(Vm *vm, Text t, Text by, bool first, bool blank, Text *out);
bool text_items(Vm *vm, Text separator, const ChatList *l, Text *out); // join

extern const uint8_t chat_filter_max[CHAT_FILTERS], chat_filter_min[CHAT_FILTERS];
extern const char *const chat_filter_params[CHAT_FILTERS];
extern const uint8_t chat_test_max[CHAT_TESTS], chat_test_min[CHAT_TESTS];
extern const uint8_t chat_method_max[CHAT_METHODS], chat_method_min[CHAT_METHODS];
extern const uint8_t chat_function_max[CHAT_FUNCTIONS], chat_function_min[CHAT_FUNCTIONS];
enum { CHAT_BUILTIN_ARGS_MAX = 4 }; // parameters of any builtin but namespace and dict
#endif
