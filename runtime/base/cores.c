#include "runtime/base/cores.h"

#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>

#include "runtime/base/num.h"

enum { CPU_MAX_BYTES = 64 };

unsigned cores_of_quota(const char *cpu_max) {
    long long quota, period;
    if (sscanf(cpu_max, "%lld %lld", &quota, &period) != 2 || quota <= 0 || period <= 0) return 0;
    return (unsigned)MIN((quota - 1) / period + 1, INT_MAX);
}

static unsigned quota_in(const char *dir) {
    char path[PATH_MAX], text[CPU_MAX_BYTES];
    snprintf(path, sizeof path, "/sys/fs/cgroup%s/cpu.max", dir);
    FILE *f = fopen(path, "re");
    if (!f) return 0;
    size_t n = fread(text, 1, sizeof text - 1, f);
    fclose(f);
    text[n] = 0;
    return cores_of_quota(text);
}

// The group's own folder, "" where it is the root of what this process sees.
static void own_group(char dir[PATH_MAX]) {
    char line[PATH_MAX];
    dir[0] = 0;
    FILE *f = fopen("/proc/self/cgroup", "re");
    if (!f) return;
    while (fgets(line, sizeof line, f))
        if (!strncmp(line, "0::/", 4))
            snprintf(dir, PATH_MAX, "%.*s", (int)strcspn(line + 3, "\n"), line + 3);
    fclose(f);
}

// Each group that this one lies in may set a limit; the smallest counts.
static unsigned quota_of_groups(void) {
    char dir[PATH_MAX];
    unsigned least = 0;
    own_group(dir);
    for (;;) {
        unsigned n = quota_in(dir);
        if (n && (!least || n < least)) least = n;
        char *slash = strrchr(dir, '/');
        if (!slash) return least;
        *slash = 0;
    }
}

unsigned cores_usable(void) {
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) != 0) return 1;
    unsigned n = (unsigned)MAX(CPU_COUNT(&set), 1), quota = quota_of_groups();
    return quota ? MIN(n, quota) : n;
}
