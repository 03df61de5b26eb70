// Err: one failure of the world, filled by the function that returns false; callers add context while it
// travels up. Users' errors that have a place in a file go through diag.h instead. Our own mistakes are
// assertions.
#ifndef ADALLM_BASE_ERR_H
#define ADALLM_BASE_ERR_H
#include <stdbool.h>

typedef enum {
    E_NONE = 0,
#define E(name, number, exit_code, title) name = number,
#include "runtime/base/errors.def"
#undef E
} ErrCode;

typedef struct {
    ErrCode code;
    char msg[1024];
} Err;

// Always return false, so that a failing function can `return err_set(...)`.
bool err_set(Err *e, ErrCode code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
bool err_errno(Err *e, ErrCode code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));                                            // adds strerror(errno)
bool err_context(Err *e, const char *fmt, ...) __attribute__((format(printf, 2, 3))); // prepends "context: "

int err_exit_code(ErrCode code); // process exit code for this error
const char *err_title(ErrCode code);
void err_print(const char *program, const Err *e); // "program: error E0401: ..." to stderr

// Ours: names the place and stops. Never for anything an outside file or request can cause.
#define CHECK(cond) ((cond) ? (void)0 : check_failed(#cond, __FILE__, __LINE__))
_Noreturn void check_failed(const char *cond, const char *file, int line);
#endif
