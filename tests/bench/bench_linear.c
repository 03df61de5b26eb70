// Linear kernels at the shapes of Gemma3-270M, one and 512 tokens, beside a plain read of memory in the same
// run.
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "runtime/base/pool.h"
#include "tests/kernels/harness.h"

static const struct {
    const char *format;
    uint32_t n, k, copies; // copies: so many matrices in turn, so that they come from memory
} shapes[] = {{"nvfp4", 1536, 640, 64},
              {"nvfp4", 640, 1024, 64},
              {"nvfp4", 4096, 640, 32},
              {"nvfp4", 640, 2048, 64},
              {"bf16", 65536, 640, 4}};

typedef struct {
    HostKernel *fn;
    void **args;
    uint8_t *scratch;
    uint64_t scratch_bytes;
    uint32_t grid, lanes;
} Job;

static void lane(void *ctx, uint32_t i) {
    Job *j = ctx;
    for (uint32_t b = i; b < j->grid; b += j->lanes)
        j->fn(j->args, b, j->grid, j->scratch + i * j->scratch_bytes);
}

typedef struct {
    const uint64_t *data;
    size_t words; // of one of 64 parts
    uint64_t sums[64];
} Read;

static void read_part(void *ctx, uint32_t i) {
    Read *r = ctx;
    const uint64_t *p = r->data + i * r->words;
    typedef uint64_t Line __attribute__((vector_size(64)));
    Line sum[2] = {{0}, {0}}, line[2];
    for (size_t w = 0; w + 16 <= r->words; w += 16) {
        memcpy(line, p + w, sizeof line);
        sum[0] += line[0], sum[1] += line[1];
    }
    for (int l = 0; l < 8; l++) r->sums[i] += sum[0][l] + sum[1][l];
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static double read_gbs(Pool *pool) {
    enum { BYTES = 256 << 20 };
    Read r = {.data = xmalloc(BYTES), .words = BYTES / 8 / 64};
    memset((void *)r.data, 1, BYTES);
    double best = 1e9;
    for (int i = 0; i < 3; i++) {
        double t = now();
        pool_run(pool, 64, read_part, &r);
        t = now() - t;
        best = t < best ? t : best;
    }
    free((void *)r.data);
    return BYTES / best * 1e-9;
}

static void bench_shape(Kernels *k, Pool *pool, uint32_t s, uint32_t tokens) {
    const uint32_t n = shapes[s].n, cols = shapes[s].k, copies = tokens > 1 ? 2 : shapes[s].copies;
    const size_t bytes = (size_t)n * cols * (s == 4 ? 32 : 9) / 16;
    uint32_t counts[4] = {tokens};
    uint8_t *w = xmalloc(bytes * copies);
    float *x = xmalloc((size_t)tokens * cols * 4), *scale = xmalloc(n * 4),
          *out = xmalloc((size_t)tokens * n * 4);
    uint64_t seed = 1;
    for (size_t i = 0; i < bytes * copies; i++)
        w[i] = (uint8_t)(0x20 + random_u64(&seed) % 64); // as scales: ordinary numbers
    random_fill(2, x, (size_t)tokens * cols, 1), random_fill(3, scale, n, 1);
    memset(out, 0, (size_t)tokens * n * 4);
    void *args[] = {x, w, scale, NULL, out, counts};
    Job job = {k->fn[s], args, NULL, k->scratch[s], MIN(32u, n / 32), pool_threads(pool)};
    CHECK(posix_memalign((void **)&job.scratch, 4096, job.scratch_bytes * job.lanes) == 0);
    double best = 1e9;
    for (int i = 0; i < 5; i++) {
        double t = now();
        for (uint32_t c = 0; c < copies; c++) {
            args[1] = w + c * bytes;
            pool_run(pool, job.lanes, lane, &job);
        }
        t = (now() - t) / copies;
        best = t < best ? t : best;
    }
    printf("%-6s n=%-6u k=%-5u tokens=%-4u %9.1f us  %6.2f GB/s  %7.1f GFLOP/s\n", shapes[s].format, n, cols,
           tokens, best * 1e6, (double)bytes / best * 1e-9, 2.0 * n * cols * tokens / best * 1e-9);
    free(w), free(x), free(scale), free(out), free(job.scratch);
}

int main(int argc, char **argv) {
    Kernels k = {0};
    for (size_t i = 0; i < COUNT_OF(shapes); i++)
        kernels_add(&k, "linear n=%u k=%u format=%s out_stride=%u has_bias=0 softcap=0 count=0", shapes[i].n,
                    shapes[i].k, shapes[i].format, shapes[i].n);
    kernels_compile(&k);
    kernels_use(&k, argc > 1 ? argv[1] : "v3");
    Pool *pool = pool_new(argc > 2 ? (unsigned)atoi(argv[2]) : 0);
    printf("%u threads, plain read of memory %.2f GB/s\n", pool_threads(pool), read_gbs(pool));
    static const uint32_t tokens[] = {1, 2, 4, 8, 512};
    for (size_t t = 0; t < COUNT_OF(tokens); t++)
        for (uint32_t s = 0; s < COUNT_OF(shapes); s++)
            if (s < 4 || tokens[t] < 512) bench_shape(&k, pool, s, tokens[t]);
    pool_free(pool);
    kernels_free(&k);
}
