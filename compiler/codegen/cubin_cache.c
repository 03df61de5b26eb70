#include "compiler/codegen/cubin_cache.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "runtime/base/file.h"
#include "runtime/base/num.h"

// A file: this, log, cubin. A damaged file is a file that is not there.
typedef struct {
    char magic[8];
    uint64_t log_bytes, cubin_bytes;
    Sha256 sha256; // of log and cubin
} CacheHead;
static const char cache_magic[8] = "ADACUB1\n";
enum { FILE_BYTES_MAX = 64 << 20, CACHE_BYTES_MAX = 256 << 20 };

static bool make_dir(const char *path) {
    return dir_exists(path) || mkdir(path, 0755) == 0 || dir_exists(path);
}

const char *cubin_cache_open(Arena *a) {
    const char *base = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    if (!base || *base != '/') {
        if (!home || *home != '/') return NULL;
        base = path_join(a, home, ".cache");
    }
    const char *dir = path_join(a, base, "adallm");
    return make_dir(base) && make_dir(dir) ? dir : NULL;
}

static const char *file_of(Arena *a, const char *dir, Sha256 key) {
    char hex[65];
    sha256_hex(key, hex);
    return path_join(a, dir, arena_printf(a, "%s.cubin", hex));
}

bool cubin_cache_get(Arena *a, const char *dir, Sha256 key, CachedCubin *out) {
    const char *path = file_of(a, dir, key);
    CacheHead h;
    Str all;
    Err e;
    if (!file_exists(path) || !file_read(a, path, FILE_BYTES_MAX, &all, &e) || all.len < sizeof h)
        return false;
    memcpy(&h, all.ptr, sizeof h);
    Str body = str_from(all, sizeof h);
    if (memcmp(h.magic, cache_magic, sizeof h.magic) || h.log_bytes > body.len ||
        h.cubin_bytes != body.len - h.log_bytes)
        return false;
    Sha256 have = sha256(body.ptr, body.len);
    if (memcmp(&have, &h.sha256, sizeof have)) return false;
    *out = (CachedCubin){.log = str_sub(body, 0, h.log_bytes), .cubin = str_from(body, h.log_bytes)};
    utimensat(AT_FDCWD, path, NULL, 0); // used now
    return true;
}

void cubin_cache_put(Arena *a, const char *dir, Sha256 key, const CachedCubin *c) {
    CacheHead h = {.log_bytes = c->log.len, .cubin_bytes = c->cubin.len};
    memcpy(h.magic, cache_magic, sizeof h.magic);
    Sha256Stream *s = sha256_begin();
    sha256_add(s, c->log.ptr, c->log.len);
    sha256_add(s, c->cubin.ptr, c->cubin.len);
    h.sha256 = sha256_end(s);
    Err e;
    OutFile *f = out_open(file_of(a, dir, key), &e);
    if (!f) return;
    if (out_write(f, &h, sizeof h, &e) && out_write(f, c->log.ptr, c->log.len, &e) &&
        out_write(f, c->cubin.ptr, c->cubin.len, &e))
        (void)out_commit(f, &e);
    else
        out_abandon(f);
}

typedef struct {
    const char *path;
    uint64_t bytes;
    struct timespec used;
} CacheFile;

static int oldest_first(const void *x, const void *y) {
    const CacheFile *a = x, *b = y;
    if (a->used.tv_sec != b->used.tv_sec) return a->used.tv_sec < b->used.tv_sec ? -1 : 1;
    if (a->used.tv_nsec != b->used.tv_nsec) return a->used.tv_nsec < b->used.tv_nsec ? -1 : 1;
    return strcmp(a->path, b->path);
}

void cubin_cache_trim(Arena *a, const char *dir) {
    DIR *d = opendir(dir);
    CacheFile *files = NULL;
    size_t n = 0;
    uint64_t bytes = 0;
    for (struct dirent *entry; d && (entry = readdir(d));) {
        const char *path = path_join(a, dir, entry->d_name);
        struct stat st;
        if (!str_ends(str_of(path), STR(".cubin")) || stat(path, &st) != 0 || !S_ISREG(st.st_mode)) continue;
        files = xrealloc(files, n + 1, sizeof *files);
        files[n++] = (CacheFile){path, (uint64_t)st.st_size, st.st_mtim};
        bytes += (uint64_t)st.st_size;
    }
    if (d) closedir(d);
    if (n) qsort(files, n, sizeof *files, oldest_first);
    for (size_t i = 0; i < n && bytes > CACHE_BYTES_MAX; i++)
        if (unlink(files[i].path) == 0) bytes -= files[i].bytes;
    free(files);
}
