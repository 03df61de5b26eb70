// adallmc quantize: a bf16 or fp16 checkpoint becomes a ModelOpt NVFP4 checkpoint (weights only).
#include <math.h>
#include <stdio.h>

#include "compiler/frontend/checkpoint_write.h"
#include "compiler/verbs/verbs.h"
#include "runtime/base/cli.h"
#include "runtime/base/log.h"
#include "runtime/base/num.h"

typedef struct {
    const char *checkpoint, *out, *method;
    uint64_t shard_mb;
    bool report;
    CliResult cli;
} Args;

static bool parse_args(Args *x, int argc, char **argv, Arena *a, Diags *d) {
    *x = (Args){.method = "max", .shard_mb = 5000};
    const Option options[] = {
        {"-o", OPT_STRING, "DIR", 0, 0, &x->out, NULL, "the folder to write; it must not exist or be empty"},
        {"--method", OPT_STRING, "max|mse", 0, 0, &x->method, NULL,
         "how block scales are chosen: max as ModelOpt's calibration does (default), or mse, the scale with "
         "the least squared error"},
        {"--shard-mb", OPT_UINT, "N", 1, 1e6, &x->shard_mb, NULL,
         "size of a weights file at most, in megabytes (default 5000)"},
        {"--report", OPT_FLAG, NULL, 0, 0, &x->report, NULL,
         "print the measured error of both methods for each kind of linear"},
    };
    const Command cmd = {
        "adallmc quantize CHECKPOINT -o DIR [options]",
        "Quantises the linears of a Hugging Face checkpoint (bf16, fp16 or fp32 safetensors) to NVFP4 and "
        "writes "
        "a checkpoint in ModelOpt's layout: packed weights, block scales and one global scale a linear. "
        "Embeddings, lm_head, norms and routers stay as they are. Activations are not quantised "
        "(W4A16_NVFP4).",
        options,
        COUNT_OF(options),
        1,
        1,
    };
    if (!cli_parse(&cmd, argc, argv, a, &x->cli, d)) return false;
    if (x->cli.help) return true;
    x->checkpoint = x->cli.args[0];
    if (!x->out) return diag_error(d, E_USAGE, SPAN_NONE, "adallmc quantize needs -o DIR");
    if (strcmp(x->method, "max") && strcmp(x->method, "mse"))
        return diag_error(d, E_OPTION_VALUE, SPAN_NONE, "--method must be max or mse, not `%s`", x->method);
    return true;
}

static bool wants_kind(void *kind, Str name) { return str_ends(name, *(const Str *)kind); }

static bool report(WeightSource *s, Pool *pool, Err *e) {
    static const Str kinds[] = {
        STR("q_proj.weight"),  STR("k_proj.weight"),    STR("v_proj.weight"),    STR("o_proj.weight"),
        STR("up_proj.weight"), STR("gate_proj.weight"), STR("down_proj.weight"),
    };
    double square = 0, square_max = 0, square_mse = 0;
    printf("%-10s %14s %10s %10s   relative error ||W - Wq|| / ||W||\n", "linear", "weights", "max", "mse");
    for (size_t i = 0; i < COUNT_OF(kinds); i++) {
        Str kind = kinds[i];
        QuantizeError q;
        if (!source_quantize_error(s, pool, wants_kind, &kind, &q, e)) return false;
        if (!q.weights) continue;
        printf("%-10.*s %14llu %10.5f %10.5f\n", (int)(kind.len - strlen(".weight")), kind.ptr,
               (unsigned long long)q.weights, q.rel_max, q.rel_mse);
        square += q.square;
        square_max += q.rel_max * q.rel_max * q.square, square_mse += q.rel_mse * q.rel_mse * q.square;
    }
    if (square > 0)
        printf("%-10s %14s %10.5f %10.5f\n", "all", "", sqrt(square_max / square), sqrt(square_mse / square));
    return true;
}

static bool quantize(const Args *x, const Checkpoint *c, Arena *a, Pool *pool, Diags *d) {
    double start = clock_s();
    if (checkpoint_is_quantized(c))
        return diag_error(d, E_QUANT_UNSUPPORTED, SPAN_NONE,
                          "%s is quantised already; quantize wants a bf16, fp16 or fp32 checkpoint", c->dir);
    QuantizePolicy policy = {.method = strcmp(x->method, "mse") ? QUANT_MAX : QUANT_MSE};
    WeightSource *s = source_checkpoint(a, c, &policy, d);
    CheckpointWritten out;
    if (!s || !checkpoint_write(a, c, s, x->out, x->shard_mb * 1000000, pool, &out, d)) return false;
    double seconds = clock_s() - start;
    printf("%s: %zu linears in NVFP4 (%s), %.1f MB in %zu file%s from %.1f MB, %.1f s, %.0f MB/s\n", x->out,
           out.n_linears, x->method, (double)out.bytes_out / 1e6, out.n_files, out.n_files == 1 ? "" : "s",
           (double)out.bytes_in / 1e6, seconds, (double)out.bytes_in / 1e6 / seconds);
    if (c->n_vision) printf("%zu vision tensors were copied unquantised\n", c->n_vision);
    Err e;
    return !x->report || report(s, pool, &e) || diag_err(d, SPAN_NONE, &e);
}

int verb_quantize(int argc, char **argv) {
    Arena arena = {0};
    Diags diags = {.arena = &arena};
    Args args;
    if (parse_args(&args, argc, argv, &arena, &diags) && !args.cli.help) {
        Checkpoint *c = checkpoint_open(&arena, args.checkpoint, &diags);
        if (c) {
            Pool *pool = pool_new(0);
            quantize(&args, c, &arena, pool, &diags);
            pool_free(pool);
        }
        diags_print(&diags, "adallmc", stderr);
        checkpoint_close(c);
    } else {
        diags_print(&diags, "adallmc", stderr);
    }
    int code = diags_exit_code(&diags);
    arena_free(&arena);
    return code;
}
