// Languages: what schemas, expressions, grammars and lists let through and what they do not; what is refused,
// and where the message says it stands.
#include "tests/unit/grammar_texts.h"

#include <stdio.h>

#include "runtime/base/log.h"
#include "runtime/base/num.h"

typedef struct {
    const char *constraint;
    const char *yes[12], *no[12]; // NULL ends
} Case;

static GrammarVocab *vocab;
static GrammarMasks *masks;

static int setup(void **state) {
    (void)state;
    vocab = bytes_vocab();
    masks = grammar_masks_new(vocab, 1 << 20);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    grammar_masks_free(masks);
    grammar_vocab_free(vocab);
    return 0;
}

typedef Grammar *(*Maker)(const char *text, Err *e);
static Grammar *make_regex(const char *text, Err *e) { return grammar_from_regex(str_of(text), e); }
static Grammar *make_gbnf(const char *text, Err *e) { return grammar_from_gbnf(str_of(text), e); }

static void check_cases(Maker make, const Case *cases, size_t n) {
    int wrong = 0;
    for (size_t i = 0; i < n; i++) {
        Err e = {0};
        Grammar *g = make(cases[i].constraint, &e);
        if (!g) {
            print_error("%s\n    refused: %s\n", cases[i].constraint, e.msg);
            wrong++;
            continue;
        }
        for (size_t k = 0; k < 12 && cases[i].yes[k]; k++)
            if (!matches(masks, g, str_of(cases[i].yes[k])))
                print_error("%s\n    keeps out %s\n", cases[i].constraint, cases[i].yes[k]), wrong++;
        for (size_t k = 0; k < 12 && cases[i].no[k]; k++)
            if (matches(masks, g, str_of(cases[i].no[k])))
                print_error("%s\n    lets through %s\n", cases[i].constraint, cases[i].no[k]), wrong++;
        grammar_free(g);
    }
    assert_int_equal(wrong, 0);
}

static void test_regex(void **state) {
    (void)state;
    static const Case cases[] = {
        {"abc", {"abc"}, {"", "ab", "abcd", "xabc"}},
        {"^abc$", {"abc"}, {"abcd"}},
        {"a|b|", {"a", "b", ""}, {"ab"}},
        {"(ab)*c", {"c", "abc", "ababc"}, {"ac", "abab"}},
        {"a{2,4}", {"aa", "aaa", "aaaa"}, {"a", "aaaaa"}},
        {"a{3}", {"aaa"}, {"aa", "aaaa"}},
        {"a{2,}b", {"aab", "aaaaaab"}, {"ab"}},
        {"(a{2}){2}", {"aaaa"}, {"aa", "aaaaaa"}},
        {"(a?b?){3}c", {"c", "abababc", "bbbc", "aac"}, {"bbbbc"}},
        {"x{,2}", {"x{,2}"}, {"xx"}},
        {"[a-c]+?", {"abc"}, {"", "d"}},
        {"[^a-c\n]", {"d", "\xC3\xA9", "\xF0\x9F\x98\x80"}, {"a", "\n", "\xC3", "de", "\x80"}},
        {"[]a]", {"]", "a"}, {"b"}},
        {"[a\\-z]", {"a", "-", "z"}, {"b"}},
        {"[\\d_-]{2}", {"1_", "--"}, {"a1"}},
        {".", {"a", "\xE2\x82\xAC"}, {"\n", "", "\xE2\x82", "\xED\xA0\x80", "\xC0\x80"}},
        {"\\w\\s\\D", {"a x", "_\t-"}, {"a 1", "--x"}},
        {"\\S", {"a", "\xC3\xA9"}, {" ", "\n", "\xC2\xA0", "\xE3\x80\x80"}},
        {"\\x41\\u00e9\\x{1F600}", {"A\xC3\xA9\xF0\x9F\x98\x80"}, {"A"}},
        {"\\p{Lu}\\p{Ll}+", {"Ab", "\xC3\x89\xC3\xA9"}, {"ab", "AB"}},
        {"\\P{L}", {"1", "\xE2\x82\xAC"}, {"a"}},
        {"[[:alpha:]]+", {"abC"}, {"a1"}},
        {"(?:a|b)(?P<n>c)(?<m>d)", {"acd", "bcd"}, {"cd"}},
        {"\\.\\*\\\\", {".*\\"}, {"a*\\"}},
        {"(a+)+b", {"aaaaab"}, {"aaaa"}},
        {"[\xC3\xA9-\xC3\xAB]", {"\xC3\xA9", "\xC3\xAA"}, {"\xC3\xAC", "\xC3"}},
    };
    check_cases(make_regex, cases, COUNT_OF(cases));
}

static void test_gbnf(void **state) {
    (void)state;
    static const Case cases[] = {
        {"root ::= \"a\" | \"b\" # or\n", {"a", "b"}, {"", "ab"}},
        {"root ::= x+ y?\nx ::= [a-c] | \"\\\"\"\ny ::= \"\\n\"", {"ab\"", "c\n"}, {"", "\n"}},
        {"root ::= (\"a\"\n | \"b\") \"c\"", {"ac", "bc"}, {"a"}},
        {"root ::= \"a\" |\n  \"b\"\n", {"a", "b"}, {"c"}},
        {"root ::= \"a\"\n  | \"b\"\n", {"a", "b"}, {"c"}},
        {"root ::= [^\\x41-\\x43]{2,3}",
         {"DD", "DDD",
          "\xE2\x82\xAC"
          "D"},
         {"D", "AD", "DDDD"}},
        {"root ::= \"(\" root \")\" | \"x\"", {"x", "((x))"}, {"(x", "x)"}},
        {"root ::= expr\nexpr ::= term ((\"+\" | \"-\") term)*\nterm ::= [0-9]+ | \"(\" expr \")\"",
         {"1", "1+2", "(1-(2+33))-4"},
         {"1+", "(1", "+1"}},
        {"root ::= \"a\" root \"b\" | \"\"", {"", "ab", "aabb"}, {"aab", "abb"}},
        {"root ::= \"a\" root | \"a\" root \"b\" | \"a\"", {"a", "aab", "aaabb", "aaaa"}, {"aabb", "b"}},
        {"root ::= .{2}", {"ab", "\n\xE2\x82\xAC"}, {"a"}},
        {"root ::= \"\\u00e9\" \"\\U0001F600\" [\\]\\-]",
         {"\xC3\xA9\xF0\x9F\x98\x80]", "\xC3\xA9\xF0\x9F\x98\x80-"},
         {"\xC3\xA9"}},
        {"root ::= ws \"a\" ws\nws ::= [ \\t]*", {"a", "  a\t"}, {"b"}},
        {"root ::= (ws \"a\")* ws\nws ::= | \" \" ws", {"", "a", "  a a ", " "}, {"b"}},
    };
    check_cases(make_gbnf, cases, COUNT_OF(cases));
}

static void test_schema_scalars(void **state) {
    (void)state;
    static const Case cases[] = {
        {"{\"type\":\"integer\"}", {"0", "-5", "123456"}, {"01", "1.5", "", "-", "1e5"}},
        {"{\"type\":\"number\"}", {"0", "-5.25", "1e5", "1.5E-3"}, {".5", "1.", "01", "+1"}},
        {"{\"type\":[\"boolean\",\"null\"]}", {"true", "false", "null"}, {"0", "nul"}},
        {"{\"type\":\"string\"}",
         {"\"\"", "\"a\\n\\u00e9\\ud83d\\ude00\"", "\"\xC3\xA9\""},
         {"\"", "\"\n\"", "\"\\ud83d\"", "\"\\x\"", "\"\xC3\"", "a"}},
        {"{\"type\":\"string\",\"minLength\":2,\"maxLength\":3}",
         {"\"ab\"", "\"\xC3\xA9\\n\\ud83d\\ude00\""},
         {"\"a\"", "\"abcd\"", "\"\\u0041\""}},
        {"{\"type\":\"string\",\"maxLength\":0}", {"\"\""}, {"\"a\""}},
        {"{\"enum\":[\"a\\\"\",1,null,[1,{\"k\":false}]]}",
         {"\"a\\\"\"", "1", "null", "[1,{\"k\":false}]", "[1, {\"k\": false}]"},
         {"\"a\"", "2"}},
        {"{\"const\":\"x\"}", {"\"x\""}, {"\"y\""}},
        {"{\"type\":\"string\",\"enum\":[\"a\",1]}", {"\"a\""}, {"1"}},
        {"{\"type\":\"string\",\"pattern\":\"^[a-z]{2}\\\"\"}",
         {"\"ab\\\"\"", "\"ab\\\"zz\""},
         {"\"ab\"", "\"a\\\"\""}},
        {"{\"type\":\"string\",\"pattern\":\"b\"}", {"\"b\"", "\"abc\""}, {"\"a\""}},
        {"{\"type\":\"string\",\"pattern\":\"^a$|^b\"}", {"\"a\"", "\"bc\""}, {"\"ab\"", "\"ac\""}},
        {"{\"type\":\"string\",\"pattern\":\"^a+$\",\"minLength\":2,\"maxLength\":4}",
         {"\"aa\"", "\"aaaa\""},
         {"\"a\"", "\"aaaaa\""}},
        {"{\"type\":\"string\",\"format\":\"date\"}",
         {"\"2024-02-29\"", "\"2023-12-31\"", "\"2000-02-29\""},
         {"\"2023-02-29\"", "\"1900-02-29\"", "\"2023-13-01\"", "\"2023-04-31\"", "\"0000-01-01\""}},
        {"{\"type\":\"string\",\"format\":\"date-time\"}",
         {"\"2024-02-29T23:59:59Z\"", "\"2024-01-01T00:00:00.123+01:00\""},
         {"\"2024-01-01\"", "\"2024-01-01T24:00:00Z\""}},
        {"{\"type\":\"string\",\"format\":\"uuid\"}",
         {"\"123e4567-e89b-12d3-a456-426614174000\""},
         {"\"123e4567\""}},
        {"{\"type\":\"string\",\"format\":\"ipv4\"}",
         {"\"127.0.0.1\"", "\"255.1.20.99\""},
         {"\"256.1.1.1\"", "\"01.1.1.1\""}},
        {"{\"type\":\"string\",\"format\":\"ipv6\"}",
         {"\"::1\"", "\"2001:db8::1\"", "\"1:2:3:4:5:6:7:8\""},
         {"\"1:2\"", "\":::\""}},
        {"{\"type\":\"string\",\"format\":\"email\"}", {"\"a.b@example.org\""}, {"\"a@b\"", "\"@b.c\""}},
        {"true", {"1", "{\"a\":[1, {}]}", "\"x\"", "[]"}, {"", "{a}", "[1,]"}},
        {"{}", {"null", "[[], [ ]]", "{\n  \"a\": 1,\n  \"b\": {}\n}"}, {"[1  ,2]", "{\"a\":  1}"}},
    };
    check_cases(schema_of, cases, COUNT_OF(cases));
}

static void test_schema_bounds(void **state) {
    (void)state;
    static const Case cases[] = {
        {"{\"type\":\"integer\",\"minimum\":1,\"maximum\":100}",
         {"1", "9", "99", "100"},
         {"0", "101", "-1", "1.0", "1000"}},
        {"{\"type\":\"integer\",\"minimum\":-12,\"maximum\":7}",
         {"-12", "-9", "0", "7", "-1"},
         {"-13", "8", "-20", "-0", "10"}},
        {"{\"type\":\"integer\",\"exclusiveMinimum\":18,\"exclusiveMaximum\":21}",
         {"19", "20"},
         {"18", "21", "2", "200"}},
        {"{\"type\":\"integer\",\"minimum\":0.5}", {"1", "10"}, {"0", "-1"}},
        {"{\"type\":\"integer\",\"maximum\":-3}", {"-3", "-30"}, {"-2", "0", "3"}},
        {"{\"type\":\"number\",\"minimum\":0.5,\"maximum\":2.25}",
         {"0.5", "0.50", "1", "2", "2.2", "2.25", "2.2500", "0.51"},
         {"0.49", "2.251", "3", "0", "0.05", "20"}},
        {"{\"type\":\"number\",\"exclusiveMinimum\":0,\"exclusiveMaximum\":1}",
         {"0.1", "0.001", "0.99"},
         {"0", "0.0", "1", "1.0", "-0.5"}},
        {"{\"type\":\"number\",\"minimum\":-1.5,\"maximum\":1e1}",
         {"-1.5", "-1", "-0.3", "0", "10", "9.99", "10.0"},
         {"-1.51", "10.01", "-2", "11"}},
        {"{\"type\":\"number\",\"exclusiveMaximum\":0}", {"-1", "-0.1"}, {"0", "0.0", "-0", "-0.0", "1"}},
        {"{\"type\":\"number\",\"exclusiveMinimum\":-2.25,\"exclusiveMaximum\":3.5}",
         {"-2.24", "-2.2", "-2", "3.49", "3"},
         {"-2.25", "-2.250", "3.5", "3.50"}},
        {"{\"type\":\"number\",\"maximum\":0}", {"-1", "0", "0.0"}, {"0.1", "1"}},
        {"{\"type\":\"integer\",\"multipleOf\":7}", {"0", "7", "-14", "700"}, {"8", "1"}},
        {"{\"type\":\"number\",\"multipleOf\":0.01}", {"1", "1.5", "1.25"}, {"1.255"}},
    };
    check_cases(schema_of, cases, COUNT_OF(cases));
}

static void test_schema_containers(void **state) {
    (void)state;
    static const Case cases[] = {
        {"{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"integer\"},\"b\":{\"type\":\"boolean\"},"
         "\"c\":{\"type\":\"null\"}},\"required\":[\"b\"]}",
         {"{\"b\":true}", "{\"a\": 1, \"b\": false}", "{\"a\":1,\"b\":true,\"c\":null}",
          "{\n  \"b\": true,\n  \"c\": null\n}", "{\"b\":true,\"c\":null}"},
         {"{}", "{\"a\":1}", "{\"b\":true,\"a\":1}", "{\"b\":true,}", "{\"b\":1}", "{\"b\":true,\"d\":1}",
          "{,\"b\":true}", "{\"b\":true\"c\":null}"}},
        {"{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"integer\"}}}",
         {"{}", "{\"a\":1}", "{ }"},
         {"{\"b\":1}"}},
        {"{\"type\":\"object\",\"properties\":{\"ab\":{\"type\":\"integer\"}},\"additionalProperties\":{"
         "\"type\":\"boolean\"}}",
         {"{}", "{\"ab\":1}", "{\"ab\":1,\"x\":true}", "{\"x\":true,\"abc\":false}", "{\"a\":true}"},
         {"{\"ab\":true}", "{\"x\":1}", "{\"\\u0061b\":true}", "{\"x\":true,\"ab\":1}"}},
        {"{\"type\":\"object\",\"additionalProperties\":{\"type\":\"integer\"},\"minProperties\":1}",
         {"{\"a\":1}", "{\"a\":1,\"b\":2}"},
         {"{}", "{\"a\":\"b\"}"}},
        {"{\"type\":\"object\",\"additionalProperties\":{\"type\":\"integer\"},\"maxProperties\":1}",
         {"{}", "{\"a\":1}"},
         {"{\"a\":1,\"b\":2}"}},
        {"{\"type\":\"object\",\"additionalProperties\":true,\"propertyNames\":{\"pattern\":\"^x\"}}",
         {"{}", "{\"xa\":[1]}"},
         {"{\"a\":1}"}},
        {"{\"type\":\"object\",\"patternProperties\":{\"^x-\":{\"type\":\"integer\"},\"^y\":{\"type\":"
         "\"null\"}}}",
         {"{}", "{\"x-a\":1}", "{\"y\":null,\"x-\":2}"},
         {"{\"a\":1}", "{\"x-a\":null}", "{\"x\":1}", "{\"y\":1}"}},
        {"{\"type\":\"object\",\"properties\":{\"x1\":{\"maximum\":5},\"b\":{\"type\":\"null\"}},"
         "\"patternProperties\":{\"^x\":{\"type\":\"integer\"}},\"additionalProperties\":{\"type\":"
         "\"boolean\"}}",
         {"{}", "{\"x1\":5,\"b\":null,\"x2\":9,\"c\":true}"},
         {"{\"x1\":6}", "{\"x2\":true}", "{\"c\":1}", "{\"b\":true}"}},
        {"{\"type\":\"object\",\"allOf\":[{\"properties\":{\"a\":{\"type\":\"null\"}}}],"
         "\"unevaluatedProperties\":false}",
         {"{}", "{\"a\":null}"},
         {"{\"b\":1}"}},
        {"{\"type\":\"object\",\"additionalProperties\":false}", {"{}"}, {"{\"a\":1}"}},
        {"{\"type\":\"object\",\"required\":[\"a\"]}", {"{\"a\":[]}"}, {"{}"}},
        {"{\"type\":\"array\",\"items\":{\"type\":\"integer\"}}",
         {"[]", "[1]", "[1, 2,3]", "[\n  1,\n  2\n]"},
         {"[1,]", "[,1]", "[1 2]", "[\"a\"]"}},
        {"{\"type\":\"array\",\"items\":{\"type\":\"integer\"},\"minItems\":2,\"maxItems\":3}",
         {"[1,2]", "[1,2,3]"},
         {"[]", "[1]", "[1,2,3,4]"}},
        {"{\"type\":\"array\",\"prefixItems\":[{\"type\":\"integer\"},{\"type\":\"boolean\"}],\"items\":"
         "false,\"minItems\":1}",
         {"[1]", "[1,true]"},
         {"[]", "[true]", "[1,true,1]"}},
        {"{\"type\":\"array\",\"prefixItems\":[{\"type\":\"integer\"}],\"items\":{\"type\":\"null\"},"
         "\"minItems\":2}",
         {"[1,null]", "[1,null,null]"},
         {"[1]", "[null,null]"}},
        {"{\"type\":\"array\",\"maxItems\":0}", {"[]"}, {"[1]"}},
        {"{\"type\":\"array\"}", {"[]", "[1,\"a\",[]]"}, {"{}"}},
    };
    check_cases(schema_of, cases, COUNT_OF(cases));
}

static void test_schema_references(void **state) {
    (void)state;
    static const Case cases[] = {
        {"{\"$ref\":\"#/$defs/"
         "n\",\"$defs\":{\"n\":{\"type\":\"object\",\"properties\":{\"v\":{\"type\":\"integer\"},\"next\":{"
         "\"anyOf\":[{\"$ref\":\"#/$defs/n\"},{\"type\":\"null\"}]}},\"required\":[\"v\",\"next\"]}}}",
         {"{\"v\":1,\"next\":null}", "{\"v\":1,\"next\":{\"v\":2,\"next\":null}}"},
         {"{\"v\":1}", "{\"v\":1,\"next\":{}}"}},
        {"{\"type\":\"object\",\"properties\":{\"c\":{\"type\":\"array\",\"items\":{\"$ref\":\"#\"}}},"
         "\"required\":[\"c\"]}",
         {"{\"c\":[]}", "{\"c\":[{\"c\":[]},{\"c\":[]}]}"},
         {"{\"c\":[1]}"}},
        {"{\"anyOf\":[{\"type\":\"integer\"},{\"type\":\"string\",\"maxLength\":1}]}",
         {"1", "\"a\""},
         {"\"ab\"", "null"}},
        {"{\"oneOf\":[{\"const\":1},{\"const\":2}]}", {"1", "2"}, {"3"}},
        {"{\"allOf\":[{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"integer\"}},\"required\":[\"a\"]"
         "},{\"properties\":{\"b\":{\"type\":\"null\"}},\"required\":[\"b\"]}]}",
         {"{\"a\":1,\"b\":null}"},
         {"{\"a\":1}", "{\"b\":null}"}},
        {"{\"allOf\":[{\"type\":\"integer\",\"minimum\":3},{\"maximum\":5}]}", {"3", "5"}, {"2", "6"}},
        {"{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"integer\"},\"b\":{\"type\":\"integer\"}},"
         "\"anyOf\":[{\"required\":[\"a\"]},{\"required\":[\"b\"]}]}",
         {"{\"a\":1}", "{\"b\":1}", "{\"a\":1,\"b\":2}"},
         {"{}"}},
        {"{\"$defs\":{\"a/b~\":{\"type\":\"null\"}},\"type\":\"array\",\"items\":{\"$ref\":\"#/$defs/"
         "a~1b~0\"}}",
         {"[null]"},
         {"[1]"}},
        {"{\"$defs\":{\"a b\":{\"type\":\"null\"}},\"$ref\":\"#/$defs/a%20b\"}", {"null"}, {"1"}},
        {"{\"$ref\":\"#/$defs/s\",\"maxLength\":1,\"$defs\":{\"s\":{\"type\":\"string\"}}}",
         {"\"a\""},
         {"\"ab\""}},
        {"{\"type\":\"string\",\"nullable\":true}", {"null", "\"a\""}, {"1"}},
        {"{\"anyOf\":[{\"type\":\"integer\"},false]}", {"1"}, {"null"}},
        {"{\"type\":\"object\",\"properties\":{\"a\":false,\"b\":{\"type\":\"integer\"}}}",
         {"{}", "{\"b\":1}"},
         {"{\"a\":1}"}},
    };
    check_cases(schema_of, cases, COUNT_OF(cases));
}

typedef struct {
    const char *text, *says;
} Refused;

static void check_refused(Maker make, const Refused *cases, size_t n) {
    int wrong = 0;
    for (size_t i = 0; i < n; i++) {
        Err e = {0};
        Grammar *g = make(cases[i].text, &e);
        if (g || !strstr(e.msg, cases[i].says))
            print_error("%.200s\n    %s\n", cases[i].text, g ? "is not refused" : e.msg), wrong++;
        grammar_free(g);
    }
    assert_int_equal(wrong, 0);
}

static void test_refused(void **state) {
    (void)state;
    static const Refused schemas[] = {
        {"{\"type\":\"object\",\"properties\":{\"a\":{\"if\":{}}}}", "/properties/a/if: keyword `if`"},
        {"{\"not\":{}}", "schema /not:"},
        {"{\"type\":\"object\",\"properties\":{\"a~/\":{\"frobnicate\":1}}}", "/properties/a~0~1/frobnicate"},
        {"{\"type\":\"array\",\"items\":{\"type\":\"integer\"},\"uniqueItems\":true}", "/uniqueItems"},
        {"{\"anyOf\":[{\"type\":\"string\"},{\"type\":\"object\",\"dependentRequired\":{}}]}",
         "/anyOf/1/dependentRequired"},
        {"{\"patternProperties\":{\"a\":true,\"b\":true}}", "/patternProperties/b: a name can match"},
        {"{\"patternProperties\":{\"(\":true}}", "/patternProperties/(: byte 0"},
        {"{\"allOf\":[{\"properties\":{\"a\":true}},{\"unevaluatedProperties\":false}]}",
         "/allOf/1/unevaluatedProperties"},
        {"{\"unevaluatedProperties\":true}", "schema /unevaluatedProperties"},
        {"{\"$ref\":\"http://x/y\"}", "/$ref"},
        {"{\"$ref\":\"#/$defs/x\"}", "refers to nothing"},
        {"{\"$ref\":\"#\"}", "refers to itself"},
        {"{\"anyOf\":[{\"$ref\":\"#\"},{\"type\":\"null\"}]}", "refers to itself"},
        {"{\"type\":\"strin\"}", "schema /type:"},
        {"{\"type\":\"string\",\"format\":\"color\"}", "/format: unknown format"},
        {"{\"type\":\"string\",\"pattern\":\"(?=a)\"}", "schema /pattern: byte 1"},
        {"{\"type\":\"string\",\"minLength\":-1}", "/minLength"},
        {"{\"type\":\"array\",\"maxItems\":100000}", "at most 4096"},
        {"{\"enum\":[]}", "/enum"},
        {"{\"enum\":[\"a\"],\"pattern\":\"a\"}", "/pattern: keyword `pattern` beside enum"},
        {"false", "no text"},
        {"{\"allOf\":[{\"type\":\"string\"},{\"type\":\"null\"}]}", "no text"},
        {"{\"type\":\"integer\",\"minimum\":3,\"maximum\":2}", "no text"},
        {"{\"type\":\"object\",\"properties\":{\"a\":{\"$ref\":\"#\"}},\"required\":[\"a\"]}", "no text"},
        {"3", "must be an object, true or false"},
        {"{\"type\":\"object\",\"properties\":{\"a\":3}}", "/properties/a: a schema"},
        {"{\"type\":\"object\",\"required\":true}", "/required"},
    };
    static const Refused regexes[] = {
        {"(", "byte 0"},
        {"a)", "byte 1"},
        {"a**", "byte 2"},
        {"*a", "byte 0"},
        {"[a", "byte 0"},
        {"[b-a]", "byte 1"},
        {"a{3,2}", "byte 1"},
        {"\\1", "back references"},
        {"a\\b", "byte 1"},
        {"(?i)a", "flags"},
        {"(?!a)", "look-around"},
        {"a^b", "byte 1"},
        {"a$b", "byte 1"},
        {"a{5000}", "4096"},
        {"\\p{Foo}", "category"},
        {"\xFF", "not UTF-8"},
        {"((a{1,99}){1,99}){1,99}", "more than"},
        {"\\", "ends with"},
        {"[^\\x{0}-\\x{10FFFF}]", "no text"},
        {"(a|b)*a(a|b){30}", "65536 states"},
    };
    static const Refused grammars[] = {
        {"", "there is no rule `root`"},
        {"root = \"a\"", "line 1"},
        {"root ::= x", "line 1 of the grammar: rule `x`"},
        {"root ::= \"a\n", "line 1"},
        {"root ::= root \"a\" | \"b\"", "left recursion"},
        {"\n\nroot ::= (\"a\"", "line 3"},
        {"root ::= a\na ::= b \"x\"\nb ::= c?  a\nc ::= \"c\"", "left recursion"},
        {"root ::= [a", "`[`"},
        {"root ::= \"\\q\"", "escape"},
        {"root ::= \"a\" )", "line 1"},
        {"root ::= \"a\"{3,2}", "n < m"},
        {"root ::= \"a\"\nroot ::= \"b\"", "twice"},
        {"root ::= \"(\" root \")\"", "no text"},
    };
    check_refused(schema_of, schemas, COUNT_OF(schemas));
    check_refused(make_regex, regexes, COUNT_OF(regexes));
    check_refused(make_gbnf, grammars, COUNT_OF(grammars));
}

static void test_choice(void **state) {
    (void)state;
    Err e = {0};
    Str list[] = {STR("yes"), STR("no"), STR("nothing")};
    Grammar *g = grammar_from_choice(list, 3, &e);
    assert_non_null(g);
    assert_true(matches(masks, g, STR("yes")));
    assert_true(matches(masks, g, STR("no")));
    assert_true(matches(masks, g, STR("nothing")));
    assert_false(matches(masks, g, STR("not")));
    grammar_free(g);
    assert_null(grammar_from_choice(list, 0, &e));
    assert_int_equal(e.code, E_GRAMMAR);
    list[1] = (Str){0};
    assert_null(grammar_from_choice(list, 3, &e));
    assert_non_null(strstr(e.msg, "choice 1"));
}

static void test_calls(void **state) {
    (void)state;
    Err e = {0};
    Arena arena = {0};
    GrammarCall calls[] = {
        {STR("<call>{\"name\": \"f\", \"arguments\": "), STR("}</call>"),
         json_of(&arena, "{\"type\":\"object\",\"properties\":{\"x\":{\"$ref\":\"#/$defs/"
                         "i\"}},\"required\":[\"x\"],\"$defs\":{\"i\":{\"type\":\"integer\"}}}")},
        {STR("<call>{\"name\": \"g\", \"arguments\": "), STR("}</call>"), NULL}};
    Grammar *g = grammar_from_calls(calls, 2, STR("\n"), 2, &e);
    assert_non_null(g);
    arena_free(&arena);
#define F "<call>{\"name\": \"f\", \"arguments\": {\"x\": 1}}</call>"
#define G "<call>{\"name\": \"g\", \"arguments\": {\"any\": [1]}}</call>"
    assert_true(matches(masks, g, STR(F)));
    assert_true(matches(masks, g, STR(G)));
    assert_true(matches(masks, g, STR(G "\n" F)));
    assert_false(matches(masks, g, STR(F "\n" F "\n" F)));
    assert_false(matches(masks, g, STR(F F)));
    assert_false(matches(masks, g, STR("<call>{\"name\": \"f\", \"arguments\": {}}</call>")));
    grammar_free(g);
}

// Whitespace cannot go on without end, nor nesting.
static void test_bounded(void **state) {
    (void)state;
    Err e = {0};
    Grammar *g = grammar_from_any_object(&e);
    assert_non_null(g);
    StrBuf text = {0};
    buf_puts(&text, "{\n");
    for (int i = 0; i < 25; i++) buf_putc(&text, ' ');
    buf_puts(&text, "}");
    assert_false(matches(masks, g, buf_view(&text)));
    for (size_t depth = 150; depth < 260; depth += 50) {
        text.len = 0;
        buf_puts(&text, "{\"a\":");
        for (size_t i = 0; i < depth; i++) buf_putc(&text, '[');
        for (size_t i = 0; i < depth; i++) buf_putc(&text, ']');
        buf_putc(&text, '}');
        assert_int_equal(matches(masks, g, buf_view(&text)), depth <= 200);
    }
    buf_free(&text);
    grammar_free(g);
}

static void test_forced(void **state) {
    (void)state;
    Err e = {0};
    char out[64];
    GrammarState *s = malloc(sizeof *s);
    Grammar *g = grammar_from_regex(STR("abc(d|e)f"), &e);
    grammar_start(masks, g, s);
    assert_int_equal(grammar_forced(masks, s, out, sizeof out), 3);
    assert_memory_equal(out, "abc", 3);
    assert_true(grammar_accept_bytes(masks, s, STR("abc")));
    assert_int_equal(grammar_forced(masks, s, out, sizeof out), 0);
    assert_true(grammar_accept_bytes(masks, s, STR("d")));
    assert_false(grammar_accept_bytes(masks, s, STR("x")));
    assert_int_equal(grammar_forced(masks, s, out, sizeof out), 1);
    assert_true(grammar_accept_bytes(masks, s, STR("f")));
    assert_true(grammar_can_end(s));
    assert_true(grammar_accept(masks, s, BYTES_EOS));
    assert_false(grammar_accept(masks, s, BYTES_EOS));
    assert_false(grammar_accept(masks, s, 'a'));
    grammar_free(g);
    free(s);
}

static Grammar *make_repeated(Maker make, const char *begin, const char *unit, size_t n, const char *end,
                              Err *e) {
    StrBuf text = {0};
    buf_puts(&text, begin);
    for (size_t i = 0; i < n; i++) buf_puts(&text, unit);
    buf_puts(&text, end);
    Grammar *g = make(buf_cstr(&text), e);
    buf_free(&text);
    return g;
}

// Text made to be nested or to explode: an answer or an error within the budget.
static void test_hostile(void **state) {
    (void)state;
    static const char *const units[] = {"(",      "(a", "[a", "a{1,99}", "(?:",    "|",
                                        "\\p{L}", ".",  "a|", "(a*)*",   "(.?x?)*"};
    static const char *const regexes[] = {"(a+)+b",
                                          "(x?){4096}",
                                          "(.?){1000}",
                                          "(a|b)*a(a|b){15}",
                                          "(a?){1000}a{1000}",
                                          "[^a]{1,4096}",
                                          "(\\p{L}|\\p{N}){1,60}",
                                          "(.*a.*b){40}",
                                          "(.*)(.*)(.*)(.*)(.*)x"};
    double worst_s = 0;
    for (size_t i = 0; i < 2 * COUNT_OF(units) + COUNT_OF(regexes); i++) {
        Err e = {0};
        Grammar *g;
        double start = clock_s();
        if (i < COUNT_OF(units))
            g = make_repeated(make_regex, "", units[i], 20000, "", &e);
        else if (i < 2 * COUNT_OF(units))
            g = make_repeated(make_gbnf, "root ::= ", units[i - COUNT_OF(units)], 20000, "", &e);
        else
            g = make_regex(regexes[i - 2 * COUNT_OF(units)], &e);
        worst_s = MAX(worst_s, clock_s() - start);
        assert_true(g || e.code == E_LIMIT || e.code == E_GRAMMAR);
        grammar_free(g);
    }
    print_message("the slowest took %.0f ms\n", worst_s * 1e3);
    assert_true(worst_s < 20);
}

// Rules that call each other twice: their number of ways doubles with each, their automata do not.
static void test_many_rules(void **state) {
    (void)state;
    Err e = {0};
    StrBuf text = {0};
    buf_puts(&text, "root ::= r0\n");
    for (int i = 0; i < 30; i++)
        buf_printf(&text, "r%d ::= \"(\" r%d r%d \")\" | \"x\" root?\n", i, i + 1, i + 1);
    buf_puts(&text, "r30 ::= \"b\"\n");
    Grammar *g = grammar_from_gbnf(buf_view(&text), &e);
    assert_non_null(g);
    assert_true(matches(masks, g, STR("((xx)(xx))")));
    assert_false(matches(masks, g, STR("((xx)(x))")));
    grammar_free(g);
    for (int i = 31; i < 4200; i++) buf_printf(&text, "r%d ::= \"x\"\n", i);
    assert_null(grammar_from_gbnf(buf_view(&text), &e));
    assert_int_equal(e.code, E_LIMIT);
    assert_non_null(strstr(e.msg, "4096 rules"));
    buf_free(&text);
}

// A schema of n optional properties, n <= 200.
static void test_many_properties(void **state) {
    (void)state;
    for (int n = 12; n <= 204; n += 48) {
        Err e = {0};
        StrBuf text = {0};
        buf_puts(&text, "{\"type\":\"object\",\"properties\":{");
        for (int i = 0; i < n; i++) buf_printf(&text, "%s\"p%d\":{\"type\":\"null\"}", i ? "," : "", i);
        buf_puts(&text, "}}");
        Grammar *g = schema_of(buf_cstr(&text), &e);
        assert_int_equal(g != NULL, n <= 200);
        if (!g) assert_int_equal(e.code, E_LIMIT);
        if (g) assert_true(matches(masks, g, STR("{\"p1\":null, \"p3\":null,\"p11\":null}")));
        if (g) assert_true(matches(masks, g, STR("{\"p11\":null}")));
        if (g) assert_false(matches(masks, g, STR("{\"p3\":null,\"p1\":null}")));
        if (g) assert_false(matches(masks, g, STR("{\"p1\":null,}")));
        grammar_free(g);
        buf_free(&text);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_regex),
        cmocka_unit_test(test_gbnf),
        cmocka_unit_test(test_schema_scalars),
        cmocka_unit_test(test_schema_bounds),
        cmocka_unit_test(test_schema_containers),
        cmocka_unit_test(test_schema_references),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_choice),
        cmocka_unit_test(test_calls),
        cmocka_unit_test(test_bounded),
        cmocka_unit_test(test_forced),
        cmocka_unit_test(test_hostile),
        cmocka_unit_test(test_many_rules),
        cmocka_unit_test(test_many_properties),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
