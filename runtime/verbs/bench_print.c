#include "runtime/verbs/bench.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "runtime/base/json.h"
#include "runtime/base/num.h"

static double mib(uint64_t bytes) { return (double)bytes / (1 << 20); }
static double per_s(uint64_t n, double seconds) { return (double)n / MAX(seconds, 1e-9); }
static double step_s(const BenchRow *row) { return row->decode_s / MAX(row->n_steps, 1u); }
static double limit_percent(const BenchRow *row) { return 100 * row->limit_s / MAX(step_s(row), 1e-9); }

static double read_percent(const BenchReport *r, const BenchLaunch *l) {
    return r->read_rate > 0 ? 100 * (double)l->bytes / (MAX(l->measured_us, 1e-3) * 1e-6) / r->read_rate : 0;
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

// Percent by which predictions miss, the median over all launches of the step.
static double median_error(const BenchLaunches *all_of) {
    uint32_t n = 0, all = 0;
    for (uint32_t i = 0; i < all_of->n; i++) all += all_of->items[i].count;
    double *errors = xrealloc(NULL, MAX(all, 1u), sizeof *errors);
    for (uint32_t i = 0; i < all_of->n; i++) {
        const BenchLaunch *l = &all_of->items[i];
        const double error = 100 * fabs(l->predicted_us / MAX(l->measured_us, 1e-3) - 1);
        for (uint32_t j = 0; j < l->count; j++) errors[n++] = error;
    }
    qsort(errors, n, sizeof *errors, by_value);
    const double median = n ? errors[n / 2] : 0;
    free(errors);
    return median;
}

static double launches_us(const BenchLaunches *l) {
    double us = 0;
    for (uint32_t i = 0; i < l->n; i++) us += l->items[i].measured_us * l->items[i].count;
    return us;
}

static double whole_us(const BenchLaunches *l) {
    return 1e6 * (l->chunk ? l->row.prefill_s : step_s(&l->row));
}

// ---- text ------------------------------------------------------------------------------------------------

void bench_print_head(const BenchReport *r) {
    const Artifact *a = &r->opened->artifact;
    const ExecMemory *m = &r->memory;
    const ExecStartup *t = &r->startup;
    printf("%s on %s, %llu tokens in, %llu out; a plain read of the %.0f MB of weights: %.1f GB/s\n",
           r->opened->manifest.model, a->super->target, (unsigned long long)r->prompt,
           (unsigned long long)r->gen, (double)a->weight_bytes / 1e6, r->read_rate / 1e9);
    printf("memory, MiB: weights %.1f, KV pool %.1f, scratch %.1f, states %.1f", mib(m->weights), mib(m->kv),
           mib(m->scratch), mib(m->states));
    if (m->rest)
        printf(", context and rest %.1f; beside weights and KV %.1f", mib(m->rest),
               mib(m->scratch + m->states + m->rest));
    printf("\nstart, ms: read %.1f, device %.1f, weights %.1f, code %.1f, KV pool %.1f, graphs %.1f; beside "
           "them "
           "hashes %.1f, waited for %.1f\n\n",
           r->opened->open_s * 1e3, t->device_s * 1e3, t->weights_s * 1e3, t->code_s * 1e3, t->memory_s * 1e3,
           t->capture_s * 1e3, r->opened->hash_s * 1e3, r->opened->wait_s * 1e3);
    printf("batch prefill tok/s  decode tok/s    ms/step   p50 ms     p99 ms   of the limit\n");
    fflush(stdout);
}

void bench_print_row(const BenchReport *r, const BenchRow *row) {
    (void)r;
    printf("%5u %13.1f %13.1f %10.3f %8.3f %10.3f %12.0f%%\n", row->batch,
           per_s(row->prefill_tokens, row->prefill_s), per_s(row->decode_tokens, row->decode_s),
           step_s(row) * 1e3, row->p50_s * 1e3, row->p99_s * 1e3, limit_percent(row));
    fflush(stdout);
}

void bench_print_launches(const BenchReport *r, const BenchLaunches *l) {
    if (l->chunk)
        printf("\nlaunches that compute %u tokens of a prompt, each kernel alone\n", l->chunk);
    else
        printf("\nlaunches of a decode step of %u, each kernel alone\n", l->row.batch);
    printf("%-7s %-44s %5s %12s %12s %12s %8s\n", "program", "kernel", "count", "measured us", "predicted us",
           "MB", "of read");
    for (uint32_t i = 0; i < l->n; i++) {
        const BenchLaunch *k = &l->items[i];
        printf("%-7s %-44s %5u %12.2f %12.2f %12.3f %7.0f%%\n", k->program, k->kernel, k->count,
               k->measured_us, k->predicted_us, (double)k->bytes / 1e6, read_percent(r, k));
    }
    printf("\nall launches %.1f us, the measured step %.1f us; median error of the predictions %.1f %%\n",
           launches_us(l), whole_us(l), median_error(l));
}

// ---- JSON ------------------------------------------------------------------------------------------------

static void put_row(StrBuf *out, const BenchRow *row) {
    buf_printf(out,
               "{\"batch\": %u, \"prefill_tokens_per_s\": %.3f, \"decode_tokens_per_s\": %.3f, "
               "\"step_ms\": %.6f, \"p50_ms\": %.6f, \"p99_ms\": %.6f, \"limit_ms\": %.6f}",
               row->batch, per_s(row->prefill_tokens, row->prefill_s),
               per_s(row->decode_tokens, row->decode_s), step_s(row) * 1e3, row->p50_s * 1e3,
               row->p99_s * 1e3, row->limit_s * 1e3);
}

static void put_launches(StrBuf *out, const BenchReport *r, const char *name, const BenchLaunches *all) {
    buf_printf(out, ",\n \"%s\": {\"step\": ", name);
    put_row(out, &all->row);
    buf_printf(out, ", \"step_us\": %.3f, \"sum_us\": %.3f, \"median_error_percent\": %.2f, \"kernels\": [",
               whole_us(all), launches_us(all), median_error(all));
    for (uint32_t i = 0; i < all->n; i++) {
        const BenchLaunch *l = &all->items[i];
        buf_printf(out,
                   "%s\n  {\"program\": \"%s\", \"kernel\": \"%s\", \"count\": %u, \"measured_us\": %.3f, "
                   "\"predicted_us\": %.3f, \"bytes\": %llu, \"read_percent\": %.2f}",
                   i ? "," : "", l->program, l->kernel, l->count, l->measured_us, l->predicted_us,
                   (unsigned long long)l->bytes, read_percent(r, l));
    }
    buf_puts(out, "]}");
}

void bench_print_json(const BenchReport *r) {
    StrBuf out = {0};
    const ExecMemory *m = &r->memory;
    const ExecStartup *t = &r->startup;
    buf_puts(&out, "{\"model\": ");
    json_write_string(&out, str_of(r->opened->manifest.model));
    buf_puts(&out, ", \"target\": ");
    json_write_string(&out, str_of(r->opened->artifact.super->target));
    buf_printf(&out,
               ", \"prompt\": %llu, \"gen\": %llu, \"read_bytes_per_s\": %.0f,\n \"memory\": {\"weights\": "
               "%llu, \"kv\": %llu, \"scratch\": %llu, \"states\": %llu, \"rest\": %llu},\n",
               (unsigned long long)r->prompt, (unsigned long long)r->gen, r->read_rate,
               (unsigned long long)m->weights, (unsigned long long)m->kv, (unsigned long long)m->scratch,
               (unsigned long long)m->states, (unsigned long long)m->rest);
    buf_printf(&out,
               " \"start_ms\": {\"open\": %.3f, \"device\": %.3f, \"weights\": %.3f, \"code\": %.3f, "
               "\"kv\": %.3f, \"graphs\": %.3f, \"hashes\": %.3f, \"hashes_waited\": %.3f},\n \"rows\": [",
               r->opened->open_s * 1e3, t->device_s * 1e3, t->weights_s * 1e3, t->code_s * 1e3,
               t->memory_s * 1e3, t->capture_s * 1e3, r->opened->hash_s * 1e3, r->opened->wait_s * 1e3);
    for (uint32_t i = 0; i < r->n_rows; i++) {
        buf_puts(&out, i ? ",\n  " : "\n  ");
        put_row(&out, &r->rows[i]);
    }
    buf_puts(&out, "]");
    if (r->step.n) put_launches(&out, r, "launches", &r->step);
    if (r->chunk.n) put_launches(&out, r, "chunk_launches", &r->chunk);
    buf_puts(&out, "}\n");
    fwrite(out.ptr, 1, out.len, stdout);
    buf_free(&out);
}
