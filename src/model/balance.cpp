#include "model/balance.hpp"

#include <algorithm>
#include <cmath>

#include "base/error.hpp"
#include "ops/tensor.hpp"

namespace sinew {
namespace {

using at::Tensor;

// What one layer's losses are made of. With `sequence_wise` one line a row, else one line for all.
struct Means {
  Tensor load;   // [R, E]: E/(K T) * tokens that chose the expert
  Tensor score;  // [R, E]: mean score, with the gradient
  double tokens;
};

Means means(const RouterStats& stats, const BalanceOptions& options, const ModelConfig& config) {
  auto counts = stats.counts.to(stats.score_sum.scalar_type()), scores = stats.score_sum;
  auto tokens = static_cast<double>(stats.tokens);
  if (!options.sequence_wise) {
    tokens *= static_cast<double>(counts.size(0));
    counts = counts.sum(0, true);
    scores = scores.sum(0, true);
  }
  const double even = tokens * static_cast<double>(config.moe.num_experts_per_tok) /
                      static_cast<double>(config.moe.n_routed_experts);
  return {counts / even, scores / tokens, tokens};
}

// sum over columns, mean over lines.
Tensor weighted(const Tensor& load, const Tensor& score) { return (load * score).sum(1).mean(); }

Tensor layer_balance(const RouterStats& stats, const BalanceOptions& options, const ModelConfig& config) {
  const auto m = means(stats, options, config);
  Tensor loss = at::zeros({}, m.score.options());
  if (options.expert_alpha > 0) loss = loss + options.expert_alpha * weighted(m.load, m.score);
  const auto groups = options.device_groups;
  const auto group_score = m.score.unflatten(1, {groups, -1}).sum(2);  // [R, D]
  if (options.device_alpha > 0) {
    loss = loss + options.device_alpha * weighted(m.load.unflatten(1, {groups, -1}).mean(2), group_score);
  }
  if (options.communication_alpha > 0) {
    auto sent = stats.device_counts.to(m.score.scalar_type());
    if (!options.sequence_wise) sent = sent.sum(0, true);
    const double even = static_cast<double>(options.device_limit) * m.tokens / static_cast<double>(groups);
    loss = loss + options.communication_alpha * weighted(sent / even, group_score);
  }
  return loss;
}

// transformers' load_balancing_loss_func: E * sum_e (share of tokens) * (mean probability), both taken over
// the tokens of all layers together.
Tensor joint_balance(const std::vector<RouterStats>& stats) {
  Tensor counts, scores;
  double tokens = 0;
  for (const auto& layer : stats) {
    const auto c = layer.counts.sum(0).to(layer.score_sum.scalar_type()), s = layer.score_sum.sum(0);
    counts = counts.defined() ? counts + c : c;
    scores = scores.defined() ? scores + s : s;
    tokens += static_cast<double>(layer.tokens * layer.counts.size(0));
  }
  return (counts * scores).sum() * (static_cast<double>(counts.size(0)) / (tokens * tokens));
}

void add(Tensor& sum, const Tensor& term) { sum = sum.defined() ? sum + term : term; }

}  // namespace

void check_balance(const BalanceOptions& options, const ModelConfig& config) {
  const auto experts = config.moe.n_routed_experts, groups = options.device_groups;
  for (const double value :
       {options.expert_alpha, options.joint_alpha, options.device_alpha, options.communication_alpha,
        options.z_alpha, options.capacity_factor, options.mtp_weight}) {
    require(std::isfinite(value) && value >= 0, "balance: coefficients are finite and not negative, not {}",
            value);
  }
  require(groups >= 1 && options.device_limit >= 1 && options.device_limit <= groups,
          "balance: device_limit {} is not between 1 and device_groups {}", options.device_limit, groups);
  require(experts == 0 || experts % groups == 0,
          "balance: device_groups {} does not divide n_routed_experts {}", groups, experts);
}

BalanceLosses balance_losses(const std::vector<RouterStats>& stats, const BalanceOptions& options,
                             const ModelConfig& config) {
  BalanceLosses losses;
  if (stats.empty()) return losses;
  const bool layered =
      options.expert_alpha > 0 || options.device_alpha > 0 || options.communication_alpha > 0;
  for (const auto& layer : stats) {
    if (layered) add(losses.balance, layer_balance(layer, options, config));
    if (options.z_alpha > 0) {
      const auto tokens = static_cast<double>(layer.tokens * layer.counts.size(0));
      add(losses.z, layer.z_sum * (options.z_alpha / tokens));
    }
  }
  if (options.joint_alpha > 0) add(losses.balance, options.joint_alpha * joint_balance(stats));
  return losses;
}

RouterLoad router_load(const RouterStats& stats) {
  return {stats.layer, stats.counts.sum(0), stats.score_sum.detach().sum(0), stats.dropped};
}

void add_loads(std::vector<RouterLoad>& sum, const std::vector<RouterLoad>& more) {
  if (sum.empty()) {
    for (const auto& load : more) {
      sum.push_back({load.layer, load.counts.clone(), load.score_sum.clone(), load.dropped});
    }
    return;
  }
  ensure(sum.size() == more.size(), "loads of {} and {} layers", sum.size(), more.size());
  for (std::size_t i = 0; i < sum.size(); ++i) {
    sum[i].counts += more[i].counts;
    sum[i].score_sum += more[i].score_sum;
    sum[i].dropped += more[i].dropped;
  }
}

LoadStatistics load_statistics(const RouterLoad& load) {
  const auto counts = load.counts.to(at::kCPU).contiguous();
  const auto* n = counts.data_ptr<std::int64_t>();
  const auto experts = counts.numel();
  double total = 0, largest = 0;
  LoadStatistics out;
  for (std::int64_t e = 0; e < experts; ++e) {
    total += static_cast<double>(n[e]);
    largest = std::max(largest, static_cast<double>(n[e]));
    out.dead_experts += n[e] == 0 ? 1 : 0;
  }
  if (total == 0) return out;
  for (std::int64_t e = 0; e < experts; ++e) {
    const double share = static_cast<double>(n[e]) / total;
    if (share > 0) out.entropy -= share * std::log(share);
  }
  out.entropy = experts > 1 ? out.entropy / std::log(static_cast<double>(experts)) : 1;
  out.max_violation = largest * static_cast<double>(experts) / total - 1;
  out.dropped_share = static_cast<double>(load.dropped) / total;
  return out;
}

LoadStatistics load_statistics(const std::vector<RouterLoad>& loads) {
  LoadStatistics out;
  double total = 0, dropped = 0;
  for (const auto& load : loads) {
    const auto layer = load_statistics(load);
    out.max_violation = std::max(out.max_violation, layer.max_violation);
    out.entropy += layer.entropy / static_cast<double>(loads.size());
    out.dead_experts += layer.dead_experts;
    total += static_cast<double>(load.counts.sum().item<std::int64_t>());
    dropped += static_cast<double>(load.dropped);
  }
  if (total > 0) out.dropped_share = dropped / total;
  return out;
}

void update_correction_bias(const Tensor& bias, const Tensor& counts, double gamma) {
  const at::NoGradGuard no_grad;
  // mean - load, in whole numbers: E * load against the total.
  const auto under = at::sign(counts.sum() - counts * counts.numel());
  bias.add_(under.to(bias.device(), bias.scalar_type()), gamma);
}

void update_correction_biases(const LanguageModel& model, const std::vector<RouterLoad>& loads,
                              double gamma) {
  const auto module = moe_names(model.config()).module;
  for (const auto& load : loads) {
    const auto name = fmt::format("model.layers.{}.{}.gate.e_score_correction_bias", load.layer, module);
    for (const auto& parameter : model.parameters()) {
      if (parameter.name == name) update_correction_bias(parameter.tensor, load.counts, gamma);
    }
  }
}

}  // namespace sinew
