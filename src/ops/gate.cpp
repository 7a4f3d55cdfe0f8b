#include "ops/gate.hpp"

#include <algorithm>
#include <limits>

#include <torch/csrc/autograd/custom_function.h>

#include "base/error.hpp"
#include "kernels/gate.hpp"
#include "ops/fused.hpp"
#include "ops/op_times.hpp"
#include "ops/tensor.hpp"

namespace sinew {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

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

struct FusedGate : torch::autograd::Function<FusedGate> {
  // -> {experts, weights, scores}
  static variable_list forward(AutogradContext* ctx, const at::Tensor& logits, const OptionalTensor& bias,
                               const GateOptions& options) {
    const OpTimer timer(OpClass::gate, false);
    const auto tokens = logits.size(0);
    const auto scores = at::empty_like(logits);
    const auto experts = at::empty({tokens, options.top_k}, logits.options().dtype(at::kLong));
    const auto weights = at::empty({tokens, options.top_k}, logits.options());
    gate_forward(active_isa(), rule_of(options, logits.size(1)), tokens, logits.data_ptr<float>(),
                 data_of<float>(tensor_of(bias)), scores.data_ptr<float>(), experts.data_ptr<std::int64_t>(),
                 weights.data_ptr<float>());
    ctx->save_for_backward({scores, experts});
    ctx->mark_non_differentiable({experts});
    ctx->set_materialize_grads(false);
    save(ctx, options);
    return {experts, weights, scores};
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const OpTimer timer(OpClass::gate, true);
    const auto saved = ctx->get_saved_variables();
    const auto &scores = saved[0], &experts = saved[1];
    const auto d_logits = at::empty_like(scores);
    const auto d_weights = grads[1].defined()
                               ? grads[1].contiguous()
                               : at::zeros({experts.size(0), experts.size(1)}, scores.options());
    const auto d_scores = grads[2].defined() ? grads[2].contiguous() : at::Tensor();
    gate_backward(active_isa(), rule_of(load(ctx), scores.size(1)), scores.size(0), scores.data_ptr<float>(),
                  experts.data_ptr<std::int64_t>(), d_weights.data_ptr<float>(), data_of<float>(d_scores),
                  d_logits.data_ptr<float>());
    return {d_logits, at::Tensor(), at::Tensor()};
  }

 private:
  static GateRule rule_of(const GateOptions& o, std::int64_t experts) {
    const bool grouped = o.method != TopkMethod::greedy;
    return {.softmax = o.scoring == ScoringFunc::softmax,
            .experts = experts,
            .top_k = o.top_k,
            .groups = grouped ? o.n_group : 1,
            .kept_groups = grouped ? o.topk_group : 1,
            .group_by_two = o.method == TopkMethod::noaux_tc,
            .renormalize = o.renormalize,
            .scale = o.scale};
  }
  static void save(AutogradContext* ctx, const GateOptions& o) {
    ctx->saved_data["softmax"] = o.scoring == ScoringFunc::softmax;
    ctx->saved_data["top_k"] = o.top_k;
    ctx->saved_data["renormalize"] = o.renormalize;
    ctx->saved_data["scale"] = o.scale;
  }
  static GateOptions load(AutogradContext* ctx) {  // what the gradient depends on
    GateOptions o;
    o.scoring = ctx->saved_data["softmax"].toBool() ? ScoringFunc::softmax : ScoringFunc::sigmoid;
    o.top_k = ctx->saved_data["top_k"].toInt();
    o.renormalize = ctx->saved_data["renormalize"].toBool();
    o.scale = ctx->saved_data["scale"].toDouble();
    return o;
  }
};

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
  if (fused(logits)) {
    const auto out = FusedGate::apply(
        logits.contiguous(), optional_of(bias.defined() ? bias.to(at::kFloat).contiguous() : bias), options);
    return {out[0], out[1], out[2]};
  }
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
