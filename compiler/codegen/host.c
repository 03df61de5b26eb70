#include "compiler/codegen/host.h"

#include "compiler/codegen/cc.h"
#include "compiler/codegen/folder.h"
#include "compiler/codegen/instances.h"
#include "runtime/base/cleanup.h"
#include "runtime/base/file.h"
#include "runtime/base/num.h"

enum { IMAGE_BYTES_MAX = 256 << 20 };

// Flags that make an image: what its lanes are, chosen by include path. Never contract a*b+c: where an fma is
// meant, it is written.
static const struct {
    AdaCodeKind kind;
    const char *march, *optimize, *lanes, *file;
} kinds[] = {
    {ADA_CODE_X86_64, "-march=x86-64", "-O2", "-Itemplates/host/plain", "kernels.x86-64.so"},
    {ADA_CODE_X86_64_V3, "-march=x86-64-v3", "-O3", "-Itemplates/host/v3", "kernels.x86-64-v3.so"},
};

// Nothing that differs between two runs may reach the image: it runs in `dir` with relative names, and ids,
// idents and symbol tables are left out. libm and libc are not linked: the kernels need memcpy and memset
// alone.
static bool start_compiler(Arena *a, const char *dir, size_t kind, CcJob *job, Diags *d) {
    const char *args[] = {"-std=gnu11",
                          kinds[kind].optimize,
                          kinds[kind].march,
                          "-ffp-contract=off",
                          "-fno-math-errno",
                          "-fno-ident",
                          "-fno-stack-protector",
                          "-fno-asynchronous-unwind-tables",
                          "-fvisibility=hidden",
                          "-fPIC",
                          "-shared",
                          "-nostdlib",
                          "-Wl,--build-id=none",
                          "-Wl,-s",
                          "-Wl,-z,noexecstack",
                          "-Wno-psabi",
                          "-Wno-attributes",
                          "-I.",
                          kinds[kind].lanes,
                          "kernels.c",
                          "-o",
                          kinds[kind].file,
                          NULL};
    return cc_start(a, &cc_tool_c, dir, kind ? "v3.log" : "plain.log", args, job, d);
}

static bool compile(Arena *a, const char *dir, CodeImages *out, Diags *d) {
    CcJob jobs[COUNT_OF(kinds)];
    size_t started = 0;
    bool ok = true;
    while (started < COUNT_OF(kinds) && ok) {
        ok = start_compiler(a, dir, started, &jobs[started], d);
        started += ok;
    }
    for (size_t i = 0; i < started; i++) {
        Diags second = {.arena = a}; // both fail for the same reason: say it once
        ok &= cc_wait(a, &jobs[i], "the kernels", NULL, ok ? d : &second);
    }
    for (size_t i = 0; ok && i < COUNT_OF(kinds); i++) {
        Str image;
        Err e;
        ok = file_read(a, path_join(a, dir, kinds[i].file), IMAGE_BYTES_MAX, &image, &e);
        if (!ok) return diag_err(d, SPAN_NONE, &e);
        out->image[out->n++] = (CodeImage){kinds[i].kind, (const uint8_t *)image.ptr, image.len};
    }
    return ok;
}

bool codegen_host(Arena *a, const Plan *p, const char *emit_dir, CodeImages *out, Diags *d) {
    *out = (CodeImages){0};
    StrBuf text = {0};
    if (!instances_print(p, &text, d)) {
        buf_free(&text);
        return false;
    }
    const char *dir = emit_dir ? emit_dir : folder_temporary(a, d);
    static const char *const suffixes[] = {".h", NULL};
    bool ok = dir && folder_templates(a, dir, suffixes, d) &&
              folder_write(a, dir, "kernels.c", text.ptr, text.len, d) && compile(a, dir, out, d);
    buf_free(&text);
    if (dir && !emit_dir) cleanup_remove(dir);
    return ok;
}
