#include "runtime/server/answer.h"

#include "runtime/base/num.h"

enum { START, REASONING, TEXT, CALL, AFTER_CALL };

static const char think_open[] = "<think>", think_close[] = "</think>", call_open[] = "<tool_call>",
                  call_close[] = "</tool_call>";

void answer_begin(Answer *a, const ApiRequest *req, const Tokenizer *tok, AnswerSink *sink, void *ctx) {
    *a = (Answer){.req = req, .sink = sink, .ctx = ctx};
    a->phase = req->in_thinking ? REASONING : req->thinks ? START : TEXT;
    a->skip_space = req->in_thinking;
    a->splits_tools = req->n_tools && req->tool_choice != TOOLS_NONE;
    detok_begin(&a->detok, tok, req->skip_special);
    stop_begin(&a->stop, req->stops, req->n_stops);
}

void answer_end(Answer *a) {
    detok_end(&a->detok);
    stop_end(&a->stop);
    tool_call_end(&a->call);
    buf_free(&a->piece);
    buf_free(&a->passed);
    buf_free(&a->held);
    buf_free(&a->spaces);
    buf_free(&a->fragment);
}

static void tell(Answer *a, PartKind kind, Str text) {
    if (text.len || kind == PART_CALL_END) a->sink(a->ctx, &(AnswerPart){kind, text});
}

static bool space(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }

// Spaces before a mark and after one belong to the mark: they wait here until something else follows.
static void tell_trimmed(Answer *a, PartKind kind, Str text) {
    size_t begin = 0, end = text.len;
    if (a->skip_space)
        while (begin < end && space(text.ptr[begin])) begin++;
    if (begin < end) a->skip_space = false;
    while (end > begin && space(text.ptr[end - 1])) end--;
    if (end > begin) {
        tell(a, kind, buf_view(&a->spaces));
        a->spaces.len = 0;
        tell(a, kind, str_sub(text, begin, end));
    }
    if (end < text.len && !a->skip_space) buf_str(&a->spaces, str_from(text, end));
}

// Length of the longest end of the text that the mark begins with.
static size_t overlap(Str text, const char *mark) {
    for (size_t n = MIN(text.len, strlen(mark) - 1); n > 0; n--)
        if (!memcmp(text.ptr + text.len - n, mark, n)) return n;
    return 0;
}

static void drop_held(Answer *a, size_t n) {
    a->held.len -= n;
    memmove(a->held.ptr, a->held.ptr + n, a->held.len);
}

// Tells what stands before the mark; true when the mark is there, which is dropped with it.
static bool until_mark(Answer *a, PartKind kind, const char *mark) {
    Str held = buf_view(&a->held);
    if (!held.len) return false;
    const char *at = memmem(held.ptr, held.len, mark, strlen(mark));
    size_t before = at ? (size_t)(at - held.ptr) : held.len - overlap(held, mark);
    tell_trimmed(a, kind, str_sub(held, 0, before));
    drop_held(a, before + (at ? strlen(mark) : 0));
    return at != NULL;
}

static void enter(Answer *a, uint8_t phase) {
    a->phase = phase;
    a->skip_space = true;
    a->spaces.len = 0;
}

static bool start(Answer *a) {
    Str held = buf_view(&a->held);
    size_t n = 0;
    while (n < held.len && space(held.ptr[n])) n++;
    Str rest = str_from(held, n);
    if (str_starts(rest, str_of(think_open))) {
        drop_held(a, n + strlen(think_open));
        enter(a, REASONING);
        return true;
    }
    if (!rest.len || str_starts(str_of(think_open), rest)) return false; // undecided
    a->phase = TEXT;
    return true;
}

static bool reasoning(Answer *a) {
    if (!until_mark(a, PART_REASONING, think_close)) return false;
    enter(a, TEXT);
    a->text_from = a->n_tokens;
    return true;
}

static bool text(Answer *a) {
    if (!a->splits_tools) {
        Str all = buf_view(&a->held);
        size_t begin = 0;
        while (a->skip_space && begin < all.len && space(all.ptr[begin])) begin++;
        if (begin < all.len) a->skip_space = false;
        tell(a, PART_TEXT, str_from(all, begin));
        a->held.len = 0;
        return false;
    }
    if (!until_mark(a, PART_TEXT, call_open)) return false;
    a->phase = CALL;
    tool_call_begin(&a->call);
    return true;
}

static void tell_call(Answer *a, CallResult r) {
    if (r == CALL_NAMED) {
        a->n_calls++;
        a->spaces.len = 0;
        tell(a, PART_CALL, buf_view(&a->call.name));
    }
    if (a->fragment.len && a->call.named)
        tell(a, PART_ARGUMENTS, buf_view(&a->fragment)), a->fragment.len = 0;
    if (r != CALL_WHOLE) return;
    if (!a->call.has_arguments) tell(a, PART_ARGUMENTS, STR("{}"));
    tell(a, PART_CALL_END, STR(""));
    a->one_call_made = true;
    a->text_from = a->n_tokens;
    enter(a, AFTER_CALL);
}

// What looked like a call and is none: text again, while nobody was told of a call.
static void not_a_call(Answer *a) {
    if (a->call.named) {
        a->call_bad = true;
        a->held.len = 0;
        return;
    }
    StrBuf again = {0};
    buf_puts(&again, call_open);
    buf_str(&again, buf_view(&a->call.raw));
    tell(a, PART_TEXT, buf_view(&a->spaces));
    a->spaces.len = 0, a->skip_space = false;
    tell(a, PART_TEXT, buf_view(&again));
    buf_free(&again);
    a->phase = TEXT;
}

static bool call(Answer *a) {
    size_t at = 0;
    while (at < a->held.len && a->phase == CALL && !a->call_bad) {
        CallResult r = tool_call_push(&a->call, a->held.ptr[at++], &a->fragment);
        if (r == CALL_NAMED || r == CALL_WHOLE) tell_call(a, r);
        if (r != CALL_BAD) continue;
        while (at < a->held.len && (a->held.ptr[at] & 0xC0) == 0x80) // the rest of a character
            buf_putc(&a->call.raw, a->held.ptr[at++]);
        if (a->fragment.len) tell_call(a, CALL_MORE);
        drop_held(a, at);
        not_a_call(a);
        return !a->call_bad;
    }
    tell_call(a, CALL_MORE);
    if (a->held.len) drop_held(a, at);
    return a->phase != CALL;
}

static bool after_call(Answer *a) {
    if (!a->held.len) return false;
    size_t n = 0;
    while (n < a->held.len && space(a->held.ptr[n])) n++;
    Str rest = str_from(buf_view(&a->held), n);
    if (str_starts(rest, str_of(call_close))) {
        drop_held(a, n + strlen(call_close));
        enter(a, TEXT);
        a->text_from = a->n_tokens;
        return true;
    }
    if (!rest.len || str_starts(str_of(call_close), rest)) return false;
    enter(a, TEXT);
    return true;
}

// Does what the phase does with the held text until it needs more of it.
static void advance(Answer *a) {
    static bool (*const steps[])(Answer *) = {start, reasoning, text, call, after_call};
    while (!a->call_bad && steps[a->phase](a)) continue;
}

// Text behind the reasoning, which stop strings cut.
static void take_visible(Answer *a, Str piece) {
    a->passed.len = 0;
    a->stopped = stop_push(&a->stop, piece, &a->passed);
    if (a->stopped && a->req->include_stop) buf_str(&a->passed, a->stop.strings[a->stop.which]);
    buf_str(&a->held, buf_view(&a->passed));
    advance(a);
}

// What was held before the text began has not met the stop strings.
static void take_held_again(Answer *a) {
    StrBuf rest = a->held;
    a->held = (StrBuf){0};
    take_visible(a, buf_view(&rest));
    buf_free(&rest);
}

static bool before_text(const Answer *a) { return a->phase == START || a->phase == REASONING; }

static void take(Answer *a, Str piece) {
    if (!before_text(a)) {
        take_visible(a, piece);
        return;
    }
    buf_str(&a->held, piece);
    while (before_text(a) && (a->phase == START ? start(a) : reasoning(a))) continue;
    if (before_text(a)) return;
    take_held_again(a);
}

static bool complete(const Answer *a) {
    bool one = !a->req->parallel_tools || a->req->tool_choice == TOOLS_NAMED;
    return a->one_call_made && a->splits_tools && one;
}

bool answer_push(Answer *a, uint32_t id) {
    if (a->stopped || complete(a)) return false;
    bool reasons = a->phase == REASONING;
    a->n_tokens++;
    a->piece.len = 0;
    detok_push(&a->detok, id, &a->piece);
    if (a->piece.len) take(a, buf_view(&a->piece));
    a->n_reasoning_tokens += reasons || a->phase == REASONING;
    return !a->stopped && !complete(a);
}

// The begin of a call that was demanded, and cut, is nobody's text.
static bool cut_call(const Answer *a) {
    bool demanded = a->req->tool_choice == TOOLS_REQUIRED || a->req->tool_choice == TOOLS_NAMED;
    return demanded && a->splits_tools && (a->phase == TEXT || (a->phase == CALL && !a->call.named));
}

void answer_finish(Answer *a) {
    if (!a->stopped && !complete(a)) {
        a->piece.len = a->passed.len = 0;
        detok_flush(&a->detok, &a->piece);
        if (a->piece.len) take(a, buf_view(&a->piece));
        if (a->phase == START) a->phase = TEXT, take_held_again(a);
        a->passed.len = 0;
        if (!a->stopped) stop_flush(&a->stop, &a->passed);
        buf_str(&a->held, buf_view(&a->passed));
        advance(a);
    }
    PartKind kind = a->phase == REASONING ? PART_REASONING : PART_TEXT;
    if (cut_call(a)) {
        a->call_bad = true;
    } else if (a->phase == CALL && !a->call.named) {
        not_a_call(a);
    } else if (a->phase == CALL) {
        a->call_bad = true;
    } else if (a->phase != AFTER_CALL) {
        tell_trimmed(a, kind, buf_view(&a->held));
        if (kind == PART_TEXT) tell(a, kind, buf_view(&a->spaces));
    }
    a->held.len = a->spaces.len = 0;
}

bool answer_made_calls(const Answer *a) { return a->n_calls && !a->call_bad; }
