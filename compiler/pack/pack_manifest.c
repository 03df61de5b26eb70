#include "compiler/pack/pack.h"
#include "runtime/base/json.h"
#include "runtime/base/version.h"

static void put_key(StrBuf *out, const char *key) {
    buf_puts(out, "  ");
    json_write_string(out, str_of(key));
    buf_puts(out, ": ");
}

static void put_string(StrBuf *out, const char *key, const char *value) {
    put_key(out, key);
    json_write_string(out, str_of(value ? value : ""));
    buf_puts(out, ",\n");
}

static void put_uint(StrBuf *out, const char *key, uint64_t value) {
    put_key(out, key);
    buf_printf(out, "%llu,\n", (unsigned long long)value);
}

static void put_object(StrBuf *out, const char *key, Str json) {
    put_key(out, key);
    buf_str(out, json.len ? json : STR("{}"));
    buf_puts(out, ",\n");
}

static void put_facts(const PackFacts *f, StrBuf *out) {
    put_key(out, "chat");
    buf_puts(out, f->chat ? "true,\n" : "false,\n");
    put_key(out, "eos_ids");
    buf_putc(out, '[');
    for (uint32_t i = 0; i < f->n_eos_ids; i++) buf_printf(out, "%s%d", i ? ", " : "", f->eos_ids[i]);
    buf_puts(out, "],\n");
    put_key(out, "tokens");
    buf_putc(out, '{');
    for (uint32_t i = 0; i < f->n_tokens; i++) {
        buf_puts(out, i ? ", " : "");
        json_write_string(out, str_of(f->tokens[i].name));
        buf_printf(out, ": %d", f->tokens[i].id);
    }
    buf_puts(out, "},\n");
    const PackSampling *s = &f->sampling;
    put_key(out, "sampling");
    buf_printf(out, "{\"temperature\": %.17g, \"top_p\": %.17g, \"min_p\": %.17g, \"top_k\": %u},\n",
               s->temperature, s->top_p, s->min_p, s->top_k);
    put_key(out, "quantize");
    if (f->quantize && !f->quantize_error.weights)
        buf_printf(out, "{\"method\": \"%s\"},\n", f->quantize);
    else if (f->quantize)
        buf_printf(out,
                   "{\"method\": \"%s\", \"weights\": %llu, \"error_max\": %.6g, \"error_mse\": %.6g},\n",
                   f->quantize, (unsigned long long)f->quantize_error.weights, f->quantize_error.rel_max,
                   f->quantize_error.rel_mse);
    else
        buf_puts(out, "null,\n");
}

static void put_head(const PackHead *h, StrBuf *out) {
    put_key(out, "head");
    if (!h->positions)
        buf_puts(out, "null,\n");
    else
        buf_printf(out,
                   "{\"format\": \"%s\", \"tied\": %s, \"kl_mean\": %.6g, \"kl_max\": %.6g, "
                   "\"positions\": %u, \"same_first\": %u},\n",
                   h->format, h->tied ? "true" : "false", h->kl_mean, h->kl_max, h->positions, h->same_first);
}

static void put_plan(const Plan *p, StrBuf *out) {
    put_string(out, "target", p->target);
    put_uint(out, "tensor_parallel", p->n_ranks);
    put_uint(out, "layers", p->n_layers);
    put_uint(out, "hidden", p->hidden);
    put_uint(out, "vocab", p->vocab);
    put_uint(out, "context", p->context);
    put_uint(out, "sequences", p->seqs_max);
    put_uint(out, "chunk", p->tokens_max);
    put_key(out, "buckets");
    buf_putc(out, '[');
    for (uint32_t i = 0, n = 0; i < p->n_programs; i++)
        if (p->programs[i].kind == ADA_PROGRAM_BODY)
            buf_printf(out, "%s%u", n++ ? ", " : "", p->programs[i].bucket);
    buf_puts(out, "],\n");
    put_key(out, "kv");
    buf_putc(out, '[');
    for (uint32_t g = 0; g < p->n_kv_groups; g++) {
        const AdaKvGroup *k = &p->kv[g];
        buf_printf(
            out,
            "%s{\"layers\": %u, \"window\": %u, \"bytes_per_token\": %llu, \"bytes_per_sequence\": %llu}",
            g ? ", " : "", k->n_layers, k->window,
            (unsigned long long)(k->page_bytes / p->page_tokens * p->n_ranks),
            (unsigned long long)(k->page_bytes * k->pages_per_seq * p->n_ranks));
    }
    buf_puts(out, "],\n");
}

static void put_inputs(const PackFacts *f, StrBuf *out) {
    char hex[65];
    put_key(out, "inputs");
    buf_putc(out, '{');
    for (uint32_t i = 0; i < f->n_inputs; i++) {
        buf_puts(out, i ? ",\n    " : "\n    ");
        json_write_string(out, str_of(f->inputs[i].name));
        sha256_hex(f->inputs[i].hash, hex);
        buf_printf(out, ": \"%s\"", hex);
    }
    buf_puts(out, f->n_inputs ? "\n  }\n" : "}\n");
}

void pack_manifest(const PackInput *in, StrBuf *out) {
    const PackFacts *f = &in->facts;
    buf_puts(out, "{\n");
    put_string(out, "model", f->model);
    put_string(out, "family", f->family);
    put_string(out, "compiler", ADALLM_VERSION);
    put_plan(in->plan, out);
    put_facts(f, out);
    put_head(&f->head, out);
    put_object(out, "config", f->config);
    put_object(out, "recipe", f->recipe);
    put_inputs(f, out);
    buf_puts(out, "}\n");
}
