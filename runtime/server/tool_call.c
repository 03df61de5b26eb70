#include "runtime/server/tool_call.h"

#include "runtime/base/json.h"
#include "runtime/base/num.h"

enum { OBJECT, KEY_OR_END, KEY, IN_KEY, COLON, IN_VALUE, NEXT, WHOLE, BAD };
enum { OTHER, NAME, ARGUMENTS };
enum { NAME_BYTES_MAX = 256, HELD_BYTES_MAX = 64 << 10 };

void tool_call_begin(ToolCall *c) {
    tool_call_end(c);
    *c = (ToolCall){.state = OBJECT};
}

void tool_call_end(ToolCall *c) {
    buf_free(&c->raw);
    buf_free(&c->key);
    buf_free(&c->arguments);
    buf_free(&c->name);
}

static bool space(char b) { return b == ' ' || b == '\t' || b == '\n' || b == '\r'; }

static CallResult bad(ToolCall *c) {
    c->state = BAD;
    return CALL_BAD;
}

static CallResult go(ToolCall *c, uint8_t state) {
    c->state = state;
    return CALL_MORE;
}

// A JSON string with its quotes to its text. False: it is none, or holds what no name does.
static bool decode(Str quoted, StrBuf *out) {
    Arena a = {0};
    Source src = {"name", quoted};
    Diags d = {.arena = &a, .n_max = 1};
    const Json *j = json_parse(&a, &src, (JsonLimits){.depth_max = 1}, &d);
    bool ok = json_is(j, JSON_STRING) && j->s.len && j->s.len <= NAME_BYTES_MAX;
    if (ok) buf_str(out, j->s);
    arena_free(&a);
    return ok;
}

static CallResult name_known(ToolCall *c, StrBuf *out) {
    if (!decode(buf_view(&c->key), &c->name)) return bad(c);
    c->named = true;
    buf_str(out, buf_view(&c->arguments));
    c->arguments.len = 0;
    return CALL_NAMED;
}

static CallResult value_done(ToolCall *c, StrBuf *out) {
    c->state = NEXT;
    return c->member == NAME ? name_known(c, out) : CALL_MORE;
}

static bool keep(ToolCall *c, char byte, StrBuf *out) {
    StrBuf *to = c->member == NAME ? &c->key : c->named ? out : &c->arguments;
    if (c->member == OTHER) return true;
    if (c->member == NAME && to->len > NAME_BYTES_MAX * 6) return false;
    if (to != out && to->len > HELD_BYTES_MAX) return false;
    bool leading = c->scan.depth == 0 && space(byte) && c->scan.state == 0;
    if (!leading) buf_putc(to, byte);
    return true;
}

static CallResult outside(ToolCall *c, char byte);

static CallResult value(ToolCall *c, char byte, StrBuf *out) {
    JsonScan before = c->scan;
    ScanResult r = json_scan(&c->scan, byte);
    if (r == SCAN_BAD) return bad(c);
    if (r == SCAN_AFTER) {
        CallResult named = value_done(c, out), next = named == CALL_BAD ? CALL_BAD : outside(c, byte);
        return next == CALL_MORE ? named : next;
    }
    c->scan.depth = r == SCAN_MORE ? c->scan.depth : 0;
    JsonScan after = c->scan;
    c->scan = before; // whether the byte is a space before the value depends on the state it met
    bool kept = keep(c, byte, out);
    c->scan = after;
    if (!kept) return bad(c);
    return r == SCAN_DONE ? value_done(c, out) : CALL_MORE;
}

static CallResult begin_value(ToolCall *c) {
    Str key = buf_view(&c->key);
    bool name = str_is(key, "\"name\"");
    bool arguments = str_is(key, "\"arguments\"") || str_is(key, "\"parameters\"");
    if ((name && c->named) || (arguments && c->has_arguments)) return bad(c);
    c->member = name ? NAME : arguments ? ARGUMENTS : OTHER;
    c->has_arguments = c->has_arguments || arguments;
    c->scan = (JsonScan){0};
    c->key.len = 0;
    return go(c, IN_VALUE);
}

static CallResult whole(ToolCall *c) {
    if (!c->named) return bad(c);
    c->state = WHOLE;
    return CALL_WHOLE;
}

static CallResult in_key(ToolCall *c, char byte) {
    bool escaped = c->key.len > 1 && c->key.ptr[c->key.len - 1] == '\\';
    buf_putc(&c->key, byte);
    if (c->key.len > NAME_BYTES_MAX || (unsigned char)byte < 0x20) return bad(c);
    return byte == '"' && !escaped ? go(c, COLON) : CALL_MORE;
}

static CallResult outside(ToolCall *c, char byte) {
    if (space(byte)) return CALL_MORE;
    switch (c->state) {
    case OBJECT: return byte == '{' ? go(c, KEY_OR_END) : bad(c);
    case KEY_OR_END:
    case KEY:
        if (byte == '}' && c->state == KEY_OR_END) return whole(c);
        if (byte != '"') return bad(c);
        c->key.len = 0;
        buf_putc(&c->key, '"');
        return go(c, IN_KEY);
    case COLON: return byte == ':' ? begin_value(c) : bad(c);
    case NEXT:
        if (byte == ',') return go(c, KEY);
        return byte == '}' ? whole(c) : bad(c);
    default: return bad(c);
    }
}

CallResult tool_call_push(ToolCall *c, char byte, StrBuf *out) {
    if (!c->named) buf_putc(&c->raw, byte);
    if (c->raw.len > 2 * HELD_BYTES_MAX) return bad(c);
    switch (c->state) {
    case IN_KEY: return in_key(c, byte);
    case IN_VALUE: return value(c, byte, out);
    default: return outside(c, byte);
    }
}
