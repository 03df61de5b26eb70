// The fused ops that pass_fuse makes, and their operands; ir/eval*.c computes them from this text.
#ifndef ADALLM_PASSES_FUSE_H
#define ADALLM_PASSES_FUSE_H

// norm_add: two results, both shaped like `residual`. norm(x, w) is rms_norm with the node's eps.
//
//     form           inputs                        result            result + 1
//     add_norm       residual, branch, w           residual + branch norm(result, w)
//     post_add_norm  residual, branch, post_w, w   residual + norm(branch, post_w)
//                                                                    norm(result, w)
//     post_add       residual, branch, post_w      residual + norm(branch, post_w)
//                                                                    result again, never used
//
// The residual is updated in place, so nothing uses it after its norm_add.
#define FORM_ADD_NORM      "add_norm"
#define FORM_POST_ADD_NORM "post_add_norm"
#define FORM_POST_ADD      "post_add"

// rope_write: qkv holds q heads, k heads, v heads side by side. With q_norm and k_norm (of eps) each head of
// q and k is normed first. q and k are rotated as by `rope`; k / k_scale and v / v_scale go to the cache. The
// result `kv` stands for the written cache; paged_attention reads all of the sequence from it.
#endif
