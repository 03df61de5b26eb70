#include "runtime/grammar/vocab.h"

#include <stdlib.h>

#include "runtime/base/num.h"
#include "runtime/grammar/string_sets.h"
#include "templates/lib/abi.h"

enum { TOKEN_BYTES_MAX = 1024 }; // longer ones are never allowed

static int by_bytes(const void *x, const void *y, void *vocab) {
    uint32_t a = *(const uint32_t *)x, b = *(const uint32_t *)y;
    int order = str_cmp(vocab_bytes(vocab, a), vocab_bytes(vocab, b));
    return order ? order : a < b ? -1 : 1;
}

static size_t common_prefix(Str a, Str b) {
    size_t n = MIN(a.len, b.len), i = 0;
    while (i < n && a.ptr[i] == b.ptr[i]) i++;
    return i;
}

// Ids that have bytes, in byte order.
static uint32_t sort_tokens(GrammarVocab *v, uint32_t *order) {
    uint32_t n = 0;
    for (uint32_t id = 0; id < v->n_vocab; id++)
        if (v->text_at[id + 1] > v->text_at[id]) order[n++] = id;
    qsort_r(order, n, sizeof *order, by_bytes, v);
    return n;
}

static uint32_t count_nodes(const GrammarVocab *v, const uint32_t *order, uint32_t n) {
    uint64_t nodes = 0;
    Str last = {0};
    for (uint32_t i = 0; i < n; i++) {
        Str s = vocab_bytes(v, order[i]);
        nodes += s.len - common_prefix(last, s);
        last = s;
    }
    CHECK(nodes < VOCAB_NONE);
    return (uint32_t)nodes;
}

// Nodes of the path to the token under way are open; a token closes those that it does not go through.
static void build_tree(GrammarVocab *v, const uint32_t *order, uint32_t n) {
    uint32_t *open = xmalloc((v->len_max + 1) * sizeof *open), n_open = 0, node = 0;
    Str last = {0};
    for (uint32_t i = 0; i < n; i++) {
        Str s = vocab_bytes(v, order[i]);
        size_t keep = common_prefix(last, s);
        while (n_open > keep) v->past[open[--n_open]] = node;
        for (size_t k = keep; k < s.len; k++, node++) {
            v->byte[node] = (uint8_t)s.ptr[k];
            v->depth[node] = (uint16_t)(k + 1);
            v->token[node] = VOCAB_NONE;
            open[n_open++] = node;
        }
        uint32_t at = open[s.len - 1];
        v->same[order[i]] = v->token[at];
        v->n_same += v->token[at] != VOCAB_NONE;
        v->token[at] = order[i];
        last = s;
    }
    while (n_open) v->past[open[--n_open]] = node;
    free(open);
}

static void make_tree(GrammarVocab *v) {
    uint32_t *order = xmalloc((v->n_vocab + 1) * sizeof *order), n = sort_tokens(v, order);
    v->n_nodes = count_nodes(v, order, n);
    v->byte = ARENA_ARRAY(&v->arena, uint8_t, v->n_nodes);
    v->depth = ARENA_ARRAY(&v->arena, uint16_t, v->n_nodes);
    v->past = ARENA_ARRAY(&v->arena, uint32_t, v->n_nodes);
    v->token = ARENA_ARRAY(&v->arena, uint32_t, v->n_nodes);
    v->same = ARENA_ARRAY(&v->arena, uint32_t, v->n_vocab);
    build_tree(v, order, n);
    free(order);
}

static void copy_bytes(GrammarVocab *v, const Str *tokens) {
    size_t total = 0;
    v->text_at = ARENA_ARRAY(&v->arena, uint32_t, (size_t)v->n_vocab + 1);
    for (uint32_t id = 0; id < v->n_vocab; id++) {
        size_t len = tokens[id].len <= TOKEN_BYTES_MAX ? tokens[id].len : 0;
        v->len_max = MAX(v->len_max, (uint32_t)len);
        total += len;
        CHECK(total < VOCAB_NONE);
        v->text_at[id + 1] = (uint32_t)total;
    }
    v->text = arena_alloc(&v->arena, total);
    for (uint32_t id = 0; id < v->n_vocab; id++) {
        Str to = vocab_bytes(v, id);
        if (to.len) memcpy(v->text + v->text_at[id], tokens[id].ptr, to.len);
    }
}

GrammarVocab *grammar_vocab_of(const Str *tokens, uint32_t n_vocab, const uint32_t *eos_ids, size_t n_eos) {
    GrammarVocab *v = xmalloc(sizeof *v);
    *v = (GrammarVocab){.n_vocab = n_vocab, .n_words = TOKEN_COLS(n_vocab) / 32};
    v->eos = ARENA_ARRAY(&v->arena, uint32_t, n_eos);
    for (size_t i = 0; i < n_eos; i++)
        if (eos_ids[i] < n_vocab) v->eos[v->n_eos++] = eos_ids[i];
    copy_bytes(v, tokens);
    make_tree(v);
    string_sets_make(v);
    return v;
}

GrammarVocab *grammar_vocab_new(const Tokenizer *tok, uint32_t n_vocab, const uint32_t *eos_ids,
                                size_t n_eos) {
    Str *tokens = xmalloc(((size_t)n_vocab + 1) * sizeof *tokens);
    for (uint32_t id = 0; id < n_vocab; id++) {
        bool text = tokenizer_is_token(tok, id) && !tokenizer_is_special(tok, id);
        tokens[id] = text ? tokenizer_token_bytes(tok, id) : (Str){0};
    }
    for (size_t i = 0; i < n_eos; i++)
        if (eos_ids[i] < n_vocab) tokens[eos_ids[i]] = (Str){0};
    GrammarVocab *v = grammar_vocab_of(tokens, n_vocab, eos_ids, n_eos);
    free(tokens);
    return v;
}

void grammar_vocab_free(GrammarVocab *v) {
    if (!v) return;
    arena_free(&v->arena);
    free(v);
}
