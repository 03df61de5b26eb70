// The tokenizer section of an artifact: written by compiler/frontend/tokenizer_section.c, used in place by
// tokenizer.c. Little-endian, fixed widths, every array 8-aligned, hash tables ready for use, so that opening
// it builds nothing.
#ifndef ADALLM_TEXT_TOKENIZER_FORMAT_H
#define ADALLM_TEXT_TOKENIZER_FORMAT_H
#include <assert.h>
#include <stdint.h>

// clang-format off
//
//     0     +--------------------------------------------------------------+
//           | TokHeader: kind, flags, pattern, n_ids, place of each array  |
//           +--------------------------------------------------------------+
//           | id_flags     u8[n_ids]            TOK_*, 0 for a gap          |
//           | out_at, out  u32[n_ids + 1], u8[] what each id decodes to     |
//           | text_at,text u32[n_ids + 1], u8[] what each id matches        |  byte level: the same as out
//           | vocab_slots  u32[]                text -> id                  |
//           | merge_slots  TokMerge[]           (left, right) -> rank, id   |
//           | byte_ids     u32[256]             byte -> id                  |
//           | char_slots   TokChar[]            code point -> id            |  space mark only
//           | joins        u32[]                see below                   |  space mark only
//           | raw, normed  TokNode[]            added tokens, as tries      |
//           | prefix, suffix u32[]              ids that add_special adds   |
//     bytes +--------------------------------------------------------------+
//
// Hash tables: open addressing, linear probing from tok_slot(hash, slots), TOK_NONE in `id` marks a free slot.
// A lookup ends at a free slot or after all slots.
//
// joins: sorted code points c for which some merge makes a token with U+2581 right after c. Anywhere else a
// word may be cut before U+2581 without changing its ids.
//
// A trie lies in breadth-first order: node 0 is the root, the children of a node are neighbours, in order of
// their bytes, and behind their parent.
// clang-format on

#define TOK_MAGIC      "ADATOK\r\n"
#define TOK_NONE       UINT32_MAX
#define TOK_SPACE_MARK 0x2581u // stands for a space in tokenizers that came from SentencePiece

enum { TOK_VERSION = 1, TOK_IDS_MAX = 1 << 24, TOK_AFFIX_MAX = 16 };

typedef enum {
    TOK_BYTE_LEVEL = 1, // Qwen, Llama 3, GPT-2: a pattern cuts words, BPE starts from bytes
    TOK_SPACE_MARKED,   // Gemma: spaces become U+2581, BPE starts from characters, unknown ones from bytes
} TokKind;

enum { // TokHeader.flags
    TOK_NFC = 1,
    TOK_IGNORE_MERGES = 2, // a word that is a vocabulary entry is that entry
};

enum { // id_flags
    TOK_USED = 1,
    TOK_SPECIAL = 2,
    TOK_SINGLE_WORD = 4,
    TOK_LSTRIP = 8,
    TOK_RSTRIP = 16,
    TOK_BYTE = 32, // space mark only: <0xHH>, decodes to one byte as part of a run
};

// TOK_PATTERN(name, regex): the split patterns that this project runs. The runtime gives them to PCRE2.
#define TOK_PATTERNS                                                                                         \
    TOK_PATTERN(GPT2, "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+")  \
    TOK_PATTERN(QWEN, "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}|"                   \
                      " ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+")                       \
    TOK_PATTERN(LLAMA3, "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}|"            \
                        " ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+")

enum {
#define TOK_PATTERN(name, regex) TOK_PATTERN_##name,
    TOK_PATTERNS
#undef TOK_PATTERN
        TOK_N_PATTERNS
};

typedef struct {
    uint64_t offset, count; // bytes from the start of the section, elements
} TokArray;

// TOK_ARRAY(name, element type)
#define TOK_ARRAYS                                                                                           \
    TOK_ARRAY(id_flags, uint8_t)                                                                             \
    TOK_ARRAY(out_at, uint32_t)                                                                              \
    TOK_ARRAY(out, uint8_t)                                                                                  \
    TOK_ARRAY(text_at, uint32_t)                                                                             \
    TOK_ARRAY(text, uint8_t)                                                                                 \
    TOK_ARRAY(vocab_slots, uint32_t)                                                                         \
    TOK_ARRAY(merge_slots, TokMerge)                                                                         \
    TOK_ARRAY(byte_ids, uint32_t)                                                                            \
    TOK_ARRAY(char_slots, TokChar)                                                                           \
    TOK_ARRAY(joins, uint32_t)                                                                               \
    TOK_ARRAY(raw, TokNode)                                                                                  \
    TOK_ARRAY(normed, TokNode)                                                                               \
    TOK_ARRAY(prefix, uint32_t)                                                                              \
    TOK_ARRAY(suffix, uint32_t)

typedef struct {
    uint32_t left, right, rank, id;
} TokMerge;

typedef struct {
    uint32_t cp, id;
} TokChar;

typedef struct {
    uint32_t first_child;
    uint32_t id; // the added token that ends here, or TOK_NONE
    uint16_t n_children;
    uint8_t byte;
    uint8_t reserved;
} TokNode;

typedef struct {
    char magic[8];
    uint32_t version;
    uint32_t kind;    // TokKind
    uint32_t flags;   // TOK_NFC, ...
    uint32_t pattern; // TOK_PATTERN_*; 0 for a space mark
    uint32_t n_ids;   // largest id + 1
    uint32_t reserved;
    uint64_t bytes; // of the whole section
#define TOK_ARRAY(name, type) TokArray name;
    TOK_ARRAYS
#undef TOK_ARRAY
} TokHeader;
static_assert(sizeof(TokHeader) == 40 + 14 * 16, "no holes");
static_assert(sizeof(TokMerge) == 16 && sizeof(TokChar) == 8 && sizeof(TokNode) == 12, "no holes");

// SplitMix64's finisher: spreads any key over the upper bits that tok_slot uses.
static inline uint64_t tok_mix(uint64_t x) {
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
    return x ^ (x >> 31);
}
static inline uint64_t tok_merge_hash(uint32_t left, uint32_t right) {
    return tok_mix((uint64_t)left << 32 | right);
}
static inline uint64_t tok_slot(uint64_t hash, uint64_t slots) { return ((hash >> 32) * slots) >> 32; }
#endif
