// Kernel tests on a GPU, in the manner of tests/kernels/harness.h, whose data and comparisons they use.
// A test program runs twice. Where nvcc is, `test_X --prepare FILE` compiles the kernels that its setup
// added; where the card is, `test_X` loads that file and runs the tests: no compiler is needed there.
//
//     static uint32_t add_id, forced_id;
//
//     static void setup(void) {
//         add_id = device_add("act_mul f=40 act=silu out_pitch=%u @ 16", act_pitch(40, false));
//         forced_id = device_add("act_mul f=40 act=silu out_pitch=%u | threads=128 grid=4", act_pitch(40,
//         false));
//     }
//
//     static void pairs_multiply(void **state) {
//         (void)state;
//         float x[3 * 80];
//         double want[3 * 40];
//         random_outliers(1, x, 3 * 80);
//         ... fill `want` ...
//         void *out = device_fill(3 * act_pitch(40, false)); // NaN in every element
//         void *args[] = {device_copy(x, sizeof x), out, device_counts(3, 0)};
//         device_run(add_id, args, COUNT_OF(args)); // checks launch, fences and counters
//         check_acts(device_spec(add_id), device_read(out), want, 3, 40, act_pitch(40, false), 1e-3);
//     }
//
//     static const struct CMUnitTest tests[] = {device_test(pairs_multiply)};
//     DEVICE_MAIN(setup, tests)
//
// A spec line is a template, its fields as key=value in any order (those left out are 0), then
//     `@ BUCKET`   the schedule that the target chooses for this bucket, or
//     `| ...`      a schedule by hand: the template's schedule fields and threads, grid, shared, work
//     (bytes).
// Memory of a test, on the device and on the host, lives until the test ends; nothing has to be freed.
// For the host twin of a kernel use `Kernels` of tests/kernels/harness.h beside this (it runs cc where the
// test runs).
#ifndef ADALLM_TESTS_DEVICE_H
#define ADALLM_TESTS_DEVICE_H
#include "compiler/targets/target.h"
#include "tests/device/data.h"
#include "tests/kernels/harness.h"

enum { DEVICE_KERNELS_MAX = 512 };

// ---- kernels -------------------------------------------------------------------------------------
// Adds a kernel, in setup; returns its number. Equal lines share one. Ends the program when the line does not
// fit templates.def or the target has no kernel for it.
uint32_t device_add(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
// The kernel that does what two others do, rope_write and attention's decode form, for up to `tokens` (16 or
// 64). Its arguments are theirs, one after the other; its grid is attention's.
uint32_t device_add_rope_attention(uint32_t rope, uint32_t attention, uint32_t tokens);
const char *device_spec(uint32_t kernel);           // its line
const KernelChoice *device_choice(uint32_t kernel); // what the schedule became
const Target *device_target(void);                  // h100, or what --prepare names

// Runs a kernel and waits. `args` are device pointers in the order of templates.def, `next` may be NULL. For
// an argument of type `work` the harness gives its own memory, full of NaN behind the counters. Fails the
// test when the launch fails, when a fence of any buffer was written, or when a counter is not zero
// afterwards.
void device_run(uint32_t kernel, void *const *args, uint32_t n_args);
// The same with another grid than the chosen one, which kernels must bear where templates.def lets them.
void device_run_grid(uint32_t kernel, void *const *args, uint32_t n_args, uint32_t grid);

// Microseconds that one launch takes in a replayed graph of `n` launches, launch i with args[i]; the median
// of several replays. For cold caches let the arguments walk over more memory than the L2 holds.
double device_time_us(uint32_t kernel, void *(*args)[TEMPLATE_ARGS_MAX], uint32_t n);

// ---- memory --------------------------------------------------------------------------------------
// Fenced on both sides and aligned to 256.
void *device_fill(size_t bytes);                   // every byte 0xFF: NaN as fp32 and fp16, -1 as an id
void *device_copy(const void *data, size_t bytes); // filled from the host
void *device_counts(uint32_t tokens, uint32_t rows);
void device_wipe(void *device);                                  // the whole buffer as device_fill leaves it
void device_write(void *device, const void *data, size_t bytes); // any place inside a buffer
void *device_read(const void *device); // the whole buffer as host memory of the test
void *test_alloc(size_t bytes);        // host memory of the test, zeroed

// ---- main ----------------------------------------------------------------------------------------
#define device_test(f) cmocka_unit_test_setup_teardown(f, device_test_begin, device_test_end)
int device_test_begin(void **state), device_test_end(void **state);
// Ends the memory of the test so far, for loops over many cases.
void device_drop_all(void);

// test_X [--kernels FILE] [--bare] [FILTER]       run; FILE is build/device/test_X.kernels by default
// test_X --prepare FILE [--target NAME]           compile, also says which kernels spill (that is an error)
// test_X --check [--target NAME]                  the same, and keep nothing
// test_X --list [--target NAME]                   the kernels and their schedules
// --bare: no fences, so that compute-sanitizer sees the end of every buffer.
#define DEVICE_MAIN(setup, tests)                                                                            \
    int main(int argc, char **argv) { return device_main(setup, argc, argv, tests, COUNT_OF(tests)); }
int device_main(void (*setup)(void), int argc, char **argv, const struct CMUnitTest *tests, size_t n);
#endif
