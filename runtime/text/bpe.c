#include "runtime/text/bpe.h"

#include <stdlib.h>

#include "runtime/base/num.h"
#include "runtime/text/tokenizer_utf8.h"

enum { END = UINT32_MAX };

struct BpeSymbol {
    uint32_t id; // TOK_NONE: merged into its left neighbour
    uint32_t prev, next;
};
struct BpePair {
    uint64_t key; // rank << 32 | index of the left symbol
    uint32_t id;  // what it becomes
};

void bpe_begin(Bpe *b, const Tokenizer *tok) { *b = (Bpe){.tok = tok}; }

void bpe_end(Bpe *b) {
    free(b->symbols);
    free(b->heap);
}

static void reserve(Bpe *b, size_t n) {
    if (n <= b->cap) return;
    b->cap = MAX(n, b->cap * 2);
    b->symbols = xrealloc(b->symbols, b->cap, sizeof *b->symbols);
    b->heap = xrealloc(b->heap, b->cap, 2 * sizeof *b->heap);
}

static void add_symbol(Bpe *b, uint32_t id) {
    uint32_t at = (uint32_t)b->n++;
    b->symbols[at] = (BpeSymbol){.id = id, .prev = at - 1, .next = at + 1}; // prev of the first is END
}

static uint32_t char_id(const Tokenizer *t, uint32_t cp) {
    uint64_t at = tok_slot(tok_mix(cp), t->n_char_slots);
    for (size_t i = 0; i < t->n_char_slots; i++) {
        const TokChar *c = &t->char_slots[at];
        if (c->id == TOK_NONE) break;
        if (c->cp == cp) return c->id;
        if (++at == t->n_char_slots) at = 0;
    }
    return TOK_NONE;
}

bool bpe_knows_char(const Tokenizer *tok, uint32_t cp) { return char_id(tok, cp) != TOK_NONE; }

static void add_bytes(Bpe *b, Str s) {
    for (size_t i = 0; i < s.len; i++) add_symbol(b, b->tok->byte_ids[(uint8_t)s.ptr[i]]);
}

static void add_chars(Bpe *b, Str s) {
    for (size_t i = 0; i < s.len;) {
        uint32_t len;
        uint32_t id = char_id(b->tok, utf8_take((const uint8_t *)s.ptr + i, &len));
        if (id == TOK_NONE)
            add_bytes(b, str_sub(s, i, i + len));
        else
            add_symbol(b, id);
        i += len;
    }
}

static const TokMerge *find_merge(const Tokenizer *t, uint32_t left, uint32_t right) {
    uint64_t at = tok_slot(tok_merge_hash(left, right), t->n_merge_slots);
    for (size_t i = 0; i < t->n_merge_slots; i++) {
        const TokMerge *m = &t->merge_slots[at];
        if (m->id == TOK_NONE) break;
        if (m->left == left && m->right == right) return m;
        if (++at == t->n_merge_slots) at = 0;
    }
    return NULL;
}

static void sift_down(BpePair *heap, size_t n, size_t at) {
    BpePair moving = heap[at];
    for (size_t child; (child = 2 * at + 1) < n; at = child) {
        if (child + 1 < n && heap[child + 1].key < heap[child].key) child++;
        if (heap[child].key >= moving.key) break;
        heap[at] = heap[child];
    }
    heap[at] = moving;
}

static void sift_up(BpePair *heap, size_t at) {
    BpePair moving = heap[at];
    for (size_t parent; at && heap[parent = (at - 1) / 2].key > moving.key; at = parent)
        heap[at] = heap[parent];
    heap[at] = moving;
}

// Appends the pair that starts at symbol `left`, if it merges; the caller restores the heap.
static bool append_pair(Bpe *b, uint32_t left) {
    uint32_t right = b->symbols[left].next;
    if (right == END) return false;
    const TokMerge *m = find_merge(b->tok, b->symbols[left].id, b->symbols[right].id);
    if (!m) return false;
    b->heap[b->n_heap++] = (BpePair){.key = (uint64_t)m->rank << 32 | left, .id = m->id};
    return true;
}

static void push_pair(Bpe *b, uint32_t left) {
    if (append_pair(b, left)) sift_up(b->heap, b->n_heap - 1);
}

// A pair is stale when its left symbol is gone, or the pair there now becomes something else.
static bool is_current(const Bpe *b, BpePair pair) {
    const BpeSymbol *left = &b->symbols[(uint32_t)pair.key];
    if (left->id == TOK_NONE || left->next == END) return false;
    const TokMerge *m = find_merge(b->tok, left->id, b->symbols[left->next].id);
    return m && m->id == pair.id;
}

static void merge(Bpe *b, BpePair pair) {
    uint32_t at = (uint32_t)pair.key;
    BpeSymbol *left = &b->symbols[at], *right = &b->symbols[left->next];
    left->id = pair.id;
    left->next = right->next;
    right->id = TOK_NONE;
    if (left->next != END) b->symbols[left->next].prev = at;
    if (left->prev != END) push_pair(b, left->prev);
    push_pair(b, at);
}

// Each merge takes one pair from the heap and adds two at most, so it never holds more than twice the
// symbols.
static void merge_all(Bpe *b) {
    b->n_heap = 0;
    for (size_t i = 0; i < b->n; i++) append_pair(b, (uint32_t)i);
    for (size_t i = b->n_heap / 2; i-- > 0;) sift_down(b->heap, b->n_heap, i);
    while (b->n_heap) {
        BpePair top = b->heap[0];
        b->heap[0] = b->heap[--b->n_heap];
        if (b->n_heap) sift_down(b->heap, b->n_heap, 0);
        if (is_current(b, top)) merge(b, top);
    }
}

void bpe_word(Bpe *b, Str word, Ids *out) {
    const Tokenizer *t = b->tok;
    if (t->flags & TOK_IGNORE_MERGES) {
        uint32_t id = tok_vocab_find(t, word);
        if (id != TOK_NONE) {
            ids_add(out, id);
            return;
        }
    }
    b->n = 0;
    reserve(b, word.len);
    if (t->kind == TOK_BYTE_LEVEL)
        add_bytes(b, word);
    else
        add_chars(b, word);
    if (!b->n) return;
    b->symbols[b->n - 1].next = END;
    merge_all(b);
    for (uint32_t i = 0; i != END; i = b->symbols[i].next) ids_add(out, b->symbols[i].id);
}
