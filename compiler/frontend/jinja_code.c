#include "compiler/frontend/jinja_code.h"

#include <stdlib.h>

#include "compiler/frontend/jinja.h"
#include "runtime/base/num.h"

// Room for one more row; all tables grow alike.
#define GROW(ptr, n, cap)                                                                                    \
    ((n) < (cap) ? (void)0 : (void)((cap) = MAX((cap)*2, 64u), (ptr) = xrealloc((ptr), (cap), sizeof *(ptr))))

bool jinja_fail(Jinja *j, ErrCode code, const Tok *at, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    const char *msg = arena_vprintf(j->arena, fmt, ap);
    va_end(ap);
    return diag_error(j->diags, code, (Span){j->src, at->begin, at->end}, "%s", msg);
}

bool jinja_tok_is(const Tok *t, const char *word) {
    return (t->kind == TOK_NAME || t->kind == TOK_OP) && str_is(t->s, word);
}

const char *jinja_tok_text(const Jinja *j, const Tok *t) {
    if (t->kind == TOK_END) return "the end of the tag";
    if (t->kind == TOK_STRING) return "a string";
    return arena_printf(j->arena, "`" STR_FMT "`", (int)MIN(t->s.len, (size_t)60), t->s.ptr);
}

bool jinja_is(const Jinja *j, const char *word) { return jinja_tok_is(j->tok, word); }

bool jinja_accept(Jinja *j, const char *word) {
    if (!jinja_is(j, word)) return false;
    j->tok++;
    return true;
}

bool jinja_expect(Jinja *j, const char *word) {
    return jinja_accept(j, word) ||
           jinja_fail(j, E_TEMPLATE, j->tok, "expected `%s` instead of %s", word, jinja_tok_text(j, j->tok));
}

bool jinja_is_keyword(Str name) {
    static const char *const words[] = {"if", "else", "elif", "and", "or", "not", "in", "is", "for"};
    for (size_t i = 0; i < COUNT_OF(words); i++)
        if (str_is(name, words[i])) return true;
    return false;
}

bool jinja_expect_name(Jinja *j, const Tok **out) {
    *out = j->tok;
    if (j->tok->kind != TOK_NAME || jinja_is_keyword(j->tok->s))
        return jinja_fail(j, E_TEMPLATE, j->tok, "expected a name instead of %s", jinja_tok_text(j, j->tok));
    j->tok++;
    return true;
}

// ---- the program ---------------------------------------------------------------------------------

uint32_t jinja_emit(Jinja *j, ChatOp op, uint32_t n, int64_t arg) {
    GROW(j->code, j->n_code, j->cap_code);
    j->code[j->n_code] = (ChatInsn){.op = (uint16_t)op,
                                    .n = (uint16_t)n,
                                    .arg = (int32_t)arg,
                                    .line = j->tok ? (uint32_t)j->tok->begin : 0};
    return j->n_code++;
}

void jinja_land(Jinja *j, uint32_t jump) { j->code[jump].arg = (int32_t)(j->n_code - jump); }

void jinja_jump_back(Jinja *j, ChatOp op, uint32_t target) {
    jinja_emit(j, op, 0, (int64_t)target - (int64_t)j->n_code);
}

uint32_t jinja_const(Jinja *j, ChatConst c) {
    GROW(j->consts, j->n_consts, j->cap_consts);
    j->consts[j->n_consts] = c;
    return j->n_consts++;
}

static Str string_at(const Jinja *j, ChatStr s) { return (Str){j->strings.ptr + s.offset, s.len}; }

static ChatStr add_string(Jinja *j, Str s) {
    ChatStr at = {(uint32_t)j->strings.len, (uint32_t)s.len};
    buf_str(&j->strings, s);
    return at;
}

// Finds `name` among the rows that `known` reads, or adds `row` for it.
static uint32_t find_or_add(JinjaTable *t, const Jinja *j, ChatStr (*known)(const Jinja *j, uint32_t row),
                            Str name, uint32_t row) {
    if (2 * t->n >= t->cap) {
        JinjaTable old = *t;
        t->cap = MAX(old.cap * 2, 256u), t->n = 0;
        t->rows = xmalloc(t->cap * sizeof *t->rows);
        memset(t->rows, 0, t->cap * sizeof *t->rows);
        for (uint32_t i = 0; i < old.cap; i++)
            if (old.rows[i])
                find_or_add(t, j, known, string_at(j, known(j, old.rows[i] - 1)), old.rows[i] - 1);
        free(old.rows);
    }
    uint32_t at = (uint32_t)str_hash(name) & (t->cap - 1);
    for (; t->rows[at]; at = (at + 1) & (t->cap - 1))
        if (str_eq(string_at(j, known(j, t->rows[at] - 1)), name)) return t->rows[at] - 1;
    t->rows[at] = row + 1;
    t->n++;
    return row;
}

static ChatStr const_text(const Jinja *j, uint32_t row) { return j->consts[row].s; }
static ChatStr global_name(const Jinja *j, uint32_t row) { return j->globals[row].name; }

uint32_t jinja_string(Jinja *j, Str s) {
    uint32_t row = find_or_add(&j->const_table, j, const_text, s, j->n_consts);
    return row < j->n_consts ? row : jinja_const(j, (ChatConst){.kind = CHAT_STRING, .s = add_string(j, s)});
}

uint32_t jinja_global(Jinja *j, Str name) {
    uint32_t row = find_or_add(&j->global_table, j, global_name, name, j->n_globals);
    if (row < j->n_globals) return row;
    GROW(j->globals, j->n_globals, j->cap_globals);
    j->globals[j->n_globals] = (ChatGlobal){.name = add_string(j, name)}; // constant 0 is "undefined"
    return j->n_globals++;
}

int32_t jinja_function(const Jinja *j, Str name) {
    for (uint32_t i = j->n_functions; i-- > 1;) // the latest of a name
        if (str_eq(string_at(j, j->functions[i].name), name)) return (int32_t)i;
    return -1;
}

// ---- names ---------------------------------------------------------------------------------------

bool jinja_push_scope(Jinja *j, const Tok *at) {
    if (j->n_scopes == JINJA_NESTING_MAX)
        return jinja_fail(j, E_TEMPLATE, at, "blocks nested too deeply (over %d)", JINJA_NESTING_MAX);
    uint32_t slot = j->functions[j->function].n_locals;
    uint32_t clear = jinja_emit(j, CHAT_OP_CLEAR, 0, slot);
    j->scopes[j->n_scopes++] = (JinjaScope){.first_name = j->n_names, .clear_at = clear, .first_slot = slot};
    return true;
}

void jinja_pop_scope(Jinja *j) {
    JinjaScope *s = &j->scopes[--j->n_scopes];
    j->code[s->clear_at].n = (uint16_t)(j->functions[j->function].n_locals - s->first_slot);
    j->n_names = s->first_name;
}

bool jinja_declare(Jinja *j, const Tok *name, bool definite, uint32_t *slot) {
    for (uint32_t i = j->n_names; i-- > j->scopes[j->n_scopes - 1].first_name;) {
        if (!str_eq(j->names[i].name, name->s)) continue;
        *slot = j->names[i].slot;
        return true;
    }
    ChatFunction *f = &j->functions[j->function];
    if (f->n_locals == CHAT_LOCALS_MAX)
        return jinja_fail(j, E_TEMPLATE, name, "more than %d variables inside loops and macros",
                          CHAT_LOCALS_MAX);
    GROW(j->names, j->n_names, j->cap_names);
    *slot = f->n_locals++;
    j->names[j->n_names++] = (JinjaName){str_dup(j->arena, name->s), *slot, definite};
    return true;
}

void jinja_load(Jinja *j, Str name) {
    uint32_t jumps[JINJA_NESTING_MAX], n = 0;
    const JinjaName *definite = NULL;
    for (uint32_t i = j->n_names; i-- > 0 && !definite;) {
        const JinjaName *known = &j->names[i];
        if (!str_eq(known->name, name)) continue;
        if (known->definite)
            definite = known;
        else
            jumps[n++] = jinja_emit(j, CHAT_OP_JUMP_SET, known->slot, 0);
    }
    if (definite)
        jinja_emit(j, CHAT_OP_LOCAL, 0, definite->slot);
    else
        jinja_emit(j, CHAT_OP_GLOBAL, 0, jinja_global(j, name));
    for (uint32_t i = 0; i < n; i++) jinja_land(j, jumps[i]);
}

bool jinja_store(Jinja *j, const Tok *name) {
    uint32_t slot;
    if (!j->n_scopes) return jinja_emit(j, CHAT_OP_SET_GLOBAL, 0, jinja_global(j, name->s)), true;
    if (!jinja_declare(j, name, false, &slot)) return false;
    jinja_emit(j, CHAT_OP_SET_LOCAL, 0, slot);
    return true;
}

// ---- from start to section -----------------------------------------------------------------------

// Names of functions that were called before they were known are constants until now: -1 - constant.
static bool resolve_calls(Jinja *j) {
    const char *names[64];
    size_t n = 0;
    for (uint32_t i = 1; i < j->n_functions && n < COUNT_OF(names); i++)
        names[n++] = str_dup(j->arena, string_at(j, j->functions[i].name)).ptr;
#define FUNCTION(id, text, min, max) names[n < COUNT_OF(names) ? n++ : n - 1] = text;
#include "runtime/text/chat_builtins.def"
    for (uint32_t i = 0; i < j->n_code; i++) {
        ChatInsn *in = &j->code[i];
        if (in->op != CHAT_OP_CALL || in->arg >= 0) continue;
        Str name = string_at(j, j->consts[-1 - in->arg].s);
        in->arg = jinja_function(j, name);
        if (in->arg > 0) continue;
        Tok at = {.begin = in->line, .end = in->line + name.len};
        jinja_fail(j, E_TEMPLATE_UNSUPPORTED, &at, "`" STR_FMT "` is no macro and no supported function",
                   (int)MIN(name.len, (size_t)60), name.ptr);
        diag_did_you_mean(j->diags, name, names, n);
        return false;
    }
    return true;
}

static void places_to_lines(Jinja *j) {
    uint32_t *line_of = xmalloc((j->src->text.len + 1) * sizeof *line_of);
    uint32_t line = 1;
    for (size_t i = 0; i <= j->src->text.len; i++) {
        line_of[i] = line;
        line += i < j->src->text.len && j->src->text.ptr[i] == '\n';
    }
    for (uint32_t i = 0; i < j->n_code; i++) j->code[i].line = line_of[j->code[i].line];
    free(line_of);
}

static void write_section(const Jinja *j, StrBuf *out) {
    ChatHeader h = {.n_consts = j->n_consts,
                    .n_globals = j->n_globals,
                    .n_functions = j->n_functions,
                    .n_params = j->n_params,
                    .n_insns = j->n_code,
                    .string_bytes = (uint32_t)j->strings.len};
    memcpy(h.magic, CHAT_MAGIC, sizeof h.magic);
    buf_add(out, &h, sizeof h);
    buf_add(out, j->consts, j->n_consts * sizeof *j->consts);
    buf_add(out, j->globals, j->n_globals * sizeof *j->globals);
    buf_add(out, j->functions, j->n_functions * sizeof *j->functions);
    buf_add(out, j->params, j->n_params * sizeof *j->params);
    buf_add(out, j->code, j->n_code * sizeof *j->code);
    buf_str(out, buf_view(&j->strings));
}

// Python's newlines: \r\n and \r are \n, and the last one of the file does not count.
static Source normal_newlines(Arena *a, const Source *src) {
    char *text = arena_alloc(a, src->text.len + 1);
    size_t n = 0;
    for (size_t i = 0; i < src->text.len; i++) {
        char c = src->text.ptr[i];
        if (c == '\r' && i + 1 < src->text.len && src->text.ptr[i + 1] == '\n') continue;
        text[n++] = c == '\r' ? '\n' : c;
    }
    if (n && text[n - 1] == '\n') n--;
    return (Source){src->name, {text, n}};
}

// A template is as long as it is typed: the real ones have 1 to 20 KB.
enum { TEMPLATE_BYTES_MAX = 1 << 20 };

static bool check_source(const Source *src, Diags *d) {
    if (src->text.len > TEMPLATE_BYTES_MAX)
        return diag_error(d, E_LIMIT, SPAN_FILE(src), "a chat template of %zu bytes is over the limit of %d",
                          src->text.len, TEMPLATE_BYTES_MAX);
    for (size_t i = 0, n; i < src->text.len; i += n) {
        n = str_utf8_len(str_from(src->text, i));
        if (!n) return diag_error(d, E_TEMPLATE, (Span){src, i, i + 1}, "a byte that is not UTF-8");
    }
    return true;
}

bool jinja_compile(Arena *a, const Source *template_src, const JinjaVar *vars, size_t n_vars, StrBuf *section,
                   Diags *d) {
    if (!check_source(template_src, d)) return false;
    Source *src = ARENA_NEW(a, Source);
    *src = normal_newlines(a, template_src);
    Jinja j = {.arena = a, .src = src, .diags = d, .loop = -1};
    jinja_const(&j, (ChatConst){.kind = CHAT_UNDEFINED});
    GROW(j.functions, j.n_functions, j.cap_functions);
    j.functions[j.n_functions++] = (ChatFunction){0};
    for (size_t i = 0; i < n_vars; i++) {
        uint32_t value = jinja_string(&j, vars[i].value);
        uint32_t global = jinja_global(&j, vars[i].name);
        j.globals[global].initial = value;
    }
    bool ok = jinja_statements(&j) && resolve_calls(&j);
    if (ok && j.n_code > CHAT_INSNS_MAX)
        ok = diag_error(d, E_LIMIT, SPAN_FILE(src), "the chat template is too long");
    if (ok) {
        places_to_lines(&j);
        write_section(&j, section);
    }
    free(j.code), free(j.consts), free(j.globals), free(j.functions), free(j.params), free(j.names);
    free(j.const_table.rows), free(j.global_table.rows);
    buf_free(&j.strings);
    return ok;
}
