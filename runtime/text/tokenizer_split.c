#include "runtime/text/tokenizer_split.h"

#include "runtime/base/num.h"
#include "runtime/text/tokenizer_utf8.h"

static const TokNode *child(const TokNode *nodes, const TokNode *parent, uint8_t byte) {
    size_t lo = parent->first_child, hi = lo + parent->n_children;
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        if (nodes[mid].byte == byte) return &nodes[mid];
        if (nodes[mid].byte < byte)
            lo = mid + 1;
        else
            hi = mid;
    }
    return NULL;
}

uint32_t tok_trie_find(const TokNode *nodes, size_t n, Str whole) {
    const TokNode *node = n ? nodes : NULL;
    for (size_t i = 0; node && i < whole.len; i++) node = child(nodes, node, (uint8_t)whole.ptr[i]);
    return node ? node->id : TOK_NONE;
}

void tok_split_begin(TokSplit *s, const Tokenizer *tok, bool normalized, bool special) {
    *s = (TokSplit){.tok = tok, .special = special, .pending = TOK_NONE};
    s->nodes = normalized ? tok->normed : tok->raw;
    s->n_nodes = normalized ? tok->n_normed : tok->n_raw;
    for (size_t i = 0; s->n_nodes && i < s->nodes[0].n_children; i++)
        s->first[s->nodes[s->nodes[0].first_child + i].byte] = true;
}

void tok_split_text(TokSplit *s, Str text) { s->text = text, s->at = s->settled = 0, s->pending = TOK_NONE; }

static bool is_boundary(Str text, size_t at) {
    return at == text.len || ((uint8_t)text.ptr[at] & 0xC0) != 0x80;
}

// Longest token at `from`; its length goes to *len. Never cuts a character, whatever the section holds.
static uint32_t longest_at(const TokSplit *s, size_t from, size_t *len) {
    uint32_t id = TOK_NONE;
    const TokNode *node = s->nodes;
    if (!s->first[(uint8_t)s->text.ptr[from]] || !is_boundary(s->text, from)) return id;
    for (size_t i = from; i < s->text.len && (node = child(s->nodes, node, (uint8_t)s->text.ptr[i])); i++)
        if (node->id != TOK_NONE && is_boundary(s->text, i + 1)) id = node->id, *len = i + 1 - from;
    return id;
}

static size_t char_before(Str text, size_t end) { // where the character that ends at `end` > 0 begins
    do end--;
    while (end && ((uint8_t)text.ptr[end] & 0xC0) == 0x80);
    return end;
}

static uint32_t class_at(Str text, size_t at, uint32_t *len) {
    return pretok_class(utf8_take((const uint8_t *)text.ptr + at, len));
}

static bool stands_alone(Str text, size_t begin, size_t end) {
    uint32_t len;
    if (begin && (class_at(text, char_before(text, begin), &len) & CLASS_WORD)) return false;
    return end == text.len || !(class_at(text, end, &len) & CLASS_WORD);
}

static size_t spaces_before(Str text, size_t begin, size_t floor) {
    uint32_t len;
    while (begin > floor) {
        size_t before = char_before(text, begin);
        if (!(class_at(text, before, &len) & CLASS_SPACE)) break;
        begin = before;
    }
    return begin;
}

static size_t spaces_after(Str text, size_t end) {
    uint32_t len;
    while (end < text.len && (class_at(text, end, &len) & CLASS_SPACE)) end += len;
    return end;
}

bool tok_split_next(TokSplit *s, uint32_t *id, Str *piece) {
    if (s->pending != TOK_NONE) {
        *id = s->pending;
        s->pending = TOK_NONE;
        return true;
    }
    while (s->n_nodes && s->at < s->text.len) {
        size_t len = 1, begin = s->at;
        uint32_t found = longest_at(s, begin, &len);
        s->at += len; // a token that is found but does not count still hides those inside it
        if (found == TOK_NONE) continue;
        size_t end = s->at;
        uint8_t flags = s->tok->id_flags[found];
        if ((flags & TOK_SPECIAL) && !s->special) continue;
        if ((flags & TOK_SINGLE_WORD) && !stands_alone(s->text, begin, end)) continue;
        if (flags & TOK_LSTRIP) begin = MAX(spaces_before(s->text, begin, 0), s->settled);
        if (flags & TOK_RSTRIP) end = spaces_after(s->text, end);
        *piece = str_sub(s->text, s->settled, MAX(begin, s->settled));
        s->settled = end;
        *id = found;
        if (!piece->len) return true;
        s->pending = found;
        *id = TOK_NONE;
        return true;
    }
    if (s->settled >= s->text.len) return false;
    *id = TOK_NONE;
    *piece = str_from(s->text, s->settled);
    s->settled = s->text.len;
    return true;
}
