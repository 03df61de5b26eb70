// Session: one artifact that answers one caller: prompt in, streamed text out, and what a conversation keeps.
#ifndef ADALLM_VERBS_RUN_SESSION_H
#define ADALLM_VERBS_RUN_SESSION_H
#include "runtime/engine/batch.h"
#include "runtime/text/chat.h"
#include "runtime/verbs/open.h"

typedef struct {
    Sampling sampling;
    uint32_t max_tokens; // 0: until the model ends or the context is full
    bool ignore_eos;
    bool chat;
    RunOptions run;
} SessionOptions;

typedef struct {
    SessionOptions options;
    Opened opened;
    Tokenizer *tok;
    Chat *chat;
    ChatControl *control;
    Exec *exec;
    Batch *batch;
    StrBuf history; // chat: JSON messages, each followed by a comma; else the text so far
} Session;

typedef struct {
    uint32_t prompt_tokens, reused_tokens, new_tokens;
    double prompt_s, new_s; // to the first token; from there to the last
} SessionStats;

// Opens what `o->opened` (already open) holds for running. On failure session_close frees what was opened.
bool session_open(Session *s, Err *e);
void session_close(Session *s);

// A turn of the conversation, to come before the next answer. role: "system", "user"; ignored without chat.
// False when the text is not UTF-8.
bool session_say(Session *s, const char *role, Str text, Err *e);
// Answers what was said, streaming to stdout, and remembers the answer. An interrupt ends it early.
bool session_answer(Session *s, SessionStats *stats, Err *e);

// SIGINT from now on ends an answer, not the process.
void session_catch_interrupts(void);
bool session_interrupted(void); // since the last answer began
#endif
