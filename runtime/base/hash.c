#include "runtime/base/hash.h"

#define OPENSSL_SUPPRESS_DEPRECATED // of SHA-256 the old functions alone allocate nothing
#include <openssl/evp.h>
#include <openssl/sha.h>
#include <stdio.h>
#include <stdlib.h>

#include "runtime/base/err.h"

struct Sha256Stream {
    EVP_MD_CTX *ctx;
};

Sha256Stream *sha256_begin(void) {
    Sha256Stream *s = xmalloc(sizeof *s);
    s->ctx = EVP_MD_CTX_new();
    CHECK(s->ctx && EVP_DigestInit_ex(s->ctx, EVP_sha256(), NULL) == 1);
    return s;
}

void sha256_add(Sha256Stream *s, const void *data, size_t len) {
    CHECK(EVP_DigestUpdate(s->ctx, data, len) == 1);
}

Sha256 sha256_end(Sha256Stream *s) {
    Sha256 h;
    unsigned len = sizeof h.bytes;
    CHECK(EVP_DigestFinal_ex(s->ctx, h.bytes, &len) == 1 && len == sizeof h.bytes);
    EVP_MD_CTX_free(s->ctx);
    free(s);
    return h;
}

Sha256 sha256(const void *data, size_t len) {
    Sha256 h;
    unsigned n = sizeof h.bytes;
    CHECK(EVP_Digest(data, len, h.bytes, &n, EVP_sha256(), NULL) == 1);
    return h;
}

Sha256 sha256_pair(const void *a, size_t a_len, const void *b, size_t b_len) {
    Sha256 h;
    SHA256_CTX ctx;
    CHECK(SHA256_Init(&ctx) == 1 && SHA256_Update(&ctx, a, a_len) == 1 &&
          SHA256_Update(&ctx, b, b_len) == 1 && SHA256_Final(h.bytes, &ctx) == 1);
    return h;
}

void sha256_hex(Sha256 h, char out[65]) {
    for (int i = 0; i < 32; i++) snprintf(out + 2 * i, 3, "%02x", h.bytes[i]);
}
