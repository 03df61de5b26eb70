#include "runtime/server/rules.h"

#include <pthread.h>
#include <stdlib.h>

#include "runtime/base/num.h"
#include "runtime/grammar/grammar.h"

enum { MASK_CACHE_BYTES = 64 << 20, PARALLEL_CALLS_MAX = 16 };

struct RuleBook {
    const ApiModel *model;
    pthread_mutex_t lock; // of vocab, while it is being made
    GrammarVocab *vocab;
    GrammarMasks *masks; // the engine's thread alone
    uint32_t think_open, think_close;
};

// Where an answer stands towards its rule.
typedef enum { RULE_FIRST, RULE_THINKS, RULE_HOLDS } RulePhase;

typedef struct {
    Rules *rules;
    RulePhase phase;
    GrammarState state;
} RuleChoice;

struct Rules {
    RuleBook *book;
    Grammar *grammar;
    uint32_t n;          // choices of a prompt
    RuleChoice *choices; // [n_prompts * n]
    TokenMask *masks;
    uint32_t refs;
    int32_t *stop_ids; // not drawn while it thinks
    uint32_t n_stop_ids;
};

RuleBook *rule_book_new(const ApiModel *m) {
    RuleBook *b = xmalloc(sizeof *b);
    *b = (RuleBook){.model = m,
                    .think_open = tokenizer_id_of(m->tok, STR("<think>")),
                    .think_close = tokenizer_id_of(m->tok, STR("</think>"))};
    pthread_mutex_init(&b->lock, NULL);
    return b;
}

void rule_book_free(RuleBook *b) {
    if (!b) return;
    grammar_masks_free(b->masks);
    grammar_vocab_free(b->vocab);
    pthread_mutex_destroy(&b->lock);
    free(b);
}

static void need_vocab(RuleBook *b) {
    const ApiModel *m = b->model;
    pthread_mutex_lock(&b->lock);
    if (!b->vocab) {
        b->vocab = grammar_vocab_new(m->tok, m->vocab, (const uint32_t *)m->eos_ids, m->n_eos_ids);
        b->masks = grammar_masks_new(b->vocab, MASK_CACHE_BYTES);
    }
    pthread_mutex_unlock(&b->lock);
}

// ---- compiling -------------------------------------------------------------------------------------------

static Grammar *of_format(const ApiFormat *f, Err *err) {
    switch (f->kind) {
    case FORMAT_JSON_OBJECT: return grammar_from_any_object(err);
    case FORMAT_JSON_SCHEMA: return grammar_from_schema(f->schema, err);
    case FORMAT_REGEX: return grammar_from_regex(f->text, err);
    case FORMAT_GRAMMAR: return grammar_from_gbnf(f->text, err);
    default: break;
    }
    Str *choices = xmalloc(f->schema->n * sizeof *choices);
    for (uint32_t i = 0; i < f->schema->n; i++) choices[i] = f->schema->items[i].s;
    Grammar *g = grammar_from_choice(choices, f->schema->n, err);
    free(choices);
    return g;
}

static Grammar *of_calls(const ApiRequest *r, Err *err) {
    Arena a = {0};
    uint32_t n = r->tool_choice == TOOLS_NAMED ? 1 : r->n_tools;
    const ApiTool *tools = r->tool_choice == TOOLS_NAMED ? r->tool : r->tools;
    GrammarCall *calls = ARENA_ARRAY(&a, GrammarCall, n);
    for (uint32_t i = 0; i < n; i++) {
        char *begin = arena_printf(
            &a, "<tool_call>\n{\"name\": \"" STR_FMT "\", \"arguments\": ", STR_ARG(tools[i].name));
        calls[i] = (GrammarCall){str_of(begin), STR("}\n</tool_call>"), tools[i].parameters};
    }
    bool one = r->tool_choice == TOOLS_NAMED || !r->parallel_tools;
    Grammar *g = grammar_from_calls(calls, n, STR("\n"), one ? 1 : PARALLEL_CALLS_MAX, err);
    arena_free(&a);
    return g;
}

static bool wants_call(const ApiRequest *r) {
    return r->tool_choice == TOOLS_REQUIRED || r->tool_choice == TOOLS_NAMED;
}

static bool check(const ApiRequest *r, const char *param, ApiError *e) {
    if (wants_call(r) && r->format.kind != FORMAT_TEXT)
        return api_invalid(e, param, "`%s` and a `tool_choice` that demands a call exclude each other",
                           param);
    if (!r->n_model_eos)
        return api_invalid(e, "ignore_eos", "`ignore_eos` and `%s` exclude each other: the answer has to end",
                           param);
    return true;
}

static void make_choices(Rules *s, const ApiRequest *r) {
    uint32_t n = r->n_prompts * r->n;
    s->choices = xmalloc(n * sizeof *s->choices);
    s->masks = xmalloc(n * sizeof *s->masks);
    for (uint32_t i = 0; i < n; i++) {
        s->choices[i].rules = s;
        s->choices[i].phase = r->in_thinking ? RULE_THINKS : r->thinks ? RULE_FIRST : RULE_HOLDS;
        s->choices[i].state.grammar = NULL; // begun on the engine's thread
    }
}

// ---- masks: the engine's thread ---------------------------------------------------------------------------

static void begin(RuleChoice *c) {
    if (!c->state.grammar) grammar_start(c->rules->book->masks, c->rules->grammar, &c->state);
}

static void on_accept(void *ctx, int32_t id) {
    RuleChoice *c = ctx;
    const RuleBook *b = c->rules->book;
    if (c->phase == RULE_THINKS) {
        if ((uint32_t)id == b->think_close) c->phase = RULE_HOLDS;
        return;
    }
    if (c->phase == RULE_FIRST && (uint32_t)id == b->think_open) {
        c->phase = RULE_THINKS;
        return;
    }
    c->phase = RULE_HOLDS;
    begin(c);
    grammar_accept(b->masks, &c->state, (uint32_t)id);
}

static void all_but_stops(const Rules *s, uint32_t *words) {
    uint32_t vocab = s->book->model->vocab;
    memset(words, 0, TOKEN_COLS(vocab) / 8);
    memset(words, 0xFF, vocab / 32 * 4);
    for (uint32_t id = vocab / 32 * 32; id < vocab; id++) words[id / 32] |= 1u << id % 32;
    for (uint32_t i = 0; i < s->n_stop_ids; i++) words[s->stop_ids[i] / 32] &= ~(1u << s->stop_ids[i] % 32);
}

static bool on_mask(void *ctx, uint32_t *words) {
    RuleChoice *c = ctx;
    const RuleBook *b = c->rules->book;
    if (c->phase == RULE_THINKS) {
        all_but_stops(c->rules, words);
        return true;
    }
    begin(c);
    grammar_mask(b->masks, &c->state, words);
    if (c->phase == RULE_FIRST && b->think_open < b->model->vocab)
        words[b->think_open / 32] |= 1u << b->think_open % 32;
    return true;
}

// ---- life ------------------------------------------------------------------------------------------------

bool rules_make(RuleBook *b, const ApiRequest *r, Rules **out, ApiError *e) {
    Err err;
    *out = NULL;
    if (r->format.kind == FORMAT_TEXT && !wants_call(r)) return true;
    const char *param = r->format.kind != FORMAT_TEXT ? r->format.param : "tools";
    if (!check(r, param, e)) return false;
    need_vocab(b);
    Grammar *g = wants_call(r) ? of_calls(r, &err) : of_format(&r->format, &err);
    if (!g) return api_invalid(e, param, "`%s`: %s", param, err.msg);
    Rules *s = xmalloc(sizeof *s);
    *s = (Rules){.book = b, .grammar = g, .n = r->n, .refs = 1, .n_stop_ids = r->n_eos_ids};
    s->stop_ids = xmalloc(r->n_eos_ids * sizeof *s->stop_ids);
    memcpy(s->stop_ids, r->eos_ids, r->n_eos_ids * sizeof *s->stop_ids);
    make_choices(s, r);
    for (uint32_t i = 0; i < r->n_prompts * r->n; i++)
        s->masks[i] = (TokenMask){&s->choices[i], on_accept, on_mask};
    *out = s;
    return true;
}

Rules *rules_hold(Rules *r) {
    if (r) r->refs++;
    return r;
}

void rules_drop(Rules *r) {
    if (!r || --r->refs) return;
    free(r->stop_ids);
    grammar_free(r->grammar);
    free(r->choices);
    free(r->masks);
    free(r);
}

const TokenMask *rules_masks(Rules *r, uint32_t prompt) { return &r->masks[prompt * r->n]; }
