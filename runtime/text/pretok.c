#define PCRE2_CODE_UNIT_WIDTH 8
#include "runtime/text/pretok.h"

#include <pcre2.h>

#include "runtime/base/num.h"
#include "runtime/text/tokenizer_format.h"
#include "runtime/text/tokenizer_utf8.h"

struct Pretok {
    const pcre2_code *code;
    pcre2_match_context *context;
};

static const struct {
    uint32_t first;
    uint8_t classes;
} class_rows[] = {
#include "runtime/text/pretok_class_table.inc"
};

uint32_t pretok_class(uint32_t cp) {
    size_t lo = 0, hi = COUNT_OF(class_rows); // the row sought lies in [lo, hi)
    while (hi - lo > 1) {
        size_t mid = (lo + hi) / 2;
        if (class_rows[mid].first <= cp)
            lo = mid;
        else
            hi = mid;
    }
    return class_rows[lo].classes;
}

// The byte that stands for a character: of the same class, and one that no pattern names.
static uint8_t stand_in(uint32_t cp) {
    if (cp < 0x80) return (uint8_t)cp;
    uint32_t c = pretok_class(cp);
    if (cp == 0x17F) return 's'; // folds to s, and the patterns fold case
    return c & CLASS_LETTER ? 'a' : c & CLASS_NUMBER ? '0' : c & CLASS_SPACE ? '\t' : 1;
}

// PCRE2 takes its memory from the arena that owns the tokenizer, so nothing needs freeing.
static void *take(PCRE2_SIZE bytes, void *arena) { return arena_alloc(arena, bytes); }
static void keep(void *p, void *arena) { (void)p, (void)arena; }

Pretok *pretok_new(Arena *arena, uint32_t pattern, Err *e) {
    static const char *const patterns[] = {
#define TOK_PATTERN(name, regex) regex,
        TOK_PATTERNS
#undef TOK_PATTERN
    };
    CHECK(pattern < TOK_N_PATTERNS);
    pcre2_general_context *general = pcre2_general_context_create(take, keep, arena);
    pcre2_compile_context *compile = pcre2_compile_context_create(general);
    int error;
    PCRE2_SIZE at;
    Pretok *p = ARENA_NEW(arena, Pretok);
    p->code = pcre2_compile((PCRE2_SPTR)patterns[pattern], PCRE2_ZERO_TERMINATED,
                            PCRE2_NO_START_OPTIMIZE | PCRE2_DOLLAR_ENDONLY, &error, &at, compile);
    if (!p->code) {
        err_set(e, E_SYSTEM, "PCRE2 refuses split pattern %u with its error %d at offset %zu", pattern, error,
                at);
        return NULL;
    }
    p->context = pcre2_match_context_create(general);
    pcre2_set_heap_limit(p->context, 64 << 10); // KiB; these patterns need a few
    // A match takes a few steps a character at most, and a text has at most 2^28 of them.
    pcre2_set_match_limit(p->context, 1u << 30);
    return p;
}

bool pretok_begin(PretokWords *w, const Pretok *pretok, Err *e) {
    *w = (PretokWords){.pretok = pretok, .match = pcre2_match_data_create(1, NULL)};
    return w->match || err_set(e, E_MEMORY, "no memory to cut text into words");
}

void pretok_text(PretokWords *w, Str utf8) {
    w->text = utf8, w->at = w->class_at = 0, w->classes.len = 0;
    buf_reserve(&w->classes, utf8.len);
    for (size_t i = 0; i < utf8.len;) {
        uint32_t len;
        uint32_t cp = utf8_take((const uint8_t *)utf8.ptr + i, &len);
        w->classes.ptr[w->classes.len++] = (char)stand_in(cp);
        i += len;
    }
}

bool pretok_next(PretokWords *w, Str *word, Err *e) {
    if (w->at == w->text.len) return false;
    int n = pcre2_match(w->pretok->code, (PCRE2_SPTR)w->classes.ptr, w->classes.len, w->class_at,
                        PCRE2_NOTEMPTY | PCRE2_ANCHORED, w->match, w->pretok->context);
    if (n < 0) return err_set(e, E_TEXT, "PCRE2 cannot cut the text at byte %zu: its error %d", w->at, n);
    size_t end = pcre2_get_ovector_pointer(w->match)[1], from = w->at;
    for (; w->class_at < end; w->class_at++) {
        uint8_t c = (uint8_t)w->text.ptr[w->at];
        w->at += c < 0x80 ? 1 : c < 0xE0 ? 2 : c < 0xF0 ? 3 : 4;
    }
    *word = str_sub(w->text, from, w->at);
    return true;
}

void pretok_end(PretokWords *w) {
    pcre2_match_data_free(w->match);
    buf_free(&w->classes);
}
