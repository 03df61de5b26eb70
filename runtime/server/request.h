// ApiRequest: what a client wants, whichever API it speaks: prompts as ids, one way of sampling, and how the
// answer is to be told. Made from JSON by the *_request.c files; nothing here knows HTTP.
#ifndef ADALLM_SERVER_REQUEST_H
#define ADALLM_SERVER_REQUEST_H
#include "runtime/base/json.h"
#include "runtime/engine/sampling.h"
#include "runtime/server/api_error.h"
#include "runtime/text/chat.h"

enum { // limits of one request; --help and the errors name them
    API_CHOICES_MAX = 64,
    API_PROMPTS_MAX = 64,
    API_MESSAGES_MAX = 4096,
    API_TOOLS_MAX = 128,
    API_STOPS_MAX = 16,
    API_STOP_BYTES_MAX = 256,
    API_JSON_DEPTH = 64,
    API_JSON_NODES = 400000, // a prompt of ids has one node an id
};

// The model behind the server. Does not change while it serves.
typedef struct {
    Str name;         // first of the served names
    const Str *names; // [n_names]
    uint32_t n_names;
    const Tokenizer *tok;
    const Chat *chat; // NULL: the artifact has none
    const ChatControl *control;
    uint32_t vocab;   // ids below it can be run
    uint32_t context; // tokens of prompt and answer
    const int32_t *eos_ids;
    uint32_t n_eos_ids;
    bool has_tools, has_thinking; // its template knows tools, <think>
    Sampling defaults;            // of a request that says nothing
    uint32_t n_max;               // choices of one request
    int64_t created;              // Unix seconds
    const char *fingerprint;      // of program and artifact: equal ones answer equal seeds alike; NULL: none
} ApiModel;

// Finds out has_tools and has_thinking from what the template does with a probe. Needs tok and chat.
void api_model_probe(ApiModel *m);

typedef enum { API_CHAT, API_COMPLETIONS, API_MESSAGES, API_RESPONSES } ApiKind;
typedef enum { TOOLS_NONE, TOOLS_AUTO, TOOLS_REQUIRED, TOOLS_NAMED } ToolChoice;
typedef enum {
    FORMAT_TEXT,
    FORMAT_JSON_OBJECT,
    FORMAT_JSON_SCHEMA,
    FORMAT_REGEX,
    FORMAT_CHOICE,
    FORMAT_GRAMMAR
} FormatKind;

typedef struct {
    Str name;
    const Json *parameters; // schema; NULL: any object
    bool strict;
} ApiTool;

typedef struct {
    FormatKind kind;
    const Json *schema; // or the list of choices
    Str text;           // regex, grammar
    const char *param;  // the field it came from
    bool strict;
} ApiFormat;

typedef struct {
    Str text; // what was rendered or given; empty for ids
    const uint32_t *ids;
    uint32_t n;
} ApiPrompt;

typedef struct {
    ApiKind kind;
    Str model; // as the client named it
    ApiPrompt *prompts;
    uint32_t n_prompts, n;  // answers: n for each prompt, prompt-major
    uint32_t max_tokens;    // 0: only the prompt is wanted
    Sampling sampling;      // bias in the arena; the seed of answer i of a prompt is seed + i
    const int32_t *eos_ids; // of the model and of stop_token_ids; none with ignore_eos
    uint32_t n_eos_ids, n_model_eos;
    const Str *stops;
    uint32_t n_stops;
    Str cache_salt, user_id;
    int32_t priority;
    bool stream, include_usage, usage_in_each, include_stop, skip_special, echo, return_ids, prompt_logprobs;
    bool ids_as_tokens;  // log probabilities name ids, not texts
    uint32_t prompt_top; // with prompt_logprobs
    uint32_t cut;        // tokens that are left of a longer prompt; 0: all; UINT32_MAX: what fits
    bool cut_end;        // its end goes, not its begin
    bool has_seed, timings, progress, hide_reasoning; // progress: of prompts, in a stream
    // chat
    const Json *messages, *tools_json, *kwargs; // what the template gets
    const ApiTool *tools;
    uint32_t n_tools;
    ToolChoice tool_choice;
    const ApiTool *tool; // TOOLS_NAMED
    bool parallel_tools;
    bool thinks;      // <think> may come
    bool in_thinking; // the prompt opened it
    Str echoed;       // the message that is continued, to be told again
    ApiFormat format;
    // for metrics: fields that no API of ours knows
    const Str *unknown;
    uint32_t n_unknown;
} ApiRequest;

// Each fills *r from a parsed body, everything in `arena`. False: *e says which field is wrong.
bool chat_request(const ApiModel *m, Arena *arena, const Json *body, ApiRequest *r, ApiError *e);
bool completion_request(const ApiModel *m, Arena *arena, const Json *body, ApiRequest *r, ApiError *e);
bool messages_request(const ApiModel *m, Arena *arena, const Json *body, ApiRequest *r, ApiError *e);
bool responses_request(const ApiModel *m, Arena *arena, const Json *body, ApiRequest *r, ApiError *e);

// The prompt of messages_request or chat_request alone, to be counted: max_tokens and the like may be
// missing.
bool count_request(const ApiModel *m, Arena *arena, const Json *body, ApiRequest *r, ApiError *e);
bool count_chat(const ApiModel *m, Arena *arena, const Json *body, ApiRequest *r, ApiError *e);

// Bytes of a body to a tree, with the limits above. Refuses what no client means: doubled keys, NUL, lone
// surrogates, broken UTF-8.
const Json *api_parse_body(Arena *arena, Str body, ApiError *e);

// ---- parts that the *_request.c files share ---------------------------------------------------------------

bool request_model(const ApiModel *m, const Json *body, ApiRequest *r, ApiError *e); // 404 for another model
// Everything that says how to sample; r->sampling begins with the model's defaults.
bool request_sampling(const ApiModel *m, Arena *a, const Json *body, ApiRequest *r, ApiError *e);
bool request_bias(const ApiModel *m, Arena *a, const Json *body, Sampling *s, ApiError *e);
bool request_stream(const Json *body, ApiRequest *r, ApiError *e);
// What llama-server tells of its work, on demand; after request_stream.
bool request_telemetry(const Json *body, ApiRequest *r, ApiError *e);
// prompt_logprobs, truncate_prompt_tokens; after request_stream.
bool request_prompt(const Json *body, ApiRequest *r, ApiError *e);
// Shortens a prompt as r->cut says, so that max_tokens fit.
void request_cut(const ApiModel *m, const ApiRequest *r, uint32_t max_tokens, ApiPrompt *p);
bool request_stops(Arena *a, const Json *body, const char *name, ApiRequest *r, ApiError *e);
bool request_format(Arena *a, const Json *body, ApiRequest *r, ApiError *e);
// Fields that are known and do nothing here: neutral values pass, others are refused.
bool request_neutral(const Json *body, ApiError *e);
void request_unknown(Arena *a, const Json *body, ApiKind kind, ApiRequest *r);

// Messages of the OpenAI chat API as the template wants them, and the tools.
bool request_chat_messages(Arena *a, const Json *messages, const char *name, const Json **out, ApiError *e);
bool request_tools(const ApiModel *m, Arena *a, const Json *tools, ApiRequest *r, ApiError *e);
bool request_tool_choice(const Json *body, ApiRequest *r, ApiError *e);
// Text of a content: a string, null, or parts of text.
bool request_content(Arena *a, const Json *content, const char *name, Str *out, ApiError *e);
// Renders, encodes, and sets prompts, thinks, in_thinking. max_tokens: what the client wants;
// UINT32_MAX: all that is left. `param` is blamed for a prompt that is too long.
bool request_render(const ApiModel *m, Arena *a, ApiRequest *r, uint32_t max_tokens, const char *param,
                    ApiError *e);
// The same for a prompt that the client rendered and encoded.
bool request_rendered(const ApiModel *m, Arena *a, const Json *ids, ApiRequest *r, uint32_t max_tokens,
                      const char *param, ApiError *e);
bool request_fit(const ApiModel *m, uint32_t n_prompt, uint32_t max_tokens, const char *param, uint32_t *out,
                 ApiError *e);
bool request_ids(const ApiModel *m, Arena *a, const Json *list, const char *name, ApiPrompt *out,
                 ApiError *e);
#endif
