// Targets: a table of facts about each machine, and three functions. Passes ask facts, never names.
#ifndef ADALLM_TARGETS_TARGET_H
#define ADALLM_TARGETS_TARGET_H
#include "compiler/codegen/host.h"
#include "compiler/ir/plan.h"

// One launch that wants a kernel.
typedef struct {
    const char *template_;
    const SpecField *spec; // all fields of the template
    uint32_t n_spec;
    uint32_t bucket; // tokens or rows
    uint64_t bytes_read, bytes_written, flops;
    const PlanRefusals *refusals; // kernels not to be chosen; NULL: none
} KernelAsk;

enum { SCHEDULE_MAX = 8 };
typedef struct {
    uint32_t grid, threads;
    uint64_t shared_bytes;
    uint64_t work_bytes;              // of the `work` buffer
    SpecField schedule[SCHEDULE_MAX]; // the template's schedule fields; none on the host
    uint32_t n_schedule;
    double predicted_us;
    double spared_us; // > 0: it makes the launch of the norm before it needless, which costs so much
} KernelChoice;

enum { REASON_BYTES = 160, TARGET_REJECTED_MAX = 16 };
typedef struct {
    KernelChoice best;
    struct {
        char reason[REASON_BYTES]; // "grid 8: 9.1 us against 7.0 us"
    } rejected[TARGET_REJECTED_MAX];
    uint32_t n_rejected;
} KernelAnswer;

typedef struct Target {
    const char *name, *about;
    uint32_t sm;           // 89, 90; 0: no GPU
    uint32_t units;        // SMs; for a CPU the cores that predictions assume
    uint32_t blocks_min;   // a launch that can be cut has at least this many blocks
    double clock_ghz;      // boost
    double dram_gbs;       // effective, not the data sheet's
    uint64_t l2_bytes;     // last level cache
    uint64_t shared_bytes; // shared memory a block may have; for a CPU, scratch of a thread
    uint64_t memory_bytes; // of one device; 0: as much as the machine has
    double tflops_acc32;   // fp16 products summed in fp32 (a CPU: fp32), dense, sustained
    double tflops_acc16;   // summed in fp16; 0: no such instruction
    double e4m3_rate;      // E4M3 products summed in fp32: as many times tflops_acc32; below 1: emulated
    double launch_us;      // from the end of one kernel to the start of the next, in a replayed graph
    double barrier_us;     // all blocks of a launch meet
    double block_us;       // handing one block to a unit
    uint32_t page_tokens;  // tokens of a KV page
    bool half_rows;        // linears read fp16 rows with a scale (templates/lib/args.cuh), not fp32
    uint32_t chunk;        // `chunk` and `batch` of recipes that name none
    uint32_t batch[8], n_batch;
    AdaLayout linear[DT_COUNT]; // layout in which a linear reads weights of a type; 0: it cannot
    AdaLayout gather[DT_COUNT]; // layout of tables that are only gathered
    // Says in `reason` why a choice cannot run.
    bool (*legal)(const struct Target *t, const KernelAsk *ask, const KernelChoice *c,
                  char reason[REASON_BYTES]);
    // Enumerates candidates, drops the illegal ones, takes the one that the cost model likes best. False when
    // none is legal; then `rejected` says why.
    bool (*choose)(const struct Target *t, const KernelAsk *ask, KernelAnswer *out);
    // Turns the kernels of a plan into code images.
    bool (*emit)(const struct Target *t, Arena *a, const Plan *p, const EmitOptions *o, CodeImages *out,
                 Diags *d);
} Target;

extern const Target target_host;
extern const Target targets_cuda[];
extern const uint32_t n_targets_cuda;

// The target of that name; NULL after adding an error at `at` with the nearest name.
const Target *target_find(Str name, Span at, Diags *d);
const Target *target_at(uint32_t i); // all of them in order; NULL at the end
// Whether a kernel is what a step of this template and spec becomes with a choice.
bool target_kernel_is(const PlanKernel *k, const char *template_, const SpecField *spec, uint32_t n_spec,
                      const KernelChoice *c);
// max(bytes / bandwidth, flops / rate) of the whole machine in us: the floor of a launch.
double target_floor_us(const Target *t, uint64_t bytes, uint64_t flops);
#endif
