// Cores: how many this process may use.
#ifndef ADALLM_BASE_CORES_H
#define ADALLM_BASE_CORES_H

// Cores of the affinity mask, but no more than the CPU quota of the control group rounded up; at least 1.
// More threads than that would only wait for each other.
unsigned cores_usable(void);

// Cores that a quota grants, in the words of cgroup v2's cpu.max ("150000 100000": 2); 0: no limit.
unsigned cores_of_quota(const char *cpu_max);
#endif
