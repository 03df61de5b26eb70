// Any bytes as a schema (first byte {), an expression (/) or a grammar (anything else): refused with an
// error, or the masks of a random text are right: they are never empty before the end, and what they allow is
// accepted.
#include <stdlib.h>

#include "runtime/base/num.h"
#include "runtime/grammar/grammar.h"

enum { N_VOCAB = 256 + 8, EOS = N_VOCAB - 1, WORDS = (N_VOCAB + 127) / 128 * 4, STEPS = 24 };

static GrammarMasks *masks;

static void make_masks(void) {
    static const char *const longer[] = {"{\"", "\": ", "\",\"", "ab", "\xC3\xA9", "12", "}]"};
    static char bytes[256];
    Str tokens[N_VOCAB] = {0};
    for (uint32_t i = 0; i < 256; i++) {
        bytes[i] = (char)i;
        tokens[i] = (Str){&bytes[i], 1};
    }
    for (uint32_t i = 0; i < COUNT_OF(longer); i++) tokens[256 + i] = str_of(longer[i]);
    masks = grammar_masks_new(grammar_vocab_of(tokens, N_VOCAB, (uint32_t[]){EOS}, 1), 1 << 18);
}

static Grammar *compile(Str text, Err *e) {
    if (text.len && text.ptr[0] == '/') return grammar_from_regex(str_from(text, 1), e);
    if (!text.len || text.ptr[0] != '{') return grammar_from_gbnf(text, e);
    Arena arena = {0};
    Diags d = {.arena = &arena};
    Source src = {"schema", text};
    const Json *root = json_parse(&arena, &src, (JsonLimits){0}, &d);
    Grammar *g = NULL;
    if (root)
        g = grammar_from_schema(root, e);
    else
        err_set(e, E_JSON, "not JSON");
    arena_free(&arena);
    return g;
}

// Tokens by the bytes of the input, over and over.
static void use(const Grammar *g, Str text) {
    static GrammarState s, copy;
    uint32_t mask[WORDS];
    char forced[16];
    grammar_start(masks, g, &s);
    for (size_t i = 0; i < STEPS; i++) {
        CHECK(grammar_mask(masks, &s, mask));
        size_t n = grammar_forced(masks, &s, forced, sizeof forced);
        grammar_copy(&copy, &s);
        CHECK(grammar_accept_bytes(masks, &copy, (Str){forced, n}));
        uint32_t at = (uint8_t)text.ptr[i % text.len] * 7u + (uint32_t)i, token = N_VOCAB;
        for (uint32_t k = 0; k < N_VOCAB && token == N_VOCAB; k++) {
            uint32_t id = (at + k) % N_VOCAB;
            if (mask[id / 32] >> id % 32 & 1) token = id;
        }
        CHECK(token < N_VOCAB && grammar_accept(masks, &s, token));
        if (token == EOS) return;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    Err e = {0};
    Str text = {(const char *)data, size};
    if (!masks) make_masks();
    Grammar *g = compile(text, &e);
    CHECK(g || e.code != E_NONE);
    if (g) use(g, size ? text : STR("x"));
    grammar_free(g);
    return 0;
}
