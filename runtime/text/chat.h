// Chat: the model's chat template, compiled by adallmc to a small program (chat_format.h), checked and run.
// Messages become text in which every byte knows whether the template or the caller wrote it, and then ids in
// which only the template's own control tokens count: what a user types never becomes one.
// A Chat does not change after it is opened: any number of threads may render with one at the same time.
#ifndef ADALLM_TEXT_CHAT_H
#define ADALLM_TEXT_CHAT_H
#include "runtime/base/json.h"
#include "runtime/text/tokenizer.h"

typedef struct Chat Chat;

// Checks every count, index, jump and stack depth of the section, then refers to it: `section` must be
// aligned to 8 bytes and outlive the Chat. NULL and E_TEMPLATE when it is damaged.
Chat *chat_open(Arena *arena, const void *section, size_t len, Err *e);

// What transformers' apply_chat_template takes. Parse with JSON_DUP_LAST; JSON null is the same as NULL.
typedef struct {
    const Json *messages; // list of objects, not empty
    const Json *tools;    // list of objects, or NULL
    const Json *kwargs;   // object or NULL: add_generation_prompt, continue_final_message, enable_thinking,
                          // and whatever else the template reads
} ChatInput;

// Bytes [previous end, end) come from one side.
typedef struct {
    size_t end;
    bool from_input; // messages, tools or kwargs; else written by the template
} ChatRun;

typedef struct {
    Str text; // UTF-8, in the caller's arena
    const ChatRun *runs;
    size_t n_runs; // cover the text, neighbours differ
} ChatText;

// Renders into the arena; takes at most CHAT_STEPS_MAX steps and CHAT_MEMORY_MAX bytes of it. Fails with
// E_CHAT: the template's own words alone when it refuses the messages, else one sentence (with the line of
// the template where the program stopped); or E_LIMIT.
bool chat_render(const Chat *chat, Arena *arena, ChatInput input, ChatText *out, Err *e);
#define CHAT_STEPS_MAX  ((uint64_t)20 << 20)
#define CHAT_MEMORY_MAX ((size_t)512 << 20)

// The control tokens of a tokenizer, ready to be found in text. Refers to the tokenizer.
typedef struct ChatControl ChatControl;
ChatControl *chat_control(Arena *arena, const Tokenizer *tok);

// Appends the ids: control tokens count only where the template wrote all of their bytes; what stands between
// two of them is encoded as one text with special = false.
bool chat_encode(const ChatControl *control, const ChatText *text, Ids *out, Err *e);
#endif
