// plain_read: reads `quads` 16-byte words and does nothing with them: the speed of memory beside which the
// runtime's bench shows a step. It belongs to no plan; the runtime carries it for every kind of card.
#include "templates/lib/ptx.cuh"

constexpr uint32_t IN_FLIGHT = 4; // loads of a thread

// sink keeps the loads alive: it is written when everything a thread read cancels out.
extern "C" __global__ void __launch_bounds__(1024)
    plain_read(const uint4 *data, uint64_t quads, uint32_t *sink) {
    const uint64_t stride = (uint64_t)gridDim.x * blockDim.x;
    uint64_t i = (uint64_t)blockIdx.x * blockDim.x + threadIdx.x;
    uint32_t sum = 1;
    for (; i + (IN_FLIGHT - 1) * stride < quads; i += IN_FLIGHT * stride) {
        uint4 v[IN_FLIGHT];
#pragma unroll
        for (uint32_t k = 0; k < IN_FLIGHT; k++) v[k] = ld_global_nc_v4(data + i + k * stride);
#pragma unroll
        for (uint32_t k = 0; k < IN_FLIGHT; k++) sum += v[k].x ^ v[k].y ^ v[k].z ^ v[k].w;
    }
    for (; i < quads; i += stride) {
        const uint4 v = ld_global_nc_v4(data + i);
        sum += v.x ^ v.y ^ v.z ^ v.w;
    }
    if (!sum) *sink = sum;
}
