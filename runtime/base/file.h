// Files: read-only mappings, whole-file reads with a cap, and output that appears only when it is complete.
#ifndef ADALLM_BASE_FILE_H
#define ADALLM_BASE_FILE_H
#include "runtime/base/err.h"
#include "runtime/base/str.h"

typedef struct {
    const uint8_t *data; // page-aligned; NULL when size is 0
    uint64_t size;       // bytes, taken once at open
} FileMap;

// Maps a regular file read-only. Anything else (directory, FIFO, device) is refused.
bool file_map(const char *path, FileMap *out, Err *e);
void file_unmap(FileMap *m);

// Reads a whole regular file of at most `max_bytes` into the arena, NUL-terminated beyond its length.
bool file_read(Arena *a, const char *path, uint64_t max_bytes, Str *out, Err *e);
bool file_exists(const char *path); // regular file or symlink to one
bool dir_exists(const char *path);
const char *path_join(Arena *a, const char *dir, const char *name);

// Output beside the target, renamed when committed: a failure leaves neither a new nor a damaged file.
typedef struct OutFile OutFile;
bool out_check(const char *path, Err *e);    // false where out_open would fail, before work is spent on it
bool out_check(const char *path, Err *e);    // false where out_open must fail: before work is spent on it
OutFile *out_open(const char *path, Err *e); // NULL on failure
bool out_write(OutFile *f, const void *data, size_t len, Err *e); // appends
bool out_write_at(OutFile *f, uint64_t offset, const void *data, size_t len,
                  Err *e);                       // rewrites earlier bytes
bool out_extend(OutFile *f, uint64_t n, Err *e); // appends n zero bytes, to be written with out_write_at
uint64_t out_size(const OutFile *f);             // bytes appended so far
int out_fd(OutFile *f);                          // for reading back what was written
bool out_commit(OutFile *f, Err *e);             // fsync, rename, fsync the folder; frees f in any case
void out_abandon(OutFile *f);                    // removes the temporary file; f may be NULL
#endif
