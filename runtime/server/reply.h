// Reply: the answers of one request while they grow, told to the client as its API wants: one document at the
// end, or events as they come. Knows no HTTP: what is to be sent is appended to `out`.
#ifndef ADALLM_SERVER_REPLY_H
#define ADALLM_SERVER_REPLY_H
#include "runtime/engine/engine.h"
#include "runtime/server/answer.h"

typedef struct Reply Reply;

typedef struct {
    StrBuf name, arguments;
    char id[40];
    bool whole;
} ReplyCall;

// A run of parts of one kind, in the order in which they came; of PART_CALL, one call.
typedef struct {
    PartKind kind;             // PART_REASONING, PART_TEXT, PART_CALL
    size_t from, to;           // of `reasoning` or `text`
    uint32_t call;             // of `calls`
    uint32_t first_id, end_id; // of `ids`: those that made the text
} ReplyBlock;

typedef enum { FINISH_NONE, FINISH_STOP, FINISH_LENGTH, FINISH_CALLS } ReplyFinish;

typedef struct {
    Reply *reply;
    Answer answer;
    uint32_t index, prompt; // of all answers; of its prompt
    StrBuf text, reasoning; // all of it, where the reply is gathered
    ReplyCall *calls;       // the same
    uint32_t n_calls;
    ReplyBlock *blocks; // [n_blocks] the same
    uint32_t n_blocks;
    PartKind run_kind; // what `run` is; text and arguments are joined over the tokens of one news
    StrBuf run;
    const int32_t *ids;         // [n_ids] tokens of the answer, a stop id left out; the engine's
    const LogprobRow *logprobs; // [n_ids] or NULL
    uint32_t n_ids, n_told;     // n_told: ids of which events have told
    uint32_t n_tokens;          // for usage: stop id included
    uint32_t text_offset;       // completions: characters before the next token
    uint32_t block;             // messages, responses: index of the open block
    bool open, block_open, cancelled, over, told_prompt;
    PartKind block_kind;
    ReplyFinish finish;
    Str stop_string; // that ended it
    int32_t stop_id; // -1: none but the model's own
} ReplyChoice;

typedef struct {
    uint64_t prompt_tokens, cached_tokens, tokens, reasoning_tokens;
} ReplyUsage;

typedef struct {
    const char *content_type;
    void (*begin)(Reply *r, StrBuf *out); // before anything is known
    void (*part)(Reply *r, ReplyChoice *c, PartKind kind, Str text, StrBuf *out);
    void (*choice_end)(Reply *r, ReplyChoice *c, StrBuf *out);
    void (*end)(Reply *r, StrBuf *out);
    void (*failed)(Reply *r, const ApiError *e, StrBuf *out); // the stream ends with an error
    void (*whole)(Reply *r, StrBuf *out);                     // everything, when it is not streamed
    void (*progress)(Reply *r, ReplyChoice *c, const EngineProgress *p, StrBuf *out); // NULL: never asked for
} ReplyForm;

struct Reply {
    const ApiRequest *req;
    const ApiModel *model;
    const ReplyForm *form;
    char id[48];
    Str request_id; // for errors
    int64_t created;
    ReplyChoice *choices; // [n_choices]
    uint32_t n_choices, n_over;
    bool gathers; // keeps all text: not streamed, or the API repeats it at the end
    StrBuf *out;  // where parts go now
    ReplyUsage usage;
    double prompt_s, predicted_s;             // so far, where the request wants timings
    uint32_t sequence;                        // responses: number of the next event
    const LogprobRow *const *prompt_logprobs; // [n_prompts]; with prompt_logprobs, or echo and logprobs
};

// Everything that is referred to must outlive the reply, which lives in `arena` but for its buffers.
void reply_begin(Reply *r, Arena *arena, const ApiModel *m, const ApiRequest *req, const char *hex_id,
                 Str request_id, int64_t now);
void reply_end(Reply *r); // frees

// Before the first news; nothing for a reply that is not streamed.
void reply_open(Reply *r, StrBuf *out);
// The prompt is so far, before its first token; of a stream that asked for it.
void reply_progress(Reply *r, uint32_t prompt, const EngineProgress *p, StrBuf *out);
// News of choice c. False: the choice has all it wants, cancel it in the engine.
bool reply_news(Reply *r, ReplyChoice *c, const EngineNews *news, StrBuf *out);
static inline bool reply_over(const Reply *r) { return r->n_over == r->n_choices; }
// After all choices are over and usage is set: the last events, or the document.
void reply_close(Reply *r, StrBuf *out);
void reply_failed(Reply *r, const ApiError *e, StrBuf *out); // of a stream

// ---- for the forms ---------------------------------------------------------------------------------------

extern const ReplyForm reply_chat, reply_completions, reply_messages, reply_responses;
const char *reply_finish_name(const ReplyChoice *c); // "stop", "length", "tool_calls"
void reply_key(StrBuf *out, const char *key);        // , "key":
void reply_usage(StrBuf *out, const ReplyUsage *u);  // OpenAI's object
// "usage" of a chunk with news of choice c, where chunks have it.
void reply_usage_so_far(const Reply *r, const ReplyChoice *c, StrBuf *out);
// The last events of chat and completions: the rest of a chunk with usage, whose head the form began where
// the request wants it, and [DONE].
void reply_openai_end(const Reply *r, StrBuf *out);
void reply_openai_failed(Reply *r, const ApiError *e, StrBuf *out); // the same, when it failed
void reply_fingerprint(const Reply *r, StrBuf *out);                // , "system_fingerprint":
// llama-server's, where they were asked for and there are tokens.
void reply_timings(const Reply *r, StrBuf *out);
void reply_prompt_progress(const EngineProgress *p, StrBuf *out); // , "prompt_progress":
void reply_ids(StrBuf *out, const int32_t *ids, uint32_t n);
void reply_call_id(const Reply *r, uint32_t choice, uint32_t call, char out[40]);
void reply_stop_reason(const ReplyChoice *c, StrBuf *out); // the string or id that ended it, or null
// "logprobs" of chat for ids [first, first + n) of the choice: the object.
void reply_chat_logprobs(const ReplyChoice *c, uint32_t first, uint32_t n, StrBuf *out);
// Its list alone.
void reply_token_logprobs(const ReplyChoice *c, uint32_t first, uint32_t n, StrBuf *out);
// , "prompt_logprobs": those of the prompt, by id, where they were asked for.
void reply_prompt_logprobs(const Reply *r, uint32_t prompt, StrBuf *out);
// "logprobs" of completions for the same; echo: behind those of the prompt.
void reply_completion_logprobs(ReplyChoice *c, uint32_t first, uint32_t n, bool echo, StrBuf *out);
#endif
