// adallm-rt verify: every check there is, without running anything.
#include <stdio.h>

#include "runtime/base/cli.h"
#include "runtime/base/hash.h"
#include "runtime/base/log.h"
#include "runtime/base/num.h"
#include "runtime/text/chat.h"
#include "runtime/verbs/open.h"
#include "runtime/verbs/verbs.h"

static bool verify_json(Opened *o, AdaSectionKind kind, bool *present, Err *e) {
    Str text;
    *present = artifact_section(&o->artifact, kind, 0, &text);
    if (!*present) return true;
    Source src = {artifact_section_name(kind), text};
    Diags d = {.arena = &o->artifact.arena, .n_max = 1};
    if (json_parse(&o->artifact.arena, &src, (JsonLimits){.dup = JSON_DUP_REFUSE}, &d)) return true;
    return err_set(e, E_ARTIFACT, "%s section: %s", artifact_section_name(kind), diags_first_message(&d));
}

static bool verify_text(Opened *o, const char **words, Err *e) {
    Str s;
    *words = "no tokenizer";
    if (!artifact_section(&o->artifact, ADA_TOKENIZER, 0, &s) || !s.len) return true;
    *words = "tokenizer";
    if (!opened_tokenizer(o, e)) return err_context(e, "tokenizer section");
    if (!artifact_section(&o->artifact, ADA_CHAT, 0, &s)) return true;
    *words = "tokenizer and chat program";
    return chat_open(&o->artifact.arena, s.ptr, s.len, e) || err_context(e, "chat section");
}

static bool verify(Opened *o, Err *e) {
    const AdaPlan *p = o->artifact.plan;
    const char *words;
    bool explain;
    Selftest t;
    if (!opened_verified(o, e) || !verify_text(o, &words, e) || !verify_json(o, ADA_EXPLAIN, &explain, e))
        return false;
    printf("superblock       matches its SHA-256, format %u.%u\n", o->artifact.super->major,
           o->artifact.super->minor);
    printf("file             %llu bytes in %u sections, padding zero\n", (unsigned long long)o->artifact.size,
           o->artifact.super->n_sections);
    printf("hashes           all sections and leaves match, up to the Merkle root\n");
    printf("plan             %u buffers, %u kernels, %u launches, %u arguments, %u programs, %u weights of "
           "%u ranks in range\n",
           p->buffers.count, p->kernels.count, p->launches.count, p->args.count, p->programs.count,
           p->weights.count, p->n_ranks);
    printf("text             %s sound\n", words);
    printf("JSON             manifest%s well formed\n", explain ? " and explain" : "");
    if (artifact_selftest(&o->artifact, &t))
        printf("self-test        %u ids, %u columns (run it with `adallm-rt selftest`)\n", t.n_ids,
               t.n_columns);
    return true;
}

int verb_verify(int argc, char **argv) {
    Arena arena = {0};
    Diags d = {.arena = &arena};
    const Command cmd = {"adallm-rt verify X.ada",
                         "Checks every hash, offset, count and index of an artifact, and that each part can "
                         "be opened. Exit code 1 when\n"
                         "a single byte is wrong.",
                         NULL,
                         0,
                         1,
                         1};
    CliResult cli;
    Opened o;
    Err e;
    if (cli_parse(&cmd, argc, argv, &arena, &cli, &d) && !cli.help) {
        double begin = clock_s();
        if (!opened_open(&o, cli.args[0], ARTIFACT_ALL, 0, &e)) {
            diag_err(&d, SPAN_NONE, &e);
        } else {
            double mib = (double)o.artifact.size / (1 << 20), seconds = clock_s() - begin;
            if (!verify(&o, &e))
                diag_err(&d, SPAN_NONE, &e);
            else
                printf("sound            %.1f MiB in %.2f s\n", mib, seconds);
            opened_close(&o);
        }
    }
    diags_print(&d, "adallm-rt", stderr);
    int code = diags_exit_code(&d);
    arena_free(&arena);
    return code;
}
