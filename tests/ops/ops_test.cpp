// The small operations: norms, SwiGLU, rotation, embedding, loss, recomputation, sums.
#include <ATen/Parallel.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <cmath>

#include "base/error.hpp"
#include "ops/checkpoint.hpp"
#include "ops/device.hpp"
#include "ops/embedding.hpp"
#include "ops/gradient_check.hpp"
#include "ops/linear_cross_entropy.hpp"
#include "ops/rms_norm.hpp"
#include "ops/rope.hpp"
#include "ops/swiglu.hpp"
#include "ops/tensor.hpp"

namespace sinew {
namespace {

using at::Tensor;
using test::noise;

TEST(RmsNorm, ValueAndGradients) {
  const auto x = at::tensor({3.0, 4.0}, at::kDouble), w = at::tensor({1.0, 2.0}, at::kDouble);
  const auto y = rms_norm(x, w, 0);  // root mean square of (3, 4) is sqrt(12.5)
  EXPECT_NEAR(y[0].item<double>(), 3 / std::sqrt(12.5), 1e-12);
  EXPECT_NEAR(y[1].item<double>(), 8 / std::sqrt(12.5), 1e-12);
  const auto f = [](const std::vector<Tensor>& in) { return rms_norm(in[0], in[1], 1e-2); };
  test::expect_gradients(f, {noise({3, 2, 5}, 1), noise({5}, 2)});
}

TEST(Swiglu, ValueAndGradients) {
  const auto gate = noise({4, 3}, 1), up = noise({4, 3}, 2);
  EXPECT_LT(test::max_difference(swiglu(gate, up), gate * at::sigmoid(gate) * up), 1e-14);
  test::expect_gradients([](const std::vector<Tensor>& in) { return swiglu(in[0], in[1]); }, {gate, up});
}

TEST(Rope, RotatesPairsOfEitherLayout) {
  const auto x = noise({2, 3, 2, 6}, 1), angle = noise({3, 3}, 2);
  const auto cos = angle.cos(), sin = angle.sin();
  for (const auto layout : {RopeLayout::interleaved, RopeLayout::half}) {
    const auto y = rope(x, cos, sin, layout);
    for (std::int64_t t = 0; t < 3; ++t) {
      for (std::int64_t j = 0; j < 3; ++j) {
        const auto a = layout == RopeLayout::interleaved ? 2 * j : j;
        const auto b = layout == RopeLayout::interleaved ? 2 * j + 1 : j + 3;
        const double c = cos[t][j].item<double>(), s = sin[t][j].item<double>();
        const auto in = x[1][t][1], out = y[1][t][1];
        EXPECT_NEAR(out[a].item<double>(), in[a].item<double>() * c - in[b].item<double>() * s, 1e-12);
        EXPECT_NEAR(out[b].item<double>(), in[a].item<double>() * s + in[b].item<double>() * c, 1e-12);
      }
    }
    test::expect_gradients([&](const std::vector<Tensor>& in) { return rope(in[0], cos, sin, layout); }, {x});
  }
}

TEST(Embed, RepeatedTokensAddUpInFp32) {
  const auto tokens = at::tensor({1, 1, 0, 1}, at::kLong).view({2, 2});
  test::expect_gradients([&](const std::vector<Tensor>& in) { return embed(in[0], tokens); },
                         {noise({3, 4}, 1)});
  // In bf16 a sum of ones stops growing at 256; the fp32 sum does not.
  auto weight = at::zeros({1, 1}, at::TensorOptions(at::kBFloat16)).requires_grad_(true);
  const auto y = embed(weight, at::zeros({1000}, at::TensorOptions(at::kLong)));
  const auto grad = torch::autograd::grad({y}, {weight}, {at::ones_like(y)})[0];
  EXPECT_EQ(grad.item<double>(), 1000);
}

TEST(LinearCrossEntropy, ValueGradientsAndIgnoredTargets) {
  const auto hidden = noise({5, 3}, 1), weight = noise({7, 3}, 2);
  const auto targets = at::tensor({0, -100, 6, 3, -100}, at::kLong);
  const auto counted = at::tensor({0, 2, 3}, at::kLong);
  const auto log_p = at::log_softmax(at::mm(hidden, weight.t()), 1).index_select(0, counted);
  const auto want = -log_p.gather(1, targets.index_select(0, counted).unsqueeze(1)).sum();
  EXPECT_LT(test::max_difference(linear_cross_entropy(hidden, weight, targets), want), 1e-12);
  const auto f = [&](const std::vector<Tensor>& in) { return linear_cross_entropy(in[0], in[1], targets); };
  test::expect_gradients(f, {hidden, weight});
}

TEST(LinearCrossEntropy, ChunksChangeNothing) {
  // A vocabulary of 2^17 makes chunks of 64 tokens.
  const auto hidden = noise({70, 2}, 1), weight = noise({1 << 17, 2}, 2);
  const auto targets = at::arange(70, at::TensorOptions(at::kLong));
  const auto sum = linear_cross_entropy(hidden, weight, targets).item<double>();
  const auto parts = linear_cross_entropy(hidden.narrow(0, 0, 30), weight, targets.narrow(0, 0, 30)) +
                     linear_cross_entropy(hidden.narrow(0, 30, 40), weight, targets.narrow(0, 30, 40));
  EXPECT_NEAR(sum, parts.item<double>(), 1e-9);
}

TEST(Checkpoint, SameGradientsAndASecondRun) {
  int first = 0, second = 0;
  const auto weight = noise({3, 3}, 5).requires_grad_(true);
  const auto body = [&](const std::vector<Tensor>& in) {
    ++(recomputing() ? second : first);
    return std::vector<Tensor>{at::mm(in[0], weight).tanh(), in[1].exp()};
  };
  const auto gradients = [&](bool recompute) {
    const auto x = noise({2, 3}, 6).requires_grad_(true), z = noise({4}, 7).requires_grad_(true);
    const auto out = recompute ? checkpoint(body, {x, z}, {weight}) : body({x, z});
    return torch::autograd::grad({out[0].sum() + (out[1] * out[1]).sum()}, {x, z, weight});
  };
  const auto plain = gradients(false);
  EXPECT_EQ(second, 0);
  const auto recomputed = gradients(true);
  EXPECT_EQ(first, 2);
  EXPECT_EQ(second, 1);
  for (std::size_t i = 0; i < plain.size(); ++i) EXPECT_TRUE(at::equal(plain[i], recomputed[i]));
}

TEST(Checkpoint, UnusedOutputsAndInputsWithoutGradients) {
  const auto x = noise({3}, 1).requires_grad_(true), constant = noise({3}, 2);
  const auto out = checkpoint(
      [](const auto& in) {
        return std::vector<Tensor>{in[0] * in[1], in[1] + 1};
      },
      {x, constant});
  const auto grad = torch::autograd::grad({out[0].sum()}, {x})[0];
  EXPECT_TRUE(at::equal(grad, constant));
}

TEST(OrderedSum, DoesNotDependOnThreads) {
  const auto x = noise({1000003}, 3).to(at::kFloat);
  const int before = at::get_num_threads();
  at::set_num_threads(1);
  const auto one = ordered_sum(x).item<float>();
  at::set_num_threads(3);
  const auto three = ordered_sum(x).item<float>();
  at::set_num_threads(before);
  EXPECT_EQ(one, three);
  EXPECT_NEAR(one, x.to(at::kDouble).sum().item<double>(), 0.05);
}

TEST(Names, OfDevicesAndNumberTypes) {
  EXPECT_EQ(find_device("cpu"), at::Device(at::kCPU));
  EXPECT_EQ(find_number_type("bf16"), at::kBFloat16);
  EXPECT_THROW(find_device("tpu"), UserError);
  EXPECT_THROW(find_device("cuda:99"), UserError);
  EXPECT_THROW(find_device("cuda:x"), UserError);
  EXPECT_THROW(find_number_type("fp8"), UserError);
}

}  // namespace
}  // namespace sinew
