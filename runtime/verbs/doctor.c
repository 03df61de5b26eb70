// adallm-rt doctor: what this machine has, and what of an artifact would not run on it, and why.
#include <stdio.h>
#include <string.h>

#include "runtime/base/cores.h"
#include "runtime/base/num.h"
#include "runtime/device/cards.h"
#include "runtime/device/cpu.h"
#include "runtime/device/device.h"
#include "runtime/exec/pools.h"
#include "runtime/verbs/open.h"
#include "runtime/verbs/verbs.h"

typedef struct {
    RunOptions run;
    Cards cards;
    bool has_card;
    Err no_card; // why not
} Doctor;

static double mib(uint64_t bytes) { return (double)bytes / (1 << 20); }

// ---- the machine -----------------------------------------------------------------------------------------

static bool device_memory(const char *driver, uint64_t *free_bytes, uint64_t *total_bytes, Err *e) {
    Device *d;
    if (!device_open(driver, 1, 1, &d, e)) return false;
    bool ok = d->ops->memory(d, free_bytes, total_bytes, e);
    d->ops->close(d);
    return ok;
}

static void print_driver(const Cards *c) {
    char line[256];
    FILE *f = fopen("/proc/driver/nvidia/version", "re");
    if (f && fgets(line, sizeof line, f)) {
        line[strcspn(line, "\n")] = '\0';
        printf("driver     %s\n", line);
    }
    if (f) fclose(f);
    if (c->driver_cuda)
        printf("CUDA       driver up to %u.%u, this program %u.%u\n", c->driver_cuda / 1000,
               c->driver_cuda % 1000 / 10, c->runtime_cuda / 1000, c->runtime_cuda % 1000 / 10);
    else
        printf("CUDA       no driver, this program %u.%u\n", c->runtime_cuda / 1000,
               c->runtime_cuda % 1000 / 10);
}

static void print_card(uint32_t i, const Card *c) {
    printf("GPU %-2u     %s: sm_%u, %u SMs", i, c->name, c->sm, c->sms);
    if (c->clock_mhz) printf(" up to %u MHz", c->clock_mhz);
    if (c->memory_clock_mhz)
        printf(", memory up to %u MHz on %u bits (%.0f GB/s)", c->memory_clock_mhz, c->bus_bits,
               2e-3 * c->memory_clock_mhz * c->bus_bits / 8);
    printf(", L2 %.0f MiB, ECC %s, free %.0f of %.0f MiB\n", mib(c->l2_bytes), c->ecc ? "on" : "off",
           mib(c->free_bytes), mib(c->total_bytes));
}

static void print_machine(Doctor *x) {
    uint64_t free_bytes = 0, total_bytes = 0;
    Err e;
    device_memory("host", &free_bytes, &total_bytes, &e);
    printf("host       %u cores, %s, free %.0f of %.0f MiB\n", cores_usable(),
           cpu_has_x86_64_v3() ? "x86-64-v3" : "x86-64 without AVX2", mib(free_bytes), mib(total_bytes));
    x->has_card = cards_find(&x->cards, &x->no_card);
    print_driver(&x->cards);
    for (uint32_t i = 0; i < x->cards.n; i++) print_card(i, &x->cards.cards[i]);
    if (!x->has_card) printf("GPU        artifacts for cards do not run here: %s\n", x->no_card.msg);
}

// ---- the artifact ----------------------------------------------------------------------------------------

// Bytes of one device.
typedef struct {
    uint64_t weights, scratch, states, sequence; // sequence: KV cache of one of the whole context
} Needs;

static Needs needs_of(const Artifact *a) {
    const AdaPlan *p = a->plan;
    Needs n = {.scratch = p->scratch_bytes};
    if (a->super->sm) n.weights = a->weight_bytes; // on the host they are the file itself, in the page cache
    for (uint32_t i = 0; i < p->buffers.count; i++)
        if (a->buffers[i].space == ADA_SPACE_STATE) n.states += a->buffers[i].bytes;
    for (uint32_t g = 0; g < p->n_kv_groups; g++) n.sequence += p->kv[g].page_bytes * p->kv[g].pages_per_seq;
    return n;
}

static bool check_card(const Doctor *x, const Artifact *a, Err *e) {
    const Card *c = &x->cards.cards[0];
    if (!x->has_card) {
        *e = x->no_card;
        return false;
    }
    if (a->plan->n_ranks != 1)
        return err_set(e, E_DEVICE,
                       "it was compiled for %u cards; the CUDA driver runs one: compile with tp 1",
                       a->plan->n_ranks);
    if (!card_runs(c->sm, a->super->sm))
        return err_set(
            e, E_DEVICE,
            "it was compiled for %s (sm_%u) and GPU 0 is %s (sm_%u): compile the model for this card",
            a->super->target, a->super->sm, c->name, c->sm);
    for (uint32_t i = 0; i < a->plan->kernels.count; i++)
        if (a->kernels[i].shared_bytes > c->shared_bytes)
            return err_set(e, E_DEVICE, "kernel %s wants %llu bytes of shared memory a block; %s has %llu",
                           artifact_string(a, a->kernels[i].name),
                           (unsigned long long)a->kernels[i].shared_bytes, c->name,
                           (unsigned long long)c->shared_bytes);
    for (uint32_t i = 0; i < a->plan->chains.count; i++)
        if (a->chains[i].together && a->chains[i].grid > c->sms)
            return err_set(e, E_DEVICE, "kernel %s needs %u SMs at the same time; %s has %u",
                           artifact_string(a, a->kernels[a->chains[i].kernel].name), a->chains[i].grid,
                           c->name, c->sms);
    return true;
}

static bool check_memory(const Doctor *x, const Opened *o, Err *e) {
    const Artifact *a = &o->artifact;
    const Needs n = needs_of(a);
    const uint64_t fixed = n.weights + n.scratch + n.states;
    const ExecOptions options = run_exec_options(o, &x->run, 1);
    uint64_t free_bytes, total_bytes;
    if (!exec_check_kv_dtype(options.kv_dtype, e)) return false;
    printf("needs      MiB of %s: weights %.1f, scratch %.1f, states %.1f, KV cache of one sequence of %u "
           "tokens %.1f\n",
           a->super->sm ? "GPU 0" : "the host", mib(n.weights), mib(n.scratch), mib(n.states),
           a->plan->context, mib(n.sequence));
    if (!device_memory(options.driver, &free_bytes, &total_bytes, e)) return false;
    const double share = options.memory_share > 0 ? options.memory_share : 1;
    uint64_t budget = pools_budget(total_bytes, free_bytes, share);
    if (fixed + n.sequence > budget)
        return err_set(
            e, E_MEMORY,
            "it needs %.1f MiB, and %.1f MiB may be taken: %.1f of %.1f MiB are free, and %.0f %% may "
            "be in use",
            mib(fixed + n.sequence), mib(budget), mib(free_bytes), mib(total_bytes), 100 * share);
    budget -= fixed;
    if (options.kv_bytes_max && options.kv_bytes_max < n.sequence)
        return err_set(e, E_MEMORY, "--kv-cache-memory leaves %.1f MiB and one sequence takes %.1f MiB",
                       mib(options.kv_bytes_max), mib(n.sequence));
    if (options.kv_bytes_max) budget = MIN(budget, options.kv_bytes_max);
    printf(
        "leaves     %.1f MiB for the KV cache: %.1f sequences of the whole context, at most %u at a time\n",
        mib(budget), (double)budget / (double)MAX(n.sequence, 1u), a->plan->seqs_max);
    return true;
}

static void judge(const Doctor *x, const char *path, Diags *d) {
    Opened o;
    Err e;
    if (!opened_open(&o, path, ARTIFACT_STRUCTURE, 1, &e)) {
        diag_err(d, SPAN_NONE, &e);
        return;
    }
    const AdaSuperblock *s = o.artifact.super;
    printf("\nartifact   %s: %s for %s", path, o.manifest.model, s->target);
    if (s->sm) printf(" (sm_%u)", s->sm);
    printf(", %llu bytes\n", (unsigned long long)s->file_size);
    bool ok = (!s->sm || check_card(x, &o.artifact, &e)) && check_memory(x, &o, &e);
    if (ok)
        printf("answer     it would run here\n");
    else
        printf("answer     it would not run here\n"), diag_err(d, SPAN_NONE, &e);
    fflush(stdout);
    opened_close(&o);
}

int verb_doctor(int argc, char **argv) {
    Arena arena = {0};
    Diags d = {.arena = &arena};
    Doctor x = {0};
    CliResult cli;
    const Option options[] = {RUN_OPTION_ROWS(&x.run)};
    const Command cmd = {
        "adallm-rt doctor [X.ada] [options]",
        "Prints driver, cards, clocks and memory of this machine, and whether an artifact would "
        "run on it with these\n"
        "options: exit code 1, and the reason, when it would not. Needs no driver.",
        options,
        COUNT_OF(options),
        0,
        1};
    if (cli_parse(&cmd, argc, argv, &arena, &cli, &d) && !cli.help) {
        print_machine(&x);
        if (cli.n_args) judge(&x, cli.args[0], &d);
    }
    diags_print(&d, "adallm-rt", stderr);
    int code = diags_exit_code(&d);
    arena_free(&arena);
    return code;
}
