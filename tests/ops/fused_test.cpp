// Every operation with a fused CPU path against the same operation composed of ATen's in fp64, on random
// shapes.
#include "ops/fused.hpp"

#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include "ops/embedding.hpp"
#include "ops/gate.hpp"
#include "ops/linear_cross_entropy.hpp"
#include "ops/moe.hpp"
#include "ops/residual.hpp"
#include "ops/rms_norm.hpp"
#include "ops/rotary_attention.hpp"
#include "ops/swiglu_network.hpp"
#include "ops/tensor.hpp"
#include "support/property.hpp"

namespace sinew {
namespace {

using at::Tensor;
using Tensors = std::vector<Tensor>;
using Operation = std::function<Tensors(const Tensors&)>;

Tensor random(at::IntArrayRef shape, double scale = 1) { return at::randn(shape, at::kDouble) * scale; }

struct Result {
  Tensors outputs, gradients;
};

// Outputs, and the gradients of all inputs for random gradients of the outputs.
Result run(const Operation& operation, const Tensors& values, at::ScalarType type) {
  Tensors inputs;
  for (const auto& v : values) inputs.push_back(v.to(type).requires_grad_());
  Result r;
  r.outputs = operation(inputs);
  at::manual_seed(7);
  Tensors seeds;
  for (const auto& y : r.outputs)
    seeds.push_back(at::randn(y.sizes(), at::kDouble).to(at::kBFloat16).to(y.scalar_type()));
  r.gradients = torch::autograd::grad(r.outputs, inputs, seeds, c10::nullopt, false, /*allow_unused=*/true);
  return r;
}

double error_of(const Tensor& got, const Tensor& want) {
  if (!got.defined()) return want.norm().item<double>();
  const double size = std::sqrt(want.norm().square().item<double>() + static_cast<double>(want.numel()));
  return (got.to(at::kDouble) - want).norm().item<double>() / size;
}

void check(const std::string& name, const Operation& operation, const Tensors& exact, double bf16_bound) {
  const at::AutoGradMode with_grad(true);
  for (const auto type : {at::kFloat, at::kBFloat16}) {
    Tensors values;
    for (const auto& x : exact) values.push_back(x.to(type).to(at::kDouble));
    const auto got = run(operation, values, type);
    Result want;
    {
      const AtenPath reference;
      want = run(operation, values, at::kDouble);
    }
    const double bound = type == at::kFloat ? 2e-5 : bf16_bound;
    for (std::size_t i = 0; i < want.outputs.size(); ++i) {
      const double error = error_of(got.outputs[i], want.outputs[i]);
      test::case_log() << name << ' ' << type << " output " << i << " error " << error << '\n';
      HOLDS(error <= bound);
    }
    for (std::size_t i = 0; i < want.gradients.size(); ++i) {
      if (!want.gradients[i].defined()) continue;
      const double error = error_of(got.gradients[i], want.gradients[i]);
      test::case_log() << name << ' ' << type << " gradient " << i << " error " << error << '\n';
      HOLDS(error <= bound);
    }
  }
}

std::int64_t between(std::int64_t low, std::int64_t high) { return test::draw<std::int64_t>(low, high + 1); }

PROPERTY(Fused, Projections) {
  const auto n = between(1, 40), in = between(1, 70), out = between(1, 70);
  check(
      "project", [](const Tensors& x) { return Tensors{project(x[0], x[1], x[2])}; },
      {random({2, n, in}), random({out, in}, 0.2), random({out})}, 0.01);
  check(
      "project_wide", [](const Tensors& x) { return Tensors{project_wide(x[0], x[1])}; },
      {random({n, in}), random({out, in}, 0.2)}, 0.01);
}

PROPERTY(Fused, Norms) {
  const auto n = between(1, 40), width = between(1, 70), extra = between(0, 3);
  check(
      "rms_norm", [&](const Tensors& x) { return Tensors{rms_norm(x[0].narrow(-1, 0, width), x[1], 1e-5)}; },
      {random({2, n, width + extra}), random({width})}, 0.01);
  check(
      "add_rms_norm",
      [](const Tensors& x) {
        const auto y = add_rms_norm(x[0], x[1], x[2], 1e-5);
        return Tensors{y.sum, y.normed};
      },
      {random({2, n, width}), random({2, n, width}), random({width})}, 0.02);
}

PROPERTY(Fused, Residuals) {
  const auto n = between(1, 40), width = between(1, 70), uses = between(1, 4);
  check(
      "rms_norm_beside",
      [](const Tensors& x) {
        const auto y = rms_norm_beside(x[0], x[1], 1e-5);
        return Tensors{y.sum, y.normed};
      },
      {random({2, n, width}), random({width})}, 0.02);
  check(
      "add_residual", [](const Tensors& x) { return Tensors{add_residual(x[0], x[1])}; },
      {random({n, width}), random({n, width})}, 0.01);
  check(
      "fan_out",
      [&](const Tensors& x) {
        Tensors out;
        double factor = 1;
        for (const auto& y : fan_out(x[0], static_cast<std::size_t>(uses))) out.push_back(y * factor++);
        return out;
      },
      {random({n, width})}, 0.02);
}

// Of the uses of a tensor some may have no gradient, or none.
TEST(Fused, ResidualsOfUnusedBranchesHaveNoGradient) {
  const auto x = random({3, 5}).to(at::kFloat).requires_grad_();
  const auto uses = fan_out(x, 3);
  torch::autograd::backward({uses[1].sum()}, {});
  EXPECT_TRUE(at::equal(x.grad(), at::ones({3, 5})));
  x.mutable_grad().reset();
  const auto w = at::ones({5}).requires_grad_();
  torch::autograd::backward({rms_norm_beside(x, w, 1e-5).sum.sum()}, {});
  EXPECT_TRUE(at::equal(x.grad(), at::ones({3, 5})));
}

PROPERTY(Fused, Networks) {
  const auto n = between(1, 60), hidden = between(1, 50), width = between(1, 50), experts = between(1, 5);
  const auto top_k = between(1, experts);
  check(
      "swiglu_network", [](const Tensors& x) { return Tensors{swiglu_network(x[0], x[1], x[2], x[3])}; },
      {random({n, hidden}), random({width, hidden}, 0.2), random({width, hidden}, 0.2),
       random({hidden, width}, 0.2)},
      0.03);
  // A narrow choice leaves experts empty; some choices are dropped.
  const auto choice = at::randint(0, between(1, experts), {n, top_k}, at::kLong);
  const auto kept = test::draw_bool() ? at::rand({n, top_k}) > 0.3 : Tensor();
  const auto where = dispatch(choice, kept, experts);
  Tensors inputs{random({n, hidden}), random({n, hidden})};
  for (std::int64_t e = 0; e < experts; ++e) {
    inputs.push_back(random({width, hidden}, 0.2));
    inputs.push_back(random({width, hidden}, 0.2));
    inputs.push_back(random({hidden, width}, 0.2));
  }
  const auto weights = at::rand({n, top_k}, at::kDouble);
  check(
      "moe_experts",
      [&](const Tensors& x) {
        ExpertWeights w;
        for (std::int64_t e = 0; e < experts; ++e) {
          w.gate.push_back(x[2 + 3 * e]);
          w.up.push_back(x[3 + 3 * e]);
          w.down.push_back(x[4 + 3 * e]);
        }
        const auto as = x[0].scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
        return Tensors{moe_experts(x[0], weights.to(as), where, w, x[1])};
      },
      inputs, 0.03);
}

PROPERTY(Fused, Attention) {
  const auto rows = between(1, 2), tokens = between(1, 50), heads = between(1, 3), nope = between(1, 20);
  const auto rotated = 2 * between(1, 8), value = between(1, 20), groups = between(1, 2);
  const auto angles = at::rand({tokens, rotated / 2}, at::kDouble) * 6;
  const auto layout = test::draw_bool() ? RopeLayout::half : RopeLayout::interleaved;
  const Rotation rotation{at::cos(angles).to(at::kFloat), at::sin(angles).to(at::kFloat), layout};
  const auto documents = test::draw_bool() ? at::randint(0, 2, {rows, tokens}, at::kInt) : Tensor();
  check(
      "latent_attention",
      [&](const Tensors& x) {
        const auto k_pe = x[2].narrow(-1, 3, rotated);  // a part of a wider row, as the projection gives it
        return Tensors{latent_attention(x[0], x[1], k_pe, rotation, 0.3, documents)};
      },
      {random({rows, tokens, heads, nope + rotated}), random({rows, tokens, heads, nope + value}),
       random({rows, tokens, 3 + rotated})},
      0.03);
  check(
      "grouped_attention",
      [&](const Tensors& x) {
        return Tensors{grouped_attention(x[0], x[1], x[2], rotation, 0.3, documents)};
      },
      {random({rows, tokens, heads * groups, rotated}), random({rows, tokens, heads, rotated}),
       random({rows, tokens, heads, value})},
      0.03);
}

PROPERTY(Fused, Loss) {
  const auto n = between(1, 40), width = between(1, 40), vocabulary = between(2, 80);
  const auto targets = at::randint(0, vocabulary, {n}, at::kLong).masked_fill(at::rand({n}) < 0.2, -100);
  check(
      "linear_cross_entropy",
      [&](const Tensors& x) { return Tensors{linear_cross_entropy(x[0], x[1], targets)}; },
      {random({n, width}), random({vocabulary, width}, 0.3)}, 0.02);
}

TEST(Fused, GateEqualsItsComposition) {
  for (const auto method : {TopkMethod::greedy, TopkMethod::group_limited_greedy, TopkMethod::noaux_tc})
    for (const auto scoring : {ScoringFunc::softmax, ScoringFunc::sigmoid}) {
      const GateOptions options{.scoring = scoring,
                                .method = method,
                                .top_k = 3,
                                .n_group = 4,
                                .topk_group = 2,
                                .renormalize = true,
                                .scale = 2.5};
      const auto logits = at::randn({50, 16}), bias = at::randn({16}) * 0.1;
      const auto one = [&] {
        auto x = logits.clone().requires_grad_();
        const auto r = gate(x, bias, options);
        const auto g =
            torch::autograd::grad({r.weights, r.scores}, {x}, {at::ones_like(r.weights).cumsum(1), logits});
        return Tensors{r.experts, r.weights.detach(), r.scores.detach(), g[0]};
      };
      const auto got = one();
      const AtenPath reference;
      const auto want = one();
      EXPECT_TRUE(at::equal(got[0], want[0]));
      for (int i = 1; i < 4; ++i) EXPECT_TRUE(at::allclose(got[i], want[i], 1e-5, 1e-6)) << i;
    }
}

TEST(Fused, PreparedGradientsGrowInPlaceAndInFp32) {
  const auto tokens = at::randint(0, 30, {20}, at::kLong);
  auto make = [](at::IntArrayRef shape) { return at::randn(shape).to(at::kBFloat16).requires_grad_(); };
  at::manual_seed(3);
  auto w = make({12, 8}), gate_w = make({12, 8}), down = make({8, 12}), norm = make({8}),
       table = make({30, 8});
  const Tensors leaves{w, gate_w, down, norm, table};
  const auto loss = [&] {
    const auto y = rms_norm(project(embed(table, tokens), w).narrow(1, 0, 8), norm, 1e-5);
    return linear_cross_entropy(swiglu_network(y, gate_w, w, down), table, tokens);
  };
  torch::autograd::backward({loss()}, {});
  Tensors once;
  for (const auto& leaf : leaves) {
    once.push_back(leaf.grad().to(at::kFloat));
    leaf.mutable_grad() = at::zeros(leaf.sizes(), at::kFloat);
  }
  for (int i = 0; i < 2; ++i) torch::autograd::backward({loss()}, {});
  for (std::size_t i = 0; i < leaves.size(); ++i) {
    const auto& grad = leaves[i].grad();
    EXPECT_EQ(grad.scalar_type(), at::kFloat);
    EXPECT_LT((grad / 2 - once[i]).norm().item<double>(), 0.02 * once[i].norm().item<double>()) << i;
  }
}

}  // namespace
}  // namespace sinew
