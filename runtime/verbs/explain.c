// adallm-rt explain: what the compiler decided - memory, kernels, programs, launches - as text.
#include <stdio.h>

#include "runtime/base/cli.h"
#include "runtime/base/num.h"
#include "runtime/verbs/open.h"
#include "runtime/verbs/verbs.h"

enum { TIMELINE_COLUMNS = 40 };

static double mib(uint64_t bytes) { return (double)bytes / (1 << 20); }

static const char *program_name(uint32_t kind) {
    static const char *const names[ADA_PROGRAM_KINDS] = {"?", "body", "head", "sample", "advance"};
    return names[kind];
}

static void explain_memory(const Artifact *a) {
    const AdaPlan *p = a->plan;
    uint64_t state = 0;
    for (uint32_t i = 0; i < p->buffers.count; i++)
        if (a->buffers[i].space == ADA_SPACE_STATE) state += a->buffers[i].bytes;
    printf("memory of each rank (%u ranks)\n", p->n_ranks);
    printf("  weights    %12.2f MiB  all ranks together\n", mib(a->weight_bytes));
    printf("  scratch    %12.2f MiB  one arena, reused by every program\n", mib(p->scratch_bytes));
    printf("  state      %12.2f MiB\n", mib(state));
    for (uint32_t g = 0; g < p->n_kv_groups; g++) {
        const AdaKvGroup *k = &p->kv[g];
        printf("  KV group %u %12.2f MiB  for a sequence: %u pages of %u tokens, %u layers, ", g,
               mib(k->page_bytes * k->pages_per_seq), k->pages_per_seq, p->page_tokens, k->n_layers);
        if (k->window)
            printf("window %u\n", k->window);
        else
            printf("full attention\n");
    }
    printf("\nstate buffers\n");
    for (uint32_t i = 0; i < p->buffers.count; i++)
        if (a->buffers[i].space == ADA_SPACE_STATE)
            printf("  %-24s %-12s %14llu bytes\n", artifact_string(a, a->buffers[i].name),
                   artifact_role_name(a->buffers[i].role), (unsigned long long)a->buffers[i].bytes);
}

static void explain_kernels(const Artifact *a) {
    printf("\nkernels\n");
    for (uint32_t i = 0; i < a->plan->kernels.count; i++) {
        const AdaKernel *k = &a->kernels[i];
        uint32_t uses = 0;
        for (uint32_t j = 0; j < a->plan->launches.count; j++)
            uses += a->launches[j].kind == ADA_LAUNCH_KERNEL && a->launches[j].kernel == i;
        for (uint32_t j = 0; j < a->plan->chains.count; j++) uses += a->chains[j].kernel == i;
        printf("  %s\n      %s: %s; %u launches, %u threads, %llu bytes shared\n",
               artifact_string(a, k->name), artifact_string(a, k->template_), artifact_string(a, k->spec),
               uses, k->threads, (unsigned long long)k->shared_bytes);
    }
}

static const char *launch_name(const Artifact *a, const AdaLaunch *l) {
    if (l->kind == ADA_LAUNCH_ALL_REDUCE) return "all_reduce";
    if (l->kind == ADA_LAUNCH_ALL_GATHER) return "all_gather";
    return artifact_string(a, a->kernels[l->kernel].name);
}

// Where the buffer lies in the arena and which launches of the program it outlives.
static void explain_buffers(const Artifact *a, uint32_t program) {
    uint32_t n = MAX(a->programs[program].n_launches, 1);
    bool any = false;
    for (uint32_t i = 0; i < a->plan->buffers.count; i++) {
        const AdaBuffer *b = &a->buffers[i];
        if (b->space != ADA_SPACE_SCRATCH || (b->program != program && b->program != UINT32_MAX)) continue;
        if (!any) printf("  %-20s %12s %12s  launches\n", "scratch over time", "offset", "bytes");
        any = true;
        char line[TIMELINE_COLUMNS + 1];
        for (uint32_t c = 0; c < TIMELINE_COLUMNS; c++) {
            uint64_t from = (uint64_t)c * n / TIMELINE_COLUMNS,
                     to = MAX((uint64_t)(c + 1) * n / TIMELINE_COLUMNS, from + 1);
            line[c] = b->first_launch < to && from <= b->last_launch ? '#' : '.';
        }
        line[TIMELINE_COLUMNS] = '\0';
        printf("  %-20s %12llu %12llu  %s %u-%u\n", artifact_string(a, b->name),
               (unsigned long long)b->offset, (unsigned long long)b->bytes, line, b->first_launch,
               b->last_launch);
    }
}

// What a step runs as one where it does not run `--enforce-eager`.
static void explain_chains(const Artifact *a, const AdaProgram *p) {
    bool any = false;
    for (uint32_t i = 0; i < a->plan->chains.count; i++) {
        const AdaChain *c = &a->chains[i];
        if (c->first_launch < p->first_launch || c->first_launch - p->first_launch >= p->n_launches) continue;
        if (!any)
            printf("  %4s %-44s %7s %12s %12s %12s %10s\n", "", "launches as one", "grid", "first",
                   "launches", "blocks wait", "us");
        any = true;
        printf("  %4s %-44s %7u %12u %12u %12s %10.2f\n", "", artifact_string(a, a->kernels[c->kernel].name),
               c->grid, c->first_launch - p->first_launch, c->n_launches, c->together ? "yes" : "no",
               (double)c->predicted_us);
    }
}

static void explain_program(const Artifact *a, uint32_t i) {
    const AdaProgram *p = &a->programs[i];
    double us = 0, read = 0, written = 0;
    for (uint32_t j = 0; j < p->n_launches; j++) {
        const AdaLaunch *l = &a->launches[p->first_launch + j];
        us += (double)l->predicted_us, read += (double)l->bytes_read, written += (double)l->bytes_written;
    }
    printf("\nprogram %u: %s, up to %u %s: %u launches, %.3f MB read, %.3f MB written, predicted %.1f us\n",
           i, program_name(p->kind), p->bucket, p->kind == ADA_PROGRAM_BODY ? "tokens" : "rows",
           p->n_launches, read / 1e6, written / 1e6, us);
    explain_buffers(a, i);
    printf("  %4s %-44s %7s %12s %12s %12s %10s  origin\n", "", "launch", "grid", "read", "written", "flops",
           "us");
    for (uint32_t j = 0; j < p->n_launches; j++) {
        const AdaLaunch *l = &a->launches[p->first_launch + j];
        printf("  %4u %-44s %7u %12llu %12llu %12llu %10.2f  %s\n", j, launch_name(a, l), l->grid,
               (unsigned long long)l->bytes_read, (unsigned long long)l->bytes_written,
               (unsigned long long)l->flops, (double)l->predicted_us, artifact_string(a, l->origin));
    }
    explain_chains(a, p);
}

static bool explain_rejected(Opened *o, Err *e) {
    Str text;
    if (!artifact_section(&o->artifact, ADA_EXPLAIN, 0, &text)) return true;
    Source src = {"explain", text};
    Diags d = {.arena = &o->artifact.arena, .n_max = 1};
    const Json *j = json_parse(&o->artifact.arena, &src, (JsonLimits){.dup = JSON_DUP_REFUSE}, &d);
    if (!j) return err_set(e, E_ARTIFACT, "explain section: %s", diags_first_message(&d));
    const Json *list = json_get(j, "rejected");
    if (!json_is(list, JSON_ARRAY)) return true;
    printf("\nconsidered and not taken\n");
    for (uint32_t i = 0; i < list->n; i++) {
        const Json *what = json_get(&list->items[i], "what"), *reason = json_get(&list->items[i], "reason");
        if (json_is(what, JSON_STRING) && json_is(reason, JSON_STRING))
            printf("  " STR_FMT "\n      " STR_FMT "\n", STR_ARG(what->s), STR_ARG(reason->s));
    }
    return true;
}

static bool explain(Opened *o, bool json, Err *e) {
    Str text;
    if (json) {
        if (!artifact_section(&o->artifact, ADA_EXPLAIN, 0, &text))
            return err_set(e, E_ARTIFACT, "this artifact has no explain section");
        fwrite(text.ptr, 1, text.len, stdout);
        return true;
    }
    printf("%s for %s, compiled by adallmc %s\n\n", o->artifact.super->model, o->artifact.super->target,
           o->artifact.super->compiler);
    explain_memory(&o->artifact);
    explain_kernels(&o->artifact);
    for (uint32_t i = 0; i < o->artifact.plan->programs.count; i++) explain_program(&o->artifact, i);
    return explain_rejected(o, e);
}

static bool run(Opened *o, void *json, Arena *a, Diags *d) {
    (void)a;
    Err e;
    return explain(o, *(bool *)json, &e) || diag_err(d, SPAN_NONE, &e);
}

int verb_explain(int argc, char **argv) {
    bool json = false;
    const Option options[] = {
        {"--json", OPT_FLAG, NULL, 0, 0, &json, NULL, "print the compiler's report as JSON"}};
    const Command cmd = {"adallm-rt explain X.ada [--json]",
                         "Prints what the compiler decided: memory and the life of every buffer, kernels "
                         "taken and rejected with the "
                         "reason, every launch with its bytes and predicted time.",
                         options,
                         COUNT_OF(options),
                         1,
                         1};
    return verb_on_artifact(&cmd, argc, argv, ARTIFACT_STRUCTURE, NULL, run, &json);
}
