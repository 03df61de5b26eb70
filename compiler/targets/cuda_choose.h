// How a GPU target chooses among the forms of a template: every template has a function that enumerates its
// candidates (cuda_linear.c, cuda_attention.c, cuda_rows.c, cuda_sample.c); the table of them and what they
// share stand in cuda_choose.c.
#ifndef ADALLM_TARGETS_CUDA_CHOOSE_H
#define ADALLM_TARGETS_CUDA_CHOOSE_H
#include "compiler/targets/target.h"

// Calls cuda_consider for every candidate.
typedef void CudaCandidates(const Target *t, const KernelAsk *ask, KernelAnswer *out);
CudaCandidates cuda_linear, cuda_gate_up, cuda_moe_gate_up, cuda_moe_down; // cuda_linear.c
CudaCandidates cuda_attention;                                             // cuda_attention.c
CudaCandidates cuda_embed, cuda_norm_add, cuda_linear_f32, cuda_act_mul, cuda_rope_write, cuda_moe_route,
    cuda_moe_combine, cuda_gather_rows, cuda_quantize_rows, cuda_advance; // cuda_rows.c
CudaCandidates cuda_sample;                                               // cuda_sample.c

uint64_t ask_u(const KernelAsk *ask, const char *key); // a field of the spec; CHECKs that it is there
double ask_f(const KernelAsk *ask, const char *key);
bool ask_is(const KernelAsk *ask, const char *key, const char *word); // of an "n" field

// cuda_rows.c, for products that norm their rows themselves: threads that hold a row of n values, which its
// bits depend on; microseconds of a norm_add launch without branch; what each of `rows` rows adds to a
// product.
uint32_t cuda_row_threads(uint64_t n);
uint32_t cuda_norm_threads(uint64_t n); // of a norm; at most 512
double cuda_norm_us(const Target *t);
double cuda_fold_us(uint32_t rows);

// Adds a schedule field, in the order of templates.def.
void choice_add(KernelChoice *c, const char *key, uint64_t u);
// Weighs a candidate that has its predicted_us: refused with a reason when the card cannot run it (threads,
// shared memory), else it becomes the best or is rejected against the best.
void cuda_consider(const Target *t, const KernelAsk *ask, KernelAnswer *out, const KernelChoice *c);
// A candidate that the template itself cannot run: the reason is kept.
void cuda_refuse(KernelAnswer *out, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

// The `legal` and `choose` of a Target.
bool cuda_legal(const Target *t, const KernelAsk *ask, const KernelChoice *c, char reason[REASON_BYTES]);
bool cuda_choose(const Target *t, const KernelAsk *ask, KernelAnswer *out);
#endif
