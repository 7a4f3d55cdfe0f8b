// The gates as the papers write them, one token at a time in plain loops.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "config/model_config.hpp"

namespace sinew::test {

struct ReferenceRouting {
  std::vector<std::int64_t> experts;  // by falling choice score, the lowest index first among equals
  std::vector<double> weights;
};

// The index of the largest of `x` not yet `taken`; the first of equals.
inline std::size_t next_largest(const std::vector<double>& x, const std::vector<bool>& taken) {
  std::size_t best = x.size();
  for (std::size_t i = 0; i < x.size(); ++i) {
    if (!taken[i] && (best == x.size() || x[i] > x[best])) best = i;
  }
  return best;
}

inline std::vector<double> gate_scores(const std::vector<double>& logits, ScoringFunc scoring) {
  std::vector<double> scores;
  const double top = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const double x : logits) {
    scores.push_back(scoring == ScoringFunc::sigmoid ? 1 / (1 + std::exp(-x)) : std::exp(x - top));
    sum += scores.back();
  }
  if (scoring == ScoringFunc::softmax) {
    for (double& s : scores) s /= sum;
  }
  return scores;
}

inline ReferenceRouting gate_reference(const std::vector<double>& logits, const std::vector<double>& bias,
                                       const ModelConfig& config) {
  const auto& moe = config.moe;
  const auto scores = gate_scores(logits, moe.scoring_func);
  auto choice = scores;
  for (std::size_t e = 0; e < bias.size(); ++e) choice[e] += bias[e];

  std::vector<bool> closed(choice.size(), false);  // experts of groups that were not selected, or taken
  if (moe.topk_method != TopkMethod::greedy) {
    const auto groups = static_cast<std::size_t>(moe.n_group), size = choice.size() / groups;
    std::vector<double> group_scores;
    for (std::size_t g = 0; g < groups; ++g) {
      std::vector<double> members(choice.begin() + g * size, choice.begin() + (g + 1) * size);
      std::sort(members.rbegin(), members.rend());
      group_scores.push_back(moe.topk_method == TopkMethod::noaux_tc && size > 1 ? members[0] + members[1]
                                                                                 : members[0]);
    }
    std::fill(closed.begin(), closed.end(), true);
    std::vector<bool> open(groups, false);
    for (std::int64_t k = 0; k < moe.topk_group; ++k) {
      const auto g = next_largest(group_scores, open);
      open[g] = true;
      std::fill(closed.begin() + g * size, closed.begin() + (g + 1) * size, false);
    }
  }
  ReferenceRouting out;
  for (std::int64_t k = 0; k < moe.num_experts_per_tok; ++k) {
    const auto e = next_largest(choice, closed);
    closed[e] = true;
    out.experts.push_back(static_cast<std::int64_t>(e));
    out.weights.push_back(scores[e]);
  }
  const bool v2 = config.model_type == "deepseek_v2";
  const bool renormalize = moe.norm_topk_prob && !(v2 && moe.num_experts_per_tok == 1);
  const double sum = std::accumulate(out.weights.begin(), out.weights.end(), 0.0);
  for (double& w : out.weights) {
    if (renormalize) w /= sum;
    if (!(v2 && renormalize)) w *= moe.routed_scaling_factor;
  }
  return out;
}

}  // namespace sinew::test
