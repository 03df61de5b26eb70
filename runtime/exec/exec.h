// Exec: a plan bound to devices. Allocates what the plan asks for, adopts the weights, resolves kernels,
// captures every program once and replays them. All ranks do the same at the same time; the caller sees one.
// Not for several threads at once. After any failure every later call fails.
#ifndef ADALLM_EXEC_EXEC_H
#define ADALLM_EXEC_EXEC_H
#include "runtime/exec/artifact.h"

typedef struct Exec Exec;

typedef struct {
    const char *driver;    // "host", "cuda", "null"
    uint32_t threads;      // CPU threads of all ranks together on the host; 0: one per core
    uint32_t seqs;         // sequences that the KV pools hold at full length, memory allowing; 0: all slots
    uint64_t kv_bytes_max; // cap on the KV pools, all ranks together; 0: none
    double memory_share;   // part of the device's memory that may be in use, KV pools included; 0: all
    const char *kv_dtype;  // of the KV cache: "fp8", the only one there is; NULL: the same
    bool eager;            // launches, each waited for, instead of graphs: a failure names its kernel
} ExecOptions;

// Seconds of the parts of exec_open.
typedef struct {
    double device_s, weights_s, code_s, memory_s, capture_s;
} ExecStartup;

// E_OPTION_VALUE says why a KV cache of another type is refused. NULL is well.
bool exec_check_kv_dtype(const char *dtype, Err *e);

// The artifact must outlive the Exec. NULL: E_MEMORY when not even one sequence of `context` tokens fits,
// E_DEVICE.
Exec *exec_open(const Artifact *a, const ExecOptions *o, Err *e);
void exec_close(Exec *x); // x may be NULL

const AdaPlan *exec_plan(const Exec *x);
struct Device *exec_device(const Exec *x, uint32_t rank); // for tests
uint32_t exec_pages(const Exec *x, uint32_t group);       // pages in the pool of a KV group, on each rank
uint64_t exec_kv_bytes(const Exec *x);                    // of the KV pools of a rank
ExecStartup exec_startup(const Exec *x);

typedef struct {
    AdaRole role;
    uint32_t index;         // KV group for block tables
    uint64_t offset, bytes; // inside the buffer of the role
    const void *src;
} ExecWrite;

typedef struct {
    AdaRole role;
    uint64_t offset, bytes;
    void *dst; // filled from rank 0
} ExecRead;

// One step: writes to all ranks, then the programs whose count is not 0 in this order, each with the
// smallest bucket that holds its count, then reads. Of the counts buffer the caller writes tokens and rows;
// COUNT_STEP behind them counts the steps that advanced, from the opening on. Where all four counts are the
// same, a decode step, the programs are one graph.
typedef struct {
    const ExecWrite *writes;
    uint32_t n_writes;
    uint32_t body_tokens, head_rows, sample_rows, advance_rows;
    const ExecRead *reads;
    uint32_t n_reads;
} ExecStep;

// Allocates nothing.
bool exec_step(Exec *x, const ExecStep *s, Err *e);

// A step that advances is in flight until its tokens are taken, which reach the host without a read; at most
// RING_SLOTS (templates/lib/abi.h) steps are. exec_tokens waits for the oldest. What it gives holds until
// RING_SLOTS later steps began. A device that dies or falls silent is an error, not an endless wait.
typedef struct {
    const int32_t *next;    // [rows_max]
    const uint32_t *status; // [rows_max]
    const void *logprobs;   // LogprobRow[rows_max], those of rows with SAMPLE_LOGPROBS
} ExecTokens;
bool exec_tokens(Exec *x, ExecTokens *out, Err *e);
uint32_t exec_in_flight(const Exec *x);
void exec_forget(Exec *x);              // nobody takes the tokens of the steps in flight
uint32_t exec_ring_slot(const Exec *x); // which the next step uses, for its tokens and for logprobs
#endif
