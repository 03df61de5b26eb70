// The artifact (.ada): the contract between adallmc, which writes it, and adallm-rt, which reads it.
// Little-endian, fixed widths.
//
//     0        +-------------------------------+
//              | AdaSuperblock       4096 bytes|  sealed by its own SHA-256; holds the Merkle root
//     4096     +-------------------------------+
//              | AdaSection[n_sections]        |  64 bytes each, in file order
//              +-------------------------------+  every section starts at a multiple of its alignment; gaps
//              are zero | manifest (JSON)               | | plan                          |  AdaPlan, then
//              its tables | code images                   |  one section each | tokenizer, chat program | |
//              explain (JSON), self-test     | | weights         aligned 2 MiB |  the bulk | hashes | SHA-256
//              of each 1 MiB leaf of [4096, hashes.offset)
//     file_size+-------------------------------+
//
// The Merkle root is SHA-256 over the concatenated leaf hashes. No timestamps, no paths, no padding that is
// not zero: equal inputs give equal files. Readers trust nothing: every offset, count and index is checked
// against the real file size first.
#ifndef ADALLM_FORMAT_H
#define ADALLM_FORMAT_H
#include <assert.h>
#include <stdint.h>

#define ADA_MAGIC                                                                                            \
    "\x89"                                                                                                   \
    "ADA\r\n\x1a\n" // 8 bytes: a high bit, CR LF, ^Z and LF catch every text-mode transfer
enum {
    ADA_MAJOR = 1,
    ADA_MINOR = 2,
    ADA_SUPERBLOCK_BYTES = 4096,
    ADA_LEAF_BYTES = 1 << 20,
    ADA_WEIGHTS_ALIGN = 2 << 20
};
#define ADA_ENDIAN_TAG 0x01020304u

typedef struct {
    char magic[8];
    uint32_t endian_tag;
    uint16_t major, minor;
    uint64_t compat,
        incompat; // feature bits: unknown compat bits are ignored, unknown incompat bits refuse the file
    uint64_t file_size;
    uint64_t sections_offset;
    uint32_t n_sections;
    uint32_t leaf_bytes;
    uint32_t n_ranks; // tensor-parallel degree
    uint32_t sm;      // 89, 90; 0 for the host target
    char target[32];  // NUL-padded names
    char model[64];
    char compiler[32]; // version of adallmc
    uint8_t merkle_root[32];
    uint8_t sources_hash[32]; // SHA-256 of the hashes of all inputs (recipe, config, tokenizer, weights)
    uint8_t reserved[4096 - 8 - 4 - 4 - 16 - 16 - 4 - 4 - 4 - 4 - 32 - 64 - 32 - 32 - 32 - 32];
    uint8_t self_hash[32]; // SHA-256 of this block with this field zero
} AdaSuperblock;
static_assert(sizeof(AdaSuperblock) == ADA_SUPERBLOCK_BYTES, "the superblock is one page");

typedef enum {
    ADA_MANIFEST = 1,
    ADA_PLAN,
    ADA_CODE, // sections in order of AdaKernel.image
    ADA_TOKENIZER,
    ADA_CHAT,
    ADA_EXPLAIN,
    ADA_SELFTEST,
    ADA_WEIGHTS,
    ADA_HASHES,
    ADA_SECTION_KINDS
} AdaSectionKind;

// What a code image needs to run; the best one the machine can run is chosen at load. All images hold all
// kernels.
typedef enum { ADA_CODE_X86_64 = 1, ADA_CODE_X86_64_V3 = 2, ADA_CODE_CUBIN = 16 } AdaCodeKind;

// A CUBIN image: this, then `n` AdaCubin rows, one for each AdaKernel in order, then the cubins themselves,
// each at a multiple of 16. A cubin holds one kernel of the AdaKernel's name.
typedef struct {
    char magic[8]; // "ADACUBIN"
    uint32_t n, reserved;
} AdaCubins;
typedef struct {
    uint64_t offset, bytes; // from the start of the image
} AdaCubin;

typedef struct {
    uint32_t kind;  // AdaSectionKind
    uint32_t flags; // AdaCodeKind for ADA_CODE, else 0
    uint64_t offset, bytes, align;
    uint8_t sha256[32]; // of the section's bytes; zero for weights and hashes, which the leaves cover
} AdaSection;
static_assert(sizeof(AdaSection) == 64, "section rows are 64 bytes");

// ---- plan ----------------------------------------------------------------------------------------
// All strings are offsets into the string table: NUL-terminated, offset 0 is "".

typedef struct {
    uint32_t offset, count; // bytes from the start of the plan section; rows
} AdaTable;

// A KV group: the layers that share one page pool and one block table.
typedef struct {
    uint32_t window;        // 0: full attention
    uint32_t pages_per_seq; // columns of the block table; for a window: the ring, window - 1 and the larger
                            // of tokens_max and page_tokens, at least
    uint64_t page_bytes;    // all layers of the group, K and V, of page_tokens tokens, on one rank
    uint32_t n_layers, reserved;
} AdaKvGroup;
enum { ADA_KV_GROUPS_MAX = 4 };

typedef struct {
    char magic[8]; // "ADAPLAN3"
    uint32_t n_ranks, n_kv_groups;
    AdaKvGroup kv[ADA_KV_GROUPS_MAX];
    uint32_t vocab_rows; // columns of logits
    uint32_t vocab;      // ids below this may be sampled
    uint32_t hidden, n_layers;
    uint32_t context;    // tokens a sequence may have, prompt and answer
    uint32_t seqs_max;   // slots of the block tables = largest decode bucket
    uint32_t tokens_max; // largest body bucket: T of the state buffers, and the longest prefill chunk
    uint32_t rows_max;   // largest head bucket: R
    uint32_t page_tokens;
    uint32_t reserved;
    AdaTable strings, buffers, kernels, launches, args, programs, weights, bindings, chains;
    uint64_t scratch_bytes; // one arena, reused by every program
} AdaPlan;

// HOST: memory of the host that the device writes and the host reads while the device works.
typedef enum {
    ADA_SPACE_SCRATCH = 1,
    ADA_SPACE_STATE,
    ADA_SPACE_KV,
    ADA_SPACE_HOST,
    ADA_SPACE_SPACES
} AdaSpace;

// Buffers that the runtime itself reads or writes. All rows are as in templates.def.
typedef enum {
    ADA_ROLE_NONE,
    ADA_ROLE_COUNTS,       // u32[4]
    ADA_ROLE_IDS,          // i32[tokens_max]
    ADA_ROLE_POS,          // i32[tokens_max]
    ADA_ROLE_SLOT,         // i32[tokens_max]
    ADA_ROLE_ROWS,         // i32[rows_max]: token index of each logits row
    ADA_ROLE_BLOCK_TABLE,  // i32[seqs_max, pages_per_seq] of KV group `index`
    ADA_ROLE_KV_POOL,      // KV group `index`; bytes are decided at load: pages x page_bytes
    ADA_ROLE_HIDDEN,       // act rows [tokens_max, hidden]: what the body leaves for the head
    ADA_ROLE_LOGITS,       // f32[rows_max, vocab_rows]
    ADA_ROLE_SAMPLING,     // SamplingRow[rows_max]
    ADA_ROLE_NEXT,         // i32[rows_max]
    ADA_ROLE_STATUS,       // u32[rows_max]
    ADA_ROLE_RING,         // RingSlot of lib/abi.h, RING_SLOTS of them; space HOST
    ADA_ROLE_WORK,         // memory of whichever launch runs; its first 64 KiB are zero between launches
    ADA_ROLE_TOKEN_COUNTS, // u16[seqs_max, TOKEN_COLS(vocab)], see lib/abi.h
    ADA_ROLE_TOKEN_LISTS,  // TokenLists[seqs_max]
    ADA_ROLE_TOKEN_MASK,   // u32[seqs_max, TOKEN_COLS(vocab) / 32]
    ADA_ROLE_LOGPROBS,     // LogprobRow[RING_SLOTS, rows_max]; space HOST
    ADA_ROLE_ROLES
} AdaRole;

typedef struct {
    uint32_t name;
    uint16_t space;   // AdaSpace
    uint16_t role;    // AdaRole
    uint32_t index;   // KV group for BLOCK_TABLE and KV_POOL
    uint32_t program; // owner of a scratch buffer; UINT32_MAX: all
    uint64_t offset,
        bytes; // inside the scratch arena; STATE and KV buffers are allocated one by one (offset 0)
    uint32_t first_launch, last_launch; // lifetime inside the program, inclusive; 0 for STATE and KV
} AdaBuffer;

typedef struct {
    uint32_t name;         // symbol in every code image
    uint32_t template_;    // for people
    uint32_t spec;         // for people: "n=1536 k=640 format=nvfp4"
    uint32_t threads;      // threads a block; 1 on the host
    uint64_t shared_bytes; // shared memory a block; on the host: scratch of the running thread
} AdaKernel;

typedef enum {
    ADA_LAUNCH_KERNEL = 1,
    ADA_LAUNCH_ALL_REDUCE,
    ADA_LAUNCH_ALL_GATHER,
    ADA_LAUNCH_KINDS
} AdaLaunchKind;

// ALL_REDUCE: args[0] is summed in place over ranks in rank order, rows x cols f32.
// ALL_GATHER: args[0] [rows, cols] of every rank becomes args[1] [rows, n_ranks * cols].
typedef struct {
    uint32_t kind; // AdaLaunchKind
    uint32_t kernel;
    uint32_t first_arg, n_args;
    uint32_t grid;                             // blocks
    uint32_t count;                            // collectives: which count bounds the rows (lib/abi.h)
    uint32_t rows, cols;                       // collectives: at most rows rows of cols f32
    uint64_t bytes_read, bytes_written, flops; // of a full bucket, for the cost model
    float predicted_us;
    uint32_t origin; // graph ops and family line, for people
} AdaLaunch;

// Launches of one program that follow each other and may run as one: `kernel` does what theirs do, with their
// arguments one after the other, on `grid` blocks.
typedef struct {
    uint32_t kernel, first_launch, n_launches, grid;
    float predicted_us;
    uint32_t
        together; // 1: blocks wait for each other, so all must be on the device at once; 0: as any launch
} AdaChain;
enum { ADA_CHAIN_LAUNCHES_MAX = 12, ADA_CHAIN_ARGS_MAX = 144 };

typedef enum { ADA_ARG_NONE, ADA_ARG_BUFFER, ADA_ARG_WEIGHT, ADA_ARG_KINDS } AdaArgKind;
typedef struct {
    uint32_t kind;   // AdaArgKind; NONE is a null pointer (an operand that the spec switches off)
    uint32_t index;  // buffer or weight
    uint64_t offset; // bytes from its start
} AdaArg;

// BODY: ids -> hidden, for up to `bucket` tokens. HEAD: hidden -> logits, for up to `bucket` rows. SAMPLE:
// logits -> next. ADVANCE: next -> ids, pos of the following step, where row r is token r. A decode step is
// BODY HEAD SAMPLE ADVANCE.
typedef enum {
    ADA_PROGRAM_BODY = 1,
    ADA_PROGRAM_HEAD,
    ADA_PROGRAM_SAMPLE,
    ADA_PROGRAM_ADVANCE,
    ADA_PROGRAM_KINDS
} AdaProgramKind;
typedef struct {
    uint32_t kind, bucket, first_launch, n_launches;
} AdaProgram;

typedef struct {
    uint32_t name;
    uint32_t layout;            // AdaLayout
    uint64_t rows, cols, stack; // of one rank; stack: experts, else 1
} AdaWeight;

// Where rank r finds weight w: row w * n_ranks + r of the bindings table. Ranks that hold the same bytes
// share the place.
typedef struct {
    uint64_t offset, bytes; // inside the weights section; offset is a multiple of 256
} AdaBinding;

// How a weight's bytes are ordered. The compiler's pack/layout.c writes them, the kernels read them.
typedef enum {
    ADA_LAYOUT_ROWS_F32 = 1, // row-major f32: norms, row scales, biases, constants
    ADA_LAYOUT_ROWS_BF16,    // row-major bf16: embedding tables that are only gathered
    ADA_LAYOUT_HOST_NVFP4,   // tiles for the host's linear, see pack/layout.h
    ADA_LAYOUT_HOST_BF16,
    ADA_LAYOUT_HOST_F16,
    ADA_LAYOUT_HOST_F32,
    ADA_LAYOUT_MMA_NVFP4, // tiles of mma.sync fragments for GPUs, see pack/layout.h
    ADA_LAYOUT_MMA_F16,
    ADA_LAYOUT_MMA_NVFP4_PAIRS, // the same of [2F, K]: a tile is 8 rows of each half
    ADA_LAYOUT_MMA_F16_PAIRS,
    ADA_LAYOUT_HOST_E4M3, // E4M3 with a scale a row
    ADA_LAYOUT_MMA_E4M3,
    ADA_LAYOUT_LAYOUTS
} AdaLayout;

// ---- self-test -----------------------------------------------------------------------------------
// AdaSelftest, then n_ids int32 ids, then n_ids float32 logits rows at the columns listed: see below.
typedef struct {
    char magic[8];      // "ADATEST1"
    uint32_t n_ids;     // one prompt
    uint32_t n_columns; // logits columns kept for every position
    float tolerance;    // relative Frobenius error allowed over what is kept
    uint32_t reserved;
    // int32 ids[n_ids]; int32 columns[n_columns]; float logits[n_ids][n_columns], from the fp32 evaluator of
    // the graph
} AdaSelftest;
#endif
