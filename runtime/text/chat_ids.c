// Rendered text to ids: which control tokens count is decided by who wrote them.
#include "runtime/base/num.h"
#include "runtime/text/chat.h"

typedef struct {
    Str content;
    uint32_t id;
} Control;

struct ChatControl {
    const Tokenizer *tok;
    Control *slots; // open addressing by content; empty content is free
    size_t mask;
    bool first[256];  // bytes that a control token begins with
    uint8_t *lengths; // that occur, the longest first
    size_t n_lengths;
};

enum { CONTROL_BYTES_MAX = 255 };

static bool usable(const Tokenizer *tok, uint32_t id, Str *content) {
    if (!tokenizer_is_special(tok, id)) return false;
    *content = tokenizer_token_bytes(tok, id);
    return content->len && content->len <= CONTROL_BYTES_MAX;
}

static Control *slot_of(const ChatControl *c, Str content) {
    size_t at = str_hash(content) & c->mask;
    while (c->slots[at].content.len && !str_eq(c->slots[at].content, content)) at = (at + 1) & c->mask;
    return &c->slots[at];
}

ChatControl *chat_control(Arena *arena, const Tokenizer *tok) {
    ChatControl *c = ARENA_NEW(arena, ChatControl);
    bool has_length[CONTROL_BYTES_MAX + 1] = {false};
    size_t n = 0, size = tokenizer_size(tok), cap = 16;
    Str content;
    for (size_t id = 0; id < size; id++) n += usable(tok, (uint32_t)id, &content);
    while (cap < 2 * n) cap *= 2;
    *c = (ChatControl){.tok = tok, .slots = ARENA_ARRAY(arena, Control, cap), .mask = cap - 1};
    for (size_t id = 0; id < size; id++) {
        if (!usable(tok, (uint32_t)id, &content)) continue;
        Control *slot = slot_of(c, content);
        if (!slot->content.len) *slot = (Control){content, (uint32_t)id};
        c->first[(unsigned char)content.ptr[0]] = has_length[content.len] = true;
    }
    c->lengths = ARENA_ARRAY(arena, uint8_t, CONTROL_BYTES_MAX);
    for (size_t len = CONTROL_BYTES_MAX; len > 0; len--)
        if (has_length[len]) c->lengths[c->n_lengths++] = (uint8_t)len;
    return c;
}

// The longest control token that text[at, end) begins with; NULL: none.
static const Control *control_at(const ChatControl *c, Str text, size_t at, size_t end) {
    if (!c->first[(unsigned char)text.ptr[at]]) return NULL;
    for (size_t i = 0; i < c->n_lengths; i++) {
        if (c->lengths[i] > end - at) continue;
        const Control *slot = slot_of(c, str_sub(text, at, at + c->lengths[i]));
        if (slot->content.len) return slot;
    }
    return NULL;
}

static bool encode_between(const ChatControl *c, Str text, size_t begin, size_t end, Ids *out, Err *e) {
    return begin == end || tokenizer_encode(c->tok, str_sub(text, begin, end), (EncodeOptions){0}, out, e);
}

bool chat_encode(const ChatControl *control, const ChatText *text, Ids *out, Err *e) {
    size_t at = 0, begin = 0;
    for (size_t r = 0; r < text->n_runs; r++) {
        size_t end = text->runs[r].end;
        while (!text->runs[r].from_input && at < end) {
            const Control *found = control_at(control, text->text, at, end);
            if (!found) {
                at++;
                continue;
            }
            if (!encode_between(control, text->text, begin, at, out, e)) return false;
            ids_add(out, found->id);
            begin = at = at + found->content.len;
        }
        at = end;
    }
    return encode_between(control, text->text, begin, text->text.len, out, e);
}
