#include "compiler/ir/graph.h"
#include "tests/unit/unit.h"

#define LAYER                                                                                                \
    "graph\n"                                                                                                \
    "weight @embed : bf16[64,32] = whole(model.embed_tokens.weight [64,32])\n"                               \
    "weight @qkv : nvfp4[64,32] =\n"                                                                         \
    "    rows/4(q.weight [32,32])\n"                                                                         \
    "    rows/2(k.weight [16,32])\n"                                                                         \
    "    rows/2(v.weight [16,32])\n"                                                                         \
    "weight @norm : f32[32] = whole(\"odd name\\0a\" [1,32]) add 1\n"                                        \
    "constant @inv_freq : f32[4] = {1, 0.1, 0.01, 1e-30}\n"                                                  \
    "%0 = input {name=ids} : i32[T]\n"                                                                       \
    "%1 = weight {name=embed} : bf16[64,32]\n"                                                               \
    "%2 = embed %1, %0 : f32[T,32]  ; models/families/qwen3.yaml:12\n"                                       \
    "%3 = weight {name=norm} : f32[32]  ; layer 0\n"                                                         \
    "%4 = rms_norm %2, %3 {eps=1e-06} : f32[T,32]  ; layer 0, models/families/qwen3.yaml:31\n"               \
    "%5 = weight {name=qkv} : nvfp4[64,32]\n"                                                                \
    "%6 = linear %4, %5 : f32[T,64]\n"                                                                       \
    "%7 = input {name=pos} : i32[T]\n"                                                                       \
    "%8 = weight {name=inv_freq} : f32[4]\n"                                                                 \
    "%9, %10 = rope_write %6, %7, %8 {heads=4, kv_heads=2, eps=0, factor=1, k_scale=0.1, v_scale=1, "        \
    "window=0} : f32[T,4,8], kv[T,2,8]\n"                                                                    \
    "%11 = paged_attention %9, %10, %7 {scale=0.3535533905932738, window=0, k_scale=0.1, v_scale=1, "        \
    "softcap=0} : f32[T,4,8]\n"                                                                              \
    "%12 = merge_heads %11 : f32[T,32]\n"                                                                    \
    "output %12 {name=logits}\n"

static Graph *parse(Arena *a, const char *text, Diags *d) {
    Source *src = ARENA_NEW(a, Source);
    *src = (Source){"test.ir", str_of(arena_strdup(a, text))};
    *d = (Diags){.arena = a};
    return graph_parse(a, src, d);
}

static void text_is_a_fixed_point(void **state) {
    (void)state;
    Arena a = {0};
    Diags d;
    Graph *g = parse(&a, LAYER, &d);
    if (!g) fail_msg("%s", diags_first_message(&d));
    StrBuf out = {0};
    graph_print(g, &out);
    assert_string_equal(buf_cstr(&out), LAYER);
    assert_int_equal(g->nodes[4].layer, 0);
    assert_string_equal(g->nodes[4].origin, "models/families/qwen3.yaml:31");
    assert_true(str_eq(node_weight(g, &g->nodes[3])->parts[0].tensor, STR("odd name\n")));
    buf_free(&out);
    arena_free(&a);
}

static void refuses(const char *text, ErrCode code, const char *message) {
    Arena a = {0};
    Diags d;
    assert_null(parse(&a, text, &d));
    if (!strstr(diags_first_message(&d), message)) fail_msg("got: %s", diags_first_message(&d));
    assert_int_equal(diags_first_code(&d), code);
    arena_free(&a);
}

#define IDS "graph\n%0 = input {name=ids} : i32[T]\n"
#define X8                                                                                                   \
    IDS "weight @e : f32[4,8] = whole(e [4,8])\n%1 = weight {name=e} : f32[4,8]\n%2 = embed %1, %0 : "       \
        "f32[T,8]\n"

static void bad_text_is_refused(void **state) {
    (void)state;
    refuses("", E_IR_SYNTAX, "the text ends where `graph`");
    refuses("graph ranks 0", E_IR_SYNTAX, "positive number of ranks");
    refuses("graph ranks 99999", E_IR_SYNTAX, "too large");
    refuses("graph\n%0 = lineer", E_IR_INVALID, "unknown op `lineer`");
    refuses("graph\n%0 = input {nam=ids} : i32[T]", E_IR_INVALID, "`input` has no attribute `nam`");
    refuses("graph\n%0 = input {name=idz} : i32[T]", E_IR_INVALID, "unknown `name` `idz`");
    refuses("graph\n%0 = input : i32[T]", E_IR_INVALID, "lacks its attribute `name`");
    refuses("graph\n%0 = input {name=ids} : i32[R]", E_IR_INVALID, "result 1 is i32[T]");
    refuses("graph\n%0 = input {name=ids} : i64[T]", E_IR_SYNTAX, "where a type should");
    refuses("graph\n%0 = input {name=ids} : i32[0]", E_IR_SYNTAX, "positive dimension");
    refuses("graph\n%0 = input {name=\"ids", E_IR_SYNTAX, "does not end on its line");
    refuses("graph\n%0 = weight {name=w} : f32[1]", E_IR_INVALID, "no weight is called `w`");
    refuses(IDS "%0 = input {name=ids} : i32[T]", E_IR_INVALID, "must ascend");
    refuses(IDS "%1 = scale %7 {by=2} : f32[T]", E_IR_INVALID, "%7 is not defined");
    refuses(IDS "%1 = scale %0 {by=2} : f32[T]", E_IR_INVALID, "input 1 is i32[T]");
    refuses(IDS "input {name=pos}", E_IR_INVALID, "has 1 results, not 0");
    refuses(X8 "%3 = split_heads %2 {heads=3} : f32[T,3,2]", E_IR_INVALID, "a divisor of 8");
    refuses(X8 "%3 = linear %2, %1, %1, %1 : f32[T,4]", E_IR_INVALID, "takes 2 to 3");
    refuses(X8 "%3 = add %2, %1 : f32[T,8]", E_IR_INVALID, "input 2 is f32[4,8]");
    refuses("graph weight @w : f32[4] = whole(w [1,5])", E_IR_INVALID, "the parts have 5 rows");
    refuses("graph weight @w : f32[4,4] = whole(w [4,5])", E_IR_INVALID, "does not stack up");
    refuses("graph weight @w : nvfp4[4,8] = whole(w [4,8])", E_IR_INVALID, "blocks of 16");
    refuses("graph weight @w : f32[4] = whole(w [1,4]) weight @w : f32[4] = whole(w [1,4])", E_IR_INVALID,
            "two weights are called `w`");
    refuses("graph ranks 3 weight @w : f32[4,4] = rows(w [4,4])", E_IR_INVALID, "does not divide over 3");
    refuses("graph constant @c : f32[2] = {1}", E_IR_SYNTAX, "as many values");
    refuses("graph constant @c : f32[2] = {1, nan}", E_IR_SYNTAX, "finite number");
}

static void the_builder_refuses(void **state) {
    (void)state;
    Arena a = {0};
    Diags d = {.arena = &a};
    Graph *g = graph_new(&a);
    Attr name = {.key = "name", .kind = ATTR_NAME, .name = "ids"},
         by = {.key = "by", .kind = ATTR_INT, .i = 2};
    assert_int_equal(graph_add(g, OP_input, NULL, 0, &name, 1, -1, "t", SPAN_NONE, &d), 0);
    ValueId missing = 5;
    assert_int_equal(graph_add(g, OP_silu, &missing, 1, NULL, 0, -1, "t", SPAN_NONE, &d), NO_ID);
    assert_string_equal(diags_first_message(&d), "`silu`: input 1 is no value of this graph");
    ValueId ids = 0;
    assert_int_equal(graph_add(g, OP_scale, &ids, 1, &name, 1, -1, "t", SPAN_NONE, &d), NO_ID);
    assert_int_equal(graph_add(g, OP_input, NULL, 0, &by, 1, -1, "t", SPAN_NONE, &d), NO_ID);
    assert_int_equal(d.n_errors, 3);
    assert_int_equal(g->n_nodes, 1);
    assert_true(graph_verify(g, &d) && d.n_errors == 3);
    g->values[0].type.dim[0] = 4;
    assert_false(graph_verify(g, &d));
    arena_free(&a);
}

static void slices_of_parts(void **state) {
    (void)state;
    PartSlice s;
    WeightPart q = {STR("q"), 32, 16, SHARD_ROWS, 4}, kv = {STR("k"), 16, 16, SHARD_ROWS, 2},
               down = {STR("d"), 8, 32, SHARD_COLS, 0}, bias = {STR("b"), 1, 32, SHARD_ROWS, 4};
    assert_true(part_slice(&q, 1, 2, &s) && s.row == 16 && s.rows == 16 && s.col == 0 && s.cols == 16);
    assert_true(part_slice(&kv, 3, 4, &s) && s.row == 8 && s.rows == 8);
    assert_true(part_slice(&kv, 1, 4, &s) && s.row == 0 && s.rows == 8);
    assert_false(part_slice(&kv, 0, 3, &s));
    assert_true(part_slice(&down, 3, 4, &s) && s.rows == 8 && s.col == 24 && s.cols == 8);
    assert_true(part_slice(&bias, 1, 4, &s) && s.row == 0 && s.rows == 1 && s.col == 8 && s.cols == 8);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(text_is_a_fixed_point), cmocka_unit_test(bad_text_is_refused),
        cmocka_unit_test(the_builder_refuses), cmocka_unit_test(slices_of_parts)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
