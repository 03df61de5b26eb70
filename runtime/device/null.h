// The null device: memory is real, kernels do nothing; only tokens are drawn and told, as numbers that follow
// from seed and step alone (null_draw.h). For tests of everything above the device, and of its speed.
#ifndef ADALLM_DEVICE_NULL_H
#define ADALLM_DEVICE_NULL_H
#include "runtime/device/device.h"

// Calls of functions that can fail, so far; a replay counts as one.
uint64_t null_calls(const Device *d);
uint64_t
null_launches(const Device *d); // launches and collectives that would have run, those of replays included
// From now on a thread does what is called for, in order, while the caller goes on: as a GPU does. Copies of
// what is uploaded are made at once.
void null_work_later(Device *d);
// The call with this number (the first is 1) and all later ones fail; 0: none.
void null_fail_at(Device *d, uint64_t call);
// Called for every launch that would run, in order, instead of drawing tokens; may write the memory that args
// point to. NULL: nobody.
void null_on_launch(Device *d, void (*fn)(void *ctx, const char *kernel, void *const *args, uint32_t n_args),
                    void *ctx);
#endif
