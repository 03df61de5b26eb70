// Python's operators on values.
#include <math.h>

#include "runtime/base/num.h"
#include "runtime/text/chat_builtins.h"
#include "runtime/text/chat_program.h"

static bool no_operator(Vm *vm, const char *op, const Value *a, const Value *b) {
    return vm_fail(vm, E_CHAT, "`%s` does not work on %s and %s", op, value_kind_name(a), value_kind_name(b));
}

static const char *const signs[] = {"+", "-", "*", "/", "//", "%", "**"};

static int64_t floor_div(int64_t a, int64_t b) { return a / b - (a % b != 0 && (a < 0) != (b < 0)); }

static bool int_power(int64_t a, int64_t b, int64_t *out) {
    *out = 1;
    if (a == 0 || a == 1 || a == -1) return *out = b == 0 ? 1 : a == -1 && b % 2 == 0 ? 1 : a, true;
    for (; b > 0; b--)
        if (__builtin_mul_overflow(*out, a, out)) return false;
    return true;
}

static bool int_operator(Vm *vm, ChatOp op, int64_t a, int64_t b, Value *out) {
    bool by_zero = b == 0 && (op == CHAT_OP_DIV || op == CHAT_OP_FLOORDIV || op == CHAT_OP_MOD);
    if (by_zero) return vm_fail(vm, E_CHAT, "division by zero");
    bool ok = true;
    out->kind = V_INT;
    switch (op) {
    case CHAT_OP_ADD: ok = !__builtin_add_overflow(a, b, &out->i); break;
    case CHAT_OP_SUB: ok = !__builtin_sub_overflow(a, b, &out->i); break;
    case CHAT_OP_MUL: ok = !__builtin_mul_overflow(a, b, &out->i); break;
    case CHAT_OP_DIV: *out = v_real((double)a / (double)b); break;
    case CHAT_OP_FLOORDIV:
        ok = !(a == INT64_MIN && b == -1);
        if (ok) out->i = floor_div(a, b);
        break;
    case CHAT_OP_MOD: out->i = b == -1 ? 0 : a - floor_div(a, b) * b; break;
    default:
        if (b < 0)
            *out = v_real(pow((double)a, (double)b));
        else
            ok = int_power(a, b, &out->i);
    }
    return ok || vm_fail(vm, E_CHAT, "an integer beyond 64 bits");
}

static bool real_operator(Vm *vm, ChatOp op, double a, double b, Value *out) {
    bool by_zero = b == 0 && (op == CHAT_OP_DIV || op == CHAT_OP_FLOORDIV || op == CHAT_OP_MOD);
    if (by_zero) return vm_fail(vm, E_CHAT, "division by zero");
    double rest = op == CHAT_OP_MOD || op == CHAT_OP_FLOORDIV ? fmod(a, b) : 0;
    if (rest != 0 && (rest < 0) != (b < 0)) rest += b;
    switch (op) {
    case CHAT_OP_ADD: *out = v_real(a + b); break;
    case CHAT_OP_SUB: *out = v_real(a - b); break;
    case CHAT_OP_MUL: *out = v_real(a * b); break;
    case CHAT_OP_DIV: *out = v_real(a / b); break;
    case CHAT_OP_FLOORDIV: *out = v_real(floor((a - rest) / b + 0.5)); break;
    case CHAT_OP_MOD: *out = v_real(rest); break;
    default: *out = v_real(pow(a, b));
    }
    return true;
}

static bool add_lists(Vm *vm, const ChatList *a, const ChatList *b, Value *out) {
    ChatList *l = list_new(vm, a->n + b->n);
    if (!l) return false;
    l->kind = a->kind;
    if (a->n) memcpy(l->items, a->items, a->n * sizeof *l->items);
    if (b->n) memcpy(l->items + a->n, b->items, b->n * sizeof *l->items);
    l->n = a->n + b->n;
    *out = v_list(l);
    return true;
}

static bool escape_html(Vm *vm, Text t, Text *out) {
    static const char special[] = "&<>'\"";
    static const char *const names[] = {"&amp;", "&lt;", "&gt;", "&#39;", "&#34;"};
    TextBuf b = {.vm = vm};
    size_t plain = 0;
    for (size_t i = 0; i < t.len; i++) {
        const char *found = t.ptr[i] ? strchr(special, t.ptr[i]) : NULL;
        if (!found) continue;
        const char *name = names[found - special];
        if (!tb_text(&b, text_slice(t, plain, i)) || !tb_bytes(&b, name, strlen(name), FROM_INPUT))
            return false;
        plain = i + 1;
    }
    if (!tb_text(&b, text_slice(t, plain, t.len))) return false;
    *out = tb_view(&b);
    return true;
}

// A text that is `safe` escapes the other one.
static bool add_texts(Vm *vm, const Value *a, const Value *b, Value *out) {
    Text left = a->text, right = b->text;
    if (a->safe && !b->safe && !escape_html(vm, right, &right)) return false;
    if (b->safe && !a->safe && !escape_html(vm, left, &left)) return false;
    *out = (Value){.kind = V_TEXT, .safe = a->safe || b->safe};
    return text_join(vm, left, right, &out->text);
}

static bool repeat(Vm *vm, Text t, int64_t n, Value *out) {
    TextBuf b = {.vm = vm};
    for (; n > 0 && t.len; n--)
        if (!vm_spend(vm, 1) || !tb_text(&b, t)) return false;
    *out = v_text(tb_view(&b));
    return true;
}

static bool arithmetic(Vm *vm, ChatOp op, const Value *a, const Value *b, Value *out) {
    int64_t x, y;
    const char *sign = signs[op - CHAT_OP_ADD];
    if (value_int(a, &x) && value_int(b, &y)) return int_operator(vm, op, x, y, out);
    if (value_is_number(a) && value_is_number(b)) {
        if (a->kind == V_BIG || b->kind == V_BIG)
            return vm_fail(vm, E_CHAT, "`%s` with an integer beyond 64 bits", sign);
        return real_operator(vm, op, value_real(a), value_real(b), out);
    }
    if (op == CHAT_OP_ADD && a->kind == V_TEXT && b->kind == V_TEXT) return add_texts(vm, a, b, out);
    if (op == CHAT_OP_ADD && v_plain(a) && v_plain(b) && a->list->kind == b->list->kind)
        return add_lists(vm, a->list, b->list, out);
    if (op == CHAT_OP_MUL && a->kind == V_TEXT && value_int(b, &y)) return repeat(vm, a->text, y, out);
    if (op == CHAT_OP_MUL && b->kind == V_TEXT && value_int(a, &x)) return repeat(vm, b->text, x, out);
    return no_operator(vm, sign, a, b);
}

bool chat_binary(Vm *vm, ChatOp op, const Value *a, const Value *b, Value *out) {
    Text left, right;
    bool yes = false;
    int order = 0;
    switch (op) {
    case CHAT_OP_CONCAT:
        out->kind = V_TEXT;
        if (!value_str(vm, a, &left) || !value_str(vm, b, &right)) return false;
        return text_join(vm, left, right, &out->text);
    case CHAT_OP_EQ:
    case CHAT_OP_NE:
        if (!value_equal(vm, a, b, &yes)) return false;
        *out = v_bool(yes == (op == CHAT_OP_EQ));
        return true;
    case CHAT_OP_IN:
    case CHAT_OP_NOT_IN:
        if (!chat_in(vm, a, b, &yes)) return false;
        *out = v_bool(yes == (op == CHAT_OP_IN));
        return true;
    case CHAT_OP_LT:
    case CHAT_OP_LE:
    case CHAT_OP_GT:
    case CHAT_OP_GE:
        if (!value_compare(vm, a, b, &order)) return false;
        *out = v_bool(op == CHAT_OP_LT   ? order < 0
                      : op == CHAT_OP_LE ? order <= 0
                      : op == CHAT_OP_GT ? order > 0
                                         : order >= 0);
        return true;
    default: return arithmetic(vm, op, a, b, out);
    }
}

bool chat_negate(Vm *vm, const Value *a, Value *out) {
    int64_t i;
    if (a->kind == V_REAL) return *out = v_real(-a->real), true;
    if (!value_int(a, &i) || i == INT64_MIN)
        return vm_fail(vm, E_CHAT, "`-` does not work on %s", value_kind_name(a));
    return *out = v_int(-i), true;
}

// ---- slices --------------------------------------------------------------------------------------

// Python's slice.indices: begin and end clipped to n, count of the elements taken.
static bool slice_range(Vm *vm, const Value *parts, int64_t n, int64_t *begin, int64_t *step,
                        int64_t *count) {
    int64_t at[2];
    *step = 1;
    if (parts[3].kind != V_NONE && !value_int(&parts[3], step))
        return vm_fail(vm, E_CHAT, "a slice wants integers");
    if (*step == 0 || *step == INT64_MIN) return vm_fail(vm, E_CHAT, "a slice with step 0");
    int64_t low = *step < 0 ? -1 : 0, high = *step < 0 ? n - 1 : n;
    for (int i = 0; i < 2; i++) {
        const Value *p = &parts[1 + i];
        at[i] = (i == 0) == (*step > 0) ? low : high;
        if (p->kind == V_NONE) continue;
        if (!value_int(p, &at[i])) return vm_fail(vm, E_CHAT, "a slice wants integers");
        if (at[i] < 0) at[i] += n;
        at[i] = MIN(MAX(at[i], low), high);
    }
    *begin = at[0];
    int64_t width = *step > 0 ? at[1] - at[0] : at[0] - at[1], by = *step > 0 ? *step : -*step;
    *count = width > 0 ? (width - 1) / by + 1 : 0;
    return true;
}

static bool slice_list(Vm *vm, const ChatList *from, int64_t begin, int64_t step, int64_t count, Value *out) {
    ChatList *l = list_new(vm, (size_t)count);
    if (!l) return false;
    l->kind = from->kind;
    for (int64_t i = 0; i < count; i++) l->items[l->n++] = from->items[begin + i * step];
    *out = v_list(l);
    return true;
}

static bool slice_text(Vm *vm, Text t, const Value *parts, Value *out) {
    Str s = text_str(t);
    int64_t begin, step, count;
    if (!vm_spend(vm, t.len / 16) || !slice_range(vm, parts, (int64_t)utf8_count(s), &begin, &step, &count))
        return false;
    if (step == 1) {
        size_t at = 0, end;
        for (; begin > 0; begin--) at += utf8_step(s, at);
        for (end = at; count > 0; count--) end += utf8_step(s, end);
        *out = v_text(text_slice(t, at, end));
        return true;
    }
    Value chars = v_text(t), taken;
    ChatList *l;
    if (!value_items(vm, &chars, &l) || !slice_list(vm, l, begin, step, count, &taken)) return false;
    out->kind = V_TEXT;
    return text_items(vm, text_own(""), taken.list, &out->text);
}

bool chat_slice(Vm *vm, const Value parts[4], Value *out) {
    int64_t begin, step, count;
    if (parts[0].kind == V_TEXT) return slice_text(vm, parts[0].text, parts, out);
    if (!v_plain(&parts[0])) return vm_fail(vm, E_CHAT, "%s cannot be sliced", value_kind_name(&parts[0]));
    return slice_range(vm, parts, (int64_t)parts[0].list->n, &begin, &step, &count) &&
           slice_list(vm, parts[0].list, begin, step, count, out);
}
