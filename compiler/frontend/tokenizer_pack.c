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

// The parsed file, which must be an object; its Source lives in the arena, for later messages.
static const Json *read_object(Arena *arena, const char *path, JsonDup dup, const Source **src, Diags *d) {
    Source *source = ARENA_NEW(arena, Source);
    source->name = path;
    Err e = {0};
    if (!file_read(arena, path, FILE_BYTES_MAX, &source->text, &e)) {
        diag_err(d, SPAN_NONE, &e);
        return NULL;
    }
    *src = source;
    const Json *root = json_parse(arena, source, (JsonLimits){.dup = dup}, d);
    if (root && root->kind != JSON_OBJECT) {
        diag_error(d, E_TOKENIZER, json_span(source, root), "the file must hold an object, not %s",
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

bool tokenizer_pack(Arena *arena, const char *model_dir, uint64_t vocab_rows, StrBuf *section, Diags *d) {
    TokSpec s = {.arena = arena, .d = d, .vocab_rows = vocab_rows};
    const Json *root =
        read_object(arena, path_join(arena, model_dir, "tokenizer.json"), JSON_DUP_REFUSE, &s.src, d);
    if (!root) return false;
    if (!tokenizer_read_pipeline(&s, root) || !tokenizer_read_vocab(&s, root) ||
        !tokenizer_read_merges(&s, root) || !tokenizer_read_affixes(&s, root))
        return false;
    const char *config_path = path_join(arena, model_dir, "tokenizer_config.json");
    if (file_exists(config_path)) {
        const Source *src;
        const Json *config = read_object(arena, config_path, JSON_DUP_LAST, &src, d);
        if (!config || !check_config(&s, src, config, d)) return false;
    }
    tokenizer_write_section(&s, section);
    return true;
}
