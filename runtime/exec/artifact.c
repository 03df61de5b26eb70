#include "runtime/exec/artifact.h"

#include <stdio.h>
#include <string.h>

#include "runtime/base/hash.h"
#include "runtime/base/num.h"
#include "runtime/exec/leaves.h"
#include "runtime/exec/plan_check.h"

enum { SECTIONS_MAX = 64, RANKS_MAX = 64 };

static const char *const section_names[ADA_SECTION_KINDS] = {
    [ADA_MANIFEST] = "manifest",   [ADA_PLAN] = "plan",       [ADA_CODE] = "code",
    [ADA_TOKENIZER] = "tokenizer", [ADA_CHAT] = "chat",       [ADA_EXPLAIN] = "explain",
    [ADA_SELFTEST] = "self-test",  [ADA_WEIGHTS] = "weights", [ADA_HASHES] = "hashes",
};

static const char *const role_names[ADA_ROLE_ROLES] = {
    [ADA_ROLE_NONE] = "none",
    [ADA_ROLE_COUNTS] = "counts",
    [ADA_ROLE_IDS] = "ids",
    [ADA_ROLE_POS] = "pos",
    [ADA_ROLE_SLOT] = "slot",
    [ADA_ROLE_ROWS] = "rows",
    [ADA_ROLE_BLOCK_TABLE] = "block_table",
    [ADA_ROLE_KV_POOL] = "kv_pool",
    [ADA_ROLE_HIDDEN] = "hidden",
    [ADA_ROLE_LOGITS] = "logits",
    [ADA_ROLE_SAMPLING] = "sampling",
    [ADA_ROLE_NEXT] = "next",
    [ADA_ROLE_STATUS] = "status",
    [ADA_ROLE_RING] = "ring",
    [ADA_ROLE_WORK] = "work",
    [ADA_ROLE_TOKEN_COUNTS] = "token_counts",
    [ADA_ROLE_TOKEN_LISTS] = "token_lists",
    [ADA_ROLE_TOKEN_MASK] = "token_mask",
    [ADA_ROLE_LOGPROBS] = "logprobs",
};

const char *artifact_section_name(uint32_t kind) {
    return kind < ADA_SECTION_KINDS && section_names[kind] ? section_names[kind] : "?";
}

const char *artifact_role_name(uint32_t role) { return role < ADA_ROLE_ROLES ? role_names[role] : "?"; }

// ---- superblock ------------------------------------------------------------------------------------------

static bool all_zero(const uint8_t *p, uint64_t n) { return !n || (!p[0] && !memcmp(p, p + 1, n - 1)); }

static bool terminated(const char *s, size_t n) { return memchr(s, 0, n) != NULL; }

static bool check_identity(const AdaSuperblock *s, uint64_t size, Err *e) {
    if (size < sizeof *s || memcmp(s->magic, ADA_MAGIC, 8) != 0)
        return err_set(e, E_ARTIFACT,
                       "this is no .ada artifact: the first 8 bytes are not its magic, or the file is "
                       "shorter than the superblock of %d bytes",
                       ADA_SUPERBLOCK_BYTES);
    if (s->endian_tag != ADA_ENDIAN_TAG)
        return err_set(e, E_ARTIFACT, "superblock, offset 8: byte order tag %08x instead of %08x",
                       s->endian_tag, ADA_ENDIAN_TAG);
    if (s->major != ADA_MAJOR)
        return err_set(e, E_ARTIFACT_VERSION,
                       "format version %u.%u; this program reads %d.x: compile the model again", s->major,
                       s->minor, ADA_MAJOR);
    if (s->incompat)
        return err_set(e, E_ARTIFACT_VERSION,
                       "needs features 0x%llx that this program does not have: use a newer one",
                       (unsigned long long)s->incompat);
    return true;
}

static bool check_superblock(const AdaSuperblock *s, uint64_t size, Err *e) {
    if (!check_identity(s, size, e)) return false;
    AdaSuperblock copy = *s;
    memset(copy.self_hash, 0, sizeof copy.self_hash);
    Sha256 h = sha256(&copy, sizeof copy);
    if (memcmp(h.bytes, s->self_hash, 32) != 0)
        return err_set(e, E_ARTIFACT_HASH,
                       "the superblock (offset 0, %d bytes) does not match its own SHA-256",
                       ADA_SUPERBLOCK_BYTES);
    if (s->file_size != size)
        return err_set(e, E_ARTIFACT,
                       "the file has %llu bytes and should have %llu: it was cut or appended to",
                       (unsigned long long)size, (unsigned long long)s->file_size);
    if (s->sections_offset != ADA_SUPERBLOCK_BYTES || !s->n_sections || s->n_sections > SECTIONS_MAX)
        return err_set(
            e, E_ARTIFACT, "superblock: %u sections at offset %llu; 1 to %d at offset %d are possible",
            s->n_sections, (unsigned long long)s->sections_offset, SECTIONS_MAX, ADA_SUPERBLOCK_BYTES);
    if (s->leaf_bytes != ADA_LEAF_BYTES)
        return err_set(e, E_ARTIFACT, "superblock: leaves of %u bytes instead of %d", s->leaf_bytes,
                       ADA_LEAF_BYTES);
    if (!s->n_ranks || s->n_ranks > RANKS_MAX)
        return err_set(e, E_ARTIFACT, "superblock: %u ranks; 1 to %d are possible", s->n_ranks, RANKS_MAX);
    if (!terminated(s->target, sizeof s->target) || !terminated(s->model, sizeof s->model) ||
        !terminated(s->compiler, sizeof s->compiler) || !all_zero(s->reserved, sizeof s->reserved))
        return err_set(e, E_ARTIFACT, "superblock: a name without end, or reserved bytes that are not zero");
    return true;
}

// ---- sections --------------------------------------------------------------------------------------------

static bool check_section(const Artifact *a, uint32_t i, uint64_t *end, Err *e) {
    const AdaSection *s = &a->sections[i];
    if (!s->kind || s->kind >= ADA_SECTION_KINDS || (s->kind == ADA_CODE) != (s->flags != 0))
        return err_set(e, E_ARTIFACT, "section %u: unknown kind %u with flags %u", i, s->kind, s->flags);
    const char *name = artifact_section_name(s->kind);
    if (i && (s->kind < s[-1].kind || (s->kind == s[-1].kind && s->kind != ADA_CODE)))
        return err_set(e, E_ARTIFACT, "section %u: %s may not follow %s", i, name,
                       artifact_section_name(s[-1].kind));
    if (s->align < 8 || s->align > ADA_WEIGHTS_ALIGN || (s->align & (s->align - 1)) ||
        (s->kind == ADA_WEIGHTS && s->align != ADA_WEIGHTS_ALIGN))
        return err_set(e, E_ARTIFACT, "%s section: alignment %llu", name, (unsigned long long)s->align);
    uint64_t begin = round_up(*end, s->align); // *end <= size of a real file
    if (s->offset != begin || !range_inside(s->offset, s->bytes, a->size))
        return err_set(e, E_ARTIFACT,
                       "%s section: %llu bytes at offset %llu; it must begin at %llu and end inside the "
                       "file of %llu bytes",
                       name, (unsigned long long)s->bytes, (unsigned long long)s->offset,
                       (unsigned long long)begin, (unsigned long long)a->size);
    if (!all_zero(a->data + *end, begin - *end))
        return err_set(e, E_ARTIFACT, "the padding before the %s section, offset %llu to %llu, is not zero",
                       name, (unsigned long long)*end, (unsigned long long)begin);
    *end = begin + s->bytes;
    return true;
}

static bool check_sections(Artifact *a, Err *e) {
    static const uint32_t required[] = {ADA_MANIFEST,  ADA_PLAN,    ADA_CODE,
                                        ADA_TOKENIZER, ADA_WEIGHTS, ADA_HASHES};
    uint64_t end = ADA_SUPERBLOCK_BYTES + a->super->n_sections * (uint64_t)sizeof(AdaSection);
    if (end > a->size)
        return err_set(e, E_ARTIFACT, "the table of %u sections does not fit the file of %llu bytes",
                       a->super->n_sections, (unsigned long long)a->size);
    for (uint32_t i = 0; i < a->super->n_sections; i++)
        if (!check_section(a, i, &end, e)) return false;
    for (size_t i = 0; i < COUNT_OF(required); i++) {
        Str s;
        if (!artifact_section(a, required[i], 0, &s))
            return err_set(e, E_ARTIFACT, "there is no %s section", artifact_section_name(required[i]));
    }
    if (end != a->size)
        return err_set(e, E_ARTIFACT, "%llu bytes follow the last section",
                       (unsigned long long)(a->size - end));
    return true;
}

bool artifact_section(const Artifact *a, AdaSectionKind kind, uint32_t nth, Str *out) {
    for (uint32_t i = 0; i < a->super->n_sections; i++) {
        const AdaSection *s = &a->sections[i];
        if (s->kind != kind || nth--) continue;
        *out = (Str){(const char *)a->data + s->offset, s->bytes};
        return true;
    }
    return false;
}

// ---- hashes ----------------------------------------------------------------------------------------------

static bool check_section_hashes(const Artifact *a, Err *e) {
    for (uint32_t i = 0; i < a->super->n_sections; i++) {
        const AdaSection *s = &a->sections[i];
        Sha256 h = {0}; // of the two that the leaves cover
        if (s->kind != ADA_WEIGHTS && s->kind != ADA_HASHES) h = sha256(a->data + s->offset, s->bytes);
        if (memcmp(h.bytes, s->sha256, 32) != 0)
            return err_set(
                e, E_ARTIFACT_HASH, "the %s section (offset %llu, %llu bytes) does not match its SHA-256",
                artifact_section_name(s->kind), (unsigned long long)s->offset, (unsigned long long)s->bytes);
    }
    return true;
}

static bool check_root(const Artifact *a, Str hashes, uint64_t covered, Err *e) {
    uint64_t n = div_up(covered, ADA_LEAF_BYTES);
    if (n > UINT32_MAX || hashes.len != n * 32)
        return err_set(e, E_ARTIFACT, "hashes section: %zu bytes instead of 32 for each of %llu leaves",
                       hashes.len, (unsigned long long)n);
    Sha256 root = sha256(hashes.ptr, hashes.len);
    if (memcmp(root.bytes, a->super->merkle_root, 32) != 0)
        return err_set(e, E_ARTIFACT_HASH,
                       "the hashes section does not match the Merkle root of the superblock");
    return true;
}

static bool check_hashes(const Artifact *a, ArtifactDepth depth, Pool *pool, Err *e) {
    Str hashes;
    CHECK(artifact_section(a, ADA_HASHES, 0, &hashes));
    uint64_t covered = (uint64_t)((const uint8_t *)hashes.ptr - a->data) - ADA_SUPERBLOCK_BYTES;
    if (!check_section_hashes(a, e) || !check_root(a, hashes, covered, e)) return false;
    return depth == ARTIFACT_STRUCTURE || leaves_check(a, pool, e);
}

// ---- self-test -------------------------------------------------------------------------------------------

bool artifact_selftest(const Artifact *a, Selftest *out) {
    Str s;
    if (!artifact_section(a, ADA_SELFTEST, 0, &s)) return false;
    const AdaSelftest *t = (const AdaSelftest *)s.ptr;
    *out = (Selftest){t->n_ids, t->n_columns, t->tolerance, (const int32_t *)(t + 1), NULL, NULL};
    out->columns = out->ids + t->n_ids;
    out->logits = (const float *)(out->columns + t->n_columns);
    return true;
}

static bool check_selftest(const Artifact *a, Err *e) {
    Str s;
    if (!artifact_section(a, ADA_SELFTEST, 0, &s)) return true;
    const AdaSelftest *t = (const AdaSelftest *)s.ptr;
    if (s.len < sizeof *t || memcmp(t->magic, "ADATEST1", 8) != 0)
        return err_set(e, E_ARTIFACT, "self-test section: no header of %zu bytes with its magic", sizeof *t);
    uint64_t cells, numbers, bytes; // u32 * u32 fits 64 bits; the sums may not
    if (!u64_mul(t->n_ids, t->n_columns, &cells) ||
        !u64_add(cells, (uint64_t)t->n_ids + t->n_columns, &numbers) || !u64_mul(numbers, 4, &bytes) ||
        bytes != s.len - sizeof *t)
        return err_set(e, E_ARTIFACT,
                       "self-test section: %zu bytes do not hold %u ids, %u columns and their logits", s.len,
                       t->n_ids, t->n_columns);
    if (!t->n_ids || t->n_ids > a->plan->context || !t->n_columns || !(t->tolerance > 0 && t->tolerance < 1))
        return err_set(e, E_ARTIFACT, "self-test section: %u ids, %u columns, tolerance %g", t->n_ids,
                       t->n_columns, (double)t->tolerance);
    Selftest x;
    artifact_selftest(a, &x);
    for (uint32_t i = 0; i < x.n_ids + x.n_columns; i++) // the columns follow the ids
        if (x.ids[i] < 0 || (uint32_t)x.ids[i] >= a->plan->vocab_rows)
            return err_set(e, E_ARTIFACT, "self-test section: entry %u is %d, outside the vocabulary of %u",
                           i, x.ids[i], a->plan->vocab_rows);
    return true;
}

// ---- all together ----------------------------------------------------------------------------------------

static bool check_plan(Artifact *a, Err *e) {
    Str plan, weights;
    CHECK(artifact_section(a, ADA_PLAN, 0, &plan) && artifact_section(a, ADA_WEIGHTS, 0, &weights));
    a->weight_data = (const uint8_t *)weights.ptr, a->weight_bytes = weights.len;
    uint8_t *copy = arena_alloc(&a->arena, plan.len); // what was checked stays what is used
    memcpy(copy, plan.ptr, plan.len);
    return plan_check(a, copy, plan.len, e);
}

bool artifact_parse(Artifact *a, const void *data, uint64_t size, ArtifactDepth depth, Pool *pool, Err *e) {
    *a = (Artifact){.data = data, .size = size, .super = data};
    if (check_superblock(a->super, size, e)) {
        a->sections = (const AdaSection *)(a->data + ADA_SUPERBLOCK_BYTES);
        if (check_sections(a, e) && check_hashes(a, depth, pool, e) && check_plan(a, e) &&
            check_selftest(a, e))
            return true;
    }
    arena_free(&a->arena);
    return false;
}

bool artifact_open(Artifact *a, const char *path, ArtifactDepth depth, Pool *pool, Err *e) {
    FileMap file;
    if (!file_map(path, &file, e)) return false;
    if (!artifact_parse(a, file.data, file.size, depth, pool, e)) {
        file_unmap(&file);
        return err_context(e, "%s", path);
    }
    a->file = file;
    return true;
}

void artifact_close(Artifact *a) {
    arena_free(&a->arena);
    file_unmap(&a->file);
    *a = (Artifact){0};
}

const char *artifact_driver(const Artifact *a) { return a->super->sm ? "cuda" : "host"; }

const char *artifact_string(const Artifact *a, uint32_t offset) { return a->strings + offset; }

const AdaBinding *artifact_binding(const Artifact *a, uint32_t weight, uint32_t rank) {
    return &a->bindings[(uint64_t)weight * a->plan->n_ranks + rank];
}

uint32_t artifact_role(const Artifact *a, AdaRole role, uint32_t index) {
    for (uint32_t i = 0; i < a->plan->buffers.count; i++)
        if (a->buffers[i].role == role && a->buffers[i].index == index) return i;
    return UINT32_MAX;
}
