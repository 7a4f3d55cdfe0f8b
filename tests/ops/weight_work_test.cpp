#include "ops/weight_work.hpp"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "ops/moe.hpp"
#include "ops/swiglu_network.hpp"
#include "ops/tensor.hpp"

namespace sinew {
namespace {

using at::Tensor;

struct Layers {
  Tensor x, projection, gate, up, down;
  ExpertWeights experts;
  std::vector<Tensor> weights;

  explicit Layers(at::ScalarType type) {
    at::manual_seed(5);
    const auto leaf = [&](at::IntArrayRef shape) {
      auto w = (at::randn(shape) * 0.3).to(type).requires_grad_();
      w.mutable_grad() = at::zeros(shape, at::TensorOptions(at::kFloat));
      weights.push_back(w);
      return w;
    };
    x = at::randn({2500, 24}).to(type);
    projection = leaf({24, 24});
    gate = leaf({20, 24});
    up = leaf({20, 24});
    down = leaf({24, 20});
    for (int e = 0; e < 4; ++e) {
      experts.gate.push_back(leaf({12, 24}));
      experts.up.push_back(leaf({12, 24}));
      experts.down.push_back(leaf({24, 12}));
    }
  }

  // Backward through a projection, a dense network and experts of which one gets half of the tokens and one
  // none; returns the gradient of the input.
  Tensor backward() {
    const auto input = x.clone().requires_grad_();
    const auto choice = at::where(at::arange(2500) % 2 == 0, 0, at::arange(2500) % 3).to(at::kLong);
    const auto where = dispatch(choice.unsqueeze(1), {}, 4);
    const auto h = swiglu_network(project(input, projection), gate, up, down);
    const auto y = moe_experts(h, at::full({2500, 1}, 0.7), where, experts, h);
    (y.to(at::kFloat) * at::linspace(-1, 1, 24)).sum().backward();
    return input.grad();
  }
};

class WeightWorkTest : public testing::TestWithParam<at::ScalarType> {};

TEST_P(WeightWorkTest, LeavesWeightGradientsAndMakesTheSameBitsLater) {
  Layers at_once(GetParam()), later(GetParam());
  const auto want = at_once.backward();
  WeightWork work;
  Tensor got;
  {
    const LeaveWeights scope(work);
    got = later.backward();
  }
  EXPECT_TRUE(at::equal(got, want));
  EXPECT_FALSE(work.empty());
  for (const auto& w : later.weights) EXPECT_EQ(w.grad().abs().max().item<float>(), 0);
  work.run();
  EXPECT_TRUE(work.empty());
  for (std::size_t i = 0; i < later.weights.size(); ++i) {
    EXPECT_TRUE(at::equal(later.weights[i].grad(), at_once.weights[i].grad())) << i;
  }
}

TEST(WeightWork, OutsideItsScopeNothingIsLeft) {
  WeightWork work;
  { const LeaveWeights scope(work); }
  Layers layers(at::kFloat);
  layers.backward();
  EXPECT_TRUE(work.empty());
  EXPECT_GT(layers.projection.grad().abs().max().item<float>(), 0);
}

INSTANTIATE_TEST_SUITE_P(Types, WeightWorkTest, testing::Values(at::kFloat, at::kBFloat16));

}  // namespace
}  // namespace sinew
