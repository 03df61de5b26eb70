// Stop: cuts a stream of text at the first stop string, wherever the pieces break, and holds back text that
// may still become one. The stop string that is complete first wins, the longest of those ending together;
// the answer does not depend on how the text is cut into pieces.
#ifndef ADALLM_TEXT_STOP_H
#define ADALLM_TEXT_STOP_H
#include "runtime/base/str.h"

typedef struct {
    const Str *strings; // not owned; empty strings are ignored
    size_t n;
    StrBuf held;  // text received and not yet given out: shorter than the longest stop string
    bool hit;     // a stop string was met: nothing more comes out
    size_t which; // its index, valid when hit
} Stop;

void stop_begin(Stop *s, const Str *strings, size_t n);
// Appends to *out the text that is safe to show; returns true once a stop string was met (it is not shown).
bool stop_push(Stop *s, Str piece, StrBuf *out);
void stop_flush(Stop *s, StrBuf *out); // end of the stream: what was held back comes out, unless hit
void stop_end(Stop *s);                // frees
#endif
