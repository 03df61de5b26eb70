// Wrappers of PTX instructions, each named after its instruction. Registers that hold two halves are
// uint32_t, the first in the low half.
#ifndef ADALLM_LIB_PTX_CUH
#define ADALLM_LIB_PTX_CUH
#include <stdint.h>

// d += A[16,16] B[16,8], row by col, fp16 with fp32 sums.
__device__ __forceinline__ void mma_m16n8k16_f32_f16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0,
                                                     uint32_t b1) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
        "{%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// d = A[16,16] B[16,8], row by col, E4M3 with fp32 sums: sm_89's own, emulated with fp16 on sm_90.
__device__ __forceinline__ void mma_m16n8k16_f32_e4m3(float (&d)[4], const uint32_t (&a)[2], uint32_t b) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.e4m3.e4m3.f32 {%0,%1,%2,%3}, {%4,%5}, {%6}, {%7,%7,%7,%7};"
        : "=f"(d[0]), "=f"(d[1]), "=f"(d[2]), "=f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(b), "f"(0.0f));
}

__device__ __forceinline__ uint32_t mul_f16x2(uint32_t a, uint32_t b) {
    uint32_t d;
    asm("mul.f16x2 %0, %1, %2;" : "=r"(d) : "r"(a), "r"(b));
    return d;
}

// Low half: lo. Round to nearest even, no saturation.
__device__ __forceinline__ uint32_t cvt_rn_f16x2_f32(float lo, float hi) {
    uint32_t d;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(d) : "f"(hi), "f"(lo));
    return d;
}

__device__ __forceinline__ uint16_t cvt_rn_f16_f32(float x) {
    uint16_t d;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(d) : "f"(x));
    return d;
}

__device__ __forceinline__ float cvt_f32_f16(uint16_t x) {
    float d;
    asm("cvt.f32.f16 %0, %1;" : "=f"(d) : "h"(x));
    return d;
}

// Two E4M3 bytes, the low one first.
__device__ __forceinline__ uint32_t cvt_rn_f16x2_e4m3x2(uint16_t x) {
    uint32_t d;
    asm("cvt.rn.f16x2.e4m3x2 %0, %1;" : "=r"(d) : "h"(x));
    return d;
}

// Low byte: lo. Values beyond 448 become 448.
__device__ __forceinline__ uint16_t cvt_rn_satfinite_e4m3x2_f32(float lo, float hi) {
    uint16_t d;
    asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(d) : "f"(hi), "f"(lo));
    return d;
}

__device__ __forceinline__ float ex2_approx(float x) {
    float d;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(d) : "f"(x));
    return d;
}

__device__ __forceinline__ void prefetch_global_l2(const void *p) {
    asm volatile("prefetch.global.L2 [%0];" ::"l"(p));
}

__device__ __forceinline__ void cp_async_16(uint32_t shared, const void *global) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared), "l"(global) : "memory");
}
__device__ __forceinline__ void cp_async_4(uint32_t shared, const void *global) {
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(shared), "l"(global) : "memory");
}
__device__ __forceinline__ void cp_async_wait_all() { asm volatile("cp.async.wait_all;" ::: "memory"); }
__device__ __forceinline__ void cp_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int N> __device__ __forceinline__ void cp_async_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}
__device__ __forceinline__ uint32_t shared_address(const void *p) {
    return (uint32_t)__cvta_generic_to_shared(p);
}

// Gives the value before.
__device__ __forceinline__ uint32_t atom_add_acq_rel_gpu(uint32_t *p, uint32_t x) {
    uint32_t d;
    asm volatile("atom.add.acq_rel.gpu.global.u32 %0, [%1], %2;" : "=r"(d) : "l"(p), "r"(x) : "memory");
    return d;
}

__device__ __forceinline__ void red_add_release_gpu(uint32_t *p, uint32_t x) {
    asm volatile("red.add.release.gpu.global.u32 [%0], %1;" ::"l"(p), "r"(x) : "memory");
}
__device__ __forceinline__ uint32_t ld_acquire_gpu(const uint32_t *p) {
    uint32_t d;
    asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(d) : "l"(p) : "memory");
    return d;
}

__device__ __forceinline__ uint32_t ld_global_nc_u16(const void *p) {
    uint16_t d;
    asm volatile("ld.global.nc.L1::no_allocate.u16 %0, [%1];" : "=h"(d) : "l"(p));
    return d;
}

// *p += x without waiting for it: rounded to nearest, subnormals are zero. In order only where one thread of
// a launch adds to *p.
__device__ __forceinline__ void red_global_add_f32(float *p, float x) {
    asm volatile("red.global.add.f32 [%0], %1;" ::"l"(p), "f"(x) : "memory");
}

// blockIdx.x and threadIdx.x, read anew by every call: values that the compiler cannot keep in a register,
// nor what follows from them, from one to the next.
__device__ __forceinline__ uint32_t block_index() {
    uint32_t d;
    asm volatile("mov.u32 %0, %%ctaid.x;" : "=r"(d));
    return d;
}

__device__ __forceinline__ uint32_t clocks() { // of the SM
    uint32_t d;
    asm volatile("mov.u32 %0, %%clock;" : "=r"(d));
    return d;
}

// *p, which the block read before: a look into L1 instead of a register in between.
template <class T> __device__ __forceinline__ T read_again(const T *p) {
    asm volatile("" : "+l"(p));
    return *p;
}

__device__ __forceinline__ uint32_t thread_index() {
    uint32_t d;
    asm volatile("mov.u32 %0, %%tid.x;" : "=r"(d));
    return d;
}

// Bytes that this launch reads once: not kept in L1.
__device__ __forceinline__ uint4 ld_global_nc_v4(const void *p) {
    uint4 d;
    asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0,%1,%2,%3}, [%4];"
                 : "=r"(d.x), "=r"(d.y), "=r"(d.z), "=r"(d.w)
                 : "l"(p));
    return d;
}
// The same of bytes that nobody reads again before others have taken their place: L2 gives them up first.
// 0x12F0..: what createpolicy.fractional.L2::evict_first makes.
__device__ __forceinline__ uint4 ld_global_nc_v4_once(const void *p) {
    uint4 d;
    asm volatile("ld.global.nc.L1::no_allocate.L2::cache_hint.v4.u32 {%0,%1,%2,%3}, [%4], %5;"
                 : "=r"(d.x), "=r"(d.y), "=r"(d.z), "=r"(d.w)
                 : "l"(p), "l"(0x12F0000000000000ull));
    return d;
}
__device__ __forceinline__ uint32_t ld_global_nc_u16_once(const void *p) {
    uint16_t d;
    asm volatile("ld.global.nc.L1::no_allocate.L2::cache_hint.u16 %0, [%1], %2;"
                 : "=h"(d)
                 : "l"(p), "l"(0x12F0000000000000ull));
    return d;
}
// Whatever stands in the registers.
__device__ __forceinline__ uint4 anything_v4() {
    uint4 d;
    asm volatile("" : "=r"(d.x), "=r"(d.y), "=r"(d.z), "=r"(d.w));
    return d;
}
#endif
