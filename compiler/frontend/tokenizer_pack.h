// The tokenizer of a checkpoint, read, checked and packed into the section that the runtime uses in place.
#ifndef ADALLM_FRONTEND_TOKENIZER_PACK_H
#define ADALLM_FRONTEND_TOKENIZER_PACK_H
#include "runtime/base/diag.h"

// Reads model_dir/tokenizer.json and tokenizer_config.json and appends the section (tokenizer_format.h) to
// *section, the same bytes for the same files. vocab_rows is the height of the embedding table: entries of
// the vocabulary must lie below it. False after adding located errors: E_FILE, E_JSON, E_TOKENIZER (broken),
// E_TOKENIZER_UNSUPPORTED (a pipeline that this project does not run, by name).
bool tokenizer_pack(Arena *arena, const char *model_dir, uint64_t vocab_rows, StrBuf *section, Diags *d);

// The same for files in memory, which live as long as the diagnostics; config may be NULL.
bool tokenizer_pack_json(Arena *arena, const Source *tokenizer, const Source *config, uint64_t vocab_rows,
                         StrBuf *section, Diags *d);

// Largest id of a packed section + 1: the ids that may be sampled.
uint32_t tokenizer_pack_ids(Str section);
#endif
