#include "runtime/base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "runtime/base/cleanup.h"
#include "runtime/base/num.h"

struct OutFile {
    int fd;
    uint64_t size;   // bytes appended, buffered ones included
    size_t buffered; // bytes in buf, not yet written
    char *path, *tmp;
    uint8_t buf[1 << 16];
};

static int open_regular(const char *path, uint64_t *size, Err *e) {
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) {
        err_errno(e, E_FILE, "cannot open %s", path);
        return -1;
    }
    struct stat st;
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) {
        err_set(e, E_FILE, "%s is not a regular file", path);
        close(fd);
        return -1;
    }
    *size = (uint64_t)st.st_size;
    return fd;
}

bool file_map(const char *path, FileMap *out, Err *e) {
    *out = (FileMap){0};
    int fd = open_regular(path, &out->size, e);
    if (fd < 0) return false;
    void *p = NULL;
    if (out->size) p = mmap(NULL, out->size, PROT_READ, MAP_SHARED, fd, 0);
    close(fd);
    if (p == MAP_FAILED) return err_errno(e, E_FILE, "cannot map %s", path);
    out->data = p;
    return true;
}

void file_unmap(FileMap *m) {
    if (m->data) munmap((void *)m->data, m->size);
    *m = (FileMap){0};
}

bool file_read(Arena *a, const char *path, uint64_t max_bytes, Str *out, Err *e) {
    uint64_t size;
    int fd = open_regular(path, &size, e);
    if (fd < 0) return false;
    if (size > max_bytes) {
        close(fd);
        return err_set(e, E_LIMIT, "%s has %llu bytes, more than the limit of %llu", path,
                       (unsigned long long)size, (unsigned long long)max_bytes);
    }
    char *p = arena_alloc(a, size + 1);
    size_t have = 0;
    while (have < size) {
        ssize_t n = read(fd, p + have, size - have);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) break;
        have += (size_t)n;
    }
    close(fd);
    if (have != size) return err_set(e, E_FILE, "%s changed while it was read", path);
    *out = (Str){p, have};
    return true;
}

bool file_exists(const char *path) {
    struct stat st;
    return stat(path, &st) == 0 && S_ISREG(st.st_mode);
}

bool dir_exists(const char *path) {
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

const char *path_join(Arena *a, const char *dir, const char *name) {
    size_t n = strlen(dir);
    return arena_printf(a, "%s%s%s", dir, n && dir[n - 1] == '/' ? "" : "/", name);
}

static void folder_of(const char *path, char dir[PATH_MAX]) {
    const char *slash = strrchr(path, '/');
    snprintf(dir, PATH_MAX, "%.*s", slash ? (int)(slash - path) + 1 : 1, slash ? path : ".");
}

bool out_check(const char *path, Err *e) {
    struct stat st;
    char dir[PATH_MAX];
    if (!*path) return err_set(e, E_FILE, "the name of the output file is empty");
    if (stat(path, &st) == 0 && !S_ISREG(st.st_mode)) // a device would be replaced by the rename
        return err_set(e, E_FILE, "cannot write %s: it is %s", path,
                       S_ISDIR(st.st_mode) ? "a folder" : "no regular file");
    folder_of(path, dir);
    return access(dir, W_OK | X_OK) == 0 || err_errno(e, E_FILE, "cannot create a file beside %s", path);
}

OutFile *out_open(const char *path, Err *e) {
    if (!out_check(path, e)) return NULL;
    OutFile *f = xmalloc(sizeof *f);
    size_t len = strlen(path);
    f->size = 0, f->buffered = 0;
    f->path = memcpy(xmalloc(len + 1), path, len + 1);
    f->tmp = xmalloc(len + 16);
    snprintf(f->tmp, len + 16, "%s.tmp.XXXXXX", path);
    f->fd = mkostemp(f->tmp, O_CLOEXEC);
    if (f->fd < 0) {
        err_errno(e, E_FILE, "cannot create a file beside %s", path);
        free(f->path), free(f->tmp), free(f);
        return NULL;
    }
    cleanup_add(f->tmp);
    fchmod(f->fd, 0644);
    return f;
}

static bool write_all(OutFile *f, const uint8_t *p, size_t len, uint64_t at, Err *e) {
    while (len) {
        ssize_t n = pwrite(f->fd, p, len, (off_t)at);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return err_errno(e, E_FILE, "cannot write %s", f->path);
        p += n, len -= (size_t)n, at += (uint64_t)n;
    }
    return true;
}

static bool flush(OutFile *f, Err *e) {
    size_t n = f->buffered;
    f->buffered = 0;
    return write_all(f, f->buf, n, f->size - n, e);
}

bool out_write(OutFile *f, const void *data, size_t len, Err *e) {
    if (f->buffered + len > sizeof f->buf && !flush(f, e)) return false;
    if (len > sizeof f->buf) {
        if (!write_all(f, data, len, f->size, e)) return false;
    } else if (len) {
        memcpy(f->buf + f->buffered, data, len);
        f->buffered += len;
    }
    f->size += len;
    return true;
}

bool out_write_at(OutFile *f, uint64_t offset, const void *data, size_t len, Err *e) {
    CHECK(range_inside(offset, len, f->size));
    return flush(f, e) && write_all(f, data, len, offset, e);
}

bool out_extend(OutFile *f, uint64_t n, Err *e) {
    uint64_t size;
    if (!flush(f, e)) return false;
    if (!u64_add(f->size, n, &size) || size > INT64_MAX || ftruncate(f->fd, (off_t)size) != 0)
        return err_errno(e, E_FILE, "cannot write %s", f->path);
    f->size = size;
    return true;
}

uint64_t out_size(const OutFile *f) { return f->size; }

int out_fd(OutFile *f) {
    Err ignored;
    flush(f, &ignored);
    return f->fd;
}

static bool sync_folder(const char *path) {
    char dir[PATH_MAX];
    folder_of(path, dir);
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return false;
    bool ok = fsync(fd) == 0 || errno == EINVAL;
    close(fd);
    return ok;
}

bool out_commit(OutFile *f, Err *e) {
    if (!flush(f, e)) {
        out_abandon(f);
        return false;
    }
    if (fsync(f->fd) != 0 || rename(f->tmp, f->path) != 0 || !sync_folder(f->path)) {
        err_errno(e, E_FILE, "cannot finish %s", f->path);
        out_abandon(f);
        return false;
    }
    cleanup_drop(f->tmp);
    close(f->fd);
    free(f->path), free(f->tmp), free(f);
    return true;
}

void out_abandon(OutFile *f) {
    if (!f) return;
    close(f->fd);
    cleanup_remove(f->tmp);
    free(f->path), free(f->tmp), free(f);
}
