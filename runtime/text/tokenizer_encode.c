// Text to ids: added tokens in raw text, normalisation, added tokens in normalised text, words, merges.
#include <stdlib.h>

#include "runtime/base/num.h"
#include "runtime/text/bpe.h"
#include "runtime/text/nfc.h"
#include "runtime/text/tokenizer_split.h"
#include "runtime/text/tokenizer_utf8.h"

typedef struct {
    const Tokenizer *tok;
    Ids *out;
    Bpe bpe;
    PretokWords words;
    StrBuf normalized;
    TokSplit raw, normed;
} Encoder;

bool tokenizer_check_text(Str text, Err *e) {
    if (text.len > TOKENIZER_TEXT_MAX)
        return err_set(e, E_LIMIT, "text of %zu bytes; at most %zu can be encoded at once", text.len,
                       TOKENIZER_TEXT_MAX);
    for (size_t i = 0; i < text.len;) {
        Utf8 u = utf8_first((const uint8_t *)text.ptr + i, text.len - i);
        if (u.kind != UTF8_OK)
            return err_set(e, E_TEXT, "text is not UTF-8: byte 0x%02X at offset %zu starts no character",
                           (uint8_t)text.ptr[i], i);
        i += u.len;
    }
    return true;
}

static Str mark_spaces(Str text, StrBuf *scratch) {
    const char *space = memchr(text.ptr, ' ', text.len);
    if (!space) return text;
    scratch->len = 0;
    for (size_t i = 0; i < text.len;) {
        space = memchr(text.ptr + i, ' ', text.len - i);
        size_t end = space ? (size_t)(space - text.ptr) : text.len;
        buf_add(scratch, text.ptr + i, end - i);
        if (space) buf_utf8(scratch, TOK_SPACE_MARK);
        i = end + (space != NULL);
    }
    return buf_view(scratch);
}

// Whether some token may hold U+2581 right after cp. Characters that fall apart into bytes are not known well
// enough to tell.
static bool may_join(const Tokenizer *t, uint32_t cp) {
    if (!bpe_knows_char(t, cp)) return true;
    size_t lo = 0, hi = t->n_joins;
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        if (t->joins[mid] == cp) return true;
        if (t->joins[mid] < cp)
            lo = mid + 1;
        else
            hi = mid;
    }
    return false;
}

// The whole piece is one word to the merges. It is cut where no merge can reach across: short words are much
// faster, and the ids are the same.
static void encode_marked(Encoder *enc, Str piece) {
    const Tokenizer *t = enc->tok;
    bool may_cut = bpe_knows_char(t, TOK_SPACE_MARK) && !(t->flags & TOK_IGNORE_MERGES);
    size_t begin = 0;
    uint32_t before = TOK_SPACE_MARK, len;
    for (size_t i = 0; may_cut && i < piece.len; i += len) {
        uint32_t cp = utf8_take((const uint8_t *)piece.ptr + i, &len);
        if (cp == TOK_SPACE_MARK && i > begin && !may_join(t, before)) {
            bpe_word(&enc->bpe, str_sub(piece, begin, i), enc->out);
            begin = i;
        }
        before = cp;
    }
    bpe_word(&enc->bpe, str_from(piece, begin), enc->out);
}

static bool encode_piece(Encoder *enc, Str piece, Err *e) {
    if (enc->tok->kind == TOK_SPACE_MARKED) {
        encode_marked(enc, piece);
        return true;
    }
    pretok_text(&enc->words, piece);
    Str word;
    while (pretok_next(&enc->words, &word, e)) bpe_word(&enc->bpe, word, enc->out);
    return enc->words.at == piece.len;
}

static bool encode_raw_piece(Encoder *enc, Str piece, Err *e) {
    Str text = piece;
    if (enc->tok->kind == TOK_SPACE_MARKED) text = mark_spaces(piece, &enc->normalized);
    if (enc->tok->flags & TOK_NFC) text = nfc_normalize(piece, &enc->normalized);
    tok_split_text(&enc->normed, text);
    uint32_t id;
    for (Str part; tok_split_next(&enc->normed, &id, &part);) {
        if (id != TOK_NONE)
            ids_add(enc->out, id);
        else if (!encode_piece(enc, part, e))
            return false;
    }
    return true;
}

static bool encode_all(Encoder *enc, Str text, Err *e) {
    tok_split_text(&enc->raw, text);
    uint32_t id;
    for (Str piece; tok_split_next(&enc->raw, &id, &piece);) {
        if (id != TOK_NONE)
            ids_add(enc->out, id);
        else if (!encode_raw_piece(enc, piece, e))
            return false;
    }
    return true;
}

bool tokenizer_encode(const Tokenizer *tok, Str text, EncodeOptions options, Ids *out, Err *e) {
    if (!tokenizer_check_text(text, e)) return false;
    Encoder enc = {.tok = tok, .out = out};
    if (tok->pretok && !pretok_begin(&enc.words, tok->pretok, e)) return false;
    bpe_begin(&enc.bpe, tok);
    tok_split_begin(&enc.raw, tok, false, options.special);
    tok_split_begin(&enc.normed, tok, true, options.special);
    for (size_t i = 0; options.add_special && i < tok->n_prefix; i++) ids_add(out, tok->prefix[i]);
    bool ok = encode_all(&enc, text, e);
    for (size_t i = 0; options.add_special && i < tok->n_suffix; i++) ids_add(out, tok->suffix[i]);
    bpe_end(&enc.bpe);
    buf_free(&enc.normalized);
    if (tok->pretok) pretok_end(&enc.words);
    return ok;
}
