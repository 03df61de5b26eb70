// ApiError: why a request is refused, as clients of the OpenAI and Anthropic APIs read it. Codes are strings;
// clients map by HTTP status and show the message.
#ifndef ADALLM_SERVER_API_ERROR_H
#define ADALLM_SERVER_API_ERROR_H
#include "runtime/base/err.h"
#include "runtime/base/str.h"

typedef struct {
    int status;                      // HTTP
    const char *type, *code;         // static; code may be NULL
    char param[128];                 // the field at fault, "" for none
    char message[768];               // UTF-8
    unsigned retry_after_s;          // 0: none
    uint32_t n_prompt_tokens, n_ctx; // both 0 unless the context is exceeded
} ApiError;

typedef enum { API_STYLE_OPENAI, API_STYLE_ANTHROPIC } ApiStyle;

// Always return false, so that a failing function can `return api_...(...)`. param: NULL for none.
bool api_error(ApiError *e, int status, const char *type, const char *code, const char *param,
               const char *fmt, ...) __attribute__((format(printf, 6, 7)));
bool api_invalid(ApiError *e, const char *param, const char *fmt, ...)
    __attribute__((format(printf, 3, 4))); // 400 invalid_value
bool api_unsupported(ApiError *e, const char *param, const char *fmt, ...)
    __attribute__((format(printf, 3, 4))); // 400 unsupported_parameter
bool api_context_exceeded(ApiError *e, const char *param, uint32_t n_prompt, uint64_t n_new, uint32_t n_ctx);
bool api_server_error(ApiError *e); // 500 without a word of what happened inside

// {"error": {...}} of OpenAI, or {"type": "error", "error": {...}, "request_id"} of Anthropic.
void api_error_write(StrBuf *out, const ApiError *e, ApiStyle style, Str request_id);
#endif
