#include "model/balance.hpp"

#include <algorithm>
#include <cmath>

#include "base/error.hpp"
#include "ops/tensor.hpp"

namespace sinew {
namespace {

using at::Tensor;

// Loads of all layers as the losses want them: [R, E], a line a row with `sequence_wise`, else one for all.
// Summed over the processes that hold the rest of the rows (and, for one line, the rest of the batch).
struct Loads {
  Tensor counts, devices;  // int64; devices [R, D], or undefined
  double rows = 1;         // that a line stands for
};

void sum_over(const GroupPtr& group, const Tensor& x) {
  if (size_of(group) > 1) group->all_reduce(x);
}

std::vector<Loads> whole_loads(const std::vector<RouterStats>& stats, const BalanceOptions& options,
                               const Partition& partition) {
  const bool each = options.sequence_wise;
  const auto lines = [&](const Tensor& x) { return each ? x : x.sum(0, true); };
  std::vector<Tensor> flat;
  for (const auto& layer : stats) {
    flat.push_back(lines(layer.counts).reshape({-1}));
    if (layer.device_counts.defined()) flat.push_back(lines(layer.device_counts).reshape({-1}));
  }
  const bool cut = size_of(partition.row) > 1 || (!each && size_of(partition.batch) > 1);
  if (cut) {
    const auto all = at::cat(flat);
    sum_over(partition.row, all);
    if (!each) sum_over(partition.batch, all);
    std::int64_t at_element = 0;
    for (auto& x : flat) {
      x = all.narrow(0, at_element, x.numel());
      at_element += x.numel();
    }
  }
  std::vector<Loads> out;
  std::size_t next = 0;
  for (const auto& layer : stats) {
    const auto rows = layer.counts.size(0);
    Loads loads;
    loads.rows = each ? 1 : static_cast<double>(rows * size_of(partition.batch));
    loads.counts = flat[next++].view({-1, layer.counts.size(1)});
    if (layer.device_counts.defined()) loads.devices = flat[next++].view({-1, layer.device_counts.size(1)});
    out.push_back(loads);
  }
  return out;
}

// sum over columns, mean over lines.
Tensor weighted(const Tensor& load, const Tensor& score) { return (load * score).sum(1).mean(); }

Tensor layer_balance(const RouterStats& stats, const Loads& loads, const BalanceOptions& options,
                     const ModelConfig& config) {
  const auto type = stats.score_sum.scalar_type();
  const auto tokens = static_cast<double>(stats.tokens) * loads.rows;  // of a line
  const double even = tokens * static_cast<double>(config.moe.num_experts_per_tok) /
                      static_cast<double>(config.moe.n_routed_experts);
  const auto load = loads.counts.to(type) / even;  // [R, E]: E/(K T) * tokens that chose the expert
  // [R, E]: mean score, with the gradient. The mean over this process's rows: trainers weigh it by their
  // share.
  const auto score = options.sequence_wise ? stats.score_sum / static_cast<double>(stats.tokens)
                                           : stats.score_sum.sum(0, true) /
                                                 static_cast<double>(stats.tokens * stats.counts.size(0));
  Tensor loss = at::zeros({}, score.options());
  if (options.expert_alpha > 0) loss = loss + options.expert_alpha * weighted(load, score);
  const auto groups = options.device_groups;
  const auto group_score = score.unflatten(1, {groups, -1}).sum(2);  // [R, D]
  if (options.device_alpha > 0)
    loss = loss + options.device_alpha * weighted(load.unflatten(1, {groups, -1}).mean(2), group_score);
  if (options.communication_alpha > 0) {
    const double fair = static_cast<double>(options.device_limit) * tokens / static_cast<double>(groups);
    loss = loss + options.communication_alpha * weighted(loads.devices.to(type) / fair, group_score);
  }
  return loss;
}

// transformers' load_balancing_loss_func: E * sum_e (share of tokens) * (mean probability), both taken over
// the tokens of all layers together.
Tensor joint_balance(const JointSums& sums, const Partition& partition) {
  auto counts = sums.counts.detach();
  double tokens = sums.tokens;
  if (size_of(partition.row) > 1 || size_of(partition.batch) > 1) {
    counts = counts.clone();
    sum_over(partition.row, counts);
    sum_over(partition.batch, counts);
    tokens *= size_of(partition.batch);
  }
  return (counts * sums.scores).sum() * (static_cast<double>(counts.size(0)) / (tokens * sums.tokens));
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

void add_joint(JointSums& sums, const std::vector<RouterStats>& stats) {
  for (const auto& layer : stats) {
    add(sums.counts, layer.counts.sum(0).to(layer.score_sum.scalar_type()));
    add(sums.scores, layer.score_sum.sum(0));
    sums.tokens += static_cast<double>(layer.tokens * layer.counts.size(0));
  }
}

BalanceLosses balance_losses(const std::vector<RouterStats>& stats, const BalanceOptions& options,
                             const ModelConfig& config, const JointSums& joint, const Partition& partition) {
  BalanceLosses losses;
  const bool layered =
      options.expert_alpha > 0 || options.device_alpha > 0 || options.communication_alpha > 0;
  std::vector<Loads> loads;
  if (layered && !stats.empty()) loads = whole_loads(stats, options, partition);
  for (std::size_t i = 0; i < stats.size(); ++i) {
    const auto& layer = stats[i];
    if (layered) add(losses.balance, layer_balance(layer, loads[i], options, config));
    if (options.z_alpha > 0) {
      const auto tokens = static_cast<double>(layer.tokens * layer.counts.size(0));
      add(losses.z, layer.z_sum * (options.z_alpha / tokens));
    }
  }
  if (options.joint_alpha > 0 && joint.counts.defined())
    add(losses.balance, options.joint_alpha * joint_balance(joint, partition));
  return losses;
}

BalanceLosses balance_losses(const std::vector<RouterStats>& stats, const BalanceOptions& options,
                             const ModelConfig& config) {
  JointSums joint;
  if (options.joint_alpha > 0) add_joint(joint, stats);
  return balance_losses(stats, options, config, joint, {});
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
