#include "tests/device/forms.h"

#include <math.h>
#include <stdarg.h>

Forms forms_of(const char *spec, uint32_t b0, uint32_t b1, uint32_t b2, uint32_t b3) {
    Forms f = {.bucket = {b0, b1, b2, b3}};
    for (; f.bucket[f.n]; f.n++) f.kernel[f.n] = device_add("%s @ %u", spec, f.bucket[f.n]);
    return f;
}

void forms_add_by_hand(Forms *f, const char *spec, const char *schedule, uint32_t bucket) {
    f->bucket[f->n] = bucket;
    f->kernel[f->n++] = device_add("%s | %s", spec, schedule);
}

const char *line(const char *fmt, ...) {
    static char text[8][512];
    static uint32_t next;
    char *out = text[next++ % 8];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(out, sizeof text[0], fmt, ap);
    va_end(ap);
    return out;
}

void check_untouched(const char *what, const void *data, size_t begin, size_t end) {
    for (size_t i = begin; i < end; i++)
        if (((const uint8_t *)data)[i] != 0xFF) check_fail("%s: byte %zu was written", what, i);
}

float *random_rows(uint64_t seed, size_t n) {
    float *x = test_alloc(n * sizeof *x);
    random_outliers(seed, x, n);
    return x;
}

void norm_reference(const double *x, const float *w, uint32_t n, double *out) {
    double sum = 0;
    for (uint32_t i = 0; i < n; i++) sum += x[i] * x[i];
    for (uint32_t i = 0; i < n; i++) out[i] = x[i] / sqrt(sum / n + 1e-6) * (double)w[i];
}
