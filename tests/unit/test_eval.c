// The evaluator's functions against values worked out by hand, its errors, and the reader of ids files.
#include <math.h>

#include "compiler/ir/eval.h"
#include "runtime/base/ids.h"
#include "runtime/base/num.h"
#include "tests/unit/unit.h"

enum { VALUES_MAX = 256 };

typedef struct {
    Arena arena;
    Pool *pool;
    WeightSource *source;
    Err err;
    float logits[VALUES_MAX];
} Bench;

static void begin(Bench *b) {
    *b = (Bench){.pool = pool_new(2)};
    b->source = source_random(&b->arena, 1);
}

static void end(Bench *b) {
    pool_free(b->pool);
    arena_free(&b->arena);
}

static bool eval(Bench *b, const char *text, const int32_t *ids, uint32_t n) {
    Source src = {"test.ir", str_of(text)};
    Diags d = {.arena = &b->arena};
    Graph *g = graph_parse(&b->arena, &src, &d);
    if (!g) fail_msg("%s", diags_first_message(&d));
    assert_true(n * eval_vocab(g) <= VALUES_MAX);
    return eval_graph(g, b->source, b->pool, ids, n, EVAL_EXACT, b->logits, &b->err);
}

static void expect(const char *text, uint32_t n_tok, const float *want, size_t n) {
    static const int32_t ids[] = {0, 1, 2, 3};
    Bench b;
    begin(&b);
    if (!eval(&b, text, ids, n_tok)) fail_msg("%s", b.err.msg);
    for (size_t i = 0; i < n; i++)
        if (fabsf(b.logits[i] - want[i]) > 1e-6f * fmaxf(1, fabsf(want[i])))
            fail_msg("value %zu is %g, not %g", i, (double)b.logits[i], (double)want[i]);
    end(&b);
}

// A table whose row t is x[t]; %2 is x.
#define X(type, out, values)                                                                                 \
    "graph\nconstant @x : f32[" type "] = {" values "}\n%0 = input {name=ids} : i32[T]\n"                    \
    "%1 = weight {name=x} : f32[" type "]\n%2 = embed %1, %0 : f32[T," out "]\n"
#define EXPECT(text, n_tok, ...)                                                                             \
    expect(text, n_tok, (const float[]){__VA_ARGS__}, COUNT_OF(((const float[]){__VA_ARGS__})))

static void dense_ops(void **state) {
    (void)state;
    EXPECT(X("2,2", "2", "3, 4, -6, 8") "constant @w : f32[2] = {1, 2}\n%3 = weight {name=w} : f32[2]\n"
                                        "%4 = rms_norm %2, %3 {eps=0} : f32[T,2]\noutput %4 {name=logits}",
           2, 0.84852814f, 2.2627417f, -0.84852814f, 2.2627417f);
    EXPECT(X("1,2", "2",
             "3, 4") "constant @w : f32[3,2] = {1, 0, 0, 1, 2, -1}\nconstant @b : f32[3] = {0.5, 0, 10}\n"
                     "%3 = weight {name=w} : f32[3,2]\n%4 = weight {name=b} : f32[3]\n"
                     "%5 = linear %2, %3, %4 : f32[T,3]\noutput %5 {name=logits}",
           1, 3.5f, 4, 12);
    EXPECT(X("1,2", "2", "1, -2") "%3 = silu %2 : f32[T,2]\noutput %3 {name=logits}", 1, 0.73105858f,
           -0.23840584f);
    EXPECT(X("1,2", "2", "1, -2") "%3 = gelu_tanh %2 : f32[T,2]\noutput %3 {name=logits}", 1, 0.84119199f,
           -0.04540229f);
    EXPECT(X("1,2", "2", "1, 300") "%3 = softcap %2 {cap=30} : f32[T,2]\noutput %3 {name=logits}", 1,
           0.99963002f, 30);
    EXPECT(X("1,4", "4", "1, -2, 5, 7") "%3 = act_mul %2 {act=silu} : f32[T,2]\noutput %3 {name=logits}", 1,
           3.6552929f, -1.6688409f);
    // 100 and 3.1 between two codes, at the second row's scale of 2^-6 a subnormal one; zeros stay zeros.
    EXPECT(X("3,4", "4",
             "448, 100, 1, -3.1, 7, 3.3, -0.1, 0.0001, 0, 0, 0, 0") "%3 = quantize_rows %2 : "
                                                                    "f32[T,4]\noutput %3 {name=logits}",
           3, 448, 96, 1, -3, 7, 3.25f, -0.1015625f, 0x3p-15f, 0, 0, 0, 0);
    EXPECT(X("1,2", "2", "1, 2") "%3 = join %2, %2 : f32[T,4]\noutput %3 {name=logits}", 1, 1, 2, 1, 2);
}

// One head of four; position 1 turns (1, 0) by one radian, and (0, 1) by half of one.
static void rope_turns_halves(void **state) {
    (void)state;
    EXPECT(X("2,4", "4", "1, 0, 0, 1, 1, 0, 0, 1") "constant @f : f32[2] = {1, 0.5}\n%3 = input {name=pos} : "
                                                   "i32[T]\n%4 = weight {name=f} : f32[2]\n"
                                                   "%5 = split_heads %2 {heads=1} : f32[T,1,4]\n%6 = rope "
                                                   "%5, %3, %4 {factor=2} : f32[T,1,4]\n"
                                                   "%7 = merge_heads %6 : f32[T,4]\noutput %7 {name=logits}",
           2, 2, 0, 0, 2, 1.0806046f, -0.95885108f, 1.6829420f, 1.7551651f);
}

// Equal scores: the answer is the mean of the values that are seen.
#define MEAN(window)                                                                                         \
    X("4,2", "2", "0, 1, 0, 3, 0, 8, 0, 4")                                                                  \
    "constant @z : f32[2,2] = {1, 0, 0, 0}\n%3 = weight {name=z} : f32[2,2]\n%4 = linear %2, %3 : "          \
    "f32[T,2]\n"                                                                                             \
    "%5 = input {name=pos} : i32[T]\n%6 = split_heads %4 {heads=1} : f32[T,1,2]\n"                           \
    "%7 = split_heads %2 {heads=1} : f32[T,1,2]\n"                                                           \
    "%8 = attention %6, %6, %7, %5 {scale=1, window=" window ", k_scale=1, v_scale=1, softcap=0} : "         \
    "f32[T,1,2]\n%9 = merge_heads %8 : f32[T,2]\noutput %9 {name=logits}"

static void a_window_counts_the_query(void **state) {
    (void)state;
    EXPECT(MEAN("0"), 4, 0, 1, 0, 2, 0, 4, 0, 4);
    EXPECT(MEAN("2"), 4, 0, 1, 0, 2, 0, 5.5f, 0, 6);
    EXPECT(MEAN("1"), 4, 0, 1, 0, 3, 0, 8, 0, 4);
}

// Logits 0, ln 3, 0, ln 3: ids 1 and 3; softmax 1/8, 3/8, 1/8, 3/8. Expert e multiplies by e + 1.
#define ROUTE(norm, k)                                                                                       \
    X("1,4", "4", "0, 1.0986123, 0, 1.0986123")                                                              \
    "constant @w : f32[4,1,4] = {0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4, 0, 0}\n"                          \
    "%3 = weight {name=w} : f32[4,1,4]\n%4 = route_ids %2 {k=" k "} : i32[T," k "]\n"                        \
    "%5 = route_weights %2, %4 {norm=" norm "} : f32[T," k "]\n"                                             \
    "%6 = expert_linear %2, %3, %4 : f32[T," k                                                               \
    ",1]\n%7 = combine %6, %5 : f32[T,1]\noutput %7 {name=logits}"

static void routing(void **state) {
    (void)state;
    float x = 1.0986123f;
    EXPECT(ROUTE("0", "1"), 1, 0.375f * 2 * x);
    EXPECT(ROUTE("1", "1"), 1, 2 * x);
    EXPECT(ROUTE("0", "2"), 1, 0.375f * (2 + 4) * x);
    EXPECT(ROUTE("1", "2"), 1, 0.5f * (2 + 4) * x);
    EXPECT(ROUTE("0", "3"), 1, (0.375f * (2 + 4) + 0.125f) * x); // of equal logits the lowest index
}

static void errors_name_what_is_wrong(void **state) {
    (void)state;
    static const char head[] =
        "graph\nweight @w : f32[4,16] = whole(w [4,16])\n%0 = input {name=ids} : i32[T]\n"
        "%1 = weight {name=w} : f32[4,16]\n%2 = embed %1, %0 : f32[T,16]\n";
    const int32_t ids[] = {3, 4};
    Bench b;
    begin(&b);
    const char *text = arena_printf(&b.arena, "%soutput %%2 {name=logits}", head);
    assert_false(eval(&b, head, ids, 1));
    assert_string_equal(b.err.msg, "the graph has no output");
    assert_false(eval(&b, text, ids, 1));
    assert_int_equal(b.err.code, E_TENSOR_MISSING);
    source_random_declare(b.source, STR("w"), WF_F32, 2, (uint64_t[]){4, 16}, RANDOM_LINEAR);
    assert_true(eval(&b, text, ids, 1));
    assert_true(eval(&b, text, ids, 0));
    assert_false(eval(&b, text, ids, 2));
    assert_int_equal(b.err.code, E_IDS);
    source_random_declare(b.source, STR("w"), WF_F32, 2, (uint64_t[]){5, 16}, RANDOM_LINEAR);
    assert_false(eval(&b, text, ids, 1));
    assert_int_equal(b.err.code, E_TENSOR_SHAPE);
    end(&b);
}

// ---- ids files -----------------------------------------------------------------------------------------

static bool read_ids(Arena *a, const char *text, IdsFile *out, Diags *d) {
    *out = (IdsFile){.source = {"ids.txt", str_of(text)}};
    *d = (Diags){.arena = a};
    return ids_parse(a, 100, 4, out, d);
}

static void ids_are_read(void **state) {
    (void)state;
    Arena a = {0};
    IdsFile f;
    Diags d;
    assert_true(read_ids(&a, "1 2,3\r\n\n  \t\n99, 0\n7", &f, &d));
    assert_int_equal(f.n_sequences, 3);
    assert_int_equal(f.n_total, 6);
    assert_int_equal(f.sequences[0].n, 3);
    assert_int_equal(f.sequences[0].ids[2], 3);
    assert_int_equal(f.sequences[1].ids[0], 99);
    assert_int_equal(f.sequences[2].ids[0], 7);
    arena_free(&a);
}

static void bad_ids_are_located(void **state) {
    (void)state;
    static const struct {
        const char *text, *message;
        ErrCode code;
    } bad[] = {{"", "holds no token ids", E_IDS},
               {" \n\n", "holds no token ids", E_IDS},
               {"1 two 3", "`two` is not a token id", E_IDS},
               {"1\n2 -7", "token id -7 is negative", E_IDS},
               {"100", "token id 100 is outside the vocabulary: ids go from 0 to 99", E_IDS},
               {"99999999999999999999999", "outside the vocabulary", E_IDS},
               {"1.5", "`1.5` is not a token id", E_IDS},
               {"1 2 3 4 5", "has 5 ids, but the context holds 4", E_CONTEXT}};
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        Arena a = {0};
        IdsFile f;
        Diags d;
        assert_false(read_ids(&a, bad[i].text, &f, &d));
        assert_int_equal(diags_first_code(&d), bad[i].code);
        if (!strstr(diags_first_message(&d), bad[i].message)) fail_msg("got: %s", diags_first_message(&d));
        arena_free(&a);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(dense_ops),
                                       cmocka_unit_test(rope_turns_halves),
                                       cmocka_unit_test(a_window_counts_the_query),
                                       cmocka_unit_test(routing),
                                       cmocka_unit_test(errors_name_what_is_wrong),
                                       cmocka_unit_test(ids_are_read),
                                       cmocka_unit_test(bad_ids_are_located)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
