// The sampler at a vocabulary of 262144: greedy, and with the cuts that models' makers advise.
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "tests/kernels/harness.h"

enum { VOCAB = 262144, DRAWS = 20 };

static const struct {
    const char *name;
    SamplingRow row;
} cases[] = {{"greedy", {.top_p = 1}},
             {"temperature", {.temperature = 1, .top_p = 1}},
             {"top_k 64", {.temperature = 1, .top_p = 1, .top_k = 64}},
             {"top_p 0.95", {.temperature = 1, .top_p = 0.95f}},
             {"top_k 64, top_p 0.95", {.temperature = 1, .top_p = 0.95f, .top_k = 64}}};

int main(void) {
    Kernels k = {0};
    uint32_t id = kernels_add(&k, "sample vocab_rows=%d vocab=%d rows_max=1", VOCAB, VOCAB),
             counts[4] = {0, 1}, status;
    kernels_compile(&k);
    kernels_use(&k, "v3");
    float *logits = xmalloc(VOCAB * sizeof *logits);
    void *scratch = xmalloc(k.scratch[id]);
    int32_t next;
    random_fill(1, logits, VOCAB, 3);
    for (size_t c = 0; c < COUNT_OF(cases); c++) {
        SamplingRow row = cases[c].row;
        void *args[] = {logits, &row, &next, &status, counts, NULL, NULL, NULL, NULL, NULL};
        double best = 1e9;
        for (int i = 0; i < DRAWS; i++) {
            struct timespec a, b;
            clock_gettime(CLOCK_MONOTONIC, &a);
            k.fn[id](args, 0, 1, scratch);
            clock_gettime(CLOCK_MONOTONIC, &b);
            double t = (double)(b.tv_sec - a.tv_sec) + (double)(b.tv_nsec - a.tv_nsec) * 1e-9;
            best = t < best ? t : best;
        }
        printf("%-22s %8.1f us\n", cases[c].name, best * 1e6);
    }
    free(logits), free(scratch);
    kernels_free(&k);
}
