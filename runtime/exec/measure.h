// Measure: what an opened Exec takes, and how fast its parts run on the device. For bench and doctor.
#ifndef ADALLM_EXEC_MEASURE_H
#define ADALLM_EXEC_MEASURE_H
#include "runtime/exec/exec.h"

// Bytes of rank 0's device.
typedef struct {
    uint64_t weights, kv, scratch, states;
    uint64_t
        rest; // in use beside these: context, code, other programs; 0 where kernels read the host's memory
} ExecMemory;
bool exec_memory(Exec *x, ExecMemory *out, Err *e);

// Bytes a second at which all ranks together read the weights and do nothing else. 0: too few to tell.
bool exec_read_rate(Exec *x, double *bytes_a_second, Err *e);

// The program that runs `count` tokens or rows; NULL: none holds so many.
const AdaProgram *exec_program(const Exec *x, AdaProgramKind kind, uint32_t count);

// What a step runs from a launch on: it alone, or the chain that begins with it.
typedef struct {
    const AdaLaunch *launches; // [n]
    uint32_t n, kernel, grid;  // kernel: UINT32_MAX for a collective
    bool together;             // all blocks at the same time
    float predicted_us;
} ExecUnit;
ExecUnit exec_unit(const Exec *x, uint32_t launch); // index into the plan's launches
const char *exec_unit_name(const Exec *x, const ExecUnit *u);

// Seconds of one unit: all units of the program that run the kernel of the one at `launch`, in the order of
// the program and with nothing between them, divided by their number. Counts, ids and positions are what the
// last step left; the scratch that they read is that of the first of them. What the step's buffers hold
// afterwards means nothing.
bool exec_time_unit(Exec *x, const AdaProgram *p, uint32_t launch, double *seconds, Err *e);
#endif
