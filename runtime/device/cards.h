// Cards: which GPUs this machine has, and why none can be used. Works where no driver is installed.
#ifndef ADALLM_DEVICE_CARDS_H
#define ADALLM_DEVICE_CARDS_H
#include "runtime/base/err.h"

#include <stdint.h>

enum { CARDS_MAX = 16 };

typedef struct {
    char name[128];
    uint32_t sm;                                    // compute capability, 89 for 8.9
    uint32_t sms;                                   // streaming multiprocessors
    uint32_t clock_mhz, memory_clock_mhz, bus_bits; // at most; 0: the driver does not say
    uint64_t l2_bytes, shared_bytes;                // shared: that a block may have
    uint64_t total_bytes, free_bytes;               // free once this process has its context
    bool ecc;
} Card;

typedef struct {
    uint32_t driver_cuda, runtime_cuda; // 13000 for 13.0; driver 0: none is installed
    uint32_t n;
    Card cards[CARDS_MAX];
} Cards;

// False with the reason, by name, when no card can be used; the versions are filled in any case.
bool cards_find(Cards *out, Err *e);
// Whether kernels compiled for `sm` run on a card of another: the same generation, and not an older one.
static inline bool card_runs(uint32_t card_sm, uint32_t sm) {
    return card_sm / 10 == sm / 10 && card_sm >= sm;
}
#endif
