// Any bytes as a safetensors file: an error or a table whose every tensor lies inside them.
#include "compiler/frontend/safetensors.h"
#include "runtime/base/num.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    Arena a = {0};
    Diags d = {.arena = &a};
    SafeTensors s = {.source.name = "fuzz"};
    bool ok = safetensors_parse(&a, data, size, &s, &d);
    CHECK(ok == (d.n_errors == 0));
    for (size_t i = 0; ok && i < s.n_tensors; i++) {
        const SafeTensor *t = &s.tensors[i];
        CHECK(range_inside((uint64_t)(t->data - data), t->bytes, size));
    }
    arena_free(&a);
    return 0;
}
