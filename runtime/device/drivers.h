// The drivers behind device_open, one row each in device.c. `out` takes n_ranks devices of one group.
#ifndef ADALLM_DEVICE_DRIVERS_H
#define ADALLM_DEVICE_DRIVERS_H
#include "runtime/device/device.h"

bool host_open(uint32_t n_ranks, uint32_t threads, Device **out, Err *e);
bool null_open(uint32_t n_ranks, uint32_t threads, Device **out, Err *e);
bool cuda_open(uint32_t n_ranks, uint32_t threads, Device **out, Err *e);
#endif
