// Any bytes as a chat program: refused, or run without harm. Any other bytes as a line of messages for a
// template that uses most of what there is.
#include <stdlib.h>

#include "compiler/frontend/jinja.h"
#include "runtime/text/chat.h"
#include "runtime/text/chat_format.h"

static const char template[] =
    "{% macro f(a, b='x') %}{{ a ~ b }}{% endmacro %}{% for m in messages if m.role %}{% set c = m.content %}"
    "{{ f(c, b=loop.index) }}{{ m | tojson(indent=1) }}{{ m }}{% for k, v in m.items() %}{{ k | upper }}{{ v "
    "is string }}"
    "{% endfor %}{% else %}none{% endfor %}{% set ns = namespace(x=1) %}{% set ns.x = messages[::-1] %}"
    "{{ ns.x[0].content.split('a')[-1].strip() ~ ns.x[0].content[1:-1] }}{{ messages == ns.x }}{{ tools | "
    "tojson }}"
    "{{ messages | map(attribute='role') | join(',') | replace('u', 'uu') | indent | title }}";
static const char line[] =
    "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}, {\"role\": \"x\", \"content\": \"bab\"}]}";

static void render(Arena *arena, const Chat *chat, Str text) {
    Source src = {"line", text};
    Diags d = {.arena = arena};
    Err e = {0};
    ChatText out;
    const Json *j = json_parse(arena, &src, (JsonLimits){.dup = JSON_DUP_LAST}, &d);
    if (!j) return;
    ChatInput in = {json_get(j, "messages"), json_get(j, "tools"), json_get(j, "kwargs")};
    CHECK(chat_render(chat, arena, in, &out, &e) || e.code != E_NONE);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    Arena arena = {0};
    Err e = {0};
    if (size >= 8 && !memcmp(data, CHAT_MAGIC, 8)) {
        void *aligned = arena_alloc(&arena, size);
        memcpy(aligned, data, size);
        const Chat *chat = chat_open(&arena, aligned, size, &e);
        if (chat) render(&arena, chat, STR(line));
    } else {
        Diags d = {.arena = &arena};
        StrBuf section = {0};
        Source src = {"t", STR(template)};
        CHECK(jinja_compile(&arena, &src, NULL, 0, &section, &d));
        const Chat *chat = chat_open(&arena, section.ptr, section.len, &e);
        CHECK(chat);
        render(&arena, chat, (Str){(const char *)data, size});
        buf_free(&section);
    }
    arena_free(&arena);
    return 0;
}
