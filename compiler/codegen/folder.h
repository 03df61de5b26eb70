// The folder that a compiler works in: templates in, images out.
#ifndef ADALLM_CODEGEN_FOLDER_H
#define ADALLM_CODEGEN_FOLDER_H
#include "runtime/base/diag.h"

// A new temporary folder, removed when the program is interrupted (base/cleanup.h); NULL after E_FILE.
const char *folder_temporary(Arena *a, Diags *d);
bool folder_write(Arena *a, const char *dir, const char *path, const void *data, size_t len, Diags *d);
// Writes the embedded templates whose paths end with one of `suffixes` (NULL-terminated) under dir/templates.
bool folder_templates(Arena *a, const char *dir, const char *const *suffixes, Diags *d);
#endif
