#include "ops/moe.hpp"

#include <gtest/gtest.h>

#include "ops/gradient_check.hpp"
#include "ops/tensor.hpp"
#include "support/property.hpp"

namespace sinew {
namespace {

using at::Tensor;

ExpertWeights experts_of(std::int64_t E, std::int64_t I, std::int64_t H) {
  ExpertWeights out;
  for (std::int64_t e = 0; e < E; ++e) {
    out.gate.push_back(test::noise({I, H}, 10 + 3 * e));
    out.up.push_back(test::noise({I, H}, 11 + 3 * e));
    out.down.push_back(test::noise({H, I}, 12 + 3 * e));
  }
  return out;
}

// Token by token, choice by choice.
Tensor loops(const Tensor& x, const Tensor& weights, const Tensor& experts, const Tensor& kept,
             const ExpertWeights& w) {
  auto y = at::zeros_like(x);
  for (std::int64_t n = 0; n < x.size(0); ++n) {
    for (std::int64_t k = 0; k < experts.size(1); ++k) {
      if (kept.defined() && !kept[n][k].item<bool>()) continue;
      const auto e = static_cast<std::size_t>(experts[n][k].item<std::int64_t>());
      const auto gate = at::mv(w.gate[e], x[n]), up = at::mv(w.up[e], x[n]);
      y[n] += weights[n][k] * at::mv(w.down[e], gate * at::sigmoid(gate) * up);
    }
  }
  return y;
}

// K different experts of each token; some experts may get none.
Tensor any_experts(std::int64_t tokens, std::int64_t E, std::int64_t K, std::uint64_t seed) {
  return test::noise({tokens, E}, seed).argsort(1, false).narrow(1, 0, K).contiguous();
}

TEST(Dispatch, LaysAssignmentsOutExpertByExpertInOrder) {
  const auto experts = at::tensor({2, 0, 2, 1, 0, 2}, at::kLong).view({3, 2});
  const auto where = dispatch(experts, {}, 4);
  EXPECT_EQ(where.offsets, (std::vector<std::int64_t>{0, 2, 3, 6, 6}));
  EXPECT_TRUE(at::equal(where.assignment, at::tensor({1, 4, 3, 0, 2, 5}, at::kLong)));
  EXPECT_TRUE(at::equal(where.slot.view(-1), at::tensor({3, 0, 4, 2, 1, 5}, at::kLong)));
}

TEST(Dispatch, DroppedAssignmentsHaveNoSlot) {
  const auto experts = at::tensor({1, 0, 1, 0}, at::kLong).view({2, 2});
  const auto kept = at::tensor({1, 0, 0, 1}, at::kLong).view({2, 2}).to(at::kBool);
  const auto where = dispatch(experts, kept, 2);
  EXPECT_EQ(where.offsets, (std::vector<std::int64_t>{0, 1, 2}));
  EXPECT_TRUE(at::equal(where.slot.view(-1), at::tensor({1, 2, 2, 0}, at::kLong)));
}

PROPERTY(MoeExperts, AgreesWithLoopsOnRandomShapes) {
  const auto E = test::draw<std::int64_t>(1, 7), K = test::draw<std::int64_t>(1, E + 1);
  const auto tokens = test::draw<std::int64_t>(1, 8);
  const auto seed = test::draw<std::uint64_t>(0, 1000);
  const auto weights = experts_of(E, 3, 4);
  const auto x = test::noise({tokens, 4}, seed), w = test::noise({tokens, K}, seed + 1);
  const auto experts = any_experts(tokens, E, K, seed + 2);
  const auto kept = test::draw_bool() ? test::noise({tokens, K}, seed + 3) > 0 : Tensor();
  const auto y = moe_experts(x, w, dispatch(experts, kept, E), weights);
  HOLDS(test::max_difference(y, loops(x, w, experts, kept, weights)) < 1e-11);
}

class MoeGradients : public ::testing::TestWithParam<bool> {};

TEST_P(MoeGradients, OfTokensWeightsAndExperts) {
  const std::int64_t E = 4, tokens = 5, K = 2, I = 3, H = 2;  // expert 3 gets no token
  const auto experts = any_experts(tokens, E - 1, K, 1);
  const auto kept = GetParam() ? test::noise({tokens, K}, 2) > -0.5 : Tensor();
  const auto where = dispatch(experts, kept, E);
  const auto initial = experts_of(E, I, H);
  std::vector<Tensor> inputs{test::noise({tokens, H}, 3), test::noise({tokens, K}, 4)};
  for (const auto* part : {&initial.gate, &initial.up, &initial.down})
    inputs.insert(inputs.end(), part->begin(), part->end());
  const auto f = [&](const std::vector<Tensor>& in) {
    ExpertWeights w;
    w.gate.assign(in.begin() + 2, in.begin() + 2 + E);
    w.up.assign(in.begin() + 2 + E, in.begin() + 2 + 2 * E);
    w.down.assign(in.begin() + 2 + 2 * E, in.end());
    return moe_experts(in[0], in[1], where, w);
  };
  test::expect_gradients(f, inputs);
}

INSTANTIATE_TEST_SUITE_P(Dropless, MoeGradients, ::testing::Values(false));
INSTANTIATE_TEST_SUITE_P(Dropping, MoeGradients, ::testing::Values(true));

TEST(MoeExperts, AllTokensToOneExpertAndNone) {
  const auto weights = experts_of(3, 3, 4);
  const auto x = test::noise({6, 4}, 1), w = at::ones({6, 1}, at::kDouble);
  const auto one = at::full({6, 1}, 1, at::TensorOptions(at::kLong));
  EXPECT_LT(
      test::max_difference(moe_experts(x, w, dispatch(one, {}, 3), weights), loops(x, w, one, {}, weights)),
      1e-12);
  const auto none = at::zeros({6, 1}, at::TensorOptions(at::kBool));
  EXPECT_EQ(moe_experts(x, w, dispatch(one, none, 3), weights).abs().max().item<double>(), 0);
}

}  // namespace
}  // namespace sinew
