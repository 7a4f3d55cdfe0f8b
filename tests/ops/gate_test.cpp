#include "ops/gate.hpp"

#include <gtest/gtest.h>

#include "ops/gate_reference.hpp"
#include "ops/gradient_check.hpp"
#include "ops/tensor.hpp"
#include "support/property.hpp"

namespace sinew {
namespace {

using at::Tensor;

std::vector<double> row_of(const Tensor& x, std::int64_t row) {
  const auto values = x[row].to(at::kDouble).contiguous();
  return {values.data_ptr<double>(), values.data_ptr<double>() + values.numel()};
}

// Every token of `logits` [N, E] (fp64) against the reference.
void expect_reference(const Tensor& logits, const Tensor& bias, const ModelConfig& config) {
  const auto routing = gate(logits, bias, gate_options(config));
  const auto biases = bias.defined() ? row_of(bias.unsqueeze(0), 0) : std::vector<double>{};
  for (std::int64_t n = 0; n < logits.size(0); ++n) {
    const auto want = test::gate_reference(row_of(logits, n), biases, config);
    for (std::int64_t k = 0; k < config.moe.num_experts_per_tok; ++k) {
      HOLDS(routing.experts[n][k].item<std::int64_t>() == want.experts[k]);
      HOLDS(std::abs(routing.weights[n][k].item<double>() - want.weights[k]) < 1e-12);
    }
  }
}

struct Case {
  ModelConfig config;
  Tensor logits, bias;
};

// Random shapes; logits on a coarse grid, so that equal scores are common.
Case any_case() {
  Case out;
  auto& moe = out.config.moe;
  out.config.model_type = test::draw_of<std::string>({"deepseek_v2", "deepseek_v3", "mixtral", "qwen3_moe"});
  moe.scoring_func = test::draw_of({ScoringFunc::softmax, ScoringFunc::sigmoid});
  moe.topk_method =
      test::draw_of({TopkMethod::greedy, TopkMethod::group_limited_greedy, TopkMethod::noaux_tc});
  moe.norm_topk_prob = test::draw_bool();
  moe.routed_scaling_factor = test::draw_of({1.0, 2.5, 16.0});
  moe.n_group = test::draw<std::int64_t>(1, 6);
  moe.topk_group = test::draw<std::int64_t>(1, moe.n_group + 1);
  const auto size = test::draw<std::int64_t>(1, 8);
  moe.n_routed_experts = moe.n_group * size;
  moe.num_experts_per_tok = test::draw<std::int64_t>(1, moe.topk_group * size + 1);
  const auto tokens = test::draw<std::int64_t>(1, 9);
  const auto seed = test::draw_bits();
  out.logits = (test::noise({tokens, moe.n_routed_experts}, seed, 2) * 2).round() / 2;
  if (moe.topk_method == TopkMethod::noaux_tc) {
    out.bias = (test::noise({moe.n_routed_experts}, seed + 1) * 4).round() / 8;  // often negative choices
  }
  return out;
}

PROPERTY(Gate, AgreesWithTheReferenceOnRandomShapes) {
  const auto c = any_case();
  expect_reference(c.logits, c.bias, c.config);
}

TEST(Gate, EqualScoresGoToTheLowestIndex) {
  const auto routing = gate(at::zeros({2, 8}), {}, {.top_k = 3});
  EXPECT_TRUE(at::equal(routing.experts, at::tensor({0, 1, 2, 0, 1, 2}, at::kLong).view({2, 3})));
  const GateOptions grouped{
      .method = TopkMethod::group_limited_greedy, .top_k = 3, .n_group = 4, .topk_group = 2};
  EXPECT_TRUE(at::equal(gate(at::zeros({1, 8}), {}, grouped).experts[0], at::tensor({0, 1, 2}, at::kLong)));
}

TEST(Gate, BiasChoosesButDoesNotWeigh) {
  const GateOptions options{.scoring = ScoringFunc::sigmoid, .method = TopkMethod::noaux_tc, .top_k = 1};
  const auto logits = at::tensor({2.0, 1.0, 0.0}, at::kDouble).unsqueeze(0);
  const auto routing = gate(logits, at::tensor({0.0, 0.0, 1.0}, at::kDouble), options);
  EXPECT_EQ(routing.experts.item<std::int64_t>(), 2);
  EXPECT_NEAR(routing.weights.item<double>(), 0.5, 1e-12);
}

TEST(Gate, NegativeChoicesInKeptGroupsWinOverOtherGroups) {
  // Masking the other groups with 0 instead of -infinity would choose among them here.
  const GateOptions options{.scoring = ScoringFunc::sigmoid,
                            .method = TopkMethod::noaux_tc,
                            .top_k = 2,
                            .n_group = 2,
                            .topk_group = 1};
  const auto bias = at::tensor({-2.0, -2.5, -9.0, -9.0}, at::kDouble);
  const auto routing = gate(at::zeros({1, 4}, at::kDouble), bias, options);
  EXPECT_TRUE(at::equal(routing.experts[0], at::tensor({0, 1}, at::kLong)));
}

TEST(Gate, DeepSeekV2RenormalisesOrScales) {
  ModelConfig config;
  config.model_type = "deepseek_v2";
  config.moe.num_experts_per_tok = 2;
  config.moe.routed_scaling_factor = 16;
  const auto logits = test::noise({3, 4}, 5);
  const auto sum = [&](bool norm) {
    config.moe.norm_topk_prob = norm;
    return gate(logits, {}, gate_options(config)).weights.sum(1);
  };
  EXPECT_LT(test::max_difference(sum(true), at::ones({3})), 1e-12);
  EXPECT_GT(sum(false).min().item<double>(), 1);
  config.model_type = "deepseek_v3";
  EXPECT_LT(test::max_difference(sum(true), at::full({3}, 16)), 1e-12);
}

TEST(Gate, GradientsOfWeightsAndScores) {
  for (const auto scoring : {ScoringFunc::softmax, ScoringFunc::sigmoid}) {
    for (const bool renormalize : {false, true}) {
      const GateOptions options{.scoring = scoring, .top_k = 2, .renormalize = renormalize, .scale = 1.5};
      const auto f = [&](const std::vector<Tensor>& in) {
        const auto routing = gate(in[0], {}, options);
        return at::cat(std::vector<Tensor>{routing.weights, routing.scores}, 1);
      };
      test::expect_gradients(f, {test::noise({4, 5}, 3)});
    }
  }
}

}  // namespace
}  // namespace sinew
