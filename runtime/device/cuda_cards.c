// What the CUDA driver says about itself and its cards.
#include <stdio.h>

#include "runtime/base/num.h"
#include "runtime/device/cards.h"
#include "runtime/device/cuda.h"

bool cuda_find_card(Err *e) {
    int version = 0, n = 0;
    if (cudaDriverGetVersion(&version) != cudaSuccess || !version)
        return err_set(e, E_DEVICE,
                       "no NVIDIA driver is installed here (libcuda.so.1 does not load); artifacts for the "
                       "host target run without one");
    cudaError_t error = cudaGetDeviceCount(&n);
    if (error == cudaErrorInsufficientDriver)
        return err_set(e, E_DEVICE,
                       "the NVIDIA driver is too old: it supports CUDA %d.%d, this program needs %d.%d; "
                       "install a newer driver",
                       version / 1000, version % 1000 / 10, CUDART_VERSION / 1000,
                       CUDART_VERSION % 1000 / 10);
    if (error == cudaErrorNoDevice || (error == cudaSuccess && !n))
        return err_set(e, E_DEVICE, "the NVIDIA driver finds no GPU here (or CUDA_VISIBLE_DEVICES hides it)");
    if (error != cudaSuccess)
        return err_set(e, E_DEVICE, "the NVIDIA driver does not start: %s: %s", cudaGetErrorName(error),
                       cudaGetErrorString(error));
    return true;
}

static uint32_t ask(int card, enum cudaDeviceAttr what) {
    int value = 0;
    return cudaDeviceGetAttribute(&value, what, card) == cudaSuccess && value > 0 ? (uint32_t)value : 0;
}

static bool describe(int i, Card *out, Err *e) {
    struct cudaDeviceProp p;
    size_t free_now = 0, total = 0;
    cudaError_t error = cudaGetDeviceProperties(&p, i);
    if (error == cudaSuccess) error = cudaSetDevice(i);
    if (error == cudaSuccess) error = cudaMemGetInfo(&free_now, &total);
    if (error != cudaSuccess)
        return err_set(e, E_DEVICE, "GPU %d cannot be used: %s: %s", i, cudaGetErrorName(error),
                       cudaGetErrorString(error));
    *out = (Card){.sm = (uint32_t)(p.major * 10 + p.minor),
                  .sms = (uint32_t)p.multiProcessorCount,
                  .clock_mhz = ask(i, cudaDevAttrClockRate) / 1000,
                  .memory_clock_mhz = ask(i, cudaDevAttrMemoryClockRate) / 1000,
                  .bus_bits = ask(i, cudaDevAttrGlobalMemoryBusWidth),
                  .l2_bytes = (uint64_t)p.l2CacheSize,
                  .shared_bytes = p.sharedMemPerBlockOptin,
                  .total_bytes = total,
                  .free_bytes = free_now,
                  .ecc = p.ECCEnabled != 0};
    snprintf(out->name, sizeof out->name, "%.*s", (int)sizeof out->name - 1, p.name);
    return true;
}

bool cards_find(Cards *out, Err *e) {
    int version = 0, n = 0;
    *out = (Cards){.runtime_cuda = CUDART_VERSION};
    if (cudaDriverGetVersion(&version) == cudaSuccess) out->driver_cuda = (uint32_t)version;
    if (!cuda_find_card(e)) return false;
    cudaGetDeviceCount(&n);
    for (int i = 0; i < MIN(n, (int)CARDS_MAX); i++)
        if (!describe(i, &out->cards[out->n++], e)) return false;
    return true;
}
