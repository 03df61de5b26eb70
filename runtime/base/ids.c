#include "runtime/base/ids.h"

#include "runtime/base/file.h"
#include "runtime/base/num.h"

enum { FILE_BYTES_MAX = 256 << 20, WORD_SHOWN_MAX = 40 };

static bool is_space(char c) { return c == ' ' || c == '\t' || c == ',' || c == '\r'; }

static bool refuse_word(Span at, Str word, uint64_t vocab, Diags *d) {
    uint64_t value;
    int64_t negative;
    int len = (int)MIN(word.len, (size_t)WORD_SHOWN_MAX);
    const char *more = word.len > WORD_SHOWN_MAX ? "..." : "";
    bool digits = str_to_u64(word, &value);
    for (size_t i = 0; !digits && i < word.len; i++) { // a number too long for 64 bits is still a number
        if (word.ptr[i] < '0' || word.ptr[i] > '9') break;
        digits = i + 1 == word.len;
    }
    if (digits)
        return diag_error(d, E_IDS, at, "token id %.*s%s is outside the vocabulary: ids go from 0 to %llu",
                          len, word.ptr, more, (unsigned long long)vocab - 1);
    if (str_to_i64(word, &negative))
        return diag_error(d, E_IDS, at, "token id %.*s is negative: ids go from 0 to %llu", len, word.ptr,
                          (unsigned long long)vocab - 1);
    return diag_error(d, E_IDS, at,
                      "`%.*s%s` is not a token id: write whole numbers, separated by spaces or commas", len,
                      word.ptr, more);
}

// One line [begin, end). Ids go to `ids`, which has room for every second byte of it.
static bool parse_line(IdsFile *f, size_t begin, size_t end, uint64_t vocab, int32_t *ids, uint32_t *n,
                       Diags *d) {
    Str text = f->source.text;
    bool ok = true;
    *n = 0;
    for (size_t i = begin; i < end;) {
        size_t from = i;
        uint64_t id;
        if (is_space(text.ptr[i])) {
            i++;
            continue;
        }
        while (i < end && !is_space(text.ptr[i])) i++;
        Str word = str_sub(text, from, i);
        if (str_to_u64(word, &id) && id < vocab && id <= INT32_MAX)
            ids[(*n)++] = (int32_t)id;
        else
            ok = refuse_word((Span){&f->source, from, i}, word, vocab, d);
    }
    return ok;
}

static size_t line_end(Str text, size_t begin) {
    const char *newline = begin < text.len ? memchr(text.ptr + begin, '\n', text.len - begin) : NULL;
    return newline ? (size_t)(newline - text.ptr) : text.len;
}

bool ids_parse(Arena *a, uint64_t vocab, uint64_t context, IdsFile *out, Diags *d) {
    Str text = out->source.text;
    size_t n_lines = 1, errors_before = d->n_errors;
    for (size_t i = 0; i < text.len; i++) n_lines += text.ptr[i] == '\n';
    out->sequences = ARENA_ARRAY(a, IdSequence, n_lines);
    out->n_sequences = 0, out->n_total = 0;
    int32_t *ids = ARENA_ARRAY(a, int32_t, text.len / 2 + 1);
    for (size_t begin = 0, end; begin < text.len; begin = end + 1) {
        uint32_t n;
        end = line_end(text, begin);
        parse_line(out, begin, end, vocab, ids, &n, d);
        if (!n) continue;
        size_t shown = end - (text.ptr[end - 1] == '\r');
        IdSequence *s = &out->sequences[out->n_sequences++];
        *s = (IdSequence){ids, n, {&out->source, begin, shown}};
        out->n_total += n, ids += n;
        if (n > context)
            diag_error(d, E_CONTEXT, s->at, "this sequence has %u ids, but the context holds %llu", n,
                       (unsigned long long)context);
    }
    if (d->n_errors == errors_before && !out->n_sequences)
        diag_error(d, E_IDS, SPAN_FILE(&out->source), "the file holds no token ids");
    return d->n_errors == errors_before;
}

bool ids_read(Arena *a, const char *path, uint64_t vocab, uint64_t context, IdsFile *out, Diags *d) {
    Err e = {0};
    *out = (IdsFile){.source = {.name = arena_strdup(a, path)}};
    if (!file_read(a, path, FILE_BYTES_MAX, &out->source.text, &e)) return diag_err(d, SPAN_NONE, &e);
    return ids_parse(a, vocab, context, out, d);
}
