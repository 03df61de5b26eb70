// Compiles kernels from one-line specs through codegen and runs them: blocks in scrambled order, scratch
// exactly as large as promised, full of NaN and fenced. Failures name the case and the command that reruns
// it.
#ifndef ADALLM_TESTS_KERNELS_HARNESS_H
#define ADALLM_TESTS_KERNELS_HARNESS_H
#include "compiler/codegen/host.h"
#include "compiler/ir/template.h"
#include "runtime/base/num.h"
#include "templates/lib/abi.h"
#include "tests/unit/unit.h"

enum { KERNELS_MAX = 64 };
typedef struct {
    const char
        *specs[KERNELS_MAX]; // "linear n=48 k=64 format=nvfp4 out_stride=48 has_bias=0 softcap=0 count=0"
    uint32_t n;
    HostKernel *fn[KERNELS_MAX];
    uint64_t scratch[KERNELS_MAX];
    Plan plan;
    CodeImages images;
    const char *image; // "plain" or "v3"
    void *handle;
    Arena arena;
} Kernels;

// Adds a kernel before kernels_load; returns its number.
uint32_t kernels_add(Kernels *k, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void kernels_compile(Kernels *k);                // both images
void kernels_use(Kernels *k, const char *image); // "plain" or "v3"
void kernels_free(Kernels *k);
void kernels_run(Kernels *k, uint32_t kernel, void *const *args, uint32_t grid);

// A main for kernel tests: argv[1] "plain" or "v3" (default: both), argv[2] a filter of test names.
#define KERNELS_MAIN(kernels, setup, tests)                                                                  \
    int main(int argc, char **argv) {                                                                        \
        return kernels_main(&(kernels), setup, argc, argv, tests, COUNT_OF(tests));                          \
    }
int kernels_main(Kernels *k, void (*setup)(void), int argc, char **argv, const struct CMUnitTest *tests,
                 size_t n);

// ---- data ----------------------------------------------------------------------------------------
uint64_t random_u64(uint64_t *state);
float random_normal(uint64_t *state); // about N(0, 1)
void random_fill(uint64_t seed, float *x, size_t n, float sigma);
void random_outliers(uint64_t seed, float *x, size_t n); // one in 97 is 100 times as large

// Memory with fences around it, every byte 0xFF (NaN as fp32) at first; freed with fenced_free, which checks
// them.
void *fenced_alloc(size_t bytes);
void fenced_free(void *p);

// A weight as packed for the host: NVFP4, 16-bit or fp32 values, and the same as doubles.
typedef struct {
    uint8_t *packed;
    double *value; // [stack * rows, cols]
    float *row_scale;
    uint32_t rows, cols, stack;
} TestWeight;
TestWeight weight_nvfp4(uint64_t seed, uint32_t stack, uint32_t rows, uint32_t cols);
TestWeight weight_plain(AdaLayout layout, uint64_t seed, uint32_t stack, uint32_t rows, uint32_t cols);
void weight_free(TestWeight *w);

// ---- comparison ----------------------------------------------------------------------------------
// Anomalies must agree exactly; else |a - b| <= tol * (|b| + rms(b)), and the cosine is at least 1 - tol.
void check_close(const char *what, const float *got, const double *want, size_t n, double tol);
void check_bits(const char *what, const void *got, const void *want, size_t bytes);
// What a failure prints to run it again; kernels_main and device_main say it.
void check_rerun(const char *program, const char *argument);
_Noreturn void check_fail(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
#endif
