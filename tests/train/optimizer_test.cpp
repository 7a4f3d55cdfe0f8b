#include "train/optimizer.hpp"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <cmath>

#include "base/random.hpp"
#include "train/adamw.hpp"
#include "train/muon.hpp"

namespace sinew {
namespace {

at::Tensor random(const std::string& name, at::IntArrayRef shape) {
  at::Tensor t = at::empty(shape, at::kFloat);
  Random(7, name).fill_normal(t.data_ptr<float>(), 0, static_cast<std::uint64_t>(t.numel()), 0, 1);
  return t;
}

std::vector<Parameter> parameters(at::ScalarType dtype = at::kFloat) {
  std::vector<Parameter> list;
  const auto add = [&](const char* name, std::vector<std::int64_t> shape) {
    list.push_back({name, random(name, shape).to(dtype).requires_grad_(true), false});
  };
  add("model.embed_tokens.weight", {300, 70});
  add("model.layers.0.self_attn.q_proj.weight", {24, 70});
  add("model.layers.0.mlp.gate.weight", {8, 70});
  add("model.norm.weight", {70});
  list.push_back({"model.layers.0.mlp.gate.e_score_correction_bias", at::zeros({8}), true});
  return list;
}

void give_gradients(std::vector<Parameter>& list, int step, double size = 1) {
  for (auto& p : list)
    if (!p.buffer)
      p.tensor.mutable_grad() =
          (random(p.name + std::to_string(step), p.tensor.sizes()) * size).to(p.tensor.scalar_type());
}

// Adam's published formula, in double precision, with decay on the matrices only.
TEST(AdamW, FollowsTheFormula) {
  auto list = parameters();
  RunConfig::Optimizer options;
  options.weight_decay = 0.1;
  std::vector<at::Tensor> w, m, v;
  for (const auto& p : list) {
    w.push_back(p.tensor.detach().to(at::kDouble).clone());
    m.push_back(at::zeros_like(w.back()));
    v.push_back(at::zeros_like(w.back()));
  }
  Optimizer optimizer(list, options);
  for (int step = 1; step <= 5; ++step) {
    give_gradients(list, step);
    optimizer.accumulate();
    std::vector<at::Tensor> gradients;  // a step leaves zeros
    for (const auto& p : list)
      gradients.push_back(p.buffer ? at::Tensor() : p.tensor.grad().to(at::kDouble) * 0.5);
    optimizer.step(0.01, 0.5);
    for (std::size_t i = 0; i < list.size(); ++i) {
      if (list[i].buffer) continue;
      const at::Tensor& g = gradients[i];
      if (w[i].dim() > 1) w[i].mul_(1 - 0.01 * 0.1);
      m[i] = 0.9 * m[i] + 0.1 * g;
      v[i] = 0.95 * v[i] + 0.05 * g * g;
      w[i] -= 0.01 * (m[i] / (1 - std::pow(0.9, step))) / ((v[i] / (1 - std::pow(0.95, step))).sqrt() + 1e-8);
    }
    optimizer.zero_gradients();
  }
  for (std::size_t i = 0; i < list.size(); ++i)
    EXPECT_LT((w[i] - list[i].tensor.detach()).abs().max().item<double>(), 2e-6) << list[i].name;
}

TEST(AdamW, TheForeachPathAgrees) {
  auto list = parameters(at::kBFloat16), other = parameters(at::kBFloat16);
  Optimizer fused(list, {}), foreach_path(other, {});
  std::vector<TrainedTensor*> tensors;
  for (const auto& t : foreach_path.tensors()) tensors.push_back(const_cast<TrainedTensor*>(&t));
  for (int update = 1; update <= 3; ++update) {
    give_gradients(list, update);
    give_gradients(other, update);
    list[1].tensor.mutable_grad().reset();
    other[1].tensor.mutable_grad().reset();
    fused.accumulate();
    foreach_path.accumulate();
    fused.step(0.01, 0.3);
    adamw_update_by_foreach(tensors, {.lr = 0.01,
                                      .beta1 = 0.9,
                                      .beta2 = 0.95,
                                      .eps = 1e-8,
                                      .weight_decay = 0.1,
                                      .gradient_scale = 0.3,
                                      .update = update});
    fused.zero_gradients();
    foreach_path.zero_gradients();
  }
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    const auto& a = fused.tensors()[i];
    const auto& b = foreach_path.tensors()[i];
    EXPECT_TRUE(at::allclose(a.master, b.master, 1e-5, 1e-6) && at::allclose(a.second, b.second, 1e-5, 1e-8))
        << a.name;
    EXPECT_TRUE(at::equal(b.weight, b.master.to(at::kBFloat16))) << a.name;
  }
}

TEST(Optimizer, DoesNotDependOnTheNumberOfThreads) {
  std::vector<at::Tensor> first;
  double first_norm = 0;
  const int threads = at::get_num_threads();
  for (const int n : {1, 2, 5}) {
    at::set_num_threads(n);
    auto list = parameters();
    Optimizer optimizer(list, {});
    give_gradients(list, 3);
    optimizer.accumulate();
    const double norm = optimizer.gradient_norm();
    optimizer.step(0.01, 1 / norm);
    if (first.empty()) {
      first_norm = norm;
      for (const auto& p : list) first.push_back(p.tensor.detach().clone());
    }
    EXPECT_EQ(norm, first_norm);
    for (std::size_t i = 0; i < list.size(); ++i) EXPECT_TRUE(at::equal(first[i], list[i].tensor.detach()));
  }
  at::set_num_threads(threads);
}

TEST(Optimizer, NormIsThatOfAllGradientsAndSeesNonFiniteOnes) {
  auto list = parameters();
  Optimizer optimizer(list, {});
  EXPECT_EQ(optimizer.gradient_norm(), 0);
  give_gradients(list, 1);
  optimizer.accumulate();
  double total = 0;
  for (const auto& p : list)
    if (!p.buffer) total += p.tensor.grad().to(at::kDouble).square().sum().item<double>();
  EXPECT_NEAR(optimizer.gradient_norm(), std::sqrt(total), 1e-9 * std::sqrt(total));
  list[1].tensor.mutable_grad().view({-1})[37] = std::nan("");
  optimizer.accumulate();
  EXPECT_TRUE(std::isnan(optimizer.gradient_norm()));
}

// Many micro-batches in bf16 sum in fp32: 1000 gradients of 0.001 are 1, which bf16 itself would not reach.
TEST(Optimizer, Bf16GradientsAreSummedInFp32AndMastersKeepSmallSteps) {
  auto list = parameters(at::kBFloat16);
  RunConfig::Optimizer options;
  options.weight_decay = 0;
  Optimizer optimizer(list, options);
  for (int i = 0; i < 1000; ++i) {
    list[3].tensor.mutable_grad() = at::full({70}, 0.001, at::kBFloat16);
    optimizer.accumulate();
    EXPECT_EQ(list[3].tensor.grad().scalar_type(), at::kFloat);
  }
  const double one = 1000 * at::full({1}, 0.001, at::kBFloat16).item<double>();
  EXPECT_NEAR(optimizer.gradient_norm(), one * std::sqrt(70.0), 1e-3);
  const at::Tensor before = list[3].tensor.detach().clone(),
                   master_before = optimizer.tensors()[3].master.clone();
  for (int i = 0; i < 64; ++i) {  // each step is far under bf16's spacing at 1
    list[3].tensor.mutable_grad().fill_(one);
    optimizer.step(1e-4, 1);
  }
  EXPECT_GT((master_before - optimizer.tensors()[3].master).min().item<double>(), 5e-3);
  EXPECT_TRUE(at::equal(list[3].tensor.detach(), optimizer.tensors()[3].master.to(at::kBFloat16)));
  EXPECT_FALSE(at::equal(list[3].tensor.detach(), before));
}

TEST(Optimizer, AMissingGradientIsZero) {
  auto list = parameters(), zeros = parameters();
  Optimizer a(list, {}), b(zeros, {});
  for (int step = 0; step < 3; ++step) {
    give_gradients(list, step);
    give_gradients(zeros, step);
    if (step > 0) {
      list[1].tensor.mutable_grad().reset();
      zeros[1].tensor.mutable_grad().zero_();
    }
    for (Optimizer* optimizer : {&a, &b}) {
      optimizer->accumulate();
      optimizer->step(0.1, 1);
      optimizer->zero_gradients();
    }
  }
  for (std::size_t i = 0; i < list.size(); ++i)
    EXPECT_TRUE(at::equal(list[i].tensor.detach(), zeros[i].tensor.detach()));
}

TEST(Optimizer, StateGoesIntoAnotherOne) {
  for (const char* kind : {"adamw", "muon"}) {
    RunConfig::Optimizer options;
    options.kind = kind;
    auto one = parameters(at::kBFloat16), two = parameters(at::kBFloat16);
    Optimizer a(one, options), b(two, options);
    const auto run = [](Optimizer& optimizer, std::vector<Parameter>& list, int step) {
      give_gradients(list, step);
      optimizer.accumulate();
      optimizer.step(0.01, 1);
      optimizer.zero_gradients();
    };
    for (int step = 0; step < 3; ++step) run(a, one, step);
    const auto from = a.state();
    auto to = b.state();
    ASSERT_EQ(from.size(), to.size());
    for (std::size_t i = 0; i < to.size(); ++i) {
      EXPECT_EQ(from[i].name, to[i].name);
      to[i].tensor.copy_(from[i].tensor);
    }
    b.set_updates(a.updates());
    b.weights_from_masters();
    run(a, one, 9);
    run(b, two, 9);
    for (std::size_t i = 0; i < one.size(); ++i)
      EXPECT_TRUE(at::equal(one[i].tensor.detach(), two[i].tensor.detach())) << one[i].name;
  }
}

TEST(Muon, NewtonSchulzMakesSingularValuesNearOne) {
  for (const auto& shape : {std::vector<std::int64_t>{3, 20, 50}, {2, 64, 16}, {1, 32, 32}}) {
    const at::Tensor x = newton_schulz(random("ns", shape), 5);
    ASSERT_EQ(x.sizes().vec(), shape);
    const at::Tensor gram =
        shape[1] < shape[2] ? at::bmm(x, x.transpose(1, 2)) : at::bmm(x.transpose(1, 2), x);
    const at::Tensor values = gram.diagonal(0, 1, 2);  // sums of squared singular values' shares
    EXPECT_GT(values.min().item<double>(), 0.3);
    EXPECT_LT(values.max().item<double>(), 1.5);
  }
}

TEST(Muon, TakesOnlyTheMatricesOfTheNetwork) {
  auto list = parameters();
  RunConfig::Optimizer options;
  options.kind = "muon";
  options.weight_decay = 0;
  Optimizer optimizer(list, options);
  std::vector<bool> muon;
  for (const auto& t : optimizer.tensors()) muon.push_back(t.muon);
  EXPECT_EQ(muon, (std::vector<bool>{false, true, false, false}));
  give_gradients(list, 1);
  optimizer.accumulate();
  const at::Tensor before = list[1].tensor.detach().clone();
  optimizer.step(0.01, 1);
  const double rms = (list[1].tensor.detach() - before).square().mean().sqrt().item<double>();
  EXPECT_NEAR(rms, 0.01 * 0.2, 0.01 * 0.2 * 0.3);  // the RMS of an AdamW update at the same rate
  const double adam = (list[0].tensor.detach() - random("model.embed_tokens.weight", {300, 70}))
                          .square()
                          .mean()
                          .sqrt()
                          .item<double>();
  EXPECT_NEAR(adam, 0.01, 1e-3);  // AdamW's first step is the sign
}

// Batching equal shapes does not change the update.
TEST(Muon, BatchesByShape) {
  RunConfig::Optimizer options;
  options.kind = "muon";
  std::vector<Parameter> many;
  for (int i = 0; i < 5; ++i) {
    const std::string name = "model.layers.0.mlp.experts." + std::to_string(i) + ".up_proj.weight";
    many.push_back({name, random(name, {16, 40}).requires_grad_(true), false});
  }
  Optimizer together(many, options);
  give_gradients(many, 1);
  together.accumulate();
  together.step(0.1, 1);
  for (int i = 0; i < 5; ++i) {
    const std::string name = "model.layers.0.mlp.experts." + std::to_string(i) + ".up_proj.weight";
    std::vector<Parameter> alone{{name, random(name, {16, 40}).requires_grad_(true), false}};
    Optimizer single(alone, options);
    give_gradients(alone, 1);
    single.accumulate();
    single.step(0.1, 1);
    EXPECT_TRUE(at::allclose(alone[0].tensor.detach(), many[static_cast<std::size_t>(i)].tensor.detach(),
                             1e-5, 1e-6));
  }
}

}  // namespace
}  // namespace sinew
