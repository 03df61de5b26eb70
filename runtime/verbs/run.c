// adallm-rt run: text in the terminal, one answer or a conversation.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "runtime/base/cli.h"
#include "runtime/base/log.h"
#include "runtime/base/num.h"
#include "runtime/verbs/run_session.h"
#include "runtime/verbs/verbs.h"

enum { COMPLETION_TOKENS = 256 }; // a base model seldom ends by itself

typedef struct {
    double temperature, top_p, min_p, repetition, presence, frequency;
    uint64_t top_k, max_tokens, min_tokens, logprobs, seed;
    bool has_temperature, has_top_p, has_min_p, has_top_k, has_max_tokens, has_seed, has_logprobs;
    bool ignore_eos, chat, no_chat;
    const char *system;
    OptList logit_bias;
    TokenBias bias[BIAS_MAX];
    uint32_t n_bias;
    RunOptions run;
    CliResult cli;
} Args;

static int by_id(const void *a, const void *b) {
    const TokenBias *x = a, *y = b;
    return (x->id > y->id) - (x->id < y->id);
}

static bool parse_biases(Args *x, Diags *d) {
    bool ok = true;
    if (x->logit_bias.n > BIAS_MAX)
        return diag_error(d, E_OPTION_VALUE, SPAN_NONE,
                          "--logit-bias is given %zu times; at most %d are possible", x->logit_bias.n,
                          BIAS_MAX);
    for (size_t i = 0; i < x->logit_bias.n; i++) {
        const char *text = x->logit_bias.items[i], *colon = strchr(text, ':');
        uint64_t id = 0;
        double bias = 0;
        if (!colon || !str_to_u64((Str){text, (size_t)(colon - text)}, &id) || id > INT32_MAX ||
            !str_to_double(str_of(colon + 1), &bias) || !(bias >= -1e4 && bias <= 1e4))
            ok = diag_error(d, E_OPTION_VALUE, SPAN_NONE,
                            "--logit-bias %s: a token id, a colon and a number within 10000 of 0 are wanted",
                            text);
        x->bias[x->n_bias++] = (TokenBias){(int32_t)id, (float)bias};
    }
    qsort(x->bias, x->n_bias, sizeof *x->bias, by_id);
    for (uint32_t i = 1; ok && i < x->n_bias; i++)
        if (x->bias[i].id == x->bias[i - 1].id)
            ok = diag_error(d, E_OPTION_VALUE, SPAN_NONE, "--logit-bias names token %d twice", x->bias[i].id);
    return ok;
}

static bool parse_args(Args *x, int argc, char **argv, Arena *a, Diags *d) {
    const Option options[] = {
        {"--temperature", OPT_REAL, "T", 0, 100, &x->temperature, &x->has_temperature,
         "0 is greedy; default: what the model's makers advise, else 0"},
        {"--top-p", OPT_REAL, "P", 0, 1, &x->top_p, &x->has_top_p,
         "sample from the likeliest tokens that make up P; 1: off"},
        {"--top-k", OPT_UINT, "K", 0, INT32_MAX, &x->top_k, &x->has_top_k,
         "sample from the K likeliest tokens; 0: off"},
        {"--min-p", OPT_REAL, "P", 0, 1, &x->min_p, &x->has_min_p,
         "drop tokens below P times the likeliest; 0: off"},
        {"--repetition-penalty", OPT_REAL, "R", 1e-3, 1e3, &x->repetition, NULL,
         "divide logits of tokens of prompt and answer by R; 1: off"},
        {"--presence-penalty", OPT_REAL, "P", -100, 100, &x->presence, NULL,
         "take P from logits of tokens that the answer has; 0: off"},
        {"--frequency-penalty", OPT_REAL, "F", -100, 100, &x->frequency, NULL,
         "take F from logits of tokens for each time that the answer has them; 0: off"},
        {"--logit-bias", OPT_LIST, "ID:B", 0, 0, &x->logit_bias, NULL,
         "add B to the logit of token ID; may be repeated"},
        {"--min-tokens", OPT_UINT, "N", 0, INT32_MAX, &x->min_tokens, NULL, "do not end before N tokens"},
        {"--logprobs", OPT_UINT, "N", 0, LOGPROBS_MAX, &x->logprobs, &x->has_logprobs,
         "show on stderr each token's log-probability, and those of the N likeliest"},
        {"--max-tokens", OPT_UINT, "N", 1, INT32_MAX, &x->max_tokens, &x->has_max_tokens,
         "end after N tokens; default: a chat ends by itself or when the context is full, a completion after "
         "256"},
        {"--seed", OPT_UINT, "N", 0, 0, &x->seed, &x->has_seed,
         "makes sampling repeatable; default: a fresh one, shown at the end"},
        {"--ignore-eos", OPT_FLAG, NULL, 0, 0, &x->ignore_eos, NULL, "go on after the model's end token"},
        {"--chat", OPT_FLAG, NULL, 0, 0, &x->chat, NULL,
         "put the prompt into the model's chat template (default for instruct models)"},
        {"--no-chat", OPT_FLAG, NULL, 0, 0, &x->no_chat, NULL, "complete the prompt as it is"},
        {"--system", OPT_STRING, "TEXT", 0, 0, &x->system, NULL, "system message of the chat"},
        RUN_OPTION_ROWS(&x->run),
    };
    const Command cmd = {"adallm-rt run X.ada [PROMPT] [options]",
                         "Answers PROMPT, or without one converses: a line is a turn, \\q or the end of "
                         "input quits, Ctrl-C stops an\n"
                         "answer. Text goes to stdout as it is made, everything else to stderr.\n\n"
                         "  adallm-rt run gemma3.ada 'The capital of France is' --max-tokens 32\n"
                         "  adallm-rt run qwen3.ada --system 'Answer in one sentence.'",
                         options,
                         COUNT_OF(options),
                         1,
                         2};
    if (!cli_parse(&cmd, argc, argv, a, &x->cli, d) || !parse_biases(x, d)) return false;
    if (x->chat && x->no_chat)
        return diag_error(d, E_USAGE, SPAN_NONE, "--chat and --no-chat exclude each other");
    return true;
}

static void choose(const Args *x, Session *s) {
    const Manifest *m = &s->opened.manifest;
    Str section;
    SessionOptions *o = &s->options;
    o->chat =
        !x->no_chat && (x->chat || (m->chat && artifact_section(&s->opened.artifact, ADA_CHAT, 0, &section)));
    o->max_tokens = x->has_max_tokens ? (uint32_t)x->max_tokens : o->chat ? 0 : COMPLETION_TOKENS;
    o->ignore_eos = x->ignore_eos;
    o->run = x->run;
    o->sampling = (Sampling){.temperature = (float)(x->has_temperature ? x->temperature : m->temperature),
                             .top_p = (float)(x->has_top_p ? x->top_p : m->top_p),
                             .min_p = (float)(x->has_min_p ? x->min_p : m->min_p),
                             .top_k = x->has_top_k ? (uint32_t)x->top_k : m->top_k,
                             .seed = x->seed,
                             .repetition = (float)x->repetition,
                             .presence = (float)x->presence,
                             .frequency = (float)x->frequency,
                             .min_tokens = (uint32_t)x->min_tokens,
                             .bias = x->bias,
                             .n_bias = x->n_bias,
                             .logprobs = x->has_logprobs,
                             .top_logprobs = (uint32_t)x->logprobs};
    if (!x->has_seed && getrandom(&o->sampling.seed, 4, 0) != 4) o->sampling.seed = 0;
}

static double rate(uint32_t tokens, double seconds) { return tokens / MAX(seconds, 1e-9); }

static void print_stats(const Session *s, const SessionStats *t) {
    fprintf(stderr, "\n[prompt %u tokens", t->prompt_tokens);
    if (t->reused_tokens) fprintf(stderr, " (%u kept)", t->reused_tokens);
    fprintf(stderr, ", %.1f tokens/s; generated %u tokens",
            rate(t->prompt_tokens - t->reused_tokens, t->prompt_s), t->new_tokens);
    if (t->new_tokens > 1) fprintf(stderr, ", %.1f tokens/s", rate(t->new_tokens - 1, t->new_s));
    fprintf(stderr, "; first token after %.0f ms", t->prompt_s * 1e3);
    if (s->options.sampling.temperature > 0)
        fprintf(stderr, "; seed %llu", (unsigned long long)s->options.sampling.seed);
    fputs("]\n", stderr);
}

static bool answer(Session *s, Err *e) {
    SessionStats stats;
    if (!session_answer(s, &stats, e)) return false;
    fflush(stdout);
    print_stats(s, &stats);
    return true;
}

static bool converse(Session *s, Err *e) {
    char *line = NULL;
    size_t cap = 0;
    bool ok = true, terminal = isatty(STDIN_FILENO) == 1;
    while (ok) {
        if (terminal) fputs("> ", stderr);
        ssize_t n = getline(&line, &cap, stdin);
        if (n < 0) break;
        Str text = {line, (size_t)n};
        if (text.len && text.ptr[text.len - 1] == '\n') text.len--;
        if (str_is(text, "\\q")) break;
        if (!text.len) continue;
        ok = session_say(s, "user", text, e) && answer(s, e);
    }
    free(line);
    return ok;
}

static bool run(const Args *x, Session *s, Diags *d) {
    Err e;
    double begin = clock_s();
    choose(x, s);
    if (x->system && !s->options.chat)
        return diag_error(d, E_USAGE, SPAN_NONE, "--system needs a chat; this run completes text");
    if (!session_open(s, &e)) return diag_err(d, SPAN_NONE, &e);
    log_line(
        "load", "opened in %.1f ms, ready %.1f ms later; hashes took %.1f, of which %.1f were waited for",
        s->opened.open_s * 1e3, (clock_s() - begin) * 1e3, s->opened.hash_s * 1e3, s->opened.wait_s * 1e3);
    session_catch_interrupts();
    bool ok = !x->system || session_say(s, "system", str_of(x->system), &e);
    if (x->cli.n_args < 2)
        ok = ok && converse(s, &e);
    else
        ok = ok && session_say(s, "user", str_of(x->cli.args[1]), &e) && answer(s, &e);
    return ok || diag_err(d, SPAN_NONE, &e);
}

int verb_run(int argc, char **argv) {
    Arena arena = {0};
    Diags d = {.arena = &arena};
    Args x = {0};
    Session s = {0};
    Err e;
    if (parse_args(&x, argc, argv, &arena, &d) && !x.cli.help) {
        if (opened_open(&s.opened, x.cli.args[0], ARTIFACT_ALL, x.run.threads, &e))
            run(&x, &s, &d);
        else
            diag_err(&d, SPAN_NONE, &e);
        session_close(&s);
    }
    diags_print(&d, "adallm-rt", stderr);
    int code = diags_exit_code(&d);
    arena_free(&arena);
    return code;
}
