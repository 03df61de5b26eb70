#include "compiler/frontend/tokenizer_pack.h"

#include "compiler/frontend/tokenizer_spec.h"
#include "runtime/base/file.h"

enum { FILE_BYTES_MAX = 512 << 20 };

static bool report(TokSpec *s, ErrCode code, const Json *at, const char *fmt, va_list ap) {
    return diag_error(s->d, code, at ? json_span(s->src, at) : SPAN_FILE(s->src), "%s",
                      arena_vprintf(s->arena, fmt, ap));
}

bool spec_broken(TokSpec *s, const Json *at, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    report(s, E_TOKENIZER, at, fmt, ap);
    va_end(ap);
    return false;
}

bool spec_unsupported(TokSpec *s, const Json *at, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    report(s, E_TOKENIZER_UNSUPPORTED, at, fmt, ap);
    va_end(ap);
    return false;
}

static const Json *parse_object(Arena *arena, const Source *src, JsonDup dup, Diags *d) {
    const Json *root = json_parse(arena, src, (JsonLimits){.dup = dup}, d);
    if (root && root->kind != JSON_OBJECT) {
        diag_error(d, E_TOKENIZER, json_span(src, root), "the file must hold an object, not %s",
                   json_kind_name(root->kind));
        return NULL;
    }
    return root;
}

// tokenizer_config.json repeats the added tokens: where both speak of an id, they must agree.
static bool check_config(const TokSpec *s, const Source *src, const Json *config, Diags *d) {
    const Json *added = json_get(config, "added_tokens_decoder");
    if (json_absent(added)) return true;
    if (added->kind != JSON_OBJECT)
        return diag_error(d, E_TOKENIZER, json_span(src, added),
                          "added_tokens_decoder must be an object, not %s", json_kind_name(added->kind));
    bool ok = true;
    for (uint32_t i = 0; i < added->n; i++) {
        const JsonMember *m = &added->members[i];
        const Json *content = json_get(&m->value, "content");
        uint64_t id;
        if (!str_to_u64(m->key, &id) || !json_is(content, JSON_STRING)) {
            ok = diag_error(d, E_TOKENIZER, json_span(src, &m->value),
                            "an entry of added_tokens_decoder must be \"id\": {\"content\": text, ...}");
        } else if (id < s->n_ids && s->tokens[id].spelling.ptr &&
                   !str_eq(s->tokens[id].spelling, content->s)) {
            ok = diag_error(d, E_TOKENIZER, json_span(src, content),
                            "token %llu is `" STR_FMT "` here but `" STR_FMT "` in tokenizer.json",
                            (unsigned long long)id, STR_ARG(content->s), STR_ARG(s->tokens[id].spelling));
        }
    }
    return ok;
}

bool tokenizer_pack_json(Arena *arena, const Source *tokenizer, const Source *config, uint64_t vocab_rows,
                         StrBuf *section, Diags *d) {
    TokSpec s = {.arena = arena, .src = tokenizer, .d = d, .vocab_rows = vocab_rows};
    const Json *root = parse_object(arena, tokenizer, JSON_DUP_REFUSE, d);
    if (!root || !tokenizer_read_pipeline(&s, root) || !tokenizer_read_vocab(&s, root) ||
        !tokenizer_read_merges(&s, root) || !tokenizer_read_affixes(&s, root))
        return false;
    if (config) {
        root = parse_object(arena, config, JSON_DUP_LAST, d);
        if (!root || !check_config(&s, config, root, d)) return false;
    }
    tokenizer_write_section(&s, section);
    return true;
}

// The file as a Source in the arena, where diagnostics find it later; NULL after adding an error.
static const Source *read_source(Arena *arena, const char *dir, const char *name, Diags *d) {
    Source *src = ARENA_NEW(arena, Source);
    Err e = {0};
    src->name = path_join(arena, dir, name);
    if (file_read(arena, src->name, FILE_BYTES_MAX, &src->text, &e)) return src;
    diag_err(d, SPAN_NONE, &e);
    return NULL;
}

bool tokenizer_pack(Arena *arena, const char *model_dir, uint64_t vocab_rows, StrBuf *section, Diags *d) {
    const Source *tokenizer = read_source(arena, model_dir, "tokenizer.json", d), *config = NULL;
    if (!tokenizer) return false;
    if (file_exists(path_join(arena, model_dir, "tokenizer_config.json")) &&
        !(config = read_source(arena, model_dir, "tokenizer_config.json", d)))
        return false;
    return tokenizer_pack_json(arena, tokenizer, config, vocab_rows, section, d);
}
