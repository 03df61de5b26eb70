#include "compiler/frontend/naming.h"

#include "runtime/base/num.h"

static const struct {
    Str from, to;
} prefixes[] = {
    // The first that fits wins: longer ones before shorter ones.
    {STR("language_model.model."), STR("model.")},
    {STR("language_model.lm_head."), STR("lm_head.")},
    {STR("model.language_model.model."), STR("model.")},
    {STR("model.language_model.lm_head."), STR("lm_head.")},
    {STR("model.language_model."), STR("model.")},
    {STR("text_model.model."), STR("model.")},
    {STR("text_model.lm_head."), STR("lm_head.")},
    {STR("model.text_model."), STR("model.")},
    {STR("language_model."), STR("model.")},
    {STR("model.lm_head."), STR("lm_head.")},
    {STR("model.model."), STR("model.")},
    {STR("layers."), STR("model.layers.")},
    {STR("embed_tokens."), STR("model.embed_tokens.")},
    {STR("norm."), STR("model.norm.")},
};

static const struct {
    Str from, to;
} suffixes[] = {
    {STR(".self_attn.k_proj.k_scale"), STR(".self_attn.k_scale")},
    {STR(".self_attn.v_proj.v_scale"), STR(".self_attn.v_scale")},
    {STR(".self_attn.attn.k_scale"), STR(".self_attn.k_scale")},
    {STR(".self_attn.attn.v_scale"), STR(".self_attn.v_scale")},
};

static const Str foreign_parts[] = {
    STR("vision_tower"),     STR("vision_model"),          STR("visual"),       STR("embed_vision"),
    STR("vision_encoder"),   STR("multi_modal_projector"), STR("mm_projector"), STR("audio_tower"),
    STR("vision_projector"), STR("embed_audio"),
};

size_t naming_foreign_prefix(Str raw) {
    for (size_t begin = 0; begin <= raw.len;) {
        const char *dot = memchr(raw.ptr + begin, '.', raw.len - begin);
        size_t end = dot ? (size_t)(dot - raw.ptr) : raw.len;
        for (size_t i = 0; i < COUNT_OF(foreign_parts); i++)
            if (str_eq(str_sub(raw, begin, end), foreign_parts[i])) return end;
        begin = end + 1;
    }
    return 0;
}

static Str join(Arena *a, Str x, Str y) {
    char *p = arena_alloc(a, x.len + y.len + 1);
    memcpy(p, x.ptr, x.len);
    memcpy(p + x.len, y.ptr, y.len);
    return (Str){p, x.len + y.len};
}

bool naming_canonical(Arena *a, Str raw, Str *out) {
    if (!raw.len) {
        *out = raw;
        return true;
    }
    if (naming_foreign_prefix(raw)) return false;
    Str name = raw;
    for (size_t i = 0; i < COUNT_OF(prefixes); i++) {
        if (!str_starts(name, prefixes[i].from)) continue;
        name = join(a, prefixes[i].to, str_from(name, prefixes[i].from.len));
        break;
    }
    for (size_t i = 0; i < COUNT_OF(suffixes); i++)
        if (str_ends(name, suffixes[i].from))
            name = join(a, str_sub(name, 0, name.len - suffixes[i].from.len), suffixes[i].to);
    *out = name;
    return true;
}

static const Str groups[][4] = {
    {STR(".q_proj.weight"), STR(".k_proj.weight"), STR(".v_proj.weight")},
    {STR(".gate_proj.weight"), STR(".up_proj.weight")},
};

const Str *naming_siblings(Arena *a, Str name, size_t *n) {
    Str *out = ARENA_ARRAY(a, Str, COUNT_OF(groups[0]));
    for (size_t g = 0; g < COUNT_OF(groups); g++) {
        for (size_t i = 0; groups[g][i].len; i++) {
            if (!str_ends(name, groups[g][i])) continue;
            Str stem = str_sub(name, 0, name.len - groups[g][i].len);
            for (*n = 0; groups[g][*n].len; ++*n) out[*n] = join(a, stem, groups[g][*n]);
            return out;
        }
    }
    *n = 1;
    out[0] = name;
    return out;
}
