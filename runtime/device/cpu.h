// What this machine's processor can run.
#ifndef ADALLM_DEVICE_CPU_H
#define ADALLM_DEVICE_CPU_H
#include <stdbool.h>

bool cpu_has_x86_64_v3(
    void); // AVX2, FMA, F16C, BMI1, BMI2, LZCNT, MOVBE, and a system that saves wide registers
#endif
