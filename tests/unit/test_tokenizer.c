// The real tokenizers and the small ones of the model fixtures, packed and opened as in an artifact, against
// tests/golden/text line by line; speed on long runs; the splitting rules that no real tokenizer uses.
#include "tests/unit/unit.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "compiler/frontend/tokenizer_pack.h"
#include "runtime/base/file.h"
#include "runtime/base/json.h"
#include "runtime/base/log.h"
#include "runtime/base/num.h"
#include "runtime/text/detok.h"
#include "tests/unit/golden.h"

enum { QWEN, GEMMA, N_MODELS };
static const struct {
    const char *name;
    uint64_t rows;
} models[N_MODELS] = {{"qwen3", 151936}, {"gemma3", 262208}};

typedef struct {
    Arena arena;
    StrBuf section;
    Tokenizer *tok;
} Packed;
#ifdef ADALLM_DEBUG // the builds without optimisation and with sanitizers
static const bool slow_build = true;
#else
static const bool slow_build = false;
#endif
static Packed packed[N_MODELS];

static void pack(Packed *p, const char *dir, uint64_t rows) {
    Arena scratch = {0};
    Diags d = {.arena = &scratch};
    if (!tokenizer_pack(&scratch, dir, rows, &p->section, &d)) diags_print(&d, "test", stderr);
    assert_int_equal(d.n_errors, 0);
    arena_free(&scratch);
    Err e = {0};
    p->tok = tokenizer_open(&p->arena, p->section.ptr, p->section.len, &e);
    if (!p->tok) fail_msg("%s", e.msg);
}

static void unpack_free(Packed *p) {
    arena_free(&p->arena);
    buf_free(&p->section);
}

static int setup(void **state) {
    (void)state;
    for (size_t i = 0; i < N_MODELS; i++) {
        char command[512], dir[256];
        const char *name = models[i].name;
        snprintf(dir, sizeof dir, "build/tokenizers/%s", name);
        if (!dir_exists(
                dir)) { // unpacked beside and renamed: tests of other variants may run at the same time
            snprintf(command, sizeof command,
                     "t=$(mktemp -d build/tok.XXXXXX) && python3 -m tarfile -e "
                     "tests/golden/tokenizers/%s.tar.xz $t && "
                     "mkdir -p build/tokenizers && { mv -T $t/%s %s 2>/dev/null || true; } && rm -rf $t",
                     name, name, dir);
            if (system(command) != 0) return 1;
        }
        double start = clock_s();
        pack(&packed[i], dir, models[i].rows);
        print_message("%s: packed %zu bytes in %.2f s", name, packed[i].section.len, clock_s() - start);
        Arena arena = {0};
        Err e = {0};
        start = clock_s();
        tokenizer_open(&arena, packed[i].section.ptr, packed[i].section.len, &e);
        print_message(", opened in %.1f ms\n", (clock_s() - start) * 1e3);
        arena_free(&arena);
    }
    return 0;
}

static int teardown(void **state) {
    (void)state;
    for (size_t i = 0; i < N_MODELS; i++) unpack_free(&packed[i]);
    return 0;
}

static Ids encode(const Tokenizer *tok, Str text, EncodeOptions options) {
    Ids ids = {0};
    Err e = {0};
    if (!tokenizer_encode(tok, text, options, &ids, &e)) fail_msg("%s", e.msg);
    return ids;
}

static bool ids_match(const Json *want, const Ids *have) {
    if (want->n != have->n) return false;
    for (uint32_t i = 0; i < want->n; i++)
        if (want->items[i].i != have->ptr[i]) return false;
    return true;
}

static bool encode_line(const Tokenizer *tok, const Json *line) {
    const Json *add = json_get(line, "add_special");
    EncodeOptions options = {.special = json_get(line, "special")->boolean,
                             .add_special = add && add->boolean};
    Ids ids = encode(tok, json_get(line, "text")->s, options);
    StrBuf text = {0};
    tokenizer_decode(tok, ids.ptr, ids.n, false, &text);
    bool ok = ids_match(json_get(line, "ids"), &ids) && str_eq(buf_view(&text), json_get(line, "decoded")->s);
    ids_free(&ids);
    buf_free(&text);
    return ok;
}

static bool stream_line(const Tokenizer *tok, const Json *line) {
    const Json *ids = json_get(line, "ids"), *pieces = json_get(line, "pieces");
    Detok d;
    detok_begin(&d, tok, json_get(line, "skip_special")->boolean);
    bool ok = pieces->n == ids->n + 1;
    for (uint32_t i = 0; ok && i <= ids->n; i++) {
        StrBuf piece = {0};
        if (i < ids->n)
            detok_push(&d, (uint32_t)ids->items[i].i, &piece);
        else
            detok_flush(&d, &piece);
        ok = str_eq(buf_view(&piece), pieces->items[i].s);
        buf_free(&piece);
    }
    detok_end(&d);
    return ok;
}

static void check_file(const char *path, const Tokenizer *tok,
                       bool (*check)(const Tokenizer *, const Json *)) {
    Arena arena = {0};
    const Str text = golden_read(&arena, path);
    size_t n = 0, bad = 0;
    for (size_t i = 0, end; i < text.len; i = end + 1) {
        end = (size_t)((const char *)memchr(text.ptr + i, '\n', text.len - i) - text.ptr);
        Source src = {path, str_sub(text, i, end)};
        Diags d = {.arena = &arena};
        const Json *line = json_parse(&arena, &src, (JsonLimits){0}, &d);
        assert_non_null(line);
        n++;
        if (!check(tok, line)) {
            bad++;
            print_error("%s:%zu differs: " STR_FMT "\n", path, n, (int)MIN(src.text.len, 200), src.text.ptr);
        }
    }
    assert_true(n >= 70);
    assert_int_equal(bad, 0);
    arena_free(&arena);
}

static void check_encode(size_t model) {
    char path[256];
    snprintf(path, sizeof path, "tests/golden/text/encode-%s.jsonl.xz", models[model].name);
    check_file(path, packed[model].tok, encode_line);
}

static void check_stream(size_t model) {
    char path[256];
    snprintf(path, sizeof path, "tests/golden/text/stream-%s.jsonl", models[model].name);
    check_file(path, packed[model].tok, stream_line);
}

static void test_encode_qwen(void **state) { (void)state, check_encode(QWEN); }
static void test_encode_gemma(void **state) { (void)state, check_encode(GEMMA); }
static void test_stream_qwen(void **state) { (void)state, check_stream(QWEN); }
static void test_stream_gemma(void **state) { (void)state, check_stream(GEMMA); }

// Llama 3 and GPT-2 patterns, templates, ignore_merges, all conditions of added tokens.
static void test_variants(void **state) {
    (void)state;
    static const char *const names[] = {"llama3", "gpt2", "added-qwen3", "added-gemma3", "whole-gemma3"};
    for (size_t i = 0; i < COUNT_OF(names); i++) {
        Packed p = {0};
        char path[256];
        snprintf(path, sizeof path, "tests/golden/tokenizers/variants/%s", names[i]);
        pack(&p, path, 700);
        strcat(path, ".jsonl");
        check_file(path, p.tok, encode_line);
        unpack_free(&p);
    }
}

static void test_questions(void **state) {
    (void)state;
    const Tokenizer *q = packed[QWEN].tok, *g = packed[GEMMA].tok;
    assert_int_equal(tokenizer_size(q), 151669);
    assert_int_equal(tokenizer_size(g), 262145);
    assert_int_equal(tokenizer_id_of(q, STR("<|im_end|>")), 151645);
    assert_int_equal(tokenizer_id_of(q, STR("<think>")), 151667);
    assert_int_equal(tokenizer_id_of(q, STR("no such token")), TOKEN_NONE);
    assert_int_equal(tokenizer_id_of(q, STR("")), TOKEN_NONE);
    assert_int_equal(tokenizer_id_of(g, STR("<end_of_turn>")), 106);
    assert_true(tokenizer_is_special(q, 151645) && !tokenizer_is_special(q, 151667));
    assert_true(tokenizer_is_token(q, 151668) && !tokenizer_is_token(q, 151669) &&
                !tokenizer_is_token(q, TOKEN_NONE));
    assert_true(str_is(tokenizer_token_bytes(q, 785), "The"));
    assert_true(str_is(tokenizer_token_bytes(g, tokenizer_id_of(g, STR("\u2581the"))), " the"));
    assert_true(str_eq(tokenizer_token_bytes(g, tokenizer_id_of(g, STR("<0x0A>"))), STR("\n")));
    assert_int_equal(tokenizer_token_bytes(q, 151935).len, 0);
}

static void test_bad_text(void **state) {
    (void)state;
    static const char *const bad[] = {"a\xFFz",           "\xC3", "ok \xED\xA0\x80", "\xC0\x80",
                                      "\xF4\x90\x80\x80", "\x80"};
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        Ids ids = {0};
        Err e = {0};
        assert_false(tokenizer_encode(packed[QWEN].tok, str_of(bad[i]), (EncodeOptions){0}, &ids, &e));
        assert_int_equal(e.code, E_TEXT);
        ids_free(&ids);
    }
}

// ---- long texts ----------------------------------------------------------------------------------

typedef struct {
    const Tokenizer *tok;
    Str text;
    Ids ids;
    double seconds;
} Job;

static double cpu_s(void) { // of this thread: the machine may be busy with other things
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void *run_job(void *arg) {
    Job *job = arg;
    double start = cpu_s();
    job->ids = encode(job->tok, job->text, (EncodeOptions){.special = true});
    job->seconds = cpu_s() - start;
    return NULL;
}

// Encodes on a thread with a small stack; returns the seconds it took.
static double encode_long(const Tokenizer *tok, Str text) {
    Job job = {.tok = tok, .text = text};
    pthread_attr_t attr;
    pthread_t thread;
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, 256 << 10);
    assert_int_equal(pthread_create(&thread, &attr, run_job, &job), 0);
    pthread_join(thread, NULL);
    pthread_attr_destroy(&attr);
    ids_free(&job.ids);
    return job.seconds;
}

// Quadratic work on these takes minutes.
static void test_long_runs(void **state) {
    (void)state;
    static const char *const units[] = {"a",       " ",          "\n",      "1",      "!",     "\u4E2D",
                                        "\u0301",  "\U0001F600", "\u3000",  "ab",     "<|im_", "\u0301\u0323",
                                        "e\u0301", "\t \n",      "<unused", "\u2581", "é!"};
    for (size_t m = 0; m < N_MODELS; m++) {
        for (size_t u = 0; u < COUNT_OF(units); u++) {
            StrBuf text = {0};
            while (text.len < 1 << 20) buf_puts(&text, units[u]);
            double seconds = encode_long(packed[m].tok, buf_view(&text));
            buf_free(&text);
            if (seconds > (slow_build ? 5 : 1.5))
                fail_msg("%s: 1 MiB of \"%s\" takes %.2f s", models[m].name, units[u], seconds);
        }
    }
}

static void test_ordinary_text(void **state) {
    (void)state;
    Arena arena = {0};
    Err e = {0};
    Str prose;
    assert_true(file_read(&arena, "tests/golden/text/README.md", 1 << 20, &prose, &e));
    StrBuf text = {0};
    while (text.len < 1 << 20) buf_str(&text, prose);
    for (size_t m = 0; m < N_MODELS; m++) {
        double seconds = encode_long(packed[m].tok, buf_view(&text));
        print_message("%s: %zu bytes of prose in %.3f s\n", models[m].name, text.len, seconds);
        assert_true(slow_build || seconds < 1);
    }
    buf_free(&text);
    arena_free(&arena);
}

// ---- the small tokenizers, and damage ------------------------------------------------------------

static void test_small(void **state) {
    (void)state;
    static const char *const names[] = {"qwen3", "qwen3-ct", "qwen3-moe", "gemma3", "gemma3-ct", "quantize"};
    static const char text[] = "Hello, W\u00F6rld! \u4F60\u597D \U0001F600\n\n\tx = 12345;  end";
    for (size_t i = 0; i < COUNT_OF(names); i++) {
        Packed p = {0};
        char dir[256];
        snprintf(dir, sizeof dir, "tests/golden/models/%s", names[i]);
        pack(&p, dir, 640);
        Ids ids = encode(p.tok, STR(text), (EncodeOptions){0});
        StrBuf back = {0};
        tokenizer_decode(p.tok, ids.ptr, ids.n, true, &back);
        assert_true(str_is(buf_view(&back), text));
        for (size_t k = 0; k < ids.n; k++) assert_true(tokenizer_is_token(p.tok, ids.ptr[k]));
        buf_free(&back);
        ids_free(&ids);
        unpack_free(&p);
    }
}

// Every byte of the header and many of the body are set to every kind of nonsense: opening says no, or what
// it opens can be used without harm.
static void test_damaged_section(void **state) {
    (void)state;
    static const char *const dirs[] = {"tests/golden/models/qwen3", "tests/golden/models/gemma3"};
    for (size_t m = 0; m < COUNT_OF(dirs); m++) {
        Packed p = {0};
        pack(&p, dirs[m], 640);
        size_t n = p.section.len;
        uint64_t *copy = xmalloc(n + 8);
        for (size_t i = 0; i < n; i += i < 300 ? 1 : 37) {
            static const uint8_t masks[] = {0x01, 0x80, 0xFF};
            memcpy(copy, p.section.ptr, n);
            ((uint8_t *)copy)[i] ^= masks[i % 3];
            Arena arena = {0};
            Err e = {0};
            Tokenizer *tok = tokenizer_open(&arena, copy, n, &e);
            Ids ids = {0};
            StrBuf text = {0};
            if (tok && tokenizer_encode(tok, STR("a  b\u00E9 <|im_end|>\u4F60"), (EncodeOptions){true, true},
                                        &ids, &e))
                tokenizer_decode(tok, ids.ptr, ids.n, false, &text);
            assert_true(tok || e.code);
            ids_free(&ids);
            buf_free(&text);
            arena_free(&arena);
        }
        for (size_t len = 0; len < n; len += len < 300 ? 1 : 997) {
            Arena arena = {0};
            Err e = {0};
            assert_null(tokenizer_open(&arena, p.section.ptr, len, &e));
            arena_free(&arena);
        }
        free(copy);
        unpack_free(&p);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_encode_qwen),     cmocka_unit_test(test_encode_gemma),
        cmocka_unit_test(test_stream_qwen),     cmocka_unit_test(test_stream_gemma),
        cmocka_unit_test(test_variants),        cmocka_unit_test(test_questions),
        cmocka_unit_test(test_bad_text),        cmocka_unit_test(test_ordinary_text),
        cmocka_unit_test(test_long_runs),       cmocka_unit_test(test_small),
        cmocka_unit_test(test_damaged_section),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
