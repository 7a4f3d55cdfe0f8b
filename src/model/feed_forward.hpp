// Feed-forward layers: a dense SwiGLU network, or a mixture of experts with shared ones.
#pragma once

#include <memory>
#include <string>

#include "model/forward.hpp"
#include "model/parameters.hpp"

namespace sinew {

class FeedForward {
 public:
  virtual ~FeedForward() = default;
  // x [B, T, H], normalised -> [B, T, H]. A mixture of experts fills `stats`.
  virtual at::Tensor forward(const at::Tensor& x, const ForwardContext& context,
                             RouterStats& stats) const = 0;
};

// The feed-forward of `layer`, whose tensors' names begin with `prefix` ("model.layers.3.").
std::unique_ptr<FeedForward> make_feed_forward(const ModelConfig& config, const ParameterStore& parameters,
                                               std::int64_t layer, const std::string& prefix);

// Which assignments capacity keeps: in every row each expert (or, with several device groups, each device)
// takes at most ceil(capacity_factor * T*K / number of them), those of highest weight, the earlier token at
// equal weight. A row's fate does not depend on the other rows. experts, weights [B*T, K] -> [B*T, K] bool.
at::Tensor within_capacity(const at::Tensor& experts, const at::Tensor& weights, std::int64_t rows,
                           std::int64_t n_experts, const BalanceOptions& options);

}  // namespace sinew
