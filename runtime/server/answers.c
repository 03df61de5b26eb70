// Routes that answer at once.
#include <stdio.h>

#include "runtime/base/log.h"
#include "runtime/base/num.h"
#include "runtime/base/version.h"
#include "runtime/server/page.h"
#include "runtime/server/routes.h"

enum { SLOTS_MAX = 256 };

void answer_tokenizer_info(Server *s, Call *c) {
    const ApiModel *m = s->model;
    StrBuf eos = {0};
    if (m->n_eos_ids) tokenizer_decode(m->tok, (const uint32_t *)m->eos_ids, 1, false, &eos);
    // the class of Hugging Face that reads any tokenizer.json
    buf_puts(&c->doc, "{\"tokenizer_class\": \"PreTrainedTokenizerFast\", \"eos_token\": ");
    json_write_string(&c->doc, buf_view(&eos));
    buf_printf(&c->doc,
               ", \"bos_token\": null, \"pad_token\": null, \"chat_template\": null, \"vocab_size\": %u, "
               "\"model_max_length\": %u}\n",
               m->vocab, m->context);
    buf_free(&eos);
}

static void model_object(const Server *s, Str name, StrBuf *out) {
    buf_puts(out, "{\"id\": ");
    json_write_string(out, name);
    buf_printf(out, ", \"object\": \"model\", \"created\": %lld, \"owned_by\": \"adallm\", \"root\": ",
               (long long)s->model->created);
    json_write_string(out, s->model->name);
    buf_printf(out, ", \"parent\": null, \"max_model_len\": %u, \"permission\": []}", s->model->context);
}

void answer_models(Server *s, Call *c) {
    buf_puts(&c->doc, "{\"object\": \"list\", \"data\": [");
    for (uint32_t i = 0; i < s->model->n_names; i++) {
        if (i) buf_puts(&c->doc, ", ");
        model_object(s, s->model->names[i], &c->doc);
    }
    buf_puts(&c->doc, "]}\n");
}

void answer_model_by_id(Server *s, Call *c) {
    Str id = str_from(c->path, strlen("/models/"));
    for (uint32_t i = 0; i < s->model->n_names; i++)
        if (str_eq(id, s->model->names[i])) {
            model_object(s, id, &c->doc);
            buf_putc(&c->doc, '\n');
            return;
        }
    api_error(&c->error, 404, "invalid_request_error", "model_not_found", "model",
              "The model `%.*s` does not exist.", (int)MIN(id.len, 200u), id.ptr);
    call_fail(c);
}

static const char *state_name(const Server *s) {
    return s->dead || engine_state(s->engine) == ENGINE_DEAD ? "dead" : s->draining ? "draining" : "ok";
}

// Alive, whether it takes requests or not.
void answer_health(Server *s, Call *c) {
    const char *state = state_name(s);
    c->status = strcmp(state, "dead") ? 200 : 503;
    buf_printf(&c->doc, "{\"status\": \"%s\"}\n", state);
}

void answer_ready(Server *s, Call *c) {
    const char *state = state_name(s);
    c->status = strcmp(state, "ok") ? 503 : 200;
    if (c->status == 503) c->retry_after_s = 5;
    buf_printf(&c->doc, "{\"status\": \"%s\"}\n", state);
}

void answer_version(Server *s, Call *c) {
    (void)s;
    buf_printf(&c->doc, "{\"version\": \"%s\"}\n", ADALLM_VERSION);
}

// seed: UINT32_MAX is llama-server's word for another one each time.
void answer_props(Server *s, Call *c) {
    const Sampling *d = &s->model->defaults;
    EngineStats st;
    engine_stats(s->engine, &st);
    buf_printf(
        &c->doc,
        "{\"default_generation_settings\": {\"n_ctx\": %u, \"params\": {\"seed\": %u, \"temperature\": %g, "
        "\"top_k\": %u, \"top_p\": %g, \"min_p\": %g, \"n_predict\": -1}}, \"total_slots\": %u, "
        "\"model_path\": ",
        s->model->context, UINT32_MAX, (double)d->temperature, d->top_k, (double)d->top_p, (double)d->min_p,
        st.slots);
    json_write_string(&c->doc, str_of(s->o.artifact));
    buf_puts(&c->doc, ", \"model_alias\": ");
    json_write_string(&c->doc, s->model->name);
    buf_printf(&c->doc,
               ", \"chat_template_caps\": {\"supports_tools\": %s, \"supports_thinking\": %s}, "
               "\"build_info\": \"adallm %s\"}\n",
               s->model->has_tools ? "true" : "false", s->model->has_thinking ? "true" : "false",
               ADALLM_VERSION);
}

// llama-server's view of the batch. A slot has no place of its own here: those that run come first.
void answer_slots(Server *s, Call *c) {
    EngineStats st;
    EngineSlot slots[SLOTS_MAX];
    engine_stats(s->engine, &st);
    uint32_t n = engine_slots(s->engine, slots, SLOTS_MAX);
    buf_putc(&c->doc, '[');
    for (uint32_t i = 0; i < MAX(n, st.slots); i++) {
        buf_printf(&c->doc, "%s{\"id\": %u, \"n_ctx\": %u, \"is_processing\": %s", i ? ", " : "", i,
                   s->model->context, i < n ? "true" : "false");
        if (i < n)
            buf_printf(&c->doc, ", \"id_task\": %llu, \"n_prompt_tokens\": %u, \"n_decoded\": %u",
                       (unsigned long long)slots[i].request, slots[i].prompt_tokens,
                       slots[i].generated_tokens);
        buf_putc(&c->doc, '}');
    }
    buf_puts(&c->doc, "]\n");
}

// For the page: who is in the batch now.
void answer_stats(Server *s, Call *c) {
    EngineStats st;
    EngineSlot slots[SLOTS_MAX];
    engine_stats(s->engine, &st);
    uint32_t n = engine_slots(s->engine, slots, SLOTS_MAX);
    buf_printf(&c->doc,
               "{\"status\": \"%s\", \"running\": %u, \"waiting\": %u, \"slots\": %u, \"kv_usage\": %.4f, "
               "\"generated_tokens\": %llu, "
               "\"prompt_tokens\": %llu, \"steps\": %llu, \"uptime_s\": %.1f, \"batch\": [",
               state_name(s), st.running, st.waiting, st.slots, st.kv_usage,
               (unsigned long long)st.generated_tokens, (unsigned long long)st.prompt_tokens,
               (unsigned long long)st.steps, clock_s() - s->started_s);
    for (uint32_t i = 0; i < n; i++)
        buf_printf(&c->doc,
                   "%s{\"request\": %llu, \"choice\": %u, \"prompt_tokens\": %u, \"computed_tokens\": %u, "
                   "\"generated_tokens\": %u}",
                   i ? ", " : "", (unsigned long long)slots[i].request, slots[i].choice,
                   slots[i].prompt_tokens, slots[i].computed_tokens, slots[i].generated_tokens);
    buf_puts(&c->doc, "]}\n");
}

// vLLM's: requests that generate, those that are being read included.
void answer_load(Server *s, Call *c) {
    buf_printf(&c->doc, "{\"server_load\": %u}\n", s->n_preparing + s->n_running);
}

void answer_metrics(Server *s, Call *c) {
    c->content_type = "text/plain; version=0.0.4; charset=utf-8";
    metrics_write(s, &c->doc);
}

void answer_page(Server *s, Call *c) {
    (void)s;
    c->content_type = "text/html; charset=utf-8";
    buf_add(&c->doc, server_page, server_page_bytes);
}
