// The protocol layer of the server: what clients send, and how answers are told, without HTTP or an engine.
#include "tests/unit/unit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "compiler/frontend/jinja.h"
#include "compiler/frontend/tokenizer_pack.h"
#include "runtime/base/num.h"
#include "runtime/server/answer.h"
#include "runtime/server/auth.h"
#include "runtime/server/json_build.h"
#include "runtime/server/json_scan.h"
#include "runtime/server/reply.h"
#include "runtime/server/request.h"

static const char folder[] = "tests/golden/models/qwen3";
static Arena arena;
static StrBuf tok_section, chat_section;
static ApiModel model;
static const int32_t eos[] = {633};

static int setup(void **state) {
    (void)state;
    static Str names[] = {{"qwen3", 5}};
    bool present;
    Err e = {0};
    Diags d = {.arena = &arena};
    if (!tokenizer_pack(&arena, folder, 672, &tok_section, &d) ||
        !chat_pack(&arena, folder, &chat_section, &present, &d))
        return diags_print(&d, "test", stderr), -1;
    model = (ApiModel){.name = names[0],
                       .names = names,
                       .n_names = 1,
                       .vocab = 651,
                       .context = 512,
                       .eos_ids = eos,
                       .n_eos_ids = 1,
                       .n_max = 8};
    model.defaults = (Sampling){.temperature = 1, .top_p = 1};
    model.tok = tokenizer_open(&arena, tok_section.ptr, tok_section.len, &e);
    model.chat = chat_open(&arena, chat_section.ptr, chat_section.len, &e);
    if (!model.tok || !model.chat) return fprintf(stderr, "%s\n", e.msg), -1;
    model.control = chat_control(&arena, model.tok);
    api_model_probe(&model);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    arena_free(&arena);
    buf_free(&tok_section), buf_free(&chat_section);
    return 0;
}

static void test_probe(void **state) {
    (void)state;
    assert_true(model.has_tools);
    assert_true(model.has_thinking);
}

// ---- JSON that arrives in pieces --------------------------------------------------------------------------

static void test_json_scan(void **state) {
    (void)state;
    static const char *const whole[] = {"{}",
                                        "[]",
                                        "{\"a\": [1, -0.5e+3, true, null, \"x\\\"\\u00e9}\"]}",
                                        "\"\"",
                                        " \n[ ]",
                                        "[[],{}]",
                                        "{\"\":{\"\":0}}",
                                        "false",
                                        "[0]"};
    static const char *const bad[] = {"{]",         "[1,]",   "{\"a\"}", "{a:1}",   "[01]",        "[1.]",
                                      "[-]",        "[1e]",   "tru ",    "\"\\x\"", "\"\\u00g0\"", "[1 2]",
                                      "{\"a\":1,}", "\"\n\"", "}",       "nul\n",   "['a']"};
    for (size_t i = 0; i < COUNT_OF(whole); i++) {
        JsonScan s = {0};
        size_t n = strlen(whole[i]);
        for (size_t k = 0; k + 1 < n; k++) assert_int_equal(json_scan(&s, whole[i][k]), SCAN_MORE);
        assert_int_equal(json_scan(&s, whole[i][n - 1]), SCAN_DONE);
    }
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        JsonScan s = {0};
        ScanResult r = SCAN_MORE;
        for (size_t k = 0; bad[i][k] && r == SCAN_MORE; k++) r = json_scan(&s, bad[i][k]);
        if (r != SCAN_BAD) fail_msg("%s: %d", bad[i], r);
    }
    JsonScan s = {0};
    assert_int_equal(json_scan(&s, '1'), SCAN_MORE);
    assert_true(json_scan_whole_number(&s));
    assert_int_equal(json_scan(&s, ','), SCAN_AFTER);
    s = (JsonScan){0};
    for (int i = 0; i < JSON_SCAN_DEPTH; i++) assert_int_equal(json_scan(&s, '['), SCAN_MORE);
    assert_int_equal(json_scan(&s, '['), SCAN_BAD);
}

// ---- answers ---------------------------------------------------------------------------------------------

typedef struct {
    StrBuf told;
    PartKind last;
} Told;

static void sink(void *ctx, const AnswerPart *p) {
    static const char names[] = "RTCAE";
    Told *t = ctx;
    bool joins = t->told.len && p->kind == t->last && p->kind != PART_CALL && p->kind != PART_CALL_END;
    if (joins)
        t->told.len--;
    else
        buf_putc(&t->told, names[p->kind]), buf_putc(&t->told, '[');
    buf_str(&t->told, p->text);
    buf_putc(&t->told, ']');
    t->last = p->kind;
}

typedef struct {
    const char *text, *told; // told: R[reasoning] T[text] C[name] A[arguments] E[]
    const char *stop;
    bool tools, thinks, in_thinking, calls, one_call;
} AnswerCase;

static const AnswerCase answers[] = {
    {"hello world", "T[hello world]", .thinks = true},
    {"  hello  ", "T[  hello  ]", .tools = false},
    {"<think>\nso\n</think>\n\nyes", "R[so]T[yes]", .thinks = true},
    {"<think>\n\n</think>\n\nyes", "T[yes]", .thinks = true},
    {"so it is\n</think>\n\nyes </think>", "R[so it is]T[yes </think>]", .in_thinking = true, .thinks = true},
    {"<think>cut", "R[cut]", .thinks = true},
    {"<think>cut </thi", "R[cut </thi]", .thinks = true},
    {"<thin", "T[<thin]", .thinks = true},
    {"<thinner>", "T[<thinner>]", .thinks = true},
    {"<think>a</think>b", "T[<think>a</think>b]", .tools = false},
    {"one two three", "T[one ]", .stop = "two"},
    {"<think>two</think>one two", "R[two]T[one ]", .stop = "two", .thinks = true},
    {"one tw", "T[one tw]", .stop = "two"},
    {" two", "T[ ]", .stop = "two", .thinks = true},
    {"<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": [1, \"}\"]}}\n</tool_call>",
     "C[f]A[{\"a\": [1, \"}\"]}]E[]", .tools = true, .calls = true},
    {"<think>\nx\n</think>\n\nLet me.\n<tool_call>\n{\"name\": \"f\", \"arguments\": {}}\n</tool_call>",
     "R[x]T[Let me.]C[f]A[{}]E[]", .tools = true, .thinks = true, .calls = true},
    {"<tool_call>{\"arguments\": {\"b\":2}, \"name\": "
     "\"g\"}</tool_call>\n<tool_call>\n{\"name\":\"f\"}</tool_call>",
     "C[g]A[{\"b\":2}]E[]C[f]A[{}]E[]", .tools = true, .calls = true},
    {"<tool_call>{\"name\": \"f\", \"arguments\": {}}</tool_call><tool_call>{\"name\": \"f\", \"arguments\": "
     "{}}</tool_call>",
     "C[f]A[{}]E[]", .tools = true, .calls = true, .one_call = true},
    {"<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": 1", "C[f]A[{\"a\": 1]", .tools = true},
    {"<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": x}}</tool_call>", "C[f]A[{\"a\": ]", .tools = true},
    {"a <tool_call>not a call", "T[a <tool_call>not a call]", .tools = true},
    {"a <tool_call>{\"nam", "T[a <tool_call>{\"nam]", .tools = true},
    {"<tool_call>{\"x\": 1}", "T[<tool_call>{\"x\": 1}]", .tools = true},
    {"<tool_call>{\"name\": 5}", "T[<tool_call>{\"name\": 5}]", .tools = true},
    {"<tool_call>\n{\"name\": \"f\", \"arguments\": 12}</tool_call> then", "C[f]A[12]E[]T[then]",
     .tools = true, .calls = true},
    {"<tool_call>{\"name\": \"f\", \"arguments\": {}} then", "C[f]A[{}]E[]T[then]", .tools = true,
     .calls = true},
    {"<tool_call>{}</tool_call>", "T[<tool_call>{}</tool_call>]", .tools = false},
    {"x <tool_ca", "T[x <tool_ca]", .tools = true},
    {"\xC3\xA9\xE4\xBD\xA0<", "T[\xC3\xA9\xE4\xBD\xA0<]", .tools = true, .thinks = true},
};

// The text that was told last comes from the tokens behind text_from; where one of them has the end of a
// mark, too, the text begins in it.
static void check_text_from(const Answer *a, const Told *t, const Ids *ids) {
    StrBuf made = {0};
    Str told = buf_view(&t->told);
    if (!told.len || t->last != PART_TEXT) return;
    told.len--;
    for (size_t i = 0; i + 1 < told.len; i++)
        if (told.ptr[i] == 'T' && told.ptr[i + 1] == '[') told = str_from(told, i + 2), i = 0;
    tokenizer_decode(model.tok, ids->ptr + a->text_from, a->n_tokens - a->text_from, false, &made);
    Str got = buf_view(&made);
    const bool inside =
                   memmem(got.ptr, got.len, told.ptr, told.len) && (a->stopped || got.len <= told.len + 2),
               behind = str_ends(told, got);
    if (!inside && !behind)
        fail_msg("of " STR_FMT " tokens are told as " STR_FMT, STR_ARG(got), STR_ARG(told));
    buf_free(&made);
}

static void play(const AnswerCase *c, size_t piece) {
    ApiTool tool = {.name = STR("f")};
    Str stop = c->stop ? str_of(c->stop) : STR("");
    ApiRequest r = {.kind = API_CHAT,
                    .skip_special = true,
                    .parallel_tools = !c->one_call,
                    .thinks = c->thinks,
                    .in_thinking = c->in_thinking,
                    .stops = &stop,
                    .n_stops = c->stop != NULL,
                    .tools = &tool,
                    .n_tools = c->tools,
                    .tool_choice = c->tools ? TOOLS_AUTO : TOOLS_NONE};
    Told told = {0};
    Answer a;
    Ids ids = {0};
    Str text = str_of(c->text);
    Err e;
    answer_begin(&a, &r, model.tok, sink, &told);
    for (size_t at = 0; at < text.len;) {
        size_t end = MIN(at + piece, text.len);
        while (end < text.len && (text.ptr[end] & 0xC0) == 0x80) end++;
        assert_true(
            tokenizer_encode(model.tok, str_sub(text, at, end), (EncodeOptions){.special = true}, &ids, &e));
        at = end;
    }
    for (size_t i = 0; i < ids.n && answer_push(&a, ids.ptr[i]); i++) continue;
    answer_finish(&a);
    if (!str_is(buf_view(&told.told), c->told))
        fail_msg("%s in pieces of %zu: " STR_FMT, c->text, piece, STR_ARG(buf_view(&told.told)));
    assert_int_equal(answer_made_calls(&a), c->calls);
    check_text_from(&a, &told, &ids);
    answer_end(&a);
    ids_free(&ids);
    buf_free(&told.told);
}

static void test_answers_in_any_pieces(void **state) {
    (void)state;
    for (size_t i = 0; i < COUNT_OF(answers); i++)
        for (size_t piece = 1; piece <= strlen(answers[i].text) + 1; piece++) play(&answers[i], piece);
}

static void sink_nothing(void *ctx, const AnswerPart *p) {
    (void)ctx;
    for (size_t at = 0; at < p->text.len;) {
        size_t n = str_utf8_len(str_from(p->text, at));
        assert_true(n > 0);
        at += n;
    }
}

// Whatever the model writes, what comes out is UTF-8 and the process lives.
static void test_random_tokens(void **state) {
    (void)state;
    static const char *const marks[] = {
        "<think>", "</think>", "<tool_call>", "</tool_call>", "{\"name\": \"f\", \"arguments\": {",
        "}",       "\"",       "\n"};
    uint64_t x = 88172645463325252ull;
    for (int round = 0; round < 2000; round++) {
        ApiTool tool = {.name = STR("f")};
        Str stop = STR("ab");
        ApiRequest r = {.skip_special = true,
                        .parallel_tools = true,
                        .thinks = round & 1,
                        .in_thinking = (round & 3) == 3,
                        .stops = &stop,
                        .n_stops = round & 4 ? 1 : 0,
                        .tools = &tool,
                        .n_tools = round & 8 ? 1 : 0,
                        .tool_choice = TOOLS_AUTO};
        Answer a;
        answer_begin(&a, &r, model.tok, sink_nothing, NULL);
        for (int i = 0; i < 60; i++) {
            Ids ids = {0};
            Err e;
            x ^= x << 13, x ^= x >> 7, x ^= x << 17;
            if (x % 3)
                ids_add(&ids, (uint32_t)(x >> 8) % 700);
            else
                assert_true(tokenizer_encode(model.tok, str_of(marks[(x >> 8) % COUNT_OF(marks)]),
                                             (EncodeOptions){.special = true}, &ids, &e));
            for (size_t k = 0; k < ids.n; k++) answer_push(&a, ids.ptr[k]);
            ids_free(&ids);
        }
        answer_finish(&a);
        answer_end(&a);
    }
}

// ---- requests --------------------------------------------------------------------------------------------

typedef bool Read(const ApiModel *m, Arena *a, const Json *body, ApiRequest *r, ApiError *e);

static bool read_body(Arena *a, Read *read, const char *body, ApiRequest *r, ApiError *e) {
    const Json *j = api_parse_body(a, str_of(body), e);
    return j && read(&model, a, j, r, e);
}

static const struct {
    Read *read;
    const char *fields, *param; // NULL: well
} requests[] = {
    {chat_request, "", NULL},
    {chat_request, "\"temperature\": 2", NULL},
    {chat_request, "\"temperature\": 2.01", "temperature"},
    {chat_request, "\"temperature\": \"1\"", "temperature"},
    {chat_request, "\"temperature\": null", NULL},
    {chat_request, "\"top_k\": -1", NULL},
    {chat_request, "\"top_k\": -2", "top_k"},
    {chat_request, "\"n\": 8", NULL},
    {chat_request, "\"n\": 9", "n"},
    {chat_request, "\"n\": 1e308", "n"},
    {chat_request, "\"n\": 3.0", NULL},
    {chat_request, "\"n\": 2.5", "n"},
    {chat_request, "\"seed\": -9223372036854775808", NULL},
    {chat_request, "\"seed\": 9223372036854775808", "seed"},
    {chat_request, "\"max_tokens\": 0", "max_tokens"},
    {chat_request, "\"max_tokens\": -1", NULL},
    {chat_request, "\"max_tokens\": -2", "max_tokens"},
    {chat_request, "\"max_tokens\": 600", "messages"},
    {chat_request, "\"max_completion_tokens\": 5, \"max_tokens\": 600", NULL},
    {chat_request, "\"stop_token_ids\": [651]", "stop_token_ids"},
    {chat_request, "\"stop_token_ids\": [-1]", "stop_token_ids"},
    {chat_request, "\"stop_token_ids\": [650]", NULL},
    {chat_request, "\"logit_bias\": {\"651\": 1}", "logit_bias"},
    {chat_request, "\"logit_bias\": {\"1\": 1, \"01\": 1}", "logit_bias"},
    {chat_request, "\"logit_bias\": {\"x\": 1}", "logit_bias"},
    {chat_request, "\"logit_bias\": {\"-5\": 1}", "logit_bias"},
    {chat_request, "\"logit_bias\": {\"1.5\": 1}", "logit_bias"},
    {chat_request, "\"logit_bias\": {\"\": 1}", "logit_bias"},
    {chat_request, "\"logit_bias\": []", NULL},
    {chat_request, "\"logit_bias\": [[1, -5], [\"hi\", false], [1, 2]]", NULL},
    {chat_request, "\"logit_bias\": [[1]]", "logit_bias"},
    {chat_request, "\"logit_bias\": [[651, 1]]", "logit_bias"},
    {chat_request, "\"logit_bias\": [[1, true]]", "logit_bias"},
    {chat_request, "\"prompt_logprobs\": 20", NULL},
    {chat_request, "\"prompt_logprobs\": 21", "prompt_logprobs"},
    {chat_request, "\"prompt_logprobs\": 1, \"stream\": true", "prompt_logprobs"},
    {chat_request, "\"truncate_prompt_tokens\": -1", NULL},
    {chat_request, "\"truncate_prompt_tokens\": 0", "truncate_prompt_tokens"},
    {chat_request, "\"truncate_prompt_tokens\": 3, \"truncation_side\": \"both\"", "truncation_side"},
    {chat_request, "\"prompt_token_ids\": [1]", "prompt_token_ids"},
    {chat_request, "\"echo\": 1", "echo"},
    {chat_request, "\"include_reasoning\": 1", "include_reasoning"},
    {chat_request, "\"logit_bias\": {\"650\": -100}", NULL},
    {chat_request, "\"stop\": [\"a\", 5]", "stop"},
    {chat_request, "\"stream\": 1", "stream"},
    {chat_request, "\"logprobs\": true, \"top_logprobs\": 20", NULL},
    {chat_request, "\"functions\": [{}]", "functions"},
    {chat_request, "\"function_call\": \"none\"", NULL},
    {chat_request, "\"prompt_embeds\": \"x\"", "prompt_embeds"},
    {chat_request, "\"chat_template\": \"x\"", "chat_template"},
    {chat_request, "\"reasoning_effort\": \"none\"", NULL},
    {chat_request, "\"reasoning_effort\": \"much\"", "reasoning_effort"},
    {chat_request, "\"tool_choice\": \"auto\"", "tool_choice"},
    {chat_request, "\"tool_choice\": \"none\"", NULL},
    {chat_request,
     "\"tools\": [{\"type\": \"function\", \"function\": {\"name\": \"f\"}}], \"tool_choice\": {\"type\": "
     "\"function\", \"function\": {\"name\": \"g\"}}",
     "tool_choice"},
    {chat_request, "\"cache_salt\": \"\"", "cache_salt"},
    {chat_request, "\"unheard_of\": 5", NULL},
    {completion_request, "\"max_tokens\": 0", "max_tokens"},
    {completion_request, "\"max_tokens\": 0, \"echo\": true", NULL},
    {completion_request, "\"logprobs\": 21", "logprobs"},
    {completion_request, "\"suffix\": \"x\"", "suffix"},
    {completion_request, "\"best_of\": 2", "best_of"},
    {messages_request, "", "max_tokens"},
    {messages_request, "\"max_tokens\": 100000", NULL},
    {messages_request, "\"max_tokens\": 5, \"system\": 5", "system"},
    {messages_request, "\"max_tokens\": 5, \"system\": [5]", "system"},
    {completion_request, "\"truncate_prompt_tokens\": 1, \"truncation_side\": \"right\"", NULL},
    {responses_request, "\"input\": \"x\"", NULL},
    {responses_request,
     "\"input\": \"x\", \"include\": [\"message.output_text.logprobs\"], \"top_logprobs\": 20", NULL},
    {responses_request,
     "\"input\": \"x\", \"include\": [\"message.output_text.logprobs\"], \"top_logprobs\": 21",
     "top_logprobs"},
    {responses_request, "\"input\": \"x\", \"include\": [\"reasoning.encrypted_content\"]", NULL},
    {responses_request, "\"input\": \"x\", \"top_logprobs\": 1", "top_logprobs"},
    {responses_request, "\"input\": \"x\", \"include\": \"message.output_text.logprobs\"", "include"},
    {responses_request, "\"input\": \"x\", \"include\": [1]", "include"},
    {responses_request, "\"input\": \"x\", \"return_progress\": 1", "return_progress"},
    {responses_request, "\"input\": \"x\", \"timings_per_token\": \"yes\"", "timings_per_token"},
    {responses_request,
     "\"input\": \"x\", \"structured_outputs\": {\"regex\": \"a\"}, \"text\": {\"format\": {\"type\": "
     "\"json_object\"}}",
     "structured_outputs.regex"},
    {responses_request,
     "\"input\": \"x\", \"structured_outputs\": {\"regex\": \"a\"}, \"text\": {\"format\": {\"type\": "
     "\"text\"}}",
     NULL},
    {completion_request, "\"return_progress\": true, \"timings_per_token\": true", NULL},
    {completion_request, "\"return_progress\": 0", "return_progress"},
    {responses_request, "", "input"},
    {responses_request, "\"input\": \"x\", \"previous_response_id\": \"r\"", "previous_response_id"},
    {responses_request,
     "\"input\": \"x\", \"text\": {\"format\": {\"type\": \"json_schema\", \"name\": \"n\", \"schema\": {}}}",
     NULL},
};

static void test_requests(void **state) {
    (void)state;
    for (size_t i = 0; i < COUNT_OF(requests); i++) {
        Arena a = {0};
        ApiRequest r;
        ApiError e = {0};
        const char *prompt = requests[i].read == completion_request ? "\"prompt\": \"hi\""
                             : requests[i].read == responses_request
                                 ? "\"model\": \"qwen3\""
                                 : "\"messages\": [{\"role\": \"user\", \"content\": \"hi\"}]";
        const char *body =
            arena_printf(&a, "{%s%s%s}", prompt, *requests[i].fields ? ", " : "", requests[i].fields);
        bool ok = read_body(&a, requests[i].read, body, &r, &e), want = !requests[i].param;
        if (ok != want) fail_msg("%s: %s", body, ok ? "was taken" : e.message);
        if (!ok) {
            assert_int_equal(e.status, 400);
            if (strcmp(e.param, requests[i].param) != 0)
                fail_msg("%s: blames %s: %s", body, e.param, e.message);
        }
        arena_free(&a);
    }
}

static void test_what_a_request_becomes(void **state) {
    (void)state;
    Arena a = {0};
    ApiRequest r;
    ApiError e;
    assert_true(read_body(&a, chat_request,
                          "{\"messages\": [{\"role\": \"developer\", \"content\": [{\"type\": \"text\", "
                          "\"text\": \"a\"}, {\"type\": \"text\", \"text\": \"b\"}]}, {\"role\": "
                          "\"user\", \"content\": \"<|im_end|>\"}], \"unheard_of\": 1, \"logit_bias\": "
                          "{\"7\": 1, \"3\": -2}, \"chat_template_kwargs\": {\"enable_thinking\": false}}",
                          &r, &e));
    assert_true(
        str_starts(r.prompts[0].text,
                   STR("<|im_start|>system\nab<|im_end|>\n<|im_start|>user\n<|im_end|><|im_end|>\n")));
    assert_false(r.thinks);
    assert_int_equal(r.n_unknown, 1);
    assert_int_equal(r.sampling.n_bias, 2);
    assert_int_equal(r.sampling.bias[0].id, 3);
    assert_int_equal(r.max_tokens, 512 - r.prompts[0].n);
    uint32_t ends = 0; // only the template's own control tokens count
    for (uint32_t i = 0; i < r.prompts[0].n; i++) ends += r.prompts[0].ids[i] == 633;
    assert_int_equal(ends, 2);
    arena_free(&a);
}

// Whether the turn that begins thinks is not for those to say who talk about it.
static void test_who_opens_thinking(void **state) {
    (void)state;
    static const struct {
        const char *messages, *more;
        bool in_thinking, thinks;
    } cases[] = {
        {"{\"role\": \"user\", \"content\": \"what is <think>?\"}", "", false, true},
        {"{\"role\": \"user\", \"content\": \"</think>\"}", "", false, true},
        {"{\"role\": \"user\", \"content\": \"<think>\"}",
         ", \"chat_template_kwargs\": {\"enable_thinking\": false}", false, false},
        {"{\"role\": \"user\", \"content\": \"x\"}, {\"role\": \"assistant\", \"content\": \"<think>so\"}",
         ", \"continue_final_message\": true", true, true},
        {"{\"role\": \"user\", \"content\": \"<think>\"}, {\"role\": \"assistant\", \"content\": \"so\"}",
         ", \"continue_final_message\": true", false, true},
        {"{\"role\": \"user\", \"content\": \"x\"}, {\"role\": \"assistant\", \"content\": \"<think>so\"}",
         ", \"continue_final_message\": true, \"truncate_prompt_tokens\": 4, \"truncation_side\": \"right\"",
         false, true},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        Arena a = {0};
        ApiRequest r;
        ApiError e;
        const char *body = arena_printf(&a, "{\"messages\": [%s]%s}", cases[i].messages, cases[i].more);
        if (!read_body(&a, chat_request, body, &r, &e)) fail_msg("%s", e.message);
        if (r.in_thinking != cases[i].in_thinking || r.thinks != cases[i].thinks) fail_msg("%s", body);
        arena_free(&a);
    }
}

static void test_context_error(void **state) {
    (void)state;
    Arena a = {0};
    ApiRequest r;
    ApiError e;
    StrBuf out = {0};
    assert_false(read_body(&a, completion_request, "{\"prompt\": [1, 2, 3], \"max_tokens\": 510}", &r, &e));
    api_error_write(&out, &e, API_STYLE_OPENAI, STR("id"));
    const Json *j = json_get(api_parse_body(&a, buf_view(&out), &e), "error");
    assert_true(
        str_starts(json_get(j, "message")->s, STR("This model's maximum context length is 512 tokens.")));
    assert_true(str_is(json_get(j, "code")->s, "context_length_exceeded"));
    assert_int_equal(json_get(j, "n_prompt_tokens")->i, 3);
    buf_free(&out);
    arena_free(&a);
}

static void test_bodies(void **state) {
    (void)state;
    static const char *const bad[] = {"",
                                      "[]",
                                      "{\"a\": \"\\u0000\"}",
                                      "{\"a\": \"\\ud800x\"}",
                                      "{\"a\": \"\\udc00\"}",
                                      "{\"a\": \"\\ud800\\ud800\"}",
                                      "{\"a\":1,\"a\":2}",
                                      "{\"a\": \"\xff\"}",
                                      "{\"a\": 1}x"};
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        Arena a = {0};
        ApiError e;
        if (api_parse_body(&a, str_of(bad[i]), &e)) fail_msg("%s", bad[i]);
        assert_int_equal(e.status, 400);
        assert_string_equal(e.code, "invalid_json");
        arena_free(&a);
    }
    Arena a = {0};
    ApiError e;
    assert_non_null(api_parse_body(&a, STR("{\"a\": \"\\\\u0000 \\ud83d\\ude00\"}"), &e));
    arena_free(&a);
}

static void test_errors_stay_utf8(void **state) {
    (void)state;
    char text[1200];
    for (size_t i = 0; i + 2 < sizeof text; i += 2) text[i] = (char)0xC3, text[i + 1] = (char)0xA9;
    text[sizeof text - 2] = 0;
    ApiError e;
    for (int pad = 0; pad < 2; pad++) {
        api_invalid(&e, pad ? "x" : text, "%s%s", pad ? "x" : "", text);
        for (size_t at = 0; e.message[at];) {
            size_t n = str_utf8_len(str_of(e.message + at));
            assert_true(n > 0);
            at += n;
        }
    }
}

// ---- replies ---------------------------------------------------------------------------------------------

// A model's answer through a form, a token at a time; each token's log probability is minus its place.
static void reply_to(ApiKind kind, bool stream, const char *text, StrBuf *out) {
    static const uint32_t prompt_id = 1;
    Arena a = {0};
    ApiTool tool = {.name = STR("f")};
    ApiPrompt prompt = {.ids = &prompt_id, .n = 1};
    ApiRequest q = {.kind = kind,
                    .model = model.name,
                    .prompts = &prompt,
                    .n_prompts = 1,
                    .n = 1,
                    .sampling = {.logprobs = true},
                    .stream = stream,
                    .skip_special = true,
                    .thinks = true,
                    .parallel_tools = true,
                    .tools = &tool,
                    .n_tools = 1,
                    .tool_choice = TOOLS_AUTO};
    Reply r;
    Ids ids = {0};
    Err e;
    assert_true(tokenizer_encode(model.tok, str_of(text), (EncodeOptions){.special = true}, &ids, &e));
    LogprobRow *rows = ARENA_ARRAY(&a, LogprobRow, ids.n);
    for (uint32_t i = 0; i < ids.n; i++)
        rows[i] = (LogprobRow){.id[0] = (int32_t)ids.ptr[i], .logprob[0] = -(float)i, .n = 1};
    reply_begin(&r, &a, &model, &q, "0123456789abcdef01234567", STR("id"), 1);
    reply_open(&r, out);
    for (uint32_t i = 0; i < ids.n; i++) {
        const EngineNews news = {.first = i,
                                 .n = 1,
                                 .ids = (const int32_t *)ids.ptr + i,
                                 .logprobs = rows + i,
                                 .end = i + 1 == ids.n ? ENGINE_LENGTH : ENGINE_RUNNING};
        assert_true(reply_news(&r, &r.choices[0], &news, out));
    }
    reply_close(&r, out);
    reply_end(&r);
    ids_free(&ids);
    arena_free(&a);
}

static const char all_kinds[] =
    "<think>\nso\n</think>\n\nLet me.\n<tool_call>\n{\"name\": \"f\", \"arguments\": "
    "{}}\n</tool_call>\nthat is all";
static const char *const kinds[] = {"reasoning so", "message Let me.", "function_call {}",
                                    "message that is all"};

static const char *item_said(Arena *a, const Json *item) {
    const Json *type = json_get(item, "type"), *content = json_get(item, "content"),
               *text = content ? json_get(&content->items[0], "text") : json_get(item, "arguments");
    return arena_printf(a, STR_FMT " " STR_FMT, STR_ARG(type->s), STR_ARG(text->s));
}

// The bytes of the tokens make the text; what is before and behind it is no token of it.
static void check_logprobs(const Json *part) {
    const Json *list = json_get(part, "logprobs");
    Str text = json_get(part, "text")->s;
    StrBuf made = {0};
    for (uint32_t i = 0; i < list->n; i++) {
        const Json *bytes = json_get(&list->items[i], "bytes");
        for (uint32_t k = 0; k < bytes->n; k++) buf_putc(&made, (char)bytes->items[k].i);
        if (i)
            assert_true(json_number(json_get(&list->items[i], "logprob")) ==
                        json_number(json_get(&list->items[i - 1], "logprob")) - 1);
    }
    while (made.len && (made.ptr[made.len - 1] == '\n')) made.len--;
    if (!str_ends(buf_view(&made), text) || made.len > text.len + 2)
        fail_msg(STR_FMT " is made of " STR_FMT, STR_ARG(text), STR_ARG(buf_view(&made)));
    buf_free(&made);
}

static void test_items_in_their_order(void **state) {
    (void)state;
    Arena a = {0};
    ApiError e;
    StrBuf out = {0};
    reply_to(API_RESPONSES, false, all_kinds, &out);
    const Json *output = json_get(api_parse_body(&a, buf_view(&out), &e), "output");
    assert_int_equal(output->n, COUNT_OF(kinds));
    for (uint32_t i = 0; i < output->n; i++) {
        assert_string_equal(item_said(&a, &output->items[i]), kinds[i]);
        if (i % 2) check_logprobs(&json_get(&output->items[i], "content")->items[0]);
    }
    out.len = 0;
    reply_to(API_MESSAGES, false, all_kinds, &out);
    const Json *content = json_get(api_parse_body(&a, buf_view(&out), &e), "content");
    static const char *const types[] = {"thinking", "text", "tool_use", "text"};
    assert_int_equal(content->n, COUNT_OF(types));
    for (uint32_t i = 0; i < content->n; i++)
        assert_true(str_is(json_get(&content->items[i], "type")->s, types[i]));
    assert_true(str_is(json_get(&content->items[3], "text")->s, "that is all"));
    buf_free(&out);
    arena_free(&a);
}

// What a stream ends one by one is what its last event holds, and its deltas are the same text and tokens.
static void test_streams_of_items(void **state) {
    (void)state;
    Arena a = {0};
    ApiError e;
    StrBuf out = {0}, deltas = {0};
    uint32_t n_items = 0, n_tokens = 0, n_done = 0;
    const Json *last = NULL;
    reply_to(API_RESPONSES, true, all_kinds, &out);
    for (Str rest = buf_view(&out); rest.len;) {
        const char *data = memmem(rest.ptr, rest.len, "data: ", 6),
                   *end = memmem(rest.ptr, rest.len, "\n\n", 2);
        const Json *j = last = api_parse_body(&a, (Str){data + 6, (size_t)(end - data) - 6}, &e);
        Str type = json_get(j, "type")->s;
        rest = str_from(rest, (size_t)(end - rest.ptr) + 2);
        if (str_is(type, "response.output_text.delta")) {
            buf_str(&deltas, json_get(j, "delta")->s);
            assert_true(json_get(j, "logprobs")->n > 0);
            n_tokens += json_get(j, "logprobs")->n;
        } else if (str_is(type, "response.output_text.done")) {
            assert_true(str_eq(json_get(j, "text")->s, buf_view(&deltas)));
            check_logprobs(j);
            n_done += json_get(j, "logprobs")->n;
            deltas.len = 0;
        } else if (str_is(type, "response.output_item.done")) {
            assert_int_equal(json_get(j, "output_index")->i, n_items);
            assert_string_equal(item_said(&a, json_get(j, "item")), kinds[n_items++]);
        }
    }
    assert_int_equal(n_items, COUNT_OF(kinds));
    assert_int_equal(n_tokens, n_done);
    const Json *output = json_get(json_get(last, "response"), "output");
    for (uint32_t i = 0; i < output->n; i++) assert_string_equal(item_said(&a, &output->items[i]), kinds[i]);
    buf_free(&out), buf_free(&deltas);
    arena_free(&a);
}

// ---- keys ------------------------------------------------------------------------------------------------

static void test_keys(void **state) {
    (void)state;
    char path[] = "/tmp/adallm-keys-XXXXXX";
    int fd = mkstemp(path);
    Arena a = {0};
    Keys keys;
    Err e = {0};
    assert_true(fd >= 0);
    FILE *f = fdopen(fd, "w");
    fputs("# two\nalpha\r\n\nbeta\n", f);
    fclose(f);
    if (!keys_read(&a, path, &keys, &e)) fail_msg("%s", e.msg);
    assert_int_equal(keys.n, 2);
    assert_true(keys_match(&keys, STR("alpha")));
    assert_true(keys_match(&keys, STR("beta")));
    static const char *const wrong[] = {"", "alph", "alphaa", "# two", "beta\n"};
    for (size_t i = 0; i < COUNT_OF(wrong); i++) assert_false(keys_match(&keys, str_of(wrong[i])));
    chmod(path, 0604);
    assert_false(keys_read(&a, path, &keys, &e));
    remove(path);
    arena_free(&a);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_probe),
        cmocka_unit_test(test_json_scan),
        cmocka_unit_test(test_answers_in_any_pieces),
        cmocka_unit_test(test_random_tokens),
        cmocka_unit_test(test_requests),
        cmocka_unit_test(test_what_a_request_becomes),
        cmocka_unit_test(test_who_opens_thinking),
        cmocka_unit_test(test_items_in_their_order),
        cmocka_unit_test(test_streams_of_items),
        cmocka_unit_test(test_context_error),
        cmocka_unit_test(test_bodies),
        cmocka_unit_test(test_errors_stay_utf8),
        cmocka_unit_test(test_keys),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
