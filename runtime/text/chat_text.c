// Python's string methods, on texts that keep their marks.
#include <utf8proc.h>

#include "runtime/base/num.h"
#include "runtime/text/chat_builtins.h"

// ---- upper and lower -----------------------------------------------------------------------------

static bool cased(uint32_t c) {
    utf8proc_category_t k = utf8proc_category((utf8proc_int32_t)c);
    return k == UTF8PROC_CATEGORY_LU || k == UTF8PROC_CATEGORY_LL || k == UTF8PROC_CATEGORY_LT;
}

static bool starts_word(uint32_t before, TextCase how) {
    if (how == CASE_TITLE) return !cased(before);
    return utf8_is_space(before) || before == '-' || before == '(' || before == '{' || before == '[' ||
           before == '<';
}

// One character; sharp s is the one common letter whose upper case is two.
static bool add_cased(TextBuf *b, Text one, bool upper) {
    uint32_t c = utf8_value(text_str(one), 0);
    if (upper && c == 0xDF) return tb_bytes(b, "SS", 2, one.origin);
    utf8proc_int32_t to =
        upper ? utf8proc_toupper((utf8proc_int32_t)c) : utf8proc_tolower((utf8proc_int32_t)c);
    if (to == (utf8proc_int32_t)c) return tb_text(b, one);
    utf8proc_uint8_t bytes[4];
    utf8proc_ssize_t n = utf8proc_encode_char(to, bytes);
    return tb_bytes(b, (const char *)bytes, n > 0 ? (size_t)n : 0, one.marks ? one.marks[0] : one.origin);
}

bool text_case(Vm *vm, Text t, TextCase how, Text *out) {
    TextBuf b = {.vm = vm};
    uint32_t before = ' ';
    if (!vm_spend(vm, t.len / 4)) return false;
    for (size_t at = 0, n; at < t.len; at += n) {
        n = utf8_step(text_str(t), at);
        bool upper = how == CASE_UPPER || (how == CASE_CAPITAL && at == 0) ||
                     (how >= CASE_TITLE && (at == 0 || starts_word(before, how)));
        before = utf8_value(text_str(t), at);
        if (!add_cased(&b, text_slice(t, at, at + n), upper)) return false;
    }
    *out = tb_view(&b);
    return true;
}

// ---- search --------------------------------------------------------------------------------------

size_t text_find(Str hay, Str needle, size_t from) {
    if (!needle.len) return from <= hay.len ? from : hay.len + 1;
    if (from >= hay.len) return hay.len + 1;
    const char *p = memmem(hay.ptr + from, hay.len - from, needle.ptr, needle.len);
    return p ? (size_t)(p - hay.ptr) : hay.len + 1;
}

// An empty `from` stands before every character and at the end.
static bool replace_between(TextBuf *b, Text t, Text to, int64_t count) {
    size_t at = 0;
    for (; at < t.len && count != 0; count--) {
        size_t n = utf8_step(text_str(t), at);
        if (!vm_spend(b->vm, 1) || !tb_text(b, to) || !tb_text(b, text_slice(t, at, at + n))) return false;
        at += n;
    }
    return tb_text(b, text_slice(t, at, t.len)) && (count == 0 || tb_text(b, to));
}

bool text_replace(Vm *vm, Text t, Text from, Text to, int64_t count, Text *out) {
    TextBuf b = {.vm = vm};
    if (!vm_spend(vm, t.len / 16)) return false;
    if (!from.len) {
        if (!replace_between(&b, t, to, count)) return false;
    } else {
        size_t at = 0, hit;
        while (count-- != 0 && (hit = text_find(text_str(t), text_str(from), at)) < t.len) {
            if (!vm_spend(vm, 1) || !tb_text(&b, text_slice(t, at, hit)) || !tb_text(&b, to)) return false;
            at = hit + from.len;
        }
        if (!tb_text(&b, text_slice(t, at, t.len))) return false;
    }
    *out = tb_view(&b);
    return true;
}

// ---- split ---------------------------------------------------------------------------------------

static bool add_part(Vm *vm, ChatList *l, Text t, size_t begin, size_t end) {
    return vm_spend(vm, 1) && list_add(vm, l, v_text(text_slice(t, begin, end)));
}

static bool space_at(Str s, size_t at) { return utf8_is_space(utf8_value(s, at)); }

static bool split_space(Vm *vm, Text t, int64_t max, ChatList *l) {
    Str s = text_str(t);
    size_t stop = text_strip(t, NULL, false, true).len;
    for (size_t at = 0;;) {
        while (at < stop && space_at(s, at)) at += utf8_step(s, at);
        if (at >= stop) return true;
        size_t end = at;
        if (max-- == 0) // the rest, as it is, space at its end included
            end = s.len;
        else
            while (end < stop && !space_at(s, end)) end += utf8_step(s, end);
        if (!add_part(vm, l, t, at, end)) return false;
        at = end;
    }
}

bool text_split(Vm *vm, Text t, const Text *separator, int64_t max, ChatList **out) {
    ChatList *l = *out = list_new(vm, 4);
    if (!l || !vm_spend(vm, t.len / 16)) return false;
    if (!separator) return split_space(vm, t, max, l);
    if (!separator->len) return vm_fail(vm, E_CHAT, "split at an empty separator");
    size_t at = 0, hit;
    while (max-- != 0 && (hit = text_find(text_str(t), text_str(*separator), at)) < t.len) {
        if (!add_part(vm, l, t, at, hit)) return false;
        at = hit + separator->len;
    }
    return add_part(vm, l, t, at, t.len);
}

bool text_rsplit(Vm *vm, Text t, const Text *separator, int64_t max, ChatList **out) {
    if (max < 0) return text_split(vm, t, separator, max, out);
    if (!separator) return vm_fail(vm, E_CHAT, "rsplit at whitespace with a limit is not supported");
    ChatList *all, *l = *out = list_new(vm, 4);
    if (!l || !text_split(vm, t, separator, -1, &all)) return false;
    size_t kept = all->n - 1 > (size_t)max ? all->n - 1 - (size_t)max : 0, head = 0;
    for (size_t i = 0; i <= kept; i++) head += all->items[i].text.len + (i ? separator->len : 0);
    if (!add_part(vm, l, t, 0, head)) return false;
    for (size_t i = kept + 1; i < all->n; i++)
        if (!list_add(vm, l, all->items[i])) return false;
    return true;
}

// Bytes of the line break at `at`, or 0: what Python's splitlines takes for one.
static size_t line_break(Str s, size_t at) {
    uint32_t c = utf8_value(s, at);
    if (c == '\r' && at + 1 < s.len && s.ptr[at + 1] == '\n') return 2;
    bool yes =
        (c >= 0x0A && c <= 0x0D) || (c >= 0x1C && c <= 0x1E) || c == 0x85 || c == 0x2028 || c == 0x2029;
    return yes ? utf8_step(s, at) : 0;
}

bool text_lines(Vm *vm, Text t, ChatList **out) {
    ChatList *l = *out = list_new(vm, 4);
    Str s = text_str(t);
    size_t begin = 0;
    if (!l || !vm_spend(vm, t.len / 8)) return false;
    for (size_t at = 0, n; at < s.len; at += n) {
        n = line_break(s, at);
        if (n && !add_part(vm, l, t, begin, at)) return false;
        if (n) begin = at + n;
        if (!n) n = utf8_step(s, at);
    }
    return begin == s.len || add_part(vm, l, t, begin, s.len);
}

bool text_indent(Vm *vm, Text t, Text by, bool first, bool blank, Text *out) {
    ChatList *lines;
    TextBuf b = {.vm = vm};
    if (!text_join(vm, t, text_own("\n"), &t) || !text_lines(vm, t, &lines)) return false;
    for (size_t i = 0; i < lines->n; i++) {
        Text line = lines->items[i].text;
        bool indented = i ? blank || line.len : first;
        if ((i && !tb_puts(&b, "\n")) || (indented && !tb_text(&b, by)) || !tb_text(&b, line)) return false;
    }
    *out = tb_view(&b);
    return true;
}

bool text_items(Vm *vm, Text separator, const ChatList *l, Text *out) {
    TextBuf b = {.vm = vm};
    for (size_t i = 0; i < l->n; i++) {
        if (!vm_spend(vm, 1) || (i && !tb_text(&b, separator)) || !value_print(&b, &l->items[i]))
            return false;
    }
    *out = tb_view(&b);
    return true;
}
