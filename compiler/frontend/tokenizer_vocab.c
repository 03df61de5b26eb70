// model.vocab, model.merges and added_tokens: every id, spelling and merge is checked here.
#include "compiler/frontend/tokenizer_spec.h"
#include "runtime/base/num.h"

enum {
    SHOW = 80,       // bytes of a spelling quoted in a message
    ERRORS_MAX = 20, // after so many one has seen enough
};
#define SHOWN(s) (int)MIN((s).len, (size_t)SHOW), (s).ptr

// ---- bytes ---------------------------------------------------------------------------------------

// GPT-2's map: printable Latin-1 stands for itself, the other 68 bytes in order for U+0100... Those are 0x00
// to 0x20, 0x7F to 0xA0 and 0xAD.
static int byte_of_char(uint32_t cp) {
    bool plain = (cp >= 0x21 && cp <= 0x7E) || (cp >= 0xA1 && cp <= 0xFF && cp != 0xAD);
    if (cp < 0x100) return plain ? (int)cp : -1;
    if (cp <= 0x120) return (int)(cp - 0x100);
    if (cp <= 0x142) return (int)(cp - 0x121 + 0x7F);
    return cp == 0x143 ? 0xAD : -1;
}

bool byte_level_decode(Str spelling, StrBuf *out) {
    size_t start = out->len;
    for (size_t i = 0; i < spelling.len; i++) {
        uint8_t c = (uint8_t)spelling.ptr[i];
        uint32_t cp = c; // all characters of the map have one or two bytes
        if (c >= 0x80 && (c > 0xDF || i + 1 == spelling.len)) cp = UINT32_MAX;
        if (c >= 0x80 && cp != UINT32_MAX) cp = (c & 0x1Fu) << 6 | (spelling.ptr[++i] & 0x3F);
        int byte = byte_of_char(cp);
        if (byte < 0) {
            out->len = start;
            return false;
        }
        buf_putc(out, (char)byte);
    }
    return true;
}

bool looks_like_byte_token(Str s) { return s.len == 6 && !memcmp(s.ptr, "<0x", 3) && s.ptr[5] == '>'; }

static int hex_digit(char c) {
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
                                  : -1;
}

int byte_token_value(Str s) {
    if (!looks_like_byte_token(s)) return -1;
    int high = hex_digit(s.ptr[3]), low = hex_digit(s.ptr[4]);
    return high < 0 || low < 0 ? -1 : high * 16 + low;
}

// ---- spelling -> id ------------------------------------------------------------------------------

static uint32_t *find_slot(const TokSpec *s, Str spelling) {
    size_t at = tok_slot(tok_mix(str_hash(spelling)), s->table.cap);
    for (;; at = at + 1 == s->table.cap ? 0 : at + 1) { // the table is at most half full
        uint32_t *slot = &s->table.slots[at];
        if (*slot == TOK_NONE || str_eq(s->tokens[*slot].spelling, spelling)) return slot;
    }
}

uint32_t spec_find(const TokSpec *s, Str spelling) { return *find_slot(s, spelling); }

static bool id_ok(const Json *id, uint64_t limit) {
    return json_is(id, JSON_INT) && !id->big && id->i >= 0 && (uint64_t)id->i < limit;
}

static bool add_token(TokSpec *s, const Json *at, uint32_t id, Str spelling) {
    SpecToken *t = &s->tokens[id];
    if (t->spelling.ptr)
        return spec_broken(s, at, "tokens `" STR_FMT "` and `" STR_FMT "` have the same id %u",
                           SHOWN(t->spelling), SHOWN(spelling), id);
    t->spelling = spelling;
    t->flags = TOK_USED;
    *find_slot(s, spelling) = id;
    s->n_ids = MAX(s->n_ids, (size_t)id + 1);
    return true;
}

static bool read_entries(TokSpec *s, const Json *vocab) {
    uint64_t limit = MIN(s->vocab_rows, (uint64_t)TOK_IDS_MAX);
    bool ok = true;
    size_t enough = s->d->n_errors + ERRORS_MAX;
    for (uint32_t i = 0; i < vocab->n && s->d->n_errors < enough; i++) {
        const JsonMember *m = &vocab->members[i];
        if (!id_ok(&m->value, limit)) {
            ok = spec_broken(s, &m->value,
                             "the id of token `" STR_FMT "` must be a whole number from 0 to %lld, for the "
                             "embedding table has %llu rows",
                             SHOWN(m->key), (long long)limit - 1, (unsigned long long)s->vocab_rows);
        } else if (!add_token(s, &m->value, (uint32_t)m->value.i, m->key)) {
            ok = false;
        } else {
            s->tokens[m->value.i].in_vocab = true;
        }
    }
    return ok;
}

// ---- added tokens --------------------------------------------------------------------------------

static bool read_added_flags(TokSpec *s, const Json *entry, SpecToken *t) {
    static const struct {
        const char *key;
        uint8_t flag;
    } flags[] = {{"special", TOK_SPECIAL},
                 {"single_word", TOK_SINGLE_WORD},
                 {"lstrip", TOK_LSTRIP},
                 {"rstrip", TOK_RSTRIP},
                 {"normalized", 0}};
    for (size_t i = 0; i < COUNT_OF(flags); i++) {
        const Json *j = json_get(entry, flags[i].key);
        if (!json_is(j, JSON_BOOL))
            return spec_broken(s, j ? j : entry, "an added token needs \"%s\" as true or false",
                               flags[i].key);
        if (j->boolean) t->flags |= flags[i].flag;
        if (j->boolean && !flags[i].flag) t->normalized = true;
    }
    return true;
}

// NFC leaves text below U+0300 alone; anything above might be another text after it.
static bool survives_nfc(Str s) {
    for (size_t i = 0; i < s.len; i++)
        if ((uint8_t)s.ptr[i] >= 0xCC) return false;
    return true;
}

static bool read_added(TokSpec *s, const Json *entry, uint64_t limit) {
    if (entry->kind != JSON_OBJECT)
        return spec_broken(s, entry, "an added token must be an object, not %s", json_kind_name(entry->kind));
    const Json *id = json_get(entry, "id"), *content = json_get(entry, "content");
    if (!json_is(content, JSON_STRING) || !content->s.len)
        return spec_broken(s, content ? content : entry,
                           "an added token needs \"content\", which is not empty");
    if (!id_ok(id, limit))
        return spec_broken(s, id ? id : entry,
                           "the id of added token `" STR_FMT "` must be a whole number from 0 to %llu",
                           SHOWN(content->s), (unsigned long long)limit - 1);
    uint32_t known = spec_find(s, content->s);
    if (known == TOK_NONE && !add_token(s, id, (uint32_t)id->i, content->s)) return false;
    if (known != TOK_NONE && known != (uint32_t)id->i)
        return spec_broken(s, id, "added token `" STR_FMT "` has id %lld here and %u before",
                           SHOWN(content->s), (long long)id->i, known);
    SpecToken *t = &s->tokens[id->i];
    if (t->added) return spec_broken(s, entry, "added token `" STR_FMT "` appears twice", SHOWN(content->s));
    t->added = true;
    if (!read_added_flags(s, entry, t)) return false;
    if (t->normalized && (s->flags & TOK_NFC) && !survives_nfc(content->s))
        return spec_unsupported(s, content,
                                "an added token that is matched after NFC may hold characters below U+0300 "
                                "only");
    return true;
}

static bool read_all_added(TokSpec *s, const Json *added, uint64_t limit) {
    bool ok = true;
    size_t enough = s->d->n_errors + ERRORS_MAX;
    for (uint32_t i = 0; i < added->n && s->d->n_errors < enough; i++)
        ok = read_added(s, &added->items[i], limit) && ok;
    return ok;
}

// ---- bytes of the model --------------------------------------------------------------------------

static bool find_byte_ids(TokSpec *s, const Json *vocab) {
    StrBuf bytes = {0};
    for (size_t i = 0; i < 256; i++) s->byte_ids[i] = TOK_NONE;
    bool ok = true;
    for (uint32_t i = 0; i < vocab->n; i++) {
        Str key = vocab->members[i].key;
        uint32_t id = (uint32_t)vocab->members[i].value.i;
        if (s->kind == TOK_SPACE_MARKED) {
            int value = byte_token_value(key);
            if (looks_like_byte_token(key) && value < 0)
                ok = spec_broken(s, &vocab->members[i].value,
                                 "byte token `" STR_FMT "` must be <0xHH> with two hexadecimal digits",
                                 SHOWN(key));
            if (value < 0) continue;
            s->tokens[id].flags |= TOK_BYTE;
            bool upper = key.ptr[3] < 'a' && key.ptr[4] < 'a';
            if (upper) s->byte_ids[value] = id; // the lower-case spelling only decodes
        } else if (key.len <= 2) {
            bytes.len = 0;
            if (byte_level_decode(key, &bytes) && bytes.len == 1) s->byte_ids[(uint8_t)bytes.ptr[0]] = id;
        }
    }
    buf_free(&bytes);
    for (unsigned b = 0; ok && b < 256; b++)
        if (s->byte_ids[b] == TOK_NONE)
            ok = spec_broken(s, vocab, "byte 0x%02X has no token: each of the 256 bytes needs one", b);
    return ok;
}

// With all bytes at hand nothing is ever unknown, but a name that leads nowhere is a broken file.
static bool check_unknown(TokSpec *s, const Json *model) {
    const Json *unk = json_get(model, "unk_token");
    if (json_absent(unk)) return true;
    if (unk->kind != JSON_STRING)
        return spec_broken(s, unk, "model.unk_token must be text or null, not %s", json_kind_name(unk->kind));
    return spec_find(s, unk->s) != TOK_NONE ||
           spec_broken(s, unk, "model.unk_token `" STR_FMT "` is no token", SHOWN(unk->s));
}

static void count_id(const Json *id, uint64_t limit, uint64_t *n_ids) {
    if (id_ok(id, limit)) *n_ids = MAX(*n_ids, (uint64_t)id->i + 1);
}

bool tokenizer_read_vocab(TokSpec *s, const Json *root) {
    const Json *model = json_get(root, "model"), *vocab = json_get(model, "vocab");
    const Json *added = json_get(root, "added_tokens");
    static const Json none = {.kind = JSON_ARRAY};
    if (json_absent(added)) added = &none;
    if (!json_is(vocab, JSON_OBJECT))
        return spec_broken(s, vocab ? vocab : model, "model.vocab must be an object of \"token\": id");
    if (added->kind != JSON_ARRAY)
        return spec_broken(s, added, "added_tokens must be a list, not %s", json_kind_name(added->kind));
    uint64_t n = (uint64_t)vocab->n + added->n;
    // A multimodal checkpoint's text model may have fewer rows than its tokenizer has tokens (Gemma 3 270M
    // lacks row 262144): added tokens may stand behind the table, but without gaps.
    uint64_t limit = MIN(MAX(s->vocab_rows, n), (uint64_t)TOK_IDS_MAX), n_ids = 0;
    for (uint32_t i = 0; i < vocab->n; i++) count_id(&vocab->members[i].value, limit, &n_ids);
    for (uint32_t i = 0; i < added->n; i++) count_id(json_get(&added->items[i], "id"), limit, &n_ids);
    s->tokens = ARENA_ARRAY(s->arena, SpecToken, n_ids);
    s->table.cap = n * 2 + 1;
    s->table.slots = ARENA_ARRAY(s->arena, uint32_t, s->table.cap);
    memset(s->table.slots, 0xFF, s->table.cap * sizeof *s->table.slots);
    return read_entries(s, vocab) && find_byte_ids(s, vocab) && read_all_added(s, added, limit) &&
           check_unknown(s, model);
}

// ---- merges --------------------------------------------------------------------------------------

static bool split_merge(TokSpec *s, const Json *item, Str part[2]) {
    if (item->kind == JSON_ARRAY && item->n == 2 && json_is(&item->items[0], JSON_STRING) &&
        json_is(&item->items[1], JSON_STRING)) {
        part[0] = item->items[0].s, part[1] = item->items[1].s;
    } else if (item->kind == JSON_STRING) {
        const char *space = memchr(item->s.ptr, ' ', item->s.len);
        size_t at = space ? (size_t)(space - item->s.ptr) : 0;
        if (!space || memchr(space + 1, ' ', item->s.len - at - 1))
            return spec_broken(s, item, "a merge must be two tokens with one space between them");
        part[0] = str_sub(item->s, 0, at), part[1] = str_from(item->s, at + 1);
    } else {
        return spec_broken(s, item, "a merge must be a list of two tokens");
    }
    return (part[0].len && part[1].len) || spec_broken(s, item, "a merge must not hold an empty token");
}

static bool vocab_id(TokSpec *s, const Json *item, Str spelling, uint32_t *id) {
    *id = spec_find(s, spelling);
    return (*id != TOK_NONE && s->tokens[*id].in_vocab) ||
           spec_broken(s, item, "the merge needs `" STR_FMT "`, which is not in the vocabulary",
                       SHOWN(spelling));
}

static bool read_merge(TokSpec *s, const Json *item, StrBuf *whole) {
    Str part[2];
    SpecMerge m;
    if (!split_merge(s, item, part)) return false;
    whole->len = 0;
    buf_str(whole, part[0]);
    buf_str(whole, part[1]);
    if (!vocab_id(s, item, part[0], &m.left) || !vocab_id(s, item, part[1], &m.right) ||
        !vocab_id(s, item, buf_view(whole), &m.id))
        return false;
    s->merges[s->n_merges++] = m;
    return true;
}

bool tokenizer_read_merges(TokSpec *s, const Json *root) {
    const Json *model = json_get(root, "model"), *merges = json_get(model, "merges");
    if (!json_is(merges, JSON_ARRAY))
        return spec_broken(s, merges ? merges : model, "model.merges must be a list of pairs of tokens");
    s->merges = ARENA_ARRAY(s->arena, SpecMerge, merges->n);
    StrBuf whole = {0};
    bool ok = true;
    size_t enough = s->d->n_errors + ERRORS_MAX;
    for (uint32_t i = 0; i < merges->n && s->d->n_errors < enough; i++) {
        const Json *item = &merges->items[i];
        if (item->kind == JSON_STRING && str_starts(item->s, STR("#version")))
            continue; // first line of merges.txt
        ok = read_merge(s, item, &whole) && ok;
    }
    buf_free(&whole);
    return ok;
}
