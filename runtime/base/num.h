// Checked arithmetic for sizes that come from outside, and the small integer helpers everybody needs.
#ifndef ADALLM_BASE_NUM_H
#define ADALLM_BASE_NUM_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// Each returns false on overflow and leaves *out unspecified.
static inline bool u64_add(uint64_t a, uint64_t b, uint64_t *out) {
    return !__builtin_add_overflow(a, b, out);
}
static inline bool u64_mul(uint64_t a, uint64_t b, uint64_t *out) {
    return !__builtin_mul_overflow(a, b, out);
}
static inline bool size_add(size_t a, size_t b, size_t *out) { return !__builtin_add_overflow(a, b, out); }
static inline bool size_mul(size_t a, size_t b, size_t *out) { return !__builtin_mul_overflow(a, b, out); }

// True when [offset, offset + len) lies inside [0, total).
static inline bool range_inside(uint64_t offset, uint64_t len, uint64_t total) {
    return offset <= total && len <= total - offset;
}

// Smallest multiple of `align` (any value > 0) that is >= x. The caller knows that it does not overflow.
static inline uint64_t round_up(uint64_t x, uint64_t align) { return (x + align - 1) / align * align; }
static inline uint64_t div_up(uint64_t x, uint64_t by) { return (x + by - 1) / by; }

#define MIN(a, b)     ((a) < (b) ? (a) : (b))
#define MAX(a, b)     ((a) > (b) ? (a) : (b))
#define COUNT_OF(arr) (sizeof(arr) / sizeof((arr)[0]))
#endif
