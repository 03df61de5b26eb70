// Texts of a constraint, read byte by byte: what the unit tests of runtime/grammar share.
#ifndef ADALLM_TESTS_GRAMMAR_TEXTS_H
#define ADALLM_TESTS_GRAMMAR_TEXTS_H
#include "tests/unit/unit.h"

#include <stdlib.h>
#include <string.h>

#include "runtime/grammar/grammar.h"

enum { BYTES_EOS = 256, BYTES_VOCAB = 257 };

// A vocabulary of all bytes and an eos.
static inline GrammarVocab *bytes_vocab(void) {
    static char bytes[256];
    Str tokens[BYTES_VOCAB] = {0};
    for (uint32_t i = 0; i < 256; i++) {
        bytes[i] = (char)i;
        tokens[i] = (Str){&bytes[i], 1};
    }
    return grammar_vocab_of(tokens, BYTES_VOCAB, (uint32_t[]){BYTES_EOS}, 1);
}

static inline const Json *json_of(Arena *arena, const char *text) {
    Source *src = ARENA_NEW(arena, Source);
    *src = (Source){"schema", str_of(text)};
    Diags d = {.arena = arena};
    const Json *j = json_parse(arena, src, (JsonLimits){0}, &d);
    if (!j) fail_msg("%s: %s", text, diags_first_message(&d));
    return j;
}

static inline Grammar *schema_of(const char *text, Err *e) {
    Arena arena = {0};
    Grammar *g = grammar_from_schema(json_of(&arena, text), e);
    arena_free(&arena);
    return g;
}

static inline bool matches(GrammarMasks *m, const Grammar *g, Str text) {
    GrammarState *s = malloc(sizeof *s);
    grammar_start(m, g, s);
    bool ok = grammar_accept_bytes(m, s, text) && grammar_can_end(s);
    free(s);
    return ok;
}
#endif
