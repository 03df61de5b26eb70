// Sets of Unicode characters, and the fragment that matches one character of a set: as UTF-8, or as it is
// spelled inside a JSON string (json: `"`, `\` and control characters as the shortest escape).
#ifndef ADALLM_GRAMMAR_CHARSET_H
#define ADALLM_GRAMMAR_CHARSET_H
#include "runtime/grammar/nfa.h"

enum { CHAR_LAST = 0x10FFFF };
typedef struct {
    uint32_t lo, hi;
} CharRange;
typedef struct {
    CharRange *ranges; // heap-owned
    size_t n, cap;
} CharSet;

void charset_add(CharSet *s, uint32_t lo, uint32_t hi);
void charset_add_set(CharSet *s, const CharSet *more);
void charset_negate(CharSet *s);
void charset_free(CharSet *s);
// A general category by its name: L, Lu, N, Nd, ... False when there is none.
bool charset_add_category(CharSet *s, Str name, bool negated);
// \d \D \w \W \s \S. Digits, letters and spaces are ASCII's, but \S matches no other space either: what is
// space differs between dialects, and a text should match in all. False for other letters.
bool charset_add_class(CharSet *s, char letter);

void nfa_charset(Build *b, const CharSet *s, bool json); // ranges in any order; surrogates never match
void nfa_char(Build *b, uint32_t cp, bool json);
void nfa_any_char(Build *b, bool json);
#endif
