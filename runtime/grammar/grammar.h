// Structured output: a JSON schema, a regular expression, a GBNF grammar or a list of choices becomes a
// pushdown automaton over bytes, and the automaton becomes, before every token, a mask of the tokens that may
// follow. Every text that the masks let through is a prefix of a text of the language, and ends where
// grammar_can_end says so.
//
// Threads: a Grammar and a GrammarVocab do not change once made; any number of threads may use them. A
// GrammarMasks (cache and scratch) and a GrammarState belong to one thread at a time.
#ifndef ADALLM_GRAMMAR_GRAMMAR_H
#define ADALLM_GRAMMAR_GRAMMAR_H
#include "runtime/base/json.h"
#include "runtime/text/tokenizer.h"

// ---- compiling -------------------------------------------------------------------------------------------
// A function that compiles returns a heap-owned Grammar (grammar_free), or NULL and
//   E_GRAMMAR  what was given is malformed, unsupported, or matches no text; the message names the place:
//              the JSON pointer of a schema's keyword, the byte of an expression, the line of a grammar
//   E_LIMIT    it is over one of the limits below; the message says which
// Time is bounded by GRAMMAR_WORK_MAX (a count of steps, not of seconds: equal input, equal answer).
enum {
    GRAMMAR_TEXT_MAX = 1 << 20,   // bytes of an expression, a grammar or all choices together
    GRAMMAR_RULES_MAX = 4096,     // rules of a grammar; objects, arrays and unions of a schema
    GRAMMAR_STATES_MAX = 1 << 16, // states of the automaton
    GRAMMAR_NODES_MAX = 1 << 18,  // nodes of one rule before it is made deterministic
    GRAMMAR_NEST_MAX = 64,        // parentheses in parentheses
    GRAMMAR_REPEAT_MAX = 4096,    // {m,n}, minItems, maxItems, minProperties, maxProperties
    GRAMMAR_WORK_MAX = 16000000,  // 0.1 to 0.2 s
};
typedef struct Grammar Grammar;

// A value of the schema (draft 2020-12; schema_keywords.def lists the keywords), as JSON text without leading
// or trailing whitespace. Inside, a place where JSON allows whitespace takes none, one space, or one newline
// and up to 24 spaces or 8 tabs; there is none before `,` and `:` and at most one space behind `:`.
// Properties come in the order of the schema. `root` is the whole schema, the base of "#/..." references; it
// must have been parsed by json_parse and is not needed afterwards.
Grammar *grammar_from_schema(const Json *root, Err *e);
Grammar *grammar_from_any_object(Err *e); // any JSON object: response_format json_object
// The whole text matches (RE2's syntax, without flags and assertions other than ^ and $ at the ends).
Grammar *grammar_from_regex(Str pattern, Err *e);
Grammar *grammar_from_gbnf(Str text, Err *e); // llama.cpp's GBNF; the rule `root` is the text
Grammar *grammar_from_choice(const Str *choices, size_t n, Err *e);

// `begin`, a value of the schema, `end`: the call of a tool. With these and `between`, the text is 1 to
// n_most of them in any order: tool_choice required, and, with one of them and n_most 1, a named tool.
// schema NULL: any JSON object.
typedef struct {
    Str begin, end;
    const Json *schema;
} GrammarCall;
Grammar *grammar_from_calls(const GrammarCall *calls, size_t n, Str between, uint32_t n_most, Err *e);

void grammar_free(Grammar *g);
size_t grammar_bytes(const Grammar *g); // memory it holds, for a bounded cache of grammars

// ---- vocabulary ------------------------------------------------------------------------------------------
// The tokens of a tokenizer as a prefix tree. Once per tokenizer: 0.1 to 0.3 s, 7 to 13 MiB. Control tokens
// and tokens without bytes are never allowed, but for the eos ids where the text may end. Ids >= n_vocab
// (the rows of the model's logits) do not exist. Bytes are copied: the tokenizer may go.
typedef struct GrammarVocab GrammarVocab;
GrammarVocab *grammar_vocab_new(const Tokenizer *tok, uint32_t n_vocab, const uint32_t *eos_ids,
                                size_t n_eos);
// The same from bytes: tokens[id] of n_vocab; an empty one is no token.
GrammarVocab *grammar_vocab_of(const Str *tokens, uint32_t n_vocab, const uint32_t *eos_ids, size_t n_eos);
void grammar_vocab_free(GrammarVocab *v);

// ---- where a text stands ---------------------------------------------------------------------------------
// Plain data of a bounded size: as many parses as the text so far has, each with its stack of open rules.
// A text that has more of them than GRAMMAR_CONFIGS_MAX (an ambiguous grammar) keeps the first ones.
enum { GRAMMAR_CONFIGS_MAX = 256, GRAMMAR_FRAMES_MAX = 1024, GRAMMAR_DEPTH_MAX = 200 };
typedef struct {
    uint16_t state, frame; // frame: index into frames, GRAMMAR_NO_FRAME at the bottom
    uint32_t count;        // characters of the string being written
} GrammarConfig;
typedef struct {
    uint16_t parent, state; // where the rule above returns to
    uint16_t depth;         // frames down to the bottom, this one included; at most GRAMMAR_DEPTH_MAX
} GrammarFrame;
enum { GRAMMAR_NO_FRAME = 0xFFFF };

typedef struct {
    const Grammar *grammar; // must outlive the state
    uint16_t n_configs, n_frames;
    bool can_end, ended;
    GrammarConfig configs[GRAMMAR_CONFIGS_MAX];
    GrammarFrame frames[GRAMMAR_FRAMES_MAX];
} GrammarState;

void grammar_copy(GrammarState *to, const GrammarState *from); // copies what is in use, not 8 KiB
static inline bool grammar_can_end(const GrammarState *s) { return s->can_end; }

// ---- masks -----------------------------------------------------------------------------------------------
// Cache of masks, least recently used out first, with the scratch that walking the tree needs. One serves
// all grammars of a vocabulary. bytes_max bounds the cache; the scratch is 2 MiB beside it.
typedef struct GrammarMasks GrammarMasks;
GrammarMasks *grammar_masks_new(const GrammarVocab *v, size_t bytes_max);
void grammar_masks_free(GrammarMasks *m);

void grammar_start(GrammarMasks *m, const Grammar *g, GrammarState *s); // at the empty text

// Bit i % 32 of mask[i / 32] says that token i may follow; mask is uint32[TOKEN_COLS(n_vocab) / 32], the row
// of `token_mask` in templates/lib/abi.h, bits beyond the vocabulary 0. The eos ids are allowed where the
// text may end, alone where nothing else can follow. False, and a mask of zeros: the request has to end.
// Either nothing may follow (after eos), or so many parses at once are open, each with much of the vocabulary
// before it, that the mask would take more than about 0.2 s: only a grammar made for that gets there.
bool grammar_mask(GrammarMasks *m, const GrammarState *s, uint32_t *mask);

// Goes on by one token. False, and an unchanged state: the mask does not have this token. An eos id ends the
// text: nothing can follow then.
bool grammar_accept(GrammarMasks *m, GrammarState *s, uint32_t token);
bool grammar_accept_bytes(GrammarMasks *m, GrammarState *s, Str bytes);

// Bytes that must follow whatever is drawn, up to `cap`, written to `out`; their number. 0 when there is a
// choice, or when the text may end.
size_t grammar_forced(GrammarMasks *m, const GrammarState *s, char *out, size_t cap);

typedef struct {
    uint64_t n_masks, n_hits; // masks asked for; those found in the cache
    size_t bytes;             // held by the cache
} GrammarStats;
GrammarStats grammar_stats(const GrammarMasks *m);
#endif
