// Attention with rotary embedding as the two families compose it, from what the projections give to what the
// output projection takes. Causal; fused on the CPU (kernels/attention.hpp).
#pragma once

#include <ATen/core/Tensor.h>

#include "config/model_config.hpp"

namespace sinew {

struct Rotation {
  at::Tensor cos, sin;  // [T, d/2] fp32
  RopeLayout layout = RopeLayout::half;
};

// MLA (DeepSeek-V2 section 2.1). q [B, T, heads, nope + rope], kv [B, T, heads, nope + v], k_pe [B, T, rope]
// shared by all heads, none of them rotated yet -> [B, T, heads * v]. documents [B, T] or undefined.
at::Tensor latent_attention(const at::Tensor& q, const at::Tensor& kv, const at::Tensor& k_pe,
                            const Rotation& rotation, double scale, const at::Tensor& documents);

// q [B, T, heads, d], k [B, T, kv_heads, d], not rotated yet, v [B, T, kv_heads, dv] -> [B, T, heads * dv].
at::Tensor grouped_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                             const Rotation& rotation, double scale, const at::Tensor& documents);

}  // namespace sinew
