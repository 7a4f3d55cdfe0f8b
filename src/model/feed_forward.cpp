#include "model/feed_forward.hpp"

#include <cmath>
#include <optional>

#include "base/error.hpp"
#include "model/expert_parallel.hpp"
#include "ops/checkpoint.hpp"
#include "ops/fused.hpp"
#include "ops/gate.hpp"
#include "ops/moe.hpp"
#include "ops/residual.hpp"
#include "ops/sequence_parallel.hpp"
#include "ops/swiglu.hpp"
#include "ops/swiglu_network.hpp"
#include "ops/tensor.hpp"

namespace sinew {
namespace {

using at::Tensor;

struct SwigluNetwork {
  Tensor gate, up, down;
  SwigluNetwork(const ParameterStore& parameters, const std::string& prefix)
      : gate(parameters.get(prefix + "gate_proj.weight")),
        up(parameters.get(prefix + "up_proj.weight")),
        down(parameters.get(prefix + "down_proj.weight")) {}

  Tensor operator()(const Tensor& x, const ForwardContext& context) const {
    if (context.recompute != Recompute::selective || fused(x)) {
      const auto rows = x.reshape({-1, x.size(-1)});
      return swiglu_network(rows, gate, up, down).view(x.sizes());
    }
    const auto body = [](const std::vector<Tensor>& in) {
      return std::vector<Tensor>{project(swiglu(in[0], in[1]), in[2])};
    };
    return checkpoint(body, {project(x, gate), project(x, up), down})[0];
  }
};

class DenseFeedForward : public FeedForward {
 public:
  DenseFeedForward(const ParameterStore& parameters, const std::string& prefix)
      : network_(parameters, prefix) {}
  // Each member of the tensor group has a part of the width.
  Tensor forward(const Tensor& x, const ForwardContext& context, RouterStats& /*stats*/) const override {
    return scatter_token_sum(network_(gather_tokens(x, context.cut.tensor), context), context.cut.tensor);
  }

 private:
  SwigluNetwork network_;
};

// Ones counted by row and column: index [B, n] int64 with values under `columns` -> [B, columns] int64.
Tensor count_columns(const Tensor& index, std::int64_t columns) {
  return at::zeros({index.size(0), columns}, index.options()).scatter_add_(1, index, at::ones_like(index));
}

class MixtureOfExperts : public FeedForward {
 public:
  MixtureOfExperts(const ModelConfig& config, const ParameterStore& parameters, std::int64_t layer,
                   const std::string& prefix)
      : layer_(layer),
        options_(gate_options(config)),
        n_experts_(config.moe.n_routed_experts),
        partition_(parameters.partition()) {
    const auto names = moe_names(config);
    const auto module = prefix + std::string(names.module) + ".";
    gate_ = parameters.get(module + "gate.weight");
    correction_bias_ = parameters.find(module + "gate.e_score_correction_bias");
    const auto held = n_experts_ / size_of(partition_.expert), first = held * rank_of(partition_.expert);
    for (std::int64_t e = first; e < first + held; ++e) {
      const auto expert = fmt::format("{}experts.{}.", module, e);
      experts_.gate.push_back(parameters.get(fmt::format("{}{}.weight", expert, names.gate)));
      experts_.up.push_back(parameters.get(fmt::format("{}{}.weight", expert, names.up)));
      experts_.down.push_back(parameters.get(fmt::format("{}{}.weight", expert, names.down)));
    }
    if (config.moe.n_shared_experts > 0) shared_.emplace(parameters, module + "shared_experts.");
  }

  Tensor forward(const Tensor& x, const ForwardContext& context, RouterStats& stats) const override {
    const auto rows = x.size(0), tokens = x.size(1);
    const auto flat = x.reshape({rows * tokens, x.size(2)});
    const auto uses = fan_out(flat, shared_ ? 3 : 2);
    const auto logits = project_wide(uses[0], gate_);  // [N, E]
    const auto routing = gate(logits, correction_bias_, options_);
    if (context.trace != nullptr)
      context.trace->routing.push_back({layer_, routing.experts, routing.weights});

    Tensor kept;
    if (context.training && context.balance.capacity_factor > 0) {
      kept = within_capacity(routing.experts, routing.weights.detach(), rows, n_experts_, context.balance);
    }
    report(stats, logits, routing, rows, context);
    if (size_of(partition_.expert) > 1) {
      if (kept.defined()) stats.dropped = kept.logical_not().sum().item<std::int64_t>();
      const auto beside = [&] { return shared_ ? (*shared_)(uses[2], context) : Tensor(); };
      return experts_elsewhere(uses[1], routing.weights, routing.experts, kept, n_experts_, experts_,
                               partition_, beside)
          .view(x.sizes());
    }
    const auto where = dispatch(routing.experts, kept, n_experts_);
    stats.dropped = routing.experts.numel() - where.offsets.back();
    const auto shared = shared_ ? (*shared_)(uses[2], context) : Tensor();
    return moe_experts(uses[1], routing.weights, where, experts_, shared).view(x.sizes());
  }

 private:
  void report(RouterStats& stats, const Tensor& logits, const Routing& routing, std::int64_t rows,
              const ForwardContext& context) const {
    const auto& balance = context.balance;
    const auto own = logits.size(0) / rows;
    // The tokens that count: no padding, which stands at the end of a process's own tokens.
    const auto counted = [&](const Tensor& x) {  // [B, own, ..]
      return context.padding.defined() ? x.index_select(1, context.padding.logical_not().nonzero().squeeze(1))
                                       : x;
    };
    stats.layer = layer_;
    stats.tokens = context.cut.whole() ? own : context.row_tokens;
    const auto experts = counted(routing.experts.view({rows, own, -1}));  // [B, own, K]
    stats.counts = count_columns(experts.flatten(1), n_experts_);
    auto scores = routing.scores;
    if (options_.scoring == ScoringFunc::sigmoid) scores = scores / (scores.sum(-1, true) + 1e-20);
    stats.score_sum = counted(scores.view({rows, own, n_experts_})).sum(1);
    if (balance.communication_alpha > 0) {
      const auto device =
          at::div(experts, n_experts_ / balance.device_groups, "floor").flatten(0, 1);  // [N, K]
      const auto visited = count_columns(device, balance.device_groups).clamp_max(1);   // [N, D]
      stats.device_counts = visited.view({rows, -1, balance.device_groups}).sum(1);
    }
    if (balance.z_alpha > 0)
      stats.z_sum = ordered_sum(counted(at::logsumexp(logits, -1).square().view({rows, own})));
  }

  std::int64_t layer_;
  GateOptions options_;
  std::int64_t n_experts_;
  Partition partition_;
  Tensor gate_, correction_bias_;
  ExpertWeights experts_;
  std::optional<SwigluNetwork> shared_;
};

}  // namespace

std::unique_ptr<FeedForward> make_feed_forward(const ModelConfig& config, const ParameterStore& parameters,
                                               std::int64_t layer, const std::string& prefix) {
  if (config.ffn_kind(layer) == FfnKind::moe) {
    return std::make_unique<MixtureOfExperts>(config, parameters, layer, prefix);
  }
  return std::make_unique<DenseFeedForward>(parameters, prefix + "mlp.");
}

Tensor within_capacity(const Tensor& experts, const Tensor& weights, std::int64_t rows,
                       std::int64_t n_experts, const BalanceOptions& options) {
  const bool by_device = options.device_groups > 1;
  const auto units = by_device ? options.device_groups : n_experts;
  const auto flat = experts.reshape({rows, -1});  // [B, T*K]
  const auto unit = by_device ? at::div(flat, n_experts / units, "floor") : flat;
  const auto capacity = static_cast<std::int64_t>(
      std::ceil(options.capacity_factor * static_cast<double>(flat.size(1)) / static_cast<double>(units)));

  // Assignments of each row by unit, within it by falling weight; both sorts keep the order of equals.
  const auto by_weight = std::get<1>(at::sort(weights.reshape({rows, -1}), true, 1, true));
  const auto by_unit = std::get<1>(at::sort(unit.gather(1, by_weight), true, 1, false));
  const auto order = by_weight.gather(1, by_unit), sorted = unit.gather(1, order);
  const auto sizes = count_columns(unit, units);
  const auto starts = sizes.cumsum(1) - sizes;
  const auto place = at::arange(flat.size(1), flat.options()).unsqueeze(0) - starts.gather(1, sorted);
  return at::zeros(flat.sizes(), flat.options().dtype(at::kBool))
      .scatter_(1, order, place < capacity)
      .view(experts.sizes());
}

}  // namespace sinew
