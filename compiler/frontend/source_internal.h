// What the parts of WeightSource share; only source*.c include it.
#ifndef ADALLM_COMPILER_SOURCE_INTERNAL_H
#define ADALLM_COMPILER_SOURCE_INTERNAL_H
#include "compiler/frontend/checkpoint.h"
#include "compiler/frontend/source.h"

typedef enum {
    FROM_DENSE,    // `values` as stored
    FROM_NVFP4,    // `values` are packed codes, `scales` beside them
    FROM_QUANTIZE, // `values` are 16-bit or 32-bit and are quantised while they are read
    FROM_RANDOM,
    FROM_COPY // quantised from the rows of entry `of`
} EntryKind;

typedef struct {
    EntryKind kind;
    WeightInfo info;
    const SafeTensor *values, *scales;
    WeightFormat stored; // of `values`, when they are not codes
    bool has_amax;       // FROM_QUANTIZE: info.global is known
    RandomKind random;
    uint64_t seed;      // FROM_RANDOM: of this weight
    uint32_t of;        // FROM_COPY
    QuantMethod method; // FROM_COPY to NVFP4
} SourceEntry;

struct WeightSource {
    Arena *arena;
    SourceEntry *entries; // [n]
    size_t n, cap;
    uint32_t *slots; // open addressing: entry + 1; 0 is free
    size_t mask;
    const Checkpoint *checkpoint; // NULL for random sources
    uint8_t *used;                // [checkpoint->n_tensors]
    QuantMethod method;
    uint64_t seed;
};

WeightSource *source_new(Arena *a);
SourceEntry *source_add(WeightSource *s, Str name); // a new entry, or the one of that name
SourceEntry *source_find(const WeightSource *s, Str name);

static inline const SourceEntry *source_entry(const WeightSource *s, const WeightInfo *w) {
    return &s->entries[w->id];
}

void source_mark_used(WeightSource *s, Str tensor); // canonical name of a checkpoint's tensor

// fp32 values of rows of a dense or to-be-quantised entry; fails on NaN and infinity.
bool source_dense_f32(const SourceEntry *e, uint64_t row, uint64_t n_rows, float *out, Err *err);
bool source_dense_check(const SourceEntry *e, uint64_t row, uint64_t n_rows, Err *err);
const uint8_t *source_dense_row(const SourceEntry *e, uint64_t row); // unaligned

// source_quantize.c: fills info.global of the entry and its siblings.
void source_quantize_prepare(WeightSource *s, SourceEntry *e);
bool source_quantize_rows(QuantMethod method, const SourceEntry *e, uint64_t row, uint64_t n_rows,
                          uint8_t *codes, uint8_t *scales, Err *err);

float source_dense_amax(const SourceEntry *e); // the largest magnitude; infinity or NaN when there is one

// source_copy.c: rows of a copy in NVFP4
bool source_copy_nvfp4(const WeightSource *s, const SourceEntry *e, uint64_t row, uint64_t n_rows,
                       uint8_t *codes, uint8_t *scales, Err *err);

// source_random.c
void source_random_nvfp4(const SourceEntry *e, uint64_t row, uint64_t n_rows, uint8_t *codes,
                         uint8_t *scales);
void source_random_f32(const SourceEntry *e, uint64_t row, uint64_t n_rows, float *out); // already rounded
#endif
