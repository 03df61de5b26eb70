// Any bytes as tokenizer.json: packing refuses them with an error, or what it packs opens. Any bytes as a
// packed section: opening refuses them, or they can be used without harm.
#include <stdlib.h>

#include "compiler/frontend/tokenizer_pack.h"
#include "runtime/text/tokenizer.h"
#include "runtime/text/tokenizer_format.h"

static const char text[] = "the  th\u00E9<s> <t> w\u0301\n\nx x1\u4F60";

static bool use(const void *section, size_t len) {
    Arena arena = {0};
    Err e = {0};
    Ids ids = {0};
    StrBuf back = {0};
    Tokenizer *tok = tokenizer_open(&arena, section, len, &e);
    if (tok && tokenizer_encode(tok, STR(text), (EncodeOptions){true, true}, &ids, &e))
        tokenizer_decode(tok, ids.ptr, ids.n, false, &back);
    if (tok) tokenizer_id_of(tok, STR("the"));
    ids_free(&ids);
    buf_free(&back);
    arena_free(&arena);
    return tok != NULL;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size >= 8 && !memcmp(data, TOK_MAGIC, 8)) {
        uint64_t *aligned = xmalloc(size);
        memcpy(aligned, data, size);
        use(aligned, size);
        free(aligned);
        return 0;
    }
    Arena arena = {0};
    Diags d = {.arena = &arena};
    StrBuf section = {0};
    Source src = {"fuzz", {(const char *)data, size}};
    if (tokenizer_pack_json(&arena, &src, NULL, 300, &section, &d))
        CHECK(use(section.ptr, section.len));
    else
        CHECK(d.n_errors > 0);
    buf_free(&section);
    arena_free(&arena);
    return 0;
}
