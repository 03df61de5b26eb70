// Plan text: parse, verify, print, parse again; the second print must equal the first.
#include <stdlib.h>

#include "compiler/ir/plan.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static Plan *parse(Arena *a, Str text) {
    Source *src = ARENA_NEW(a, Source);
    *src = (Source){"fuzz.ir", text};
    Diags d = {.arena = a};
    return plan_parse(a, src, &d);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    Arena a = {0};
    Diags d = {.arena = &a};
    StrBuf once = {0}, twice = {0};
    Plan *p = parse(&a, (Str){(const char *)data, size});
    if (p) {
        (void)plan_verify(p, &d);
        plan_print(p, &once);
        Plan *again = parse(&a, buf_view(&once));
        if (!again) abort();
        plan_print(again, &twice);
        if (!str_eq(buf_view(&once), buf_view(&twice))) abort();
    }
    buf_free(&once);
    buf_free(&twice);
    arena_free(&a);
    return 0;
}
