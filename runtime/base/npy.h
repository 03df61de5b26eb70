// NumPy .npy version 1.0, float32, C order, two dimensions.
#ifndef ADALLM_BASE_NPY_H
#define ADALLM_BASE_NPY_H
#include "runtime/base/file.h"

typedef struct {
    OutFile *file;
    uint64_t rows, cols;
} NpyWriter;

bool npy_open(NpyWriter *w, const char *path, uint64_t cols, Err *e);
bool npy_rows(NpyWriter *w, const float *data, uint64_t n_rows, Err *e); // [n_rows, cols] float32, appended
// Makes room for n_rows rows of zeros, for npy_put to fill in any order.
bool npy_reserve(NpyWriter *w, uint64_t n_rows, Err *e);
bool npy_put(NpyWriter *w, uint64_t row, const float *data, uint64_t n_rows, Err *e);
bool npy_close(NpyWriter *w, Err *e); // writes the final shape and commits
void npy_abandon(NpyWriter *w);
#endif
