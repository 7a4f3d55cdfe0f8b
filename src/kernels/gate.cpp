#include "kernels/gate.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "base/index.hpp"
#include "base/threads.hpp"
#include "kernels/vector.hpp"
#include "kernels/workspace.hpp"

namespace sinew {
namespace {

constexpr float kNever = -std::numeric_limits<float>::infinity();

// Indices of the `count` largest, largest first; of equals the lowest index first. NaN counts as least.
template <class Index>
void largest(const float* x, index_t n, index_t count, Index* out, float* value) {
  for (index_t i = 0; i < count; ++i) {
    value[i] = kNever;
    out[i] = static_cast<Index>(i);
  }
  index_t held = 0;
  for (index_t i = 0; i < n; ++i) {
    const float v = std::isnan(x[i]) ? kNever : x[i];
    if (held == count && !(v > value[count - 1])) continue;
    index_t at = held < count ? held++ : count - 1;
    for (; at > 0 && v > value[at - 1]; --at) {
      value[at] = value[at - 1];
      out[at] = out[at - 1];
    }
    value[at] = v;
    out[at] = static_cast<Index>(i);
  }
}

constexpr index_t kAtOnce = 64;  // tokens

struct Scratch {
  float* choice;        // [kAtOnce, experts]
  float* value;         // [max(top_k, groups, 2)]
  float* group_score;   // [groups]
  std::int64_t* index;  // [max(groups, 2)]
};

Scratch take_scratch(const GateRule& rule, Workspace::Frame& frame) {
  const index_t most = std::max({rule.top_k, rule.groups, index_t{2}});
  return {frame.take<float>(size(kAtOnce * rule.experts)), frame.take<float>(size(most)),
          frame.take<float>(size(rule.groups)), frame.take<std::int64_t>(size(most))};
}

void drop_groups(const GateRule& rule, const Scratch& s, float* choice) {
  const index_t width = rule.experts / rule.groups,
                best = std::min<index_t>(rule.group_by_two ? 2 : 1, width);
  for (index_t g = 0; g < rule.groups; ++g) {
    largest(choice + g * width, width, best, s.index, s.value);
    s.group_score[g] = std::accumulate(s.value, s.value + best, 0.0F);
  }
  largest(s.group_score, rule.groups, rule.kept_groups, s.index, s.value);
  for (index_t g = 0; g < rule.groups; ++g)
    if (std::find(s.index, s.index + rule.kept_groups, g) == s.index + rule.kept_groups)
      std::fill_n(choice + g * width, width, kNever);
}

// chosen [tokens, top_k] from s.choice.
void choose(const VectorKernels<float>& vector, const GateRule& rule, const Scratch& s, index_t tokens,
            std::int64_t* chosen) {
  const index_t experts = rule.experts, top_k = rule.top_k;
  if (top_k <= kMostChosen) return vector.choose(s.choice, experts, experts, tokens, top_k, chosen);
  for (index_t t = 0; t < tokens; ++t)
    largest(s.choice + t * experts, experts, top_k, chosen + t * top_k, s.value);
}

// gate_forward() of at most kAtOnce tokens.
void gate_block(const VectorKernels<float>& vector, const GateRule& rule, const Scratch& s, index_t tokens,
                const float* logits, const float* bias, float* scores, std::int64_t* chosen, float* weight) {
  const index_t experts = rule.experts, top_k = rule.top_k;
  for (index_t t = 0; t < tokens; ++t) {
    float *const score = scores + t * experts, *const choice = s.choice + t * experts;
    vector.gate_scores(logits + t * experts, experts, rule.softmax, score);
    for (index_t e = 0; e < experts; ++e) choice[e] = score[e] + (bias != nullptr ? bias[e] : 0.0F);
    if (rule.groups > rule.kept_groups) drop_groups(rule, s, choice);
  }
  choose(vector, rule, s, tokens, chosen);
  for (index_t t = 0; t < tokens; ++t) {
    const float* const score = scores + t * experts;
    const std::int64_t* const to = chosen + t * top_k;
    float sum = 0;
    for (index_t k = 0; k < top_k; ++k) sum += score[to[k]];
    const float factor = static_cast<float>(rule.scale) / (rule.renormalize ? sum + 1e-20F : 1.0F);
    for (index_t k = 0; k < top_k; ++k) weight[t * top_k + k] = score[to[k]] * factor;
  }
}

}  // namespace

void gate_forward(Isa isa, const GateRule& rule, index_t tokens, const float* logits, const float* bias,
                  float* scores, std::int64_t* chosen, float* weight) {
  const auto& vector = vector_kernels<float>(isa);
  const index_t experts = rule.experts, top_k = rule.top_k;
  parallel_for(size((tokens + kAtOnce - 1) / kAtOnce), 1, [&](std::size_t begin, std::size_t end) {
    Workspace::Frame frame(thread_workspace());
    const Scratch s = take_scratch(rule, frame);
    for (index_t t = static_cast<index_t>(begin) * kAtOnce; t < static_cast<index_t>(end) * kAtOnce;
         t += kAtOnce)
      gate_block(vector, rule, s, std::min(kAtOnce, tokens - t), logits + t * experts, bias,
                 scores + t * experts, chosen + t * top_k, weight + t * top_k);
  });
}

void gate_backward(Isa isa, const GateRule& rule, index_t tokens, const float* scores,
                   const std::int64_t* chosen, const float* d_weight, const float* d_scores,
                   float* d_logits) {
  const auto& vector = vector_kernels<float>(isa);
  const index_t experts = rule.experts;
  parallel_for(size(tokens), 64, [&](std::size_t begin, std::size_t end) {
    for (auto t = static_cast<index_t>(begin); t < static_cast<index_t>(end); ++t) {
      const float* const score = scores + t * experts;
      float* const d = d_logits + t * experts;  // first the gradient of the scores
      if (d_scores != nullptr)
        std::copy_n(d_scores + t * experts, experts, d);
      else
        std::fill_n(d, experts, 0.0F);
      float sum = 1e-20F, pull = 0;
      for (index_t k = 0; k < rule.top_k && rule.renormalize; ++k) {
        sum += score[chosen[t * rule.top_k + k]];
        pull += d_weight[t * rule.top_k + k] * score[chosen[t * rule.top_k + k]];
      }
      for (index_t k = 0; k < rule.top_k; ++k) {
        const index_t slot = t * rule.top_k + k;
        const auto scale = static_cast<float>(rule.scale);
        d[chosen[slot]] += scale * (rule.renormalize ? (d_weight[slot] - pull / sum) / sum : d_weight[slot]);
      }
      vector.gate_scores_backward(score, experts, rule.softmax, d);
    }
  });
}

}  // namespace sinew
