// Any bytes as the body of a request to each API, and as the tokens of an answer: refused with a 400 or
// taken; what is told is UTF-8.
#include <stdlib.h>

#include "compiler/frontend/jinja.h"
#include "compiler/frontend/tokenizer_pack.h"
#include "runtime/base/num.h"
#include "runtime/server/answer.h"

static ApiModel model;
static const int32_t eos[] = {633};

static void open_model(void) {
    static Arena arena;
    static StrBuf tok, chat;
    static const Str name = {"qwen3", 5};
    bool present;
    Err e = {0};
    Diags d = {.arena = &arena};
    CHECK(tokenizer_pack(&arena, "tests/golden/models/qwen3", 672, &tok, &d));
    CHECK(chat_pack(&arena, "tests/golden/models/qwen3", &chat, &present, &d));
    model = (ApiModel){.name = name,
                       .names = &name,
                       .n_names = 1,
                       .vocab = 651,
                       .context = 512,
                       .eos_ids = eos,
                       .n_eos_ids = 1,
                       .n_max = 8,
                       .defaults = {.temperature = 1, .top_p = 1}};
    model.tok = tokenizer_open(&arena, tok.ptr, tok.len, &e);
    model.chat = chat_open(&arena, chat.ptr, chat.len, &e);
    model.control = chat_control(&arena, model.tok);
    api_model_probe(&model);
}

static void sink(void *ctx, const AnswerPart *p) {
    (void)ctx;
    for (size_t at = 0, n; at < p->text.len; at += n) CHECK((n = str_utf8_len(str_from(p->text, at))) > 0);
}

static void answer(const uint8_t *data, size_t size) {
    ApiTool tool = {.name = STR("f")};
    Str stop = STR("ab");
    uint8_t how = size ? data[0] : 0;
    ApiRequest r = {.skip_special = how & 1,
                    .parallel_tools = how & 2,
                    .thinks = how & 4,
                    .in_thinking = how & 8,
                    .stops = &stop,
                    .n_stops = how & 16 ? 1 : 0,
                    .tools = &tool,
                    .n_tools = how & 32 ? 1 : 0,
                    .tool_choice = TOOLS_AUTO};
    Answer a;
    Ids ids = {0};
    Err e;
    answer_begin(&a, &r, model.tok, sink, NULL);
    bool text = tokenizer_encode(model.tok, (Str){(const char *)data, size}, (EncodeOptions){.special = true},
                                 &ids, &e);
    for (size_t i = 0; text && i < ids.n; i++) answer_push(&a, ids.ptr[i]);
    for (size_t i = 0; !text && i + 1 < size; i += 2)
        answer_push(&a, (uint32_t)(data[i] | data[i + 1] << 8) % 700);
    answer_finish(&a);
    answer_end(&a);
    ids_free(&ids);
}

typedef bool Read(const ApiModel *m, Arena *a, const Json *body, ApiRequest *r, ApiError *e);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static Read *const apis[] = {chat_request, completion_request, messages_request, responses_request};
    if (!model.tok) open_model();
    for (size_t i = 0; i < COUNT_OF(apis); i++) {
        Arena a = {0};
        ApiRequest r;
        ApiError e = {0};
        const Json *j = api_parse_body(&a, (Str){(const char *)data, size}, &e);
        bool ok = j && apis[i](&model, &a, j, &r, &e);
        StrBuf out = {0};
        if (!ok) {
            CHECK(e.status == 400 || e.status == 404);
            api_error_write(&out, &e, i == 2 ? API_STYLE_ANTHROPIC : API_STYLE_OPENAI, STR("id"));
            CHECK(api_parse_body(&a, buf_view(&out), &e));
        } else {
            CHECK(r.n_prompts && r.prompts[0].n && r.prompts[0].n + r.max_tokens <= model.context);
        }
        buf_free(&out);
        arena_free(&a);
    }
    answer(data, size);
    return 0;
}
