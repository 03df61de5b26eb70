#include "compiler/pack/pack.h"

#include <stdio.h>
#include <stdlib.h>

#include "compiler/pack/pack_plan.h"
#include "compiler/pack/pack_weights.h"
#include "runtime/base/file.h"
#include "runtime/base/log.h"
#include "runtime/base/num.h"
#include "runtime/base/version.h"

enum { SECTIONS_MAX = 64, SECTION_ALIGN = 64, LEAVES_BUFFERED = 8 };

// ---- the hashed stream: everything between superblock and hashes -----------------------------------------

typedef struct {
    OutFile *file;
    Pool *pool;
    uint8_t *buf; // [LEAVES_BUFFERED leaves]
    size_t used;
    StrBuf hashes; // Sha256 of every finished leaf
} LeafStream;

static void hash_leaf(void *ctx, uint32_t i) {
    LeafStream *s = ctx;
    size_t at = (size_t)i * ADA_LEAF_BYTES, len = MIN(s->used - at, (size_t)ADA_LEAF_BYTES);
    Sha256 h = sha256(s->buf + at, len);
    memcpy(s->hashes.ptr + s->hashes.len + (size_t)i * sizeof h, &h, sizeof h);
}

static bool leaf_flush(LeafStream *s, Err *e) { // the buffer is full, or the stream ends
    uint32_t n = (uint32_t)div_up(s->used, ADA_LEAF_BYTES);
    buf_reserve(&s->hashes, n * sizeof(Sha256));
    pool_run(s->pool, n, hash_leaf, s);
    s->hashes.len += n * sizeof(Sha256);
    size_t used = s->used;
    s->used = 0;
    return out_write(s->file, s->buf, used, e);
}

static bool leaf_write(void *ctx, const void *data, size_t len, Err *e) {
    LeafStream *s = ctx;
    const size_t cap = (size_t)LEAVES_BUFFERED * ADA_LEAF_BYTES;
    for (const uint8_t *p = data; len;) {
        size_t n = MIN(len, cap - s->used);
        memcpy(s->buf + s->used, p, n);
        s->used += n, p += n, len -= n;
        if (s->used == cap && !leaf_flush(s, e)) return false;
    }
    return true;
}

static bool leaf_zeros(LeafStream *s, uint64_t n, Err *e) {
    static const uint8_t zeros[4096];
    for (; n; n -= MIN(n, sizeof zeros))
        if (!leaf_write(s, zeros, MIN(n, sizeof zeros), e)) return false;
    return true;
}

// ---- sections --------------------------------------------------------------------------------------------

typedef struct {
    AdaSection row;
    const void *data; // NULL for weights and hashes
} Section;

typedef struct {
    const PackInput *in;
    Section sections[SECTIONS_MAX];
    uint32_t n;
    uint64_t end; // of the last section laid out
    const AdaBinding *bindings;
    StrBuf manifest, plan, selftest;
    LeafStream stream;
    uint64_t read_bytes;
    double weight_seconds;
} Packer;

static void add_section(Packer *p, AdaSectionKind kind, uint32_t flags, const void *data, uint64_t bytes) {
    CHECK(p->n < SECTIONS_MAX);
    Section *s = &p->sections[p->n++];
    s->data = data;
    s->row = (AdaSection){.kind = kind, .flags = flags, .bytes = bytes};
    s->row.align = kind == ADA_WEIGHTS ? ADA_WEIGHTS_ALIGN : SECTION_ALIGN;
    Sha256 h = {0};
    if (data || !bytes) h = sha256(data, bytes);
    if (kind != ADA_WEIGHTS && kind != ADA_HASHES) memcpy(s->row.sha256, h.bytes, sizeof h);
}

static void lay_out(Packer *p) {
    uint64_t at = ADA_SUPERBLOCK_BYTES + p->n * sizeof(AdaSection);
    for (uint32_t i = 0; i < p->n; i++) {
        AdaSection *s = &p->sections[i].row;
        s->offset = round_up(at, s->align);
        if (s->kind == ADA_HASHES)
            s->bytes = div_up(s->offset - ADA_SUPERBLOCK_BYTES, ADA_LEAF_BYTES) * sizeof(Sha256);
        at = s->offset + s->bytes;
    }
    p->end = at;
}

static void put_selftest(const PackSelftest *t, StrBuf *out) {
    AdaSelftest h = {
        .magic = "ADATEST", .n_ids = t->n_ids, .n_columns = t->n_columns, .tolerance = t->tolerance};
    h.magic[7] = '1';
    buf_add(out, &h, sizeof h);
    buf_add(out, t->ids, t->n_ids * sizeof *t->ids);
    buf_add(out, t->columns, t->n_columns * sizeof *t->columns);
    buf_add(out, t->logits, (size_t)t->n_ids * t->n_columns * sizeof *t->logits);
}

static bool collect(Packer *p, Arena *a, Diags *d) {
    const PackInput *in = p->in;
    uint64_t weight_bytes;
    p->bindings = weights_place(a, in->plan, &weight_bytes, d);
    if (!p->bindings) return false;
    pack_manifest(in, &p->manifest);
    pack_plan(in->plan, p->bindings, &p->plan);
    add_section(p, ADA_MANIFEST, 0, p->manifest.ptr, p->manifest.len);
    add_section(p, ADA_PLAN, 0, p->plan.ptr, p->plan.len);
    for (uint32_t i = 0; i < in->n_code; i++)
        add_section(p, ADA_CODE, in->code[i].kind, in->code[i].data, in->code[i].bytes);
    add_section(p, ADA_TOKENIZER, 0, in->tokenizer.ptr, in->tokenizer.len);
    if (in->chat.len) add_section(p, ADA_CHAT, 0, in->chat.ptr, in->chat.len);
    if (in->explain.len) add_section(p, ADA_EXPLAIN, 0, in->explain.ptr, in->explain.len);
    if (in->selftest.n_ids) {
        put_selftest(&in->selftest, &p->selftest);
        add_section(p, ADA_SELFTEST, 0, p->selftest.ptr, p->selftest.len);
    }
    add_section(p, ADA_WEIGHTS, 0, NULL, weight_bytes);
    add_section(p, ADA_HASHES, 0, NULL, 0);
    lay_out(p);
    return true;
}

static bool write_sections(Packer *p, Diags *d) {
    Err e;
    LeafStream *s = &p->stream;
    uint64_t at = ADA_SUPERBLOCK_BYTES;
    for (uint32_t i = 0; i < p->n; i++, at += sizeof(AdaSection))
        if (!leaf_write(s, &p->sections[i].row, sizeof(AdaSection), &e)) return diag_err(d, SPAN_NONE, &e);
    for (uint32_t i = 0; i < p->n; i++) {
        const Section *x = &p->sections[i];
        if (!leaf_zeros(s, x->row.offset - at, &e)) return diag_err(d, SPAN_NONE, &e);
        at = x->row.offset + x->row.bytes;
        if (x->row.kind == ADA_HASHES) break;
        if (x->row.kind == ADA_WEIGHTS) {
            double begin = clock_s();
            if (!weights_write(p->in->plan, p->bindings, p->in->weights, p->in->pool,
                               (WeightSink){leaf_write, s}, &p->read_bytes, d))
                return false;
            p->weight_seconds = clock_s() - begin;
        } else if (!leaf_write(s, x->data, x->row.bytes, &e)) {
            return diag_err(d, SPAN_NONE, &e);
        }
    }
    if (!leaf_flush(s, &e) || !out_write(s->file, s->hashes.ptr, s->hashes.len, &e))
        return diag_err(d, SPAN_NONE, &e);
    CHECK(out_size(s->file) == p->end);
    return true;
}

// ---- superblock ------------------------------------------------------------------------------------------

static Sha256 hash_inputs(const PackFacts *f) {
    Sha256Stream *s = sha256_begin();
    for (uint32_t i = 0; i < f->n_inputs; i++)
        sha256_add(s, f->inputs[i].hash.bytes, sizeof f->inputs[i].hash.bytes);
    return sha256_end(s);
}

static void put_name(char *dst, size_t cap, const char *src) { snprintf(dst, cap, "%s", src ? src : ""); }

static bool write_superblock(Packer *p, PackReport *report, Err *e) {
    AdaSuperblock s = {.endian_tag = ADA_ENDIAN_TAG,
                       .major = ADA_MAJOR,
                       .minor = ADA_MINOR,
                       .file_size = p->end,
                       .sections_offset = ADA_SUPERBLOCK_BYTES,
                       .n_sections = p->n,
                       .leaf_bytes = ADA_LEAF_BYTES,
                       .n_ranks = p->in->plan->n_ranks,
                       .sm = p->in->facts.sm};
    memcpy(s.magic, ADA_MAGIC, sizeof s.magic);
    put_name(s.target, sizeof s.target, p->in->plan->target);
    put_name(s.model, sizeof s.model, p->in->facts.model);
    put_name(s.compiler, sizeof s.compiler, ADALLM_VERSION);
    report->root = sha256(p->stream.hashes.ptr, p->stream.hashes.len);
    memcpy(s.merkle_root, report->root.bytes, sizeof s.merkle_root);
    Sha256 h = hash_inputs(&p->in->facts);
    memcpy(s.sources_hash, h.bytes, sizeof s.sources_hash);
    h = sha256(&s, sizeof s);
    memcpy(s.self_hash, h.bytes, sizeof s.self_hash);
    return out_write_at(p->stream.file, 0, &s, sizeof s, e);
}

static bool write_file(Packer *p, const char *path, PackReport *report, Diags *d) {
    static const uint8_t empty[ADA_SUPERBLOCK_BYTES]; // the real one comes last
    Err e;
    LeafStream *s = &p->stream;
    s->file = out_open(path, &e);
    if (!s->file) return diag_err(d, SPAN_NONE, &e);
    s->pool = p->in->pool;
    s->buf = xmalloc((size_t)LEAVES_BUFFERED * ADA_LEAF_BYTES);
    bool ok = out_write(s->file, empty, sizeof empty, &e) || diag_err(d, SPAN_NONE, &e);
    ok = ok && write_sections(p, d);
    if (ok && !write_superblock(p, report, &e)) ok = diag_err(d, SPAN_NONE, &e);
    if (!ok)
        out_abandon(s->file);
    else if (!out_commit(s->file, &e))
        ok = diag_err(d, SPAN_NONE, &e);
    free(s->buf);
    return ok;
}

bool pack_artifact(const PackInput *in, const char *out_path, PackReport *report, Diags *d) {
    double begin = clock_s();
    Arena arena = {0};
    Packer p = {.in = in};
    *report = (PackReport){0};
    bool ok = collect(&p, &arena, d) && write_file(&p, out_path, report, d);
    report->file_bytes = p.end;
    for (uint32_t i = 0; i < p.n; i++)
        if (p.sections[i].row.kind == ADA_WEIGHTS) report->weight_bytes = p.sections[i].row.bytes;
    report->read_bytes = p.read_bytes;
    report->weight_seconds = p.weight_seconds;
    report->seconds = clock_s() - begin;
    buf_free(&p.manifest), buf_free(&p.plan), buf_free(&p.selftest), buf_free(&p.stream.hashes);
    arena_free(&arena);
    return ok;
}
