// Recognises the pipelines that the runtime runs; everything else is refused by its name.
#include "compiler/frontend/tokenizer_spec.h"
#include "runtime/base/num.h"

static bool is_string(const Json *j, const char *text) {
    return json_is(j, JSON_STRING) && str_is(j->s, text);
}
static bool is_false(const Json *j) { return json_is(j, JSON_BOOL) && !j->boolean; }
static bool has_type(const Json *stage, const char *type) { return is_string(json_get(stage, "type"), type); }

static bool check_type(TokSpec *s, const Json *stage, const char *what) {
    const Json *type = json_get(stage, "type");
    if (stage->kind != JSON_OBJECT)
        return spec_broken(s, stage, "%s must be an object, not %s", what, json_kind_name(stage->kind));
    if (!json_is(type, JSON_STRING)) return spec_broken(s, stage, "%s has no \"type\" of text", what);
    return true;
}

enum { STAGES_MAX = 8 };
typedef struct {
    const Json *items[STAGES_MAX];
    size_t n;
} Stages;

// The stages of one member of the file: none, one, or the list inside a Sequence.
static bool read_stages(TokSpec *s, const Json *root, const char *key, const char *list, Stages *out) {
    const Json *stage = json_get(root, key);
    *out = (Stages){0};
    if (json_absent(stage)) return true;
    if (!check_type(s, stage, key)) return false;
    if (!has_type(stage, "Sequence")) {
        out->items[out->n++] = stage;
        return true;
    }
    const Json *items = json_get(stage, list);
    if (!json_is(items, JSON_ARRAY))
        return spec_broken(s, stage, "the %s Sequence has no list \"%s\"", key, list);
    if (items->n > STAGES_MAX)
        return spec_unsupported(s, items, "%s has %u stages; at most %d are run", key, items->n, STAGES_MAX);
    for (uint32_t i = 0; i < items->n; i++) {
        if (!check_type(s, &items->items[i], key)) return false;
        out->items[out->n++] = &items->items[i];
    }
    return true;
}

static bool refuse_stage(TokSpec *s, const Json *stage, const char *what) {
    Str type = json_get(stage, "type")->s;
    spec_unsupported(s, json_get(stage, "type"), "%s `" STR_FMT "` is not run in this place", what,
                     (int)MIN(type.len, 100), type.ptr);
    diag_hint(s->d,
              "known are byte-level BPE (an optional NFC, Split by a known pattern, ByteLevel) and BPE with "
              "spaces as U+2581 and byte fallback");
    return false;
}

static bool is_replace(const Json *stage, const char *from, const char *to) {
    return has_type(stage, "Replace") && is_string(json_get(json_get(stage, "pattern"), "String"), from) &&
           is_string(json_get(stage, "content"), to);
}

static bool read_normalizer(TokSpec *s, const Json *root) {
    Stages st;
    if (!read_stages(s, root, "normalizer", "normalizers", &st)) return false;
    s->kind = TOK_BYTE_LEVEL;
    for (size_t i = 0; i < st.n; i++) {
        if (st.n == 1 && is_replace(st.items[i], " ", "\u2581"))
            s->kind = TOK_SPACE_MARKED;
        else if (has_type(st.items[i], "NFC"))
            s->flags |= TOK_NFC;
        else if (has_type(st.items[i], "Replace"))
            return spec_unsupported(s, st.items[i],
                                    "only a Replace of \" \" by U+2581 as the whole normalizer is run");
        else
            return refuse_stage(s, st.items[i], "normalizer");
    }
    return true;
}

static bool read_pattern(TokSpec *s, const Json *split) {
    static const char *const patterns[] = {
#define TOK_PATTERN(name, regex) regex,
        TOK_PATTERNS
#undef TOK_PATTERN
    };
    const Json *regex = json_get(json_get(split, "pattern"), "Regex");
    if (!json_is(regex, JSON_STRING))
        return spec_broken(s, split, "Split has no \"pattern\": {\"Regex\": text}");
    if (!is_string(json_get(split, "behavior"), "Isolated") || !is_false(json_get(split, "invert")))
        return spec_unsupported(s, split, "only a Split with behavior Isolated and invert false is run");
    for (size_t i = 0; i < COUNT_OF(patterns); i++) {
        if (!str_is(regex->s, patterns[i])) continue;
        s->pattern = (uint32_t)i;
        return true;
    }
    return spec_unsupported(s, regex,
                            "unknown split pattern; known are those of GPT-2, Qwen2 and Qwen3, Llama 3");
}

static bool read_byte_level(TokSpec *s, const Json *stage, bool split_before) {
    const Json *regex = json_get(stage, "use_regex"), *prefix = json_get(stage, "add_prefix_space");
    if ((regex && regex->kind != JSON_BOOL) || !json_is(prefix, JSON_BOOL))
        return spec_broken(s, stage,
                           "ByteLevel needs add_prefix_space, and use_regex if any, as true or false");
    if (prefix->boolean) return spec_unsupported(s, prefix, "ByteLevel with add_prefix_space is not run");
    bool use_regex = !regex || regex->boolean;
    if (use_regex == split_before)
        return spec_unsupported(s, stage,
                                "ByteLevel must split by one pattern: its own, or the Split before it");
    if (use_regex) s->pattern = TOK_PATTERN_GPT2;
    return true;
}

static bool read_pre_tokenizer(TokSpec *s, const Json *root) {
    Stages st;
    if (!read_stages(s, root, "pre_tokenizer", "pretokenizers", &st)) return false;
    if (s->kind == TOK_SPACE_MARKED) {
        // A split at spaces finds none: the normalizer has replaced them.
        if (st.n > 1 ||
            (st.n == 1 && !(has_type(st.items[0], "Split") &&
                            is_string(json_get(json_get(st.items[0], "pattern"), "String"), " "))))
            return refuse_stage(s, st.items[0], "pre_tokenizer");
        return true;
    }
    if (!st.n)
        return spec_unsupported(s, NULL,
                                "a tokenizer without pre_tokenizer and without a Replace of \" \" by "
                                "U+2581 is not run");
    bool split = has_type(st.items[0], "Split");
    size_t last = split ? 1 : 0;
    if (split && !read_pattern(s, st.items[0])) return false;
    if (st.n <= last)
        return spec_unsupported(s, st.items[0], "a Split without a ByteLevel after it is not run");
    if (!has_type(st.items[last], "ByteLevel")) return refuse_stage(s, st.items[last], "pre_tokenizer");
    if (st.n > last + 1) return refuse_stage(s, st.items[last + 1], "pre_tokenizer");
    return read_byte_level(s, st.items[last], split);
}

static bool read_decoder(TokSpec *s, const Json *root) {
    Stages st;
    if (!read_stages(s, root, "decoder", "decoders", &st)) return false;
    if (s->kind == TOK_BYTE_LEVEL) {
        if (st.n == 1 && has_type(st.items[0], "ByteLevel")) return true;
        return spec_unsupported(s, json_get(root, "decoder"),
                                "a byte-level tokenizer must have the decoder ByteLevel");
    }
    if (st.n == 3 && is_replace(st.items[0], "\u2581", " ") && has_type(st.items[1], "ByteFallback") &&
        has_type(st.items[2], "Fuse"))
        return true;
    return spec_unsupported(s, json_get(root, "decoder"),
                            "a tokenizer with U+2581 for spaces must have the decoders Replace (U+2581 by a "
                            "space), ByteFallback, Fuse");
}

static bool read_flag(TokSpec *s, const Json *model, const char *key, bool *out) {
    const Json *j = json_get(model, key);
    *out = false;
    if (json_absent(j)) return true;
    if (j->kind != JSON_BOOL)
        return spec_broken(s, j, "model.%s must be true or false, not %s", key, json_kind_name(j->kind));
    *out = j->boolean;
    return true;
}

static bool read_model(TokSpec *s, const Json *root) {
    const Json *model = json_get(root, "model");
    if (!json_is(model, JSON_OBJECT)) return spec_broken(s, model, "the file has no object \"model\"");
    const Json *type = json_get(model, "type"), *dropout = json_get(model, "dropout");
    if (type && type->kind != JSON_STRING) return spec_broken(s, type, "model.type must be text");
    if (type && !is_string(type, "BPE"))
        return spec_unsupported(s, type, "tokenizer model `" STR_FMT "` is not run; only BPE is",
                                (int)MIN(type->s.len, 100), type->s.ptr);
    bool ignore_merges, byte_fallback, fuse_unk;
    if (!read_flag(s, model, "ignore_merges", &ignore_merges) ||
        !read_flag(s, model, "byte_fallback", &byte_fallback) || !read_flag(s, model, "fuse_unk", &fuse_unk))
        return false;
    if (ignore_merges) s->flags |= TOK_IGNORE_MERGES;
    if (s->kind == TOK_SPACE_MARKED && !byte_fallback)
        return spec_unsupported(s, model,
                                "a tokenizer with U+2581 for spaces needs model.byte_fallback true");
    if (!json_absent(dropout) &&
        !((dropout->kind == JSON_INT || dropout->kind == JSON_REAL) && json_number(dropout) == 0))
        return spec_unsupported(s, dropout, "BPE dropout is not run");
    static const char *const affixes[] = {"continuing_subword_prefix", "end_of_word_suffix"};
    for (size_t i = 0; i < COUNT_OF(affixes); i++) {
        const Json *j = json_get(model, affixes[i]);
        if (!json_absent(j) && !is_string(j, ""))
            return spec_unsupported(s, j, "model.%s is not run", affixes[i]);
    }
    return true;
}

bool tokenizer_read_pipeline(TokSpec *s, const Json *root) {
    const Json *version = json_get(root, "version");
    if (!json_absent(version) && !is_string(version, "1.0"))
        return spec_unsupported(s, version, "tokenizer.json of another version than \"1.0\"");
    return read_normalizer(s, root) && read_model(s, root) && read_pre_tokenizer(s, root) &&
           read_decoder(s, root);
}

// ---- post_processor ------------------------------------------------------------------------------

static const Json *special_ids(const Json *stage, const Json *item) {
    const Json *name = json_get(item, "id");
    const Json *table = json_get(stage, "special_tokens");
    if (!json_is(name, JSON_STRING) || !json_is(table, JSON_OBJECT)) return NULL;
    for (uint32_t i = 0; i < table->n; i++)
        if (str_eq(table->members[i].key, name->s)) return json_get(&table->members[i].value, "ids");
    return NULL;
}

static bool add_affix(TokSpec *s, const Json *id, bool after) {
    uint32_t *list = after ? s->suffix : s->prefix;
    size_t *n = after ? &s->n_suffix : &s->n_prefix;
    if (id->kind != JSON_INT || id->big || id->i < 0 || (uint64_t)id->i >= s->n_ids ||
        !s->tokens[id->i].spelling.ptr)
        return spec_broken(s, id, "post_processor names an id that is no token");
    if (*n == TOK_AFFIX_MAX)
        return spec_unsupported(s, id, "post_processor adds more than %d tokens on one side", TOK_AFFIX_MAX);
    list[(*n)++] = (uint32_t)id->i;
    return true;
}

static bool read_template(TokSpec *s, const Json *stage) {
    const Json *single = json_get(stage, "single");
    if (!json_is(single, JSON_ARRAY))
        return spec_broken(s, stage, "TemplateProcessing has no list \"single\"");
    bool after = false;
    for (uint32_t i = 0; i < single->n; i++) {
        const Json *item = &single->items[i], *sequence = json_get(item, "Sequence");
        const Json *special = json_get(item, "SpecialToken");
        if (sequence && !after && is_string(json_get(sequence, "id"), "A")) {
            after = true;
            continue;
        }
        const Json *ids = special ? special_ids(stage, special) : NULL;
        if (!json_is(ids, JSON_ARRAY))
            return spec_broken(s, item,
                               "TemplateProcessing must hold the Sequence A once and special tokens "
                               "listed in special_tokens with their ids");
        for (uint32_t k = 0; k < ids->n; k++)
            if (!add_affix(s, &ids->items[k], after)) return false;
    }
    return after || spec_broken(s, single, "TemplateProcessing lacks the Sequence A");
}

bool tokenizer_read_affixes(TokSpec *s, const Json *root) {
    Stages st;
    if (!read_stages(s, root, "post_processor", "processors", &st)) return false;
    size_t n_templates = 0;
    for (size_t i = 0; i < st.n; i++) {
        if (has_type(st.items[i], "ByteLevel")) continue; // only trims offsets, which nobody asks for
        if (!has_type(st.items[i], "TemplateProcessing") || n_templates++)
            return refuse_stage(s, st.items[i], "post_processor");
        if (!read_template(s, st.items[i])) return false;
    }
    return true;
}
