// rope_write and attention: the cache's bytes, both against doubles, windows and rings, NaN in every byte of
// the pool that a token must not read, and the same bits whatever the chunks and the company.
#include <math.h>
#include <stdlib.h>

#include "runtime/base/fp.h"
#include "tests/kernels/harness.h"

static Kernels kernels;

typedef struct {
    uint32_t heads, kv_heads, head_dim, window, norm, page_tokens, pages_per_seq;
    float softcap;
} Case;
static const Case cases[] = {
    {4, 2, 64, 0, 1, 16, 8, 0},  {4, 1, 24, 0, 0, 8, 16, 0},   {6, 2, 32, 24, 1, 8, 8, 0},
    {2, 2, 128, 5, 0, 16, 3, 0}, {8, 2, 256, 0, 1, 16, 8, 50}, {3, 1, 80, 33, 1, 16, 6, 0},
    {4, 2, 20, 0, 1, 8, 16, 0},
};
enum { N_CASES = COUNT_OF(cases), POSITIONS = 100, SLOTS = 3 };
static uint32_t rope_id[N_CASES], attention_id[N_CASES];

static uint32_t page_bytes(const Case *c) {
    return 2 * c->kv_heads * c->page_tokens * c->head_dim * 2;
} // two layers

static void setup(void) {
    for (uint32_t i = 0; i < N_CASES; i++) {
        const Case *c = &cases[i];
        rope_id[i] = kernels_add(
            &kernels,
            "rope_write heads=%u kv_heads=%u head_dim=%u has_norm=%u eps=1e-6 factor=1.25 "
            "page_tokens=%u page_bytes=%u pages_per_seq=%u",
            c->heads, c->kv_heads, c->head_dim, c->norm, c->page_tokens, page_bytes(c), c->pages_per_seq);
        attention_id[i] =
            kernels_add(&kernels,
                        "attention heads=%u kv_heads=%u head_dim=%u scale=%g window=%u softcap=%g "
                        "page_tokens=%u page_bytes=%u pages_per_seq=%u",
                        c->heads, c->kv_heads, c->head_dim, 1 / sqrt((double)c->head_dim), c->window,
                        (double)c->softcap, c->page_tokens, page_bytes(c), c->pages_per_seq);
    }
}

// One sequence of POSITIONS tokens in slot 1, written and read in chunks; what a reference needs besides.
typedef struct {
    const Case *c;
    uint32_t id;
    float *qkv, *q_norm, *k_norm, *inv_freq, *q, *out;
    float kv_scale[2];
    int32_t *table;
    uint8_t *pool;
    double *k_ref, *v_ref; // [POSITIONS, kv_heads, head_dim] as cached
} Sequence;

static uint32_t row_floats(const Case *c) { return (c->heads + 2 * c->kv_heads) * c->head_dim; }

static Sequence sequence_new(uint32_t id) {
    const Case *c = &cases[id];
    Sequence s = {.c = c, .id = id, .kv_scale = {0.125f, 0.0625f}};
    const size_t d = c->head_dim, kv = (size_t)POSITIONS * c->kv_heads * d;
    s.qkv = fenced_alloc((size_t)POSITIONS * row_floats(c) * sizeof(float));
    s.q_norm = fenced_alloc(d * sizeof(float)), s.k_norm = fenced_alloc(d * sizeof(float));
    s.inv_freq = fenced_alloc(d / 2 * sizeof(float));
    s.q = fenced_alloc((size_t)POSITIONS * c->heads * d * sizeof(float));
    s.out = fenced_alloc((size_t)POSITIONS * c->heads * d * sizeof(float));
    s.table = fenced_alloc(SLOTS * c->pages_per_seq * sizeof(int32_t));
    s.pool = fenced_alloc((size_t)SLOTS * c->pages_per_seq * page_bytes(c)); // 0xFF: NaN in E4M3
    s.k_ref = xmalloc(kv * sizeof(double)), s.v_ref = xmalloc(kv * sizeof(double));
    random_outliers(id + 1, s.qkv, (size_t)POSITIONS * row_floats(c));
    random_fill(id + 2, s.q_norm, d, 0.5f), random_fill(id + 3, s.k_norm, d, 0.5f);
    for (uint32_t i = 0; i < d / 2; i++) s.inv_freq[i] = (float)pow(10000, -2.0 * i / (double)d);
    const uint32_t n = SLOTS * c->pages_per_seq;
    for (uint32_t i = 0; i < n; i++)
        s.table[i] = (int32_t)((i * 7 + 3) % n % n); // n is never a multiple of 7
    return s;
}

static void sequence_free(Sequence *s) {
    fenced_free(s->qkv), fenced_free(s->q_norm), fenced_free(s->k_norm), fenced_free(s->inv_freq),
        fenced_free(s->q);
    fenced_free(s->out), fenced_free(s->table), fenced_free(s->pool);
    free(s->k_ref), free(s->v_ref);
}

enum { SLOT = 1 };

// Tokens [begin, begin + n) through both kernels; layer 1 of the pages.
static void run_chunk(Sequence *s, uint32_t begin, uint32_t n, uint32_t grid) {
    const Case *c = s->c;
    int32_t *pos = fenced_alloc(n * sizeof *pos), *slot = fenced_alloc(n * sizeof *slot);
    uint32_t counts[4] = {n};
    for (uint32_t t = 0; t < n; t++) pos[t] = (int32_t)(begin + t), slot[t] = SLOT;
    float *q = s->q + (size_t)begin * c->heads * c->head_dim,
          *out = s->out + (size_t)begin * c->heads * c->head_dim;
    uint8_t *layer = s->pool + page_bytes(c) / 2;
    void *rope[] = {s->qkv + (size_t)begin * row_floats(c),
                    s->q_norm,
                    s->k_norm,
                    s->inv_freq,
                    s->kv_scale,
                    pos,
                    slot,
                    s->table,
                    layer,
                    q,
                    counts};
    void *attention[] = {q, layer, s->kv_scale, s->table, pos, slot, out, counts};
    kernels_run(&kernels, rope_id[s->id], rope, grid);
    kernels_run(&kernels, attention_id[s->id], attention, grid);
    fenced_free(pos), fenced_free(slot);
}

static void rope_reference(const Sequence *s, const float *x, const float *norm, uint32_t pos, double *out) {
    const uint32_t d = s->c->head_dim, half = d / 2;
    double sum = 0, factor = 1;
    for (uint32_t i = 0; i < d; i++) sum += (double)x[i] * (double)x[i];
    if (s->c->norm) factor = 1 / sqrt(sum / d + 1e-6);
    for (uint32_t i = 0; i < half; i++) {
        double angle = (double)((float)pos * s->inv_freq[i]), sine = 1.25 * sin(angle),
               cosine = 1.25 * cos(angle);
        double a = (double)x[i] * factor, b = (double)x[i + half] * factor;
        if (s->c->norm) a *= (double)norm[i], b *= (double)norm[i + half];
        out[i] = a * cosine - b * sine, out[i + half] = b * cosine + a * sine;
    }
}

static const uint8_t *cached(const Sequence *s, uint32_t pos, uint32_t head, bool is_v) {
    const Case *c = s->c;
    uint32_t page = pos / c->page_tokens % c->pages_per_seq, line = pos % c->page_tokens;
    return s->pool + (size_t)s->table[SLOT * c->pages_per_seq + page] * page_bytes(c) + page_bytes(c) / 2 +
           ((size_t)(is_v * c->kv_heads + head) * c->page_tokens + line) * c->head_dim;
}

// The cache holds E4M3 of the reference, or its neighbour where fp32 rounding moved a tie.
static void check_cached(const Sequence *s, uint32_t pos) {
    const Case *c = s->c;
    const uint32_t d = c->head_dim;
    double k[256];
    for (uint32_t h = 0; h < c->kv_heads; h++) {
        const float *x = s->qkv + (size_t)pos * row_floats(c) + (c->heads + h) * d, *v = x + c->kv_heads * d;
        rope_reference(s, x, s->k_norm, pos, k);
        for (uint32_t i = 0; i < d; i++) {
            size_t place = ((size_t)pos * c->kv_heads + h) * d + i;
            uint8_t got = cached(s, pos, h, false)[i];
            double scaled = k[i] / (double)s->kv_scale[0];
            if (got != f32_to_e4m3((float)(scaled * (1 - 1e-5))) &&
                got != f32_to_e4m3((float)(scaled * (1 + 1e-5))))
                check_fail("case %u: k at %u,%u,%u is 0x%02x for %g", s->id, pos, h, i, got, scaled);
            uint8_t want = f32_to_e4m3(v[i] / s->kv_scale[1]);
            if (cached(s, pos, h, true)[i] != want)
                check_fail("case %u: v at %u,%u,%u is 0x%02x for 0x%02x", s->id, pos, h, i,
                           cached(s, pos, h, true)[i], want);
            s->k_ref[place] = (double)e4m3_to_f32(got) * (double)s->kv_scale[0];
            s->v_ref[place] = (double)e4m3_to_f32(want) * (double)s->kv_scale[1];
        }
    }
}

static void attention_reference(const Sequence *s, uint32_t pos, uint32_t head, const double *q,
                                double *out) {
    const Case *c = s->c;
    const uint32_t d = c->head_dim, kv = head / (c->heads / c->kv_heads);
    uint32_t first = c->window && pos >= c->window ? pos - c->window + 1 : 0;
    double score[POSITIONS], max = -INFINITY, sum = 0;
    for (uint32_t j = first; j <= pos; j++) {
        score[j] = 0;
        for (uint32_t i = 0; i < d; i++) score[j] += q[i] * s->k_ref[((size_t)j * c->kv_heads + kv) * d + i];
        score[j] /= sqrt((double)d);
        if (c->softcap != 0) score[j] = (double)c->softcap * tanh(score[j] / (double)c->softcap);
        max = fmax(max, score[j]);
    }
    memset(out, 0, d * sizeof *out);
    for (uint32_t j = first; j <= pos; j++) sum += score[j] = exp(score[j] - max);
    for (uint32_t j = first; j <= pos; j++)
        for (uint32_t i = 0; i < d; i++)
            out[i] += score[j] / sum * s->v_ref[((size_t)j * c->kv_heads + kv) * d + i];
}

static void against_doubles(void **state) {
    (void)state;
    for (uint32_t id = 0; id < N_CASES; id++) {
        Sequence s = sequence_new(id);
        const Case *c = s.c;
        double q[256], want[256];
        for (uint32_t pos = 0; pos < POSITIONS; pos++) {
            run_chunk(&s, pos, 1, 1 + pos % 3);
            check_cached(&s, pos);
            for (uint32_t h = 0; h < c->heads; h++) {
                const size_t place = ((size_t)pos * c->heads + h) * c->head_dim;
                rope_reference(&s, s.qkv + (size_t)pos * row_floats(c) + h * c->head_dim, s.q_norm, pos, q);
                check_close("q after norm and rope", s.q + place, q, c->head_dim, 1e-5);
                for (uint32_t i = 0; i < c->head_dim; i++) q[i] = (double)s.q[place + i];
                attention_reference(&s, pos, h, q, want);
                check_close(kernels.specs[attention_id[id]], s.out + place, want, c->head_dim, 5e-5);
            }
        }
        sequence_free(&s);
    }
}

static void same_bits_in_chunks(void **state) {
    (void)state;
    static const uint32_t chunks[] = {2, 7, 33, 100};
    for (uint32_t id = 0; id < N_CASES; id++) {
        const Case *c = &cases[id];
        Sequence one = sequence_new(id);
        for (uint32_t pos = 0; pos < POSITIONS; pos++) run_chunk(&one, pos, 1, 1);
        for (size_t i = 0; i < COUNT_OF(chunks); i++) {
            // A ring keeps window - 1 + chunk tokens; page tables without one keep everything.
            if (c->window && c->window - 1 + chunks[i] > c->pages_per_seq * c->page_tokens) continue;
            Sequence many = sequence_new(id);
            for (uint32_t pos = 0; pos < POSITIONS; pos += chunks[i])
                run_chunk(&many, pos, MIN(chunks[i], POSITIONS - pos), 3);
            check_bits("attention in chunks", many.out, one.out,
                       (size_t)POSITIONS * c->heads * c->head_dim * sizeof(float));
            sequence_free(&many);
        }
        sequence_free(&one);
    }
}

// v = every E4M3 value exactly, and values around every rounding boundary.
static void cache_rounding(void **state) {
    (void)state;
    Sequence s = sequence_new(0);
    const Case *c = s.c;
    s.kv_scale[1] = 1;
    for (uint32_t pos = 0; pos < POSITIONS; pos++)
        for (uint32_t i = 0; i < c->kv_heads * c->head_dim; i++) {
            uint32_t n = pos * c->kv_heads * c->head_dim + i;
            float a = e4m3_to_f32((uint8_t)(n % 0x7F)),
                  b = n % 0x7F == 0x7E ? 500 : e4m3_to_f32((uint8_t)(n % 0x7F + 1));
            float mid = (a + b) / 2,
                  x[] = {a, mid, nextafterf(mid, 0), nextafterf(mid, 1e9f), -mid, -a, 1e9f * a, mid * 1e-3f};
            s.qkv[(size_t)pos * row_floats(c) + (c->heads + c->kv_heads) * c->head_dim + i] = x[n / 0x7F % 8];
        }
    for (uint32_t pos = 0; pos < POSITIONS; pos += 20) run_chunk(&s, pos, 20, 2);
    for (uint32_t pos = 0; pos < POSITIONS; pos++) check_cached(&s, pos);
    sequence_free(&s);
}

// cos and sin at positions where fp32 angles are coarse: q = (1, 0, ...) shows them.
static void far_positions(void **state) {
    (void)state;
    Sequence s = sequence_new(1);
    const Case *c = s.c;
    static const uint32_t far[] = {1, 4095, 32767, 131071, 1000003};
    for (size_t p = 0; p < COUNT_OF(far); p++) {
        int32_t pos = (int32_t)far[p], slot = SLOT;
        uint32_t counts[4] = {1};
        double want[256];
        void *rope[] = {s.qkv, s.q_norm, s.k_norm, s.inv_freq, s.kv_scale, &pos,
                        &slot, s.table,  s.pool,   s.q,        counts};
        kernels_run(&kernels, rope_id[1], rope, 1);
        for (uint32_t h = 0; h < c->heads; h++) {
            rope_reference(&s, s.qkv + h * c->head_dim, s.q_norm, far[p], want);
            check_close("rope at a far position", s.q + h * c->head_dim, want, c->head_dim, 1e-6);
        }
    }
    sequence_free(&s);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(against_doubles),
    cmocka_unit_test(same_bits_in_chunks),
    cmocka_unit_test(cache_rounding),
    cmocka_unit_test(far_positions),
};
KERNELS_MAIN(kernels, setup, tests)
