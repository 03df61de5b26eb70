// The chat templates of the two real tokenizers and of many small ones, compiled, verified and run, against
// what transformers answers; hostile templates and hostile programs.
#include "tests/unit/unit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "compiler/frontend/jinja.h"
#include "compiler/frontend/tokenizer_pack.h"
#include "runtime/base/file.h"
#include "runtime/base/num.h"
#include "runtime/text/chat.h"
#include "runtime/text/chat_format.h"
#include "tests/unit/golden.h"

typedef struct {
    Arena arena;
    StrBuf section;
    Chat *chat;
} Program;

static bool compile(Program *p, Str text, Diags *d) {
    Source *src = ARENA_NEW(&p->arena, Source);
    *src = (Source){"t.jinja", text};
    JinjaVar bos = {STR("bos_token"), STR("<s>")};
    if (!jinja_compile(&p->arena, src, &bos, 1, &p->section, d)) return false;
    Err e = {0};
    p->chat = chat_open(&p->arena, p->section.ptr, p->section.len, &e);
    if (!p->chat) fail_msg("compiled, but refused: %s", e.msg);
    return true;
}

static void program_free(Program *p) {
    buf_free(&p->section);
    arena_free(&p->arena);
}

static const Json *parse_line(Arena *a, Str line) {
    Diags d = {.arena = a};
    Source *src = ARENA_NEW(a, Source);
    *src = (Source){"line", line};
    const Json *j = json_parse(a, src, (JsonLimits){.dup = JSON_DUP_LAST}, &d);
    if (!j) fail_msg("%s", diags_first_message(&d));
    return j;
}

static ChatInput input_of(const Json *line) {
    return (ChatInput){json_get(line, "messages"), json_get(line, "tools"), json_get(line, "kwargs")};
}

// Calls `check` with each line of a file.
static size_t each_line(const char *path, void (*check)(void *ctx, size_t line, const Json *j), void *ctx) {
    Arena whole = {0};
    const Str text = golden_read(&whole, path);
    size_t n = 0;
    for (size_t begin = 0, end; begin < text.len; begin = end + 1) {
        const char *newline = memchr(text.ptr + begin, '\n', text.len - begin);
        end = newline ? (size_t)(newline - text.ptr) : text.len;
        Arena a = {0};
        check(ctx, ++n, parse_line(&a, str_sub(text, begin, end)));
        arena_free(&a);
    }
    arena_free(&whole);
    return n;
}

// ---- the real templates --------------------------------------------------------------------------

typedef struct {
    const char *name;
    Program program;
    StrBuf tok_section;
    Tokenizer *tok;
    ChatControl *control;
} Model;

static void unpack(const char *name, char dir[256]) {
    char command[512];
    snprintf(dir, 256, "build/tokenizers/%s", name);
    if (dir_exists(dir)) return;
    snprintf(
        command, sizeof command,
        "t=$(mktemp -d build/tok.XXXXXX) && python3 -m tarfile -e tests/golden/tokenizers/%s.tar.xz $t && "
        "mkdir -p build/tokenizers && { mv -T $t/%s %s 2>/dev/null || true; } && rm -rf $t",
        name, name, dir);
    assert_int_equal(system(command), 0);
}

static void model_open(Model *m, const char *name, uint64_t rows) {
    char dir[256];
    bool present;
    Err e = {0};
    Diags d = {.arena = &m->program.arena};
    unpack(name, dir);
    m->name = name;
    if (!chat_pack(&m->program.arena, dir, &m->program.section, &present, &d) ||
        !tokenizer_pack(&m->program.arena, dir, rows, &m->tok_section, &d))
        diags_print(&d, "test", stderr);
    assert_int_equal(d.n_errors, 0);
    assert_true(present);
    m->program.chat = chat_open(&m->program.arena, m->program.section.ptr, m->program.section.len, &e);
    m->tok = tokenizer_open(&m->program.arena, m->tok_section.ptr, m->tok_section.len, &e);
    if (!m->program.chat || !m->tok) fail_msg("%s", e.msg);
    m->control = chat_control(&m->program.arena, m->tok);
}

static void check_answer(void *ctx, size_t line, const Json *j) {
    Model *m = ctx;
    Arena a = {0};
    ChatText text;
    Err e = {0};
    bool ok = chat_render(m->program.chat, &a, input_of(j), &text, &e);
    const Json *error = json_get(j, "error"), *want = json_get(j, "text"), *ids = json_get(j, "safe_ids");
    if (ok == (error != NULL)) fail_msg("%s:%zu: %s", m->name, line, ok ? "not refused" : e.msg);
    if (error) {
        bool words = str_is(json_get(j, "error_type")->s, "TemplateError");
        if (words && !str_is(error->s, e.msg)) fail_msg("%s:%zu: other words: %s", m->name, line, e.msg);
    } else {
        Ids got = {0};
        if (!str_eq(text.text, want->s)) fail_msg("%s:%zu: " STR_FMT, m->name, line, STR_ARG(text.text));
        if (!chat_encode(m->control, &text, &got, &e)) fail_msg("%s:%zu: %s", m->name, line, e.msg);
        if (got.n != ids->n) fail_msg("%s:%zu: %zu ids, not %u", m->name, line, got.n, ids->n);
        for (size_t i = 0; i < got.n; i++)
            if ((int64_t)got.ptr[i] != ids->items[i].i)
                fail_msg("%s:%zu: id %zu is %u", m->name, line, i, got.ptr[i]);
        ids_free(&got);
    }
    arena_free(&a);
}

static void real_templates_answer_as_transformers(void **state) {
    static const struct {
        const char *name, *lines;
        uint64_t rows;
        size_t n;
    } models[] = {{"qwen3", "tests/golden/text/chat-qwen3.jsonl.xz", 151936, 93},
                  {"gemma3", "tests/golden/text/chat-gemma3.jsonl.xz", 262208, 77}};
    (void)state;
    for (size_t i = 0; i < COUNT_OF(models); i++) {
        Model m = {0};
        model_open(&m, models[i].name, models[i].rows);
        assert_int_equal(each_line(models[i].lines, check_answer, &m), models[i].n);
        buf_free(&m.tok_section);
        program_free(&m.program);
    }
}

// ---- small templates -----------------------------------------------------------------------------

static void check_case(void *ctx, size_t line, const Json *j) {
    Program p = {0};
    Arena a = {0};
    Diags d = {.arena = &a};
    ChatText text = {0};
    Err e = {0};
    size_t *wrong = ctx;
    const Json *want = json_get(j, "text");
    bool compiled = compile(&p, json_get(j, "template")->s, &d);
    bool ok = compiled && chat_render(p.chat, &a, input_of(j), &text, &e);
    if (ok != (want != NULL) || (ok && !str_eq(text.text, want->s))) {
        print_message("case %zu: " STR_FMT "%s\n", line, STR_ARG(text.text),
                      compiled ? e.msg : diags_first_message(&d));
        ++*wrong;
    }
    arena_free(&a);
    program_free(&p);
}

static void small_templates_answer_as_jinja(void **state) {
    (void)state;
    size_t wrong = 0;
    assert_true(each_line("tests/golden/templates/cases.jsonl", check_case, &wrong) > 100);
    assert_int_equal(wrong, 0);
}

// A real template of another model, and who wrote what in its output.
static void marks_follow_the_text(void **state) {
    static const char template[] =
        "{% for m in messages %}<|{{ m.role | upper }}|>{{ (m.content + '<e>') | trim }}{% endfor %}";
    (void)state;
    Program p = {0};
    Arena a = {0};
    Diags d = {.arena = &a};
    Err e = {0};
    ChatText t;
    assert_true(compile(&p, STR(template), &d));
    const Json *j = parse_line(&a, STR("{\"messages\": [{\"role\": \"u\", \"content\": \" <e> \"}]}"));
    assert_true(chat_render(p.chat, &a, input_of(j), &t, &e));
    assert_true(str_is(t.text, "<|U|><e> <e>"));
    static const struct {
        size_t end;
        bool input;
    } want[] = {{2, false}, {3, true}, {5, false}, {9, true}, {12, false}};
    assert_int_equal(t.n_runs, COUNT_OF(want));
    for (size_t i = 0; i < COUNT_OF(want); i++) {
        assert_int_equal(t.runs[i].end, want[i].end);
        assert_int_equal(t.runs[i].from_input, want[i].input);
    }
    arena_free(&a);
    program_free(&p);
}

// ---- what is refused -----------------------------------------------------------------------------

static void broken_templates_are_refused_with_their_place(void **state) {
    static const struct {
        const char *text;
        ErrCode code;
        size_t line, col;
        const char *says;
    } cases[] = {
        {"a\n{% if x %}b", E_TEMPLATE, 2, 4, "`if` without its `endif`"},
        {"{% for x in y %}{% endif %}", E_TEMPLATE, 1, 20, "`endif` inside of a `for` block"},
        {"{% endfor %}", E_TEMPLATE, 1, 4, "`endfor` without its `for`"},
        {"{{ x | tojsn }}", E_TEMPLATE_UNSUPPORTED, 1, 8, "filter `tojsn` is not supported"},
        {"{{ x is foo }}", E_TEMPLATE_UNSUPPORTED, 1, 9, "test `foo`"},
        {"{{ x.foo() }}", E_TEMPLATE_UNSUPPORTED, 1, 6, "method `foo`"},
        {"{{ foo(1) }}", E_TEMPLATE_UNSUPPORTED, 1, 4, "`foo` is no macro and no supported function"},
        {"\n {% include 'a' %}", E_TEMPLATE_UNSUPPORTED, 2, 5, "statement `include`"},
        {"{{ 'abc }}", E_TEMPLATE, 1, 4, "a string that does not end"},
        {"{{ x", E_TEMPLATE, 1, 1, "`{{` without its `}}`"},
        {"{# x", E_TEMPLATE, 1, 1, "`{#` without its `#}`"},
        {"{% raw %} x", E_TEMPLATE, 1, 1, "without its `{% endraw %}`"},
        {"{{ (x }}", E_TEMPLATE, 1, 4, "a bracket that is not closed"},
        {"{{ x) }}", E_TEMPLATE, 1, 5, "a closing bracket without its opening one"},
        {"{{ x + }}", E_TEMPLATE, 1, 8, "expected a value instead of the end of the tag"},
        {"{{ a b }}", E_TEMPLATE, 1, 6, "expected the end of the tag instead of `b`"},
        {"{{ a ? b }}", E_TEMPLATE, 1, 6, "a character that has no meaning"},
        {"{{ 1 < 2 < 3 }}", E_TEMPLATE_UNSUPPORTED, 1, 10, "a chain of comparisons"},
        {"{% break %}", E_TEMPLATE, 1, 4, "outside of a loop"},
        {"{% for m in messages %}{{ loop }}{% endfor %}", E_TEMPLATE_UNSUPPORTED, 1, 27,
         "only as `loop.name`"},
        {"{% for m in messages recursive %}{% endfor %}", E_TEMPLATE_UNSUPPORTED, 1, 22, "`recursive`"},
        {"{{ messages.append(1) }}", E_TEMPLATE_UNSUPPORTED, 1, 13, "method `append`"},
        {"{{ m.items }}", E_TEMPLATE_UNSUPPORTED, 1, 6, "without a call"},
        {"{% else %}", E_TEMPLATE, 1, 4, "`else` without its `if`"},
        {"{% set x %}a", E_TEMPLATE, 1, 4, "`set` without its `endset`"},
        {"{% macro f(a) %}{{ f2(a) }}{% endmacro %}", E_TEMPLATE_UNSUPPORTED, 1, 20, "`f2` is no macro"},
        {"{{ x | replace('a') }}", E_TEMPLATE, 1, 8, "`replace` takes 2 to 3 arguments, not 1"},
        {"{{ x | tojson(skip=1) }}", E_TEMPLATE_UNSUPPORTED, 1, 15, "no supported argument named `skip`"},
        {"{% macro f() %}{{ varargs }}{% endmacro %}", E_TEMPLATE_UNSUPPORTED, 1, 19,
         "`varargs` inside of a macro"},
        {"{% call f() %}{% endcall %}", E_TEMPLATE_UNSUPPORTED, 1, 4, "statement `call`"},
        {"\xff", E_TEMPLATE, 1, 1, "not UTF-8"},
    };
    (void)state;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        Program p = {0};
        Arena a = {0};
        Diags d = {.arena = &a};
        char *printed = NULL, place[64];
        size_t n;
        if (compile(&p, str_of(cases[i].text), &d)) fail_msg("not refused: %s", cases[i].text);
        assert_int_equal(d.n_errors, 1);
        FILE *f = open_memstream(&printed, &n);
        diags_print(&d, "t", f);
        fclose(f);
        snprintf(place, sizeof place, "t.jinja:%zu:%zu:", cases[i].line, cases[i].col);
        if (!strstr(printed, place) || !strstr(diags_first_message(&d), cases[i].says) ||
            diags_first_code(&d) != cases[i].code)
            fail_msg("%s: %s", cases[i].text, printed);
        free(printed);
        arena_free(&a);
        program_free(&p);
    }
}

static void repeat(StrBuf *b, const char *s, size_t n) {
    for (size_t i = 0; i < n; i++) buf_puts(b, s);
}

static void deep_and_long_templates_are_refused(void **state) {
    static const struct {
        const char *before, *part, *after;
        size_t n;
    } cases[] = {
        {"{{ ", "(", "", 10000},
        {"{{ ", "[", " }}", 10000},
        {"{{ ", "not ", "x }}", 10000},
        {"{{ ", "- ", "x }}", 10000},
        {"", "{% if x %}", "", 10000},
        {"", "{% for x in y %}", "", 1000},
        {"{{ ", "x if y else ", "z }}", 10000},
        {"{{ [", "x,", "] }}", 10000},
        {"", "{% set x %}", "", 1000},
        {"{{ ", "x.a(", "", 10000},
        {"{{ f(", "x,", ") }}", 10000},
        {"", "{% macro f() %}{% endmacro %}", "", 1000},
    };
    (void)state;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        StrBuf text = {0};
        Program p = {0};
        Arena a = {0};
        Diags d = {.arena = &a};
        buf_puts(&text, cases[i].before);
        repeat(&text, cases[i].part, cases[i].n);
        buf_puts(&text, cases[i].after);
        if (compile(&p, buf_view(&text), &d)) fail_msg("not refused: %s", cases[i].part);
        assert_int_equal(d.n_errors, 1);
        arena_free(&a);
        program_free(&p);
        buf_free(&text);
    }
}

static void long_flat_templates_compile(void **state) {
    static const char *const parts[] = {"{{ x }}", "{% set x = 'a' ~ x %}", "{{ x + 1 }}{# #}",
                                        "{% if x %}a{% else %}b{% endif %}"};
    (void)state;
    for (size_t i = 0; i < COUNT_OF(parts); i++) {
        StrBuf text = {0};
        Program p = {0};
        Arena a = {0};
        Diags d = {.arena = &a};
        repeat(&text, parts[i], 20000);
        if (!compile(&p, buf_view(&text), &d)) fail_msg("%s", diags_first_message(&d));
        arena_free(&a);
        program_free(&p);
        buf_free(&text);
    }
}

static void endless_programs_stop(void **state) {
    static const struct {
        const char *text;
        ErrCode code;
    } cases[] = {
        {"{% for i in range(10**9) %}x{% endfor %}", E_LIMIT},
        {"{% for i in range(99999) %}{% for j in range(99999) %}x{% endfor %}{% endfor %}", E_LIMIT},
        {"{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}", E_LIMIT},
        {"{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}", E_LIMIT},
        {"{% set ns = namespace(s='0123456789abcdef') %}{% for i in range(99) %}{% set ns.s = ns.s + ns.s "
         "%}{% endfor %}",
         E_LIMIT},
        {"{{ 'x' * 10**12 }}", E_LIMIT},
        {"{% set ns = namespace(s=[]) %}{% for i in range(9999) %}{% set ns.s = [ns.s] %}{% endfor %}{{ ns.s "
         "}}",
         E_LIMIT},
        {"{% set ns = namespace(s=[1]) %}{% for i in range(99) %}{% set ns.s = ns.s + ns.s %}{% endfor %}",
         E_LIMIT},
        {"{% set ns = namespace(s=[1]) %}{% for i in range(99) %}{% set ns.s = [ns.s, ns.s] %}{% endfor %}{{ "
         "ns.s == [] }}{{ ns.s | tojson }}",
         E_LIMIT},
        {"{{ 9223372036854775807 + 1 }}", E_CHAT},
        {"{{ 1 // 0 }}", E_CHAT},
        {"{{ 1 % 0 }}", E_CHAT},
        {"{{ messages[0].content.x.y }}", E_CHAT},
        {"{{ messages['items'] }}{{ messages[0]['items'] }}", E_CHAT},
    };
    (void)state;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        Program p = {0};
        Arena a = {0};
        Diags d = {.arena = &a};
        Err e = {0};
        ChatText t;
        if (!compile(&p, str_of(cases[i].text), &d)) fail_msg("%s", diags_first_message(&d));
        const Json *j = parse_line(&a, STR("{\"messages\": [{\"role\": \"user\", \"content\": \"x\"}]}"));
        if (chat_render(p.chat, &a, input_of(j), &t, &e)) fail_msg("not refused: %s", cases[i].text);
        if (e.code != cases[i].code) fail_msg("%s: %s", cases[i].text, e.msg);
        arena_free(&a);
        program_free(&p);
    }
}

// Every byte of a program changed in several ways: refused, or run without harm.
static void damaged_programs_do_no_harm(void **state) {
    static const char template[] = "{% macro f(a, b='x') %}{{ a ~ b }}{% endmacro %}{% for m in messages if "
                                   "m.role %}{% set c = m.content %}"
                                   "{{ f(c, b=loop.index) }}{{ m | tojson(indent=1) }}{% else %}none{% "
                                   "endfor %}{% set ns = namespace(x=1) %}"
                                   "{% set ns.x = messages[::-1] %}{% set s %}{{ ns.x[0].content.split('x') "
                                   "or 'y' }}{% endset %}{{ s if s else 1.5 }}";
    static const uint8_t flips[] = {0x01, 0x80, 0xFF, 0x04};
    (void)state;
    Program p = {0};
    Arena a = {0};
    Diags d = {.arena = &a};
    if (!compile(&p, STR(template), &d)) fail_msg("%s", diags_first_message(&d));
    const Json *j = parse_line(&a, STR("{\"messages\": [{\"role\": \"user\", \"content\": \"axb\"}]}"));
    size_t len = p.section.len, ran = 0;
    uint64_t *copy = xmalloc(len);
    for (size_t i = 0; i < len * COUNT_OF(flips); i++) {
        Arena one = {0};
        Err e = {0};
        ChatText t;
        memcpy(copy, p.section.ptr, len);
        ((uint8_t *)copy)[i / COUNT_OF(flips)] ^= flips[i % COUNT_OF(flips)];
        Chat *chat = chat_open(&one, copy, len, &e);
        ran += chat && chat_render(chat, &one, input_of(j), &t, &e);
        arena_free(&one);
    }
    for (size_t n = 0; n < len; n++) {
        Arena one = {0};
        Err e = {0};
        if (chat_open(&one, copy, n, &e)) fail_msg("a program cut at byte %zu is accepted", n);
        arena_free(&one);
    }
    assert_true(ran > 0);
    free(copy);
    arena_free(&a);
    program_free(&p);
}

// ---- lookup --------------------------------------------------------------------------------------

static void put_file(const char *dir, const char *name, const char *text) {
    char path[512];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    if (!text) {
        remove(path);
        return;
    }
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static void templates_are_found_where_checkpoints_keep_them(void **state) {
    static const struct {
        const char *jinja, *config, *processor;
        const char *text; // NULL: refused; "": no template
    } cases[] = {
        {"a{{ bos_token }}", "{\"chat_template\": \"b\", \"bos_token\": \"<s>\"}", NULL, "a<s>"},
        {NULL, "{\"chat_template\": \"b{{ bos_token }}\", \"bos_token\": {\"content\": \"<b>\"}}", NULL,
         "b<b>"},
        {NULL,
         "{\"chat_template\": [{\"name\": \"tool_use\", \"template\": \"t\"}, {\"name\": \"default\", "
         "\"template\": \"d\"}]}",
         NULL, "d"},
        {NULL, "{\"chat_template\": [{\"name\": \"tool_use\", \"template\": \"t\"}]}", NULL, NULL},
        {NULL, "{\"chat_template\": 5}", NULL, NULL},
        {NULL, "{}", "{\"chat_template\": \"p\"}", "p"},
        {NULL, "{}", NULL, ""},
        {NULL, NULL, NULL, ""},
        {NULL, "{", NULL, NULL},
        {NULL, "{\"chat_template\": \"{% if %}\"}", NULL, NULL},
    };
    (void)state;
    char dir[] = "build/chat.XXXXXX";
    assert_non_null(mkdtemp(dir));
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        Program p = {0};
        Diags d = {.arena = &p.arena};
        Err e = {0};
        ChatText t = {0};
        bool present;
        put_file(dir, "chat_template.jinja", cases[i].jinja);
        put_file(dir, "tokenizer_config.json", cases[i].config);
        put_file(dir, "chat_template.json", cases[i].processor);
        bool ok = chat_pack(&p.arena, dir, &p.section, &present, &d);
        if (ok != (cases[i].text != NULL))
            fail_msg("case %zu: %s", i, ok ? "not refused" : diags_first_message(&d));
        if (ok) assert_int_equal(present, cases[i].text[0] != '\0');
        if (ok && present) {
            p.chat = chat_open(&p.arena, p.section.ptr, p.section.len, &e);
            const Json *j = parse_line(&p.arena, STR("{\"messages\": [{\"content\": \"x\"}]}"));
            assert_true(chat_render(p.chat, &p.arena, input_of(j), &t, &e));
            if (!str_is(t.text, cases[i].text)) fail_msg("case %zu: " STR_FMT, i, STR_ARG(t.text));
        }
        program_free(&p);
    }
    put_file(dir, "chat_template.jinja", NULL);
    put_file(dir, "tokenizer_config.json", NULL);
    put_file(dir, "chat_template.json", NULL);
    remove(dir);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(real_templates_answer_as_transformers),
        cmocka_unit_test(small_templates_answer_as_jinja),
        cmocka_unit_test(marks_follow_the_text),
        cmocka_unit_test(broken_templates_are_refused_with_their_place),
        cmocka_unit_test(deep_and_long_templates_are_refused),
        cmocka_unit_test(long_flat_templates_compile),
        cmocka_unit_test(endless_programs_stop),
        cmocka_unit_test(damaged_programs_do_no_harm),
        cmocka_unit_test(templates_are_found_where_checkpoints_keep_them),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
