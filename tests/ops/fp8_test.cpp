#include "ops/fp8.hpp"

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <cmath>
#include <set>

#include "base/float_formats.hpp"
#include "ops/gate.hpp"
#include "ops/moe.hpp"
#include "ops/swiglu_network.hpp"
#include "ops/tensor.hpp"

namespace sinew {
namespace {

using at::Tensor;

// Against the format itself: the nearest of all its values, of two equally near the one with an even code.
TEST(Fp8, RoundsToTheNearestValueOfTheFormat) {
  const auto nearest = [](float x) {
    int best = 0;
    for (int code = 0; code < 0x7f; ++code) {
      const auto distance = [x](int c) {
        return std::abs(static_cast<double>(float8_e4m3_to_float(static_cast<std::uint8_t>(c))) -
                        std::abs(x));
      };
      if (distance(code) < distance(best) || (distance(code) == distance(best) && code % 2 == 0)) best = code;
    }
    return std::copysign(float8_e4m3_to_float(static_cast<std::uint8_t>(best)), x);
  };
  for (int i = -4000; i <= 4000; ++i) {
    const float x = static_cast<float>(i) * 0.125F, small = static_cast<float>(i) * 0x1p-14F;
    EXPECT_EQ(round_to_e4m3(x), nearest(x)) << x;
    EXPECT_EQ(round_to_e4m3(small), nearest(small)) << small;
  }
  EXPECT_EQ(round_to_e4m3(1e9F), 448.0F);
  EXPECT_TRUE(std::isnan(round_to_e4m3(std::nanf(""))));
}

TEST(Fp8, ScalesBelongToTilesAndBlocks) {
  at::manual_seed(1);
  const auto x = at::randn({130, 300});
  const auto tiles = fp8_tiles(x), blocks = fp8_blocks(x), turned = fp8_transposed_blocks(x);
  EXPECT_EQ(tiles.scale.sizes(), (std::vector<std::int64_t>{130, 3}));
  for (const std::int64_t r : {0, 7, 129})
    for (const std::int64_t t : {0, 1, 2}) {
      const auto part = x[r].narrow(0, t * 128, t == 2 ? 44 : 128);
      EXPECT_EQ(tiles.scale[r][t].item<float>(), part.abs().max().item<float>() / 448);
    }
  EXPECT_EQ(blocks.scale[5][1].item<float>(),
            x.narrow(0, 0, 128).narrow(1, 128, 128).abs().max().item<float>() / 448);
  EXPECT_TRUE(at::equal(blocks.scale[0], blocks.scale[127]));
  EXPECT_FALSE(at::equal(blocks.scale[127], blocks.scale[128]));
  EXPECT_TRUE(at::equal(turned.codes, blocks.codes.t()));
  EXPECT_EQ(tiles.codes.abs().max().item<float>(), 448);
  // A rounded value is within half a step of three bits of mantissa.
  EXPECT_LT(((fp8_values(tiles) - x).abs() - x.abs() / 16).max().item<double>(),
            tiles.scale.max().item<double>() * 0x1p-10 + 1e-6);
  EXPECT_TRUE(at::equal(fp8_values(fp8_tiles(at::zeros({2, 200}))), at::zeros({2, 200})));
}

TEST(Fp8, ProductsAreThoseOfTheRoundedValues) {
  at::manual_seed(2);
  const auto x = at::randn({33, 300}).requires_grad_(), w = at::randn({140, 300}).requires_grad_();
  const auto dy = at::randn({33, 140});
  const auto y = fp8_project(x, w);
  const auto value = [](const Fp8Matrix& m) { return fp8_values(m).to(at::kDouble); };
  const auto near = [](const Tensor& got, const Tensor& want) {
    EXPECT_LT((got.to(at::kDouble) - want).abs().max().item<double>(),
              1e-5 * want.abs().max().item<double>());
  };
  near(y.detach(), at::mm(value(fp8_tiles(x)), value(fp8_blocks(w)).t()));
  torch::autograd::backward({y}, {dy});
  near(x.grad(), at::mm(value(fp8_tiles(dy)), value(fp8_blocks(w))));
  near(w.grad(), at::mm(value(fp8_tiles(dy.t())), value(fp8_tiles(fp8_values(fp8_tiles(x)).t())).t()));
}

TEST(Fp8, ExpertsAndNetworksComputeInItWhileAScopeLives) {
  at::manual_seed(3);
  const auto x = at::randn({24, 64});
  ExpertWeights experts;
  for (int e = 0; e < 4; ++e) {
    experts.gate.push_back((at::randn({32, 64}) * 0.1).requires_grad_());
    experts.up.push_back((at::randn({32, 64}) * 0.1).requires_grad_());
    experts.down.push_back((at::randn({64, 32}) * 0.1).requires_grad_());
  }
  const auto chosen = at::stack({at::arange(24) % 4, (at::arange(24) + 1) % 4}, 1);
  const auto where = dispatch(chosen, {}, 4);
  const auto weights = at::full({24, 2}, 0.5);
  const auto exact = moe_experts(x, weights, where, experts, {});
  Tensor rounded;
  {
    const Fp8Products scope;
    EXPECT_TRUE(Fp8Products::active());
    rounded = moe_experts(x, weights, where, experts, {});
    EXPECT_FALSE(at::equal(project(x, experts.gate[0]), at::mm(x, experts.gate[0].t())));
  }
  EXPECT_FALSE(Fp8Products::active());
  const double error = ((rounded - exact).norm() / exact.norm()).item<double>();
  EXPECT_GT(error, 1e-3);
  EXPECT_LT(error, 0.1);
  torch::autograd::backward({rounded.sum()}, {});
  for (const auto& w : experts.down) EXPECT_GT(w.grad().norm().item<double>(), 0);
}

}  // namespace
}  // namespace sinew
