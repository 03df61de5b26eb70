#include "runtime/device/device.h"

#include <string.h>

#include "runtime/base/num.h"
#include "runtime/device/drivers.h"

static const struct {
    const char *name;
    bool (*open)(uint32_t n_ranks, uint32_t threads, Device **out, Err *e);
} drivers[] = {{"host", host_open}, {"cuda", cuda_open}, {"null", null_open}};

bool device_open(const char *driver, uint32_t n_ranks, uint32_t threads, Device **out, Err *e) {
    if (n_ranks == 0) return err_set(e, E_DEVICE, "a group of devices has at least one rank, not 0");
    for (size_t i = 0; i < COUNT_OF(drivers); i++)
        if (!strcmp(drivers[i].name, driver)) return drivers[i].open(n_ranks, threads, out, e);
    return err_set(e, E_DEVICE, "there is no device driver `%s`; this build has host, cuda and null", driver);
}
