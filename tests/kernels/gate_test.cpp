#include "kernels/gate.hpp"

#include <gtest/gtest.h>

#include <limits>
#include <numeric>

#include "kernels/kernel_support.hpp"
#include "support/property.hpp"

namespace sinew {
namespace {

using test::random_matrix;
using test::relative_error;

std::vector<double> scores_of(const GateRule& rule, const double* logits) {
  std::vector<double> s(logits, logits + rule.experts);
  for (double& x : s) x = rule.softmax ? std::exp(x) : 1 / (1 + std::exp(-x));
  const double sum = std::accumulate(s.begin(), s.end(), 0.0);
  for (double& x : s) x /= rule.softmax ? sum : 1;
  return s;
}

// The loss sum(d_weight * weight) + sum(d_scores * scores) of one token with the choice held.
double loss(const GateRule& rule, const std::vector<double>& logits, const std::int64_t* chosen,
            const float* d_weight, const float* d_scores) {
  const auto s = scores_of(rule, logits.data());
  double sum = 1e-20, total = 0;
  for (index_t k = 0; k < rule.top_k; ++k) sum += s[chosen[k]];
  for (index_t k = 0; k < rule.top_k; ++k)
    total += d_weight[k] * s[chosen[k]] * rule.scale / (rule.renormalize ? sum : 1);
  for (index_t e = 0; e < rule.experts; ++e) total += d_scores[e] * s[e];
  return total;
}

PROPERTY(Gate, ChoosesAsToldAndItsGradientIsThatOfFiniteDifferences) {
  GateRule rule{.softmax = test::draw_bool(),
                .groups = test::draw<index_t>(1, 4),
                .group_by_two = test::draw_bool(),
                .renormalize = test::draw_bool(),
                .scale = 1.5};
  const index_t width = test::draw<index_t>(1, 9);
  rule.experts = width * rule.groups;
  rule.kept_groups = test::draw<index_t>(1, rule.groups + 1);
  rule.top_k = test::draw<index_t>(1, std::min<index_t>(11, width * rule.kept_groups + 1));
  const index_t tokens = test::draw<index_t>(1, 20);
  auto logits = random_matrix<float>(tokens * rule.experts, 1);
  if (test::draw_bool())  // many equal logits
    for (float& x : logits) x = x > 0 ? 0.5F : -0.5F;
  const auto bias = random_matrix<float>(rule.experts, 2, 0.2);
  const bool biased = test::draw_bool();
  const auto d_weight = random_matrix<float>(tokens * rule.top_k, 3),
             d_scores = random_matrix<float>(logits.size(), 4);
  for (const Isa isa : available_isas()) {
    std::vector<float> scores(logits.size()), weight(d_weight.size()), d_logits(logits.size());
    std::vector<std::int64_t> chosen(d_weight.size());
    gate_forward(isa, rule, tokens, logits.data(), biased ? bias.data() : nullptr, scores.data(),
                 chosen.data(), weight.data());
    gate_backward(isa, rule, tokens, scores.data(), chosen.data(), d_weight.data(), d_scores.data(),
                  d_logits.data());
    for (index_t t = 0; t < tokens; ++t) {
      std::vector<double> row(logits.begin() + t * rule.experts, logits.begin() + (t + 1) * rule.experts);
      const auto want = scores_of(rule, row.data());
      std::vector<std::pair<float, index_t>> order;  // by falling choice, rising index, kept groups alone
      std::vector<std::pair<float, index_t>> group;
      const auto choice = [&](index_t e) { return scores[t * rule.experts + e] + (biased ? bias[e] : 0.0F); };
      for (index_t g = 0; g < rule.groups; ++g) {
        std::vector<float> in;
        for (index_t e = g * width; e < (g + 1) * width; ++e) in.push_back(choice(e));
        std::sort(in.rbegin(), in.rend());
        group.push_back({-(in[0] + (rule.group_by_two && width > 1 ? in[1] : 0.0F)), g});
      }
      std::sort(group.begin(), group.end());
      for (index_t i = 0; i < rule.kept_groups; ++i)
        for (index_t e = group[i].second * width; e < (group[i].second + 1) * width; ++e)
          order.push_back({-choice(e), e});
      std::sort(order.begin(), order.end());
      for (index_t k = 0; k < rule.top_k; ++k) HOLDS(chosen[t * rule.top_k + k] == order[k].second);
      for (index_t e = 0; e < rule.experts; ++e) {
        HOLDS(std::abs(scores[t * rule.experts + e] - want[e]) <= 1e-6);
        constexpr double kStep = 1e-5;
        const auto at = [&](double step) {
          auto moved = row;
          moved[e] += step;
          return loss(rule, moved, chosen.data() + t * rule.top_k, d_weight.data() + t * rule.top_k,
                      d_scores.data() + t * rule.experts);
        };
        const double slope = (at(kStep) - at(-kStep)) / (2 * kStep);
        HOLDS(std::abs(d_logits[t * rule.experts + e] - slope) <= 1e-5 * (1 + std::abs(slope)));
      }
    }
  }
}

TEST(Gate, AChoiceThatIsNoNumberIsLastAndNoExpertIsChosenTwice) {
  const index_t experts = 20, tokens = 3;
  std::vector<float> bias(experts, std::numeric_limits<float>::quiet_NaN());
  bias[7] = -1, bias[18] = 2;
  const auto logits = random_matrix<float>(tokens * experts, 1);
  for (const Isa isa : available_isas())
    for (const index_t top_k : {index_t{1}, index_t{4}, index_t{8}, index_t{12}}) {
      const GateRule rule{.softmax = false, .experts = experts, .top_k = top_k};
      std::vector<float> scores(logits.size()), weight(tokens * top_k);
      std::vector<std::int64_t> chosen(weight.size()), want{18, 7, 0, 1, 2, 3, 4, 5, 6, 8, 9, 10};
      want.resize(size(top_k));
      gate_forward(isa, rule, tokens, logits.data(), bias.data(), scores.data(), chosen.data(),
                   weight.data());
      for (index_t t = 0; t < tokens; ++t)
        EXPECT_TRUE(std::equal(want.begin(), want.end(), chosen.begin() + t * top_k))
            << isa_name(isa) << ", " << top_k << " of token " << t;
    }
}

}  // namespace
}  // namespace sinew
