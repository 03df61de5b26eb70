// Lookup: guesses what comes next from what came before. Where the last few tokens have stood together
// earlier, what followed them then may follow again: true of quotes, code and tables.
#ifndef ADALLM_ENGINE_LOOKUP_H
#define ADALLM_ENGINE_LOOKUP_H
#include <stdint.h>

// Guesses after ids[0, n): copies up to `most` ids to out and returns how many. The longest run of last
// tokens, 3 or 2, that stands earlier decides, its latest place first.
uint32_t lookup_guess(const int32_t *ids, uint32_t n, uint32_t most, int32_t *out);
#endif
