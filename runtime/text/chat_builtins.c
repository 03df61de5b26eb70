#include "runtime/text/chat_builtins.h"

#include <math.h>
#include <time.h>

#include "runtime/base/num.h"

const uint8_t chat_filter_max[] = {
#define FILTER(id, text, min, max, params) max,
#include "runtime/text/chat_builtins.def"
};
const uint8_t chat_filter_min[] = {
#define FILTER(id, text, min, max, params) min,
#include "runtime/text/chat_builtins.def"
};
const char *const chat_filter_params[] = {
#define FILTER(id, text, min, max, params) params,
#include "runtime/text/chat_builtins.def"
};
static const char *const filter_names[] = {
#define FILTER(id, text, min, max, params) text,
#include "runtime/text/chat_builtins.def"
};
const uint8_t chat_test_max[] = {
#define TEST(id, text, min, max) max,
#include "runtime/text/chat_builtins.def"
};
const uint8_t chat_test_min[] = {
#define TEST(id, text, min, max) min,
#include "runtime/text/chat_builtins.def"
};
static const char *const test_names[] = {
#define TEST(id, text, min, max) text,
#include "runtime/text/chat_builtins.def"
};
const uint8_t chat_method_max[] = {
#define METHOD(id, text, min, max) max,
#include "runtime/text/chat_builtins.def"
};
const uint8_t chat_method_min[] = {
#define METHOD(id, text, min, max) min,
#include "runtime/text/chat_builtins.def"
};
static const char *const method_names[] = {
#define METHOD(id, text, min, max) text,
#include "runtime/text/chat_builtins.def"
};
const uint8_t chat_function_max[] = {
#define FUNCTION(id, text, min, max) max,
#include "runtime/text/chat_builtins.def"
};
const uint8_t chat_function_min[] = {
#define FUNCTION(id, text, min, max) min,
#include "runtime/text/chat_builtins.def"
};

static bool given(const Value *v) { return v->kind != V_UNSET; }
static bool undefined(const Value *v) { return v->kind <= V_UNDEFINED; }
static bool is_text(const Value *v) { return v->kind == V_TEXT; }

// ---- parts ---------------------------------------------------------------------------------------

bool chat_attr(Vm *vm, const Value *v, Text name, Value *out) {
    *out = (Value){.kind = V_UNDEFINED};
    if (undefined(v))
        return vm_fail(vm, E_CHAT, "`%.*s` of something undefined", (int)MIN(name.len, (size_t)60), name.ptr);
    if (v->kind != V_DICT && v->kind != V_SPACE) return true;
    const Value *found = dict_find(vm, v->dict, text_str(name));
    if (found) *out = *found;
    return !vm->failed;
}

// d["items"] without such a key is Python's method of that name: true, and of no use to a template.
static bool names_method(Str s) {
    static const char *const names[] = {"copy", "fromkeys", "get", "items", "keys", "values"};
    for (size_t i = 0; i < COUNT_OF(names); i++)
        if (str_is(s, names[i])) return true;
    return false;
}

static bool item_by_name(Vm *vm, const Value *v, Text name, Value *out) {
    if (!chat_attr(vm, v, name, out)) return false;
    if (out->kind != V_UNDEFINED || v->kind != V_DICT || !names_method(text_str(name))) return true;
    return vm_fail(vm, E_CHAT, "the dict has no key `%.*s`, only a method", (int)name.len, name.ptr);
}

bool chat_item(Vm *vm, const Value *v, const Value *index, Value *out) {
    int64_t i;
    if (is_text(index)) return item_by_name(vm, v, index->text, out);
    *out = (Value){.kind = V_UNDEFINED};
    if (undefined(v)) return vm_fail(vm, E_CHAT, "an item of something undefined");
    if (!value_int(index, &i)) return true;
    size_t n = v_plain(v) ? v->list->n : is_text(v) ? utf8_count(text_str(v->text)) : 0;
    if (is_text(v) && !vm_spend(vm, v->text.len / 16)) return false;
    if (i < 0) i += (int64_t)n;
    if (i < 0 || (size_t)i >= n) return true;
    if (v->kind == V_LIST) return *out = v->list->items[i], true;
    size_t at = 0;
    while (i-- > 0) at += utf8_step(text_str(v->text), at);
    *out = v_text(text_slice(v->text, at, at + utf8_step(text_str(v->text), at)));
    return true;
}

bool chat_in(Vm *vm, const Value *needle, const Value *hay, bool *out) {
    *out = false;
    if (is_text(hay)) {
        if (!is_text(needle))
            return vm_fail(vm, E_CHAT, "`in` a string wants a string, not %s", value_kind_name(needle));
        Str h = text_str(hay->text);
        *out = text_find(h, text_str(needle->text), 0) <= h.len;
        return vm_spend(vm, h.len / 16);
    }
    if (hay->kind == V_DICT) {
        if (needle->kind == V_LIST || needle->kind == V_DICT)
            return vm_fail(vm, E_CHAT, "%s is no key of a dict", value_kind_name(needle));
        *out = is_text(needle) && dict_find(vm, hay->dict, text_str(needle->text));
        return !vm->failed;
    }
    if (undefined(hay)) return true;
    if (hay->kind != V_LIST)
        return vm_fail(vm, E_CHAT, "`in` wants a list, a dict or a string, not %s", value_kind_name(hay));
    ChatList *l;
    if (!value_items(vm, hay, &l)) return false;
    for (size_t i = 0; i < l->n && !*out; i++)
        if (!value_equal(vm, needle, &l->items[i], out)) return false;
    return true;
}

// "a.b.0" as in map(attribute="a.b.0").
static bool attr_path(Vm *vm, const Value *v, const Value *path, Value *out) {
    if (!is_text(path)) return chat_item(vm, v, path, out);
    *out = *v;
    Str s = text_str(path->text);
    for (size_t at = 0; at <= s.len;) {
        size_t end = MIN(text_find(s, STR("."), at), s.len);
        int64_t i;
        Value part = v_text(text_slice(path->text, at, end)), whole = *out;
        if (str_to_i64(str_sub(s, at, end), &i)) part = v_int(i);
        if (!chat_item(vm, &whole, &part, out)) return false;
        at = end + 1;
    }
    return true;
}

// ---- tests ---------------------------------------------------------------------------------------

static bool compare_test(Vm *vm, ChatTest test, const Value *v, const Value *arg, bool *out) {
    int order;
    if (!value_compare(vm, v, arg, &order)) return false;
    bool less = test == CHAT_TEST_LT || test == CHAT_TEST_LESSTHAN || test == CHAT_TEST_LE;
    bool equal = test == CHAT_TEST_LE || test == CHAT_TEST_GE;
    *out = (equal && order == 0) || (less ? order < 0 : order > 0);
    return true;
}

static bool divisible(Vm *vm, const Value *v, const Value *by, bool *out) {
    int64_t a, b;
    if (!value_int(v, &a) || !value_int(by, &b) || b == 0)
        return vm_fail(vm, E_CHAT, "a test of divisibility wants integers");
    *out = b == -1 || a % b == 0;
    return true;
}

bool chat_test(Vm *vm, ChatTest test, const Value *v, const Value *arg, bool *out) {
    Value two = v_int(2);
    switch (test) {
    case CHAT_TEST_DEFINED: *out = !undefined(v); return true;
    case CHAT_TEST_UNDEFINED: *out = undefined(v); return true;
    case CHAT_TEST_NONE: *out = v->kind == V_NONE; return true;
    case CHAT_TEST_BOOLEAN: *out = v->kind == V_BOOL; return true;
    case CHAT_TEST_TRUE: *out = v->kind == V_BOOL && v->boolean; return true;
    case CHAT_TEST_FALSE: *out = v->kind == V_BOOL && !v->boolean; return true;
    case CHAT_TEST_INTEGER: *out = v->kind == V_INT || v->kind == V_BIG; return true;
    case CHAT_TEST_FLOAT: *out = v->kind == V_REAL; return true;
    case CHAT_TEST_NUMBER: *out = value_is_number(v); return true;
    case CHAT_TEST_STRING: *out = is_text(v); return true;
    case CHAT_TEST_MAPPING: *out = v->kind == V_DICT; return true;
    case CHAT_TEST_SEQUENCE:
        *out = undefined(v) || is_text(v) || v_plain(v) || v->kind == V_DICT;
        return true;
    case CHAT_TEST_ITERABLE:
        *out = undefined(v) || is_text(v) || v->kind == V_LIST || v->kind == V_DICT;
        return true;
    case CHAT_TEST_EQ:
    case CHAT_TEST_EQ_SIGN:
    case CHAT_TEST_EQUALTO: return value_equal(vm, v, arg, out);
    case CHAT_TEST_NE:
    case CHAT_TEST_NE_SIGN: return value_equal(vm, v, arg, out) && (*out = !*out, true);
    case CHAT_TEST_IN: return chat_in(vm, v, arg, out);
    case CHAT_TEST_DIVISIBLEBY: return divisible(vm, v, arg, out);
    case CHAT_TEST_EVEN: return divisible(vm, v, &two, out);
    case CHAT_TEST_ODD: return divisible(vm, v, &two, out) && (*out = !*out, true);
    default: return compare_test(vm, test, v, arg, out);
    }
}

// ---- methods -------------------------------------------------------------------------------------

static bool no_method(Vm *vm, ChatMethod m, const Value *v) {
    return vm_fail(vm, E_CHAT, "%s has no method `%s`", value_kind_name(v), method_names[m]);
}

static bool sequence(SeqKind kind, ChatList *l, Value *out) {
    l->kind = kind;
    *out = v_list(l);
    return true;
}

static bool pairs_list(Vm *vm, const ChatDict *d, SeqKind kind, Value *out) {
    ChatList *l = list_new(vm, d->n);
    for (size_t i = 0; l && i < d->n; i++) {
        ChatList *pair = list_new(vm, 2);
        if (!pair) return false;
        pair->kind = SEQ_TUPLE;
        pair->items[pair->n++] = v_text(d->pairs[i].key);
        pair->items[pair->n++] = d->pairs[i].value;
        l->items[l->n++] = v_list(pair);
    }
    return l && sequence(kind, l, out);
}

static bool dict_method(Vm *vm, ChatMethod m, const Value *v, const Value *args, Value *out) {
    ChatList *l;
    switch (m) {
    case CHAT_METHOD_GET: {
        const Value *found = is_text(&args[0]) ? dict_find(vm, v->dict, text_str(args[0].text)) : NULL;
        *out = found ? *found : given(&args[1]) ? args[1] : V_NULL;
        return !vm->failed;
    }
    case CHAT_METHOD_ITEMS: return pairs_list(vm, v->dict, SEQ_VIEW, out);
    case CHAT_METHOD_KEYS: return value_items(vm, v, &l) && sequence(SEQ_VIEW, l, out);
    case CHAT_METHOD_VALUES:
        l = list_new(vm, v->dict->n);
        for (size_t i = 0; l && i < v->dict->n; i++) l->items[l->n++] = v->dict->pairs[i].value;
        return l && sequence(SEQ_VIEW, l, out);
    default: return no_method(vm, m, v);
    }
}

static bool list_method(Vm *vm, ChatMethod m, const Value *v, const Value *args, Value *out) {
    int64_t count = 0;
    if (!v_plain(v) || (m != CHAT_METHOD_COUNT && m != CHAT_METHOD_INDEX)) return no_method(vm, m, v);
    for (size_t i = 0; i < v->list->n; i++) {
        bool same;
        if (!value_equal(vm, &v->list->items[i], &args[0], &same)) return false;
        if (same && m == CHAT_METHOD_INDEX) return *out = v_int((int64_t)i), true;
        count += same;
    }
    if (m == CHAT_METHOD_INDEX) return vm_fail(vm, E_CHAT, "the value is not in the list");
    return *out = v_int(count), true;
}

static bool text_arg(Vm *vm, ChatMethod m, const Value *arg) {
    return is_text(arg) ||
           vm_fail(vm, E_CHAT, "`%s` wants a string, not %s", method_names[m], value_kind_name(arg));
}

static bool affix(Vm *vm, ChatMethod m, Text t, const Value *arg, Value *out) {
    bool start = m == CHAT_METHOD_STARTSWITH || m == CHAT_METHOD_REMOVEPREFIX, found = false;
    bool tests = m == CHAT_METHOD_STARTSWITH || m == CHAT_METHOD_ENDSWITH;
    size_t len = 0;
    const ChatList *choices = tests && arg->kind == V_LIST && arg->list->kind == SEQ_TUPLE ? arg->list : NULL;
    for (size_t i = 0; i < (choices ? choices->n : 1) && !found; i++) {
        const Value *one = choices ? &choices->items[i] : arg;
        if (!text_arg(vm, m, one) || !vm_spend(vm, 1)) return false;
        len = one->text.len;
        found =
            start ? str_starts(text_str(t), text_str(one->text)) : str_ends(text_str(t), text_str(one->text));
    }
    if (tests)
        *out = v_bool(found);
    else if (!found)
        *out = v_text(t);
    else
        *out = v_text(start ? text_slice(t, len, t.len) : text_slice(t, 0, t.len - len));
    return true;
}

// Every character may be looked up in the whole set.
static bool spend_strip(Vm *vm, Text t, const Text *chars) {
    return vm_spend(vm, (uint64_t)t.len / 64 * (1 + (chars ? chars->len / 4 : 0)));
}

static bool strip_method(Vm *vm, ChatMethod m, Text t, const Value *chars, Value *out) {
    bool set = given(chars) && chars->kind != V_NONE;
    if (set && !text_arg(vm, m, chars)) return false;
    if (!spend_strip(vm, t, set ? &chars->text : NULL)) return false;
    *out = v_text(text_strip(t, set ? &chars->text : NULL, m != CHAT_METHOD_RSTRIP, m != CHAT_METHOD_LSTRIP));
    return true;
}

static bool split_method(Vm *vm, ChatMethod m, Text t, const Value *args, Value *out) {
    ChatList *l;
    int64_t max = -1;
    bool at = given(&args[0]) && args[0].kind != V_NONE;
    if (at && !text_arg(vm, m, &args[0])) return false;
    if (given(&args[1]) && !value_int(&args[1], &max))
        return vm_fail(vm, E_CHAT, "a split wants an integer as its limit");
    const Text *separator = at ? &args[0].text : NULL;
    bool ok = m == CHAT_METHOD_SPLIT ? text_split(vm, t, separator, max, &l)
                                     : text_rsplit(vm, t, separator, max, &l);
    if (ok) *out = v_list(l);
    return ok;
}

static bool search_method(Vm *vm, ChatMethod m, Text t, const Value *arg, Value *out) {
    if (!text_arg(vm, m, arg) || !vm_spend(vm, t.len / 16)) return false;
    Str hay = text_str(t), needle = text_str(arg->text);
    size_t at = text_find(hay, needle, 0);
    if (m != CHAT_METHOD_COUNT) {
        if (at > hay.len && m == CHAT_METHOD_INDEX) return vm_fail(vm, E_CHAT, "the substring is not there");
        *out = v_int(at > hay.len ? -1 : (int64_t)utf8_count(str_sub(hay, 0, at)));
        return true;
    }
    int64_t n = needle.len ? 0 : (int64_t)utf8_count(hay) + 1;
    for (; needle.len && at < hay.len; at = text_find(hay, needle, at + needle.len)) n++;
    *out = v_int(n);
    return true;
}

static bool digits(Text t) {
    bool yes = t.len > 0;
    for (size_t i = 0; i < t.len; i++) yes = yes && t.ptr[i] >= '0' && t.ptr[i] <= '9';
    return yes;
}

static bool cased(Vm *vm, Text t, TextCase how, Value *out) {
    out->kind = V_TEXT;
    return text_case(vm, t, how, &out->text);
}

static bool text_method(Vm *vm, ChatMethod m, const Value *v, const Value *args, Value *out) {
    Text t = v->text;
    ChatList *l;
    int64_t count = -1;
    switch (m) {
    case CHAT_METHOD_STRIP:
    case CHAT_METHOD_LSTRIP:
    case CHAT_METHOD_RSTRIP: return strip_method(vm, m, t, &args[0], out);
    case CHAT_METHOD_SPLIT:
    case CHAT_METHOD_RSPLIT: return split_method(vm, m, t, args, out);
    case CHAT_METHOD_STARTSWITH:
    case CHAT_METHOD_ENDSWITH:
    case CHAT_METHOD_REMOVEPREFIX:
    case CHAT_METHOD_REMOVESUFFIX: return affix(vm, m, t, &args[0], out);
    case CHAT_METHOD_FIND:
    case CHAT_METHOD_INDEX:
    case CHAT_METHOD_COUNT: return search_method(vm, m, t, &args[0], out);
    case CHAT_METHOD_UPPER: return cased(vm, t, CASE_UPPER, out);
    case CHAT_METHOD_LOWER: return cased(vm, t, CASE_LOWER, out);
    case CHAT_METHOD_CAPITALIZE: return cased(vm, t, CASE_CAPITAL, out);
    case CHAT_METHOD_TITLE: return cased(vm, t, CASE_TITLE, out);
    case CHAT_METHOD_ISDIGIT: *out = v_bool(digits(t)); return true;
    case CHAT_METHOD_SPLITLINES: return text_lines(vm, t, &l) && (*out = v_list(l), true);
    case CHAT_METHOD_REPLACE:
        if (!text_arg(vm, m, &args[0]) || !text_arg(vm, m, &args[1])) return false;
        if (given(&args[2]) && !value_int(&args[2], &count))
            return vm_fail(vm, E_CHAT, "`replace` wants an integer as its limit");
        out->kind = V_TEXT;
        return text_replace(vm, t, args[0].text, args[1].text, count, &out->text);
    case CHAT_METHOD_JOIN:
        if (!value_items(vm, &args[0], &l)) return false;
        for (size_t i = 0; i < l->n; i++)
            if (!text_arg(vm, m, &l->items[i])) return false;
        out->kind = V_TEXT;
        return text_items(vm, t, l, &out->text);
    default: return no_method(vm, m, v);
    }
}

bool chat_method(Vm *vm, ChatMethod method, const Value *v, const Value *args, Value *out) {
    switch (v->kind) {
    case V_TEXT: return text_method(vm, method, v, args, out);
    case V_DICT: return dict_method(vm, method, v, args, out);
    case V_LIST: return list_method(vm, method, v, args, out);
    default: return no_method(vm, method, v);
    }
}

// ---- filters on numbers and texts ----------------------------------------------------------------

static bool filter_int(Vm *vm, const Value *v, const Value *standard, Value *out) {
    double d = value_is_number(v) ? value_real(v) : 0;
    Value otherwise = given(standard) ? *standard : v_int(0);
    if (undefined(v)) return vm_fail(vm, E_CHAT, "`int` of something undefined");
    if (v->kind == V_BIG) return *out = *v, true;
    if (is_text(v)) {
        Str s = text_str(text_strip(v->text, NULL, true, true));
        if (s.len > 1 && s.ptr[0] == '+') s = str_from(s, 1);
        int64_t i;
        if (str_to_i64(s, &i)) return *out = v_int(i), true;
        if (!str_to_double(s, &d)) return *out = otherwise, true;
    } else if (!value_is_number(v)) {
        return *out = otherwise, true;
    } else if (v->kind != V_REAL) {
        int64_t i = 0;
        value_int(v, &i);
        return *out = v_int(i), true;
    }
    if (!(fabs(d) < 0x1p63)) return vm_fail(vm, E_CHAT, "a number that is too large for `int`");
    return *out = v_int((int64_t)d), true;
}

static bool filter_float(Vm *vm, const Value *v, const Value *standard, Value *out) {
    double d;
    if (undefined(v)) return vm_fail(vm, E_CHAT, "`float` of something undefined");
    *out = given(standard) ? *standard : v_real(0);
    if (value_is_number(v)) *out = v_real(value_real(v));
    if (is_text(v) && str_to_double(text_str(text_strip(v->text, NULL, true, true)), &d)) *out = v_real(d);
    return true;
}

static bool filter_abs(Vm *vm, const Value *v, Value *out) {
    int64_t i;
    if (v->kind == V_REAL) return *out = v_real(fabs(v->real)), true;
    if (!value_int(v, &i) || i == INT64_MIN)
        return vm_fail(vm, E_CHAT, "`abs` wants a number, not %s", value_kind_name(v));
    return *out = v_int(i < 0 ? -i : i), true;
}

static bool filter_json(Vm *vm, const Value *v, const Value *args, Value *out) {
    JsonStyle style = {.indent = -1, .item_separator = text_own(", "), .key_separator = text_own(": ")};
    int64_t n;
    if (given(&args[0])) style.ascii = value_true(&args[0]);
    if (given(&args[1]) && args[1].kind != V_NONE) {
        if (!value_int(&args[1], &n) || n < 0 || n > 64)
            return vm_fail(vm, E_CHAT, "`tojson` wants an indent of 0 to 64");
        style.indent = (int)n;
        style.item_separator = text_own(",");
    }
    if (given(&args[2]) && args[2].kind != V_NONE) {
        const ChatList *l = args[2].kind == V_LIST ? args[2].list : NULL;
        if (!l || l->n != 2 || !is_text(&l->items[0]) || !is_text(&l->items[1]))
            return vm_fail(vm, E_CHAT, "`tojson` wants two strings as separators");
        style.item_separator = l->items[0].text, style.key_separator = l->items[1].text;
    }
    if (given(&args[3])) style.sort_keys = value_true(&args[3]);
    TextBuf b = {.vm = vm};
    if (!value_json(&b, v, style)) return false;
    return *out = v_text(tb_view(&b)), true;
}

static bool filter_replace(Vm *vm, Text t, const Value *args, Value *out) {
    Text from, to;
    int64_t count = -1;
    if (!value_str(vm, &args[0], &from) || !value_str(vm, &args[1], &to)) return false;
    if (given(&args[2]) && args[2].kind != V_NONE && !value_int(&args[2], &count))
        return vm_fail(vm, E_CHAT, "`replace` wants an integer as its limit");
    out->kind = V_TEXT;
    return text_replace(vm, t, from, to, count, &out->text);
}

static bool filter_indent(Vm *vm, Text t, const Value *args, Value *out) {
    static const char spaces[] = "                                                                ";
    Text by = text_slice(text_own(spaces), 0, 4);
    int64_t n;
    if (is_text(&args[0])) {
        by = args[0].text;
    } else if (given(&args[0])) {
        if (!value_int(&args[0], &n) || n < 0 || (size_t)n > strlen(spaces))
            return vm_fail(vm, E_CHAT, "`indent` wants 0 to 64 columns");
        by = text_slice(text_own(spaces), 0, (size_t)n);
    }
    out->kind = V_TEXT;
    return text_indent(vm, t, by, given(&args[1]) && value_true(&args[1]),
                       given(&args[2]) && value_true(&args[2]), &out->text);
}

static bool filter_trim(Vm *vm, Text t, const Value *chars, Value *out) {
    bool set = given(chars) && chars->kind != V_NONE;
    if (set && !is_text(chars))
        return vm_fail(vm, E_CHAT, "`trim` wants a string, not %s", value_kind_name(chars));
    if (!spend_strip(vm, t, set ? &chars->text : NULL)) return false;
    *out = v_text(text_strip(t, set ? &chars->text : NULL, true, true));
    return true;
}

// ---- filters on lists ----------------------------------------------------------------------------

static bool filter_length(Vm *vm, const Value *v, Value *out) {
    size_t n = 0;
    if (is_text(v))
        n = utf8_count(text_str(v->text));
    else if (v->kind == V_LIST && v->list->kind != SEQ_ITERATOR)
        n = v->list->n;
    else if (v->kind == V_DICT)
        n = v->dict->n;
    else if (!undefined(v))
        return vm_fail(vm, E_CHAT, "%s has no length", value_kind_name(v));
    return *out = v_int((int64_t)n), vm_spend(vm, is_text(v) ? v->text.len / 16 : 0);
}

static bool filter_list(Vm *vm, const Value *v, bool reversed, Value *out) {
    ChatList *from, *to;
    if (!value_items(vm, v, &from) || !(to = list_new(vm, from->n))) return false;
    for (size_t i = 0; i < from->n; i++) to->items[to->n++] = from->items[reversed ? from->n - 1 - i : i];
    *out = v_list(to);
    return true;
}

static bool filter_end(Vm *vm, const Value *v, bool last, Value *out) {
    ChatList *l;
    if (last && v->kind == V_LIST && v->list->kind == SEQ_ITERATOR)
        return vm_fail(vm, E_CHAT, "`last` of an iterator: use `list`");
    if (!value_items(vm, v, &l)) return false;
    *out = l->n ? l->items[last ? l->n - 1 : 0] : (Value){.kind = V_UNDEFINED};
    return true;
}

static bool filter_join(Vm *vm, const Value *v, const Value *args, Value *out) {
    ChatList *l, *parts;
    Text separator = text_own("");
    if (given(&args[0]) && !value_str(vm, &args[0], &separator)) return false;
    if (!value_items(vm, v, &l)) return false;
    parts = l;
    if (given(&args[1])) {
        if (!(parts = list_new(vm, l->n))) return false;
        for (size_t i = 0; i < l->n; i++)
            if (!attr_path(vm, &l->items[i], &args[1], &parts->items[parts->n++])) return false;
    }
    out->kind = V_TEXT;
    return text_items(vm, separator, parts, &out->text);
}

static bool find_name(const char *const *names, size_t n, const Value *v, size_t *out) {
    for (*out = 0; is_text(v) && *out < n; ++*out)
        if (str_is(text_str(v->text), names[*out])) return true;
    return false;
}

// Filters that map() may apply: those that need no arguments and call no other.
static bool filter_map(Vm *vm, const Value *v, const Value *args, Value *out) {
    ChatList *l, *to;
    Value none[CHAT_BUILTIN_ARGS_MAX] = {{.kind = V_UNSET}};
    size_t id = 0;
    bool by_attr = given(&args[1]);
    bool known = by_attr || find_name(filter_names, CHAT_FILTERS, &args[0], &id);
    if (!known || (!by_attr && (chat_filter_min[id] || id == CHAT_FILTER_MAP || id == CHAT_FILTER_SELECT ||
                                id == CHAT_FILTER_REJECT)))
        return vm_fail(vm, E_CHAT, "`map` wants an attribute or the name of a simple filter");
    Value nothing = {.kind = V_UNDEFINED}; // as Jinja, which looks whether there is something first
    if (!value_items(vm, value_true(v) ? v : &nothing, &l) || !(to = list_new(vm, l->n))) return false;
    for (size_t i = 0; i < l->n; i++) {
        Value *one = &to->items[to->n++];
        if (!vm_spend(vm, 1)) return false;
        if (!(by_attr ? attr_path(vm, &l->items[i], &args[1], one)
                      : chat_filter(vm, (ChatFilter)id, &l->items[i], none, one)))
            return false;
        if (by_attr && one->kind == V_UNDEFINED && given(&args[2])) *one = args[2];
    }
    return sequence(SEQ_ITERATOR, to, out);
}

// select, reject and their attr forms: args are [attribute,] test name, test argument.
static bool filter_select(Vm *vm, const Value *v, const Value *attr, const Value *args, bool keep,
                          Value *out) {
    ChatList *l, *to;
    size_t id = 0;
    bool by_test = given(&args[0]);
    if (by_test &&
        (!find_name(test_names, CHAT_TESTS, &args[0], &id) || chat_test_min[id] != given(&args[1])))
        return vm_fail(vm, E_CHAT, "a selection wants the name of a test and what it needs");
    Value nothing = {.kind = V_UNDEFINED}; // as Jinja, which looks whether there is something first
    if (!value_items(vm, value_true(v) ? v : &nothing, &l) || !(to = list_new(vm, l->n))) return false;
    for (size_t i = 0; i < l->n; i++) {
        Value one = l->items[i];
        if (!vm_spend(vm, 1) || (attr && !attr_path(vm, &l->items[i], attr, &one))) return false;
        bool yes = value_true(&one);
        if (by_test && !chat_test(vm, (ChatTest)id, &one, &args[1], &yes)) return false;
        if (yes == keep) to->items[to->n++] = l->items[i];
    }
    return sequence(SEQ_ITERATOR, to, out);
}

typedef struct {
    Value key, value;
} Keyed;

static bool sort_key(Vm *vm, const Value *item, const Value *attr, bool exact, Value *out) {
    *out = *item;
    if (attr && given(attr) && attr->kind != V_NONE && !attr_path(vm, item, attr, out)) return false;
    return exact || !is_text(out) || text_case(vm, out->text, CASE_LOWER, &out->text);
}

// Equal keys need no order, so that Jinja sorts by an attribute which no item has.
static bool sort_order(Vm *vm, const Value *a, const Value *b, int *order) {
    bool equal;
    *order = 0;
    return value_equal(vm, a, b, &equal) && (equal || value_compare(vm, a, b, order));
}

// Merge sort: stable, and n log n comparisons whatever the values are.
static bool sort_keyed(Vm *vm, Keyed *a, size_t n, bool reversed) {
    Keyed *b = vm_alloc(vm, n, sizeof *b);
    if (!b) return false;
    for (size_t width = 1; width < n; width *= 2) {
        for (size_t begin = 0; begin < n; begin += 2 * width) {
            size_t mid = MIN(begin + width, n), end = MIN(begin + 2 * width, n), i = begin, j = mid,
                   k = begin;
            while (k < end) {
                int order = 0;
                if (i < mid && j < end && !sort_order(vm, &a[i].key, &a[j].key, &order)) return false;
                bool left = j == end || (i < mid && (reversed ? order >= 0 : order <= 0));
                b[k++] = left ? a[i++] : a[j++];
            }
        }
        memcpy(a, b, n * sizeof *a);
    }
    return true;
}

static bool sorted(Vm *vm, const ChatList *l, const Value *attr, bool exact, bool reversed, Value *out) {
    Keyed *a = vm_alloc(vm, l->n, sizeof *a);
    ChatList *to = list_new(vm, l->n);
    if (!a || !to) return false;
    for (size_t i = 0; i < l->n; i++) {
        a[i].value = l->items[i];
        if (!sort_key(vm, &l->items[i], attr, exact, &a[i].key)) return false;
    }
    if (!sort_keyed(vm, a, l->n, reversed)) return false;
    for (size_t i = 0; i < l->n; i++) to->items[to->n++] = a[i].value;
    *out = v_list(to);
    return true;
}

static bool filter_sort(Vm *vm, const Value *v, const Value *args, Value *out) {
    ChatList *l;
    return value_items(vm, v, &l) && sorted(vm, l, &args[2], given(&args[1]) && value_true(&args[1]),
                                            given(&args[0]) && value_true(&args[0]), out);
}

static bool filter_dictsort(Vm *vm, const Value *v, Value *out) {
    Value pairs, first = v_int(0);
    if (v->kind != V_DICT) return vm_fail(vm, E_CHAT, "`dictsort` wants a dict, not %s", value_kind_name(v));
    return pairs_list(vm, v->dict, SEQ_LIST, &pairs) && sorted(vm, pairs.list, &first, false, false, out);
}

static bool filter_unique(Vm *vm, const Value *v, const Value *args, Value *out) {
    ChatList *l, *keys, *to;
    if (!value_items(vm, v, &l) || !(keys = list_new(vm, 8)) || !(to = list_new(vm, 8))) return false;
    for (size_t i = 0; i < l->n; i++) {
        Value key, seen = v_list(keys);
        bool known;
        if (!sort_key(vm, &l->items[i], &args[1], given(&args[0]) && value_true(&args[0]), &key))
            return false;
        if (!chat_in(vm, &key, &seen, &known)) return false;
        if (!known && (!list_add(vm, keys, key) || !list_add(vm, to, l->items[i]))) return false;
    }
    return sequence(SEQ_ITERATOR, to, out);
}

// ---- filters -------------------------------------------------------------------------------------

static bool text_filter(Vm *vm, ChatFilter filter, const Value *v, const Value *args, Value *out) {
    Text t;
    if (!value_str(vm, v, &t)) return false;
    switch (filter) {
    case CHAT_FILTER_TRIM: return filter_trim(vm, t, &args[0], out);
    case CHAT_FILTER_LOWER: return cased(vm, t, CASE_LOWER, out);
    case CHAT_FILTER_UPPER: return cased(vm, t, CASE_UPPER, out);
    case CHAT_FILTER_CAPITALIZE: return cased(vm, t, CASE_CAPITAL, out);
    case CHAT_FILTER_TITLE: return cased(vm, t, CASE_TITLE_FILTER, out);
    case CHAT_FILTER_REPLACE: return filter_replace(vm, t, args, out);
    case CHAT_FILTER_INDENT:
        if (!is_text(v)) return vm_fail(vm, E_CHAT, "`indent` wants a string, not %s", value_kind_name(v));
        return filter_indent(vm, t, args, out);
    default: // string, safe
        *out = v_text(t);
        out->safe = filter == CHAT_FILTER_SAFE || v->safe;
        return true;
    }
}

bool chat_filter(Vm *vm, ChatFilter filter, const Value *v, const Value *args, Value *out) {
    switch (filter) {
    case CHAT_FILTER_ABS: return filter_abs(vm, v, out);
    case CHAT_FILTER_INT: return filter_int(vm, v, &args[0], out);
    case CHAT_FILTER_FLOAT: return filter_float(vm, v, &args[0], out);
    case CHAT_FILTER_TOJSON: return filter_json(vm, v, args, out);
    case CHAT_FILTER_COUNT:
    case CHAT_FILTER_LENGTH: return filter_length(vm, v, out);
    case CHAT_FILTER_D:
    case CHAT_FILTER_DEFAULT: {
        bool replaced = undefined(v) || (given(&args[1]) && value_true(&args[1]) && !value_true(v));
        *out = !replaced ? *v : given(&args[0]) ? args[0] : v_text(text_own(""));
        return true;
    }
    case CHAT_FILTER_LIST: return filter_list(vm, v, false, out);
    case CHAT_FILTER_REVERSE: {
        if (!filter_list(vm, v, true, out)) return false;
        if (!is_text(v))
            return v->kind == V_LIST && v->list->kind == SEQ_ITERATOR
                       ? true
                       : sequence(SEQ_ITERATOR, out->list, out);
        ChatList *l = out->list;
        out->kind = V_TEXT;
        return text_items(vm, text_own(""), l, &out->text);
    }
    case CHAT_FILTER_FIRST: return filter_end(vm, v, false, out);
    case CHAT_FILTER_LAST: return filter_end(vm, v, true, out);
    case CHAT_FILTER_JOIN: return filter_join(vm, v, args, out);
    case CHAT_FILTER_MAP: return filter_map(vm, v, args, out);
    case CHAT_FILTER_SELECT: return filter_select(vm, v, NULL, args, true, out);
    case CHAT_FILTER_REJECT: return filter_select(vm, v, NULL, args, false, out);
    case CHAT_FILTER_SELECTATTR: return filter_select(vm, v, &args[0], args + 1, true, out);
    case CHAT_FILTER_REJECTATTR: return filter_select(vm, v, &args[0], args + 1, false, out);
    case CHAT_FILTER_SORT: return filter_sort(vm, v, args, out);
    case CHAT_FILTER_DICTSORT: return filter_dictsort(vm, v, out);
    case CHAT_FILTER_UNIQUE: return filter_unique(vm, v, args, out);
    case CHAT_FILTER_ITEMS:
        if (undefined(v)) return filter_list(vm, v, false, out) && sequence(SEQ_ITERATOR, out->list, out);
        if (v->kind != V_DICT) return vm_fail(vm, E_CHAT, "`items` wants a dict, not %s", value_kind_name(v));
        return pairs_list(vm, v->dict, SEQ_ITERATOR, out);
    default: return text_filter(vm, filter, v, args, out);
    }
}

// ---- functions -----------------------------------------------------------------------------------

enum { RANGE_MAX = 100000 }; // as Jinja's sandbox

static bool range(Vm *vm, const Value *args, Value *out) {
    int64_t begin = 0, end, step = 1, span;
    bool ok = given(&args[1]) ? value_int(&args[0], &begin) && value_int(&args[1], &end)
                              : value_int(&args[0], &end);
    if (!ok || (given(&args[2]) && !value_int(&args[2], &step)) || step == 0)
        return vm_fail(vm, E_CHAT, "`range` wants integers and a step that is not 0");
    if (__builtin_sub_overflow(end, begin, &span)) return vm_fail(vm, E_LIMIT, "a range over %d", RANGE_MAX);
    if (span == 0 || (span < 0) != (step < 0)) span = 0;
    uint64_t width = span < 0 ? 0 - (uint64_t)span : (uint64_t)span,
             by = step < 0 ? 0 - (uint64_t)step : (uint64_t)step;
    uint64_t n = width / by + (width % by != 0);
    if (n > RANGE_MAX)
        return vm_fail(vm, E_LIMIT, "a range of %llu numbers is over %d", (unsigned long long)n, RANGE_MAX);
    ChatList *l = list_new(vm, n);
    if (!l) return false;
    for (uint64_t i = 0; i < n; i++)
        l->items[l->n++] = v_int((int64_t)((uint64_t)begin + i * (uint64_t)step));
    *out = v_list(l);
    return true;
}

static bool now(Vm *vm, const Value *format, Value *out) {
    char fmt[256], text[1024];
    time_t t = time(NULL);
    struct tm tm;
    if (!is_text(format) || format->text.len >= sizeof fmt || memchr(format->text.ptr, 0, format->text.len) ||
        !localtime_r(&t, &tm))
        return vm_fail(vm, E_CHAT, "`strftime_now` wants a short format");
    memcpy(fmt, format->text.ptr, format->text.len);
    fmt[format->text.len] = '\0';
    size_t n = strftime(text, sizeof text, fmt, &tm);
    TextBuf b = {.vm = vm};
    if (!tb_bytes(&b, text, n, FROM_TEMPLATE)) return false;
    *out = v_text(tb_view(&b));
    return true;
}

static bool raise_exception(Vm *vm, const Value *words) {
    Text t;
    if (!value_str(vm, words, &t)) return false;
    vm->failed = vm->own_words = true;
    vm->code = E_CHAT;
    vm->error = t;
    return false;
}

bool chat_function(Vm *vm, ChatBuiltin function, const Value *args, Value *out) {
    switch (function) {
    case CHAT_FUNCTION_RANGE: return range(vm, args, out);
    case CHAT_FUNCTION_STRFTIME_NOW: return now(vm, &args[0], out);
    default: return raise_exception(vm, &args[0]);
    }
}
