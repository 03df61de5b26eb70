#include "runtime/base/npy.h"

#include <stdio.h>

#include "runtime/base/num.h"

enum { HEADER_BYTES = 128 }; // magic 6 + version 2 + length 2 + dictionary, padded; a multiple of 64

static void make_header(char out[HEADER_BYTES], uint64_t rows, uint64_t cols) {
    char dict[HEADER_BYTES];
    snprintf(dict, sizeof dict, "{'descr': '<f4', 'fortran_order': False, 'shape': (%llu, %llu), }",
             (unsigned long long)rows, (unsigned long long)cols);
    memset(out, ' ', HEADER_BYTES);
    memcpy(out, "\x93NUMPY\x01\x00", 8);
    out[8] = HEADER_BYTES - 10;
    out[9] = 0;
    memcpy(out + 10, dict, strlen(dict));
    out[HEADER_BYTES - 1] = '\n';
}

bool npy_open(NpyWriter *w, const char *path, uint64_t cols, Err *e) {
    char header[HEADER_BYTES];
    *w = (NpyWriter){.file = out_open(path, e), .cols = cols};
    make_header(header, 0, cols);
    return w->file && out_write(w->file, header, sizeof header, e);
}

bool npy_rows(NpyWriter *w, const float *data, uint64_t n_rows, Err *e) {
    w->rows += n_rows;
    return out_write(w->file, data, n_rows * w->cols * sizeof *data, e);
}

bool npy_reserve(NpyWriter *w, uint64_t n_rows, Err *e) {
    uint64_t bytes;
    if (!u64_mul(n_rows, w->cols, &bytes) || !u64_mul(bytes, sizeof(float), &bytes))
        return err_set(e, E_LIMIT, "%llu rows of %llu numbers are more than a file can hold",
                       (unsigned long long)n_rows, (unsigned long long)w->cols);
    w->rows = n_rows;
    return out_extend(w->file, bytes, e);
}

bool npy_put(NpyWriter *w, uint64_t row, const float *data, uint64_t n_rows, Err *e) {
    uint64_t row_bytes = w->cols * sizeof *data;
    return out_write_at(w->file, HEADER_BYTES + row * row_bytes, data, n_rows * row_bytes, e);
}

bool npy_close(NpyWriter *w, Err *e) {
    char header[HEADER_BYTES];
    make_header(header, w->rows, w->cols);
    OutFile *f = w->file;
    w->file = NULL;
    if (!out_write_at(f, 0, header, sizeof header, e)) {
        out_abandon(f);
        return false;
    }
    return out_commit(f, e);
}

void npy_abandon(NpyWriter *w) {
    out_abandon(w->file);
    w->file = NULL;
}
