// Bytes that begin with '{' as tokenizer.json: packing refuses them with an error, or what it packs opens.
// Other bytes as damage to a packed section: opening refuses it, or it can be used without harm.
#include <stdlib.h>

#include "compiler/frontend/tokenizer_pack.h"
#include "runtime/base/file.h"
#include "runtime/base/num.h"
#include "runtime/text/tokenizer.h"

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

// The seeds, packed once.
static Str sound_section(size_t which) {
    static const char *const seeds[] = {"tests/fuzz/corpus/tokenizer/byte-level.json",
                                        "tests/fuzz/corpus/tokenizer/space-marked.json"};
    static StrBuf sections[COUNT_OF(seeds)];
    if (!sections[which].len) {
        Arena arena = {0};
        Diags d = {.arena = &arena};
        Err e = {0};
        Source src = {.name = seeds[which]};
        CHECK(file_read(&arena, src.name, 1 << 20, &src.text, &e));
        CHECK(tokenizer_pack_json(&arena, &src, NULL, 300, &sections[which], &d));
        arena_free(&arena);
    }
    return buf_view(&sections[which]);
}

// Each 8 bytes: where, and which 4 bytes to put there. The header, where most can go wrong, is hit half of
// the time.
static void damage(uint8_t *section, size_t len, const uint8_t *data, size_t size) {
    for (; size >= 8; data += 8, size -= 8) {
        uint32_t at;
        memcpy(&at, data, 4);
        size_t reach = at & 1 ? len - 4 : 260;
        memcpy(section + (at >> 1) % reach, data + 4, 4);
    }
}

static void fuzz_section(const uint8_t *data, size_t size) {
    Str sound = sound_section(data[0] & 1);
    size_t len = data[0] & 2 && size > 4 ? sound.len * data[1] / 256 : sound.len;
    uint64_t *aligned = xmalloc(sound.len);
    memcpy(aligned, sound.ptr, sound.len);
    damage((uint8_t *)aligned, sound.len, data + 1, size - 1);
    use(aligned, len);
    free(aligned);
}

static void fuzz_json(Str json) {
    Arena arena = {0};
    Diags d = {.arena = &arena};
    StrBuf section = {0};
    Source src = {"fuzz", json};
    if (tokenizer_pack_json(&arena, &src, NULL, 300, &section, &d))
        CHECK(use(section.ptr, section.len));
    else
        CHECK(d.n_errors > 0);
    buf_free(&section);
    arena_free(&arena);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size && data[0] == '{')
        fuzz_json((Str){(const char *)data, size});
    else if (size)
        fuzz_section(data, size);
    return 0;
}
