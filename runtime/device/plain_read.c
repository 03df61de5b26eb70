#include "runtime/device/plain_read.h"

#include "runtime/base/log.h"
#include "runtime/base/num.h"

typedef uint64_t Lanes __attribute__((vector_size(32)));
enum { PIECE = 1 << 20, STREAMS = 4, LANES = 4 };

typedef struct {
    const uint8_t *data;
    _Atomic uint64_t sum; // keeps the loads alive
} PlainRead;

// A whole piece, as several streams side by side: one alone does not fill a core's share of the memory.
static void read_piece(void *ctx, uint32_t i) {
    PlainRead *r = ctx;
    const uint8_t *piece = r->data + (uint64_t)i * PIECE;
    Lanes acc[LANES] = {0};
    for (uint64_t at = 0; at < PIECE / STREAMS; at += sizeof acc)
        for (int s = 0; s < STREAMS; s++) {
            const Lanes *p = (const Lanes *)(piece + s * (PIECE / STREAMS) + at);
            for (int k = 0; k < LANES; k++) acc[k] ^= p[k];
        }
    for (int k = 0; k < LANES; k++) r->sum += acc[k][0] ^ acc[k][1] ^ acc[k][2] ^ acc[k][3];
}

double plain_read(Pool *pool, const void *data, uint64_t bytes, int rounds) {
    PlainRead r = {.data = data};
    const uint32_t pieces = (uint32_t)(bytes / PIECE); // the rest is less than a piece
    double best = 0;
    for (int round = 0; round < rounds; round++) {
        const double begin = clock_s();
        pool_run(pool, pieces, read_piece, &r);
        best = MAX(best, (double)pieces * PIECE / MAX(clock_s() - begin, 1e-9));
    }
    return best;
}
