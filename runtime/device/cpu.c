#include "runtime/device/cpu.h"

#include <cpuid.h>
#include <stdint.h>

static bool has_all(uint32_t word, uint32_t bits) { return (word & bits) == bits; }

bool cpu_has_x86_64_v3(void) {
    uint32_t a, b, c, d, xcr0, high;
    if (!__get_cpuid(1, &a, &b, &c, &d)) return false;
    if (!has_all(c, bit_FMA | bit_F16C | bit_MOVBE | bit_AVX | bit_OSXSAVE)) return false;
    __asm__("xgetbv" : "=a"(xcr0), "=d"(high) : "c"(0));
    if (!has_all(xcr0, 6)) return false; // XMM and YMM state
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !has_all(b, bit_AVX2 | bit_BMI | bit_BMI2)) return false;
    return __get_cpuid(0x80000001, &a, &b, &c, &d) && has_all(c, bit_LZCNT);
}
