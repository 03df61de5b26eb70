// Refuses by name: a build without the CUDA driver.
#include "runtime/device/drivers.h"

bool cuda_open(uint32_t n_ranks, uint32_t threads, Device **out, Err *e) {
    (void)n_ranks, (void)threads, (void)out;
    return err_set(e, E_DEVICE,
                   "this build has no CUDA driver; artifacts for the host target run without one");
}
