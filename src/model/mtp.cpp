#include "model/mtp.hpp"

#include "base/error.hpp"
#include "ops/rms_norm.hpp"
#include "ops/tensor.hpp"

namespace sinew {

MtpLayer::MtpLayer(const ModelConfig& config, const ParameterStore& parameters, std::int64_t depth)
    : eps_(config.rms_norm_eps), block_(config, parameters, config.num_hidden_layers + depth) {
  const auto prefix = fmt::format("model.layers.{}.", config.num_hidden_layers + depth);
  embedding_norm_ = parameters.get(prefix + "enorm.weight");
  hidden_norm_ = parameters.get(prefix + "hnorm.weight");
  projection_ = parameters.get(prefix + "eh_proj.weight");
  head_norm_ = parameters.get(prefix + "shared_head.norm.weight");
}

at::Tensor MtpLayer::forward(const at::Tensor& hidden, const at::Tensor& embedded,
                             const ForwardContext& context, std::vector<RouterStats>& stats) const {
  const auto joined =
      at::cat({rms_norm(embedded, embedding_norm_, eps_), rms_norm(hidden, hidden_norm_, eps_)}, -1);
  return block_.forward(project(joined, projection_), context, stats);
}

at::Tensor MtpLayer::head_input(const at::Tensor& output) const { return rms_norm(output, head_norm_, eps_); }

}  // namespace sinew
