// adallm-rt tokenize: JSON lines from stdin, text to ids and ids to text.
#include <stdio.h>
#include <stdlib.h>

#include "runtime/base/cli.h"
#include "runtime/base/json.h"
#include "runtime/base/num.h"
#include "runtime/exec/artifact.h"
#include "runtime/text/tokenizer.h"
#include "runtime/verbs/verbs.h"

typedef struct {
    const char *path;
    bool jsonl;
    CliResult cli;
} Args;

static bool parse_args(Args *x, int argc, char **argv, Arena *a, Diags *d) {
    *x = (Args){0};
    const Option options[] = {
        {"--jsonl", OPT_FLAG, NULL, 0, 0, &x->jsonl, NULL,
         "read and write JSON lines (the only form there is)"},
    };
    const Command cmd = {
        "adallm-rt tokenize FILE.ada --jsonl",
        "Answers each line of stdin with one line. {\"text\": \"...\"} is encoded to {\"ids\": [...]}; "
        "\"special\": "
        "false takes control tokens in the text as plain text (default true), \"add_special\": true puts the "
        "model's "
        "own tokens around it (default false). {\"ids\": [...]} is decoded to {\"text\": \"...\"}; "
        "\"skip_special\": "
        "true leaves control tokens out (default false). A line that is neither gets {\"error\": \"...\"}, "
        "and the exit "
        "code is then 1.",
        options,
        COUNT_OF(options),
        1,
        1,
    };
    if (!cli_parse(&cmd, argc, argv, a, &x->cli, d)) return false;
    if (x->cli.help) return true;
    x->path = x->cli.args[0];
    return x->jsonl || diag_error(d, E_USAGE, SPAN_NONE, "adallm-rt tokenize needs --jsonl");
}

// The tokenizer section of an artifact, which stays open while the section is in use.
static bool load_tokenizer_section(const char *path, Artifact *artifact, Str *section, Err *e) {
    if (!artifact_open(artifact, path, ARTIFACT_STRUCTURE, NULL, e)) return false;
    if (artifact_section(artifact, ADA_TOKENIZER, 0, section)) return true;
    artifact_close(artifact);
    return err_set(e, E_ARTIFACT, "%s: it has no tokenizer section", path);
}

static bool read_flag(const Json *line, const char *key, bool fallback, bool *out, Err *e) {
    const Json *j = json_get(line, key);
    *out = json_is(j, JSON_BOOL) ? j->boolean : fallback;
    return json_absent(j) || j->kind == JSON_BOOL ||
           err_set(e, E_TEXT, "\"%s\" must be true or false, not %s", key, json_kind_name(j->kind));
}

static bool answer_text(const Tokenizer *tok, const Json *line, Str text, StrBuf *out, Err *e) {
    EncodeOptions options;
    Ids ids = {0};
    bool ok = read_flag(line, "special", true, &options.special, e) &&
              read_flag(line, "add_special", false, &options.add_special, e) &&
              tokenizer_encode(tok, text, options, &ids, e);
    if (ok) {
        buf_puts(out, "{\"ids\":[");
        for (size_t i = 0; i < ids.n; i++) buf_printf(out, "%s%u", i ? "," : "", ids.ptr[i]);
        buf_puts(out, "]}");
    }
    ids_free(&ids);
    return ok;
}

static bool read_ids(const Json *list, Ids *ids, Err *e) {
    for (uint32_t i = 0; i < list->n; i++) {
        const Json *id = &list->items[i];
        if (id->kind != JSON_INT || id->big || id->i < 0 || id->i >= TOKEN_NONE)
            return err_set(e, E_IDS, "item %u of \"ids\" must be a token id, a whole number from 0", i);
        ids_add(ids, (uint32_t)id->i);
    }
    return true;
}

static bool answer_ids(const Tokenizer *tok, const Json *line, const Json *list, StrBuf *out, Err *e) {
    bool skip_special;
    Ids ids = {0};
    bool ok = read_flag(line, "skip_special", false, &skip_special, e) && read_ids(list, &ids, e);
    if (ok) {
        StrBuf text = {0};
        tokenizer_decode(tok, ids.ptr, ids.n, skip_special, &text);
        buf_puts(out, "{\"text\":");
        json_write_string(out, buf_view(&text));
        buf_puts(out, "}");
        buf_free(&text);
    }
    ids_free(&ids);
    return ok;
}

// Appends the answer to one line; false after appending an error.
static bool answer_line(const Tokenizer *tok, Str line, StrBuf *out) {
    Arena arena = {0};
    Source src = {"stdin", line};
    Diags d = {.arena = &arena};
    Err e = {0};
    const Json *root = json_parse(&arena, &src, (JsonLimits){.dup = JSON_DUP_LAST}, &d);
    const Json *text = json_get(root, "text"), *ids = json_get(root, "ids");
    bool ok = false;
    if (!root)
        err_set(&e, E_JSON, "%s", diags_first_message(&d));
    else if (json_is(text, JSON_STRING))
        ok = answer_text(tok, root, text->s, out, &e);
    else if (json_absent(text) && json_is(ids, JSON_ARRAY))
        ok = answer_ids(tok, root, ids, out, &e);
    else
        err_set(&e, E_TEXT, "a line must be an object with \"text\", a string, or \"ids\", a list");
    if (!ok) {
        buf_puts(out, "{\"error\":");
        json_write_string(out, str_of(e.msg));
        buf_puts(out, "}");
    }
    buf_putc(out, '\n');
    arena_free(&arena);
    return ok;
}

// Sets *all_ok when every line could be answered; fails when reading or writing does.
static bool answer_all(const Tokenizer *tok, bool *all_ok, Err *e) {
    char *line = NULL;
    size_t cap = 0;
    StrBuf out = {0};
    bool written = true;
    *all_ok = true;
    for (ssize_t n; written && (n = getline(&line, &cap, stdin)) >= 0;) {
        out.len = 0;
        size_t len = n && line[n - 1] == '\n' ? (size_t)n - 1 : (size_t)n;
        *all_ok = answer_line(tok, (Str){line, len}, &out) && *all_ok;
        written = fwrite(out.ptr, 1, out.len, stdout) == out.len && fflush(stdout) == 0;
    }
    free(line);
    buf_free(&out);
    if (!written) return err_errno(e, E_FILE, "cannot write to stdout");
    return !ferror(stdin) || err_errno(e, E_FILE, "cannot read stdin");
}

int verb_tokenize(int argc, char **argv) {
    Arena arena = {0};
    Diags d = {.arena = &arena};
    Args x;
    Err e = {0};
    Artifact artifact;
    Str section;
    bool all_ok = true;
    if (!parse_args(&x, argc, argv, &arena, &d)) {
        diags_print(&d, "adallm-rt", stderr);
    } else if (!x.cli.help && load_tokenizer_section(x.path, &artifact, &section, &e)) {
        const Tokenizer *tok = tokenizer_open(&arena, section.ptr, section.len, &e);
        if (tok) answer_all(tok, &all_ok, &e);
        artifact_close(&artifact);
    }
    if (e.code) err_print("adallm-rt", &e);
    int code = e.code ? err_exit_code(e.code) : d.n_errors ? diags_exit_code(&d) : !all_ok;
    arena_free(&arena);
    return code;
}
