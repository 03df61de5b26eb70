// Any bytes as a chat template: compiling refuses them with one error, or what it writes opens and runs, with
// messages that have something of everything.
#include "compiler/frontend/jinja.h"
#include "runtime/text/chat.h"

static const char line[] = "{\"messages\": [{\"role\": \"system\", \"content\": \"s\"}, {\"role\": \"user\", "
                           "\"content\": [{\"type\": \"text\","
                           "\"text\": \" \\u00e9 \"}]}, {\"role\": \"assistant\", \"content\": null, "
                           "\"tool_calls\": [{\"name\": \"f\","
                           "\"arguments\": {\"a\": [1, -2.5, true, 99999999999999999999]}}]}], \"tools\": "
                           "[{\"type\": \"function\"}],"
                           "\"kwargs\": {\"a\": \"abc\", \"x\": {\"y\": [1, \"z\"]}}}";

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    Arena arena = {0};
    Diags d = {.arena = &arena};
    StrBuf section = {0};
    Err e = {0};
    ChatText text;
    Source src = {"fuzz", {(const char *)data, size}}, messages = {"line", STR(line)};
    JinjaVar bos = {STR("bos_token"), STR("<s>")};
    if (jinja_compile(&arena, &src, &bos, 1, &section, &d)) {
        Chat *chat = chat_open(&arena, section.ptr, section.len, &e);
        CHECK(chat);
        const Json *j = json_parse(&arena, &messages, (JsonLimits){.dup = JSON_DUP_LAST}, &d);
        ChatInput in = {json_get(j, "messages"), json_get(j, "tools"), json_get(j, "kwargs")};
        CHECK(chat_render(chat, &arena, in, &text, &e) || e.code != E_NONE);
    } else {
        CHECK(d.n_errors == 1);
    }
    buf_free(&section);
    arena_free(&arena);
    return 0;
}
