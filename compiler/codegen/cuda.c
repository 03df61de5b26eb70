#include "compiler/codegen/cuda.h"

#include <stdlib.h>

#include "compiler/codegen/cc.h"
#include "compiler/codegen/cubin_cache.h"
#include "compiler/codegen/cuda_instances.h"
#include "compiler/codegen/embedded.h"
#include "compiler/codegen/folder.h"
#include "runtime/base/cleanup.h"
#include "runtime/base/cores.h"
#include "runtime/base/file.h"
#include "runtime/base/num.h"

enum { CUBIN_BYTES_MAX = 32 << 20, CUBIN_ALIGN = 16, JOBS_MAX = 64 };

// Behind them: -arch, input, output. No line information: nothing that differs between two runs may reach the
// cubin, so nvcc works in the folder with relative names.
static const char *const flags[] = {"-std=c++17", "-O3", "-cubin", "-Xptxas=-v", "-I."};
static const char *const suffixes[] = {".cu", ".cuh", ".h", NULL};

typedef struct {
    Sha256 key;
    CachedCubin result;
    bool cached;
} Kernel;

typedef struct {
    Arena *arena;
    const Plan *plan;
    uint32_t sm;
    uint64_t shared_bytes;   // that a block may have
    const char *dir, *cache; // cache: NULL: none
    bool keep;
    Kernel *kernels;
    KernelFacts *facts;
    PlanRefusals *refusals;
    CodeImages *out;
    Diags *d;
} Codegen;

static const char *kernel_file(const Codegen *c, uint32_t i, const char *suffix) {
    return arena_printf(c->arena, "%s%s", c->plan->kernels[i].name, suffix);
}

// ---- what decides the bytes of a cubin -------------------------------------------------------------------

static bool compiler_version(Codegen *c, Str *out) {
    static const char *const args[] = {"--version", NULL};
    CcJob job;
    return cc_start(c->arena, &cc_tool_nvcc, c->dir, "version.log", args, &job, c->d) &&
           cc_wait(c->arena, &job, "--version", out, c->d);
}

static void hash_text(Sha256Stream *s, Str text) {
    uint64_t len = text.len;
    sha256_add(s, &len, sizeof len);
    sha256_add(s, text.ptr, text.len);
}

static Sha256 hash_common(const Codegen *c, Str version) {
    Sha256Stream *s = sha256_begin();
    hash_text(s, version);
    for (size_t i = 0; i < COUNT_OF(flags); i++) hash_text(s, str_of(flags[i]));
    hash_text(s, str_of(arena_printf(c->arena, "%u", c->sm)));
    for (size_t i = 0; i < n_embedded_files; i++) {
        Str path = str_of(embedded_files[i].path);
        bool seen = str_starts(path, STR("templates/")) && !str_starts(path, STR("templates/host/"));
        if (!seen) continue;
        hash_text(s, path);
        hash_text(s, (Str){embedded_files[i].text, embedded_files[i].len});
    }
    return sha256_end(s);
}

// Writes every instance file; its code is the kernel's own part of the key.
static bool print_instances(Codegen *c) {
    StrBuf text = {0};
    bool ok = true;
    for (uint32_t i = 0; i < c->plan->n_kernels && ok; i++) {
        size_t code = 0;
        text.len = 0;
        ok = cuda_instance_print(c->plan, i, &text, &code, c->d) &&
             folder_write(c->arena, c->dir, kernel_file(c, i, ".cu"), text.ptr, text.len, c->d);
        if (ok) c->kernels[i].key = sha256(text.ptr + code, text.len - code);
    }
    buf_free(&text);
    return ok;
}

static bool make_keys(Codegen *c) {
    Str version;
    if (!print_instances(c) || !compiler_version(c, &version)) return false;
    Sha256 both[2] = {hash_common(c, version)};
    for (uint32_t i = 0; i < c->plan->n_kernels; i++) {
        both[1] = c->kernels[i].key;
        c->kernels[i].key = sha256(both, sizeof both);
    }
    return true;
}

// ---- compiling -------------------------------------------------------------------------------------------

static bool start(Codegen *c, uint32_t i, CcJob *job) {
    const char *args[COUNT_OF(flags) + 5];
    size_t n = 0;
    for (; n < COUNT_OF(flags); n++) args[n] = flags[n];
    args[n++] = arena_printf(c->arena, "-arch=sm_%u", c->sm);
    args[n++] = kernel_file(c, i, ".cu");
    args[n++] = "-o", args[n++] = kernel_file(c, i, ".cubin");
    args[n] = NULL;
    return cc_start(c->arena, &cc_tool_nvcc, c->dir, kernel_file(c, i, ".log"), args, job, c->d);
}

static bool finish(Codegen *c, uint32_t i, const CcJob *job) {
    Kernel *k = &c->kernels[i];
    Err e;
    const char *what = arena_printf(c->arena, "kernel %s", c->plan->kernels[i].name);
    if (!cc_wait(c->arena, job, what, &k->result.log, c->d)) return false;
    const char *path = path_join(c->arena, c->dir, kernel_file(c, i, ".cubin"));
    if (!file_read(c->arena, path, CUBIN_BYTES_MAX, &k->result.cubin, &e))
        return diag_err(c->d, SPAN_NONE, &e);
    if (c->cache) cubin_cache_put(c->arena, c->cache, k->key, &k->result);
    return true;
}

// At most as many at a time as there are cores; what was started is waited for even after a failure.
static bool compile_rest(Codegen *c) {
    CcJob jobs[JOBS_MAX];
    uint32_t of_job[JOBS_MAX], n_jobs = MIN(cores_usable(), (unsigned)JOBS_MAX), begun = 0, done = 0;
    bool ok = true;
    for (uint32_t i = 0; i < c->plan->n_kernels || done < begun;) {
        bool more = ok && i < c->plan->n_kernels;
        if (more && c->kernels[i].cached) {
            i++;
        } else if (more && begun - done < n_jobs) {
            of_job[begun % n_jobs] = i++;
            ok = start(c, of_job[begun % n_jobs], &jobs[begun % n_jobs]);
            begun += ok;
        } else if (done < begun) {
            ok &= finish(c, of_job[done % n_jobs], &jobs[done % n_jobs]);
            done++;
        } else {
            break;
        }
    }
    c->out->n_compiled = done;
    return ok;
}

static bool make_cubins(Codegen *c, bool no_cache) {
    if (!make_keys(c)) return false;
    for (uint32_t i = 0; i < c->plan->n_kernels && c->cache && !no_cache; i++) {
        Kernel *k = &c->kernels[i];
        k->cached = cubin_cache_get(c->arena, c->cache, k->key, &k->result);
        c->out->n_cached += k->cached;
    }
    if (c->out->n_cached < c->plan->n_kernels && !folder_templates(c->arena, c->dir, suffixes, c->d))
        return false;
    bool ok = compile_rest(c);
    if (c->cache && c->out->n_compiled) cubin_cache_trim(c->arena, c->cache);
    return ok;
}

// ---- what ptxas said -------------------------------------------------------------------------------------

// The number before `words` ("Used 40 registers": what " registers" follows); 0 when the words are not there.
static uint32_t number_before(Str log, const char *words) {
    const char *at = memmem(log.ptr, log.len, words, strlen(words));
    if (!at) return 0;
    const char *begin = at;
    while (begin > log.ptr && begin[-1] >= '0' && begin[-1] <= '9') begin--;
    uint64_t n = 0;
    str_to_u64((Str){begin, (size_t)(at - begin)}, &n);
    return (uint32_t)n;
}

// A kernel that keeps values in memory is as fast as nobody planned: it is refused. So is one that no card
// runs.
static bool refuse(Codegen *c, uint32_t i, const char *why) {
    const PlanKernel *k = &c->plan->kernels[i];
    if (!c->refusals)
        return diag_error(c->d, E_CODEGEN, SPAN_NONE, "kernel %s for sm_%u with %u registers: %s", k->name,
                          c->sm, c->facts[i].registers, why);
    PlanRefusal *items = ARENA_ARRAY(c->arena, PlanRefusal, c->refusals->n + 1);
    if (c->refusals->n) memcpy(items, c->refusals->items, c->refusals->n * sizeof *items);
    items[c->refusals->n++] = (PlanRefusal){*k, why};
    c->refusals->items = items;
    return true;
}

static bool check_facts(Codegen *c, uint32_t i) {
    Str log = c->kernels[i].result.log;
    uint32_t stores = number_before(log, " bytes spill stores"),
             stack = number_before(log, " bytes stack frame");
    c->facts[i] = (KernelFacts){.registers = number_before(log, " registers"),
                                .static_bytes = number_before(log, " bytes smem")};
    if (!c->facts[i].registers)
        return diag_error(c->d, E_CODEGEN, SPAN_NONE,
                          "kernel %s: ptxas does not say how many registers it has",
                          c->plan->kernels[i].name);
    if (stores || stack) return refuse(c, i, arena_printf(c->arena, "spills %u bytes", MAX(stores, stack)));
    uint64_t shared = c->plan->kernels[i].shared_bytes + c->facts[i].static_bytes;
    return shared <= c->shared_bytes ||
           refuse(c, i,
                  arena_printf(c->arena, "%llu bytes of shared memory of %llu", (unsigned long long)shared,
                               (unsigned long long)c->shared_bytes));
}

static bool check_all(Codegen *c) {
    bool ok = true;
    for (uint32_t i = 0; i < c->plan->n_kernels; i++) ok &= check_facts(c, i);
    return ok;
}

// --emit: what came from the cache is put beside what was compiled, with ptxas' words.
static bool keep_all(Codegen *c) {
    for (uint32_t i = 0; i < c->plan->n_kernels && c->keep; i++) {
        const CachedCubin *r = &c->kernels[i].result;
        if (!folder_write(c->arena, c->dir, kernel_file(c, i, ".cubin"), r->cubin.ptr, r->cubin.len, c->d) ||
            !folder_write(c->arena, c->dir, kernel_file(c, i, ".ptxas"), r->log.ptr, r->log.len, c->d))
            return false;
    }
    return true;
}

// ---- the image -------------------------------------------------------------------------------------------

static void make_image(Codegen *c) {
    uint32_t n = c->plan->n_kernels;
    uint64_t bytes = sizeof(AdaCubins) + n * sizeof(AdaCubin);
    for (uint32_t i = 0; i < n; i++) bytes = round_up(bytes, CUBIN_ALIGN) + c->kernels[i].result.cubin.len;
    uint8_t *image = ARENA_ARRAY(c->arena, uint8_t, bytes);
    AdaCubins head = {.magic = "ADACUBI", .n = n};
    head.magic[7] = 'N';
    memcpy(image, &head, sizeof head);
    uint64_t at = sizeof head + n * sizeof(AdaCubin);
    for (uint32_t i = 0; i < n; i++) {
        Str cubin = c->kernels[i].result.cubin;
        at = round_up(at, CUBIN_ALIGN);
        AdaCubin row = {at, cubin.len};
        memcpy(image + sizeof head + i * sizeof row, &row, sizeof row);
        memcpy(image + at, cubin.ptr, cubin.len);
        at += cubin.len;
    }
    c->out->image[0] = (CodeImage){ADA_CODE_CUBIN, image, bytes};
    c->out->n = 1;
    c->out->facts = c->facts;
}

bool codegen_cuda(Arena *a, const Plan *p, uint32_t sm, uint64_t shared_bytes, const EmitOptions *o,
                  CodeImages *out, Diags *d) {
    *out = (CodeImages){0};
    Codegen c = {.arena = a,
                 .plan = p,
                 .sm = sm,
                 .shared_bytes = shared_bytes,
                 .keep = o->dir,
                 .refusals = o->refusals,
                 .out = out,
                 .d = d};
    c.kernels = ARENA_ARRAY(a, Kernel, p->n_kernels + 1);
    c.facts = ARENA_ARRAY(a, KernelFacts, p->n_kernels + 1);
    c.dir = o->dir ? o->dir : folder_temporary(a, d);
    if (!c.dir) return false;
    c.cache = cubin_cache_open(a);
    uint32_t refused_before = o->refusals ? o->refusals->n : 0;
    bool ok = make_cubins(&c, o->no_cache) && keep_all(&c) && check_all(&c);
    if (ok && (!o->refusals || o->refusals->n == refused_before)) make_image(&c);
    if (!o->dir) cleanup_remove(c.dir);
    return ok;
}
