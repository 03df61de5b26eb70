#include "runtime/base/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

bool log_enabled(const char *category) {
    const char *want = getenv("ADALLM_LOG");
    if (!want) return false;
    size_t n = strlen(category);
    for (const char *p = want; *p; p += strcspn(p, ","), p += *p == ',') {
        size_t len = strcspn(p, ",");
        if ((len == 3 && !strncmp(p, "all", 3)) || (len == n && !strncmp(p, category, n))) return true;
    }
    return false;
}

void log_line(const char *category, const char *fmt, ...) {
    if (!log_enabled(category)) return;
    va_list ap;
    va_start(ap, fmt);
    fprintf(stderr, "[%s] ", category);
    vfprintf(stderr, fmt, ap);
    fputc('\n', stderr);
    va_end(ap);
}

double clock_s(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}
