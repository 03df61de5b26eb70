// A sound artifact, damaged and sealed again: the hashes match, so that only the checks of structure and plan
// stand between the damage and its use. What passes them is bound to the null device and stepped.
//
//     byte 0     bit 0: the rest is a whole file; bit 1: leave the section hashes; bit 2: leave the
//     superblock's hash then edits: region (0 superblock, 1 section table, 2.. sections), offset u16, length
//     - 1 (3 bits), bytes
#include <stdlib.h>
#include <unistd.h>

#include "runtime/base/file.h"
#include "runtime/engine/batch.h"
#include "runtime/exec/manifest.h"
#include "tests/unit/small_model.h"

enum { RUN_BYTES_MAX = 1 << 20, RUN_STEPS_MAX = 20, EDITS_MAX = 64 };

static uint8_t *file; // the artifact; edits are undone after each input
static uint64_t file_bytes;

static void make_file(void) {
    char path[] = "/tmp/adallm-fuzz-XXXXXX";
    Arena arena = {0};
    Diags d = {.arena = &arena};
    Err e = {0};
    PackReport report;
    Str bytes;
    Pool *pool = pool_new(1);
    SmallModel *m = ARENA_NEW(&arena, SmallModel);
    small_model(m, &arena, 1, pool);
    close(mkstemp(path));
    CHECK(pack_artifact(&m->input, path, &report, &d) && file_read(&arena, path, 1 << 24, &bytes, &e));
    unlink(path);
    file_bytes = bytes.len;
    file = memcpy(xmalloc(bytes.len), bytes.ptr, bytes.len);
    pool_free(pool);
    arena_free(&arena);
}

// Section i of the sound file; they are sealed before any edit moves them.
static AdaSection *section(uint32_t i) { return (AdaSection *)(file + ADA_SUPERBLOCK_BYTES) + i; }

static void seal(uint8_t mode, const AdaSection *sound, uint32_t n) {
    AdaSuperblock *s = (AdaSuperblock *)file;
    for (uint32_t i = 0; i < n && !(mode & 2); i++) {
        if (sound[i].kind == ADA_WEIGHTS || sound[i].kind == ADA_HASHES) continue;
        Sha256 h = sha256(file + sound[i].offset, sound[i].bytes);
        memcpy(section(i)->sha256, h.bytes, sizeof h.bytes);
    }
    if (mode & 4) return;
    memset(s->self_hash, 0, sizeof s->self_hash);
    Sha256 h = sha256(s, sizeof *s);
    memcpy(s->self_hash, h.bytes, sizeof h.bytes);
}

static bool affordable(const Artifact *a) {
    uint64_t total = a->plan->scratch_bytes;
    for (uint32_t i = 0; i < a->plan->buffers.count && total < RUN_BYTES_MAX; i++)
        total += a->buffers[i].bytes;
    for (uint32_t g = 0; g < a->plan->n_kv_groups && total < RUN_BYTES_MAX; g++) {
        const AdaKvGroup *k = &a->plan->kv[g];
        total += (MIN(k->page_bytes, RUN_BYTES_MAX) * k->pages_per_seq + 96ull * k->pages_per_seq) *
                 a->plan->seqs_max;
    }
    uint64_t books = 256ull * (a->plan->tokens_max + a->plan->rows_max) + 8ull * a->plan->context +
                     (a->plan->vocab / 8 + 128ull) * a->plan->seqs_max;
    return total < RUN_BYTES_MAX && books < RUN_BYTES_MAX;
}

static void use(Artifact *a) {
    Manifest m;
    Selftest t;
    Err e;
    if (!manifest_read(a, &m, &e)) return;
    artifact_selftest(a, &t);
    if (!affordable(a)) return;
    Exec *x = exec_open(a, &(ExecOptions){.driver = "null"}, &e);
    if (!x) return;
    Batch *b = batch_new(x, NULL, &e);
    CHECK(b);
    const int32_t ids[] = {0, 0, 0};
    const Request r = {.ids = ids, .n_ids = MIN(3, a->plan->context), .max_tokens = TOKENS_ALL};
    Seq *seqs[3];
    uint32_t n;
    const BatchToken *tokens;
    bool ok = true;
    for (int i = 0; i < 3; i++)
        if ((seqs[i] = seq_new(batch_limits(b), &r, &e))) batch_add(b, seqs[i]);
    for (int i = 0; ok && i < RUN_STEPS_MAX; i++) ok = batch_step(b, &tokens, &n, &e);
    CHECK(batch_consistent(b));
    batch_free(b);
    for (int i = 0; i < 3; i++) seq_free(seqs[i]);
    exec_close(x);
}

static void parse(const void *data, uint64_t size) {
    Artifact a;
    Err e = {0};
    if (artifact_parse(&a, data, size, ARTIFACT_STRUCTURE, NULL, &e)) {
        use(&a);
        artifact_close(&a);
    } else {
        CHECK(e.code == E_ARTIFACT || e.code == E_ARTIFACT_HASH || e.code == E_ARTIFACT_VERSION);
    }
}

typedef struct {
    uint64_t at;
    uint8_t old[8];
    size_t n;
} Edit;

static bool edit(const AdaSection *sound, uint32_t n_sections, const uint8_t **data, size_t *size,
                 Edit *out) {
    if (*size < 5) return false;
    const uint8_t *p = *data;
    uint32_t region = p[0] % (n_sections + 2);
    uint64_t begin = region == 0 ? 0 : ADA_SUPERBLOCK_BYTES,
             bytes = region == 0 ? ADA_SUPERBLOCK_BYTES : n_sections * sizeof *sound;
    if (region >= 2) begin = sound[region - 2].offset, bytes = sound[region - 2].bytes;
    uint64_t at = p[1] | (uint64_t)p[2] << 8;
    size_t n = (p[3] & 7) + 1u;
    if (n > *size - 4) n = *size - 4;
    *data += 4 + n, *size -= 4 + n;
    if (bytes < 8) return false;
    at = begin + at % (bytes - 7);
    *out = (Edit){.at = at, .n = n};
    memcpy(out->old, file + at, sizeof out->old);
    memcpy(file + at, p + 4, n);
    return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (!file) make_file();
    if (!size) return 0;
    if (data[0] & 1) {
        uint8_t *copy = memcpy(xmalloc(size), data + 1, size - 1); // aligned
        parse(copy, size - 1);
        free(copy);
        return 0;
    }
    AdaSuperblock super = *(AdaSuperblock *)file;
    AdaSection sound[64];
    uint32_t n = super.n_sections, n_edits = 0;
    memcpy(sound, section(0), n * sizeof *sound);
    Edit edits[EDITS_MAX];
    uint8_t mode = data[0];
    data++, size--;
    while (n_edits < EDITS_MAX && edit(sound, n, &data, &size, &edits[n_edits])) n_edits++;
    seal(mode, sound, n);
    parse(file, file_bytes);
    while (n_edits--) memcpy(file + edits[n_edits].at, edits[n_edits].old, sizeof edits->old);
    memcpy(section(0), sound, n * sizeof *sound);
    memcpy(file, &super, sizeof super);
    return 0;
}
