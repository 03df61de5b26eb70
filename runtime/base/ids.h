// Files of token ids, as `eval` and `logits` read them: one sequence a line, ids separated by spaces or
// commas; blank lines are skipped.
#ifndef ADALLM_BASE_IDS_H
#define ADALLM_BASE_IDS_H
#include "runtime/base/diag.h"

typedef struct {
    const int32_t *ids; // [n], n > 0
    uint32_t n;
    Span at; // its line
} IdSequence;

typedef struct {
    Source source;
    IdSequence *sequences;
    uint32_t n_sequences;
    uint64_t n_total; // ids of all sequences
} IdsFile;

// Reads a whole file of at most 256 MiB. Every id must lie below `vocab` and no sequence may be longer than
// `context`; all offences are located (E_IDS, E_CONTEXT), and a file without any id is one. `out` must not
// move while its spans are used.
bool ids_read(Arena *a, const char *path, uint64_t vocab, uint64_t context, IdsFile *out, Diags *d);
// The same on a text in memory: out->source is set by the caller.
bool ids_parse(Arena *a, uint64_t vocab, uint64_t context, IdsFile *out, Diags *d);
#endif
