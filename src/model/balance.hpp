// Keeping the experts evenly used: auxiliary losses, the loss-free bias, and the statistics of load.
// DeepSeek-V2 section 2.2.3 (eq 23-31), DeepSeek-V3 section 2.1.2, ST-MoE (Zoph et al. 2022) eq 5.
#pragma once

#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

#include "model/forward.hpp"
#include "model/language_model.hpp"
#include "model/partition.hpp"

namespace sinew {

// Throws UserError when the options do not fit the model (groups that do not divide the experts, ..).
void check_balance(const BalanceOptions& options, const ModelConfig& config);

struct BalanceLosses {
  at::Tensor balance, z;  // scalars with gradients; undefined when no option asks for them
};

// What the joint loss needs of all layers, as it goes from pipeline stage to stage: [E] each, of this
// process's tokens. Undefined before the first MoE layer.
struct JointSums {
  at::Tensor counts, scores;  // scores with the gradient
  double tokens = 0;          // of whole rows
};
void add_joint(JointSums& sums, const std::vector<RouterStats>& stats);

// The balancing losses of one pass over B rows, each a mean over the rows (or tokens), so that weighting
// micro-batches by their share of the rows gives the loss of the whole batch. On several processes each
// returns its part: its own scores against the load of the whole rows (or batch). `joint`, where its loss is
// asked for and all layers have been through: sums over all of them.
BalanceLosses balance_losses(const std::vector<RouterStats>& stats, const BalanceOptions& options,
                             const ModelConfig& config, const JointSums& joint, const Partition& partition);
// Of a whole network on one process.
BalanceLosses balance_losses(const std::vector<RouterStats>& stats, const BalanceOptions& options,
                             const ModelConfig& config);

RouterLoad router_load(const RouterStats& stats);

// Adds the loads of another micro-batch or rank.
void add_loads(std::vector<RouterLoad>& sum, const std::vector<RouterLoad>& more);

// What a log line says of one layer's load.
struct LoadStatistics {
  double max_violation = 0;  // largest load over the mean load, less 1 (Wang et al. 2024, MaxVio)
  double entropy = 0;        // of the distribution of load, over ln E: 1 is even
  std::int64_t dead_experts = 0;
  double dropped_share = 0;  // of all assignments
};
LoadStatistics load_statistics(const RouterLoad& load);
// Over layers: the worst violation, the mean entropy, all dead experts, the dropped share of all.
LoadStatistics load_statistics(const std::vector<RouterLoad>& loads);

// V3's loss-free balancing at the end of a step: bias += gamma * sign(mean load - load).
// bias [E], counts [E] of the whole batch.
void update_correction_bias(const at::Tensor& bias, const at::Tensor& counts, double gamma);
// The same for every layer of `model` that has a bias.
void update_correction_biases(const LanguageModel& model, const std::vector<RouterLoad>& loads, double gamma);

}  // namespace sinew
