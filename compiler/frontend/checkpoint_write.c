#include "compiler/frontend/checkpoint_write.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "compiler/frontend/naming.h"
#include "runtime/base/cleanup.h"
#include "runtime/base/num.h"
#include "runtime/base/version.h"

enum { SMALL_FILE_MAX = 256 << 20, ROWS_PER_TASK = 8, BATCH_BYTES = 4 << 20 };

typedef enum { PART_COPY, PART_CODES, PART_SCALES, PART_GLOBAL } Part;

typedef struct Item Item;
struct Item {
    StOut out;
    Part part;
    const SafeTensor *tensor; // of the source checkpoint
    WeightInfo info;          // rank 0: a tensor the source does not know, copied as it is
    Item *scales;             // of codes
    uint64_t begin;           // in the shard's data
    size_t shard;
};

typedef struct {
    Arena *arena;
    const Checkpoint *checkpoint;
    WeightSource *source;
    Pool *pool;
    Diags *diags;
    const char *tmp; // the folder being written
    Item *items;     // [n], in name order
    size_t n, n_shards;
    CheckpointWritten *out;
} Writer;

// ---- what is written -----------------------------------------------------------------------------------

static Str name_with(Writer *w, Str name, const char *suffix) {
    return str_of(arena_printf(w->arena, STR_FMT "%s", STR_ARG(name), suffix));
}

static Item *add_item(Writer *w, Part part, const SafeTensor *t, Str name, StDtype dtype, uint32_t rank,
                      const uint64_t *shape) {
    Item *x = &w->items[w->n++];
    *x = (Item){.part = part, .tensor = t};
    x->out = (StOut){.name = name, .dtype = dtype, .rank = rank, .shape = shape};
    x->out.user = x;
    x->out.bytes = t->bytes;
    return x;
}

static void add_linear(Writer *w, const SafeTensor *t, const WeightInfo *info) {
    uint64_t n = info->shape[0], k = info->shape[1];
    uint64_t *shapes = ARENA_ARRAY(w->arena, uint64_t, 4);
    shapes[0] = shapes[2] = n, shapes[1] = k / 2, shapes[3] = k / 16;
    Item *codes = add_item(w, PART_CODES, t, t->name, ST_U8, 2, shapes);
    Item *scales = add_item(w, PART_SCALES, t, name_with(w, t->name, "_scale"), ST_F8_E4M3, 2, shapes + 2);
    Item *global = add_item(w, PART_GLOBAL, t, name_with(w, t->name, "_scale_2"), ST_F32, 0, NULL);
    codes->info = scales->info = global->info = *info;
    codes->scales = scales;
    codes->out.bytes = n * (k / 2), scales->out.bytes = n * (k / 16), global->out.bytes = 4;
    w->out->n_linears++;
}

static int by_raw_name(const void *a, const void *b) {
    const SafeTensor *x = *(const SafeTensor *const *)a, *y = *(const SafeTensor *const *)b;
    return str_cmp(x->name, y->name);
}

static void list_items(Writer *w) {
    const Checkpoint *c = w->checkpoint;
    size_t n = c->n_tensors + c->n_vision;
    const SafeTensor **all = ARENA_ARRAY(w->arena, const SafeTensor *, n);
    for (size_t i = 0; i < c->n_tensors; i++) all[i] = c->tensors[i].tensor;
    for (size_t i = 0; i < c->n_vision; i++) all[c->n_tensors + i] = c->vision[i];
    if (n) qsort(all, n, sizeof *all, by_raw_name);
    w->items = ARENA_ARRAY(w->arena, Item, 3 * n);
    for (size_t i = 0; i < n; i++) {
        const SafeTensor *t = all[i];
        WeightInfo info = {0};
        Str name;
        bool known = naming_canonical(w->arena, t->name, &name) && source_info(w->source, name, &info);
        w->out->bytes_in += t->bytes;
        if (known && info.format == WF_NVFP4)
            add_linear(w, t, &info);
        else
            add_item(w, PART_COPY, t, t->name, t->dtype, t->rank, t->shape)->info = info;
    }
}

static void assign_shards(Writer *w, uint64_t shard_bytes) {
    uint64_t used = 0;
    size_t shard = 0;
    for (size_t i = 0, next; i < w->n; i = next) {
        uint64_t bytes = 0; // the parts of one linear stay together
        for (next = i; next < w->n && w->items[next].tensor == w->items[i].tensor; next++)
            bytes += w->items[next].out.bytes;
        if (used && used + bytes > shard_bytes) shard++, used = 0;
        used += bytes;
        w->out->bytes_out += bytes;
        for (size_t j = i; j < next; j++) w->items[j].shard = shard;
    }
    w->n_shards = shard + 1;
    w->out->n_files = w->n_shards;
}

// ---- weights -------------------------------------------------------------------------------------------

typedef struct {
    const Writer *writer;
    const Item *item;
    uint64_t row, n_rows;
    uint8_t *codes, *scales;
    Err *errors; // [tasks]
} Batch;

static void quantize_task(void *ctx, uint32_t task) {
    const Batch *b = ctx;
    uint64_t k = b->item->info.shape[1], at = (uint64_t)task * ROWS_PER_TASK;
    uint64_t n = MIN((uint64_t)ROWS_PER_TASK, b->n_rows - at);
    if (!source_rows_nvfp4(b->writer->source, &b->item->info, b->row + at, n, b->codes + at * (k / 2),
                           b->scales + at * (k / 16), &b->errors[task]))
        CHECK(b->errors[task].code != E_NONE);
}

static bool quantize_batch(Batch *b, OutFile *f, uint64_t data_begin, Err *e) {
    uint64_t k = b->item->info.shape[1];
    uint32_t n_tasks = (uint32_t)div_up(b->n_rows, ROWS_PER_TASK);
    memset(b->errors, 0, n_tasks * sizeof *b->errors);
    pool_run(b->writer->pool, n_tasks, quantize_task, b);
    for (uint32_t i = 0; i < n_tasks; i++) {
        if (b->errors[i].code == E_NONE) continue;
        *e = b->errors[i];
        return false;
    }
    // The scales stand before the codes in the file; their place was filled with zeros.
    uint64_t at = data_begin + b->item->scales->begin + b->row * (k / 16);
    return out_write(f, b->codes, b->n_rows * (k / 2), e) &&
           out_write_at(f, at, b->scales, b->n_rows * (k / 16), e);
}

static bool write_codes(const Writer *w, const Item *x, OutFile *f, uint64_t data_begin, Err *e) {
    uint64_t rows = x->info.shape[0], k = x->info.shape[1];
    uint64_t step = MIN(rows, MAX((uint64_t)BATCH_BYTES / (k / 2), (uint64_t)ROWS_PER_TASK));
    Batch b = {.writer = w, .item = x};
    b.codes = xrealloc(NULL, step, k / 2);
    b.scales = xrealloc(NULL, step, k / 16);
    b.errors = xrealloc(NULL, div_up(step, ROWS_PER_TASK), sizeof *b.errors);
    bool ok = true;
    for (b.row = 0; b.row < rows && ok; b.row += step) {
        b.n_rows = MIN(step, rows - b.row);
        ok = quantize_batch(&b, f, data_begin, e);
    }
    free(b.codes), free(b.scales), free(b.errors);
    return ok;
}

static bool write_zeros(OutFile *f, uint64_t n, Err *e) {
    static const uint8_t zeros[1 << 16];
    for (uint64_t i = 0; i < n; i += sizeof zeros)
        if (!out_write(f, zeros, MIN(n - i, sizeof zeros), e)) return false;
    return true;
}

static bool write_copy(const Writer *w, const Item *x, OutFile *f, Err *e) {
    uint64_t rows = x->info.rank ? weight_rows(&x->info) : 0;
    if (!rows || !x->tensor->bytes) return out_write(f, x->tensor->data, x->tensor->bytes, e);
    uint64_t row_bytes = weight_row_bytes(&x->info); // through the source, which refuses NaN
    uint64_t step = MIN(rows, MAX((uint64_t)BATCH_BYTES / row_bytes, (uint64_t)1));
    uint8_t *buffer = xrealloc(NULL, step, row_bytes);
    bool ok = true;
    for (uint64_t r = 0, n; r < rows && ok; r += step) {
        n = MIN(step, rows - r);
        ok = source_rows_raw(w->source, &x->info, r, n, buffer, e) && out_write(f, buffer, n * row_bytes, e);
    }
    free(buffer);
    return ok;
}

static bool write_item(const Writer *w, const Item *x, OutFile *f, uint64_t data_begin, Err *e) {
    switch (x->part) {
    case PART_COPY: return write_copy(w, x, f, e);
    case PART_SCALES: return write_zeros(f, x->out.bytes, e);
    case PART_CODES: return write_codes(w, x, f, data_begin, e);
    case PART_GLOBAL: return out_write(f, &x->info.global, 4, e);
    }
    return true;
}

static const char *shard_name(const Writer *w, size_t shard) {
    if (w->n_shards == 1) return "model.safetensors";
    return arena_printf(w->arena, "model-%05zu-of-%05zu.safetensors", shard + 1, w->n_shards);
}

static bool write_shard(Writer *w, size_t shard, Err *e) {
    StOut *outs = xrealloc(NULL, w->n + 1, sizeof *outs);
    size_t n = 0;
    for (size_t i = 0; i < w->n; i++)
        if (w->items[i].shard == shard) outs[n++] = w->items[i].out;
    StrBuf header = {0};
    safetensors_layout(outs, n, &header);
    for (size_t i = 0; i < n; i++) ((Item *)outs[i].user)->begin = outs[i].begin;
    OutFile *f = out_open(path_join(w->arena, w->tmp, shard_name(w, shard)), e);
    bool ok = f && out_write(f, header.ptr, header.len, e);
    for (size_t i = 0; i < n && ok; i++) ok = write_item(w, outs[i].user, f, header.len, e);
    if (ok)
        ok = out_commit(f, e);
    else
        out_abandon(f);
    buf_free(&header);
    free(outs);
    return ok;
}

// ---- the other files -----------------------------------------------------------------------------------

static bool write_text(Writer *w, const char *name, Str text, Err *e) {
    OutFile *f = out_open(path_join(w->arena, w->tmp, name), e);
    if (!f) return false;
    if (out_write(f, text.ptr, text.len, e)) return out_commit(f, e);
    out_abandon(f);
    return false;
}

static bool write_index(Writer *w, Err *e) {
    if (w->n_shards == 1) return true;
    StrBuf b = {0};
    buf_printf(&b, "{\n  \"metadata\": {\n    \"total_size\": %llu\n  },\n  \"weight_map\": {\n",
               (unsigned long long)w->out->bytes_out);
    for (size_t i = 0; i < w->n; i++) {
        buf_puts(&b, "    ");
        json_write_string(&b, w->items[i].out.name);
        buf_printf(&b, ": \"%s\"%s\n", shard_name(w, w->items[i].shard), i + 1 < w->n ? "," : "");
    }
    buf_puts(&b, "  }\n}\n");
    bool ok = write_text(w, "model.safetensors.index.json", buf_view(&b), e);
    buf_free(&b);
    return ok;
}

static int by_str(const void *a, const void *b) { return str_cmp(*(const Str *)a, *(const Str *)b); }

// Modules with a matrix that stays unquantised, in name order, as a JSON list. ModelOpt always names lm_head.
static const char *excluded_modules(Writer *w, const char *indent) {
    Str *names = ARENA_ARRAY(w->arena, Str, w->n + 1);
    size_t n = 0;
    bool has_head = false;
    for (size_t i = 0; i < w->n; i++) {
        const Item *x = &w->items[i];
        Str name = x->out.name;
        size_t foreign = naming_foreign_prefix(name);
        if (foreign)
            names[n++] = name_with(w, str_sub(name, 0, foreign), "*");
        else if (x->part == PART_COPY && x->info.rank == 2 && str_ends(name, STR(".weight")))
            names[n++] = str_sub(name, 0, name.len - strlen(".weight"));
        has_head |= str_ends(name, STR("lm_head.weight"));
    }
    if (!has_head) names[n++] = STR("lm_head");
    if (n) qsort(names, n, sizeof *names, by_str);
    StrBuf b = {0};
    buf_putc(&b, '[');
    for (size_t i = 0; i < n; i++) {
        if (i && str_eq(names[i], names[i - 1])) continue;
        buf_printf(&b, "%s\n%s  ", i ? "," : "", indent);
        json_write_string(&b, names[i]);
    }
    buf_printf(&b, "\n%s]", indent);
    const char *text = arena_strndup(w->arena, b.ptr, b.len);
    buf_free(&b);
    return text;
}

// Readers dispatch on the producer's name, which says whose conventions the tensors follow.
#define PRODUCER                                                                                             \
    "{\"name\": \"modelopt\", \"version\": \"0.47.0\", \"written_by\": \"adallmc " ADALLM_VERSION "\"}"

static bool write_hf_quant_config(Writer *w, Err *e) {
    const char *text = arena_printf(w->arena,
                                    "{\n"
                                    "    \"producer\": " PRODUCER ",\n"
                                    "    \"quantization\": {\n"
                                    "        \"quant_algo\": \"W4A16_NVFP4\",\n"
                                    "        \"kv_cache_quant_algo\": null,\n"
                                    "        \"group_size\": 16,\n"
                                    "        \"exclude_modules\": %s\n"
                                    "    }\n"
                                    "}\n",
                                    excluded_modules(w, "        "));
    return write_text(w, "hf_quant_config.json", str_of(text), e);
}

// config.json as it was, with quantization_config set: everything else keeps its bytes.
static bool write_config(Writer *w, Err *e) {
    Source src = {.name = path_join(w->arena, w->checkpoint->dir, "config.json")};
    if (!file_read(w->arena, src.name, SMALL_FILE_MAX, &src.text, e)) return false;
    const Json *root = json_parse(w->arena, &src, (JsonLimits){.dup = JSON_DUP_LAST}, w->diags);
    if (!json_is(root, JSON_OBJECT)) return err_set(e, E_CONFIG_VALUE, "%s must hold an object", src.name);
    const char *value = arena_printf(
        w->arena,
        "{\n    \"config_groups\": {\"group_0\": {\"weights\": {\"dynamic\": false, \"num_bits\": 4, "
        "\"type\": \"float\", \"group_size\": 16}, \"targets\": [\"Linear\"]}},\n"
        "    \"ignore\": %s,\n    \"quant_algo\": \"W4A16_NVFP4\",\n    \"producer\": " PRODUCER
        ",\n    \"quant_method\": \"modelopt\"\n  }",
        excluded_modules(w, "    "));
    const Json *old = json_get(root, "quantization_config");
    StrBuf b = {0};
    if (old) {
        buf_str(&b, str_sub(src.text, 0, old->begin));
        buf_puts(&b, value);
        buf_str(&b, str_from(src.text, old->end));
    } else {
        size_t end = root->end - 1; // the closing brace
        while (end && strchr(" \t\r\n", src.text.ptr[end - 1])) end--;
        buf_str(&b, str_sub(src.text, 0, end));
        buf_printf(&b, "%s\n  \"quantization_config\": %s\n}\n", root->n ? "," : "", value);
    }
    bool ok = write_text(w, "config.json", buf_view(&b), e);
    buf_free(&b);
    return ok;
}

static bool copy_small_files(Writer *w, Err *e) {
    static const char *const names[] = {
        "generation_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "added_tokens.json",
        "vocab.json",
        "merges.txt",
        "tokenizer.model",
        "chat_template.jinja",
        "chat_template.json",
        "processor_config.json",
        "preprocessor_config.json",
        "LICENSE",
        "Notice",
    };
    for (size_t i = 0; i < COUNT_OF(names); i++) {
        const char *path = path_join(w->arena, w->checkpoint->dir, names[i]);
        Str text;
        if (!file_exists(path)) continue;
        if (!file_read(w->arena, path, SMALL_FILE_MAX, &text, e) || !write_text(w, names[i], text, e))
            return false;
    }
    return true;
}

// ---- the folder ----------------------------------------------------------------------------------------

static bool is_empty_folder(const char *path) {
    DIR *d = opendir(path);
    size_t n = 0;
    for (struct dirent *e; d && (e = readdir(d));) n += strcmp(e->d_name, ".") && strcmp(e->d_name, "..");
    if (d) closedir(d);
    return d && n == 0;
}

static bool write_all(Writer *w, Err *e) {
    if (!w->out->n_linears)
        return err_set(
            e, E_QUANT_UNSUPPORTED,
            "%s has no linear to quantise: none of its decoder's is a 16-bit or 32-bit matrix with "
            "rows of a multiple of 16",
            w->checkpoint->dir);
    if (!write_config(w, e) || !write_hf_quant_config(w, e) || !copy_small_files(w, e)) return false;
    for (size_t i = 0; i < w->n_shards; i++)
        if (!write_shard(w, i, e)) return false;
    return write_index(w, e);
}

bool checkpoint_write(Arena *a, const Checkpoint *c, WeightSource *source, const char *out_dir,
                      uint64_t shard_bytes, Pool *pool, CheckpointWritten *out, Diags *d) {
    *out = (CheckpointWritten){0};
    Str dir = str_of(out_dir);
    while (dir.len > 1 && dir.ptr[dir.len - 1] == '/') dir.len--;
    struct stat st;
    if (stat(out_dir, &st) == 0 && !is_empty_folder(out_dir))
        return diag_error(d, E_FILE, SPAN_NONE, "%s exists already; name a folder that does not exist",
                          out_dir);
    char *tmp = arena_printf(a, STR_FMT ".tmp.XXXXXX", STR_ARG(dir));
    Writer w = {.arena = a, .checkpoint = c, .source = source, .pool = pool, .diags = d, .out = out};
    Err e;
    if (!mkdtemp(tmp)) {
        err_errno(&e, E_FILE, "cannot create a folder beside %s", out_dir);
        return diag_err(d, SPAN_NONE, &e);
    }
    cleanup_add(tmp);
    chmod(tmp, 0755);
    w.tmp = tmp;
    list_items(&w);
    assign_shards(&w, shard_bytes);
    bool ok = write_all(&w, &e);
    if (ok && rename(tmp, arena_strndup(a, dir.ptr, dir.len)) != 0)
        ok = err_errno(&e, E_FILE, "cannot finish %s", out_dir);
    if (ok) {
        cleanup_drop(tmp);
        return true;
    }
    cleanup_remove(tmp);
    return diag_err(d, SPAN_NONE, &e);
}
