// The small kernels: rows of activations, routing, the step's end (RoPE: test_rope.c). Each against doubles
// or the bits that it must give, with rows past the count left alone; what a token gets must not depend on
// the batch or the grid.
#include <math.h>

#include "runtime/base/fp.h"
#include "templates/lib/abi.h"
#include "tests/device/forms.h"

// ---- embed ---------------------------------------------------------------------------------------------

enum { VOCAB = 37 };
static const uint32_t embed_hidden[] = {80, 640, 5376};
static const char *const embed_formats[] = {"rows_f32", "rows_bf16", "f16"};
static Forms embeds[COUNT_OF(embed_hidden)][COUNT_OF(embed_formats)];

static void setup_embed(void) {
    for (uint32_t h = 0; h < COUNT_OF(embed_hidden); h++)
        for (uint32_t f = 0; f < COUNT_OF(embed_formats); f++)
            embeds[h][f] = forms_of(line("embed hidden=%u vocab=%d scale=25.25 format=%s", embed_hidden[h],
                                         VOCAB, embed_formats[f]),
                                    1, 8, 0, 0);
}

static void embed_case(const Forms *forms, uint32_t hidden, uint32_t format) {
    enum { TOKENS = 7 };
    static const int32_t ids[TOKENS] = {0, 36, 16, 15, -1, VOCAB, 5};
    float *rows = random_rows(hidden, (size_t)VOCAB * hidden);
    uint16_t *rows16 = test_alloc((size_t)VOCAB * hidden * 2);
    for (size_t i = 0; i < (size_t)VOCAB * hidden; i++) {
        if (format == 1) rows16[i] = f32_to_bf16(rows[i]), rows[i] = bf16_to_f32(rows16[i]);
        if (format == 2) rows[i] = f16_to_f32(f32_to_f16(rows[i]));
    }
    TestTiles tiles = tiles_of_values(rows, 1, VOCAB, hidden, false);
    void *table = format == 2   ? device_copy(tiles.packed, tiles.packed_bytes)
                  : format == 1 ? device_copy(rows16, (size_t)VOCAB * hidden * 2)
                                : device_copy(rows, (size_t)VOCAB * hidden * 4);
    void *row_scale = device_copy(tiles.row_scale, VOCAB * sizeof(float)), *counts = device_counts(0, 0);
    void *all_ids = device_copy(ids, sizeof ids), *out = device_fill(TOKENS * hidden * sizeof(float));
    for (uint32_t f = 0; f < forms->n; f++) {
        const uint32_t n = MIN(forms->bucket[f], TOKENS - 1u);
        device_write(counts, &n, sizeof n), device_wipe(out);
        void *args[] = {table, row_scale, all_ids, out, counts};
        device_run(forms->kernel[f], args, COUNT_OF(args));
        const float *got = device_read(out);
        for (uint32_t t = 0; t < n; t++)
            for (uint32_t i = 0; i < hidden; i++) {
                bool known = ids[t] >= 0 && ids[t] < VOCAB;
                float want = known ? rows[(uint32_t)ids[t] * hidden + i] * 25.25f : 0;
                if (got[t * hidden + i] != want)
                    check_fail("%s: token %u column %u is %g, expected %g", device_spec(forms->kernel[f]), t,
                               i, (double)got[t * hidden + i], (double)want);
            }
        check_untouched("rows past the count", got, (size_t)n * hidden * 4, TOKENS * hidden * 4ull);
    }
}

static void embed_rows(void **state) {
    (void)state;
    for (uint32_t h = 0; h < COUNT_OF(embed_hidden); h++)
        for (uint32_t f = 0; f < COUNT_OF(embed_formats); f++, device_drop_all())
            embed_case(&embeds[h][f], embed_hidden[h], f);
}

// ---- norm_add ------------------------------------------------------------------------------------------

typedef struct {
    uint32_t hidden, has_branch, has_post, has_out, wide, next_bytes;
    Forms forms;
} Norm;
static Norm norms[] = {
    {.hidden = 4096, .has_branch = 1, .has_out = 1, .next_bytes = NEXT_BYTES},
    {.hidden = 5376, .has_branch = 1, .has_post = 1, .has_out = 1, .next_bytes = NEXT_BYTES},
    {.hidden = 2048, .has_branch = 1, .has_out = 1, .wide = 1},
    {.hidden = 1152, .has_out = 1},
    {.hidden = 640, .has_branch = 1, .has_post = 1},
    {.hidden = 48, .has_branch = 1, .has_post = 1, .has_out = 1, .wide = 1},
    {.hidden = 16, .has_branch = 1},
    {.hidden = 12288, .has_branch = 1, .has_post = 1, .has_out = 1},
};

static void setup_norm(void) {
    for (uint32_t i = 0; i < COUNT_OF(norms); i++) {
        Norm *n = &norms[i];
        n->forms = forms_of(line("norm_add hidden=%u eps=1e-6 has_branch=%u has_post=%u has_out=%u wide=%u "
                                 "count=1 out_pitch=%u next_bytes=%u",
                                 n->hidden, n->has_branch, n->has_post, n->has_out, n->wide,
                                 n->has_out ? act_pitch(n->hidden, n->wide) : 0, n->next_bytes),
                            1, 8, 1024, 0);
    }
}

enum { NORM_ROWS = 5 };
typedef struct {
    const Norm *of;
    float *residual, *branch, *post, *w; // on the host
    void *d_residual, *d_branch, *d_post, *d_w, *d_out, *d_next, *counts;
    size_t pitch;
} NormRun;

static NormRun norm_data(const Norm *n, uint64_t seed) {
    const size_t all = (size_t)NORM_ROWS * n->hidden;
    NormRun r = {.of = n, .pitch = n->has_out ? act_pitch(n->hidden, n->wide) : 0};
    r.residual = random_rows(seed, all), r.branch = random_rows(seed + 1, all);
    r.post = random_rows(seed + 2, n->hidden), r.w = random_rows(seed + 3, n->hidden);
    r.d_residual = device_fill(all * sizeof(float));
    r.d_branch = device_copy(r.branch, all * sizeof(float));
    r.d_post = device_copy(r.post, n->hidden * sizeof(float));
    r.d_w = device_copy(r.w, n->hidden * sizeof(float));
    r.d_out = device_fill(NORM_ROWS * r.pitch);
    r.d_next = device_fill(NEXT_BYTES);
    r.counts = device_counts(0, 0);
    return r;
}

// Rows [first, first + n) as a whole batch.
static void norm_run(NormRun *r, uint32_t form, uint32_t first, uint32_t n, uint32_t grid) {
    const Norm *o = r->of;
    const size_t skip = (size_t)first * o->hidden;
    device_wipe(r->d_residual), device_wipe(r->d_out);
    device_write(r->d_residual, r->residual, (size_t)NORM_ROWS * o->hidden * sizeof(float));
    device_write(r->counts, (uint32_t[2]){0, n}, 8); // count=1: rows
    void *args[] = {(float *)r->d_residual + skip,
                    o->has_branch ? (float *)r->d_branch + skip : NULL,
                    o->has_post ? r->d_post : NULL,
                    o->has_out ? r->d_w : NULL,
                    o->has_out ? (uint8_t *)r->d_out + first * r->pitch : NULL,
                    r->counts,
                    r->d_next};
    device_run_grid(o->forms.kernel[form], args, COUNT_OF(args),
                    grid ? grid : device_choice(o->forms.kernel[form])->grid);
}

// What the first `n` rows must be; anomalies too.
static void norm_check(const NormRun *r, const char *what, uint32_t n) {
    const Norm *o = r->of;
    const uint32_t h = o->hidden;
    const float *residual = device_read(r->d_residual);
    const uint8_t *out = device_read(r->d_out);
    double *sum = test_alloc(h * sizeof *sum), *want = test_alloc(h * sizeof *want);
    for (uint32_t t = 0; t < NORM_ROWS; t++) {
        for (uint32_t i = 0; i < h; i++) sum[i] = (double)r->branch[t * h + i];
        if (o->has_post) norm_reference(sum, r->post, h, sum);
        for (uint32_t i = 0; i < h; i++)
            sum[i] = (double)r->residual[t * h + i] + (o->has_branch && t < n ? sum[i] : 0);
        check_close(what, residual + t * h, sum, h, 1e-6);
        if (!o->has_out || t >= n) continue;
        norm_reference(sum, r->w, h, want);
        check_acts(what, out + t * r->pitch, want, 1, h, (uint32_t)r->pitch, 6e-4);
        if (o->wide)
            check_close(what, (const float *)(const void *)(out + t * r->pitch + act_pitch(h, false)), want,
                        h, 2e-6);
    }
    check_untouched(what, out, n * r->pitch, NORM_ROWS * r->pitch);
}

static void norm_forms(void **state) {
    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(norms); i++, device_drop_all()) {
        NormRun r = norm_data(&norms[i], 10 * i + 1);
        memset(r.residual, 0, norms[i].hidden * sizeof(float)); // a row of zeros
        for (uint32_t f = 0; f < norms[i].forms.n; f++) {
            const uint32_t n = MIN(norms[i].forms.bucket[f], NORM_ROWS - 1u);
            norm_run(&r, f, 0, n, 0);
            norm_check(&r, device_spec(norms[i].forms.kernel[f]), n);
        }
    }
}

static void norm_bits_do_not_depend_on_the_batch(void **state) {
    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(norms); i++, device_drop_all()) {
        const Norm *o = &norms[i];
        NormRun r = norm_data(o, 100 + i);
        norm_run(&r, 2, 0, NORM_ROWS, 0);
        const float *residual = device_read(r.d_residual);
        const uint8_t *out = device_read(r.d_out);
        for (uint32_t t = 0; t < NORM_ROWS; t++) { // each alone, then all in a loop of one block
            norm_run(&r, 0, t, 1, 0);
            check_bits("residual alone", (float *)device_read(r.d_residual) + t * o->hidden,
                       residual + t * o->hidden, o->hidden * sizeof(float));
            check_bits("out alone", (uint8_t *)device_read(r.d_out) + t * r.pitch, out + t * r.pitch,
                       r.pitch);
        }
        norm_run(&r, 1, 0, NORM_ROWS, 1);
        check_bits("residual, one block", device_read(r.d_residual), residual,
                   (size_t)NORM_ROWS * o->hidden * sizeof(float));
        check_bits("out, one block", device_read(r.d_out), out, NORM_ROWS * r.pitch);
    }
}

static void norm_keeps_anomalies(void **state) {
    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(norms); i++, device_drop_all()) {
        const uint32_t h = norms[i].hidden;
        NormRun r = norm_data(&norms[i], 200 + i);
        r.residual[1] = NAN, r.residual[h] = -NAN, r.residual[2 * h + 3] = INFINITY;
        r.residual[3 * h] = 3e38f; // its square overflows: the norm gives zeros
        norm_run(&r, 1, 0, NORM_ROWS, 0);
        if (!norms[i].has_out) continue;
        double *value = test_alloc(NORM_ROWS * h * sizeof *value);
        acts_values(device_read(r.d_out), NORM_ROWS, h, (uint32_t)r.pitch, value);
        assert_true(isnan(value[1]) && isnan(value[h]) && isnan(value[2 * h + 3]));
        assert_true(value[3 * h] == 0 && value[3 * h + 1] == 0 && isfinite(value[4 * h]));
    }
}

// ---- act_mul -------------------------------------------------------------------------------------------

static const uint32_t act_widths[] = {21, 40, 320, 12288, 21504};
static Forms acts[COUNT_OF(act_widths)][2];

static void setup_act(void) {
    for (uint32_t i = 0; i < COUNT_OF(act_widths); i++)
        for (uint32_t gelu = 0; gelu < 2; gelu++)
            acts[i][gelu] = forms_of(line("act_mul f=%u act=%s out_pitch=%u", act_widths[i],
                                          gelu ? "gelu_tanh" : "silu", act_pitch(act_widths[i], false)),
                                     1, 8, 0, 0);
}

static double act_reference(double g, bool gelu) {
    double u = 0.79788456080286535588 * (g + 0.044715 * g * g * g);
    return gelu ? 0.5 * g * (1 + tanh(u)) : g / (1 + exp(-g));
}

static void act_case(const Forms *forms, uint32_t f, bool gelu) {
    enum { TOKENS = 4 };
    float *x = random_rows(f, (size_t)TOKENS * 2 * f);
    double *want = test_alloc((size_t)TOKENS * f * sizeof *want);
    for (uint32_t i = 0; i < f; i++) x[2 * f + i] = 0; // token 1: zeros
    x[4 * f + 1] = 1e4f, x[4 * f + 2] = -1e4f;         // ends of the exponential
    for (uint32_t t = 0; t < TOKENS; t++)
        for (uint32_t i = 0; i < f; i++)
            want[t * f + i] = act_reference((double)x[t * 2 * f + i], gelu) * (double)x[t * 2 * f + f + i];
    const uint32_t pitch = act_pitch(f, false);
    void *d_x = device_copy(x, (size_t)TOKENS * 2 * f * 4), *out = device_fill(TOKENS * pitch),
         *counts = device_counts(0, 0);
    uint8_t *alone = test_alloc(pitch);
    for (uint32_t i = 0; i < forms->n; i++) {
        const uint32_t n = MIN(forms->bucket[i], TOKENS - 1u);
        device_write(counts, &n, sizeof n), device_wipe(out);
        void *args[] = {d_x, out, counts};
        device_run_grid(forms->kernel[i], args, COUNT_OF(args), 1 + i);
        const uint8_t *got = device_read(out);
        check_acts(device_spec(forms->kernel[i]), got, want, n, f, pitch, 6e-4);
        check_untouched("rows past the count", got, (size_t)n * pitch, (size_t)TOKENS * pitch);
        if (i) check_bits("token 0 in a batch", got, alone, pitch);
        memcpy(alone, got, pitch);
    }
}

static void act_mul_values(void **state) {
    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(act_widths); i++)
        for (uint32_t gelu = 0; gelu < 2; gelu++, device_drop_all())
            act_case(&acts[i][gelu], act_widths[i], gelu);
}

// ---- gather_rows ---------------------------------------------------------------------------------------

enum { GATHER_HIDDEN = 144 };
static Forms gathers[2];

static void setup_gather(void) {
    for (uint32_t wide = 0; wide < 2; wide++)
        gathers[wide] =
            forms_of(line("gather_rows hidden=%d x_pitch=%u", GATHER_HIDDEN, act_pitch(GATHER_HIDDEN, wide)),
                     1, 8, 0, 0);
}

static void gather_copies(void **state) {
    (void)state;
    enum { TOKENS = 11, ROWS = 4 };
    static const int32_t rows[ROWS] = {10, 0, 7, 3};
    for (uint32_t wide = 0; wide < 2; wide++, device_drop_all()) {
        TestActs x = acts_of(random_rows(5, TOKENS * GATHER_HIDDEN), TOKENS, GATHER_HIDDEN,
                             act_pitch(GATHER_HIDDEN, wide), wide);
        void *d_x = device_copy(x.rows, x.bytes), *d_rows = device_copy(rows, sizeof rows),
             *out = device_fill(ROWS * x.pitch), *counts = device_counts(0, 0);
        for (uint32_t f = 0; f < gathers[wide].n; f++) {
            const uint32_t n = MIN(gathers[wide].bucket[f], ROWS - 1u);
            device_write(counts, (uint32_t[2]){TOKENS, n}, 8), device_wipe(out);
            void *args[] = {d_x, d_rows, out, counts};
            device_run(gathers[wide].kernel[f], args, COUNT_OF(args));
            const uint8_t *got = device_read(out);
            for (uint32_t r = 0; r < n; r++)
                check_bits("a gathered row", got + r * x.pitch, x.rows + (uint32_t)rows[r] * x.pitch,
                           x.pitch);
            check_untouched("rows past the count", got, n * x.pitch, ROWS * x.pitch);
        }
    }
}

// ---- quantize_rows -------------------------------------------------------------------------------------

static const struct {
    uint32_t k, each, wide;
} quantized[] = {{640, 1, 0}, {144, 3, 0}, {48, 1, 1}, {5376, 1, 0}};
static Forms quantizes[COUNT_OF(quantized)];

static void setup_quantize(void) {
    for (uint32_t i = 0; i < COUNT_OF(quantized); i++)
        quantizes[i] =
            forms_of(line("quantize_rows k=%u rows_each=%u count=%u x_pitch=%u out_pitch=%u", quantized[i].k,
                          quantized[i].each, i % 2, act_pitch(quantized[i].k, quantized[i].wide),
                          e4m3_pitch(quantized[i].k)),
                     1, 8, 0, 0);
}

// The row that the definition asks for, bit for bit: its values are exact in fp32.
static void check_quantized(const char *what, const uint8_t *row, const double *x, uint32_t k) {
    float most = 0, meta[4];
    double l1 = 0;
    memcpy(meta, row + e4m3_pitch(k) - sizeof meta, sizeof meta);
    for (uint32_t i = 0; i < k; i++) most = fmaxf(most, fabsf((float)x[i]));
    const float inverse = most > 0 ? 448 / most : 0, scale = most / 448;
    for (uint32_t i = 0; i < k; i++) {
        const uint8_t want = f32_to_e4m3((float)x[i] * inverse), got = row[e4m3_at(i)];
        if (got != want) check_fail("%s: column %u is 0x%02x, expected 0x%02x", what, i, got, want);
        l1 += fabs((double)(e4m3_to_f32(want) * scale));
    }
    for (uint32_t i = k; i < e4m3_pitch(k) - sizeof meta; i++)
        if (row[e4m3_at(i)]) check_fail("%s: column %u behind the row is not 0", what, i);
    if (f32_bits(meta[0]) != f32_bits(scale))
        check_fail("%s: the scale is %g, expected %g", what, (double)meta[0], (double)scale);
    if (!((double)meta[1] >= l1)) check_fail("%s: l1 is %g, below %g", what, (double)meta[1], l1);
}

static void quantize_rounds(void **state) {
    (void)state;
    for (uint32_t q = 0; q < COUNT_OF(quantized); q++, device_drop_all()) {
        enum { TOKENS = 6 };
        const uint32_t k = quantized[q].k, each = quantized[q].each, rows = TOKENS * each,
                       pitch = e4m3_pitch(k);
        float *values = random_rows(20 + q, (size_t)rows * k);
        memset(values + (size_t)each * k, 0, k * sizeof *values); // the first row of token 1
        TestActs x = acts_of(values, rows, k, act_pitch(k, quantized[q].wide), quantized[q].wide);
        const uint16_t nan = 0x7E00;
        memcpy(x.rows + (size_t)2 * each * x.pitch + 6, &nan, 2); // of token 2: the row is NaN
        void *d_x = device_copy(x.rows, x.bytes), *out = device_fill((size_t)rows * pitch),
             *counts = device_counts(0, 0);
        for (uint32_t f = 0; f < quantizes[q].n; f++) {
            const uint32_t n = MIN(quantizes[q].bucket[f], TOKENS - 1u);
            const char *what = device_spec(quantizes[q].kernel[f]);
            device_write(counts, (uint32_t[2]){q % 2 ? 0 : n, q % 2 ? n : 0}, 8), device_wipe(out);
            void *args[] = {d_x, out, counts};
            device_run(quantizes[q].kernel[f], args, COUNT_OF(args));
            const uint8_t *got = device_read(out);
            for (uint32_t r = 0; r < n * each; r++)
                if (r != 2 * each)
                    check_quantized(what, got + (size_t)r * pitch, x.value + (size_t)r * k, k);
                else if (got[(size_t)r * pitch + e4m3_at(3)] % 128 != 127)
                    check_fail("%s: a NaN became a number", what);
            check_untouched("rows past the count", got, (size_t)n * each * pitch, (size_t)rows * pitch);
        }
    }
}

// norm_add's own E4M3 rows: scale and values of the row as doubles say, each within half a step of its code.
static const uint32_t normed[] = {640, 4096, 5376};
static Forms norm_quantizes[COUNT_OF(normed)];

static void setup_norm_quantize(void) {
    for (uint32_t i = 0; i < COUNT_OF(normed); i++)
        norm_quantizes[i] = forms_of(line("norm_add hidden=%u eps=1e-6 has_out=1 out_pitch=%u e4m3=1",
                                          normed[i], e4m3_pitch(normed[i])),
                                     1, 8, 0, 0);
}

static void check_normed(const char *what, const uint8_t *row, const double *want, uint32_t k) {
    double most = 0;
    float scale;
    memcpy(&scale, row + e4m3_pitch(k) - 16, 4);
    for (uint32_t i = 0; i < k; i++) most = fmax(most, fabs(want[i]));
    if (fabs((double)scale * 448 - most) > 1e-5 * most)
        check_fail("%s: the scale is %g, expected %g", what, (double)scale, most / 448);
    for (uint32_t i = 0; i < k; i++) {
        double got = (double)e4m3_to_f32(row[e4m3_at(i)]) * (double)scale;
        double half_step = fmax(fabs(want[i]) / 16, (double)scale * 0x1p-10) * 1.0001;
        if (!(fabs(got - want[i]) <= half_step))
            check_fail("%s: column %u is %g, expected %g", what, i, got, want[i]);
    }
}

static void norms_quantize(void **state) {
    (void)state;
    enum { TOKENS = 5 };
    for (uint32_t c = 0; c < COUNT_OF(normed); c++, device_drop_all()) {
        const uint32_t h = normed[c], pitch = e4m3_pitch(h);
        float *x = random_rows(60 + c, (size_t)TOKENS * h), *w = random_rows(70 + c, h);
        double *row = test_alloc(h * sizeof *row), *want = test_alloc(h * sizeof *want);
        void *residual = device_copy(x, (size_t)TOKENS * h * 4), *d_w = device_copy(w, h * 4),
             *out = device_fill((size_t)TOKENS * pitch), *counts = device_counts(0, 0);
        for (uint32_t f = 0; f < norm_quantizes[c].n; f++) {
            const uint32_t n = MIN(norm_quantizes[c].bucket[f], TOKENS - 1u);
            device_write(counts, &n, sizeof n), device_wipe(out);
            void *args[] = {residual, NULL, NULL, d_w, out, counts, NULL};
            device_run(norm_quantizes[c].kernel[f], args, COUNT_OF(args));
            const uint8_t *got = device_read(out);
            for (uint32_t t = 0; t < n; t++) {
                for (uint32_t i = 0; i < h; i++) row[i] = (double)x[t * h + i];
                norm_reference(row, w, h, want);
                check_normed(device_spec(norm_quantizes[c].kernel[f]), got + (size_t)t * pitch, want, h);
            }
            check_untouched("rows past the count", got, (size_t)n * pitch, (size_t)TOKENS * pitch);
        }
    }
}

// ---- linear_f32 ----------------------------------------------------------------------------------------

typedef struct {
    uint32_t n, k, stride, has_bias, wide;
    float cap;
    Forms forms;
} Router;
static Router routers[] = {
    {128, 2048, 128, 0, 1, 0, {{0}, {0}, 0}},
    {5, 48, 7, 1, 0, 30, {{0}, {0}, 0}},
    {70, 5376, 70, 0, 0, 0, {{0}, {0}, 0}},
};

static void setup_router(void) {
    for (uint32_t i = 0; i < COUNT_OF(routers); i++) {
        Router *r = &routers[i];
        const char *spec =
            line("linear_f32 n=%u k=%u out_stride=%u has_bias=%u softcap=%g wide=%u x_pitch=%u", r->n, r->k,
                 r->stride, r->has_bias, (double)r->cap, r->wide, act_pitch(r->k, r->wide));
        r->forms = forms_of(spec, 1, 8, 64, 1024);
        forms_add_by_hand(&r->forms, spec, "threads=128 grid=3", 1024);
        forms_add_by_hand(&r->forms, spec, "threads=256 grid=2", 1024); // 4 rows and 4 tokens a warp
    }
}

static double router_value(const Router *r, const float *w, const double *x, float bias) {
    double sum = 0;
    for (uint32_t c = 0; c < r->k; c++) sum += (double)w[c] * x[c];
    sum += r->has_bias ? (double)bias : 0;
    return r->cap != 0 ? (double)r->cap * tanh(sum / (double)r->cap) : sum;
}

enum { ROUTER_TOKENS = 70 };
static double *router_expected(const Router *r, const TestActs *x, const float *raw, const float *w,
                               const float *bias) {
    double *want = test_alloc((size_t)ROUTER_TOKENS * r->n * sizeof *want),
           *row = test_alloc(r->k * sizeof *row);
    for (uint32_t t = 0; t < ROUTER_TOKENS; t++) {
        for (uint32_t c = 0; c < r->k; c++)
            row[c] = r->wide ? (double)raw[t * r->k + c] : x->value[t * r->k + c];
        for (uint32_t i = 0; i < r->n; i++)
            want[t * r->n + i] = router_value(r, w + (size_t)i * r->k, row, bias[i]);
    }
    return want;
}

static void router_case(const Router *r, uint64_t seed) {
    const float *raw = random_rows(seed, (size_t)ROUTER_TOKENS * r->k),
                *w = random_rows(seed + 1, r->n * r->k), *bias = random_rows(seed + 2, r->n);
    TestActs x = acts_of(raw, ROUTER_TOKENS, r->k, act_pitch(r->k, r->wide), r->wide);
    const double *want = router_expected(r, &x, raw, w, bias);
    void *d_x = device_copy(x.rows, x.bytes), *d_w = device_copy(w, 4ull * r->n * r->k),
         *d_bias = device_copy(bias, 4 * r->n), *counts = device_counts(0, 0),
         *out = device_fill(4ull * ROUTER_TOKENS * r->stride);
    const float *first = NULL;
    for (uint32_t f = r->forms.n; f-- > 0;) { // the largest first: all others must repeat its bits
        const uint32_t n = MIN(r->forms.bucket[f], ROUTER_TOKENS - 1u);
        device_write(counts, &n, sizeof n), device_wipe(out);
        void *args[] = {d_x, d_w, r->has_bias ? d_bias : NULL, out, counts};
        device_run(r->forms.kernel[f], args, COUNT_OF(args));
        const float *got = device_read(out);
        for (uint32_t t = 0; t < n; t++) {
            check_close(device_spec(r->forms.kernel[f]), got + t * r->stride, want + t * r->n, r->n, 1e-5);
            check_untouched("columns past n", got + t * r->stride, 4 * r->n, 4 * r->stride);
            if (first) check_bits("forms", got + t * r->stride, first + t * r->stride, 4 * r->n);
        }
        check_untouched("rows past the count", got, 4ull * n * r->stride, 4ull * ROUTER_TOKENS * r->stride);
        if (!first) first = got;
    }
}

static void router_forms_agree(void **state) {
    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(routers); i++, device_drop_all()) router_case(&routers[i], 70 + 3 * i);
}

// ---- moe_route -----------------------------------------------------------------------------------------

typedef struct {
    uint32_t experts, k, norm;
    Forms forms;
} Route;
static Route routes[] = {{128, 8, 1, {{0}, {0}, 0}},
                         {512, 32, 0, {{0}, {0}, 0}},
                         {5, 5, 1, {{0}, {0}, 0}},
                         {40, 3, 0, {{0}, {0}, 0}}};

static void setup_route(void) {
    for (uint32_t i = 0; i < COUNT_OF(routes); i++)
        routes[i].forms = forms_of(
            line("moe_route experts=%u k=%u norm=%u", routes[i].experts, routes[i].k, routes[i].norm), 1, 8,
            1024, 0);
}

static bool route_before(const float *l, uint32_t a, uint32_t b) {
    return l[a] > l[b] || (l[a] == l[b] && a < b);
}

static void check_route(const Route *r, const float *l, const int32_t *ids, const float *weights) {
    double all = 0, chosen = 0, want[32];
    for (uint32_t e = 0; e < r->experts; e++) all += exp((double)l[e] - (double)l[ids[0]]);
    for (uint32_t j = 0; j < r->k; j++) {
        uint32_t before = 0;
        for (uint32_t e = 0; e < r->experts; e++) before += route_before(l, e, (uint32_t)ids[j]);
        if (before != j) check_fail("expert %d is choice %u, expected %u", ids[j], j, before);
        chosen += want[j] = exp((double)l[ids[j]] - (double)l[ids[0]]) / all;
    }
    for (uint32_t j = 0; j < r->k && r->norm; j++) want[j] /= chosen;
    check_close("weights of experts", weights, want, r->k, 3e-6);
}

static void check_route_of_nan(const Route *r, const int32_t *ids, const float *weights) {
    for (uint32_t j = 0; j < r->k; j++) {
        assert_in_range(ids[j], 0, r->experts - 1);
        assert_true(isnan(weights[j]));
        for (uint32_t i = 0; i < j; i++) assert_int_not_equal(ids[i], ids[j]);
    }
}

static void route_picks(void **state) {
    (void)state;
    enum { TOKENS = 8, NANS = 2 };
    for (uint32_t i = 0; i < COUNT_OF(routes); i++, device_drop_all()) {
        const Route *r = &routes[i];
        float *l = test_alloc(TOKENS * r->experts * sizeof *l);
        random_fill(80 + i, l, TOKENS * r->experts, 3);
        for (uint32_t e = 0; e < r->experts; e++) l[e] = e % 2 ? 1 : 3; // ties: the lowest first
        for (uint32_t e = 0; e < r->experts; e++) l[r->experts + e] = e % 3 ? -0.0f : 0.0f;
        for (uint32_t e = 0; e < r->experts; e++) l[NANS * r->experts + e] = e % 2 ? -NAN : NAN;
        void *d_l = device_copy(l, TOKENS * r->experts * sizeof *l), *counts = device_counts(0, 0),
             *d_ids = device_fill(4ull * TOKENS * r->k), *d_weights = device_fill(4ull * TOKENS * r->k);
        for (uint32_t f = 0; f < r->forms.n; f++) {
            const uint32_t n = MIN(r->forms.bucket[f], TOKENS - 1u);
            device_write(counts, &n, sizeof n), device_wipe(d_ids), device_wipe(d_weights);
            void *args[] = {d_l, d_ids, d_weights, counts};
            device_run(r->forms.kernel[f], args, COUNT_OF(args));
            const int32_t *ids = device_read(d_ids);
            const float *weights = device_read(d_weights);
            for (uint32_t t = 0; t < n; t++)
                if (t == NANS)
                    check_route_of_nan(r, ids + t * r->k, weights + t * r->k);
                else
                    check_route(r, l + t * r->experts, ids + t * r->k, weights + t * r->k);
            check_untouched("ids past the count", ids, 4ull * n * r->k, 4ull * TOKENS * r->k);
            check_untouched("weights past the count", weights, 4ull * n * r->k, 4ull * TOKENS * r->k);
        }
    }
}

// ---- moe_combine ---------------------------------------------------------------------------------------

static const struct {
    uint32_t topk, n, add;
} combine_shapes[] = {{8, 2048, 0}, {8, 2048, 1}, {3, 50, 0}, {3, 50, 1}, {1, 16, 0}};
static Forms combines[COUNT_OF(combine_shapes)];

static void setup_combine(void) {
    for (uint32_t i = 0; i < COUNT_OF(combine_shapes); i++)
        combines[i] = forms_of(line("moe_combine topk=%u n=%u add=%u", combine_shapes[i].topk,
                                    combine_shapes[i].n, combine_shapes[i].add),
                               1, 8, 1024, 0);
}

// The order of the sum is given: equal bits, wherever fp32 has fma.
static void combine_sums(void **state) {
    (void)state;
    enum { TOKENS = 6 };
    for (uint32_t i = 0; i < COUNT_OF(combine_shapes); i++, device_drop_all()) {
        const uint32_t k = combine_shapes[i].topk, n = combine_shapes[i].n;
        const float *parts = random_rows(90 + i, (size_t)TOKENS * k * n),
                    *weights = random_rows(95 + i, TOKENS * k), *before = random_rows(97 + i, TOKENS * n);
        void *d_parts = device_copy(parts, 4ull * TOKENS * k * n),
             *d_weights = device_copy(weights, 4ull * TOKENS * k), *out = device_fill(4ull * TOKENS * n),
             *counts = device_counts(0, 0);
        for (uint32_t f = 0; f < combines[i].n; f++) {
            const uint32_t tokens = MIN(combines[i].bucket[f], TOKENS - 1u);
            device_write(counts, &tokens, 4), device_wipe(out);
            if (combine_shapes[i].add) device_write(out, before, 4ull * tokens * n);
            void *args[] = {d_parts, d_weights, out, counts};
            device_run(combines[i].kernel[f], args, COUNT_OF(args));
            const float *got = device_read(out);
            for (uint32_t t = 0; t < tokens; t++)
                for (uint32_t c = 0; c < n; c++) {
                    float want = 0;
                    for (uint32_t j = 0; j < k; j++)
                        want = fmaf(weights[t * k + j], parts[(t * k + j) * n + c], want);
                    if (combine_shapes[i].add) want = before[t * n + c] + want;
                    if (got[t * n + c] != want) check_fail("topk %u: token %u column %u", k, t, c);
                }
            check_untouched("rows past the count", got, 4ull * tokens * n, 4ull * TOKENS * n);
        }
    }
}

// ---- advance -------------------------------------------------------------------------------------------

enum { ROWS_MAX = 70 };
static uint32_t advance_id;

static void advance_moves_on(void **state) {
    (void)state;
    static int32_t next[ROWS_MAX], pos[ROWS_MAX];
    static uint32_t status[ROWS_MAX];
    for (uint32_t r = 0; r < ROWS_MAX; r++)
        next[r] = (int32_t)(1000 + r), pos[r] = (int32_t)r * 3, status[r] = r % 5 == 0;
    const size_t slot_bytes = RING_SLOT_BYTES(ROWS_MAX);
    void *d_next = device_copy(next, sizeof next), *ids = device_fill(sizeof next),
         *d_pos = device_copy(pos, sizeof pos), *d_status = device_copy(status, sizeof status),
         *ring = device_fill(RING_SLOTS * slot_bytes);
    const uint32_t n = ROWS_MAX - 3, step = RING_SLOTS * 5 + 2;
    void *counts = device_copy((uint32_t[4]){n, n, step, 77}, 16);
    void *args[] = {d_next, ids, d_pos, counts, d_status, ring};
    device_run(advance_id, args, COUNT_OF(args));
    const int32_t *got_ids = device_read(ids), *got_pos = device_read(d_pos);
    const uint32_t *got_counts = device_read(counts);
    const uint8_t *slots = device_read(ring), *slot = slots + 2 * slot_bytes;
    for (uint32_t r = 0; r < ROWS_MAX; r++) {
        assert_int_equal(got_ids[r], r < n ? next[r] : -1);
        assert_int_equal(got_pos[r], pos[r] + (r < n));
    }
    check_bits("counts", got_counts, (uint32_t[4]){n, n, step + 1, 77}, 16);
    check_bits("done", slot, (uint32_t[1]){step + 1}, 4);
    check_bits("tokens", slot + sizeof(RingSlot), next, n * 4);
    check_bits("status", slot + sizeof(RingSlot) + 4 * ROWS_MAX, status, n * 4);
    check_untouched("other slots", slots, 0, 2 * slot_bytes);
    check_untouched("other slots", slots, 3 * slot_bytes, RING_SLOTS * slot_bytes);
}

// ---- all -----------------------------------------------------------------------------------------------

static void setup(void) {
    setup_embed(), setup_norm(), setup_act(), setup_gather(), setup_quantize(), setup_norm_quantize(),
        setup_router(), setup_route();
    setup_combine();
    advance_id = device_add("advance rows_max=%d @ 64", ROWS_MAX);
}

static const struct CMUnitTest tests[] = {
    device_test(embed_rows),
    device_test(norm_forms),
    device_test(norm_bits_do_not_depend_on_the_batch),
    device_test(norm_keeps_anomalies),
    device_test(act_mul_values),
    device_test(gather_copies),
    device_test(quantize_rounds),
    device_test(norms_quantize),
    device_test(router_forms_agree),
    device_test(route_picks),
    device_test(combine_sums),
    device_test(advance_moves_on),
};
DEVICE_MAIN(setup, tests)
