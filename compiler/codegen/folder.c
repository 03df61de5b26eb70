#include "compiler/codegen/folder.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "compiler/codegen/embedded.h"
#include "runtime/base/cleanup.h"
#include "runtime/base/file.h"

const char *folder_temporary(Arena *a, Diags *d) {
    const char *base = getenv("TMPDIR");
    char *dir = arena_printf(a, "%s/adallmc-XXXXXX", base && *base ? base : "/tmp");
    if (mkdtemp(dir)) {
        cleanup_add(dir);
        return dir;
    }
    diag_error(d, E_FILE, SPAN_NONE, "cannot create temporary folder %s: %s", dir, strerror(errno));
    return NULL;
}

bool folder_write(Arena *a, const char *dir, const char *path, const void *data, size_t len, Diags *d) {
    Err e;
    OutFile *f = out_open(path_join(a, dir, path), &e);
    if (f && out_write(f, data, len, &e) && out_commit(f, &e)) return true;
    return diag_err(d, SPAN_NONE, &e);
}

static bool make_folders(Arena *a, const char *dir, const char *path, Diags *d) {
    char *copy = arena_strdup(a, path_join(a, dir, path));
    for (char *slash = copy + strlen(dir) + 1; (slash = strchr(slash, '/')); *slash++ = '/') {
        *slash = 0;
        if (mkdir(copy, 0755) != 0 && errno != EEXIST)
            return diag_error(d, E_FILE, SPAN_NONE, "cannot create folder %s: %s", copy, strerror(errno));
    }
    return true;
}

static bool has_suffix(const char *path, const char *const *suffixes) {
    for (; *suffixes; suffixes++)
        if (str_ends(str_of(path), str_of(*suffixes))) return true;
    return false;
}

bool folder_templates(Arena *a, const char *dir, const char *const *suffixes, Diags *d) {
    for (size_t i = 0; i < n_embedded_files; i++) {
        const EmbeddedFile *f = &embedded_files[i];
        if (!str_starts(str_of(f->path), STR("templates/")) || !has_suffix(f->path, suffixes)) continue;
        if (!make_folders(a, dir, f->path, d) || !folder_write(a, dir, f->path, f->text, f->len, d))
            return false;
    }
    return true;
}
