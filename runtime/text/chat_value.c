#include "runtime/text/chat_value.h"

#include <math.h>

#include "runtime/base/num.h"
#include "runtime/text/chat.h"

// ---- failure, budget, memory ---------------------------------------------------------------------

bool vm_fail(Vm *vm, ErrCode code, const char *fmt, ...) {
    if (vm->failed) return false;
    va_list ap;
    va_start(ap, fmt);
    char *msg = arena_vprintf(vm->arena, fmt, ap);
    va_end(ap);
    if (vm->line) msg = arena_printf(vm->arena, "chat template line %u: %s", vm->line, msg);
    vm->failed = true;
    vm->code = code;
    vm->error = text_own(msg);
    return false;
}

bool vm_spend(Vm *vm, uint64_t steps) {
    if (steps <= vm->steps_left) {
        vm->steps_left -= steps;
        return true;
    }
    vm->steps_left = 0;
    return vm_fail(vm, E_LIMIT, "more than %llu steps", (unsigned long long)CHAT_STEPS_MAX);
}

void *vm_alloc(Vm *vm, size_t count, size_t size) {
    size_t bytes, used = vm->arena->used_bytes - vm->arena_start;
    if (!size_mul(count, size, &bytes) || bytes > CHAT_MEMORY_MAX || used > CHAT_MEMORY_MAX - bytes) {
        vm_fail(vm, E_LIMIT, "more than %zu MiB of memory", CHAT_MEMORY_MAX >> 20);
        return NULL;
    }
    return vm_spend(vm, bytes / 64) ? arena_alloc(vm->arena, bytes) : NULL;
}

// ---- text ----------------------------------------------------------------------------------------

Text text_slice(Text t, size_t begin, size_t end) {
    t.ptr += begin;
    t.len = end - begin;
    if (t.marks) t.marks += begin;
    return t;
}

static bool tb_reserve(TextBuf *b, size_t extra) {
    size_t need;
    if (!size_add(b->len, extra, &need)) return vm_fail(b->vm, E_LIMIT, "a text that is too long");
    if (need <= b->cap) return true;
    size_t cap = MAX(need, b->cap * 2);
    cap = MAX(cap, (size_t)256);
    char *ptr = vm_alloc(b->vm, cap, 1);
    uint8_t *marks = b->marks ? vm_alloc(b->vm, cap, 1) : NULL;
    if (!ptr || (b->marks && !marks)) return false;
    if (b->len) memcpy(ptr, b->ptr, b->len);
    if (b->len && marks) memcpy(marks, b->marks, b->len);
    b->ptr = ptr, b->marks = marks, b->cap = cap;
    return true;
}

static bool tb_two_origins(TextBuf *b) {
    if (b->marks) return true;
    b->marks = vm_alloc(b->vm, b->cap, 1);
    if (b->marks) memset(b->marks, b->origin, b->len);
    return b->marks != NULL;
}

bool tb_text(TextBuf *b, Text t) {
    if (!t.len) return !b->vm->failed;
    if (!vm_spend(b->vm, t.len / 64) || !tb_reserve(b, t.len)) return false;
    if (!b->len) b->origin = t.origin;
    if ((t.marks || t.origin != b->origin) && !tb_two_origins(b)) return false;
    memcpy(b->ptr + b->len, t.ptr, t.len);
    if (t.marks)
        memcpy(b->marks + b->len, t.marks, t.len);
    else if (b->marks)
        memset(b->marks + b->len, t.origin, t.len);
    b->len += t.len;
    return true;
}

bool tb_bytes(TextBuf *b, const char *s, size_t len, uint8_t origin) {
    return tb_text(b, (Text){.ptr = s, .len = len, .origin = origin});
}

bool tb_puts(TextBuf *b, const char *s) { return tb_text(b, text_own(s)); }

Text tb_view(const TextBuf *b) {
    return (Text){.ptr = b->len ? b->ptr : "", .len = b->len, .marks = b->marks, .origin = b->origin};
}

bool text_join(Vm *vm, Text a, Text b, Text *out) {
    if (!a.len || !b.len) return *out = a.len ? a : b, true;
    TextBuf buf = {.vm = vm};
    if (!tb_reserve(&buf, a.len + b.len) || !tb_text(&buf, a) || !tb_text(&buf, b)) return false;
    *out = tb_view(&buf);
    return true;
}

// ---- characters ----------------------------------------------------------------------------------

size_t utf8_step(Str s, size_t at) {
    size_t n = 1;
    while (at + n < s.len && ((unsigned char)s.ptr[at + n] & 0xC0) == 0x80) n++;
    return n;
}

size_t utf8_back(Str s, size_t end) {
    size_t at = end - 1;
    while (at > 0 && ((unsigned char)s.ptr[at] & 0xC0) == 0x80) at--;
    return at;
}

size_t utf8_count(Str s) {
    size_t n = 0;
    for (size_t i = 0; i < s.len; i++) n += ((unsigned char)s.ptr[i] & 0xC0) != 0x80;
    return n;
}

uint32_t utf8_value(Str s, size_t at) {
    size_t n = str_utf8_len(str_from(s, at));
    const unsigned char *p = (const unsigned char *)s.ptr + at;
    if (n < 2) return n ? p[0] : 0xFFFD;
    uint32_t c = p[0] & (0x7Fu >> n);
    for (size_t i = 1; i < n; i++) c = c << 6 | (p[i] & 0x3Fu);
    return c;
}

bool utf8_is_space(uint32_t c) {
    return (c >= 0x09 && c <= 0x0D) || (c >= 0x1C && c <= 0x20) || c == 0x85 || c == 0xA0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F ||
           c == 0x3000;
}

static bool strips(Str s, size_t at, const Text *chars) {
    if (!chars) return utf8_is_space(utf8_value(s, at));
    Str set = text_str(*chars), c = str_sub(s, at, at + utf8_step(s, at));
    for (size_t i = 0, n; i < set.len; i += n) {
        n = utf8_step(set, i);
        if (str_eq(str_sub(set, i, i + n), c)) return true;
    }
    return false;
}

Text text_strip(Text t, const Text *chars, bool left, bool right) {
    size_t begin = 0, end = t.len;
    Str s = text_str(t);
    while (left && begin < end && strips(s, begin, chars)) begin += utf8_step(s, begin);
    while (right && end > begin) {
        size_t at = utf8_back((Str){s.ptr, end}, end);
        if (!strips((Str){s.ptr, end}, at, chars)) break;
        end = at;
    }
    return text_slice(t, begin, end);
}

// ---- lists and dicts -----------------------------------------------------------------------------

ChatList *list_new(Vm *vm, size_t cap) {
    ChatList *l = vm_alloc(vm, 1, sizeof *l);
    if (!l) return NULL;
    l->cap = cap;
    l->items = vm_alloc(vm, cap, sizeof *l->items);
    return l->items ? l : NULL;
}

bool list_add(Vm *vm, ChatList *l, Value v) {
    if (l->n == l->cap) {
        size_t cap = MAX(l->cap * 2, (size_t)8);
        Value *items = vm_alloc(vm, cap, sizeof *items);
        if (!items) return false;
        if (l->n) memcpy(items, l->items, l->n * sizeof *items);
        l->items = items, l->cap = cap;
    }
    l->items[l->n++] = v;
    return true;
}

ChatDict *dict_new(Vm *vm, size_t cap) {
    ChatDict *d = vm_alloc(vm, 1, sizeof *d);
    if (!d) return NULL;
    d->cap = cap;
    d->pairs = vm_alloc(vm, cap, sizeof *d->pairs);
    return d->pairs ? d : NULL;
}

Value *dict_find(Vm *vm, const ChatDict *d, Str key) {
    if (!vm_spend(vm, d->n / 8)) return NULL;
    for (size_t i = 0; i < d->n; i++)
        if (str_eq(text_str(d->pairs[i].key), key)) return &d->pairs[i].value;
    return NULL;
}

bool dict_set(Vm *vm, ChatDict *d, Text key, Value v) {
    Value *old = dict_find(vm, d, text_str(key));
    if (vm->failed) return false;
    if (old) return *old = v, true;
    if (d->n == d->cap) {
        size_t cap = MAX(d->cap * 2, (size_t)8);
        ChatPair *pairs = vm_alloc(vm, cap, sizeof *pairs);
        if (!pairs) return false;
        if (d->n) memcpy(pairs, d->pairs, d->n * sizeof *pairs);
        d->pairs = pairs, d->cap = cap;
    }
    d->pairs[d->n++] = (ChatPair){key, v};
    return true;
}

// ---- from JSON -----------------------------------------------------------------------------------

static Text input_text(Str s) { return (Text){.ptr = s.ptr, .len = s.len, .origin = FROM_INPUT}; }

static Value scalar_from_json(const Json *j) {
    switch (j->kind) {
    case JSON_BOOL: return v_bool(j->boolean);
    case JSON_INT: return j->big ? (Value){.kind = V_BIG, .text = input_text(j->s)} : v_int(j->i);
    case JSON_REAL: return v_real(j->real);
    case JSON_STRING: return v_text(input_text(j->s));
    default: return V_NULL;
    }
}

typedef struct {
    const Json *from;
    uint32_t next;
    Value to;
} Level;

// The container itself, still empty; json.h has bounded depth and made the keys unique.
static bool container_from_json(Vm *vm, const Json *j, Value *out) {
    if (j->kind == JSON_ARRAY) {
        ChatList *l = list_new(vm, j->n);
        if (l) *out = v_list(l);
        return l != NULL;
    }
    ChatDict *d = dict_new(vm, j->n);
    if (d) *out = (Value){.kind = V_DICT, .dict = d};
    return d != NULL;
}

bool value_from_json(Vm *vm, const Json *j, Value *out) {
    enum { DEPTH_MAX = 256 };
    Level stack[DEPTH_MAX];
    size_t depth = 0;
    if (!j) return *out = V_NULL, true;
    bool deep = j->kind == JSON_ARRAY || j->kind == JSON_OBJECT;
    if (!deep) return *out = scalar_from_json(j), true;
    if (!container_from_json(vm, j, out)) return false;
    stack[depth++] = (Level){j, 0, *out};
    while (depth) {
        Level *top = &stack[depth - 1];
        if (top->next == top->from->n) {
            depth--;
            continue;
        }
        uint32_t i = top->next++;
        bool list = top->from->kind == JSON_ARRAY;
        const Json *child = list ? &top->from->items[i] : &top->from->members[i].value;
        Value v;
        deep = child->kind == JSON_ARRAY || child->kind == JSON_OBJECT;
        if (deep && depth == DEPTH_MAX)
            return vm_fail(vm, E_LIMIT, "values nested more than %d deep", DEPTH_MAX);
        if (!deep)
            v = scalar_from_json(child);
        else if (!container_from_json(vm, child, &v))
            return false;
        if (list)
            top->to.list->items[top->to.list->n++] = v;
        else
            top->to.dict->pairs[top->to.dict->n++] = (ChatPair){input_text(top->from->members[i].key), v};
        if (deep) stack[depth++] = (Level){child, 0, v};
    }
    return true;
}

// ---- questions -----------------------------------------------------------------------------------

const char *value_kind_name(const Value *v) {
    static const char *const names[] = {"undefined",  "undefined",  "none",       "a boolean",
                                        "an integer", "an integer", "a number",   "a string",
                                        "a list",     "a dict",     "a namespace"};
    return names[v->kind];
}

bool value_true(const Value *v) {
    switch (v->kind) {
    case V_UNSET:
    case V_UNDEFINED:
    case V_NONE: return false;
    case V_BOOL: return v->boolean;
    case V_INT: return v->i != 0;
    case V_REAL: return v->real != 0;
    case V_TEXT: return v->text.len > 0;
    case V_LIST: return v->list->n > 0 || v->list->kind == SEQ_ITERATOR;
    case V_DICT: return v->dict->n > 0;
    default: return true;
    }
}

bool value_is_number(const Value *v) { return v->kind >= V_BOOL && v->kind <= V_REAL; }

bool value_int(const Value *v, int64_t *out) {
    if (v->kind != V_INT && v->kind != V_BOOL) return false;
    *out = v->kind == V_INT ? v->i : v->boolean;
    return true;
}

double value_real(const Value *v) {
    if (v->kind == V_REAL) return v->real;
    if (v->kind == V_BIG) {
        double d;
        return str_to_double(text_str(v->text), &d) ? d : v->text.ptr[0] == '-' ? -HUGE_VAL : HUGE_VAL;
    }
    return v->kind == V_INT ? (double)v->i : (double)v->boolean;
}

// Exact also where no double holds the integer.
static int compare_int_real(int64_t i, double d) {
    if (d >= 0x1p63) return -1;
    if (d < -0x1p63) return 1;
    int64_t whole = (int64_t)d;
    double rest = d - (double)whole;
    return i != whole ? (i > whole) - (i < whole) : (rest < 0) - (rest > 0);
}

static int compare_numbers(const Value *a, const Value *b) {
    int64_t x, y;
    if (value_int(a, &x) && value_int(b, &y)) return (x > y) - (x < y);
    if (a->kind == V_BIG && b->kind == V_BIG) {
        bool na = a->text.ptr[0] == '-', nb = b->text.ptr[0] == '-';
        if (na != nb) return na ? -1 : 1;
        int c = a->text.len != b->text.len ? (a->text.len > b->text.len ? 1 : -1)
                                           : memcmp(a->text.ptr, b->text.ptr, a->text.len);
        return na ? -c : c;
    }
    if (a->kind == V_BIG && value_int(b, &y)) return a->text.ptr[0] == '-' ? -1 : 1;
    if (b->kind == V_BIG && value_int(a, &x)) return b->text.ptr[0] == '-' ? 1 : -1;
    if (value_int(a, &x) && !isnan(b->real)) return compare_int_real(x, b->real);
    if (value_int(b, &y) && !isnan(a->real)) return -compare_int_real(y, a->real);
    double p = value_real(a), q = value_real(b);
    return (p > q) - (p < q);
}

// Equality of what is not a container.
static bool flat_equal(const Value *a, const Value *b) {
    if (value_is_number(a) && value_is_number(b)) return compare_numbers(a, b) == 0;
    if (a->kind <= V_UNDEFINED) return b->kind <= V_UNDEFINED;
    if (a->kind != b->kind) return false;
    switch (a->kind) {
    case V_NONE: return true;
    case V_TEXT: return str_eq(text_str(a->text), text_str(b->text));
    case V_LIST: return a->list == b->list;
    case V_SPACE: return a->dict == b->dict;
    default: return false;
    }
}

enum { EQUAL_DEPTH_MAX = 256 };

typedef struct {
    const Value *a, *b;
    size_t next;
} EqualLevel;

// The next pair of elements of two containers of one size. False: the keys differ.
static bool equal_children(Vm *vm, EqualLevel *l, const Value **a, const Value **b) {
    size_t i = l->next++;
    if (l->a->kind == V_LIST) return *a = &l->a->list->items[i], *b = &l->b->list->items[i], true;
    *a = &l->a->dict->pairs[i].value;
    *b = dict_find(vm, l->b->dict, text_str(l->a->dict->pairs[i].key));
    return *b != NULL;
}

bool value_equal(Vm *vm, const Value *a, const Value *b, bool *out) {
    EqualLevel stack[EQUAL_DEPTH_MAX];
    size_t depth = 0;
    *out = false;
    for (;;) {
        if (!vm_spend(vm, 1)) return false;
        bool both_lists =
            a->kind == V_LIST && b->kind == V_LIST && a->list->kind == b->list->kind && v_plain(a);
        bool both_dicts = a->kind == V_DICT && b->kind == V_DICT;
        if (both_lists || both_dicts) {
            if (both_lists ? a->list->n != b->list->n : a->dict->n != b->dict->n) return true;
            if (depth == EQUAL_DEPTH_MAX) return vm_fail(vm, E_LIMIT, "values nested too deeply to compare");
            stack[depth++] = (EqualLevel){a, b, 0};
        } else if (!flat_equal(a, b)) {
            return true;
        }
        while (depth) {
            EqualLevel *l = &stack[depth - 1];
            if (l->next < (l->a->kind == V_LIST ? l->a->list->n : l->a->dict->n)) break;
            depth--;
        }
        if (!depth) return *out = true;
        if (!equal_children(vm, &stack[depth - 1], &a, &b)) return !vm->failed;
    }
}

bool value_compare(Vm *vm, const Value *a, const Value *b, int *out) {
    if (value_is_number(a) && value_is_number(b)) return *out = compare_numbers(a, b), true;
    if (a->kind == V_TEXT && b->kind == V_TEXT)
        return *out = str_cmp(text_str(a->text), text_str(b->text)), true;
    return vm_fail(vm, E_CHAT, "%s and %s have no order", value_kind_name(a), value_kind_name(b));
}

bool value_items(Vm *vm, const Value *v, ChatList **out) {
    bool spent = v->kind == V_LIST && v->list->used;
    if (v->kind == V_LIST && !spent) {
        v->list->used = v->list->kind == SEQ_ITERATOR;
        return *out = v->list, true;
    }
    size_t n = v->kind == V_DICT ? v->dict->n : v->kind == V_TEXT ? utf8_count(text_str(v->text)) : 0;
    if (v->kind > V_UNDEFINED && v->kind != V_DICT && v->kind != V_TEXT && !spent)
        return vm_fail(vm, E_CHAT, "%s has no items", value_kind_name(v));
    ChatList *l = *out = list_new(vm, n);
    if (!l) return false;
    if (v->kind == V_DICT)
        for (size_t i = 0; i < n; i++) l->items[l->n++] = v_text(v->dict->pairs[i].key);
    if (v->kind == V_TEXT)
        for (size_t at = 0, len; at < v->text.len; at += len) {
            len = utf8_step(text_str(v->text), at);
            if (!list_add(vm, l, v_text(text_slice(v->text, at, at + len)))) return false;
        }
    return true;
}
