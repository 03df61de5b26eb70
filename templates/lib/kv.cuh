// Where a token's keys and values live (picture in templates.def). S has kv_heads, head_dim, page_tokens,
// page_bytes and pages_per_seq.
#ifndef ADALLM_LIB_KV_CUH
#define ADALLM_LIB_KV_CUH
#include <stdint.h>

// The page of a position, at the layer's place in it. For a sliding window the table is a ring.
template <class S>
__device__ __forceinline__ uint8_t *kv_page(const void *pool, const int32_t *block_table, uint32_t slot,
                                            uint32_t pos) {
    const uint32_t page = pos / S::page_tokens % S::pages_per_seq;
    return (uint8_t *)pool +
           (uint64_t)(uint32_t)block_table[(uint64_t)slot * S::pages_per_seq + page] * S::page_bytes;
}

// Of dimension 0 of a key at `line` of its page, whose dimensions are neighbours.
template <class S> __host__ __device__ constexpr uint32_t kv_key_offset(uint32_t head, uint32_t line) {
    return (head * S::page_tokens + line) * S::head_dim;
}
// Of a dimension of a value: V is transposed, the tokens of a page are neighbours.
template <class S>
__host__ __device__ constexpr uint32_t kv_value_offset(uint32_t head, uint32_t d, uint32_t line) {
    return S::kv_heads * S::page_tokens * S::head_dim + (head * S::head_dim + d) * S::page_tokens + line;
}
#endif
