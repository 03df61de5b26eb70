// Which tokens meet in which expert. A pair is (token, j): its number is token * topk + j, ids[pair] its
// expert. An item is up to COLUMNS pairs of one expert; experts ascend over the items, pairs within them, so
// that all blocks of a launch agree on the items without talking to each other.
#ifndef ADALLM_LIB_EXPERTS_CUH
#define ADALLM_LIB_EXPERTS_CUH
#include "templates/lib/args.cuh"

// An item: its expert, and the pairs of its columns.
struct ExpertItem {
    uint32_t expert, n;   // n: columns
    uint32_t mask;        // of the pairs when there are few of them: bit i is pair i
    const uint32_t *list; // else they stand here; NULL: see mask
    __device__ __forceinline__ uint32_t pair(uint32_t column) const {
        if (list) return list[column];
        uint32_t left = mask;
        for (uint32_t i = 0; i < column; i++) left &= left - 1;
        return __ffs(left) - 1;
    }
};

// Up to 32 pairs (the smallest batches), at most COLUMNS of them of one expert: every warp finds the items by
// itself, a pair a lane.
struct FewExperts {
    uint32_t id, same, rank; // the pair's expert; pairs of it; experts below it
    bool first;              // of the pairs of its expert
    uint32_t n_items;

    // id: of the lane's pair, beyond all experts where there is none.
    __device__ __forceinline__ void open(uint32_t pair_id, bool valid) {
        const uint32_t lane = threadIdx.x % 32;
        id = valid ? pair_id : ~0u;
        same = __match_any_sync(~0u, id);
        first = valid && __ffs(same) - 1 == lane;
        const uint32_t firsts = __ballot_sync(~0u, first);
        n_items = __popc(firsts);
        rank = 0;
        for (uint32_t left = firsts; left; left &= left - 1)
            rank += __shfl_sync(~0u, id, __ffs(left) - 1) < id;
    }

    __device__ __forceinline__ ExpertItem find(uint32_t item, uint32_t most) const {
        const uint32_t lane = __ffs(__ballot_sync(~0u, first && rank == item)) - 1;
        ExpertItem found = {__shfl_sync(~0u, id, lane), 0, __shfl_sync(~0u, same, lane), nullptr};
        found.n = min((uint32_t)__popc(found.mask), most);
        return found;
    }
};

template <uint32_t EXPERTS, uint32_t COLUMNS, uint32_t THREADS> struct Experts {
    static_assert(THREADS % 32 == 0, "whole warps");
    static constexpr uint32_t WARPS = THREADS / 32;
    uint32_t count[EXPERTS], first[EXPERTS]; // pairs of an expert; its first item
    uint32_t per_warp[WARPS];
    uint32_t n_items, expert, block;
    uint32_t pair[COLUMNS]; // of the item that find() found

    // Every thread of the block calls it, once; ends with all in place.
    __device__ __forceinline__ void open(const int32_t *ids, uint32_t n_pairs) {
        for (uint32_t e = threadIdx.x; e < EXPERTS; e += THREADS) count[e] = 0;
        __syncthreads();
        for (uint32_t i = threadIdx.x; i < n_pairs; i += THREADS)
            if ((uint32_t)ids[i] < EXPERTS) atomicAdd(&count[ids[i]], 1);
        __syncthreads();
        if (threadIdx.x < 32) {
            uint32_t before = 0;
            for (uint32_t base = 0; base < EXPERTS; base += 32) {
                const uint32_t e = base + threadIdx.x;
                const uint32_t items = e < EXPERTS ? (count[e] + COLUMNS - 1) / COLUMNS : 0;
                uint32_t up_to = items;
                for (uint32_t d = 1; d < 32; d *= 2) {
                    const uint32_t lower = __shfl_up_sync(~0u, up_to, d);
                    if (threadIdx.x >= d) up_to += lower;
                }
                if (e < EXPERTS) first[e] = before + up_to - items;
                before += __shfl_sync(~0u, up_to, 31);
            }
            if (threadIdx.x == 0) n_items = before;
        }
        __syncthreads();
    }

    // The item stands until the next call. Every thread of the block calls it; begins and ends with a
    // barrier.
    __device__ __forceinline__ ExpertItem find(const int32_t *ids, uint32_t n_pairs, uint32_t item) {
        __syncthreads();
        for (uint32_t e = threadIdx.x; e < EXPERTS; e += THREADS)
            if (item >= first[e] && item - first[e] < (count[e] + COLUMNS - 1) / COLUMNS)
                expert = e, block = item - first[e];
        __syncthreads();
        const uint32_t warp = threadIdx.x / 32, lane = threadIdx.x % 32;
        const uint32_t share = (n_pairs + THREADS - 1) / THREADS * 32, begin = min(warp * share, n_pairs),
                       end = min(begin + share, n_pairs);
        uint32_t mine = 0;
        for (uint32_t base = begin; base < end; base += 32)
            mine += __popc(__ballot_sync(~0u, base + lane < end && (uint32_t)ids[base + lane] == expert));
        if (lane == 0) per_warp[warp] = mine;
        __syncthreads();
        uint32_t rank = 0;
        for (uint32_t w = 0; w < warp; w++) rank += per_warp[w];
        for (uint32_t base = begin; base < end; base += 32) {
            const bool is = base + lane < end && (uint32_t)ids[base + lane] == expert;
            const uint32_t all = __ballot_sync(~0u, is), at = rank + __popc(all & ((1u << lane) - 1));
            if (is && at / COLUMNS == block) pair[at % COLUMNS] = base + lane;
            rank += __popc(all);
        }
        __syncthreads();
        return {expert, min(count[expert] - block * COLUMNS, COLUMNS), 0, pair};
    }
};

// Up to PAIRS pairs: sorted by expert once, then every item is a look into tables.
template <uint32_t EXPERTS, uint32_t COLUMNS> struct SortedExperts {
    static constexpr uint32_t PAIRS = 512;
    uint32_t count[EXPERTS], start[EXPERTS]; // pairs of an expert; the first of them in `order`
    uint32_t order[PAIRS];
    uint16_t expert[PAIRS], at[PAIRS]; // of an item; its first pair in `order`
    uint32_t n_items;

    // The first warp does all of it, in the order of the pairs; every thread calls it and finds it done.
    __device__ __forceinline__ void open(const int32_t *ids, uint32_t n_pairs) {
        const uint32_t lane = threadIdx.x % 32;
        if (threadIdx.x < 32) {
            for (uint32_t e = lane; e < EXPERTS; e += 32) count[e] = 0;
            __syncwarp();
            for (uint32_t base = 0; base < n_pairs; base += 32) place(ids, n_pairs, base + lane, false);
            uint32_t pairs_before = 0, items_before = 0;
            for (uint32_t base = 0; base < EXPERTS; base += 32) {
                const uint32_t e = base + lane, n = e < EXPERTS ? count[e] : 0,
                               items = (n + COLUMNS - 1) / COLUMNS;
                uint32_t pairs_to = n, items_to = items;
                for (uint32_t d = 1; d < 32; d *= 2) {
                    const uint32_t p = __shfl_up_sync(~0u, pairs_to, d), i = __shfl_up_sync(~0u, items_to, d);
                    if (lane >= d) pairs_to += p, items_to += i;
                }
                const uint32_t first_pair = pairs_before + pairs_to - n,
                               first_item = items_before + items_to - items;
                if (e < EXPERTS) start[e] = first_pair, count[e] = 0;
                for (uint32_t i = 0; i < items; i++)
                    expert[first_item + i] = e, at[first_item + i] = first_pair + i * COLUMNS;
                pairs_before += __shfl_sync(~0u, pairs_to, 31),
                    items_before += __shfl_sync(~0u, items_to, 31);
            }
            if (lane == 0) n_items = items_before;
            __syncwarp();
            for (uint32_t base = 0; base < n_pairs; base += 32) place(ids, n_pairs, base + lane, true);
        }
        __syncthreads();
    }

    // Counts 32 pairs, and with `keep` puts them behind those of their experts that came before.
    __device__ __forceinline__ void place(const int32_t *ids, uint32_t n_pairs, uint32_t pair, bool keep) {
        const uint32_t id = pair < n_pairs ? (uint32_t)ids[pair] : ~0u, same = __match_any_sync(~0u, id);
        const uint32_t rank = __popc(same & ((1u << (threadIdx.x % 32)) - 1));
        const bool valid = id < EXPERTS;
        if (valid && keep) order[start[id] + count[id] + rank] = pair;
        __syncwarp();
        if (valid && rank == 0) count[id] += __popc(same);
        __syncwarp();
    }

    __device__ __forceinline__ ExpertItem find(uint32_t item) const {
        const uint32_t e = expert[item], done = at[item] - start[e];
        return {e, min(count[e] - done, COLUMNS), 0, order + at[item]};
    }
};

// Calls use(item, block) for the launch's units of work that are this block's: BLOCKS of them an item.
template <uint32_t EXPERTS, uint32_t TOPK, uint32_t COLUMNS, uint32_t THREADS, uint32_t BLOCKS, class Use>
__device__ __forceinline__ void each_expert_unit(const int32_t *ids, const uint32_t *counts, Use use) {
    using Sorted = SortedExperts<EXPERTS, COLUMNS>;
    __shared__ union {
        Sorted sorted;
        Experts<EXPERTS, COLUMNS, THREADS> many;
    } shared;
    const uint32_t lane = threadIdx.x % 32;
    // The first token's pairs are there whatever the count says.
    uint32_t id = lane < TOPK ? (uint32_t)ids[lane] : ~0u;
    const uint32_t n_pairs = counts[COUNT_TOKENS] * TOPK;
    const bool is_few = n_pairs <= min(32u, COLUMNS * TOPK), is_sorted = !is_few && n_pairs <= Sorted::PAIRS;
    FewExperts few;
    uint32_t n_items;
    if (is_few) {
        if (lane >= TOPK && lane < n_pairs) id = ids[lane];
        few.open(id, lane < n_pairs && id < EXPERTS);
        n_items = few.n_items;
    } else if (is_sorted) {
        shared.sorted.open(ids, n_pairs);
        n_items = shared.sorted.n_items;
    } else {
        shared.many.open(ids, n_pairs);
        n_items = shared.many.n_items;
    }
    for (uint32_t unit = blockIdx.x; unit < n_items * BLOCKS; unit += gridDim.x) {
        if (unit != blockIdx.x) __syncthreads(); // shared memory is used again
        use(is_few      ? few.find(unit / BLOCKS, COLUMNS)
            : is_sorted ? shared.sorted.find(unit / BLOCKS)
                        : shared.many.find(ids, n_pairs, unit / BLOCKS),
            unit % BLOCKS);
    }
}
#endif
