// One layer of the network: attention and feed-forward, each behind a norm and beside a residual.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "model/attention.hpp"
#include "model/feed_forward.hpp"
#include "model/forward.hpp"
#include "model/parameters.hpp"

namespace sinew {

class Block {
 public:
  Block(const ModelConfig& config, const ParameterStore& parameters, std::int64_t layer);

  // x [B, T, H] -> [B, T, H]; adds to `stats` if this is a mixture of experts.
  at::Tensor forward(const at::Tensor& x, const ForwardContext& context,
                     std::vector<RouterStats>& stats) const;
  std::size_t unit() const { return unit_; }  // of its parameters (model/partition.hpp)

 private:
  at::Tensor plain(const at::Tensor& x, const ForwardContext& context, RouterStats& stats) const;
  at::Tensor recomputed(const at::Tensor& x, const ForwardContext& context, RouterStats& stats) const;

  double eps_;
  bool moe_;
  std::size_t unit_;
  at::Tensor input_norm_, post_norm_;
  std::unique_ptr<SelfAttention> attention_;
  std::unique_ptr<FeedForward> feed_forward_;
  std::vector<at::Tensor> trained_;  // every trained parameter of the layer
};

}  // namespace sinew
