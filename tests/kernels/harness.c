#include "tests/kernels/harness.h"

#include <dlfcn.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "compiler/pack/layout.h"
#include "runtime/base/fp.h"
#include "runtime/device/cpu.h"

enum { FENCE_BYTES = 4096, FENCE_BYTE = 0xA5, FILL_BYTE = 0xFF };

static const char *rerun_program = "test", *rerun_argument = "v3";

void check_rerun(const char *program, const char *argument) {
    rerun_program = program, rerun_argument = argument;
}

_Noreturn void check_fail(const char *fmt, ...) {
    char text[1024];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    print_error("%s\nrerun: %s %s\n", text, rerun_program, rerun_argument);
    _fail(__FILE__, __LINE__);
    abort();
}

// ---- kernels -------------------------------------------------------------------------------------

static SpecField parse_field(Arena *a, TemplateField f, const char *value) {
    SpecField s = {.key = arena_strndup(a, f.key.ptr, f.key.len), .kind = f.kind};
    if (f.kind == 'u') s.u = strtoull(value, NULL, 10);
    if (f.kind == 'f') s.f = strtod(value, NULL);
    if (f.kind == 'n') s.n = value;
    return s;
}

static PlanKernel parse_kernel(Kernels *k, uint32_t number, const char *spec) {
    char *save = NULL, *words = arena_strdup(&k->arena, spec), *name = strtok_r(words, " ", &save);
    char *word = NULL;
    Template t;
    CHECK(template_find(name, &t));
    PlanKernel kernel = {
        .name = arena_printf(&k->arena, "kernel_%u", number), .template_ = t.name, .n_spec = t.n_fields};
    kernel.spec = ARENA_ARRAY(&k->arena, SpecField, t.n_fields + 1);
    for (uint32_t i = 0; i < t.n_fields; i++) {
        if (!word) word = strtok_r(NULL, " ", &save);
        char *equals = word ? strchr(word, '=') : NULL;
        CHECK(!word || equals);
        bool given = word && str_eq(t.fields[i].key, (Str){word, (size_t)(equals - word)});
        kernel.spec[i] = parse_field(&k->arena, t.fields[i], given ? equals + 1 : "0");
        if (given) word = NULL;
    }
    CHECK(!word && !strtok_r(NULL, " ", &save)); // every word named a field
    return kernel;
}

uint32_t kernels_add(Kernels *k, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    CHECK(k->n < KERNELS_MAX);
    k->specs[k->n] = arena_vprintf(&k->arena, fmt, ap);
    va_end(ap);
    return k->n++;
}

void kernels_compile(Kernels *k) {
    Diags d = {.arena = &k->arena};
    k->plan = (Plan){.arena = &k->arena, .target = "host", .n_kernels = k->n};
    k->plan.kernels = ARENA_ARRAY(&k->arena, PlanKernel, k->n);
    for (uint32_t i = 0; i < k->n; i++) {
        PlanKernel *kernel = &k->plan.kernels[i];
        *kernel = parse_kernel(k, i, k->specs[i]);
        k->scratch[i] = codegen_host_scratch(kernel->template_, kernel->spec, kernel->n_spec);
    }
    if (!codegen_host(&k->arena, &k->plan, NULL, &k->images, &d)) {
        diags_print(&d, "harness", stderr);
        exit(1);
    }
}

void kernels_use(Kernels *k, const char *image) {
    char path[] = "/tmp/adallm-kernels-XXXXXX";
    int fd = mkstemp(path);
    const CodeImage *code = &k->images.image[!strcmp(image, "v3")];
    CHECK(fd >= 0 && write(fd, code->data, code->bytes) == (ssize_t)code->bytes);
    close(fd);
    if (k->handle) dlclose(k->handle);
    k->handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!k->handle) fprintf(stderr, "%s\n", dlerror());
    CHECK(k->handle);
    unlink(path);
    k->image = image;
    for (uint32_t i = 0; i < k->n; i++) {
        void *symbol = dlsym(k->handle, k->plan.kernels[i].name);
        CHECK(symbol);
        memcpy(&k->fn[i], &symbol, sizeof symbol);
    }
}

void kernels_free(Kernels *k) {
    if (k->handle) dlclose(k->handle);
    arena_free(&k->arena);
    *k = (Kernels){0};
}

static uint32_t common_divisor(uint32_t a, uint32_t b) {
    while (b) {
        uint32_t r = a % b;
        a = b, b = r;
    }
    return a;
}

void kernels_run(Kernels *k, uint32_t kernel, void *const *args, uint32_t grid) {
    void *scratch = fenced_alloc(k->scratch[kernel]);
    uint32_t step = grid / 2 + 1; // coprime with grid: every block once, far neighbours after each other
    while (common_divisor(step, grid) != 1) step++;
    for (uint32_t i = 0; i < grid; i++)
        k->fn[kernel](args, (uint32_t)((uint64_t)i * step % grid), grid, scratch);
    fenced_free(scratch);
}

int kernels_main(Kernels *k, void (*setup)(void), int argc, char **argv, const struct CMUnitTest *tests,
                 size_t n) {
    static const char *const images[] = {"plain", "v3"};
    rerun_program = argv[0];
    if (argc > 2) cmocka_set_test_filter(argv[2]);
    setup();
    kernels_compile(k);
    int failed = 0;
    for (size_t i = 0; i < COUNT_OF(images); i++) {
        if ((argc > 1 && strcmp(argv[1], images[i])) || (i == 1 && !cpu_has_x86_64_v3())) continue;
        kernels_use(k, images[i]);
        rerun_argument = images[i];
        failed |= _cmocka_run_group_tests(images[i], tests, n, NULL, NULL);
    }
    kernels_free(k);
    return failed;
}

// ---- data ----------------------------------------------------------------------------------------

uint64_t random_u64(uint64_t *state) { // SplitMix64
    uint64_t z = *state += 0x9E3779B97F4A7C15u;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return z ^ z >> 31;
}

float random_normal(uint64_t *state) {
    double sum = 0;
    for (int i = 0; i < 12; i++) sum += (double)(random_u64(state) >> 11) * 0x1p-53;
    return (float)(sum - 6);
}

void random_fill(uint64_t seed, float *x, size_t n, float sigma) {
    for (size_t i = 0; i < n; i++) x[i] = random_normal(&seed) * sigma;
}

void random_outliers(uint64_t seed, float *x, size_t n) {
    for (size_t i = 0; i < n; i++) {
        x[i] = random_normal(&seed);
        if (random_u64(&seed) % 97 == 0) x[i] *= 100;
    }
}

// [size | fence | data | fence]
void *fenced_alloc(size_t bytes) {
    uint8_t *p;
    CHECK(posix_memalign((void **)&p, 4096, 2 * FENCE_BYTES + bytes + 64) == 0);
    memcpy(p, &bytes, sizeof bytes);
    memset(p + sizeof bytes, FENCE_BYTE, FENCE_BYTES - sizeof bytes);
    memset(p + FENCE_BYTES, FILL_BYTE, bytes);
    memset(p + FENCE_BYTES + bytes, FENCE_BYTE, FENCE_BYTES);
    return p + FENCE_BYTES;
}

void fenced_free(void *data) {
    uint8_t *p = (uint8_t *)data - FENCE_BYTES;
    size_t bytes;
    memcpy(&bytes, p, sizeof bytes);
    for (size_t i = sizeof bytes; i < FENCE_BYTES; i++)
        if (p[i] != FENCE_BYTE) check_fail("byte %zu before %zu bytes was written", FENCE_BYTES - i, bytes);
    for (size_t i = 0; i < FENCE_BYTES; i++)
        if (p[FENCE_BYTES + bytes + i] != FENCE_BYTE)
            check_fail("byte %zu past %zu bytes was written", i, bytes);
    free(p);
}

static TestWeight weight_new(AdaLayout layout, uint32_t stack, uint32_t rows, uint32_t cols) {
    TestWeight w = {.rows = rows, .cols = cols, .stack = stack};
    uint64_t bytes;
    CHECK(layout_bytes(layout, rows, cols, &bytes));
    w.packed = fenced_alloc(bytes * stack);
    w.value = xmalloc((size_t)stack * rows * cols * sizeof *w.value);
    w.row_scale = fenced_alloc((size_t)stack * rows * sizeof *w.row_scale);
    return w;
}

TestWeight weight_nvfp4(uint64_t seed, uint32_t stack, uint32_t rows, uint32_t cols) {
    TestWeight w = weight_new(ADA_LAYOUT_HOST_NVFP4, stack, rows, cols);
    uint8_t *out = w.packed, *codes = xmalloc((size_t)16 * cols / 2), *scales = xmalloc(cols);
    for (uint32_t e = 0; e < stack; e++)
        for (uint32_t row = 0; row < rows; row += 16, out += (size_t)cols * 9) {
            uint32_t n = MIN(16u, rows - row);
            for (size_t i = 0; i < (size_t)n * cols / 2; i++) codes[i] = (uint8_t)random_u64(&seed);
            for (size_t i = 0; i < (size_t)n * cols / 16; i++)
                scales[i] = (uint8_t)(random_u64(&seed) % 31 == 0 ? random_u64(&seed) % 0x7F
                                                                  : 0x20 + random_u64(&seed) % 24);
            layout_pack_nvfp4(ADA_LAYOUT_HOST_NVFP4, n, cols, codes, scales, out);
            for (uint32_t r = 0; r < n; r++) {
                size_t place = (size_t)e * rows + row + r;
                w.row_scale[place] = 0.01f * (1 + (float)(place % 7));
                for (uint32_t c = 0; c < cols; c++) {
                    uint8_t both = codes[((size_t)r * cols + c) / 2];
                    w.value[place * cols + c] = (double)e2m1_value[c % 2 ? both >> 4 : both & 15] *
                                                (double)e4m3_to_f32(scales[(r * cols + c) / 16]) *
                                                w.row_scale[place];
                }
            }
        }
    free(codes), free(scales);
    return w;
}

// Stores x in the format of the layout at `to`; returns the value that is stored.
static double store_value(WeightFormat format, float x, void *to) {
    if (format == WF_E4M3) {
        uint8_t code = f32_to_e4m3(x);
        memcpy(to, &code, 1);
        return (double)e4m3_to_f32(code);
    }
    uint16_t bits = format == WF_BF16 ? f32_to_bf16(x) : f32_to_f16(x);
    memcpy(to, format == WF_F32 ? (void *)&x : (void *)&bits, format == WF_F32 ? 4 : 2);
    return format == WF_F32 ? (double)x : (double)(format == WF_BF16 ? bf16_to_f32(bits) : f16_to_f32(bits));
}

TestWeight weight_plain(AdaLayout layout, uint64_t seed, uint32_t stack, uint32_t rows, uint32_t cols) {
    TestWeight w = weight_new(layout, stack, rows, cols);
    WeightFormat format = layout_info(layout)->format;
    uint32_t size = (uint32_t)layout_value_bytes(format);
    uint8_t *out = w.packed, *values = xmalloc((size_t)16 * cols * size);
    for (uint32_t e = 0; e < stack; e++)
        for (uint32_t row = 0; row < rows; row += 16, out += (size_t)cols * 16 * size) {
            uint32_t n = MIN(16u, rows - row);
            for (uint32_t r = 0; r < n; r++)
                w.row_scale[(size_t)e * rows + row + r] =
                    format == WF_E4M3 ? 0.01f * (1 + (float)(r % 7)) : 1;
            for (size_t i = 0; i < (size_t)n * cols; i++)
                w.value[((size_t)e * rows + row) * cols + i] =
                    store_value(format, random_normal(&seed), values + i * size) *
                    (double)w.row_scale[(size_t)e * rows + row + i / cols];
            layout_pack_values(layout, n, cols, values, out);
        }
    free(values);
    return w;
}

void weight_free(TestWeight *w) {
    fenced_free(w->packed), fenced_free(w->row_scale);
    free(w->value);
}

// ---- comparison ----------------------------------------------------------------------------------

void check_close(const char *what, const float *got, const double *want, size_t n, double tol) {
    double dot = 0, gg = 0, ww = 0;
    for (size_t i = 0; i < n; i++) {
        double g = (double)got[i];
        if (isfinite(g) != isfinite(want[i]) || isnan(g) != isnan(want[i]))
            check_fail("%s: element %zu is %g, expected %g", what, i, g, want[i]);
        if (isfinite(g)) dot += g * want[i], gg += g * g, ww += want[i] * want[i];
    }
    double rms = sqrt(ww / (double)n);
    for (size_t i = 0; i < n; i++)
        if (isfinite(want[i]) && fabs((double)got[i] - want[i]) > tol * (fabs(want[i]) + rms))
            check_fail("%s: element %zu of %zu is %.9g, expected %.9g (rms %.3g)", what, i, n, (double)got[i],
                       want[i], rms);
    if (ww > 0 && dot < (1 - tol) * sqrt(gg * ww)) check_fail("%s: cosine %.9f", what, dot / sqrt(gg * ww));
}

void check_bits(const char *what, const void *got, const void *want, size_t bytes) {
    for (size_t i = 0; i < bytes; i++)
        if (((const uint8_t *)got)[i] != ((const uint8_t *)want)[i])
            check_fail("%s: byte %zu of %zu differs (fp32 element %zu)", what, i, bytes, i / 4);
}
