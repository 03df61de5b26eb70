// adallm-rt render: messages to text and ids, through the model's chat template.
#include <stdio.h>
#include <stdlib.h>

#include "runtime/base/cli.h"
#include "runtime/base/num.h"
#include "runtime/exec/artifact.h"
#include "runtime/text/chat.h"
#include "runtime/verbs/verbs.h"

typedef struct {
    Chat *chat;
    Tokenizer *tok;
    ChatControl *control;
} ChatParts;

static bool open_sections(const Artifact *artifact, Arena *arena, ChatParts *out, Err *e) {
    Str chat, tok;
    if (!artifact_section(artifact, ADA_CHAT, 0, &chat))
        return err_set(e, E_ARTIFACT, "this model has no chat template");
    if (!artifact_section(artifact, ADA_TOKENIZER, 0, &tok))
        return err_set(e, E_ARTIFACT, "this model has no tokenizer");
    if (!(out->chat = chat_open(arena, chat.ptr, chat.len, e))) return false;
    if (!(out->tok = tokenizer_open(arena, tok.ptr, tok.len, e))) return false;
    out->control = chat_control(arena, out->tok);
    return true;
}

static void write_answer(StrBuf *out, Str text, const Ids *ids) {
    buf_puts(out, "{\"text\": ");
    json_write_string(out, text);
    buf_puts(out, ", \"ids\": [");
    for (size_t i = 0; i < ids->n; i++) buf_printf(out, i ? ", %u" : "%u", ids->ptr[i]);
    buf_puts(out, "]}\n");
}

static void write_error(StrBuf *out, const char *words) {
    buf_puts(out, "{\"error\": ");
    json_write_string(out, str_of(words));
    buf_puts(out, "}\n");
}

static bool known_keys(const Json *line, Err *e) {
    static const char *const keys[] = {"messages", "tools", "kwargs"};
    if (!json_is(line, JSON_OBJECT)) return err_set(e, E_CHAT, "a line must be an object with `messages`");
    for (uint32_t i = 0; i < line->n; i++) {
        bool known = false;
        for (size_t k = 0; k < COUNT_OF(keys); k++) known = known || str_is(line->members[i].key, keys[k]);
        const Str key = line->members[i].key;
        if (!known)
            return err_set(e, E_CHAT, "unknown key `%.*s`: a line has messages, tools and kwargs",
                           (int)MIN(key.len, (size_t)60), key.ptr);
    }
    return true;
}

// One line in, one line out; what is wrong with it is its answer.
static void render_line(const ChatParts *o, const Source *src, StrBuf *out) {
    Arena arena = {0};
    Diags d = {.arena = &arena};
    Err e = {0};
    Ids ids = {0};
    ChatText text;
    const Json *line = json_parse(&arena, src, (JsonLimits){.dup = JSON_DUP_LAST}, &d);
    ChatInput in = {json_get(line, "messages"), json_get(line, "tools"), json_get(line, "kwargs")};
    if (!line)
        write_error(out, diags_first_message(&d));
    else if (known_keys(line, &e) && chat_render(o->chat, &arena, in, &text, &e) &&
             chat_encode(o->control, &text, &ids, &e))
        write_answer(out, text.text, &ids);
    else
        write_error(out, e.msg);
    ids_free(&ids);
    arena_free(&arena);
}

static bool render_lines(const ChatParts *o, Err *e) {
    char *line = NULL;
    size_t cap = 0;
    ssize_t n;
    StrBuf out = {0};
    bool ok = true;
    while (ok && (n = getline(&line, &cap, stdin)) > 0) {
        if (line[n - 1] == '\n') n--;
        Source src = {"stdin", {line, (size_t)n}};
        out.len = 0;
        render_line(o, &src, &out);
        ok = fwrite(out.ptr, 1, out.len, stdout) == out.len && fflush(stdout) == 0;
    }
    if (!ok) err_errno(e, E_FILE, "cannot write to stdout");
    if (ok && ferror(stdin)) ok = err_errno(e, E_FILE, "cannot read stdin");
    buf_free(&out);
    free(line);
    return ok;
}

static int render_file(const char *path) {
    Artifact artifact;
    ChatParts parts = {0};
    Arena arena = {0};
    Err e = {0};
    bool ok = artifact_open(&artifact, path, ARTIFACT_STRUCTURE, NULL, &e);
    if (ok) {
        ok = open_sections(&artifact, &arena, &parts, &e) || err_context(&e, "%s", path);
        ok = ok && render_lines(&parts, &e);
        artifact_close(&artifact);
    }
    arena_free(&arena);
    if (ok) return 0;
    err_print("adallm-rt render", &e);
    return err_exit_code(e.code);
}

int verb_render(int argc, char **argv) {
    bool jsonl = false;
    const Option options[] = {{.name = "--jsonl",
                               .kind = OPT_FLAG,
                               .dst = &jsonl,
                               .help = "lines of JSON in, lines of JSON out (required)"}};
    const Command command = {
        .usage = "adallm-rt render FILE.ada --jsonl",
        .about =
            "Runs the model's chat template. Each line of stdin is {\"messages\": [...], \"tools\": [...], "
            "\"kwargs\": {...}}; tools and kwargs (add_generation_prompt, enable_thinking, ...) may be "
            "absent. Each line of stdout is {\"text\", \"ids\"} or {\"error\"}. In the ids only control "
            "tokens that the template wrote count: those inside of messages are plain text.",
        .options = options,
        .n_options = COUNT_OF(options),
        .min_args = 1,
        .max_args = 1};
    Arena arena = {0};
    Diags d = {.arena = &arena};
    CliResult cli = {0};
    int code = 0;
    if (!cli_parse(&command, argc, argv, &arena, &cli, &d)) {
        diags_print(&d, "adallm-rt render", stderr);
        code = diags_exit_code(&d);
    } else if (!cli.help && !jsonl) {
        fprintf(stderr,
                "adallm-rt render: error E%04d: --jsonl is missing: lines of JSON are the only input\n",
                E_USAGE);
        code = err_exit_code(E_USAGE);
    } else if (!cli.help) {
        code = render_file(cli.args[0]);
    }
    arena_free(&arena);
    return code;
}
