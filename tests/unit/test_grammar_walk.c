// The vocabularies of Qwen3 and Gemma3: time of masks, and random texts for tests/e2e/test_grammar.py:
//
//     test_grammar_walk --walk MODEL SEED < lines of {"schema"|"regex"|"gbnf": ..., "n": N, "match": [...]}
//
// answers each line with {"texts": [...], "matches": [...]} or {"error": "..."}: N texts (null: the walk was
// cut off), and which texts of the list match.
#include "tests/unit/grammar_texts.h"

#include <stdio.h>
#include <time.h>

#include "compiler/frontend/tokenizer_pack.h"
#include "runtime/base/file.h"
#include "runtime/base/log.h"
#include "runtime/base/num.h"
#include "runtime/grammar/vocab.h"

#ifdef ADALLM_DEBUG // the builds without optimisation and with sanitizers
static const bool slow_build = true;
#else
static const bool slow_build = false;
#endif

typedef struct {
    Arena arena;
    StrBuf section;
    GrammarVocab *vocab;
    GrammarMasks *masks;
    uint32_t *mask, n_vocab, eos;
    uint32_t closers[5];
    double made_s;
} Model;

static const struct {
    const char *name, *eos;
    uint32_t n_vocab;
} models[] = {{"qwen3", "<|im_end|>", 151936}, {"gemma3", "<end_of_turn>", 262208}};

// Unpacked beside and renamed: tests of other variants may run at the same time.
static void unpack(const char *name, const char *dir) {
    char command[512];
    if (dir_exists(dir)) return;
    snprintf(
        command, sizeof command,
        "t=$(mktemp -d build/tok.XXXXXX) && python3 -m tarfile -e tests/golden/tokenizers/%s.tar.xz $t && "
        "mkdir -p build/tokenizers && { mv -T $t/%s %s 2>/dev/null || true; } && rm -rf $t",
        name, name, dir);
    CHECK(system(command) == 0);
}

static void model_open(Model *m, size_t which) {
    char dir[256];
    Arena scratch = {0};
    Diags d = {.arena = &scratch};
    Err e = {0};
    snprintf(dir, sizeof dir, "build/tokenizers/%s", models[which].name);
    unpack(models[which].name, dir);
    *m = (Model){.n_vocab = models[which].n_vocab};
    if (!tokenizer_pack(&scratch, dir, m->n_vocab, &m->section, &d)) diags_print(&d, "test", stderr);
    const Tokenizer *tok = tokenizer_open(&m->arena, m->section.ptr, m->section.len, &e);
    CHECK(tok);
    arena_free(&scratch);
    m->eos = tokenizer_id_of(tok, str_of(models[which].eos));
    static const char *const closers[] = {"\"", "}", "]", ")", "1"};
    for (size_t i = 0; i < COUNT_OF(closers); i++) m->closers[i] = tokenizer_id_of(tok, str_of(closers[i]));
    double start = clock_s();
    m->vocab = grammar_vocab_new(tok, m->n_vocab, &m->eos, 1);
    m->made_s = clock_s() - start;
    m->masks = grammar_masks_new(m->vocab, 64 << 20);
    m->mask = xmalloc(m->vocab->n_words * sizeof *m->mask);
}

static void model_close(Model *m) {
    grammar_masks_free(m->masks);
    grammar_vocab_free(m->vocab);
    free(m->mask);
    buf_free(&m->section);
    arena_free(&m->arena);
}

static uint64_t seed = 1;
static uint32_t rnd(uint32_t n) {
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(seed >> 33) % n;
}

static bool has(const Model *m, uint32_t id) { return m->mask[id / 32] >> id % 32 & 1; }

// A token of the mask from a random place on: any that begins in ASCII, or one in four others.
static uint32_t draw_any(const Model *m) {
    uint32_t best = VOCAB_NONE, n_words = m->vocab->n_words, at = rnd(n_words);
    for (uint32_t i = 0; i <= n_words; i++) {
        uint32_t word = (at + i) % n_words;
        for (uint32_t left = m->mask[word]; left; left &= left - 1) {
            best = word * 32 + (uint32_t)__builtin_ctz(left);
            Str s = vocab_bytes(m->vocab, best);
            if (rnd(s.len && (uint8_t)s.ptr[0] < 0x80 ? 4 : 16) == 0) return best;
        }
    }
    return best;
}

// When the text is long enough, what looks like an end.
static uint32_t draw(const Model *m, bool closing) {
    if (closing && has(m, m->eos)) return m->eos;
    for (size_t i = 0; closing && i < COUNT_OF(m->closers); i++)
        if (m->closers[i] != TOKEN_NONE && has(m, m->closers[i])) return m->closers[i];
    return draw_any(m);
}

typedef struct {
    double total_s, worst_s;
    uint32_t n;
} Times;

// False: cut off. Every token that is drawn must be accepted.
static bool walk(Model *m, const Grammar *g, StrBuf *out, Times *times) {
    static GrammarState s;
    grammar_start(m->masks, g, &s);
    for (uint32_t k = 0; k < 1500; k++) {
        clock_t start = clock(); // of this process: other tests may run beside it
        CHECK(grammar_mask(m->masks, &s, m->mask));
        double took = (double)(clock() - start) / CLOCKS_PER_SEC;
        times->n++;
        times->total_s += took;
        times->worst_s = MAX(times->worst_s, took);
        uint32_t id = draw(m, k > 60 || rnd(6) == 0);
        CHECK(grammar_accept(m->masks, &s, id));
        if (id == m->eos) return true;
        buf_str(out, vocab_bytes(m->vocab, id));
    }
    return false;
}

// ---- tests -----------------------------------------------------------------------------------------------
static const char order[] =
    "{\"type\":\"object\",\"properties\":{\"id\":{\"type\":\"integer\",\"minimum\":1,\"maximum\":99999},"
    "\"name\":{\"type\":"
    "\"string\",\"minLength\":1,\"maxLength\":80},\"email\":{\"type\":\"string\",\"format\":\"email\"},"
    "\"tags\":{\"type\":"
    "\"array\",\"items\":{\"type\":\"string\"},\"maxItems\":8},\"kind\":{\"enum\":[\"new\",\"used\","
    "\"broken\"]},\"note\":{"
    "\"type\":[\"string\",\"null\"]},\"code\":{\"type\":\"string\",\"pattern\":\"^[A-Z]{3}-[0-9]+ "
    ".*$\"},\"parts\":{\"type\":"
    "\"array\",\"items\":{\"$ref\":\"#/$defs/"
    "part\"}},\"extra\":{\"type\":\"object\"}},\"required\":[\"id\",\"name\",\"tags\","
    "\"code\",\"parts\",\"extra\"],\"$defs\":{\"part\":{\"type\":\"object\",\"properties\":{\"n\":{\"type\":"
    "\"number\"},"
    "\"parts\":{\"type\":\"array\",\"items\":{\"$ref\":\"#/$defs/part\"}}},\"required\":[\"n\"]}}}";

static void check_text(Str text) {
    Arena arena = {0};
    Source src = {"text", text};
    Diags d = {.arena = &arena};
    if (!json_parse(&arena, &src, (JsonLimits){.dup = JSON_DUP_LAST, .depth_max = 256}, &d))
        fail_msg("%s: " STR_FMT, diags_first_message(&d), STR_ARG(text));
    arena_free(&arena);
}

// Masks while texts of an order are written, in a cold cache and then in a warm one.
static void check_times(Model *m, const char *name) {
    Err e = {0};
    double start = clock_s();
    Grammar *g = schema_of(order, &e);
    double compiled = clock_s() - start;
    assert_non_null(g);
    print_message("%s: vocabulary %.0f ms, %.1f MiB; schema %.2f ms, %zu KiB\n", name, m->made_s * 1e3,
                  (double)m->vocab->arena.used_bytes / (1 << 20), compiled * 1e3, grammar_bytes(g) >> 10);
    for (int round = 0; round < 2; round++) {
        Times t = {0};
        for (int k = 0; k < 10; k++) {
            StrBuf text = {0};
            if (walk(m, g, &text, &t)) check_text(buf_view(&text));
            buf_free(&text);
        }
        GrammarStats stats = grammar_stats(m->masks);
        print_message("    %u masks: mean %.3f ms, worst %.3f ms; %lu of %lu hits, cache %.1f MiB\n", t.n,
                      t.total_s * 1e3 / t.n, t.worst_s * 1e3, stats.n_hits, stats.n_masks,
                      (double)stats.bytes / (1 << 20));
        if (!slow_build) assert_true(t.total_s / t.n < 1e-3);
    }
    grammar_free(g);
}

// The mask of a real vocabulary against brute force, at a few places.
static void check_exact(Model *m) {
    static GrammarState s, copy;
    static const char *const starts[] = {
        "",
        "{\"id\": 12",
        "{\"id\":1,\"name\":\"",
        "{\"id\":1,\"name\":\"a\xC3",
        "{\"id\":1,\"name\":\"12345678901234567890123456789012345678901234567890123456789012345678901234567",
        "{\"id\":1,\"name\":\"ab\",\"tags\":[\"",
        "{\"id\":1,\"name\":\"ab\",\"tags\":[],\"code\":\"ABC-1 "};
    Err e = {0};
    Grammar *g = schema_of(order, &e);
    for (size_t i = 0; i < COUNT_OF(starts); i++) {
        grammar_start(m->masks, g, &s);
        assert_true(grammar_accept_bytes(m->masks, &s, str_of(starts[i])));
        assert_true(grammar_mask(m->masks, &s, m->mask));
        for (uint32_t id = 0; id < m->n_vocab; id++) {
            grammar_copy(&copy, &s);
            if (grammar_accept(m->masks, &copy, id) != has(m, id)) fail_msg("`%s`: token %u", starts[i], id);
        }
    }
    grammar_free(g);
}

// A grammar made to be slow, with parses that all have the whole vocabulary before them: the mask gives up,
// in time, and equally whatever is cached.
static void check_slow(Model *m) {
    static GrammarState s;
    StrBuf text = {0};
    Err e = {0};
    buf_puts(&text, "root ::= r0");
    for (int i = 1; i < 200; i++) buf_printf(&text, " | r%d", i);
    for (int i = 0; i < 200; i++) buf_printf(&text, "\nr%d ::= . r%d \"%d\" | \"i\"", i, i, i);
    Grammar *g = grammar_from_gbnf(buf_view(&text), &e);
    assert_non_null(g);
    grammar_start(m->masks, g, &s);
    for (int round = 0; round < 3; round++) {
        clock_t start = clock();
        assert_false(grammar_mask(m->masks, &s, m->mask));
        print_message("    given up after %.0f ms\n", (double)(clock() - start) * 1e3 / CLOCKS_PER_SEC);
        for (uint32_t i = 0; i < m->vocab->n_words; i++) assert_int_equal(m->mask[i], 0);
    }
    assert_true(grammar_accept_bytes(m->masks, &s, STR("xxi11")));
    grammar_free(g);
    buf_free(&text);
}

static void test_real(void **state) {
    (void)state;
    for (size_t i = 0; i < COUNT_OF(models); i++) {
        Model m;
        model_open(&m, i);
        assert_int_not_equal(m.eos, TOKEN_NONE);
        check_exact(&m);
        check_times(&m, models[i].name);
        check_slow(&m);
        model_close(&m);
    }
}

// ---- the tool --------------------------------------------------------------------------------------------
static Grammar *grammar_of_line(const Json *line, Err *e) {
    const Json *schema = json_get(line, "schema"), *regex = json_get(line, "regex"),
               *gbnf = json_get(line, "gbnf");
    if (schema) return grammar_from_schema(schema, e);
    if (regex) return grammar_from_regex(regex->s, e);
    return gbnf ? grammar_from_gbnf(gbnf->s, e) : grammar_from_any_object(e);
}

static void answer(Model *m, const Json *line) {
    Err e = {0};
    StrBuf out = {0};
    Times times = {0};
    Grammar *g = grammar_of_line(line, &e);
    if (!g) {
        buf_puts(&out, "{\"error\": ");
        json_write_string(&out, str_of(e.msg));
    } else {
        buf_puts(&out, "{\"texts\": [");
        const Json *n = json_get(line, "n");
        for (int64_t k = 0; n && k < n->i; k++) {
            StrBuf text = {0};
            if (k) buf_putc(&out, ',');
            if (walk(m, g, &text, &times))
                json_write_string(&out, buf_view(&text));
            else
                buf_puts(&out, "null");
            buf_free(&text);
        }
        buf_puts(&out, "], \"matches\": [");
        const Json *list = json_get(line, "match");
        for (uint32_t k = 0; list && k < list->n; k++)
            buf_printf(&out, "%s%s", k ? "," : "", matches(m->masks, g, list->items[k].s) ? "true" : "false");
        buf_putc(&out, ']');
    }
    printf("%s}\n", buf_cstr(&out));
    fflush(stdout);
    buf_free(&out);
    grammar_free(g);
}

static int walk_tool(const char *name, const char *seed_text) {
    Model m;
    char *line = NULL;
    size_t cap = 0, which = strcmp(name, models[0].name) != 0;
    ssize_t len;
    seed = strtoull(seed_text, NULL, 10) * 2 + 1;
    model_open(&m, which);
    while ((len = getline(&line, &cap, stdin)) > 0) {
        Arena arena = {0};
        Source src = {"line", {line, (size_t)len}};
        Diags d = {.arena = &arena};
        const Json *j = json_parse(&arena, &src, (JsonLimits){0}, &d);
        if (j)
            answer(&m, j);
        else
            diags_print(&d, "walk", stderr);
        arena_free(&arena);
    }
    free(line);
    model_close(&m);
    return 0;
}

int main(int argc, char **argv) {
    if (argc == 4 && !strcmp(argv[1], "--walk")) return walk_tool(argv[2], argv[3]);
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_real)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
