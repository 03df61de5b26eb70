#include "runtime/server/fields.h"

#include <math.h>
#include <stdio.h>

bool field_wrong(ApiError *e, const char *name, const char *want, const Json *got) {
    if (!got) return api_invalid(e, name, "`%s` is missing: it must be %s", name, want);
    bool number = got->kind == JSON_INT || got->kind == JSON_REAL;
    if (number && got->s.len <= 40)
        return api_invalid(e, name, "`%s` must be %s, not " STR_FMT, name, want, STR_ARG(got->s));
    return api_invalid(e, name, "`%s` must be %s, not %s", name, want, json_kind_name(got->kind));
}

// The value as an integer: 3 and 3.0 are, 3.5 and 1e300 are not.
static bool whole(const Json *j, int64_t *out) {
    if (j->kind == JSON_INT) return *out = j->i, !j->big;
    if (j->kind != JSON_REAL || !(fabs(j->real) < 9e15) || floor(j->real) != j->real) return false;
    return *out = (int64_t)j->real, true;
}

bool field_int(const Json *object, const char *name, int64_t min, int64_t max, int64_t *out, ApiError *e) {
    const Json *j = json_get(object, name);
    char want[96];
    int64_t v;
    if (json_absent(j)) return true;
    if (whole(j, &v) && v >= min && v <= max) return *out = v, true;
    if (min == INT64_MIN && max == INT64_MAX)
        snprintf(want, sizeof want, "an integer of 64 bits");
    else
        snprintf(want, sizeof want, "an integer from %lld to %lld", (long long)min, (long long)max);
    return field_wrong(e, name, want, j);
}

bool field_u32(const Json *object, const char *name, uint32_t min, uint32_t max, uint32_t *out, ApiError *e) {
    int64_t v = *out;
    if (!field_int(object, name, min, max, &v, e)) return false;
    *out = (uint32_t)v;
    return true;
}

bool field_real(const Json *object, const char *name, double min, double max, float *out, ApiError *e) {
    const Json *j = json_get(object, name);
    if (json_absent(j)) return true;
    bool number = j->kind == JSON_INT || j->kind == JSON_REAL;
    double v = number ? json_number(j) : 0;
    if (number && !(j->kind == JSON_INT && j->big) && v >= min && v <= max) return *out = (float)v, true;
    char want[96];
    snprintf(want, sizeof want, "a number from %g to %g", min, max);
    return field_wrong(e, name, want, j);
}

bool field_bool(const Json *object, const char *name, bool *out, ApiError *e) {
    const Json *j = json_get(object, name);
    if (json_absent(j)) return true;
    if (j->kind != JSON_BOOL) return field_wrong(e, name, "true or false", j);
    return *out = j->boolean, true;
}

bool field_str(const Json *object, const char *name, Str *out, ApiError *e) {
    const Json *j = json_get(object, name);
    if (json_absent(j)) return true;
    if (j->kind != JSON_STRING) return field_wrong(e, name, "a string", j);
    return *out = j->s, true;
}

bool field_object(const Json *object, const char *name, const Json **out, ApiError *e) {
    const Json *j = json_get(object, name);
    *out = NULL;
    if (json_absent(j)) return true;
    if (j->kind != JSON_OBJECT) return field_wrong(e, name, "an object", j);
    return *out = j, true;
}

bool field_array(const Json *object, const char *name, uint32_t n_max, const Json **out, ApiError *e) {
    const Json *j = json_get(object, name);
    *out = NULL;
    if (json_absent(j)) return true;
    if (j->kind != JSON_ARRAY) return field_wrong(e, name, "a list", j);
    if (j->n > n_max)
        return api_invalid(e, name, "`%s` has %u items; at most %u are possible", name, j->n, n_max);
    return *out = j, true;
}
