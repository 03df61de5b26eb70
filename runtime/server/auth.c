#include "runtime/server/auth.h"

#include <sys/stat.h>

#include "runtime/base/file.h"

enum { KEY_FILE_MAX = 1 << 20 };

static bool key_ok(Str key) {
    for (size_t i = 0; i < key.len; i++)
        if ((unsigned char)key.ptr[i] <= 0x20 || (unsigned char)key.ptr[i] >= 0x7F) return false;
    return true;
}

static bool add_line(Arena *a, Str line, Keys *keys, size_t number, const char *path, Err *e) {
    while (line.len && (line.ptr[line.len - 1] == '\r' || line.ptr[line.len - 1] == ' ')) line.len--;
    if (!line.len || line.ptr[0] == '#') return true;
    if (!key_ok(line))
        return err_set(e, E_OPTION_VALUE, "%s:%zu: a key must be printable ASCII without spaces", path,
                       number);
    Sha256 *digests = ARENA_ARRAY(a, Sha256, keys->n + 1);
    if (keys->n) memcpy(digests, keys->digests, keys->n * sizeof *digests);
    digests[keys->n++] = sha256(line.ptr, line.len);
    keys->digests = digests;
    return true;
}

bool keys_read(Arena *a, const char *path, Keys *out, Err *e) {
    Str text;
    struct stat st;
    *out = (Keys){0};
    if (!file_read(a, path, KEY_FILE_MAX, &text, e)) return false;
    if (stat(path, &st) == 0 && (st.st_mode & 0007))
        return err_set(e, E_OPTION_VALUE, "%s holds keys and everybody may read it: chmod 600 %s", path,
                       path);
    for (size_t at = 0, number = 1; at < text.len; number++) {
        const char *end = memchr(text.ptr + at, '\n', text.len - at);
        size_t len = end ? (size_t)(end - text.ptr) - at : text.len - at;
        if (!add_line(a, (Str){text.ptr + at, len}, out, number, path, e)) return false;
        at += len + 1;
    }
    return out->n > 0 || err_set(e, E_OPTION_VALUE, "%s holds no key", path);
}

bool keys_match(const Keys *keys, Str key) {
    Sha256 got = sha256(key.ptr, key.len);
    unsigned found = 0;
    for (size_t i = 0; i < keys->n; i++) {
        unsigned differs = 0;
        for (size_t b = 0; b < sizeof got.bytes; b++) differs |= got.bytes[b] ^ keys->digests[i].bytes[b];
        found |= (differs - 1) >> 31;
    }
    return found;
}
