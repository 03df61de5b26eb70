#include "runtime/base/err.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// Adds ": what" behind the first `len` bytes of the message, cut where the message is full.
static void append(Err *e, int len, const char *what) {
    size_t at = len < 0 ? 0 : (size_t)len;
    if (at + 3 >= sizeof e->msg) return;
    size_t n = strlen(what), room = sizeof e->msg - at - 3;
    if (n > room) n = room;
    memcpy(e->msg + at, ": ", 2);
    memcpy(e->msg + at + 2, what, n);
    e->msg[at + 2 + n] = 0;
}

bool err_set(Err *e, ErrCode code, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    e->code = code;
    vsnprintf(e->msg, sizeof e->msg, fmt, ap);
    va_end(ap);
    return false;
}

bool err_errno(Err *e, ErrCode code, const char *fmt, ...) {
    int no = errno;
    va_list ap;
    va_start(ap, fmt);
    e->code = code;
    int len = vsnprintf(e->msg, sizeof e->msg, fmt, ap);
    va_end(ap);
    append(e, len, strerror(no));
    return false;
}

bool err_context(Err *e, const char *fmt, ...) {
    char old[sizeof e->msg];
    memcpy(old, e->msg, sizeof old);
    va_list ap;
    va_start(ap, fmt);
    int len = vsnprintf(e->msg, sizeof e->msg, fmt, ap);
    va_end(ap);
    append(e, len, old);
    return false;
}

static const struct {
    ErrCode code;
    int exit_code;
    const char *title;
} table[] = {
#define E(name, number, exit_code, title) {name, exit_code, title},
#include "runtime/base/errors.def"
#undef E
};

int err_exit_code(ErrCode code) {
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        if (table[i].code == code) return table[i].exit_code;
    return 1;
}

const char *err_title(ErrCode code) {
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        if (table[i].code == code) return table[i].title;
    return "unknown error";
}

void err_print(const char *program, const Err *e) {
    fprintf(stderr, "%s: error E%04d: %s\n", program, (int)e->code, e->msg);
}

_Noreturn void check_failed(const char *cond, const char *file, int line) {
    fprintf(stderr, "adallm: internal error at %s:%d: %s\n", file, line, cond);
    abort();
}
