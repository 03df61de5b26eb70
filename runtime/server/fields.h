// Fields of a request: each read with its type and range, or refused by name. Missing and null fields leave
// *out as it is.
#ifndef ADALLM_SERVER_FIELDS_H
#define ADALLM_SERVER_FIELDS_H
#include "runtime/base/json.h"
#include "runtime/server/api_error.h"

bool field_int(const Json *object, const char *name, int64_t min, int64_t max, int64_t *out, ApiError *e);
bool field_u32(const Json *object, const char *name, uint32_t min, uint32_t max, uint32_t *out, ApiError *e);
bool field_real(const Json *object, const char *name, double min, double max, float *out, ApiError *e);
bool field_bool(const Json *object, const char *name, bool *out, ApiError *e);
bool field_str(const Json *object, const char *name, Str *out, ApiError *e);
// *out: NULL when missing or null.
bool field_object(const Json *object, const char *name, const Json **out, ApiError *e);
bool field_array(const Json *object, const char *name, uint32_t n_max, const Json **out, ApiError *e);

// 400 that says what stands there: "`temperature` must be a number from 0 to 2, not a string".
bool field_wrong(ApiError *e, const char *name, const char *want, const Json *got);
#endif
