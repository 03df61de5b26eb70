#include "runtime/engine/lookup.h"

#include <string.h>

#include "runtime/base/num.h"

enum { RUN_MOST = 3, RUN_LEAST = 2 };

// Index behind the latest earlier place of the last `run` ids; 0: there is none.
static uint32_t find(const int32_t *ids, uint32_t n, uint32_t run) {
    const int32_t *end = ids + n;
    for (uint32_t i = n - 1; i >= run; i--)
        if (ids[i - 1] == end[-1] && !memcmp(ids + i - run, end - run, run * sizeof *ids)) return i;
    return 0;
}

uint32_t lookup_guess(const int32_t *ids, uint32_t n, uint32_t most, int32_t *out) {
    for (uint32_t run = RUN_MOST; run >= RUN_LEAST && most; run--) {
        const uint32_t at = n > run ? find(ids, n, run) : 0;
        if (!at) continue;
        most = MIN(most, n - at);
        memcpy(out, ids + at, most * sizeof *out);
        return most;
    }
    return 0;
}
