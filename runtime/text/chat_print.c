// How Python writes values: str(), repr() inside of containers, json.dumps().
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <utf8proc.h>

#include "runtime/base/num.h"
#include "runtime/text/chat_value.h"

enum { DEPTH_MAX = 256 };

// repr(float): the shortest digits that read back the same; an exponent below 1e-4 and from 1e16 on.
static bool print_real(TextBuf *b, double d, bool json) {
    char digits[40], out[64];
    if (isnan(d)) return tb_puts(b, json ? "NaN" : "nan");
    if (isinf(d)) return tb_puts(b, json ? (d < 0 ? "-Infinity" : "Infinity") : d < 0 ? "-inf" : "inf");
    int precision = 0;
    do snprintf(digits, sizeof digits, "%.*e", precision, d);
    while (strtod(digits, NULL) != d && precision++ < 17);
    const char *e = strchr(digits, 'e');
    int exponent = atoi(e + 1);
    if (exponent >= -4 && exponent < 16) {
        int decimals = MAX(precision - exponent, 1);
        snprintf(out, sizeof out, "%.*f", decimals, d);
    } else {
        snprintf(out, sizeof out, "%.*s%s%02d", (int)(e - digits), digits, exponent < 0 ? "e-" : "e+",
                 abs(exponent));
    }
    return tb_puts(b, out);
}

static bool print_int(TextBuf *b, int64_t i) {
    char out[24];
    snprintf(out, sizeof out, "%lld", (long long)i);
    return tb_puts(b, out);
}

static bool printable(uint32_t c) {
    if (c == ' ') return true;
    switch (utf8proc_category((utf8proc_int32_t)c)) {
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
    case UTF8PROC_CATEGORY_ZS: return false;
    default: return true;
    }
}

// repr(str): single quotes unless only the other kind avoids escapes.
static bool print_quoted(TextBuf *b, Text t) {
    Str s = text_str(t);
    bool single = s.len && memchr(s.ptr, '\'', s.len), twice = s.len && memchr(s.ptr, '"', s.len);
    char quote = single && !twice ? '"' : '\'';
    if (!tb_bytes(b, &quote, 1, FROM_TEMPLATE)) return false;
    for (size_t at = 0, n; at < s.len; at += n) {
        n = utf8_step(s, at);
        uint32_t c = utf8_value(s, at);
        char escape[16];
        if (c == (uint32_t)quote || c == '\\')
            snprintf(escape, sizeof escape, "\\%c", (char)c);
        else if (c == '\n' || c == '\r' || c == '\t')
            snprintf(escape, sizeof escape, "\\%c", c == '\n' ? 'n' : c == '\r' ? 'r' : 't');
        else if (!printable(c))
            snprintf(escape, sizeof escape, c < 0x100 ? "\\x%02x" : c < 0x10000 ? "\\u%04x" : "\\U%08x", c);
        else
            escape[0] = '\0';
        bool ok = escape[0] ? tb_bytes(b, escape, strlen(escape), FROM_INPUT)
                            : tb_text(b, text_slice(t, at, at + n));
        if (!ok) return false;
    }
    return tb_bytes(b, &quote, 1, FROM_TEMPLATE);
}

// A string as json.dumps writes it.
static bool print_json_string(TextBuf *b, Text t, bool ascii) {
    Str s = text_str(t);
    size_t plain = 0; // begin of what needs no escape
    if (!tb_puts(b, "\"")) return false;
    for (size_t at = 0, n; at < s.len; at += n) {
        n = utf8_step(s, at);
        unsigned char c = (unsigned char)s.ptr[at];
        const char *names = "\"\\\n\r\t\b\f", *letters = "\"\\nrtbf";
        const char *known = c ? strchr(names, c) : NULL;
        char escape[16];
        if (known)
            snprintf(escape, sizeof escape, "\\%c", letters[known - names]);
        else if (c < 0x20)
            snprintf(escape, sizeof escape, "\\u%04x", c);
        else if (ascii && c >= 0x7F) {
            uint32_t u = utf8_value(s, at);
            if (u >= 0x10000)
                snprintf(escape, sizeof escape, "\\u%04x\\u%04x", 0xD7C0 + (u >> 10), 0xDC00 + (u & 0x3FF));
            else
                snprintf(escape, sizeof escape, "\\u%04x", u);
        } else {
            continue;
        }
        if (!tb_text(b, text_slice(t, plain, at)) || !tb_bytes(b, escape, strlen(escape), FROM_INPUT))
            return false;
        plain = at + n;
    }
    return tb_text(b, text_slice(t, plain, s.len)) && tb_puts(b, "\"");
}

static bool print_flat(TextBuf *b, const Value *v, bool json, JsonStyle style) {
    switch (v->kind) {
    case V_NONE: return tb_puts(b, json ? "null" : "None");
    case V_BOOL: return tb_puts(b, json ? (v->boolean ? "true" : "false") : v->boolean ? "True" : "False");
    case V_INT: return print_int(b, v->i);
    case V_BIG: return tb_text(b, v->text);
    case V_REAL: return print_real(b, v->real, json);
    case V_TEXT: return json ? print_json_string(b, v->text, style.ascii) : print_quoted(b, v->text);
    default:
        if (!json && v->kind <= V_UNDEFINED) return tb_puts(b, "Undefined");
        return vm_fail(b->vm, E_CHAT, "%s cannot be written", value_kind_name(v));
    }
}

// ---- containers ----------------------------------------------------------------------------------

typedef struct {
    const Value *v;
    const ChatPair *pairs; // of a dict, in the order to write
    size_t next;
} Level;

static bool new_line(TextBuf *b, JsonStyle style, size_t depth) {
    if (style.indent < 0) return true;
    if (!tb_puts(b, "\n")) return false;
    for (size_t i = 0; i < depth * (size_t)style.indent; i++)
        if (!tb_puts(b, " ")) return false;
    return true;
}

static int pair_order(const void *a, const void *b) {
    return str_cmp(text_str(((const ChatPair *)a)->key), text_str(((const ChatPair *)b)->key));
}

static const ChatPair *ordered(Vm *vm, const ChatDict *d, bool sort) {
    if (!sort) return d->pairs;
    ChatPair *copy = vm_alloc(vm, d->n, sizeof *copy);
    if (!copy) return NULL;
    if (d->n) memcpy(copy, d->pairs, d->n * sizeof *copy);
    qsort(copy, d->n, sizeof *copy, pair_order);
    return copy;
}

static size_t size_of(const Value *v) { return v->kind == V_LIST ? v->list->n : v->dict->n; }

static const char *bracket(const Value *v, bool json, bool open) {
    if (v->kind == V_DICT) return open ? "{" : "}";
    if (!json && v->list->kind == SEQ_TUPLE) return open ? "(" : v->list->n == 1 ? ",)" : ")";
    return open ? "[" : "]";
}

// Opens `v` if it is a container, else writes it.
static bool begin_value(TextBuf *b, const Value *v, bool json, JsonStyle style, Level *stack, size_t *depth) {
    if (!vm_spend(b->vm, 1)) return false;
    if (v->kind != V_LIST && v->kind != V_DICT) return print_flat(b, v, json, style);
    if (v->kind == V_LIST && !v_plain(v))
        return vm_fail(b->vm, E_CHAT, "an iterator cannot be written: use `list`");
    if (*depth == DEPTH_MAX) return vm_fail(b->vm, E_LIMIT, "values nested too deeply to write");
    Level l = {.v = v};
    if (v->kind == V_DICT && !(l.pairs = ordered(b->vm, v->dict, style.sort_keys))) return false;
    stack[(*depth)++] = l;
    return tb_puts(b, bracket(v, json, true));
}

static bool print_value(TextBuf *b, const Value *v, bool json, JsonStyle style) {
    Level stack[DEPTH_MAX];
    size_t depth = 0;
    if (!begin_value(b, v, json, style, stack, &depth)) return false;
    while (depth) {
        Level *l = &stack[depth - 1];
        size_t n = size_of(l->v), i = l->next++;
        if (i == n) {
            depth--;
            if ((n && !new_line(b, style, depth)) || !tb_puts(b, bracket(l->v, json, false))) return false;
            continue;
        }
        if ((i && !tb_text(b, style.item_separator)) || !new_line(b, style, depth)) return false;
        const Value *child = l->v->kind == V_LIST ? &l->v->list->items[i] : &l->pairs[i].value;
        if (l->v->kind == V_DICT) {
            Text key = l->pairs[i].key;
            if (!(json ? print_json_string(b, key, style.ascii) : print_quoted(b, key))) return false;
            if (!tb_text(b, style.key_separator)) return false;
        }
        if (!begin_value(b, child, json, style, stack, &depth)) return false;
    }
    return true;
}

bool value_json(TextBuf *b, const Value *v, JsonStyle style) { return print_value(b, v, true, style); }

bool value_print(TextBuf *b, const Value *v) {
    if (v->kind <= V_UNDEFINED) return true;
    if (v->kind == V_TEXT) return tb_text(b, v->text);
    JsonStyle python = {.indent = -1, .item_separator = text_own(", "), .key_separator = text_own(": ")};
    return print_value(b, v, false, python);
}

bool value_str(Vm *vm, const Value *v, Text *out) {
    if (v->kind == V_TEXT) return *out = v->text, true;
    TextBuf b = {.vm = vm};
    if (!value_print(&b, v)) return false;
    *out = tb_view(&b);
    return true;
}
