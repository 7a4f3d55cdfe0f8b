// The reference models of others: everything their io.json tells, against ours.
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "model/balance.hpp"
#include "model/families.hpp"
#include "model/kv_cache.hpp"
#include "model/language_model.hpp"
#include "ops/tensor.hpp"
#include "support/support.hpp"

namespace sinew {
namespace {

using at::Tensor;
using Json = nlohmann::json;

Tensor tensor_of(const Json& rows) {
  const auto values = rows.get<std::vector<std::vector<std::int64_t>>>();
  std::vector<std::int64_t> flat;
  for (const auto& row : values) flat.insert(flat.end(), row.begin(), row.end());
  return at::tensor(flat, at::kLong).view({static_cast<std::int64_t>(values.size()), -1});
}

class Golden : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    SINEW_NEED_DATA();
    directory_ = test::data_dir() / "golden" / GetParam();
    io_ = Json::parse(test::slurp(directory_ / "io.json"));
    tokens_ = tensor_of(io_["input_ids"]);
    targets_ = test::next_tokens(tokens_);
    model_ = load_model(directory_, at::kFloat, at::kCPU);
    BalanceOptions none;
    none.mtp_weight = 0;
    model_->set_balance(none);
  }

  void backward(const LossOutput& loss) {
    for (const auto& parameter : model_->parameters()) parameter.tensor.mutable_grad() = Tensor();
    torch::autograd::backward({loss.total}, {});
  }

  void expect_norms(const Json& expected) {
    std::size_t checked = 0;
    double total = 0;
    for (const auto& parameter : model_->parameters()) {
      if (parameter.buffer) continue;
      ASSERT_TRUE(expected.contains(parameter.name)) << parameter.name;
      const double norm = parameter.tensor.grad().norm().item<double>(), want = expected[parameter.name];
      EXPECT_NEAR(norm, want, 1e-3 * want + 1e-9) << parameter.name;
      total += norm * norm;
      ++checked;
    }
    EXPECT_EQ(checked, expected.size());
    total_norm_ = std::sqrt(total);
  }

  // Losses before each step and after the last; `step` changes the parameters by their gradients.
  void expect_trajectory(const Json& expected, const std::function<void(std::size_t)>& step) {
    for (std::size_t i = 0; i < expected.size(); ++i) {
      const auto loss = model_->loss(tokens_, targets_);
      EXPECT_NEAR(loss.total.item<double>(), expected[i].get<double>(), 1e-3) << "step " << i;
      backward(loss);
      const at::NoGradGuard no_grad;
      step(i);
    }
  }

  std::vector<std::int64_t> greedy(bool cached) {
    const at::NoGradGuard no_grad;
    auto ids = io_["greedy"]["prompt"].get<std::vector<std::int64_t>>();
    const auto count = io_["greedy"]["generated"].size(), prompt = ids.size();
    const auto cache = cached ? model_->make_cache(1, static_cast<std::int64_t>(prompt + count)) : nullptr;
    std::size_t fed = 0;
    while (ids.size() < prompt + count) {
      const auto from = cached ? fed : 0;
      const std::vector<std::int64_t> input(ids.begin() + static_cast<std::ptrdiff_t>(from), ids.end());
      fed = ids.size();
      const auto logits = model_->logits(at::tensor(input, at::kLong).unsqueeze(0), {}, cache.get());
      ids.push_back(logits.select(1, logits.size(1) - 1).argmax(-1).item<std::int64_t>());
    }
    return {ids.begin() + static_cast<std::ptrdiff_t>(prompt), ids.end()};
  }

  test::fs::path directory_;
  Json io_;
  Tensor tokens_, targets_;
  std::unique_ptr<LanguageModel> model_;
  double total_norm_ = 0;
};

TEST_P(Golden, Logits) {
  const at::NoGradGuard no_grad;
  const auto logits = model_->logits(tokens_);
  const auto& rows = io_["logits"];
  double worst = 0;
  for (std::size_t b = 0; b < rows.size(); ++b) {
    for (std::size_t t = 0; t < rows[b].size(); ++t) {
      const auto want = rows[b][t].get<std::vector<float>>();
      const auto got = logits[static_cast<std::int64_t>(b)][static_cast<std::int64_t>(t)];
      worst = std::max(worst, (got - at::tensor(want)).abs().max().item<double>());
    }
  }
  EXPECT_LT(worst, 1e-4);
}

TEST_P(Golden, LossAndGradients) {
  const auto loss = model_->loss(tokens_, targets_);
  EXPECT_NEAR(loss.total.item<double>(), io_["loss"].get<double>(), 1e-5);
  EXPECT_NEAR(loss.cross_entropy.item<double>(), io_["loss"].get<double>(), 1e-5);
  backward(loss);
  expect_norms(io_["grad_norms"]);
  const double total = io_["grad_total_norm"];
  EXPECT_NEAR(total_norm_, total, 1e-3 * total);
  for (const auto& parameter : model_->parameters()) {
    const auto& sample = io_["grad_samples"][parameter.name];
    const auto flat = parameter.tensor.grad().reshape({-1});
    for (std::size_t i = 0; i < sample["flat_index"].size(); ++i) {
      EXPECT_NEAR(flat[sample["flat_index"][i].get<std::int64_t>()].item<double>(),
                  sample["value"][i].get<double>(), 1e-4 * flat.abs().max().item<double>())
          << parameter.name;
    }
  }
}

TEST_P(Golden, HiddenStatesAndRouting) {
  const at::NoGradGuard no_grad;
  ForwardTrace trace;
  model_->logits(tokens_, {}, nullptr, &trace);
  const auto& expected = io_["hidden_states"];
  ASSERT_EQ(trace.hidden_states.size(), expected["l2"].size());
  for (std::size_t i = 0; i < trace.hidden_states.size(); ++i) {
    const auto row = trace.hidden_states[i][0];
    EXPECT_NEAR(row.norm().item<double>(), expected["l2"][i].get<double>(), 1e-3);
    for (std::int64_t j = 0; j < 6; ++j) {
      EXPECT_NEAR(row[row.size(0) - 1][j].item<double>(), expected["last_pos_first6"][i][j].get<double>(),
                  1e-4);
    }
  }
  ASSERT_EQ(trace.routing.size(), io_["routing"].size());
  for (const auto& layer : trace.routing) {
    const auto& want = io_["routing"][std::to_string(layer.layer)];
    const auto sets = want["experts_row0"].get<std::vector<std::vector<std::int64_t>>>();
    for (std::size_t t = 0; t < sets.size(); ++t) {
      const auto at = static_cast<std::int64_t>(t);
      const auto [experts, order] = layer.experts[at].sort();
      EXPECT_TRUE(at::equal(experts, at::tensor(sets[t]))) << "layer " << layer.layer << " token " << t;
      const auto weights = at::tensor(want["weights_row0_by_ascending_expert"][t].get<std::vector<float>>());
      EXPECT_LT((layer.weights[at].index_select(0, order) - weights).abs().max().item<double>(), 1e-5);
    }
    const auto counts = at::bincount(layer.experts.view(-1), {}, model_->config().moe.n_routed_experts);
    EXPECT_TRUE(
        at::equal(counts, at::tensor(want["tokens_per_expert_both_rows"].get<std::vector<std::int64_t>>())));
  }
}

TEST_P(Golden, SgdTrajectory) {
  const double rate = io_["sgd"]["lr"];
  expect_trajectory(io_["sgd"]["losses"], [&](std::size_t) {
    for (const auto& parameter : model_->parameters()) {
      if (!parameter.buffer) Tensor(parameter.tensor).sub_(parameter.tensor.grad(), rate);
    }
  });
}

TEST_P(Golden, AdamWTrajectory) {
  const auto& options = io_["adamw"];
  const double rate = options["lr"], b1 = options["betas"][0], b2 = options["betas"][1], eps = options["eps"];
  const double decay = options["weight_decay"];
  std::map<std::string, std::pair<Tensor, Tensor>> moments;
  expect_trajectory(options["losses"], [&](std::size_t i) {
    const double c1 = 1 - std::pow(b1, i + 1), c2 = 1 - std::pow(b2, i + 1);
    for (const auto& parameter : model_->parameters()) {
      if (parameter.buffer) continue;
      auto weight = parameter.tensor;
      const auto grad = weight.grad();
      auto& [m, v] = moments[parameter.name];
      m = m.defined() ? m * b1 + grad * (1 - b1) : grad * (1 - b1);
      v = v.defined() ? v * b2 + grad.square() * (1 - b2) : grad.square() * (1 - b2);
      weight.mul_(1 - rate * decay).sub_(rate * (m / c1) / ((v / c2).sqrt() + eps));
    }
  });
}

TEST_P(Golden, GreedyDecodeWithAndWithoutCache) {
  const auto want = io_["greedy"]["generated"].get<std::vector<std::int64_t>>();
  EXPECT_EQ(greedy(false), want);
  EXPECT_EQ(greedy(true), want);
}

TEST_P(Golden, BalanceLossAndItsGradients) {
  const auto& aux = io_["aux_loss"];
  BalanceOptions options;
  if (aux.contains("coef_used_here")) {
    options.joint_alpha = aux["coef_used_here"];
    model_->set_balance(options);
    const auto loss = model_->loss(tokens_, targets_);
    EXPECT_NEAR(loss.balance.item<double>() / options.joint_alpha, aux["aux_loss_unscaled"].get<double>(),
                1e-5);
    backward(loss);
  } else {
    options.expert_alpha = aux["alpha_used_here"];
    options.sequence_wise = false;
    const auto sum = [](const Json& layers) {
      double total = 0;
      for (const auto& layer : layers) total += layer.get<double>();
      return total;
    };
    model_->set_balance(options);
    EXPECT_NEAR(model_->loss(tokens_, targets_).balance.item<double>(),
                sum(aux["per_moe_layer_aux_loss_seq_aux_false"]), 1e-5);
    options.sequence_wise = true;
    model_->set_balance(options);
    const auto loss = model_->loss(tokens_, targets_);
    EXPECT_NEAR(loss.balance.item<double>(), sum(aux["per_moe_layer_aux_loss"]), 1e-5);
    backward(loss);
  }
  expect_norms(aux["grad_norms_with_aux"]);
}

INSTANTIATE_TEST_SUITE_P(Cases, Golden, ::testing::Values("v2_lite_greedy", "mixtral"),
                         [](const auto& test) { return std::string(test.param); });

}  // namespace
}  // namespace sinew
