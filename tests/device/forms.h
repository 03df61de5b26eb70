// Kernels of one spec for some buckets, of which equal bits are asked, and what tests of rows share.
#ifndef ADALLM_TESTS_DEVICE_FORMS_H
#define ADALLM_TESTS_DEVICE_FORMS_H
#include "tests/device/device.h"

enum { FORMS_MAX = 6, NEXT_BYTES = 100000 }; // NEXT_BYTES: of `next` in specs

typedef struct {
    uint32_t bucket[FORMS_MAX], kernel[FORMS_MAX], n;
} Forms;

// As the target chooses for up to four buckets; 0: no more.
Forms forms_of(const char *spec, uint32_t b0, uint32_t b1, uint32_t b2, uint32_t b3);
// And a schedule by hand, for up to `bucket`.
void forms_add_by_hand(Forms *f, const char *spec, const char *schedule, uint32_t bucket);

// printf into one of eight buffers, taken in turn.
const char *line(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
// Bytes [begin, end) of a buffer must be as device_fill left them.
void check_untouched(const char *what, const void *data, size_t begin, size_t end);
float *random_rows(uint64_t seed, size_t n);                                   // with outliers
void norm_reference(const double *x, const float *w, uint32_t n, double *out); // eps 1e-6
#endif
