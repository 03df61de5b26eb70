// Safetensors files: reading with all checks of the reference reader, and writing as the reference writer.
//
//     u64 LE header bytes | header: JSON, padded with spaces | data
//
// Source: the format's README and reference reader, restated in ARCHITECTURE.md.
#ifndef ADALLM_COMPILER_SAFETENSORS_H
#define ADALLM_COMPILER_SAFETENSORS_H
#include "runtime/base/diag.h"
#include "runtime/base/file.h"

typedef enum {
#define DTYPE(name, bits) ST_##name,
#include "compiler/frontend/safetensors_dtypes.def"
#undef DTYPE
    ST_N_DTYPES
} StDtype;

const char *st_dtype_name(StDtype t);
uint32_t st_dtype_bits(StDtype t);
bool st_dtype_parse(Str s, StDtype *out);

typedef struct {
    Str name;
    StDtype dtype;
    uint32_t rank;
    const uint64_t *shape; // [rank]; product * bits / 8 == bytes
    const uint8_t *data;   // in the mapping; no alignment is promised
    uint64_t begin, bytes; // place in the data part
    Span at;               // its key in the header
} SafeTensor;

typedef struct {
    Source source; // the path, and the header as text
    FileMap map;
    SafeTensor *tensors; // [n_tensors], in order of `begin`
    size_t n_tensors;
} SafeTensors;

// Maps a file and checks it. Faults are reported to `d` with their place in the header; false then, and
// nothing stays mapped. `out` must not move afterwards (spans point into it).
bool safetensors_open(Arena *a, const char *path, SafeTensors *out, Diags *d);
void safetensors_close(SafeTensors *s);

// The same over bytes in memory, which the caller keeps; out->source.name must be set.
bool safetensors_parse(Arena *a, const uint8_t *data, uint64_t size, SafeTensors *out, Diags *d);

// Writing: declare all tensors, then write the header, then the data of each in st_writer order.
typedef struct {
    Str name;
    StDtype dtype;
    uint32_t rank;
    const uint64_t *shape; // [rank]
    uint64_t begin, bytes; // filled by safetensors_layout
    void *user;
} StOut;

// Sorts the way the reference writer does (alignment descending, then name), fills begin and bytes, and
// appends the length and the padded header (with __metadata__ {"format": "pt"}) to `header`.
void safetensors_layout(StOut *tensors, size_t n, StrBuf *header);
#endif
