#include "tests/device/spec.h"

#include <stdio.h>
#include <stdlib.h>

#include "compiler/ir/template.h"
#include "runtime/base/num.h"

enum { WORDS_MAX = 40 };

typedef struct {
    Str key;
    const char *value;
    bool used;
} Word;

typedef struct {
    const char *template_;
    Word fields[WORDS_MAX], by_hand[WORDS_MAX]; // before and behind the bar
    uint32_t n_fields, n_by_hand, bucket;       // bucket 0: by hand
} Line;

static bool add_word(Word *words, uint32_t *n, char *text) {
    char *equals = strchr(text, '=');
    if (!equals || *n == WORDS_MAX) return false;
    *equals = 0;
    words[(*n)++] = (Word){.key = str_of(text), .value = equals + 1};
    return true;
}

static bool split_line(Arena *a, const char *line, Line *out) {
    char *save = NULL, *word = strtok_r(arena_strdup(a, line), " ", &save);
    bool by_hand = false, ok = true;
    *out = (Line){.template_ = word ? word : ""};
    while (ok && (word = strtok_r(NULL, " ", &save))) {
        if (!strcmp(word, "@")) {
            const char *bucket = strtok_r(NULL, " ", &save);
            out->bucket = bucket ? (uint32_t)strtoul(bucket, NULL, 10) : 0;
            ok = out->bucket && !strtok_r(NULL, " ", &save);
        } else if (!strcmp(word, "|")) {
            by_hand = true;
        } else {
            ok = by_hand ? add_word(out->by_hand, &out->n_by_hand, word)
                         : add_word(out->fields, &out->n_fields, word);
        }
    }
    return ok && (out->bucket != 0) != by_hand;
}

static const char *take(Word *words, uint32_t n, Str key) {
    for (uint32_t i = 0; i < n; i++) {
        if (!str_eq(words[i].key, key)) continue;
        words[i].used = true;
        return words[i].value;
    }
    return NULL;
}

static const char *unused(const Word *words, uint32_t n) {
    for (uint32_t i = 0; i < n; i++)
        if (!words[i].used) return words[i].key.ptr;
    return NULL;
}

static SpecField field_of(Arena *a, TemplateField f, Word *words, uint32_t n) {
    SpecField s = {.key = arena_strndup(a, f.key.ptr, f.key.len), .kind = f.kind};
    const char *value = take(words, n, f.key);
    if (f.kind == 'n') s.n = value;
    if (f.kind == 'u' && value) s.u = strtoull(value, NULL, 10);
    if (f.kind == 'f' && value) s.f = strtod(value, NULL);
    return s;
}

static uint64_t field_u(const KernelAsk *ask, const char *key, uint64_t otherwise) {
    for (uint32_t i = 0; i < ask->n_spec; i++)
        if (!strcmp(ask->spec[i].key, key)) return ask->spec[i].u;
    return otherwise;
}

// Enough for the cost model to weigh candidates: a product reads its weight once, NVFP4 as all do here, and
// the rest is small.
static void estimate_cost(KernelAsk *ask) {
    uint64_t k = field_u(ask, "k", 0), rows = field_u(ask, "n", 2 * field_u(ask, "f", 0));
    uint64_t experts = MIN(field_u(ask, "experts", 1), (uint64_t)ask->bucket * field_u(ask, "topk", 1));
    ask->bytes_read = experts * rows * k * 9 / 16 + (uint64_t)ask->bucket * k * 2;
    ask->bytes_written = (uint64_t)ask->bucket * rows * 4;
    ask->flops = 2 * ask->bucket * field_u(ask, "topk", 1) * rows * k;
}

static bool choose(Arena *a, const Target *t, const Line *line, DeviceSpec *out, const char **why) {
    KernelAsk ask = {.template_ = out->kernel.template_,
                     .spec = out->kernel.spec,
                     .n_spec = out->kernel.n_spec,
                     .bucket = line->bucket};
    KernelAnswer answer;
    estimate_cost(&ask);
    if (!t->choose(t, &ask, &answer)) {
        *why = arena_strdup(a, answer.n_rejected ? answer.rejected[0].reason : "no kernel is legal");
        return false;
    }
    out->choice = answer.best;
    return true;
}

static void by_hand(Arena *a, Line *line, const Template *t, KernelChoice *c) {
    for (uint32_t i = 0; i < t->n_schedule; i++)
        c->schedule[c->n_schedule++] =
            field_of(a, t->fields[t->n_fields + i], line->by_hand, line->n_by_hand);
    const char *threads = take(line->by_hand, line->n_by_hand, STR("threads"));
    const char *grid = take(line->by_hand, line->n_by_hand, STR("grid"));
    const char *shared = take(line->by_hand, line->n_by_hand, STR("shared"));
    const char *work = take(line->by_hand, line->n_by_hand, STR("work"));
    c->threads = threads ? (uint32_t)strtoul(threads, NULL, 10) : 128;
    c->grid = grid ? (uint32_t)strtoul(grid, NULL, 10) : 1;
    c->shared_bytes = shared ? strtoull(shared, NULL, 10) : 0;
    c->work_bytes = work ? strtoull(work, NULL, 10) : 0;
}

// The kernel's spec is the template's fields, then those of the schedule.
static void finish_kernel(Arena *a, DeviceSpec *out) {
    PlanKernel *k = &out->kernel;
    const KernelChoice *c = &out->choice;
    SpecField *all = ARENA_ARRAY(a, SpecField, k->n_spec + c->n_schedule);
    memcpy(all, k->spec, k->n_spec * sizeof *all);
    memcpy(all + k->n_spec, c->schedule, c->n_schedule * sizeof *all);
    k->spec = all, k->n_spec += c->n_schedule;
    k->threads = c->threads, k->shared_bytes = c->shared_bytes;
}

bool spec_parse(Arena *a, const Target *target, const char *line, DeviceSpec *out, const char **why) {
    Line words;
    Template t;
    *out = (DeviceSpec){.line = line};
    *why = "it is not `template key=value ... @ bucket` or `template key=value ... | key=value ...`";
    if (!split_line(a, line, &words)) return false;
    *why = "there is no such template";
    if (!template_find(words.template_, &t)) return false;
    out->kernel = (PlanKernel){.template_ = t.name, .n_spec = t.n_fields};
    out->kernel.spec = ARENA_ARRAY(a, SpecField, t.n_fields + 1);
    for (uint32_t i = 0; i < t.n_fields; i++) {
        out->kernel.spec[i] = field_of(a, t.fields[i], words.fields, words.n_fields);
        *why = arena_printf(a, "its `%s` is missing", out->kernel.spec[i].key);
        if (t.fields[i].kind == 'n' && !out->kernel.spec[i].n) return false;
    }
    if (words.bucket) {
        if (!choose(a, target, &words, out, why)) return false;
    } else {
        by_hand(a, &words, &t, &out->choice);
    }
    const char *stranger = unused(words.fields, words.n_fields);
    if (!stranger) stranger = unused(words.by_hand, words.n_by_hand);
    *why = arena_printf(a, "the template has no field `%s`", stranger ? stranger : "");
    finish_kernel(a, out);
    return !stranger;
}
