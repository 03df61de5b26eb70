// What may follow inside of a JSON string, for every state of one: made once for a vocabulary, because
// strings are the states where nearly all tokens may follow.
#ifndef ADALLM_GRAMMAR_STRING_SETS_H
#define ADALLM_GRAMMAR_STRING_SETS_H
#include "runtime/grammar/walk.h"

void string_sets_make(GrammarVocab *v);
#endif
