// Self-attention layers: multi-head latent attention (DeepSeek-V2 section 2.1) and grouped-query attention.
#pragma once

#include <memory>
#include <string>

#include "model/forward.hpp"
#include "model/kv_cache.hpp"
#include "model/parameters.hpp"

namespace sinew {

class SelfAttention {
 public:
  virtual ~SelfAttention() = default;
  // x [B, T, H], normalised -> [B, T, H].
  virtual at::Tensor forward(const at::Tensor& x, const ForwardContext& context) const = 0;
};

// The attention of `layer`, whose tensors' names begin with `prefix` ("model.layers.3.self_attn.").
std::unique_ptr<SelfAttention> make_attention(const ModelConfig& config, const ParameterStore& parameters,
                                              std::int64_t layer, const std::string& prefix);

}  // namespace sinew
