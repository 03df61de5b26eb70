// Golden files, as they are or packed.
#ifndef ADALLM_TESTS_GOLDEN_H
#define ADALLM_TESTS_GOLDEN_H
#include <stdio.h>
#include <string.h>

#include "runtime/base/file.h"
#include "tests/unit/unit.h"

static inline Str golden_unpack(Arena *a, const char *path) {
    char command[512], piece[4096];
    StrBuf out = {0};
    snprintf(command, sizeof command,
             "python3 -c 'import lzma, sys; sys.stdout.buffer.write(lzma.open(sys.argv[1]).read())' %s",
             path);
    FILE *f = popen(command, "r");
    assert_non_null(f);
    for (size_t n; (n = fread(piece, 1, sizeof piece, f)) > 0;) buf_add(&out, piece, n);
    assert_int_equal(pclose(f), 0);
    const Str text = {arena_strndup(a, out.ptr, out.len), out.len};
    buf_free(&out);
    return text;
}

// What the file holds, in the arena; of one whose name ends with .xz, what was packed.
static inline Str golden_read(Arena *a, const char *path) {
    const size_t n = strlen(path);
    Err e = {0};
    Str text;
    if (n > 3 && !strcmp(path + n - 3, ".xz")) return golden_unpack(a, path);
    if (!file_read(a, path, 64 << 20, &text, &e)) fail_msg("%s", e.msg);
    return text;
}
#endif
