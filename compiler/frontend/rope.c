#include "compiler/frontend/rope.h"

#include <math.h>

#include "runtime/base/num.h"

static const char *const kind_names[] = {"default", "linear", "llama3", "yarn"};

// The objects in which a parameter is looked for, first match wins.
typedef struct {
    const Source *src;
    const Json *places[2]; // rope_scaling, rope_parameters or its part for this layer type
    const Json *config;    // top level
    Diags *diags;
} Reader;

static const Json *find(const Reader *r, const char *key) {
    for (size_t i = 0; i < COUNT_OF(r->places); i++) {
        const Json *j = json_get(r->places[i], key);
        if (!json_absent(j)) return j;
    }
    return NULL;
}

static bool number(const Reader *r, const Json *j, const char *key, double min, double max, double *out) {
    if (j->kind != JSON_INT && j->kind != JSON_REAL)
        return diag_error(r->diags, E_CONFIG_VALUE, json_span(r->src, j), "`%s` must be a number, not %s",
                          key, json_kind_name(j->kind));
    *out = json_number(j);
    if (*out >= min && *out <= max) return true;
    return diag_error(r->diags, E_CONFIG_VALUE, json_span(r->src, j),
                      "`%s` must be from %g to %g, not " STR_FMT, key, min, max, (int)MIN(j->s.len, 40),
                      j->s.ptr);
}

static bool optional(const Reader *r, const char *key, double min, double max, double *out) {
    const Json *j = find(r, key);
    return !j || number(r, j, key, min, max, out);
}

static Span place_of(const Reader *r) {
    for (size_t i = 0; i < COUNT_OF(r->places); i++)
        if (r->places[i]) return json_span(r->src, r->places[i]);
    return SPAN_FILE(r->src);
}

static bool required(const Reader *r, RopeKind kind, const char *key, double min, double max, double *out) {
    const Json *j = find(r, key);
    if (j) return number(r, j, key, min, max, out);
    return diag_error(r->diags, E_CONFIG_MISSING, place_of(r), "RoPE of type `%s` needs `%s`",
                      kind_names[kind], key);
}

static bool read_kind(const Reader *r, RopeKind *out) {
    const Json *j = find(r, "rope_type");
    if (!j) j = find(r, "type");
    *out = ROPE_DEFAULT;
    if (!j && !find(r, "factor")) return true;
    if (!j)
        return diag_error(r->diags, E_CONFIG_MISSING, place_of(r),
                          "RoPE is scaled by `factor`, but `rope_type` does not say how");
    if (j->kind != JSON_STRING)
        return diag_error(r->diags, E_CONFIG_VALUE, json_span(r->src, j),
                          "`rope_type` must be a string, not %s", json_kind_name(j->kind));
    for (size_t i = 0; i < COUNT_OF(kind_names); i++) {
        *out = (RopeKind)i;
        if (str_is(j->s, kind_names[i])) return true;
    }
    diag_error(r->diags, E_CONFIG_UNSUPPORTED, json_span(r->src, j),
               "RoPE of type `" STR_FMT "` is not supported; supported are default, linear, llama3, yarn",
               (int)MIN(j->s.len, 40), j->s.ptr);
    diag_did_you_mean(r->diags, j->s, kind_names, COUNT_OF(kind_names));
    return false;
}

static bool refuse_others(const Reader *r) {
    const Json *j = find(r, "partial_rotary_factor");
    if (!j) j = json_get(r->config, "partial_rotary_factor");
    double v = 1;
    if (!json_absent(j) && !number(r, j, "partial_rotary_factor", 0, 1, &v)) return false;
    if (v != 1)
        return diag_error(r->diags, E_CONFIG_UNSUPPORTED, json_span(r->src, j),
                          "`partial_rotary_factor` %g is not supported: RoPE must turn whole heads", v);
    if ((j = find(r, "mrope_section")))
        return diag_error(r->diags, E_CONFIG_UNSUPPORTED, json_span(r->src, j),
                          "multimodal RoPE (`mrope_section`) is not supported");
    return true;
}

static bool read_llama3(const Reader *r, RopeSpec *s) {
    bool ok = required(r, s->kind, "low_freq_factor", 1e-3, 1e6, &s->low_freq_factor);
    ok = required(r, s->kind, "high_freq_factor", 1e-3, 1e6, &s->high_freq_factor) && ok;
    ok = required(r, s->kind, "original_max_position_embeddings", 1, 1 << 24, &s->original_max) && ok;
    if (!ok || s->low_freq_factor < s->high_freq_factor) return ok;
    return diag_error(r->diags, E_CONFIG_VALUE, json_span(r->src, find(r, "low_freq_factor")),
                      "`low_freq_factor` %g must be below `high_freq_factor` %g", s->low_freq_factor,
                      s->high_freq_factor);
}

static double yarn_mscale(double factor, double mscale) {
    return factor <= 1 ? 1 : 0.1 * mscale * log(factor) + 1;
}

static bool read_yarn(const Reader *r, double max_position, RopeSpec *s) {
    double mscale = 0, mscale_all_dim = 0, attention_factor = 0;
    s->beta_fast = 32, s->beta_slow = 1, s->truncate = true, s->original_max = max_position;
    bool ok = optional(r, "original_max_position_embeddings", 1, 1 << 24, &s->original_max);
    if (find(r, "factor"))
        ok = required(r, s->kind, "factor", 1, 1e4, &s->factor) && ok;
    else
        s->factor = MAX(max_position / s->original_max, 1);
    ok = optional(r, "beta_fast", 1e-3, 1e6, &s->beta_fast) && ok;
    ok = optional(r, "beta_slow", 1e-3, 1e6, &s->beta_slow) && ok;
    ok = optional(r, "mscale", 0, 1e3, &mscale) && ok;
    ok = optional(r, "mscale_all_dim", 0, 1e3, &mscale_all_dim) && ok;
    ok = optional(r, "attention_factor", 1e-3, 1e3, &attention_factor) && ok;
    const Json *j = find(r, "truncate");
    if (j && j->kind != JSON_BOOL)
        ok = diag_error(r->diags, E_CONFIG_VALUE, json_span(r->src, j),
                        "`truncate` must be a boolean, not %s", json_kind_name(j->kind));
    else if (j)
        s->truncate = j->boolean;
    if (attention_factor != 0)
        s->attention_factor = attention_factor;
    else if (mscale != 0 && mscale_all_dim != 0)
        s->attention_factor = yarn_mscale(s->factor, mscale) / yarn_mscale(s->factor, mscale_all_dim);
    else
        s->attention_factor = yarn_mscale(s->factor, 1);
    return ok;
}

static bool read_spec(const Reader *r, double theta, double max_position, RopeSpec *s) {
    *s = (RopeSpec){.theta = theta, .factor = 1, .attention_factor = 1};
    if (!read_kind(r, &s->kind) || !refuse_others(r)) return false;
    bool ok = optional(r, "rope_theta", 1.001, 1e12, &s->theta);
    switch (s->kind) {
    case ROPE_DEFAULT: return ok;
    case ROPE_LINEAR: return required(r, s->kind, "factor", 1, 1e4, &s->factor) && ok;
    case ROPE_LLAMA3:
        ok = required(r, s->kind, "factor", 1, 1e4, &s->factor) && ok;
        return read_llama3(r, s) && ok;
    case ROPE_YARN: return read_yarn(r, max_position, s) && ok;
    }
    return ok;
}

// NULL where it is absent; *ok becomes false when it is something else than an object.
static const Json *object(const Source *src, const Json *parent, const char *key, bool *ok, Diags *d) {
    const Json *j = json_get(parent, key);
    if (json_absent(j)) return NULL;
    if (j->kind == JSON_OBJECT) return j;
    *ok = diag_error(d, E_CONFIG_VALUE, json_span(src, j), "`%s` must be an object, not %s", key,
                     json_kind_name(j->kind));
    return NULL;
}

bool rope_read(const Source *src, const Json *config, const RopeDefaults *defaults, RopeSpec *full,
               RopeSpec *sliding, Diags *d) {
    bool ok = true, local = defaults->local;
    const Json *scaling = object(src, config, "rope_scaling", &ok, d);
    const Json *params = object(src, config, "rope_parameters", &ok, d);
    bool nested = !json_absent(json_get(params, "full_attention")) ||
                  !json_absent(json_get(params, "sliding_attention"));
    const Json *of_full = params, *of_sliding = local ? NULL : params;
    if (nested) {
        of_full = object(src, params, "full_attention", &ok, d);
        of_sliding = object(src, params, "sliding_attention", &ok, d);
    }
    if (!ok) return false;
    Reader r = {src, {scaling, of_full}, config, d};
    ok = read_spec(&r, defaults->theta, defaults->max_position, full);
    if (!local && !nested) {
        *sliding = *full;
        return ok;
    }
    Reader s = {src, {NULL, of_sliding}, config, d};
    return read_spec(&s, local ? defaults->local_theta : defaults->theta, defaults->max_position, sliding) &&
           ok;
}

// ---- the table -----------------------------------------------------------------------------------------

static double llama3(const RopeSpec *s, double inv) {
    double wavelength = 2 * M_PI / inv;
    if (wavelength < s->original_max / s->high_freq_factor) return inv;
    if (wavelength > s->original_max / s->low_freq_factor) return inv / s->factor;
    double smooth =
        (s->original_max / wavelength - s->low_freq_factor) / (s->high_freq_factor - s->low_freq_factor);
    return ((1 - smooth) / s->factor + smooth) * inv;
}

// The dimension whose wave makes `rotations` turns over the original positions.
static double yarn_dim(const RopeSpec *s, uint32_t head_dim, double rotations) {
    return head_dim * log(s->original_max / (rotations * 2 * M_PI)) / (2 * log(s->theta));
}

static double yarn(const RopeSpec *s, uint32_t head_dim, uint32_t i, double inv) {
    double low = yarn_dim(s, head_dim, s->beta_fast), high = yarn_dim(s, head_dim, s->beta_slow);
    if (s->truncate) low = floor(low), high = ceil(high);
    low = MAX(low, 0), high = MIN(high, head_dim - 1.0);
    if (low == high) high += 0.001;
    double ramp = (i - low) / (high - low);
    ramp = ramp < 0 ? 0 : ramp > 1 ? 1 : ramp;
    return inv / s->factor * ramp + inv * (1 - ramp);
}

void rope_inv_freq(const RopeSpec *s, uint32_t head_dim, float *inv_freq) {
    for (uint32_t i = 0; i < head_dim / 2; i++) {
        double inv = pow(s->theta, -2.0 * i / head_dim);
        switch (s->kind) {
        case ROPE_DEFAULT: break;
        case ROPE_LINEAR: inv /= s->factor; break;
        case ROPE_LLAMA3: inv = llama3(s, inv); break;
        case ROPE_YARN: inv = yarn(s, head_dim, i, inv); break;
        }
        inv_freq[i] = (float)inv;
    }
}
