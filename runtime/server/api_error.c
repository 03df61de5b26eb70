#include "runtime/server/api_error.h"

#include <stdio.h>

#include "runtime/base/json.h"
#include "runtime/base/num.h"

// A message cut in the middle of a character would not be UTF-8.
static void trim_utf8(char *text) {
    size_t at = 0, len = strlen(text);
    while (at < len) {
        size_t n = str_utf8_len((Str){text + at, len - at});
        if (n)
            at += n;
        else if (len - at < 4)
            text[at] = 0, len = at;
        else
            text[at++] = '?';
    }
}

static bool set(ApiError *e, int status, const char *type, const char *code, const char *param,
                const char *fmt, va_list ap) {
    *e = (ApiError){.status = status, .type = type, .code = code};
    if (param) snprintf(e->param, sizeof e->param, "%s", param), trim_utf8(e->param);
    vsnprintf(e->message, sizeof e->message, fmt, ap);
    trim_utf8(e->message);
    return false;
}

bool api_error(ApiError *e, int status, const char *type, const char *code, const char *param,
               const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    set(e, status, type, code, param, fmt, ap);
    va_end(ap);
    return false;
}

bool api_invalid(ApiError *e, const char *param, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    set(e, 400, "invalid_request_error", "invalid_value", param, fmt, ap);
    va_end(ap);
    return false;
}

bool api_unsupported(ApiError *e, const char *param, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    set(e, 400, "invalid_request_error", "unsupported_parameter", param, fmt, ap);
    va_end(ap);
    return false;
}

bool api_context_exceeded(ApiError *e, const char *param, uint32_t n_prompt, uint64_t n_new, uint32_t n_ctx) {
    api_error(
        e, 400, "invalid_request_error", "context_length_exceeded", param,
        "This model's maximum context length is %u tokens. However, you requested %llu tokens (%u in the "
        "prompt, %llu for the answer). Please reduce the length of the prompt or the answer.",
        n_ctx, (unsigned long long)(n_prompt + n_new), n_prompt, (unsigned long long)n_new);
    e->n_prompt_tokens = n_prompt, e->n_ctx = n_ctx;
    return false;
}

bool api_server_error(ApiError *e) {
    return api_error(e, 500, "server_error", "internal_error", NULL, "The server failed at this request.");
}

static void member(StrBuf *out, const char *key, const char *value) {
    buf_printf(out, ", \"%s\": ", key);
    if (value && *value)
        json_write_string(out, str_of(value));
    else
        buf_puts(out, "null");
}

static const char *anthropic_type(int status) {
    switch (status) {
    case 401: return "authentication_error";
    case 403: return "permission_error";
    case 404: return "not_found_error";
    case 413: return "request_too_large";
    case 429: return "rate_limit_error";
    case 503:
    case 529: return "overloaded_error";
    default: return status < 500 ? "invalid_request_error" : "api_error";
    }
}

void api_error_write(StrBuf *out, const ApiError *e, ApiStyle style, Str request_id) {
    if (style == API_STYLE_ANTHROPIC) {
        buf_printf(out, "{\"type\": \"error\", \"error\": {\"type\": \"%s\", \"message\": ",
                   anthropic_type(e->status));
        json_write_string(out, str_of(e->message));
        buf_puts(out, "}, \"request_id\": ");
        json_write_string(out, request_id);
        buf_putc(out, '}');
        return;
    }
    buf_puts(out, "{\"error\": {\"message\": ");
    json_write_string(out, str_of(e->message));
    member(out, "type", e->type);
    member(out, "param", e->param);
    member(out, "code", e->code);
    if (e->n_ctx) buf_printf(out, ", \"n_prompt_tokens\": %u, \"n_ctx\": %u", e->n_prompt_tokens, e->n_ctx);
    buf_puts(out, "}}");
}
