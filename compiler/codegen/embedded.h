// Files of the source tree that travel inside adallmc: templates and family descriptions.
#ifndef ADALLM_CODEGEN_EMBEDDED_H
#define ADALLM_CODEGEN_EMBEDDED_H
#include <stddef.h>

typedef struct {
    const char *path; // as in the source tree, e.g. "templates/host/linear.h"
    const char *text; // NUL-terminated
    size_t len;       // bytes without the NUL
} EmbeddedFile;

extern const EmbeddedFile embedded_files[]; // sorted by path; ends with a row of NULLs
extern const size_t n_embedded_files;
#endif
