// Inside exec: what its files share. Only they include this.
#ifndef ADALLM_EXEC_STATE_H
#define ADALLM_EXEC_STATE_H
#include "runtime/device/device.h"
#include "runtime/exec/exec.h"
#include "runtime/exec/measure.h"
#include "runtime/exec/ranks.h"

enum { DECODE_PROGRAMS = 4 };

// What one rank holds. All addresses are the device's.
typedef struct {
    Device *device;
    uint8_t *scratch;
    uint8_t **buffers; // [plan buffers]
    uint8_t **weights; // [plan weights]
    uint8_t *section;  // the weights section where it lies in one piece; else NULL
    bool adopted;      // it is the artifact's own memory
    DeviceKernel **kernels;
    DeviceGraph **graphs;  // [plan programs]
    DeviceGraph **decodes; // [n_decodes]
} Rank;

// A whole decode step: the programs that up to `rows` rows pick, in the order of their kinds.
typedef struct {
    uint32_t rows, programs[DECODE_PROGRAMS];
} Decode;

struct Exec {
    Arena arena;
    const Artifact *a;
    Ranks *ranks;
    Rank *rank;       // [n_ranks]
    Device **devices; // [n_ranks]
    uint32_t pages[ADA_KV_GROUPS_MAX];
    uint32_t role[ADA_ROLE_ROLES][ADA_KV_GROUPS_MAX]; // buffer index
    Decode *decodes;                                  // by rows
    uint32_t n_decodes;
    bool eager;
    const ExecOptions *options; // while opening
    ExecStartup startup;
    const ExecStep *step; // the one that runs
    uint64_t n_steps;     // begun so far
    uint32_t advanced;    // COUNT_STEP once all that was launched has run
    uint32_t taken;       // of these, whose tokens were taken
    bool dead;
    Err death;
};

// Launches u on rank k. Its scratch arguments are those of `like`, which is u itself but when launches of one
// kernel are timed after each other: only those of the first hold what the kernel expects.
bool exec_launch(const Exec *x, Rank *k, const ExecUnit *u, const ExecUnit *like, Err *e);
#endif
