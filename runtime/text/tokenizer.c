#include "runtime/text/tokenizer.h"

#include <stdlib.h>

#include "runtime/base/num.h"
#include "runtime/text/detok.h"
#include "runtime/text/tokenizer_split.h"

void ids_add(Ids *ids, uint32_t id) {
    if (ids->n == ids->cap) {
        ids->cap = MAX(ids->cap * 2, (size_t)64);
        ids->ptr = xrealloc(ids->ptr, ids->cap, sizeof *ids->ptr);
    }
    ids->ptr[ids->n++] = id;
}

void ids_free(Ids *ids) {
    free(ids->ptr);
    *ids = (Ids){0};
}

// ---- opening -------------------------------------------------------------------------------------

static bool broken(Err *e, const char *what) {
    return err_set(e, E_TOKENIZER, "damaged tokenizer section: %s", what);
}

// One array of the section, or NULL with *e filled when it does not lie inside.
static const void *view(const TokHeader *h, TokArray a, size_t element, Err *e) {
    uint64_t bytes;
    if (a.offset % 8 || a.offset < sizeof *h || !u64_mul(a.count, element, &bytes) ||
        !range_inside(a.offset, bytes, h->bytes)) {
        broken(e, "an array lies outside of it");
        return NULL;
    }
    return (const uint8_t *)h + a.offset;
}

static bool ids_inside(const Tokenizer *t, const uint32_t *ids, size_t n, bool none_allowed) {
    uint32_t bad = 0;
    for (size_t i = 0; i < n; i++) bad |= ids[i] >= t->n_ids && !(none_allowed && ids[i] == TOK_NONE);
    return !bad;
}

static bool pieces_inside(const Tokenizer *t, const uint32_t *at, size_t n_at, size_t bytes) {
    if (n_at != (size_t)t->n_ids + 1 || at[0] != 0 || at[t->n_ids] > bytes) return false;
    uint32_t bad = 0;
    for (size_t i = 0; i < t->n_ids; i++) bad |= at[i] > at[i + 1];
    return !bad;
}

// Children lie behind their parent, so that every walk ends.
static bool trie_sound(const Tokenizer *t, const TokNode *nodes, size_t n) {
    for (size_t i = 0; i < n; i++) {
        if (nodes[i].id != TOK_NONE && nodes[i].id >= t->n_ids) return false;
        if (nodes[i].n_children && (nodes[i].n_children > 256 || nodes[i].first_child <= i ||
                                    !range_inside(nodes[i].first_child, nodes[i].n_children, n)))
            return false;
    }
    return true;
}

static bool check_ids(const Tokenizer *t, Err *e) {
    if (t->n_id_flags != t->n_ids) return broken(e, "flags do not match ids");
    if (!pieces_inside(t, t->out_at, t->n_out_at, t->n_out) ||
        !pieces_inside(t, t->text_at, t->n_text_at, t->n_text))
        return broken(e, "token texts overlap its end");
    if (!ids_inside(t, t->vocab_slots, t->n_vocab_slots, true) ||
        !ids_inside(t, t->prefix, t->n_prefix, false) || !ids_inside(t, t->suffix, t->n_suffix, false))
        return broken(e, "an id without a token");
    if (t->n_prefix > TOK_AFFIX_MAX || t->n_suffix > TOK_AFFIX_MAX) return broken(e, "too many added ids");
    if (t->n_byte_ids != 256 || !ids_inside(t, t->byte_ids, 256, false))
        return broken(e, "a byte without a token");
    uint32_t bad = 0;
    for (size_t i = 0; i < t->n_merge_slots; i++)
        bad |= t->merge_slots[i].id >= t->n_ids && t->merge_slots[i].id != TOK_NONE;
    for (size_t i = 0; i < t->n_char_slots; i++)
        bad |= t->char_slots[i].id >= t->n_ids && t->char_slots[i].id != TOK_NONE;
    if (bad) return broken(e, "a merge without a token");
    if (t->n_vocab_slots > UINT32_MAX || t->n_merge_slots > UINT32_MAX || t->n_char_slots > UINT32_MAX)
        return broken(e, "a table is too large");
    if (!trie_sound(t, t->raw, t->n_raw) || !trie_sound(t, t->normed, t->n_normed))
        return broken(e, "added tokens form no tree");
    for (uint32_t i = 0; i < t->n_ids; i++)
        if ((t->id_flags[i] & TOK_BYTE) && tok_out(t, i).len != 1)
            return broken(e, "a byte token without its byte");
    return true;
}

Tokenizer *tokenizer_open(Arena *arena, const void *section, size_t len, Err *e) {
    const TokHeader *h = section;
    if (len < sizeof *h || memcmp(h->magic, TOK_MAGIC, sizeof h->magic) || h->bytes != len) {
        broken(e, "no header");
        return NULL;
    }
    if (h->version != TOK_VERSION) {
        err_set(e, E_ARTIFACT_VERSION, "tokenizer section of version %u; this program reads version %u",
                h->version, TOK_VERSION);
        return NULL;
    }
    if ((h->kind != TOK_BYTE_LEVEL && h->kind != TOK_SPACE_MARKED) || h->pattern >= TOK_N_PATTERNS ||
        h->n_ids > TOK_IDS_MAX || (uintptr_t)section % 8) {
        broken(e, "impossible header");
        return NULL;
    }
    Tokenizer *t = ARENA_NEW(arena, Tokenizer);
    t->kind = h->kind, t->flags = h->flags, t->n_ids = h->n_ids;
#define TOK_ARRAY(name, type)                                                                                \
    if (!(t->name = view(h, h->name, sizeof(type), e))) return NULL;                                         \
    t->n_##name = h->name.count;
    TOK_ARRAYS
#undef TOK_ARRAY
    if (!check_ids(t, e)) return NULL;
    if (t->kind == TOK_BYTE_LEVEL && !(t->pretok = pretok_new(arena, h->pattern, e))) return NULL;
    return t;
}

// ---- asking --------------------------------------------------------------------------------------

size_t tokenizer_size(const Tokenizer *tok) { return tok->n_ids; }

bool tokenizer_is_token(const Tokenizer *tok, uint32_t id) {
    return id < tok->n_ids && (tok->id_flags[id] & TOK_USED);
}

bool tokenizer_is_special(const Tokenizer *tok, uint32_t id) {
    return id < tok->n_ids && (tok->id_flags[id] & TOK_SPECIAL);
}

Str tokenizer_token_bytes(const Tokenizer *tok, uint32_t id) {
    return tokenizer_is_token(tok, id) ? tok_out(tok, id) : (Str){0};
}

uint32_t tok_vocab_find(const Tokenizer *t, Str text) {
    uint64_t at = tok_slot(tok_mix(str_hash(text)), t->n_vocab_slots);
    for (size_t i = 0; i < t->n_vocab_slots; i++) {
        uint32_t id = t->vocab_slots[at];
        if (id == TOK_NONE) break;
        if (str_eq(tok_text(t, id), text)) return id;
        if (++at == t->n_vocab_slots) at = 0;
    }
    return TOK_NONE;
}

uint32_t tokenizer_id_of(const Tokenizer *tok, Str content) {
    uint32_t id = tok_trie_find(tok->raw, tok->n_raw, content);
    if (id == TOK_NONE) id = tok_trie_find(tok->normed, tok->n_normed, content);
    return id == TOK_NONE ? tok_vocab_find(tok, content) : id;
}

void tokenizer_decode(const Tokenizer *tok, const uint32_t *ids, size_t n, bool skip_special, StrBuf *out) {
    Detok d;
    detok_begin(&d, tok, skip_special);
    for (size_t i = 0; i < n; i++) detok_push(&d, ids[i], out);
    detok_flush(&d, out);
    detok_end(&d);
}
