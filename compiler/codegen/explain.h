// What a plan decided and why: for people as text (`adallmc compile --explain`), for tools as JSON (in the
// artifact).
#ifndef ADALLM_CODEGEN_EXPLAIN_H
#define ADALLM_CODEGEN_EXPLAIN_H
#include "compiler/codegen/image.h"
#include "compiler/targets/target.h"

// Appends: memory by kind, KV cache by group, kernels, and for every program its kernels with their share of
// the predicted time, its buffers over time, its launches; then what was considered and rejected, with the
// reasons. facts: [kernels] or NULL.
void explain_text(const Plan *p, const Target *t, const KernelFacts *facts, StrBuf *out);

// Appends one JSON object, the same bytes for the same plan:
//   {"target": {..facts}, "memory": {..}, "kv": [..], "weights": [..], "kernels": [..], "programs":
//    [{"kind", "bucket", "predicted_us", "bytes_read", .., "kernels": [..], "launches": [..]}],
//    "rejected": [{"what", "reason"}]}
void explain_json(const Plan *p, const Target *t, const KernelFacts *facts, StrBuf *out);
#endif
