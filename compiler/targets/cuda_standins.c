// Stand-ins until the real candidates land.
#include "compiler/targets/cuda_choose.h"
#define STANDIN(name, ...)                                                                                   \
    void cuda_##name(const Target *t, const KernelAsk *ask, KernelAnswer *out) {                             \
        KernelChoice c = {.grid = t->units, .threads = 256, .predicted_us = 2};                              \
        const char *keys[] = {"", ##__VA_ARGS__};                                                            \
        for (unsigned i = 1; i < sizeof keys / sizeof *keys; i++) choice_add(&c, keys[i], 1);                \
        cuda_consider(t, ask, out, &c);                                                                      \
    }
STANDIN(attention, "tiled", "per_sm")
