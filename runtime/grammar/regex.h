// Regular expressions in RE2's syntax: what is regular and has no flags. Not supported, each with an error
// that names the byte: look-around, back references, word boundaries, flags, anchors elsewhere than at the
// ends.
#ifndef ADALLM_GRAMMAR_REGEX_H
#define ADALLM_GRAMMAR_REGEX_H
#include "runtime/grammar/charset.h"

typedef enum {
    REGEX_WHOLE,   // the whole text has to match
    REGEX_ANYWHERE // some part of it, as JSON Schema's `pattern`; ^ and $ bind to the ends
} RegexMode;

// Pushes the fragment. json: the text as spelled inside a JSON string. Errors begin with `where`.
void regex_push(Build *b, Str pattern, RegexMode mode, bool json, const char *where);

// False, and the byte where it is not: `text` is not UTF-8.
bool regex_is_utf8(Str text, size_t *bad);
#endif
