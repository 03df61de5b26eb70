// Broken and unsupported tokenizer.json files: each gets a located error of the right kind, and no section.
#include "tests/unit/unit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "compiler/frontend/tokenizer_pack.h"
#include "runtime/base/file.h"
#include "runtime/base/num.h"

typedef struct {
    const char *what, *base; // fixture to damage
    const char *from, *to;   // first occurrence of `from` is replaced; NULL: the file is cut to half
    ErrCode code;
    const char *message; // part of it; NULL: any
} Case;

#define FALSE_FLAGS                                                                                          \
    "\"single_word\": false, \"lstrip\": false, \"rstrip\": false, \"normalized\": false, \"special\": true"

static const Case cases[] = {
    {"truncated", "qwen3", NULL, NULL, E_JSON, NULL},
    {"no object", "qwen3", "{", "[{", E_JSON, NULL},
    {"id is text", "qwen3", "\"!\": 0", "\"!\": \"0\"", E_TOKENIZER, "whole number"},
    {"id is a fraction", "qwen3", "\"!\": 0", "\"!\": 0.5", E_TOKENIZER, "whole number"},
    {"id is null", "qwen3", "\"!\": 0", "\"!\": null", E_TOKENIZER, "whole number"},
    {"negative id", "qwen3", "\"!\": 0", "\"!\": -1", E_TOKENIZER, "whole number"},
    {"huge id", "qwen3", "\"!\": 0", "\"!\": 99999999999999999999999", E_TOKENIZER, "whole number"},
    {"id beyond the table", "qwen3", "\"!\": 0", "\"!\": 640", E_TOKENIZER, "0 to 639"},
    {"repeated id", "qwen3", "\"!\": 0", "\"!\": 1", E_TOKENIZER, "the same id 1"},
    {"repeated token", "qwen3", "\"!\": 0", "\"#\": 0", E_JSON, "twice"},
    {"byte without a token", "qwen3", "\"!\": 0", "\"!!!!!!\": 0", E_TOKENIZER, "byte 0x21 has no token"},
    {"vocabulary of another type", "qwen3", "\"vocab\": {", "\"vocab\": [], \"other\": {", E_TOKENIZER,
     "model.vocab"},
    {"no vocabulary", "qwen3", "\"vocab\": {", "\"vocabulary\": {", E_TOKENIZER, "model.vocab"},
    {"no merges", "qwen3", "\"merges\": [", "\"merge\": [", E_TOKENIZER, "model.merges"},
    {"merges of another type", "qwen3", "\"merges\": [", "\"merges\": 5, \"x\": [", E_TOKENIZER,
     "model.merges"},
    {"merge is a number", "qwen3", "\"merges\": [", "\"merges\": [7,", E_TOKENIZER, "a merge must be"},
    {"merge of one token", "qwen3", "\"merges\": [", "\"merges\": [[\"a\"],", E_TOKENIZER, "a merge must be"},
    {"merge of three", "qwen3", "\"merges\": [", "\"merges\": [\"a b c\",", E_TOKENIZER, "one space"},
    {"merge of nothing", "qwen3", "\"merges\": [", "\"merges\": [[\"\", \"a\"],", E_TOKENIZER, "empty token"},
    {"merge of an unknown token", "qwen3", "\"merges\": [", "\"merges\": [[\"zqz\", \"a\"],", E_TOKENIZER,
     "`zqz`"},
    {"merge to an unknown token", "qwen3", "\"merges\": [", "\"merges\": [[\"~\", \"~\"],", E_TOKENIZER,
     "`~~`"},
    {"added tokens are an object", "qwen3", "\"added_tokens\": [", "\"added_tokens\": {}, \"x\": [",
     E_TOKENIZER, "added_tokens must be a list"},
    {"added token is text", "qwen3", "\"added_tokens\": [", "\"added_tokens\": [\"a\",", E_TOKENIZER,
     "must be an object"},
    {"added token without content", "qwen3", "\"added_tokens\": [", "\"added_tokens\": [{\"id\": 1},",
     E_TOKENIZER, "content"},
    {"added token without flags", "qwen3", "\"added_tokens\": [",
     "\"added_tokens\": [{\"id\": 0, \"content\": \"!\", \"special\": 1},", E_TOKENIZER, "\"special\""},
    {"added token of a taken id", "qwen3", "\"added_tokens\": [",
     "\"added_tokens\": [{\"id\": 1, \"content\": \"<z>\", " FALSE_FLAGS "},", E_TOKENIZER, "the same id 1"},
    {"added token of two ids", "qwen3", "\"added_tokens\": [",
     "\"added_tokens\": [{\"id\": 1, \"content\": \"!\", " FALSE_FLAGS "},", E_TOKENIZER,
     "has id 1 here and 0"},
    {"added token far away", "qwen3", "\"added_tokens\": [",
     "\"added_tokens\": [{\"id\": 4000000000, \"content\": \"<z>\", " FALSE_FLAGS "},", E_TOKENIZER,
     "added token `<z>`"},
    {"other normalizer", "qwen3", "\"NFC\"", "\"NFKC\"", E_TOKENIZER_UNSUPPORTED, "NFKC"},
    {"other pattern", "qwen3", "\\\\p{N}|", "\\\\p{N}{1,2}|", E_TOKENIZER_UNSUPPORTED,
     "unknown split pattern"},
    {"other pre_tokenizer", "qwen3", "\"type\": \"Split\"", "\"type\": \"Whitespace\"",
     E_TOKENIZER_UNSUPPORTED, "Whitespace"},
    {"prefix space", "qwen3", "\"add_prefix_space\": false", "\"add_prefix_space\": true",
     E_TOKENIZER_UNSUPPORTED, "add_prefix_space"},
    {"other model", "qwen3", "\"type\": \"BPE\"", "\"type\": \"Unigram\"", E_TOKENIZER_UNSUPPORTED,
     "Unigram"},
    {"dropout", "qwen3", "\"dropout\": null", "\"dropout\": 0.1", E_TOKENIZER_UNSUPPORTED, "dropout"},
    {"subword prefix", "qwen3", "\"continuing_subword_prefix\": null",
     "\"continuing_subword_prefix\": \"##\"", E_TOKENIZER_UNSUPPORTED, "continuing_subword_prefix"},
    {"other version", "qwen3", "\"version\": \"1.0\"", "\"version\": \"2.0\"", E_TOKENIZER_UNSUPPORTED,
     "version"},
    {"normalizer without type", "qwen3", "\"type\": \"NFC\"", "\"kind\": \"NFC\"", E_TOKENIZER,
     "no \"type\""},
    {"broken byte token", "gemma3", "\"<0x41>\"", "\"<0x-1>\"", E_TOKENIZER, "<0x-1>"},
    {"missing byte token", "gemma3", "\"<0x41>\"", "\"<0x411>\"", E_TOKENIZER, "byte 0x41"},
    {"no byte fallback", "gemma3", "\"byte_fallback\": true", "\"byte_fallback\": false",
     E_TOKENIZER_UNSUPPORTED, "byte_fallback"},
    {"flag is a number", "gemma3", "\"fuse_unk\": true", "\"fuse_unk\": 1", E_TOKENIZER, "fuse_unk"},
    {"unknown token is none", "gemma3", "\"unk_token\": \"<unk>\"", "\"unk_token\": \"<unc>\"", E_TOKENIZER,
     "<unc>"},
    {"unknown token is a number", "gemma3", "\"unk_token\": \"<unk>\"", "\"unk_token\": 3", E_TOKENIZER,
     "unk_token"},
    {"other decoder", "gemma3", "\"type\": \"Fuse\"", "\"type\": \"Strip\"", E_TOKENIZER_UNSUPPORTED,
     "decoders"},
    {"other replacement", "gemma3", "\"content\": \"\u2581\"", "\"content\": \"_\"", E_TOKENIZER_UNSUPPORTED,
     "Replace"},
    {"template of an unknown id", "gemma3", "\"ids\": [\n          2", "\"ids\": [\n          77777",
     E_TOKENIZER, "no token"},
    {"template of an unknown token", "gemma3", "\"SpecialToken\": {\n          \"id\": \"<bos>\"",
     "\"SpecialToken\": {\n          \"id\": \"<boz>\"", E_TOKENIZER, "TemplateProcessing"},
};

static Str replace_once(Arena *a, Str text, const char *from, const char *to) {
    if (!from) return str_sub(text, 0, text.len / 2);
    const char *at = memmem(text.ptr, text.len, from, strlen(from));
    if (!at) fail_msg("the fixture has no `%s`", from);
    size_t before = (size_t)(at - text.ptr);
    Str rest = str_from(text, before + strlen(from));
    return str_of(arena_printf(a, STR_FMT "%s" STR_FMT, (int)before, text.ptr, to, STR_ARG(rest)));
}

static void write_file(const char *path, Str text) {
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(text.ptr, 1, text.len, f), text.len);
    assert_int_equal(fclose(f), 0);
}

static void test_broken_files(void **state) {
    (void)state;
    char dir[] = "build/tokenizer.XXXXXX";
    assert_non_null(mkdtemp(dir));
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        const Case *c = &cases[i];
        Arena arena = {0};
        Err e = {0};
        Str text;
        const char *path = path_join(&arena, dir, "tokenizer.json");
        assert_true(file_read(&arena, arena_printf(&arena, "tests/golden/models/%s/tokenizer.json", c->base),
                              1 << 20, &text, &e));
        write_file(path, replace_once(&arena, text, c->from, c->to));
        Diags d = {.arena = &arena};
        StrBuf section = {0};
        bool ok = tokenizer_pack(&arena, dir, 640, &section, &d);
        const char *message = diags_first_message(&d);
        if (ok || diags_first_code(&d) != c->code || (c->message && !strstr(message, c->message)))
            fail_msg("%s: E%04d %s", c->what, diags_first_code(&d), message ? message : "no error");
        assert_int_equal(section.len, 0);
        assert_int_equal(diags_exit_code(&d), 1);
        unlink(path);
        buf_free(&section);
        arena_free(&arena);
    }
    rmdir(dir);
}

static void test_no_file(void **state) {
    (void)state;
    Arena arena = {0};
    Diags d = {.arena = &arena};
    StrBuf section = {0};
    assert_false(tokenizer_pack(&arena, "build/no such folder", 640, &section, &d));
    assert_int_equal(diags_first_code(&d), E_FILE);
    arena_free(&arena);
}

static void test_same_bytes(void **state) {
    (void)state;
    StrBuf sections[2] = {{0}, {0}};
    for (size_t i = 0; i < 2; i++) {
        Arena arena = {0};
        Diags d = {.arena = &arena};
        assert_true(tokenizer_pack(&arena, "tests/golden/models/gemma3", 640, &sections[i], &d));
        arena_free(&arena);
    }
    assert_true(str_eq(buf_view(&sections[0]), buf_view(&sections[1])));
    buf_free(&sections[0]);
    buf_free(&sections[1]);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_broken_files),
        cmocka_unit_test(test_no_file),
        cmocka_unit_test(test_same_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
