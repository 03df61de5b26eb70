#include "compiler/frontend/safetensors.h"

#include <stdlib.h>

#include "runtime/base/json.h"
#include "runtime/base/num.h"

enum { HEADER_MAX = 100000000, HEADER_ALIGN = 8 };

static const struct {
    const char *name;
    uint32_t bits;
} dtypes[ST_N_DTYPES] = {
#define DTYPE(name, bits) {#name, bits},
#include "compiler/frontend/safetensors_dtypes.def"
#undef DTYPE
};

const char *st_dtype_name(StDtype t) { return dtypes[t].name; }
uint32_t st_dtype_bits(StDtype t) { return dtypes[t].bits; }

bool st_dtype_parse(Str s, StDtype *out) {
    for (size_t i = 0; i < COUNT_OF(dtypes); i++) {
        if (!str_is(s, dtypes[i].name)) continue;
        *out = (StDtype)i;
        return true;
    }
    return false;
}

// ---- reading -------------------------------------------------------------------------------------------

typedef struct {
    Arena *arena;
    SafeTensors *file;
    Diags *diags;
    uint64_t data_bytes;
} Reader;

static bool parse_dtype(Reader *r, Str name, const Json *entry, StDtype *out) {
    const Source *src = &r->file->source;
    const Json *j = json_get(entry, "dtype");
    if (!json_is(j, JSON_STRING))
        return diag_error(r->diags, E_SAFETENSORS, json_span(src, j ? j : entry),
                          "tensor " STR_FMT ": `dtype` must be a string such as \"BF16\"", STR_ARG(name));
    if (st_dtype_parse(j->s, out)) return true;
    diag_error(r->diags, E_SAFETENSORS, json_span(src, j), "tensor " STR_FMT ": unknown dtype `" STR_FMT "`",
               STR_ARG(name), STR_ARG(j->s));
    const char *names[COUNT_OF(dtypes)];
    for (size_t i = 0; i < COUNT_OF(dtypes); i++) names[i] = dtypes[i].name;
    diag_did_you_mean(r->diags, j->s, names, COUNT_OF(dtypes));
    return false;
}

static bool parse_sizes(Reader *r, Str name, const Json *entry, const char *key, const Json **list) {
    const Source *src = &r->file->source;
    const Json *j = *list = json_get(entry, key);
    if (!json_is(j, JSON_ARRAY))
        return diag_error(r->diags, E_SAFETENSORS, json_span(src, j ? j : entry),
                          "tensor " STR_FMT ": `%s` must be a list of integers", STR_ARG(name), key);
    for (uint32_t i = 0; i < j->n; i++) {
        const Json *x = &j->items[i];
        if (x->kind != JSON_INT || x->big || x->i < 0)
            return diag_error(r->diags, E_SAFETENSORS, json_span(src, x),
                              "tensor " STR_FMT ": `%s` must hold integers from 0 to 2^63 - 1", STR_ARG(name),
                              key);
    }
    return true;
}

// Bytes that dtype and shape ask for; false on overflow or when they are no whole number of bytes.
static bool shape_bytes(StDtype dtype, uint32_t rank, const uint64_t *shape, uint64_t *out) {
    uint64_t bits = 1;
    for (uint32_t i = 0; i < rank; i++)
        if (!u64_mul(bits, shape[i], &bits)) return false;
    if (!u64_mul(bits, dtypes[dtype].bits, &bits) || bits % 8) return false;
    *out = bits / 8;
    return true;
}

static bool parse_tensor(Reader *r, const JsonMember *m, SafeTensor *t) {
    const Source *src = &r->file->source;
    const Json *shape, *offsets;
    *t = (SafeTensor){.name = m->key, .at = {src, m->key_begin, m->value.begin}};
    if (m->value.kind != JSON_OBJECT)
        return diag_error(r->diags, E_SAFETENSORS, json_span(src, &m->value),
                          "tensor " STR_FMT " must be an object with dtype, shape and data_offsets, not %s",
                          STR_ARG(m->key), json_kind_name(m->value.kind));
    if (!parse_dtype(r, m->key, &m->value, &t->dtype)) return false;
    if (!parse_sizes(r, m->key, &m->value, "shape", &shape)) return false;
    if (!parse_sizes(r, m->key, &m->value, "data_offsets", &offsets)) return false;
    if (offsets->n != 2)
        return diag_error(r->diags, E_SAFETENSORS, json_span(src, offsets),
                          "tensor " STR_FMT ": `data_offsets` must be [begin, end]", STR_ARG(m->key));
    uint64_t *dims = ARENA_ARRAY(r->arena, uint64_t, shape->n), end = (uint64_t)offsets->items[1].i, want;
    for (uint32_t i = 0; i < shape->n; i++) dims[i] = (uint64_t)shape->items[i].i;
    t->rank = shape->n, t->shape = dims, t->begin = (uint64_t)offsets->items[0].i;
    if (end < t->begin || end > r->data_bytes)
        return diag_error(r->diags, E_SAFETENSORS, json_span(src, offsets),
                          "tensor " STR_FMT " spans bytes %llu to %llu, but the file's data has %llu bytes",
                          STR_ARG(m->key), (unsigned long long)t->begin, (unsigned long long)end,
                          (unsigned long long)r->data_bytes);
    t->bytes = end - t->begin;
    if (!shape_bytes(t->dtype, t->rank, dims, &want))
        return diag_error(r->diags, E_SAFETENSORS, json_span(src, shape),
                          "tensor " STR_FMT ": this shape of %s overflows or is no whole number of bytes",
                          STR_ARG(m->key), dtypes[t->dtype].name);
    if (want != t->bytes)
        return diag_error(r->diags, E_SAFETENSORS, json_span(src, offsets),
                          "tensor " STR_FMT ": its shape and dtype take %llu bytes, its offsets span %llu",
                          STR_ARG(m->key), (unsigned long long)want, (unsigned long long)t->bytes);
    return true;
}

static bool check_metadata(Reader *r, const Json *m) {
    const Source *src = &r->file->source;
    if (m->kind != JSON_OBJECT)
        return diag_error(r->diags, E_SAFETENSORS, json_span(src, m),
                          "`__metadata__` must be an object of strings, not %s", json_kind_name(m->kind));
    for (uint32_t i = 0; i < m->n; i++)
        if (m->members[i].value.kind != JSON_STRING)
            return diag_error(r->diags, E_SAFETENSORS, json_span(src, &m->members[i].value),
                              "`__metadata__` may hold strings only, not %s",
                              json_kind_name(m->members[i].value.kind));
    return true;
}

static int by_place(const void *a, const void *b) {
    const SafeTensor *x = a, *y = b;
    if (x->begin != y->begin) return x->begin < y->begin ? -1 : 1;
    if (x->bytes != y->bytes) return x->bytes < y->bytes ? -1 : 1;
    return str_cmp(x->name, y->name);
}

// Tensors follow each other without hole or overlap from 0 to the end of the file.
static bool check_places(Reader *r) {
    SafeTensors *f = r->file;
    uint64_t at = 0;
    for (size_t i = 0; i < f->n_tensors; i++) {
        const SafeTensor *t = &f->tensors[i];
        if (t->begin != at)
            return diag_error(r->diags, E_SAFETENSORS, t->at,
                              "tensor " STR_FMT " begins at byte %llu of the data: %s (the tensors before it "
                              "end at %llu)",
                              STR_ARG(t->name), (unsigned long long)t->begin,
                              t->begin < at ? "it overlaps another tensor" : "there is a hole before it",
                              (unsigned long long)at);
        at += t->bytes;
    }
    if (at != r->data_bytes)
        return diag_error(r->diags, E_SAFETENSORS, SPAN_FILE(&f->source),
                          "%llu bytes follow the last tensor; the file must end where its tensors end",
                          (unsigned long long)(r->data_bytes - at));
    return true;
}

static bool parse_header(Reader *r, const uint8_t *data) {
    SafeTensors *f = r->file;
    // A node takes at least two bytes of text, a tensor in a real header many more.
    JsonLimits limits = {.dup = JSON_DUP_REFUSE, .depth_max = 8, .nodes_max = f->source.text.len / 4 + 1024};
    const Json *root = json_parse(r->arena, &f->source, limits, r->diags);
    if (!root) return false;
    if (root->kind != JSON_OBJECT)
        return diag_error(r->diags, E_SAFETENSORS, json_span(&f->source, root),
                          "the header must be an object of tensors, not %s", json_kind_name(root->kind));
    f->tensors = ARENA_ARRAY(r->arena, SafeTensor, root->n);
    size_t errors = r->diags->n_errors;
    for (uint32_t i = 0; i < root->n; i++) {
        const JsonMember *m = &root->members[i];
        if (str_is(m->key, "__metadata__"))
            check_metadata(r, &m->value);
        else
            parse_tensor(r, m, &f->tensors[f->n_tensors++]);
    }
    if (r->diags->n_errors != errors) return false;
    for (size_t i = 0; i < f->n_tensors; i++) f->tensors[i].data = data + f->tensors[i].begin;
    if (f->n_tensors) qsort(f->tensors, f->n_tensors, sizeof *f->tensors, by_place);
    return check_places(r);
}

bool safetensors_parse(Arena *a, const uint8_t *data, uint64_t size, SafeTensors *out, Diags *d) {
    out->tensors = NULL, out->n_tensors = 0, out->source.text = (Str){0};
    Span whole = SPAN_FILE(&out->source);
    if (size < 8)
        return diag_error(d, E_SAFETENSORS, whole, "%llu bytes are too few for a safetensors file",
                          (unsigned long long)size);
    uint64_t header = 0;
    for (int i = 7; i >= 0; i--) header = header << 8 | data[i];
    if (header > HEADER_MAX)
        return diag_error(d, E_SAFETENSORS, whole,
                          "the header claims %llu bytes, more than the limit of %d (is this a safetensors "
                          "file?)",
                          (unsigned long long)header, HEADER_MAX);
    if (header > size - 8)
        return diag_error(d, E_SAFETENSORS, whole,
                          "the header claims %llu bytes, but only %llu follow: the file is cut short",
                          (unsigned long long)header, (unsigned long long)(size - 8));
    out->source.text = (Str){(const char *)data + 8, header};
    Reader r = {.arena = a, .file = out, .diags = d, .data_bytes = size - 8 - header};
    return parse_header(&r, data + 8 + header);
}

bool safetensors_open(Arena *a, const char *path, SafeTensors *out, Diags *d) {
    *out = (SafeTensors){.source.name = arena_strdup(a, path)};
    Err e;
    if (!file_map(path, &out->map, &e)) return diag_err(d, SPAN_NONE, &e);
    if (safetensors_parse(a, out->map.data, out->map.size, out, d)) return true;
    // Diagnostics show the header's text: it must outlive the mapping.
    if (d->n_errors && out->source.text.ptr) out->source.text = str_dup(a, out->source.text);
    file_unmap(&out->map);
    return false;
}

void safetensors_close(SafeTensors *s) {
    file_unmap(&s->map);
    s->tensors = NULL, s->n_tensors = 0;
}

// ---- writing -------------------------------------------------------------------------------------------

static int by_writing_order(const void *a, const void *b) {
    const StOut *x = a, *y = b;
    if (x->dtype != y->dtype) return x->dtype > y->dtype ? -1 : 1; // the table ascends in alignment
    return str_cmp(x->name, y->name);
}

void safetensors_layout(StOut *tensors, size_t n, StrBuf *header) {
    if (n) qsort(tensors, n, sizeof *tensors, by_writing_order);
    size_t start = header->len;
    buf_add(header, "\0\0\0\0\0\0\0\0", 8);
    buf_puts(header, "{\"__metadata__\":{\"format\":\"pt\"}");
    uint64_t at = 0;
    for (size_t i = 0; i < n; i++) {
        StOut *t = &tensors[i];
        CHECK(shape_bytes(t->dtype, t->rank, t->shape, &t->bytes));
        t->begin = at;
        at += t->bytes;
        buf_putc(header, ',');
        json_write_string(header, t->name);
        buf_printf(header, ":{\"dtype\":\"%s\",\"shape\":[", dtypes[t->dtype].name);
        for (uint32_t k = 0; k < t->rank; k++)
            buf_printf(header, "%s%llu", k ? "," : "", (unsigned long long)t->shape[k]);
        buf_printf(header, "],\"data_offsets\":[%llu,%llu]}", (unsigned long long)t->begin,
                   (unsigned long long)at);
    }
    buf_putc(header, '}');
    while ((header->len - start) % HEADER_ALIGN) buf_putc(header, ' ');
    uint64_t bytes = header->len - start - 8;
    for (int i = 0; i < 8; i++) header->ptr[start + (size_t)i] = (char)(bytes >> (8 * i));
}
