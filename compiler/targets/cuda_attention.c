// attention on a GPU: the decode form up to 64 tokens, the prefill form from there on; both give the same
// bits. Sizes are those of templates/lib/attention*.cuh.
#include "compiler/targets/cuda_choose.h"
#include "runtime/base/num.h"

enum {
    COUNTER_BYTES = 64 << 10,
    COUNTERS = COUNTER_BYTES / 4 - 32, // the last line is where chains meet
    PAGE_KEYS = 64,
    GROUP_MAX = 16, // heads of a group are rows of one mma
    DIM_MAX = 256,
    PARTS = 128,    // of a sequence, about
    PART_PAGES = 8, // at least
    FEW_TOKENS = 64,
    FEW_WARPS = 8,
    MANY_WARPS = 4,
    MANY_ROWS = 64,
    LINE_BYTES = 128
};
#define LIKELY_KEYS(context) MAX((context) / 4, 1024u) // that a token sees, for predictions
#define FEW_US               3.2                       // of the decode form: counts, pages, the end
#define ROUND_US             4.0  // of a round: keys arrive, maxima and probabilities go round, parts merge
#define NARROW_US            3.0  // four warps take two rounds for a part
#define WAVE_US              5.0  // a block alone on its SM takes another item
#define FEW_SHARE            0.97 // of the memory's rate that it reaches
#define FETCH_US             4.0  // of it, while the memory has little else to do
#define FETCH_SHARE          0.65 // of the memory's rate: more would stand in the way
#define MANY_US              4.0  // first keys of the prefill form
#define PAGE_US              1.4  // a warp of it, a page of head_dim 128

typedef struct {
    uint64_t heads, kv_heads, dim, group, pages;
} Shape;

static bool shape_of(const KernelAsk *ask, KernelAnswer *out, Shape *s) {
    *s = (Shape){.heads = ask_u(ask, "heads"),
                 .kv_heads = ask_u(ask, "kv_heads"),
                 .dim = ask_u(ask, "head_dim"),
                 .pages = ask_u(ask, "pages_per_seq")};
    s->group = s->heads / s->kv_heads;
    if (s->heads % s->kv_heads || s->group > GROUP_MAX)
        cuda_refuse(out, "%llu query heads for %llu KV heads: groups have up to %d",
                    (unsigned long long)s->heads, (unsigned long long)s->kv_heads, GROUP_MAX);
    else if (s->dim % 16 || s->dim > DIM_MAX)
        cuda_refuse(out, "head_dim %llu is not a multiple of 16 up to %d", (unsigned long long)s->dim,
                    DIM_MAX);
    else if (ask_u(ask, "page_tokens") != PAGE_KEYS)
        cuda_refuse(out, "pages of %llu tokens, not %d", (unsigned long long)ask_u(ask, "page_tokens"),
                    PAGE_KEYS);
    else if (s->kv_heads * FEW_TOKENS > COUNTERS)
        cuda_refuse(out, "%llu KV heads; there are counters for %d", (unsigned long long)s->kv_heads,
                    COUNTERS / FEW_TOKENS);
    else
        return true;
    return false;
}

// Parts that a token's keys may lie in.
static uint64_t parts_max(const Shape *s) {
    uint64_t pages = PART_PAGES;
    while (div_up(s->pages, pages) > PARTS) pages *= 2;
    return div_up(s->pages, pages) + 1;
}

// What blocks without an item fetch of the weights that come soon, while the others wait for their own loads.
static void add_fetch(const Target *t, const KernelAsk *ask, KernelChoice *c, uint32_t per_sm) {
    enum { STEP = 32 }; // lines
    double line_ns = LINE_BYTES * per_sm * t->units / (t->dram_gbs * FETCH_SHARE);
    uint64_t lines = (uint64_t)(FETCH_US * 1e3 / line_ns) / STEP * STEP;
    choice_add(c, "fetch_lines", ask_u(ask, "next_bytes") ? lines : 0);
    choice_add(c, "fetch_clocks", ask_u(ask, "next_bytes") ? (uint64_t)(STEP * line_ns * t->clock_ghz) : 0);
}

// Eight warps an item, or four and two items an SM: that form holds registers for up to 128 columns of 8
// heads.
static void few(const Target *t, const KernelAsk *ask, KernelAnswer *out, const Shape *s, uint32_t warps) {
    uint64_t parts = parts_max(s), left = parts * s->group * (s->dim + 2) * sizeof(float);
    uint64_t items = ask->bucket * s->kv_heads * parts;
    uint32_t per_sm = FEW_WARPS / warps;
    KernelChoice c = {.threads = warps * 32, .work_bytes = COUNTER_BYTES + ask->bucket * s->kv_heads * left};
    c.grid =
        (uint32_t)(ask_u(ask, "next_bytes") ? t->units * per_sm : MIN(items, (uint64_t)t->units * per_sm));
    choice_add(&c, "tiled", 0);
    choice_add(&c, "per_sm", per_sm);
    add_fetch(t, ask, &c, per_sm);
    double keys = (double)MIN(LIKELY_KEYS(s->pages * PAGE_KEYS), s->pages * PAGE_KEYS);
    if (ask_u(ask, "window")) keys = MIN(keys, (double)ask_u(ask, "window"));
    double bytes = ask->bucket * keys * (double)(s->kv_heads * s->dim) * 2;
    uint64_t likely = ask->bucket * s->kv_heads * div_up((uint64_t)keys, PART_PAGES * PAGE_KEYS);
    double waves = (double)div_up(likely, (uint64_t)t->units * per_sm);
    c.predicted_us = t->launch_us + FEW_US + (per_sm > 1 ? 0 : (waves - 1) * WAVE_US) +
                     MAX(ROUND_US + (per_sm > 1 ? NARROW_US : 0), bytes / (t->dram_gbs * 1e3 * FEW_SHARE));
    cuda_consider(t, ask, out, &c);
}

static void many(const Target *t, const KernelAsk *ask, KernelAnswer *out, const Shape *s) {
    uint64_t blocks_of_dim = div_up(s->dim, 64);
    uint64_t page = PAGE_KEYS * (blocks_of_dim * 64 + s->dim), query = blocks_of_dim * 4 * 512;
    uint32_t per_sm = s->dim > 128 ? 1 : s->dim > 64 ? 2 : 3; // as many as registers suffice for
    uint64_t items = div_up(ask->bucket, MANY_ROWS / s->group) * s->kv_heads;
    KernelChoice c = {.grid = (uint32_t)MIN(items, (uint64_t)t->units * per_sm),
                      .threads = MANY_WARPS * 32,
                      .shared_bytes = 2 * page + MANY_WARPS * query};
    choice_add(&c, "tiled", 1);
    choice_add(&c, "per_sm", per_sm);
    choice_add(&c, "fetch_lines", 0);
    choice_add(&c, "fetch_clocks", 0);
    c.work_bytes = COUNTER_BYTES + (uint64_t)c.grid * MANY_WARPS * (s->dim / 8 + 1) * 512;
    double pages = (double)MIN(LIKELY_KEYS(s->pages * PAGE_KEYS) / PAGE_KEYS, s->pages);
    c.predicted_us = t->launch_us + MANY_US +
                     (double)div_up(items, c.grid) * pages * PAGE_US * (double)s->dim / 128 * per_sm;
    cuda_consider(t, ask, out, &c);
}

void cuda_attention(const Target *t, const KernelAsk *ask, KernelAnswer *out) {
    Shape s;
    if (!shape_of(ask, out, &s)) return;
    if (ask->bucket <= FEW_TOKENS)
        for (uint32_t warps = FEW_WARPS; warps >= FEW_WARPS / 2; warps /= 2) {
            if (warps == FEW_WARPS || (s.dim <= 128 && s.group <= 8)) few(t, ask, out, &s, warps);
        }
    else
        many(t, ask, out, &s);
}
