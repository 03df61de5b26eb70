#include "tests/device/device.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "compiler/codegen/embedded.h"
#include "runtime/base/file.h"
#include "runtime/base/hash.h"
#include "runtime/device/device.h"
#include "tests/device/spec.h"

enum { FENCE_BYTES = 4096, FENCE_BYTE = 0xA5, FILL_BYTE = 0xFF, COUNTER_BYTES = 64 << 10 };
enum { BUFFERS_MAX = 256, KERNELS_FILE_MAX = 256 << 20 };

typedef struct {
    uint8_t *data; // what tests see; a fence stands before and behind
    size_t bytes;
} Buffer;

// One program tests one list of kernels on one device.
static struct {
    const Target *target;
    DeviceSpec kernels[DEVICE_KERNELS_MAX];
    DeviceKernel *loaded[DEVICE_KERNELS_MAX];
    uint32_t n_kernels;
    Device *device;
    Buffer buffers[BUFFERS_MAX];
    uint32_t n_buffers;
    size_t fence;
    Arena arena, test; // of the program, of the running test
} all = {.fence = FENCE_BYTES};

// ---- kernels -------------------------------------------------------------------------------------

static bool same_kernel(const PlanKernel *a, const PlanKernel *b) {
    bool same = a->template_ == b->template_ && a->threads == b->threads &&
                a->shared_bytes == b->shared_bytes && a->n_spec == b->n_spec && a->n_parts == b->n_parts;
    for (uint32_t i = 0; same && i < a->n_spec; i++) {
        const SpecField *x = &a->spec[i], *y = &b->spec[i];
        same = x->kind == 'n' ? !strcmp(x->n, y->n) : x->u == y->u && x->f == y->f;
    }
    for (uint32_t i = 0; same && i < a->n_parts; i++) same = a->parts[i].name == b->parts[i].name;
    return same;
}

// Buckets whose kernels differ in their grid alone share the code.
static const char *name_kernel(const PlanKernel *k) {
    for (uint32_t i = 0; i < all.n_kernels; i++)
        if (same_kernel(&all.kernels[i].kernel, k)) return all.kernels[i].kernel.name;
    return arena_printf(&all.arena, "%s_%u", k->template_, all.n_kernels);
}

uint32_t device_add(const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    const char *line = arena_vprintf(&all.arena, fmt, ap), *why;
    va_end(ap);
    for (uint32_t i = 0; i < all.n_kernels; i++)
        if (!strcmp(all.kernels[i].line, line)) return i;
    CHECK(all.n_kernels < DEVICE_KERNELS_MAX);
    DeviceSpec *k = &all.kernels[all.n_kernels];
    if (!spec_parse(&all.arena, all.target, line, k, &why)) {
        fprintf(stderr, "kernel `%s`: %s\n", line, why);
        exit(1);
    }
    k->kernel.name = name_kernel(&k->kernel);
    return all.n_kernels++;
}

uint32_t device_add_rope_attention(uint32_t rope, uint32_t attention, uint32_t tokens) {
    CHECK(all.n_kernels < DEVICE_KERNELS_MAX);
    DeviceSpec *k = &all.kernels[all.n_kernels];
    const DeviceSpec *of[2] = {&all.kernels[rope], &all.kernels[attention]};
    PlanKernel *parts = ARENA_ARRAY(&all.arena, PlanKernel, 2);
    SpecField *spec = ARENA_ARRAY(&all.arena, SpecField, 1);
    uint32_t head_dim = 0;
    parts[0] = of[0]->kernel, parts[1] = of[1]->kernel;
    while (strcmp(parts[1].spec[head_dim].key, "head_dim")) head_dim++;
    *spec = (SpecField){.key = "tokens", .kind = 'u', .u = tokens};
    *k = (DeviceSpec){.choice = of[1]->choice};
    k->choice.shared_bytes += 2 * tokens * parts[1].spec[head_dim].u;
    k->kernel = (PlanKernel){.template_ = "rope_attention",
                             .spec = spec,
                             .n_spec = 1,
                             .threads = k->choice.threads,
                             .shared_bytes = k->choice.shared_bytes,
                             .parts = parts,
                             .n_parts = 2};
    k->line = arena_printf(&all.arena, "rope_attention tokens=%u of `%s` and `%s`", tokens, of[0]->line,
                           of[1]->line);
    k->kernel.name = name_kernel(&k->kernel);
    return all.n_kernels++;
}

const char *device_spec(uint32_t kernel) { return all.kernels[kernel].line; }
const KernelChoice *device_choice(uint32_t kernel) { return &all.kernels[kernel].choice; }
const Target *device_target(void) { return all.target; }

static void print_kernels(StrBuf *out) {
    for (uint32_t i = 0; i < all.n_kernels; i++) {
        const KernelChoice *c = &all.kernels[i].choice;
        buf_printf(out, "%s: %s", all.kernels[i].kernel.name, all.kernels[i].line);
        buf_printf(out, " -> threads=%u grid=%u shared=%llu work=%llu", c->threads, c->grid,
                   (unsigned long long)c->shared_bytes, (unsigned long long)c->work_bytes);
        for (uint32_t j = 0; j < c->n_schedule; j++)
            buf_printf(out, " %s=%llu", c->schedule[j].key, (unsigned long long)c->schedule[j].u);
        buf_putc(out, '\n');
    }
}

// What a file of kernels was made of: it is stale when any of it differs.
static Sha256 fingerprint(void) {
    Sha256Stream *s = sha256_begin();
    for (size_t i = 0; i < n_embedded_files; i++) {
        const EmbeddedFile *f = &embedded_files[i];
        Str path = str_of(f->path);
        if (!str_starts(path, STR("templates/")) || str_starts(path, STR("templates/host/"))) continue;
        sha256_add(s, f->path, path.len + 1), sha256_add(s, f->text, f->len);
    }
    StrBuf text = {0};
    print_kernels(&text);
    sha256_add(s, text.ptr, text.len);
    buf_free(&text);
    return sha256_end(s);
}

static int fail_with(const Err *e) {
    err_print("device tests", e);
    return 1;
}

static int prepare(const char *path) { // NULL: only see whether all compiles
    Diags d = {.arena = &all.arena};
    Plan p = {.arena = &all.arena, .target = all.target->name};
    CodeImages images = {0};
    p.kernels = ARENA_ARRAY(&all.arena, PlanKernel, all.n_kernels + 1);
    for (uint32_t i = 0; i < all.n_kernels; i++) {
        bool first = true;
        for (uint32_t j = 0; j < i; j++) first &= all.kernels[j].kernel.name != all.kernels[i].kernel.name;
        if (first) p.kernels[p.n_kernels++] = all.kernels[i].kernel;
    }
    if (!all.target->emit(all.target, &all.arena, &p, &(EmitOptions){0}, &images, &d)) {
        diags_print(&d, "device tests", stderr);
        return 1;
    }
    CHECK(images.n == 1);
    if (!path) return 0;
    Sha256 made_of = fingerprint();
    Err e;
    OutFile *f = out_open(path, &e);
    if (!f || !out_write(f, made_of.bytes, sizeof made_of.bytes, &e) ||
        !out_write(f, images.image[0].data, images.image[0].bytes, &e) || !out_commit(f, &e))
        return fail_with(&e);
    return 0;
}

static bool load(const char *path, Err *e) {
    Str file;
    if (!file_read(&all.arena, path, KERNELS_FILE_MAX, &file, e)) return false;
    Sha256 made_of = fingerprint();
    if (file.len < sizeof made_of || memcmp(file.ptr, made_of.bytes, sizeof made_of))
        return err_set(e, E_FILE, "%s: made of other templates or specs: run tests/device/prepare again",
                       path);
    const void *image = file.ptr + sizeof made_of;
    uint64_t bytes = file.len - sizeof made_of;
    uint32_t kind = ADA_CODE_CUBIN;
    DeviceCode *code;
    const DeviceOps *ops = all.device->ops;
    if (!ops->load_code(all.device, &image, &bytes, &kind, 1, &code, e)) return false;
    for (uint32_t i = 0; i < all.n_kernels; i++)
        if (!ops->find_kernel(all.device, code, all.kernels[i].kernel.name, &all.loaded[i], e)) return false;
    return true;
}

// ---- memory --------------------------------------------------------------------------------------

// The buffer that begins at `start`.
static Buffer *find_buffer(const void *start) {
    for (uint32_t i = 0; i < all.n_buffers; i++)
        if (all.buffers[i].data == start) return &all.buffers[i];
    check_fail("no buffer of this test begins at %p", start);
}

static void *new_buffer(size_t bytes) {
    void *memory;
    Err e;
    CHECK(all.n_buffers < BUFFERS_MAX);
    if (!all.device->ops->alloc(all.device, MAX(bytes, (size_t)1) + 2 * all.fence, &memory, &e))
        check_fail("%zu bytes on the device: %s", bytes, e.msg);
    Buffer *b = &all.buffers[all.n_buffers++];
    *b = (Buffer){(uint8_t *)memory + all.fence, bytes};
    static uint8_t fence[FENCE_BYTES];
    memset(fence, FENCE_BYTE, sizeof fence);
    if (all.fence) device_write(b->data - all.fence, fence, all.fence);
    if (all.fence) device_write(b->data + bytes, fence, all.fence);
    return b->data;
}

void device_write(void *device, const void *data, size_t bytes) {
    Err e;
    if (bytes && !all.device->ops->upload(all.device, device, data, bytes, &e)) check_fail("%s", e.msg);
}

void *device_copy(const void *data, size_t bytes) {
    void *p = new_buffer(bytes);
    device_write(p, data, bytes);
    return p;
}

void device_wipe(void *device) {
    size_t bytes = find_buffer(device)->bytes;
    uint8_t *data = xmalloc(bytes + 1);
    memset(data, FILL_BYTE, bytes);
    device_write(device, data, bytes);
    free(data);
}

void *device_fill(size_t bytes) {
    void *p = new_buffer(bytes);
    device_wipe(p);
    return p;
}

void *device_counts(uint32_t tokens, uint32_t rows) {
    return device_copy((uint32_t[4]){tokens, rows}, 4 * sizeof(uint32_t));
}

void *test_alloc(size_t bytes) { return arena_alloc(&all.test, bytes); }

static void download(void *host, const void *device, size_t bytes) {
    Err e;
    if (bytes && !all.device->ops->download(all.device, host, device, bytes, &e)) check_fail("%s", e.msg);
}

void *device_read(const void *device) {
    const Buffer *b = find_buffer(device);
    void *host = test_alloc(b->bytes);
    download(host, device, b->bytes);
    return host;
}

static void check_fence(const char *what, const Buffer *b, bool behind) {
    static uint8_t fence[FENCE_BYTES];
    download(fence, behind ? b->data + b->bytes : b->data - all.fence, all.fence);
    for (size_t i = 0; i < all.fence; i++)
        if (fence[i] != FENCE_BYTE)
            check_fail("%s: byte %zu %s a buffer of %zu bytes was written", what, behind ? i : all.fence - i,
                       behind ? "past" : "before", b->bytes);
}

static void drop_buffer(Buffer *b) {
    all.device->ops->free(all.device, b->data - all.fence);
    *b = all.buffers[--all.n_buffers];
}

// ---- running -------------------------------------------------------------------------------------

static void *new_work(uint64_t bytes) {
    static const uint8_t zeros[COUNTER_BYTES];
    if (!bytes) return NULL;
    void *p = device_fill(bytes);
    device_write(p, zeros, MIN(bytes, (uint64_t)COUNTER_BYTES));
    return p;
}

static void check_counters(const char *what, void *work) {
    static uint8_t counters[COUNTER_BYTES];
    Buffer *b = find_buffer(work);
    size_t n = MIN(b->bytes, (size_t)COUNTER_BYTES);
    download(counters, work, n);
    for (size_t i = 0; i < n; i++)
        if (counters[i]) check_fail("%s: byte %zu of the counters is not zero after the launch", what, i);
    drop_buffer(b);
}

// Argument i is work memory; n: how many a kernel takes, its parts' one after the other.
static uint32_t find_work(const PlanKernel *k, bool is_work[ADA_CHAIN_ARGS_MAX]) {
    uint32_t n = 0;
    for (uint32_t part = 0; part < MAX(k->n_parts, 1u); part++) {
        Template t;
        CHECK(template_find(k->n_parts ? k->parts[part].template_ : k->template_, &t));
        for (uint32_t i = 0; i < t.n_args; i++) is_work[n++] = str_is(t.args[i].type, "work");
    }
    return n;
}

// The launch with the work memory in its place.
static void launch(uint32_t kernel, void *const *args, uint32_t grid, void *work) {
    const DeviceSpec *k = &all.kernels[kernel];
    void *full[ADA_CHAIN_ARGS_MAX];
    bool is_work[ADA_CHAIN_ARGS_MAX];
    const uint32_t n_args = find_work(&k->kernel, is_work);
    Err e;
    for (uint32_t i = 0; i < n_args; i++) full[i] = is_work[i] ? work : args[i];
    DeviceLaunch l = {.kernel = all.loaded[kernel],
                      .name = k->line,
                      .grid = grid,
                      .threads = k->choice.threads,
                      .shared_bytes = k->choice.shared_bytes,
                      .args = full,
                      .n_args = n_args};
    if (!all.device->ops->launch(all.device, &l, &e)) check_fail("%s: %s", k->line, e.msg);
}

static void wait_for_device(const char *what) {
    Err e;
    if (!all.device->ops->sync(all.device, &e)) check_fail("%s: %s", what, e.msg);
}

void device_run_grid(uint32_t kernel, void *const *args, uint32_t n_args, uint32_t grid) {
    const DeviceSpec *k = &all.kernels[kernel];
    bool is_work[ADA_CHAIN_ARGS_MAX];
    CHECK(find_work(&k->kernel, is_work) == n_args);
    void *work = new_work(k->choice.work_bytes);
    launch(kernel, args, grid, work);
    wait_for_device(k->line);
    for (uint32_t i = 0; all.fence && i < all.n_buffers; i++) {
        check_fence(k->line, &all.buffers[i], false);
        check_fence(k->line, &all.buffers[i], true);
    }
    if (work) check_counters(k->line, work);
}

void device_run(uint32_t kernel, void *const *args, uint32_t n_args) {
    device_run_grid(kernel, args, n_args, all.kernels[kernel].choice.grid);
}

static double now_us(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

static int by_size(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double device_time_us(uint32_t kernel, void *(*args)[TEMPLATE_ARGS_MAX], uint32_t n) {
    enum { REPLAYS = 7 };
    const DeviceSpec *k = &all.kernels[kernel];
    const DeviceOps *ops = all.device->ops;
    void *work = new_work(k->choice.work_bytes);
    DeviceGraph *graph;
    Err e;
    double us[REPLAYS];
    if (!ops->capture_begin(all.device, &e)) check_fail("%s: %s", k->line, e.msg);
    for (uint32_t i = 0; i < n; i++) launch(kernel, args[i], k->choice.grid, work);
    if (!ops->capture_end(all.device, &graph, &e)) check_fail("%s: %s", k->line, e.msg);
    for (uint32_t i = 0; i < REPLAYS; i++) {
        double begin = now_us();
        if (!ops->replay(all.device, graph, &e)) check_fail("%s: %s", k->line, e.msg);
        wait_for_device(k->line);
        us[i] = (now_us() - begin) / n;
    }
    ops->graph_free(all.device, graph);
    qsort(us, REPLAYS, sizeof *us, by_size);
    return us[REPLAYS / 2];
}

// ---- main ----------------------------------------------------------------------------------------

int device_test_begin(void **state) {
    (void)state;
    return 0;
}

void device_drop_all(void) {
    while (all.n_buffers) drop_buffer(&all.buffers[all.n_buffers - 1]);
    arena_free(&all.test);
}

int device_test_end(void **state) {
    (void)state;
    device_drop_all();
    return 0;
}

typedef struct {
    const char *prepare, *kernels, *target, *filter;
    bool list, check;
} Options;

static Options read_options(int argc, char **argv) {
    Options o = {.target = "h100"};
    for (int i = 1; i < argc; i++) {
        bool more = i + 1 < argc;
        if (!strcmp(argv[i], "--prepare") && more)
            o.prepare = argv[++i];
        else if (!strcmp(argv[i], "--kernels") && more)
            o.kernels = argv[++i];
        else if (!strcmp(argv[i], "--target") && more)
            o.target = argv[++i];
        else if (!strcmp(argv[i], "--bare"))
            all.fence = 0;
        else if (!strcmp(argv[i], "--check"))
            o.check = true;
        else if (!strcmp(argv[i], "--list"))
            o.list = true;
        else
            o.filter = argv[i];
    }
    return o;
}

static int list(void) {
    StrBuf text = {0};
    print_kernels(&text);
    fputs(buf_cstr(&text), stdout);
    buf_free(&text);
    return 0;
}

static int run_all(const Options *o, const char *name, const struct CMUnitTest *tests, size_t n) {
    Err e;
    const char *path = o->kernels ? o->kernels : arena_printf(&all.arena, "build/device/%s.kernels", name);
    if (!device_open("cuda", 1, 0, &all.device, &e) || !load(path, &e)) return fail_with(&e);
    if (o->filter) cmocka_set_test_filter(o->filter);
    int failed = _cmocka_run_group_tests(name, tests, n, NULL, NULL);
    all.device->ops->close(all.device);
    return failed;
}

int device_main(void (*setup)(void), int argc, char **argv, const struct CMUnitTest *tests, size_t n) {
    setvbuf(stdout, NULL, _IOLBF, 0); // in order with stderr, and kept when a test ends the program
    Options o = read_options(argc, argv);
    Diags d = {.arena = &all.arena};
    all.target = target_find(str_of(o.target), SPAN_NONE, &d);
    if (!all.target) {
        diags_print(&d, argv[0], stderr);
        return 2;
    }
    const char *slash = strrchr(argv[0], '/');
    check_rerun(argv[0], o.filter ? o.filter : "");
    setup();
    int failed;
    if (o.list)
        failed = list();
    else if (o.check || o.prepare)
        failed = prepare(o.prepare);
    else
        failed = run_all(&o, slash ? slash + 1 : argv[0], tests, n);
    arena_free(&all.arena);
    return failed;
}
