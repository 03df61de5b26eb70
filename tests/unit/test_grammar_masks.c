// Masks against brute force: at every place of random texts, the mask has exactly those tokens that reading
// them byte by byte accepts; texts of random schemas parse, and a validator of its own finds nothing wrong.
#include "tests/unit/grammar_texts.h"

#include <pthread.h>
#include <stdio.h>

#include "runtime/base/num.h"
#include "runtime/grammar/vocab.h"

enum { N_TOKENS = 700, EOS = N_TOKENS - 1, WORDS = (N_TOKENS + 127) / 128 * 4, STEPS = 60 };

static uint64_t seed = 1;
static uint32_t rnd(uint32_t n) {
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(seed >> 33) % n;
}

// Tokens that go over the borders of JSON, of characters and of escapes, beside all single bytes.
static GrammarVocab *make_vocab(void) {
    static const char *const parts[] = {
        "{",        "}",    "[",        "]",        "\"", ":",   ",",        " ",    "\n",
        "a",        "b",    "ab",       "key",      "1",  "23",  "-",        ".5",   "e",
        "true",     "null", "\\",       "\\u00",    "e9", "\\n", "\xC3\xA9", "\xC3", "\xA9",
        "\xE2\x82", "\xAC", "\xF0\x9F", "\x98\x80", "x",  "\t",  "ud83d",    "(",    ")"};
    static char text[N_TOKENS][32];
    Str tokens[N_TOKENS] = {0};
    for (uint32_t i = 0; i < N_TOKENS - 1; i++) {
        size_t len = 0;
        if (i < 256) {
            text[i][len++] = (char)i;
        } else {
            for (uint32_t k = 1 + rnd(4); k > 0; k--) {
                const char *part = parts[rnd(COUNT_OF(parts))];
                memcpy(text[i] + len, part, strlen(part));
                len += strlen(part);
            }
        }
        tokens[i] = (Str){text[i], len};
    }
    return grammar_vocab_of(tokens, N_TOKENS, (uint32_t[]){EOS}, 1);
}

// Rules that open others; the last one is too long to be copied to its callers.
#define NESTED                                                                                               \
    "a ::= \"{\" b \"}\" | \"-\" a \"-\"\n"                                                                  \
    "b ::= \"a\" | \"+\" b \"+\" | \"012345678901234567890123456789012345678901234567890123456789\""
static const char *const gbnf[] = {
    "root ::= \"a\" root | \"a\" root \"b\" | \"a\"",
    "root ::= (word | \"(\" root \")\")*\nword ::= [a-z]+ | [^\\x00-\\x7F]",
    "root ::= ([^\\n]+ \"\\n\")+",
    "root ::= [^\"]* \"\\\"\" tail\ntail ::= [a-z0-9:, ]* | \"{\" root \"}\"",
    "root ::= \"(\" root \")\" | \"x\" \"-\" a\n" NESTED,
    "root ::= \"(\" root \")\" | \"b\" \".\" | \"x\" \"-\" a\n" NESTED,
};
static const char *const regexes[] = {"(key|ab)*[^a]{0,5}", "[ -~]{1,10}", "(\"[^\"\\\\]*\" ?)+", ".*",
                                      "(.{2}x)*"};
static const char *const schemas[] = {
    "true",
    "{\"type\":\"object\"}",
    "{\"type\":\"string\"}",
    "{\"type\":\"string\",\"minLength\":2,\"maxLength\":5}",
    "{\"type\":\"string\",\"minLength\":6}",
    "{\"type\":\"string\",\"pattern\":\"^[a-z]+\\\\.\"}",
    "{\"type\":\"array\",\"items\":{\"type\":\"string\",\"maxLength\":3}}",
    "{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"integer\"},\"ab\":{\"type\":\"string\"},\"key\":{"
    "\"type\":\"null\"}},\"additionalProperties\":true}",
    "{\"anyOf\":[{\"type\":\"string\",\"maxLength\":3},{\"type\":\"string\",\"pattern\":\"^key\"},{\"type\":"
    "\"string\"}]}",
    "{\"type\":\"object\",\"properties\":{\"a\":{\"$ref\":\"#\"},\"b\":{\"type\":\"array\",\"items\":{\"$"
    "ref\":\"#\"}}}}",
    "{\"type\":\"number\",\"minimum\":-1.5,\"maximum\":23}",
};

static Grammar *nth_grammar(uint32_t i) {
    Err e = {0};
    Grammar *g = i < COUNT_OF(gbnf) ? grammar_from_gbnf(str_of(gbnf[i]), &e)
                 : i < COUNT_OF(gbnf) + COUNT_OF(regexes)
                     ? grammar_from_regex(str_of(regexes[i - COUNT_OF(gbnf)]), &e)
                     : schema_of(schemas[i - COUNT_OF(gbnf) - COUNT_OF(regexes)], &e);
    if (!g) fail_msg("%s", e.msg);
    return g;
}

static GrammarVocab *vocab;
static GrammarMasks *cached, *uncached;

static int setup(void **state) {
    (void)state;
    vocab = make_vocab();
    cached = grammar_masks_new(vocab, 1 << 20);
    uncached = grammar_masks_new(vocab, 0);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    grammar_masks_free(cached);
    grammar_masks_free(uncached);
    grammar_vocab_free(vocab);
    return 0;
}

static bool has(const uint32_t *mask, uint32_t id) { return mask[id / 32] >> id % 32 & 1; }

// The tokens of the mask, after it was found right.
static uint32_t check_mask(const GrammarState *s, uint32_t *allowed) {
    uint32_t mask[2][WORDS], n = 0;
    static GrammarState copy;
    bool any = grammar_mask(cached, s, mask[0]);
    assert_int_equal(any, grammar_mask(uncached, s, mask[1]));
    assert_memory_equal(mask[0], mask[1], sizeof mask[0]);
    for (uint32_t id = 0; id < N_TOKENS; id++) {
        grammar_copy(&copy, s);
        bool yes = grammar_accept(uncached, &copy, id);
        assert_int_equal(yes, has(mask[0], id));
        if (yes) allowed[n++] = id;
    }
    for (uint32_t id = N_TOKENS; id < WORDS * 32; id++) assert_false(has(mask[0], id));
    assert_int_equal(any, n > 0);
    assert_int_equal(has(mask[0], EOS), grammar_can_end(s));
    return n;
}

static void test_masks(void **state) {
    (void)state;
    static GrammarState s;
    uint32_t allowed[N_TOKENS];
    for (uint32_t i = 0; i < COUNT_OF(gbnf) + COUNT_OF(regexes) + COUNT_OF(schemas); i++) {
        Grammar *g = nth_grammar(i);
        for (uint32_t walk = 0; walk < 12; walk++) {
            grammar_start(cached, g, &s);
            for (uint32_t k = 0; k < STEPS && !s.ended; k++) {
                uint32_t n = check_mask(&s, allowed);
                assert_true(n > 0);
                assert_true(grammar_accept(cached, &s, allowed[rnd(n)]));
            }
        }
        grammar_free(g);
    }
    GrammarStats stats = grammar_stats(cached);
    assert_true(stats.n_hits > 0 && stats.n_hits < stats.n_masks);
    assert_true(stats.bytes <= 1 << 20);
    assert_int_equal(grammar_stats(uncached).bytes, 0);
}

// The same where limits begin to matter: on depth, on the number of parses.
static void test_limits(void **state) {
    (void)state;
    static GrammarState s;
    static const struct {
        uint32_t grammar; // of nth_grammar
        const char *unit;
        uint32_t n;
    } starts[] = {{0, "a", 180}, {0, "a", 1000}, {1, "(", 190},  {1, "(", 200},       {4, "(", 200},
                  {5, "(", 200}, {11, "[", 197}, {11, "[", 200}, {11, "{\"a\":", 198}};
    uint32_t allowed[N_TOKENS];
    for (size_t i = 0; i < COUNT_OF(starts); i++) {
        Grammar *g = nth_grammar(starts[i].grammar);
        grammar_start(cached, g, &s);
        uint32_t taken = 0; // as many of n as the limits allow
        while (taken < starts[i].n && grammar_accept_bytes(cached, &s, str_of(starts[i].unit))) taken++;
        assert_true(taken >= 180);
        for (uint32_t k = 0; k < 25 && !s.ended; k++) {
            uint32_t n = check_mask(&s, allowed);
            assert_true(n > 0);
            assert_true(grammar_accept(cached, &s, allowed[rnd(n)]));
        }
        grammar_free(g);
    }
}

// ---- threads: one vocabulary and one grammar for all, masks of their own
// -----------------------------------
typedef struct {
    const Grammar *g;
    uint32_t start_mask[WORDS];
} Shared;

static void *use_shared(void *arg) {
    const Shared *shared = arg;
    GrammarState *s = xmalloc(sizeof *s);
    GrammarMasks *m = grammar_masks_new(vocab, 1 << 18);
    uint32_t mask[WORDS];
    uintptr_t wrong = 0;
    for (uint32_t i = 0; i < 20; i++) {
        Err e = {0};
        Grammar *own = grammar_from_regex(STR("\\p{L}+"), &e);
        grammar_start(m, i & 1 ? shared->g : own, s);
        wrong += !grammar_mask(m, s, mask) || ((i & 1) && memcmp(mask, shared->start_mask, sizeof mask) != 0);
        wrong += !grammar_accept_bytes(m, s, STR("a"));
        grammar_free(own);
    }
    grammar_masks_free(m);
    free(s);
    return (void *)wrong;
}

static void test_threads(void **state) {
    (void)state;
    static GrammarState s;
    Err e = {0};
    Shared shared = {.g = grammar_from_regex(STR("[a-z]+(ab|key)*"), &e)};
    pthread_t threads[4];
    grammar_start(cached, shared.g, &s);
    assert_true(grammar_mask(cached, &s, shared.start_mask));
    for (size_t i = 0; i < COUNT_OF(threads); i++)
        assert_int_equal(pthread_create(&threads[i], NULL, use_shared, &shared), 0);
    for (size_t i = 0; i < COUNT_OF(threads); i++) {
        void *wrong;
        assert_int_equal(pthread_join(threads[i], &wrong), 0);
        assert_null(wrong);
    }
    grammar_free((Grammar *)shared.g);
}

// ---- random schemas --------------------------------------------------------------------------------------
static void add_schema(StrBuf *out, uint32_t depth);

static void add_property_list(StrBuf *out, uint32_t depth) {
    static const char *const names[] = {"a", "ab", "key", "\xC3\xA9", "q\\\"", "b"};
    uint32_t first = rnd(3), n = rnd(4), n_required = 0;
    buf_puts(out, "\"properties\":{");
    for (uint32_t i = 0; i < n; i++) {
        buf_printf(out, "%s\"%s\":", i ? "," : "", names[first + i]);
        add_schema(out, depth + 1);
    }
    buf_puts(out, "},\"required\":[");
    for (uint32_t i = 0; i < n; i++)
        if (rnd(2)) buf_printf(out, "%s\"%s\"", n_required++ ? "," : "", names[first + i]);
    buf_puts(out, "]");
    if (rnd(2)) buf_printf(out, ",\"additionalProperties\":%s", rnd(2) ? "false" : "{\"type\":\"integer\"}");
}

static void add_list(StrBuf *out, uint32_t depth) {
    uint32_t least = rnd(3);
    if (rnd(3) == 0) {
        buf_puts(out, "\"prefixItems\":[");
        add_schema(out, depth + 1);
        buf_puts(out, "],");
        least = rnd(2);
    }
    buf_printf(out, "\"minItems\":%u,\"maxItems\":%u,\"items\":", least, least + 1 + rnd(3));
    add_schema(out, depth + 1);
}

static void add_typed(StrBuf *out, uint32_t depth) {
    static const char *const strings[] = {"",
                                          ",\"minLength\":1",
                                          ",\"maxLength\":4",
                                          ",\"minLength\":2,\"maxLength\":3",
                                          ",\"format\":\"ipv4\"",
                                          ",\"pattern\":\"^[ab]+$\""};
    int least = (int)rnd(50) - 25;
    switch (rnd(depth > 3 ? 4 : 7)) {
    case 0: buf_puts(out, "\"type\":[\"null\",\"boolean\"]"); return;
    case 1: buf_printf(out, "\"type\":\"string\"%s", strings[rnd(COUNT_OF(strings))]); return;
    case 2:
        buf_printf(out, "\"type\":\"integer\",\"minimum\":%d,\"maximum\":%d", least, least + (int)rnd(200));
        return;
    case 3:
        buf_printf(out, "\"type\":\"number\",\"minimum\":%d.%u,\"exclusiveMaximum\":%d", least, rnd(100),
                   least + 1 + (int)rnd(9));
        return;
    case 4: buf_puts(out, "\"enum\":[\"a\",2,null,[1],{\"k\":\"v\"}]"); return;
    case 5:
        buf_puts(out, "\"type\":\"array\",");
        add_list(out, depth);
        return;
    default: buf_puts(out, "\"type\":\"object\","); add_property_list(out, depth);
    }
}

static void add_schema(StrBuf *out, uint32_t depth) {
    buf_putc(out, '{');
    if (depth < 3 && rnd(5) == 0) {
        const char *kind = rnd(2) ? "anyOf" : "oneOf";
        buf_printf(out, "\"%s\":[", kind);
        add_schema(out, depth + 1);
        buf_putc(out, ',');
        add_schema(out, depth + 1);
        buf_putc(out, ']');
    } else {
        add_typed(out, depth);
    }
    buf_putc(out, '}');
}

// ---- a validator that shares nothing with the library but the parser --------------------------------------
static bool valid(const Json *schema, const Json *v);

static bool same(const Json *a, const Json *b) {
    if (a->kind != b->kind || a->n != b->n) return false;
    if (a->kind == JSON_BOOL) return a->boolean == b->boolean;
    if (a->kind == JSON_STRING || a->kind == JSON_INT) return str_eq(a->s, b->s);
    for (uint32_t i = 0; i < a->n && a->kind == JSON_ARRAY; i++)
        if (!same(&a->items[i], &b->items[i])) return false;
    for (uint32_t i = 0; i < a->n && a->kind == JSON_OBJECT; i++)
        if (!str_eq(a->members[i].key, b->members[i].key) ||
            !same(&a->members[i].value, &b->members[i].value))
            return false;
    return true;
}

static bool is_type(const Json *type, const Json *v) {
    static const char *const names[] = {"null", "boolean", "integer", "number", "string", "array", "object"};
    if (type->kind == JSON_ARRAY) {
        for (uint32_t i = 0; i < type->n; i++)
            if (is_type(&type->items[i], v)) return true;
        return false;
    }
    return str_is(type->s, names[v->kind]) || (v->kind == JSON_INT && str_is(type->s, "number"));
}

static size_t characters(Str s) {
    size_t n = 0;
    for (size_t i = 0; i < s.len; i++) n += ((uint8_t)s.ptr[i] & 0xC0) != 0x80;
    return n;
}

static bool valid_string(const Json *schema, Str s) {
    const Json *least = json_get(schema, "minLength"), *most = json_get(schema, "maxLength");
    unsigned a[4], n = 0;
    char text[32] = {0}, rest;
    if (least && characters(s) < (size_t)least->i) return false;
    if (most && characters(s) > (size_t)most->i) return false;
    if (json_get(schema, "pattern"))
        for (size_t i = 0; i < s.len || !s.len; i++)
            if (!s.len || (s.ptr[i] != 'a' && s.ptr[i] != 'b')) return false;
    if (!json_get(schema, "format")) return true;
    if (s.len > 15) return false;
    memcpy(text, s.ptr, s.len);
    n = (unsigned)sscanf(text, "%u.%u.%u.%u%c", &a[0], &a[1], &a[2], &a[3], &rest);
    return n == 4 && a[0] < 256 && a[1] < 256 && a[2] < 256 && a[3] < 256;
}

static bool valid_number(const Json *schema, double v) {
    const Json *least = json_get(schema, "minimum"), *most = json_get(schema, "maximum"),
               *below = json_get(schema, "exclusiveMaximum");
    return (!least || v >= json_number(least)) && (!most || v <= json_number(most)) &&
           (!below || v < json_number(below));
}

static bool valid_array(const Json *schema, const Json *v) {
    const Json *prefix = json_get(schema, "prefixItems"), *items = json_get(schema, "items");
    uint32_t n = prefix ? prefix->n : 0;
    if (v->n < json_get(schema, "minItems")->i || v->n > json_get(schema, "maxItems")->i) return false;
    for (uint32_t i = 0; i < v->n; i++)
        if (!valid(i < n ? &prefix->items[i] : items, &v->items[i])) return false;
    return true;
}

static bool valid_object(const Json *schema, const Json *v) {
    const Json *properties = json_get(schema, "properties"), *required = json_get(schema, "required");
    const Json *others = json_get(schema, "additionalProperties");
    char key[64];
    for (uint32_t i = 0; i < required->n; i++) {
        snprintf(key, sizeof key, STR_FMT, STR_ARG(required->items[i].s));
        if (!json_get(v, key)) return false;
    }
    for (uint32_t i = 0; i < v->n; i++) {
        const Json *own = NULL;
        for (uint32_t k = 0; k < properties->n; k++)
            if (str_eq(properties->members[k].key, v->members[i].key)) own = &properties->members[k].value;
        if (!own) own = others;
        if (!own || (own->kind == JSON_BOOL && !own->boolean) || !valid(own, &v->members[i].value))
            return false;
    }
    return true;
}

static bool valid(const Json *schema, const Json *v) {
    const Json *any = json_get(schema, "anyOf") ? json_get(schema, "anyOf") : json_get(schema, "oneOf");
    const Json *list = json_get(schema, "enum"), *type = json_get(schema, "type");
    for (uint32_t i = 0; any && i < any->n; i++)
        if (valid(&any->items[i], v)) return true;
    for (uint32_t i = 0; list && i < list->n; i++)
        if (same(&list->items[i], v)) return true;
    if (any || list || !is_type(type, v)) return false;
    switch (v->kind) {
    case JSON_STRING: return valid_string(schema, v->s);
    case JSON_INT:
    case JSON_REAL: return valid_number(schema, json_number(v));
    case JSON_ARRAY: return valid_array(schema, v);
    case JSON_OBJECT: return valid_object(schema, v);
    default: return true;
    }
}

// A random text of the grammar; false when it does not end within the steps.
static bool random_text(const Grammar *g, StrBuf *out) {
    static GrammarState s;
    uint32_t mask[WORDS], allowed[N_TOKENS];
    grammar_start(cached, g, &s);
    for (uint32_t k = 0; k < 400; k++) {
        uint32_t n = 0;
        assert_true(grammar_mask(cached, &s, mask));
        if (has(mask, EOS)) return true;
        for (uint32_t id = 0; id < N_TOKENS; id++)
            if (has(mask, id)) allowed[n++] = id;
        uint32_t token = has(mask, '"') && rnd(3) == 0 ? '"' : allowed[rnd(n)];
        assert_true(grammar_accept(cached, &s, token));
        buf_str(out, vocab_bytes(vocab, token));
    }
    return false;
}

static void test_random_schemas(void **state) {
    (void)state;
    uint32_t n_texts = 0, n_refused = 0;
    for (uint32_t i = 0; i < 600; i++) {
        Arena arena = {0};
        StrBuf text = {0}, schema_text = {0};
        add_schema(&schema_text, 0);
        const Json *schema = json_of(&arena, buf_cstr(&schema_text));
        Err e = {0};
        Grammar *g = grammar_from_schema(schema, &e);
        if (!g) n_refused++;
        for (uint32_t k = 0; g && k < 6; k++) {
            text.len = 0;
            if (!random_text(g, &text)) continue;
            Source src = {"text", buf_view(&text)};
            Diags d = {.arena = &arena};
            const Json *v = json_parse(&arena, &src, (JsonLimits){.dup = JSON_DUP_LAST}, &d);
            if (!v || !valid(schema, v)) fail_msg("%s\n%s", buf_cstr(&schema_text), buf_cstr(&text));
            n_texts++;
        }
        if (!g && !strstr(e.msg, "no text")) fail_msg("%s: %s", buf_cstr(&schema_text), e.msg);
        grammar_free(g);
        buf_free(&text);
        buf_free(&schema_text);
        arena_free(&arena);
    }
    print_message("%u texts, %u schemas that nothing satisfies\n", n_texts, n_refused);
    assert_true(n_texts > 1500);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_masks), cmocka_unit_test(test_limits),
                                       cmocka_unit_test(test_threads), cmocka_unit_test(test_random_schemas)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
