#include "runtime/verbs/open.h"

#include <string.h>

#include "runtime/base/log.h"

bool opened_open(Opened *o, const char *path, ArtifactDepth depth, uint64_t threads, Err *e) {
    const double begin = clock_s();
    *o = (Opened){.path = path, .pool = pool_new((unsigned)threads)};
    o->open = artifact_open(&o->artifact, path, ARTIFACT_STRUCTURE, o->pool, e);
    if (o->open && depth == ARTIFACT_ALL) o->leaves = leaves_begin(&o->artifact, o->pool);
    if (o->open && manifest_read(&o->artifact, &o->manifest, e)) {
        o->open_s = clock_s() - begin;
        return true;
    }
    opened_close(o);
    return false;
}

bool opened_verified(Opened *o, Err *e) {
    if (!o->leaves) return true;
    const double begin = clock_s();
    bool ok = leaves_end(o->leaves, false, &o->hash_s, e);
    o->leaves = NULL;
    o->wait_s = clock_s() - begin;
    return ok || err_context(e, "%s", o->path);
}

Exec *opened_exec(Opened *o, const ExecOptions *options, Err *e) {
    Err damage;
    Exec *x = exec_open(&o->artifact, options, e);
    if (opened_verified(o, &damage)) return x;
    exec_close(x);
    *e = damage; // whatever else went wrong may come of it
    return NULL;
}

void opened_close(Opened *o) {
    Err ignored;
    if (o->leaves) leaves_end(o->leaves, true, &o->hash_s, &ignored);
    if (o->open) artifact_close(&o->artifact);
    pool_free(o->pool);
    *o = (Opened){0};
}

Tokenizer *opened_tokenizer(Opened *o, Err *e) {
    Str s;
    if (!artifact_section(&o->artifact, ADA_TOKENIZER, 0, &s) || !s.len) {
        err_set(e, E_TOKENIZER, "this artifact was compiled without a tokenizer and takes ids only");
        return NULL;
    }
    return tokenizer_open(&o->artifact.arena, s.ptr, s.len, e);
}

ExecOptions run_exec_options(const Opened *o, const RunOptions *r, uint32_t seqs) {
    const char *driver = artifact_driver(&o->artifact);
    double share = strcmp(driver, "cuda") != 0 ? 0 : r->has_memory_share ? r->memory_share : 0.9;
    return (ExecOptions){.driver = driver,
                         .threads = (uint32_t)r->threads,
                         .seqs = seqs,
                         .kv_bytes_max = r->kv_bytes,
                         .memory_share = share,
                         .kv_dtype = r->kv_dtype,
                         .eager = r->eager};
}

int verb_on_artifact(const Command *cmd, int argc, char **argv, ArtifactDepth depth, const uint64_t *threads,
                     VerbRun *run, void *ctx) {
    Arena arena = {0};
    Diags d = {.arena = &arena};
    CliResult cli;
    if (cli_parse(cmd, argc, argv, &arena, &cli, &d) && !cli.help) {
        Opened o;
        Err e;
        if (!opened_open(&o, cli.args[0], depth, threads ? *threads : 1, &e)) {
            diag_err(&d, SPAN_NONE, &e);
        } else {
            run(&o, ctx, &arena, &d);
            opened_close(&o);
        }
    }
    diags_print(&d, "adallm-rt", stderr);
    int code = diags_exit_code(&d);
    arena_free(&arena);
    return code;
}

int verb_failed(const Err *e) {
    err_print("adallm-rt", e);
    return err_exit_code(e->code);
}
