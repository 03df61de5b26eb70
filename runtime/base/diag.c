#include "runtime/base/diag.h"

#include "runtime/base/num.h"

struct Diag {
    Diag *next;
    ErrCode code;
    Span at;
    const char *msg, *hint;
};

enum { DIAGS_DEFAULT_MAX = 20, LINE_SHOWN_MAX = 160 };

static void diag_append(Diags *d, ErrCode code, Span at, const char *msg) {
    d->n_errors++;
    if (d->n_errors > (d->n_max ? d->n_max : DIAGS_DEFAULT_MAX)) return;
    Diag *one = ARENA_NEW(d->arena, Diag);
    *one = (Diag){.code = code, .at = at, .msg = msg};
    if (d->last)
        d->last->next = one;
    else
        d->first = one;
    d->last = one;
}

bool diag_error(Diags *d, ErrCode code, Span at, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    diag_append(d, code, at, arena_vprintf(d->arena, fmt, ap));
    va_end(ap);
    return false;
}

bool diag_err(Diags *d, Span at, const Err *e) {
    diag_append(d, e->code, at, arena_strdup(d->arena, e->msg));
    return false;
}

void diag_hint(Diags *d, const char *fmt, ...) {
    if (!d->last) return;
    va_list ap;
    va_start(ap, fmt);
    d->last->hint = arena_vprintf(d->arena, fmt, ap);
    va_end(ap);
}

const char *nearest_name(Str word, const char *const *names, size_t n_names) {
    const char *best = NULL;
    size_t best_distance = 2 + word.len / 4;
    for (size_t i = 0; i < n_names; i++) {
        size_t distance = edit_distance(word, str_of(names[i]));
        if (distance < best_distance) best = names[i], best_distance = distance;
    }
    return best;
}

void diag_did_you_mean(Diags *d, Str word, const char *const *names, size_t n_names) {
    const char *near = nearest_name(word, names, n_names);
    if (near) diag_hint(d, "did you mean `%s`?", near);
}

static size_t count_chars(Str s) {
    size_t n = 0;
    for (size_t i = 0; i < s.len; i++) n += ((unsigned char)s.ptr[i] & 0xC0) != 0x80;
    return n;
}

static Str line_around(Str text, size_t offset) {
    size_t begin = offset, end = offset;
    while (begin > 0 && text.ptr[begin - 1] != '\n') begin--;
    while (end < text.len && text.ptr[end] != '\n' && text.ptr[end] != '\r') end++;
    return str_sub(text, begin, end);
}

void span_line_col(Span at, size_t *line, size_t *col) {
    Str text = at.src->text;
    size_t offset = MIN(at.begin, text.len);
    *line = 1;
    for (size_t i = 0; i < offset; i++) *line += text.ptr[i] == '\n';
    Str l = line_around(text, offset);
    *col = 1 + count_chars((Str){l.ptr, (size_t)(text.ptr + offset - l.ptr)});
}

static void print_caret(Span at, FILE *out) {
    Str text = at.src->text;
    size_t offset = MIN(at.begin, text.len);
    Str line = line_around(text, offset);
    if (line.len > LINE_SHOWN_MAX || memchr(line.ptr, 0, line.len)) return;
    size_t col = (size_t)(text.ptr + offset - line.ptr);
    size_t end = MIN(MAX(at.end, offset + 1), (size_t)(line.ptr - text.ptr) + line.len);
    fprintf(out, "    " STR_FMT "\n    ", STR_ARG(line));
    for (size_t i = 0; i < col; i++)
        if (((unsigned char)line.ptr[i] & 0xC0) != 0x80) fputc(line.ptr[i] == '\t' ? '\t' : ' ', out);
    fputc('^', out);
    if (end > offset + 1)
        for (size_t n = count_chars(str_sub(text, offset, end)); n > 1; n--) fputc('~', out);
    fputc('\n', out);
}

void diags_print(const Diags *d, const char *program, FILE *out) {
    for (const Diag *e = d->first; e; e = e->next) {
        bool has_text = e->at.src && e->at.begin != (size_t)-1 && e->at.src->text.ptr;
        if (has_text) {
            size_t line, col;
            span_line_col(e->at, &line, &col);
            fprintf(out, "%s:%zu:%zu: error E%04d: %s\n", e->at.src->name, line, col, (int)e->code, e->msg);
            print_caret(e->at, out);
        } else if (e->at.src) {
            fprintf(out, "%s: error E%04d: %s\n", e->at.src->name, (int)e->code, e->msg);
        } else {
            fprintf(out, "%s: error E%04d: %s\n", program, (int)e->code, e->msg);
        }
        if (e->hint) fprintf(out, "hint: %s\n", e->hint);
    }
    size_t max = d->n_max ? d->n_max : DIAGS_DEFAULT_MAX;
    if (d->n_errors > max) fprintf(out, "%s: %zu more errors not shown\n", program, d->n_errors - max);
}

int diags_exit_code(const Diags *d) { return d->first ? err_exit_code(d->first->code) : 0; }
const char *diags_first_message(const Diags *d) { return d->first ? d->first->msg : NULL; }
ErrCode diags_first_code(const Diags *d) { return d->first ? d->first->code : E_NONE; }
