#include "ops/gate.hpp"

#include <algorithm>
#include <limits>

#include "base/error.hpp"
#include "ops/tensor.hpp"

namespace sinew {
namespace {

// Indices of the `count` largest of each row, largest first; of equal values the lowest index first,
// which at::topk does not promise.
at::Tensor largest(const at::Tensor& x, std::int64_t count) {
  return std::get<1>(at::sort(x, /*stable=*/true, /*dim=*/-1, /*descending=*/true))
      .narrow(-1, 0, count)
      .contiguous();
}

// choice [N, E] with the experts outside the kept groups at -infinity.
at::Tensor keep_groups(const at::Tensor& choice, const GateOptions& options) {
  const auto grouped = choice.unflatten(1, {options.n_group, -1});  // [N, groups, E/groups]
  const auto best = std::min<std::int64_t>(options.method == TopkMethod::noaux_tc ? 2 : 1, grouped.size(2));
  const auto group_scores = std::get<0>(grouped.topk(best, -1)).sum(-1);  // [N, groups]
  const auto kept = at::zeros(group_scores.sizes(), group_scores.options().dtype(at::kBool))
                        .scatter_(1, largest(group_scores, options.topk_group), true);
  return grouped.masked_fill(kept.logical_not().unsqueeze(2), -std::numeric_limits<double>::infinity())
      .flatten(1);
}

}  // namespace

GateOptions gate_options(const ModelConfig& config) {
  const auto& moe = config.moe;
  GateOptions options{.scoring = moe.scoring_func,
                      .method = moe.topk_method,
                      .top_k = moe.num_experts_per_tok,
                      .n_group = moe.n_group,
                      .topk_group = moe.topk_group,
                      .renormalize = moe.norm_topk_prob,
                      .scale = moe.routed_scaling_factor};
  if (config.model_type == "deepseek_v2") {
    options.renormalize = options.renormalize && options.top_k > 1;
    if (options.renormalize) options.scale = 1;
  }
  return options;
}

Routing gate(const at::Tensor& logits, const at::Tensor& bias, const GateOptions& options) {
  ensure(logits.scalar_type() == wide_type(logits.scalar_type()), "the gate computes in fp32");
  Routing routing;
  routing.scores = options.scoring == ScoringFunc::softmax ? at::softmax(logits, -1) : at::sigmoid(logits);
  auto choice = routing.scores.detach();
  if (bias.defined()) choice = choice + bias.detach();
  if (options.method != TopkMethod::greedy && options.n_group > options.topk_group) {
    choice = keep_groups(choice, options);
  }
  routing.experts = largest(choice, options.top_k);
  routing.weights = routing.scores.gather(1, routing.experts);
  if (options.renormalize) routing.weights = routing.weights / (routing.weights.sum(-1, true) + 1e-20);
  if (options.scale != 1) routing.weights = routing.weights * options.scale;
  return routing;
}

}  // namespace sinew
