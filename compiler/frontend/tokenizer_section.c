// Writes the section: hash tables and tries ready for use, in the layout of runtime/text/tokenizer_format.h.
#include <stdlib.h>

#include "compiler/frontend/tokenizer_pack.h"
#include "compiler/frontend/tokenizer_spec.h"
#include "runtime/base/num.h"
#include "runtime/text/tokenizer_utf8.h"

// Where an array of the header starts; the caller appends its elements and calls array_end.
static void array_begin(StrBuf *out, size_t start) {
    while ((out->len - start) % 8) buf_putc(out, 0);
}

static void put_array(StrBuf *out, size_t start, TokArray *where, const void *elements, size_t n,
                      size_t size) {
    array_begin(out, start);
    *where = (TokArray){.offset = out->len - start, .count = n};
    if (n) buf_add(out, elements, n * size);
}

#define PUT(name, elements, n) put_array(out, start, &h.name, (elements), (n), sizeof *(elements))

// ---- texts ---------------------------------------------------------------------------------------

static void put_unmarked(StrBuf *out, Str s) { // U+2581 is E2 96 81
    for (size_t i = 0; i < s.len; i++) {
        if (str_starts(str_from(s, i), STR("\u2581"))) {
            buf_putc(out, ' ');
            i += 2;
        } else {
            buf_putc(out, s.ptr[i]);
        }
    }
}

// What an id decodes to. The byte level takes a spelling with a character that stands for no byte as it is.
static void put_out(const TokSpec *s, const SpecToken *t, StrBuf *out) {
    if (s->kind == TOK_BYTE_LEVEL) {
        if (!byte_level_decode(t->spelling, out)) buf_str(out, t->spelling);
    } else if (t->flags & TOK_BYTE) {
        buf_putc(out, (char)byte_token_value(t->spelling));
    } else {
        put_unmarked(out, t->spelling);
    }
}

typedef struct {
    uint32_t *at; // [n_ids + 1]
    StrBuf bytes;
} Texts;

static Texts make_texts(const TokSpec *s, bool spellings) {
    Texts t = {.at = ARENA_ARRAY(s->arena, uint32_t, s->n_ids + 1)};
    for (size_t i = 0; i < s->n_ids; i++) {
        if (s->tokens[i].spelling.ptr && spellings) buf_str(&t.bytes, s->tokens[i].spelling);
        if (s->tokens[i].spelling.ptr && !spellings) put_out(s, &s->tokens[i], &t.bytes);
        t.at[i + 1] = (uint32_t)t.bytes.len; // the file is smaller than 512 MiB
    }
    return t;
}

// ---- hash tables ---------------------------------------------------------------------------------

static size_t table_slots(size_t n) { return n + n / 2 + 1; }

// Entries of the vocabulary that words are made of, by text.
static uint32_t *make_vocab_slots(const TokSpec *s, const Texts *texts, size_t *n_slots) {
    StrBuf scratch = {0};
    size_t n = table_slots(s->n_ids);
    uint32_t *slots = ARENA_ARRAY(s->arena, uint32_t, n);
    memset(slots, 0xFF, n * sizeof *slots);
    for (size_t i = 0; i < s->n_ids; i++) {
        if (!s->tokens[i].in_vocab) continue;
        scratch.len = 0;
        // A spelling that is no sequence of bytes is never matched: its text would mean other bytes.
        if (s->kind == TOK_BYTE_LEVEL && !byte_level_decode(s->tokens[i].spelling, &scratch)) continue;
        Str text = {texts->bytes.ptr + texts->at[i], texts->at[i + 1] - texts->at[i]};
        size_t at = tok_slot(tok_mix(str_hash(text)), n);
        while (slots[at] != TOK_NONE) at = at + 1 == n ? 0 : at + 1;
        slots[at] = (uint32_t)i;
    }
    buf_free(&scratch);
    *n_slots = n;
    return slots;
}

static TokMerge *make_merge_slots(const TokSpec *s, size_t *n_slots) {
    size_t n = table_slots(s->n_merges);
    TokMerge *slots = ARENA_ARRAY(s->arena, TokMerge, n);
    for (size_t i = 0; i < n; i++) slots[i].id = TOK_NONE;
    for (size_t i = 0; i < s->n_merges; i++) {
        const SpecMerge *m = &s->merges[i];
        size_t at = tok_slot(tok_merge_hash(m->left, m->right), n);
        while (slots[at].id != TOK_NONE && !(slots[at].left == m->left && slots[at].right == m->right))
            at = at + 1 == n ? 0 : at + 1;
        // Of two equal pairs the later one counts, as in the reference.
        slots[at] = (TokMerge){.left = m->left, .right = m->right, .rank = (uint32_t)i, .id = m->id};
    }
    *n_slots = n;
    return slots;
}

static uint32_t first_char(Str s, uint32_t *len) { // of a spelling that is not empty
    return utf8_take((const uint8_t *)s.ptr, len);
}

static uint32_t last_char(Str s) {
    size_t at = s.len - 1;
    uint32_t len;
    while (at && ((uint8_t)s.ptr[at] & 0xC0) == 0x80) at--;
    return first_char(str_from(s, at), &len);
}

static TokChar *make_char_slots(const TokSpec *s, size_t *n_slots) {
    size_t n_chars = 0;
    uint32_t len;
    for (int pass = 0;; pass++) {
        size_t n = table_slots(n_chars);
        TokChar *slots = ARENA_ARRAY(s->arena, TokChar, n);
        for (size_t i = 0; i < n; i++) slots[i].id = TOK_NONE;
        for (size_t i = 0; i < s->n_ids; i++) {
            if (!s->tokens[i].in_vocab || !s->tokens[i].spelling.len) continue;
            uint32_t cp = first_char(s->tokens[i].spelling, &len);
            if (len != s->tokens[i].spelling.len) continue;
            n_chars++;
            if (!pass) continue;
            size_t at = tok_slot(tok_mix(cp), n);
            while (slots[at].id != TOK_NONE) at = at + 1 == n ? 0 : at + 1;
            slots[at] = (TokChar){.cp = cp, .id = (uint32_t)i};
        }
        *n_slots = n;
        if (pass) return slots;
    }
}

static int compare_u32(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static uint32_t *make_joins(const TokSpec *s, size_t *n) {
    uint32_t *joins = ARENA_ARRAY(s->arena, uint32_t, s->n_merges);
    size_t all = 0, kept = 0;
    uint32_t len;
    for (size_t i = 0; i < s->n_merges; i++)
        if (first_char(s->tokens[s->merges[i].right].spelling, &len) == TOK_SPACE_MARK)
            joins[all++] = last_char(s->tokens[s->merges[i].left].spelling);
    qsort(joins, all, sizeof *joins, compare_u32);
    for (size_t i = 0; i < all; i++)
        if (!kept || joins[kept - 1] != joins[i]) joins[kept++] = joins[i];
    *n = kept;
    return joins;
}

// ---- tries ---------------------------------------------------------------------------------------

typedef struct {
    Str text;
    uint32_t id;
} TriePattern;

static int compare_patterns(const void *a, const void *b) {
    return str_cmp(((const TriePattern *)a)->text, ((const TriePattern *)b)->text);
}

static TriePattern *collect_patterns(const TokSpec *s, bool normalized, size_t *n) {
    TriePattern *p = ARENA_ARRAY(s->arena, TriePattern, s->n_ids);
    *n = 0;
    for (size_t i = 0; i < s->n_ids; i++) {
        const SpecToken *t = &s->tokens[i];
        if (!t->added || t->normalized != normalized) continue;
        StrBuf text = {0};
        for (size_t k = 0; k < t->spelling.len; k++) {
            if (normalized && s->kind == TOK_SPACE_MARKED && t->spelling.ptr[k] == ' ')
                buf_utf8(&text, TOK_SPACE_MARK);
            else
                buf_putc(&text, t->spelling.ptr[k]);
        }
        p[(*n)++] = (TriePattern){str_dup(s->arena, buf_view(&text)), (uint32_t)i};
        buf_free(&text);
    }
    qsort(p, *n, sizeof *p, compare_patterns);
    return p;
}

typedef struct {
    size_t begin, end, depth; // patterns that share the first `depth` bytes
} TrieRange;

// Breadth first over sorted patterns: each node stands for a range of them with a common beginning.
static TokNode *make_trie(const TokSpec *s, bool normalized, size_t *n_nodes) {
    size_t n, total = 1, count = 0;
    TriePattern *p = collect_patterns(s, normalized, &n);
    *n_nodes = 0;
    if (!n) return NULL;
    for (size_t i = 0; i < n; i++) total += p[i].text.len;
    TokNode *nodes = ARENA_ARRAY(s->arena, TokNode, total);
    TrieRange *ranges = ARENA_ARRAY(s->arena, TrieRange, total);
    ranges[count++] = (TrieRange){0, n, 0};
    for (size_t i = 0; i < count; i++) {
        TrieRange r = ranges[i];
        nodes[i].id = TOK_NONE;
        nodes[i].first_child = (uint32_t)count;
        size_t at = r.begin;
        if (p[at].text.len == r.depth) nodes[i].id = p[at].id;
        while (at < r.end && p[at].text.len == r.depth) at++;
        while (at < r.end) {
            size_t from = at;
            uint8_t byte = (uint8_t)p[at].text.ptr[r.depth];
            while (at < r.end && (uint8_t)p[at].text.ptr[r.depth] == byte) at++;
            nodes[count].byte = byte;
            nodes[i].n_children++;
            ranges[count++] = (TrieRange){from, at, r.depth + 1};
        }
        if (!nodes[i].n_children) nodes[i].first_child = 0;
    }
    *n_nodes = count;
    return nodes;
}

// ---- the section ---------------------------------------------------------------------------------

void tokenizer_write_section(const TokSpec *s, StrBuf *out) {
    array_begin(out, 0);
    size_t start = out->len, n;
    TokHeader h = {.version = TOK_VERSION, .kind = s->kind, .flags = s->flags, .pattern = s->pattern};
    memcpy(h.magic, TOK_MAGIC, sizeof h.magic);
    h.n_ids = (uint32_t)s->n_ids;
    buf_add(out, &h, sizeof h); // rewritten below, when the places are known

    uint8_t *flags = ARENA_ARRAY(s->arena, uint8_t, s->n_ids);
    for (size_t i = 0; i < s->n_ids; i++) flags[i] = s->tokens[i].flags;
    PUT(id_flags, flags, s->n_ids);
    Texts outs = make_texts(s, false), texts = outs;
    PUT(out_at, outs.at, s->n_ids + 1);
    PUT(out, outs.bytes.ptr, outs.bytes.len);
    h.text_at = h.out_at, h.text = h.out;
    if (s->kind == TOK_SPACE_MARKED) {
        texts = make_texts(s, true);
        PUT(text_at, texts.at, s->n_ids + 1);
        PUT(text, texts.bytes.ptr, texts.bytes.len);
        buf_free(&outs.bytes);
    }
    uint32_t *vocab = make_vocab_slots(s, &texts, &n);
    PUT(vocab_slots, vocab, n);
    buf_free(&texts.bytes);
    TokMerge *merges = make_merge_slots(s, &n);
    PUT(merge_slots, merges, n);
    PUT(byte_ids, s->byte_ids, 256);
    bool marked = s->kind == TOK_SPACE_MARKED;
    TokChar *chars = marked ? make_char_slots(s, &n) : NULL;
    PUT(char_slots, chars, marked ? n : 0);
    uint32_t *joins = marked ? make_joins(s, &n) : NULL;
    PUT(joins, joins, marked ? n : 0);
    TokNode *raw = make_trie(s, false, &n);
    PUT(raw, raw, n);
    TokNode *normed = make_trie(s, true, &n);
    PUT(normed, normed, n);
    PUT(prefix, s->prefix, s->n_prefix);
    PUT(suffix, s->suffix, s->n_suffix);
    array_begin(out, start);
    h.bytes = out->len - start;
    memcpy(out->ptr + start, &h, sizeof h);
}

uint32_t tokenizer_pack_ids(Str section) {
    TokHeader h;
    CHECK(section.len >= sizeof h);
    memcpy(&h, section.ptr, sizeof h);
    return h.n_ids;
}
