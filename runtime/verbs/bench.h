// Inside bench: what was measured, and how it is told.
#ifndef ADALLM_VERBS_BENCH_H
#define ADALLM_VERBS_BENCH_H
#include "runtime/exec/measure.h"
#include "runtime/verbs/open.h"

typedef struct {
    uint32_t batch, n_steps;
    uint64_t prefill_tokens, decode_tokens;
    double prefill_s, decode_s;
    double p50_s, p99_s; // between the tokens of one step and those of the next
    double limit_s;      // a plain read of what a step reads
} BenchRow;

// The launches of one kernel in one program, each.
typedef struct {
    const char *program, *kernel;
    uint32_t count;
    double measured_us, predicted_us;
    uint64_t bytes; // weights and KV cache
} BenchLaunch;

// The launches of a decode step of `row.batch` sequences, or with `chunk` those of a prompt of so many
// tokens.
typedef struct {
    uint32_t chunk;
    BenchLaunch *items;
    uint32_t n;
    BenchRow row; // the step that they are compared with
} BenchLaunches;

typedef struct {
    const Opened *opened;
    uint64_t prompt, gen;
    ExecStartup startup;
    ExecMemory memory;
    double read_rate; // bytes a second; 0: the weights are too few to tell
    BenchRow *rows;
    uint32_t n_rows;
    BenchLaunches step, chunk; // n is 0 where they were not asked for
} BenchReport;

void bench_print_head(const BenchReport *r);
void bench_print_row(const BenchReport *r, const BenchRow *row);
void bench_print_launches(const BenchReport *r, const BenchLaunches *l);
void bench_print_json(const BenchReport *r); // all of it, one object
#endif
