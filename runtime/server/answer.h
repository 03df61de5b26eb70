// Answer: the tokens of one answer, in; what a client is told, out: reasoning, text, calls of tools, in
// order. Holds back what may still become a mark (<think>, <tool_call>) or a stop string. What comes out does
// not depend on how the tokens cut the text.
#ifndef ADALLM_SERVER_ANSWER_H
#define ADALLM_SERVER_ANSWER_H
#include "runtime/server/request.h"
#include "runtime/server/tool_call.h"
#include "runtime/text/detok.h"
#include "runtime/text/stop.h"

typedef enum { PART_REASONING, PART_TEXT, PART_CALL, PART_ARGUMENTS, PART_CALL_END } PartKind;

// PART_CALL: text is the function's name. PART_CALL_END: the arguments are whole and valid.
typedef struct {
    PartKind kind;
    Str text; // UTF-8; whole characters; until the sink returns
} AnswerPart;
typedef void AnswerSink(void *ctx, const AnswerPart *part);

typedef struct {
    const ApiRequest *req;
    AnswerSink *sink;
    void *ctx;
    Detok detok;
    Stop stop;
    ToolCall call;
    StrBuf piece, passed, held, spaces, fragment;
    uint8_t phase;
    bool splits_tools, stopped, skip_space, call_bad, one_call_made;
    uint32_t n_calls, n_reasoning_tokens, n_tokens;
    uint32_t text_from; // tokens before the text that is told now or next
} Answer;

// req and tok must outlive it.
void answer_begin(Answer *a, const ApiRequest *req, const Tokenizer *tok, AnswerSink *sink, void *ctx);
// False once a stop string was met, or the one call that was allowed is complete: later tokens do not count.
bool answer_push(Answer *a, uint32_t id);
void answer_finish(Answer *a);           // the model ended: what was held back comes out
void answer_end(Answer *a);              // frees
bool answer_made_calls(const Answer *a); // at least one, and all of them whole
#endif
