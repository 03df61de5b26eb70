// From messages to text: what transformers' apply_chat_template does around the template.
#include "runtime/text/chat.h"

#include "runtime/base/num.h"
#include "runtime/text/chat_program.h"

typedef struct {
    Vm vm;
    const Chat *chat;
    Value *globals; // [n_globals]
    Value messages;
    bool continues;  // continue_final_message
    Text field;      // which part of the last message goes on: "content" unless the caller names another
    Text unfinished; // what it was
} Render;

// The template writes this behind the last message, and the text is cut there.
static const char cut_mark[] = "CONTINUE_FINAL_MESSAGE_TAG ";

static void set_global(Render *r, Str name, Value v) {
    for (uint32_t i = 0; i < r->chat->n_globals; i++)
        if (str_eq(chat_str(r->chat, r->chat->globals[i].name), name)) r->globals[i] = v;
}

static bool all_objects(const Json *list) {
    for (uint32_t i = 0; i < list->n; i++)
        if (list->items[i].kind != JSON_OBJECT) return false;
    return true;
}

static bool check_input(Vm *vm, const ChatInput *in) {
    const Json *documents = json_get(in->kwargs, "documents");
    if (!json_is(in->messages, JSON_ARRAY))
        return vm_fail(vm, E_CHAT, "`messages` must be a list of messages");
    if (!in->messages->n)
        return vm_fail(vm, E_CHAT, "the conversation is empty: at least one message is needed");
    if (!all_objects(in->messages)) return vm_fail(vm, E_CHAT, "every message must be an object");
    if (!json_absent(in->tools) && (!json_is(in->tools, JSON_ARRAY) || !all_objects(in->tools)))
        return vm_fail(vm, E_CHAT, "`tools` must be a list of objects");
    if (!json_absent(documents) && (!json_is(documents, JSON_ARRAY) || !all_objects(documents)))
        return vm_fail(vm, E_CHAT, "`documents` must be a list of objects");
    if (!json_absent(in->kwargs) && !json_is(in->kwargs, JSON_OBJECT))
        return vm_fail(vm, E_CHAT, "`kwargs` must be an object");
    return true;
}

static bool set_kwargs(Render *r, const Json *kwargs) {
    bool prompts = false;
    for (uint32_t i = 0; !json_absent(kwargs) && i < kwargs->n; i++) {
        const JsonMember *m = &kwargs->members[i];
        Value v;
        if (!value_from_json(&r->vm, &m->value, &v)) return false;
        if (str_is(m->key, "messages") || str_is(m->key, "tools"))
            return vm_fail(&r->vm, E_CHAT, "`" STR_FMT "` is no keyword argument", STR_ARG(m->key));
        if (str_is(m->key, "continue_final_message")) {
            r->continues = value_true(&v);
            if (v.kind == V_TEXT) r->field = v.text;
            continue;
        }
        if (str_is(m->key, "add_generation_prompt")) prompts = value_true(&v);
        set_global(r, m->key, v);
    }
    if (r->continues && prompts)
        return vm_fail(&r->vm, E_CHAT, "continue_final_message and add_generation_prompt exclude each other");
    return true;
}

// ---- continue_final_message ----------------------------------------------------------------------

static bool marked(Render *r, Value *text) {
    if (text->kind != V_TEXT) return vm_fail(&r->vm, E_CHAT, "the final message has no text to continue");
    r->unfinished = text->text;
    Text mark = text_own(cut_mark);
    mark.origin = FROM_INPUT;
    return text_join(&r->vm, text->text, mark, &text->text);
}

static bool mark_final_message(Render *r) {
    Vm *vm = &r->vm;
    ChatList *l = r->messages.list;
    Value *content = dict_find(vm, l->items[l->n - 1].dict, text_str(r->field));
    if (!content || content->kind == V_NONE)
        return vm_fail(vm, E_CHAT, "the final message has no \"%.*s\" to continue",
                       (int)MIN(r->field.len, (size_t)60), r->field.ptr);
    if (!memmem(r->chat->strings.ptr, r->chat->strings.len, r->field.ptr, r->field.len))
        return vm_fail(vm, E_CHAT, "the chat template does not read \"%.*s\"",
                       (int)MIN(r->field.len, (size_t)60), r->field.ptr);
    if (content->kind != V_LIST) return marked(r, content);
    for (size_t i = content->list->n; i-- > 0;) {
        Value *block = &content->list->items[i], *text;
        if (block->kind != V_DICT)
            return vm_fail(vm, E_CHAT, "the final message has parts that are no objects");
        if ((text = dict_find(vm, block->dict, STR("text")))) return marked(r, text);
    }
    return vm_fail(vm, E_CHAT, "the final message has no text to continue");
}

static bool contains(Str hay, Str needle) {
    return !needle.len || (hay.len && memmem(hay.ptr, hay.len, needle.ptr, needle.len));
}

static bool cut_at_mark(Render *r, Text *text) {
    Str whole = text_str(*text), mark = {cut_mark, strlen(cut_mark) - 1};
    if (!contains(whole, text_str(text_strip(r->unfinished, NULL, true, true))) || !contains(whole, mark))
        return vm_fail(&r->vm, E_CHAT,
                       "the chat template changes the final message, so that it cannot be continued");
    size_t at = whole.len - mark.len;
    while (memcmp(whole.ptr + at, mark.ptr, mark.len)) at--;
    bool space_kept = str_starts(str_from(whole, at), str_of(cut_mark));
    *text = text_slice(*text, 0, at);
    if (!space_kept) *text = text_strip(*text, NULL, false, true);
    return true;
}

// ---- render --------------------------------------------------------------------------------------

static bool render(Render *r, ChatInput in, Text *out) {
    Vm *vm = &r->vm;
    Value tools;
    r->globals = vm_alloc(vm, r->chat->n_globals, sizeof *r->globals);
    if (!r->globals || !check_input(vm, &in)) return false;
    set_global(r, STR("add_generation_prompt"), v_bool(false));
    set_global(r, STR("documents"), V_NULL);
    if (!value_from_json(vm, in.messages, &r->messages) || !value_from_json(vm, in.tools, &tools))
        return false;
    if (!set_kwargs(r, in.kwargs) || (r->continues && !mark_final_message(r))) return false;
    set_global(r, STR("messages"), r->messages);
    set_global(r, STR("tools"), tools);
    return chat_run(vm, r->chat, r->globals, out) && (!r->continues || cut_at_mark(r, out));
}

static size_t run_end(Text t, size_t begin) {
    size_t end = begin;
    if (!t.marks) return t.len;
    while (end < t.len && t.marks[end] == t.marks[begin]) end++;
    return end;
}

static bool to_runs(Vm *vm, Text t, ChatText *out) {
    *out = (ChatText){.text = text_str(t)};
    for (size_t at = 0; at < t.len; at = run_end(t, at)) out->n_runs++;
    ChatRun *runs = vm_alloc(vm, out->n_runs, sizeof *runs);
    if (!runs) return false;
    size_t at = 0;
    for (size_t i = 0; i < out->n_runs; i++) {
        bool input = (t.marks ? t.marks[at] : t.origin) == FROM_INPUT;
        at = run_end(t, at);
        runs[i] = (ChatRun){.end = at, .from_input = input};
    }
    out->runs = runs;
    return true;
}

bool chat_render(const Chat *chat, Arena *arena, ChatInput input, ChatText *out, Err *e) {
    Render r = {.chat = chat, .field = text_own("content")};
    r.vm = (Vm){.arena = arena, .arena_start = arena->used_bytes, .steps_left = CHAT_STEPS_MAX};
    Text text;
    if (render(&r, input, &text) && to_runs(&r.vm, text, out)) return true;
    return err_set(e, r.vm.code, "%.*s", (int)MIN(r.vm.error.len, sizeof e->msg), r.vm.error.ptr);
}
