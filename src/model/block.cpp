#include "model/block.hpp"

#include "base/error.hpp"
#include "ops/checkpoint.hpp"
#include "ops/residual.hpp"
#include "ops/rms_norm.hpp"
#include "ops/tensor.hpp"

namespace sinew {
Block::Block(const ModelConfig& config, const ParameterStore& parameters, std::int64_t layer)
    : eps_(config.rms_norm_eps),
      moe_(config.ffn_kind(layer) == FfnKind::moe),
      unit_(parameters.unit(fmt::format("model.layers.{}.", layer))) {
  const auto prefix = fmt::format("model.layers.{}.", layer);
  input_norm_ = parameters.get(prefix + "input_layernorm.weight");
  post_norm_ = parameters.get(prefix + "post_attention_layernorm.weight");
  attention_ = make_attention(config, parameters, layer, prefix + "self_attn.");
  feed_forward_ = make_feed_forward(config, parameters, layer, prefix);
  for (const auto& parameter : parameters.list()) {
    if (parameter.name.starts_with(prefix) && !parameter.buffer) trained_.push_back(parameter.tensor);
  }
}

at::Tensor Block::forward(const at::Tensor& x, const ForwardContext& context,
                          std::vector<RouterStats>& stats) const {
  if (context.trace != nullptr) context.trace->hidden_states.push_back(x.detach());
  RouterStats own;
  const bool recompute = context.recompute == Recompute::full && at::GradMode::is_enabled();
  auto y = recompute ? recomputed(x, context, own) : plain(x, context, own);
  if (moe_) stats.push_back(std::move(own));
  return y;
}

at::Tensor Block::plain(const at::Tensor& x, const ForwardContext& context, RouterStats& stats) const {
  const auto before = rms_norm_beside(x, input_norm_, eps_);
  const auto after = add_rms_norm(before.sum, attention_->forward(before.normed, context), post_norm_, eps_);
  return add_residual(after.sum, feed_forward_->forward(after.normed, context, stats));
}

at::Tensor Block::recomputed(const at::Tensor& x, const ForwardContext& context, RouterStats& stats) const {
  const auto first = std::make_shared<RouterStats>();
  const auto body = [this, context, first](const std::vector<at::Tensor>& in) {
    RouterStats own;
    std::vector<at::Tensor> out{plain(in[0], context, own)};
    if (own.score_sum.defined()) out.push_back(own.score_sum);
    if (own.z_sum.defined()) out.push_back(own.z_sum);
    if (!recomputing()) *first = own;
    return out;
  };
  const auto out = checkpoint(body, {x}, trained_);
  stats = *first;
  if (out.size() > 1) stats.score_sum = out[1];
  if (out.size() > 2) stats.z_sum = out[2];
  return out[0];
}

}  // namespace sinew
