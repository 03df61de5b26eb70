// Nfc: canonical composition of text by Unicode 9.0, which is what the reference tokenizers normalise with.
#ifndef ADALLM_TEXT_NFC_H
#define ADALLM_TEXT_NFC_H
#include "runtime/base/str.h"

// The text in normalisation form C: `utf8` itself when nothing changes, else a view of *scratch, which the
// caller owns and whose contents are replaced. Code points younger than Unicode 9.0 stay as they are and
// neither reorder nor compose. O(n log n).
Str nfc_normalize(Str utf8, StrBuf *scratch);
#endif
