#include "runtime/verbs/run_session.h"

#include <signal.h>
#include <stdio.h>

#include "runtime/base/log.h"
#include "runtime/text/detok.h"

static volatile sig_atomic_t interrupted;

static void on_interrupt(int signal_number) {
    (void)signal_number;
    interrupted = 1;
}

void session_catch_interrupts(void) {
    struct sigaction action = {.sa_handler =
                                   on_interrupt}; // no SA_RESTART: a read of the next line ends, too
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
}

bool session_interrupted(void) { return interrupted != 0; }

// ---- opening ---------------------------------------------------------------------------------------------

static bool open_chat(Session *s, Err *e) {
    Arena *a = &s->opened.artifact.arena;
    Str section;
    if (!artifact_section(&s->opened.artifact, ADA_CHAT, 0, &section))
        return err_set(e, E_CHAT, "this artifact has no chat program; --no-chat completes text");
    s->chat = chat_open(a, section.ptr, section.len, e);
    if (!s->chat) return false;
    s->control = chat_control(a, s->tok);
    return true;
}

bool session_open(Session *s, Err *e) {
    s->tok = opened_tokenizer(&s->opened, e);
    if (!s->tok || (s->options.chat && !open_chat(s, e))) return false;
    ExecOptions o = run_exec_options(&s->opened, &s->options.run, 1);
    s->exec = opened_exec(&s->opened, &o, e);
    if (!s->exec) return false;
    s->batch = batch_new(s->exec, NULL, e);
    return s->batch != NULL;
}

void session_close(Session *s) {
    batch_free(s->batch);
    exec_close(s->exec);
    buf_free(&s->history);
    opened_close(&s->opened);
}

// ---- what was said ---------------------------------------------------------------------------------------

static void say(Session *s, const char *role, Str text) {
    if (!s->options.chat) {
        if (s->history.len) buf_putc(&s->history, '\n');
        buf_str(&s->history, text);
        return;
    }
    buf_printf(&s->history, "{\"role\": \"%s\", \"content\": ", role);
    json_write_string(&s->history, text);
    buf_puts(&s->history, "},");
}

bool session_say(Session *s, const char *role, Str text, Err *e) {
    if (!tokenizer_check_text(text, e)) return false;
    say(s, role, text);
    return true;
}

static const Json *parse_json(Arena *a, const char *name, Str text, Err *e) {
    Source src = {name, text};
    Diags d = {.arena = a, .n_max = 1};
    const Json *j = json_parse(a, &src, (JsonLimits){.dup = JSON_DUP_LAST}, &d);
    if (!j) err_set(e, E_TEXT, "%s: %s", name, diags_first_message(&d));
    return j;
}

static bool render(Session *s, Arena *a, Ids *ids, Err *e) {
    StrBuf messages = {0};
    buf_putc(&messages, '[');
    buf_add(&messages, s->history.ptr, s->history.len - 1); // without the last comma
    buf_putc(&messages, ']');
    ChatInput in = {.messages = parse_json(a, "messages", buf_view(&messages), e)};
    buf_free(&messages);
    in.kwargs = parse_json(a, "kwargs", STR("{\"add_generation_prompt\": true}"), e);
    ChatText text;
    return in.messages && chat_render(s->chat, a, in, &text, e) && chat_encode(s->control, &text, ids, e);
}

static bool make_prompt(Session *s, Ids *ids, Err *e) {
    if (!s->options.chat)
        return tokenizer_encode(s->tok, buf_view(&s->history),
                                (EncodeOptions){.special = true, .add_special = true}, ids, e);
    Arena a = {0};
    bool ok = render(s, &a, ids, e);
    arena_free(&a);
    return ok;
}

// ---- answering -------------------------------------------------------------------------------------------

// What the turns have in common is found in the cache.
static Seq *start(Session *s, const Ids *ids, Err *e) {
    const Manifest *m = &s->opened.manifest;
    const uint64_t most = (uint64_t)ids->n + s->options.max_tokens;
    if (ids->n > INT32_MAX) {
        err_set(e, E_CONTEXT, "the prompt has %zu tokens", ids->n);
        return NULL;
    }
    Request r = {.ids = (const int32_t *)ids->ptr, // what lies outside the vocabulary is refused
                 .n_ids = (uint32_t)ids->n,
                 .max_tokens = s->options.max_tokens,
                 .stop_ids = m->eos_ids,
                 .n_stop_ids = s->options.ignore_eos ? 0 : m->n_eos_ids,
                 .sampling = s->options.sampling};
    if (!r.max_tokens || most > batch_limits(s->batch)->context) r.max_tokens = TOKENS_ALL;
    Seq *q = seq_new(batch_limits(s->batch), &r, e);
    if (q) batch_add(s->batch, q);
    return q;
}

static bool show(StrBuf *piece, StrBuf *answer, Err *e) {
    buf_add(answer, piece->ptr, piece->len);
    bool ok = fwrite(piece->ptr, 1, piece->len, stdout) == piece->len && fflush(stdout) == 0;
    piece->len = 0;
    return ok || err_errno(e, E_FILE, "cannot write the answer");
}

static bool is_eos(const Session *s, int32_t id) {
    for (uint32_t i = 0; i < s->opened.manifest.n_eos_ids; i++)
        if (s->opened.manifest.eos_ids[i] == id) return true;
    return false;
}

static void show_logprobs(const Session *s, const LogprobRow *l) {
    for (uint32_t i = 0; l && i < l->n; i++) {
        StrBuf text = {0};
        Detok detok;
        detok_begin(&detok, s->tok, false);
        detok_push(&detok, (uint32_t)l->id[i], &text);
        detok_flush(&detok, &text);
        detok_end(&detok);
        StrBuf quoted = {0};
        json_write_string(&quoted, buf_view(&text));
        fprintf(stderr, "%s%d " STR_FMT " %.4f%s", i ? "  " : "", l->id[i], STR_ARG(buf_view(&quoted)),
                (double)l->logprob[i], i + 1 < l->n ? "" : "\n");
        buf_free(&text), buf_free(&quoted);
    }
}

static bool next_token(Session *s, const BatchToken **t, uint32_t *n, Err *e) {
    if (!batch_step(s->batch, t, n, e)) return false;
    if (!*n || (*t)->end != SEQ_FAILED) return true;
    *e = *(*t)->seq->err;
    return false;
}

static bool stream(Session *s, Detok *detok, StrBuf *answer, SessionStats *stats, Err *e) {
    StrBuf piece = {0};
    double begin = clock_s(), first = 0;
    bool ok = true, ended = false;
    while (ok && !ended && !interrupted) {
        const BatchToken *t;
        uint32_t n;
        ok = next_token(s, &t, &n, e);
        if (!ok || !n) continue;
        if (!stats->new_tokens++) first = clock_s();
        show_logprobs(s, t->logprobs);
        if (!is_eos(s, t->id)) detok_push(detok, (uint32_t)t->id, &piece);
        ended = t->end != SEQ_GOES_ON;
        if (ended) detok_flush(detok, &piece);
        ok = show(&piece, answer, e);
    }
    if (ok && !ended) { // interrupted
        detok_flush(detok, &piece);
        ok = show(&piece, answer, e);
    }
    double end = clock_s();
    stats->prompt_s = (first > 0 ? first : end) - begin;
    stats->new_s = first > 0 ? end - first : 0;
    buf_free(&piece);
    return ok;
}

bool session_answer(Session *s, SessionStats *stats, Err *e) {
    Ids ids = {0};
    StrBuf answer = {0};
    Detok detok;
    *stats = (SessionStats){0};
    interrupted = 0;
    detok_begin(&detok, s->tok, true);
    Seq *q = make_prompt(s, &ids, e) ? start(s, &ids, e) : NULL;
    bool ok = q && stream(s, &detok, &answer, stats, e);
    if (q) {
        stats->prompt_tokens = q->n_prompt, stats->reused_tokens = q->first_hit;
        batch_remove(s->batch, q);
        seq_free(q);
    }
    if (ok && s->options.chat)
        say(s, "assistant", buf_view(&answer));
    else if (ok)
        buf_str(&s->history, buf_view(&answer));
    if (ok && answer.len && answer.ptr[answer.len - 1] != '\n') putchar('\n');
    detok_end(&detok);
    ids_free(&ids);
    buf_free(&answer);
    return ok;
}
