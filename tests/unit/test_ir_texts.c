// tests/ir/*.ir: an IR text, a pass, and what the pass makes of it, in one file each:
//
//     # pass: fuse                    (or: fold, shard; plan: all plan passes)
//     # options: ranks 2 context 64 batch 1 chunk 4 target h100
//     graph ...
//     # expect:
//     graph ...                       (or: error E0604: words of the message)
//
// What a pass really made is printed when it differs; ADALLM_IR_UPDATE=1 writes it into the file (read the
// difference before it is committed). A graph after a pass must also compute what it computed before: both
// are evaluated with the same random weights.
#include <dirent.h>
#include <math.h>
#include <stdlib.h>

#include "compiler/ir/eval.h"
#include "compiler/passes/pass.h"
#include "compiler/targets/target.h"
#include "runtime/base/file.h"
#include "runtime/base/num.h"
#include "tests/unit/unit.h"

typedef struct {
    const char *path;
    Str text, input, expect, pass;
    uint32_t ranks, context, batch, chunk;
    Str target;
} Case;

static Str line_after(Str text, const char *mark) {
    const char *at = memmem(text.ptr, text.len, mark, strlen(mark));
    if (!at) return (Str){"", 0};
    Str rest = str_from(text, (size_t)(at - text.ptr) + strlen(mark));
    const char *end = memchr(rest.ptr, '\n', rest.len);
    return str_sub(rest, 0, end ? (size_t)(end - rest.ptr) : rest.len);
}

static uint32_t option(Str options, const char *key, uint32_t otherwise) {
    char word[32];
    snprintf(word, sizeof word, " %s ", key);
    const char *at = memmem(options.ptr, options.len, word, strlen(word));
    return at ? (uint32_t)strtoul(at + strlen(word), NULL, 10) : otherwise;
}

static Str word_option(Str options, const char *key, const char *otherwise) {
    char word[32];
    snprintf(word, sizeof word, " %s ", key);
    const char *at = memmem(options.ptr, options.len, word, strlen(word));
    if (!at) return str_of(otherwise);
    Str rest = str_from(options, (size_t)(at - options.ptr) + strlen(word));
    const char *end = memchr(rest.ptr, ' ', rest.len);
    return str_sub(rest, 0, end ? (size_t)(end - rest.ptr) : rest.len);
}

static Case read_case(Arena *a, const char *path) {
    Case c = {.path = path};
    Err e;
    if (!file_read(a, path, 1 << 20, &c.text, &e)) fail_msg("%s", e.msg);
    static const char mark[] = "# expect:\n";
    const char *at = memmem(c.text.ptr, c.text.len, mark, strlen(mark));
    if (!at) fail_msg("%s has no line `# expect:`", path);
    c.input = str_sub(c.text, 0, (size_t)(at - c.text.ptr));
    c.expect = str_from(c.text, c.input.len + strlen(mark));
    c.pass = line_after(c.text, "# pass: ");
    Str options = line_after(c.text, "# options:");
    c.ranks = option(options, "ranks", 1), c.context = option(options, "context", 64);
    c.batch = option(options, "batch", 1), c.chunk = option(options, "chunk", 4);
    c.target = word_option(options, "target", "host");
    return c;
}

static Graph *graph_pass(Graph *g, Str pass, const PassContext *c, Diags *d) {
    if (str_is(pass, "fold")) return pass_fold(g, c, d);
    if (str_is(pass, "shard")) return pass_shard(g, c, d);
    if (str_is(pass, "fuse")) return pass_fuse(g, c, d);
    fail_msg("no pass is called `" STR_FMT "`", STR_ARG(pass));
    return NULL;
}

static void declare_weights(WeightSource *s, const Graph *g) {
    static const WeightFormat formats[] = {
        [DT_F32] = WF_F32, [DT_F16] = WF_F16, [DT_BF16] = WF_BF16, [DT_NVFP4] = WF_NVFP4};
    for (uint32_t i = 0; i < g->n_weights; i++) {
        const Weight *w = &g->weights[i];
        bool vector = w->type.rank == 1;
        for (uint32_t k = 0; k < w->n_parts; k++) {
            uint64_t shape[2] = {vector ? w->parts[k].cols : w->parts[k].rows, w->parts[k].cols};
            source_random_declare(s, w->parts[k].tensor, formats[w->type.dtype], vector ? 1 : 2, shape,
                                  vector ? RANDOM_NORM_ONE : RANDOM_LINEAR);
        }
    }
}

static void check_results(Arena *a, const Graph *before, const Graph *after, const char *path) {
    static const int32_t ids[] = {3, 1, 4, 1, 5, 7, 2};
    enum { N_IDS = COUNT_OF(ids) };
    WeightSource *s = source_random(a, 7);
    uint32_t n = eval_vocab(before) * N_IDS;
    Pool *pool = pool_new(2);
    Err e = {0};
    double error = 0, size = 0;
    float *x = ARENA_ARRAY(a, float, n), *y = ARENA_ARRAY(a, float, n);
    declare_weights(s, before);
    if (eval_vocab(after) != eval_vocab(before) ||
        !eval_graph(before, s, pool, ids, N_IDS, EVAL_EXACT, x, &e) ||
        !eval_graph(after, s, pool, ids, N_IDS, EVAL_EXACT, y, &e))
        fail_msg("%s: cannot be evaluated: %s", path, e.msg);
    for (uint32_t i = 0; i < n; i++) {
        error += pow((double)x[i] - (double)y[i], 2);
        size += pow((double)x[i], 2);
    }
    pool_free(pool);
    if (!(error <= 1e-10 * size)) fail_msg("%s: the result differs by %g", path, sqrt(error / size));
}

static void put_error(const Diags *d, StrBuf *out) {
    buf_printf(out, "error E%04d: %s\n", diags_first_code(d), diags_first_message(d));
}

static void run_pass(Arena *a, const Case *k, StrBuf *out) {
    Diags d = {.arena = a};
    Source src = {k->path, k->input};
    PassContext c = {.arena = a,
                     .target = target_find(k->target, SPAN_NONE, &d),
                     .n_ranks = k->ranks,
                     .context = k->context,
                     .buckets = &k->batch,
                     .n_buckets = 1,
                     .prefill_tokens = k->chunk};
    Graph *g = graph_parse(a, &src, &d);
    if (!g || !graph_verify(g, &d)) fail_msg("%s: %s", k->path, diags_first_message(&d));
    if (str_is(k->pass, "plan")) {
        Plan *p = passes_run_plan(g, &c, &d);
        if (p)
            plan_print(p, out);
        else
            put_error(&d, out);
        return;
    }
    const Graph *before = g;
    g = graph_pass(g, k->pass, &c, &d);
    if (!g || !graph_verify(g, &d)) {
        put_error(&d, out);
        return;
    }
    graph_print(g, out);
    check_results(a, before, g, k->path);
}

static void check_case(const char *path) {
    Arena a = {0};
    Case k = read_case(&a, path);
    StrBuf out = {0};
    run_pass(&a, &k, &out);
    bool same = str_eq(buf_view(&out), k.expect);
    if (!same)
        fprintf(stderr, "# %s: pass " STR_FMT " makes\n%s# end\n", path, STR_ARG(k.pass), buf_cstr(&out));
    if (!same && getenv("ADALLM_IR_UPDATE")) {
        FILE *f = fopen(path, "wb");
        fprintf(f, STR_FMT "%s", (int)(k.expect.ptr - k.text.ptr), k.text.ptr, buf_cstr(&out));
        fclose(f);
    }
    assert_true(same);
    buf_free(&out);
    arena_free(&a);
}

static int is_ir(const struct dirent *e) { return str_ends(str_of(e->d_name), STR(".ir")); }

static void every_text_is_as_expected(void **state) {
    (void)state;
    struct dirent **files;
    int n = scandir("tests/ir", &files, is_ir, alphasort);
    assert_true(n > 0);
    for (int i = 0; i < n; i++) {
        char path[512];
        snprintf(path, sizeof path, "tests/ir/%s", files[i]->d_name);
        check_case(path);
        free(files[i]);
    }
    free(files);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_text_is_as_expected)};
    return cmocka_run_group_tests_name("tests/ir", tests, NULL, NULL);
}
