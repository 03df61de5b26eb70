// IR text: parse, print, parse again; the second print must equal the first.
#include <stdlib.h>

#include "compiler/ir/graph.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static Graph *parse(Arena *a, Str text) {
    Source *src = ARENA_NEW(a, Source);
    *src = (Source){"fuzz.ir", text};
    Diags d = {.arena = a};
    return graph_parse(a, src, &d);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    Arena a = {0};
    StrBuf once = {0}, twice = {0};
    Graph *g = parse(&a, (Str){(const char *)data, size});
    if (g) {
        graph_print(g, &once);
        Graph *again = parse(&a, buf_view(&once));
        if (!again) abort();
        graph_print(again, &twice);
        if (!str_eq(buf_view(&once), buf_view(&twice))) abort();
    }
    buf_free(&once);
    buf_free(&twice);
    arena_free(&a);
    return 0;
}
