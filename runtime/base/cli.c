#include "runtime/base/cli.h"

#include <ctype.h>
#include <stdlib.h>

#include "runtime/base/num.h"

enum { HELP_COLUMNS = 100, HELP_INDENT = 27 };

static const Option *find_option(const Command *cmd, Str name) {
    for (size_t i = 0; i < cmd->n_options; i++)
        if (str_is(name, cmd->options[i].name)) return &cmd->options[i];
    return NULL;
}

static bool unknown_option(const Command *cmd, Str name, Arena *a, Diags *d) {
    const char **names = ARENA_ARRAY(a, const char *, cmd->n_options);
    for (size_t i = 0; i < cmd->n_options; i++) names[i] = cmd->options[i].name;
    diag_error(d, E_USAGE, SPAN_NONE, "unknown option `" STR_FMT "`", STR_ARG(name));
    diag_did_you_mean(d, name, names, cmd->n_options);
    return false;
}

static bool bad_value(const Option *o, const char *value, const char *want, Diags *d) {
    if (o->min < o->max)
        return diag_error(d, E_OPTION_VALUE, SPAN_NONE, "%s wants %s from %.12g to %.12g, not `%s`", o->name,
                          want, o->min, o->max, value);
    return diag_error(d, E_OPTION_VALUE, SPAN_NONE, "%s wants %s, not `%s`", o->name, want, value);
}

static bool in_range(const Option *o, double v) { return o->min >= o->max || (v >= o->min && v <= o->max); }

static bool set_value(const Option *o, const char *value, Arena *a, Diags *d) {
    Str s = str_of(value);
    switch (o->kind) {
    case OPT_FLAG: *(bool *)o->dst = true; return true;
    case OPT_STRING: *(const char **)o->dst = value; return true;
    case OPT_UINT: {
        uint64_t v;
        if (!str_to_u64(s, &v) || !in_range(o, (double)v)) return bad_value(o, value, "a whole number", d);
        *(uint64_t *)o->dst = v;
        return true;
    }
    case OPT_INT: {
        int64_t v;
        if (!str_to_i64(s, &v) || !in_range(o, (double)v)) return bad_value(o, value, "an integer", d);
        *(int64_t *)o->dst = v;
        return true;
    }
    case OPT_REAL: {
        double v;
        if (!str_to_double(s, &v) || !in_range(o, v)) return bad_value(o, value, "a number", d);
        *(double *)o->dst = v;
        return true;
    }
    case OPT_LIST: {
        OptList *l = o->dst;
        const char **items = ARENA_ARRAY(a, const char *, l->n + 1);
        if (l->n) memcpy(items, l->items, l->n * sizeof *items);
        items[l->n] = value;
        *l = (OptList){items, l->n + 1};
        return true;
    }
    }
    return false;
}

// One option at argv[i]; advances *i over its value.
static bool take_option(const Command *cmd, int argc, char **argv, int *i, Arena *a, Diags *d) {
    Str word = str_of(argv[*i]);
    const char *eq = str_starts(word, STR("--")) ? memchr(word.ptr, '=', word.len) : NULL;
    Str name = eq ? str_sub(word, 0, (size_t)(eq - word.ptr)) : word;
    const Option *o = find_option(cmd, name);
    if (!o) return unknown_option(cmd, name, a, d);
    if (o->given) *o->given = true;
    if (o->kind == OPT_FLAG) {
        if (eq) return diag_error(d, E_USAGE, SPAN_NONE, "%s takes no value", o->name);
        return set_value(o, "", a, d);
    }
    if (eq) return set_value(o, eq + 1, a, d);
    if (*i + 1 >= argc)
        return diag_error(d, E_USAGE, SPAN_NONE, "%s wants a value: %s %s", o->name, o->name, o->metavar);
    return set_value(o, argv[++*i], a, d);
}

static const char *env_name(const char *prefix, const Option *o, Arena *a) {
    char *name = arena_printf(a, "%s%s", prefix, o->name + 2);
    for (char *p = name; *p; p++) *p = *p == '-' ? '_' : (char)toupper((unsigned char)*p);
    return name;
}

static bool set_from_env(const Option *o, const char *value, Arena *a, Diags *d) {
    if (o->kind == OPT_FLAG) {
        if (strcmp(value, "0") != 0 && strcmp(value, "1") != 0)
            return diag_error(d, E_OPTION_VALUE, SPAN_NONE, "%s wants 0 or 1, not `%s`", o->name, value);
        *(bool *)o->dst = *value == '1';
        if (o->given) *o->given = *value == '1';
        return true;
    }
    if (o->given) *o->given = true;
    if (o->kind != OPT_LIST) return set_value(o, value, a, d);
    for (const char *at = value; *at;) {
        size_t n = strcspn(at, ",");
        if (n && !set_value(o, arena_strndup(a, at, n), a, d)) return false;
        at += n + (at[n] == ',');
    }
    return true;
}

bool cli_environment(const Command *cmd, const char *prefix, Arena *a, Diags *d) {
    size_t before = d->n_errors;
    for (size_t i = 0; i < cmd->n_options; i++) {
        const Option *o = &cmd->options[i];
        const char *name = env_name(prefix, o, a), *value = getenv(name);
        if (value && *value && !set_from_env(o, value, a, d))
            diag_hint(d, "the environment has %s=%s", name, value);
    }
    return d->n_errors == before;
}

bool cli_parse(const Command *cmd, int argc, char **argv, Arena *a, CliResult *out, Diags *d) {
    *out = (CliResult){.args = ARENA_ARRAY(a, const char *, (size_t)argc)};
    size_t before = d->n_errors;
    bool options_end = false;
    for (int i = 1; i < argc; i++) {
        const char *word = argv[i];
        if (!options_end && (!strcmp(word, "--help") || !strcmp(word, "-h"))) {
            cli_help(cmd, stdout);
            out->help = true;
            return true;
        }
        if (!options_end && !strcmp(word, "--"))
            options_end = true;
        else if (!options_end && word[0] == '-' && word[1])
            take_option(cmd, argc, argv, &i, a, d);
        else
            out->args[out->n_args++] = word;
    }
    if (out->n_args < cmd->min_args || out->n_args > cmd->max_args) {
        if (out->n_args < cmd->min_args)
            diag_error(d, E_USAGE, SPAN_NONE, "too few arguments");
        else
            diag_error(d, E_USAGE, SPAN_NONE, "too many arguments: `%s`", out->args[cmd->max_args]);
        diag_hint(d, "usage: %s", cmd->usage);
    }
    return d->n_errors == before;
}

// One paragraph, wrapped at HELP_COLUMNS; lines after the first begin at column `indent`, where the first one
// already is. Lines that begin with a space are kept as they are.
static void print_wrapped(Str text, size_t indent, FILE *out) {
    size_t col = indent;
    for (size_t at = 0; at < text.len;) {
        size_t space = at;
        while (space < text.len && text.ptr[space] == ' ') space++;
        size_t end = space;
        while (end < text.len && text.ptr[end] != ' ') end++;
        if (col > indent && col + (end - at) > HELP_COLUMNS) {
            fprintf(out, "\n%*s", (int)indent, "");
            at = space, col = indent;
        }
        fwrite(text.ptr + at, 1, end - at, out);
        col += end - at, at = end;
    }
    fputc('\n', out);
}

// Lines that begin with a space are shown as they are; others are joined to paragraphs, which an empty line
// ends.
static void print_paragraphs(const char *text, FILE *out) {
    StrBuf paragraph = {0};
    for (bool more = true; more;) {
        size_t len = strcspn(text, "\n");
        more = text[len] != 0;
        bool flows = len && text[0] != ' ';
        if (!flows && paragraph.len) print_wrapped(buf_view(&paragraph), 0, out), paragraph.len = 0;
        if (flows)
            buf_printf(&paragraph, "%s%.*s", paragraph.len ? " " : "", (int)len, text);
        else if (more || len)
            fprintf(out, "%.*s\n", (int)len, text);
        text += len + more;
    }
    if (paragraph.len) print_wrapped(buf_view(&paragraph), 0, out);
    buf_free(&paragraph);
}

void cli_help(const Command *cmd, FILE *out) {
    fprintf(out, "usage: %s\n\n", cmd->usage);
    print_paragraphs(cmd->about, out);
    fprintf(out, "\noptions:\n");
    for (size_t i = 0; i < cmd->n_options; i++) {
        const Option *o = &cmd->options[i];
        fprintf(out, "  %s %-*s ", o->name, MAX(0, 23 - (int)strlen(o->name)), o->metavar ? o->metavar : "");
        print_wrapped(str_of(o->help), HELP_INDENT, out);
    }
    fprintf(out, "  %-24s %s\n", "--help", "show this text");
}

void cli_environment_help(const Command *cmd, const char *prefix, FILE *out) {
    Arena a = {0};
    StrBuf names = {0};
    buf_puts(&names,
             "Each option has a twin in the environment, which the command line overrides (flags: 1 or 0; "
             "lists: with commas, to which it adds):");
    for (size_t i = 0; i < cmd->n_options; i++)
        buf_printf(&names, " %s%s", env_name(prefix, &cmd->options[i], &a),
                   i + 1 < cmd->n_options ? "," : ".");
    fputc('\n', out);
    print_wrapped(buf_view(&names), 0, out);
    buf_free(&names);
    arena_free(&a);
}
