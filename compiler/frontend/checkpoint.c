#include "compiler/frontend/checkpoint.h"

#include <dirent.h>
#include <stdlib.h>

#include "compiler/frontend/naming.h"
#include "runtime/base/num.h"

enum { INDEX_BYTES_MAX = 100000000, SHARD_NAME_MAX = 255 };

typedef struct {
    Arena *arena;
    Diags *diags;
    Checkpoint *out;
    size_t cap; // of out->tensors and out->vision
} Opener;

// What the index says: tensor name -> shard, and the distinct shards.
typedef struct {
    Source source;
    const Json *map;     // members: tensor -> file name
    const char **shards; // [n_shards] in order of first mention
    size_t n_shards;
    uint32_t *slots; // tensor name -> member index + 1; 0 is free
    size_t mask;
    uint32_t *shard_of; // [map->n] member -> shard
    uint8_t *seen;      // [map->n] the shard holds it
} Index;

// ---- the index -----------------------------------------------------------------------------------------

// A name in an index must name a file of the same folder and nothing else.
static bool is_shard_name(Str s) {
    if (!s.len || s.len > SHARD_NAME_MAX || s.ptr[0] == '.') return false;
    for (size_t i = 0; i < s.len; i++) {
        unsigned char c = (unsigned char)s.ptr[i];
        if (c < 0x20 || c == 0x7F || c == '/' || c == '\\') return false;
    }
    return str_ends(s, STR(".safetensors"));
}

static size_t index_shard(Opener *o, Index *x, Str name, size_t *cap) {
    for (size_t i = x->n_shards; i-- > 0;) // names repeat in runs: the last is the likeliest
        if (str_is(name, x->shards[i])) return i;
    if (x->n_shards == *cap) {
        size_t want = *cap ? *cap * 2 : 16;
        const char **grown = ARENA_ARRAY(o->arena, const char *, want);
        if (x->n_shards) memcpy(grown, x->shards, x->n_shards * sizeof *grown);
        x->shards = grown, *cap = want;
    }
    x->shards[x->n_shards] = arena_strndup(o->arena, name.ptr, name.len);
    return x->n_shards++;
}

static bool index_shards(Opener *o, Index *x) {
    size_t cap = 0, errors = o->diags->n_errors;
    x->shard_of = ARENA_ARRAY(o->arena, uint32_t, x->map->n);
    x->seen = ARENA_ARRAY(o->arena, uint8_t, x->map->n);
    for (uint32_t i = 0; i < x->map->n; i++) {
        const JsonMember *m = &x->map->members[i];
        Span at = json_span(&x->source, &m->value);
        if (m->value.kind != JSON_STRING) {
            diag_error(o->diags, E_SHARDS, at, "the shard of tensor " STR_FMT " must be a string, not %s",
                       STR_ARG(m->key), json_kind_name(m->value.kind));
        } else if (!is_shard_name(m->value.s)) {
            diag_error(o->diags, E_SHARDS, at,
                       "`" STR_FMT
                       "` is refused as a shard: it must be the plain name of a .safetensors file "
                       "in the checkpoint's folder",
                       STR_ARG(m->value.s));
        } else {
            size_t before = x->n_shards, shard = index_shard(o, x, m->value.s, &cap);
            x->shard_of[i] = (uint32_t)shard;
            if (shard == before && !file_exists(path_join(o->arena, o->out->dir, x->shards[shard])))
                diag_error(o->diags, E_SHARDS, at, "shard %s of tensor " STR_FMT " is missing from %s",
                           x->shards[shard], STR_ARG(m->key), o->out->dir);
        }
        if (o->diags->n_errors > errors + 20) break;
    }
    return o->diags->n_errors == errors;
}

static void index_hash(Opener *o, Index *x) {
    size_t cap = 16;
    while (cap < (size_t)x->map->n * 2) cap *= 2;
    x->slots = ARENA_ARRAY(o->arena, uint32_t, cap);
    x->mask = cap - 1;
    for (uint32_t i = 0; i < x->map->n; i++) {
        size_t at = str_hash(x->map->members[i].key) & x->mask;
        while (x->slots[at]) at = (at + 1) & x->mask;
        x->slots[at] = i + 1;
    }
}

static bool index_find(const Index *x, Str name, uint32_t *member) {
    for (size_t at = str_hash(name) & x->mask; x->slots[at]; at = (at + 1) & x->mask) {
        *member = x->slots[at] - 1;
        if (str_eq(x->map->members[*member].key, name)) return true;
    }
    return false;
}

static bool index_read(Opener *o, const char *path, Index *x) {
    Err e;
    x->source.name = path;
    if (!file_read(o->arena, path, INDEX_BYTES_MAX, &x->source.text, &e))
        return diag_err(o->diags, SPAN_NONE, &e);
    JsonLimits limits = {.dup = JSON_DUP_REFUSE, .depth_max = 8, .nodes_max = x->source.text.len / 4 + 1024};
    const Json *root = json_parse(o->arena, &x->source, limits, o->diags);
    if (!root) return false;
    x->map = json_get(root, "weight_map");
    if (!json_is(x->map, JSON_OBJECT) || !x->map->n)
        return diag_error(o->diags, E_SHARDS, json_span(&x->source, x->map ? x->map : root),
                          "the index needs `weight_map`, an object of tensor names and shard names");
    index_hash(o, x);
    return index_shards(o, x);
}

// ---- tensors -------------------------------------------------------------------------------------------

static void *grow(Arena *a, void *old, size_t n, size_t *cap, size_t size) {
    if (n < *cap) return old;
    size_t want = *cap ? *cap * 2 : 256;
    void *p = arena_array(a, want, size);
    if (n) memcpy(p, old, n * size);
    *cap = want;
    return p;
}

static void add_file(Opener *o, const SafeTensors *file, Index *x, size_t shard, size_t *vision_cap) {
    Checkpoint *c = o->out;
    for (size_t i = 0; i < file->n_tensors; i++) {
        const SafeTensor *t = &file->tensors[i];
        uint32_t member;
        if (x && index_find(x, t->name, &member)) {
            if (x->shard_of[member] != shard) continue; // a stale copy: the index names another shard
            x->seen[member] = 1;
        }
        Str name;
        if (naming_canonical(o->arena, t->name, &name)) {
            c->tensors = grow(o->arena, c->tensors, c->n_tensors, &o->cap, sizeof *c->tensors);
            c->tensors[c->n_tensors++] = (CheckpointTensor){name, t};
            c->bytes += t->bytes;
        } else {
            c->vision = grow(o->arena, c->vision, c->n_vision, vision_cap, sizeof *c->vision);
            c->vision[c->n_vision++] = t;
            c->vision_bytes += t->bytes;
        }
    }
}

static int by_name(const void *a, const void *b) {
    return str_cmp(((const CheckpointTensor *)a)->name, ((const CheckpointTensor *)b)->name);
}

static bool sort_unique(Opener *o) {
    Checkpoint *c = o->out;
    bool ok = true;
    if (c->n_tensors) qsort(c->tensors, c->n_tensors, sizeof *c->tensors, by_name);
    for (size_t i = 1; i < c->n_tensors; i++) {
        const SafeTensor *x = c->tensors[i - 1].tensor, *y = c->tensors[i].tensor;
        if (str_eq(c->tensors[i - 1].name, c->tensors[i].name))
            ok = diag_error(o->diags, E_SHARDS, y->at,
                            "tensor " STR_FMT " is there twice: " STR_FMT " of %s is the same weight",
                            STR_ARG(y->name), STR_ARG(x->name), x->at.src->name);
    }
    return ok;
}

static bool check_seen(Opener *o, const Index *x) {
    bool ok = true;
    for (uint32_t i = 0; i < x->map->n; i++) {
        const JsonMember *m = &x->map->members[i];
        if (!x->seen[i])
            ok = diag_error(o->diags, E_SHARDS, (Span){&x->source, m->key_begin, m->value.end},
                            "tensor " STR_FMT " is not in its shard %s", STR_ARG(m->key),
                            x->shards[x->shard_of[i]]);
    }
    return ok;
}

// ---- opening -------------------------------------------------------------------------------------------

static bool open_files(Opener *o, const char *const *names, size_t n, Index *x) {
    Checkpoint *c = o->out;
    size_t vision_cap = 0;
    bool ok = true;
    c->files = ARENA_ARRAY(o->arena, SafeTensors, n);
    for (size_t i = 0; i < n; i++) {
        c->n_files = i + 1;
        if (safetensors_open(o->arena, path_join(o->arena, c->dir, names[i]), &c->files[i], o->diags))
            add_file(o, &c->files[i], x, i, &vision_cap);
        else
            ok = false;
    }
    return ok && (!x || check_seen(o, x)) && sort_unique(o);
}

// Without an index: model.safetensors, or else the folder's only .safetensors file.
static const char *single_file(Opener *o) {
    const char *dir = o->out->dir, *found = NULL;
    if (file_exists(path_join(o->arena, dir, "model.safetensors"))) return "model.safetensors";
    DIR *d = opendir(dir);
    size_t n = 0;
    for (struct dirent *e; d && (e = readdir(d));) {
        if (!str_ends(str_of(e->d_name), STR(".safetensors")) || e->d_name[0] == '.') continue;
        found = arena_strdup(o->arena, e->d_name);
        n++;
    }
    if (d) closedir(d);
    if (n == 1) return found;
    diag_error(o->diags, E_SHARDS, SPAN_NONE,
               n ? "%s has several .safetensors files and no model.safetensors.index.json to say which count"
                 : "%s has no weights: neither model.safetensors.index.json nor model.safetensors",
               dir);
    return NULL;
}

static bool open_all(Opener *o) {
    Checkpoint *c = o->out;
    if (!dir_exists(c->dir))
        return diag_error(o->diags, E_FILE, SPAN_NONE, "checkpoint %s is not a folder", c->dir);
    if (!quant_config_read(o->arena, c->dir, &c->quant, o->diags)) return false;
    const char *path = path_join(o->arena, c->dir, "model.safetensors.index.json");
    if (!file_exists(path)) {
        const char *name = single_file(o);
        return name && open_files(o, &name, 1, NULL);
    }
    Index *x = ARENA_NEW(o->arena, Index);
    return index_read(o, path, x) && open_files(o, x->shards, x->n_shards, x);
}

Checkpoint *checkpoint_open(Arena *a, const char *dir, Diags *d) {
    Checkpoint *c = ARENA_NEW(a, Checkpoint);
    c->dir = arena_strdup(a, dir);
    Opener o = {.arena = a, .diags = d, .out = c};
    if (open_all(&o)) return c;
    for (size_t i = 0; i < c->n_files; i++) // diagnostics may show the headers' text
        if (c->files[i].map.data) c->files[i].source.text = str_dup(a, c->files[i].source.text);
    checkpoint_close(c);
    return NULL;
}

void checkpoint_close(Checkpoint *c) {
    if (!c) return;
    for (size_t i = 0; i < c->n_files; i++) safetensors_close(&c->files[i]);
    c->n_files = c->n_tensors = c->n_vision = 0;
}

const SafeTensor *checkpoint_find(const Checkpoint *c, Str canonical_name) {
    CheckpointTensor key = {.name = canonical_name};
    if (!c->n_tensors) return NULL;
    const CheckpointTensor *found = bsearch(&key, c->tensors, c->n_tensors, sizeof key, by_name);
    return found ? found->tensor : NULL;
}

bool checkpoint_is_quantized(const Checkpoint *c) {
    for (size_t i = 0; i < c->n_tensors; i++)
        if (str_ends(c->tensors[i].name, STR(".weight_scale")) && c->tensors[i].tensor->dtype == ST_F8_E4M3)
            return true;
    return false;
}
