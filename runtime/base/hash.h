// SHA-256 (libcrypto).
#ifndef ADALLM_BASE_HASH_H
#define ADALLM_BASE_HASH_H
#include <stddef.h>
#include <stdint.h>

#include "runtime/base/str.h"

typedef struct {
    uint8_t bytes[32];
} Sha256;

Sha256 sha256(const void *data, size_t len);
// Of the bytes of both, one after the other. Allocates nothing.
Sha256 sha256_pair(const void *a, size_t a_len, const void *b, size_t b_len);

typedef struct Sha256Stream Sha256Stream; // incremental
Sha256Stream *sha256_begin(void);
void sha256_add(Sha256Stream *s, const void *data, size_t len);
Sha256 sha256_end(Sha256Stream *s); // frees the stream

void sha256_hex(Sha256 h, char out[65]);
#endif
