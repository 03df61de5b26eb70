// Log lines to stderr, by category. ADALLM_LOG=all or a comma list (load,plan,exec,...) turns them on; it
// changes no result.
#ifndef ADALLM_BASE_LOG_H
#define ADALLM_BASE_LOG_H
#include <stdbool.h>

bool log_enabled(const char *category);
void log_line(const char *category, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
double clock_s(void); // monotonic seconds
#endif
