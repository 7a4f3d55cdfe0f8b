#include "model/balance.hpp"

#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <cmath>

#include "base/error.hpp"
#include "model/families.hpp"
#include "model/feed_forward.hpp"
#include "ops/gate_reference.hpp"
#include "ops/gradient_check.hpp"
#include "ops/tensor.hpp"

namespace sinew {
namespace {

using at::Tensor;
using test::noise;

constexpr std::int64_t B = 3, T = 5, E = 8, K = 3, D = 4;

// Random choices and scores of B rows, and what a layer would report of them.
struct Sample {
  ModelConfig config;
  Tensor experts, scores;  // [B, T, K], [B, T, E]
  RouterStats stats;

  explicit Sample(std::uint64_t seed) {
    config.moe.n_routed_experts = E;
    config.moe.num_experts_per_tok = K;
    scores = at::softmax(noise({B, T, E}, seed), -1);
    experts = noise({B, T, E}, seed + 1).argsort(-1, false).narrow(-1, 0, K).contiguous();
    stats.tokens = T;
    stats.score_sum = scores.sum(1);
    stats.counts = at::zeros({B, E}, at::TensorOptions(at::kLong));
    stats.device_counts = at::zeros({B, D}, at::TensorOptions(at::kLong));
    each([&](std::int64_t b, std::int64_t t) {
      std::vector<bool> visited(D, false);
      for (std::int64_t k = 0; k < K; ++k) {
        const auto e = expert(b, t, k);
        stats.counts[b][e] += 1;
        if (!visited[static_cast<std::size_t>(e / (E / D))]) stats.device_counts[b][e / (E / D)] += 1;
        visited[static_cast<std::size_t>(e / (E / D))] = true;
      }
    });
    stats.z_sum = at::tensor(6.0, at::kDouble);
  }
  std::int64_t expert(std::int64_t b, std::int64_t t, std::int64_t k) const {
    return experts[b][t][k].item<std::int64_t>();
  }
  static void each(const std::function<void(std::int64_t, std::int64_t)>& visit) {
    for (std::int64_t b = 0; b < B; ++b) {
      for (std::int64_t t = 0; t < T; ++t) visit(b, t);
    }
  }
};

struct Losses {
  double expert = 0, device = 0, communication = 0;
};

// DeepSeek-V2 eq 23-31 over the tokens of rows [first, first + rows), in loops.
Losses by_formula(const Sample& s, std::int64_t first, std::int64_t rows, double M) {
  const double tokens = static_cast<double>(rows * T);
  std::vector<double> f(E, 0), P(E, 0), sent(D, 0);
  for (std::int64_t b = first; b < first + rows; ++b) {
    for (std::int64_t t = 0; t < T; ++t) {
      std::vector<double> here(D, 0);
      for (std::int64_t k = 0; k < K; ++k) {
        f[s.expert(b, t, k)] += E / (K * tokens);
        here[s.expert(b, t, k) / (E / D)] = 1;
      }
      for (std::int64_t e = 0; e < E; ++e) P[e] += s.scores[b][t][e].item<double>() / tokens;
      for (std::int64_t d = 0; d < D; ++d) sent[d] += here[d] * D / (M * tokens);
    }
  }
  Losses out;
  for (std::int64_t e = 0; e < E; ++e) out.expert += f[e] * P[e];
  for (std::int64_t d = 0; d < D; ++d) {
    double mean_f = 0, sum_P = 0;
    for (std::int64_t e = d * E / D; e < (d + 1) * E / D; ++e) {
      mean_f += f[e] / (E / D);
      sum_P += P[e];
    }
    out.device += mean_f * sum_P;
    out.communication += sent[d] * sum_P;
  }
  return out;
}

double balance_of(const Sample& s, BalanceOptions options) {
  options.device_groups = D;
  options.device_limit = 2;
  return balance_losses({s.stats}, options, s.config).balance.item<double>();
}

TEST(BalanceLosses, EqualTheFormulasPerSequence) {
  const Sample s(1);
  Losses want;
  for (std::int64_t b = 0; b < B; ++b) {
    const auto row = by_formula(s, b, 1, 2);
    want.expert += row.expert / B;
    want.device += row.device / B;
    want.communication += row.communication / B;
  }
  EXPECT_NEAR(balance_of(s, {.expert_alpha = 0.5}), 0.5 * want.expert, 1e-12);
  EXPECT_NEAR(balance_of(s, {.device_alpha = 0.5}), 0.5 * want.device, 1e-12);
  EXPECT_NEAR(balance_of(s, {.communication_alpha = 0.5}), 0.5 * want.communication, 1e-12);
}

TEST(BalanceLosses, EqualTheFormulasPerBatch) {
  const Sample s(2);
  const auto want = by_formula(s, 0, B, 2);
  EXPECT_NEAR(balance_of(s, {.expert_alpha = 1, .sequence_wise = false}), want.expert, 1e-12);
  EXPECT_NEAR(balance_of(s, {.sequence_wise = false, .device_alpha = 1}), want.device, 1e-12);
  EXPECT_NEAR(balance_of(s, {.sequence_wise = false, .communication_alpha = 1}), want.communication, 1e-12);
}

TEST(BalanceLosses, AddUpOverLayersAndTermsAndAreAbsentWithoutAny) {
  const Sample a(1), b(2);
  const BalanceOptions options{.expert_alpha = 0.1, .joint_alpha = 0.2, .z_alpha = 0.5};
  const auto both = balance_losses({a.stats, b.stats}, options, a.config);
  const auto joint =
      balance_losses({a.stats, b.stats}, {.joint_alpha = 0.2}, a.config).balance.item<double>();
  EXPECT_NEAR(both.balance.item<double>(),
              balance_of(a, {.expert_alpha = 0.1}) + balance_of(b, {.expert_alpha = 0.1}) + joint, 1e-12);
  EXPECT_NEAR(both.z.item<double>(), 2 * 0.5 * 6.0 / (B * T), 1e-12);
  const auto none = balance_losses({a.stats}, {}, a.config);
  EXPECT_FALSE(none.balance.defined() || none.z.defined());
}

TEST(BalanceLosses, AnEvenLoadCostsTheLeast) {
  // Even choices with even scores: expert-level 1, device-level 1 (V2's coefficients are set against that).
  Sample s(1);
  s.stats.counts = at::full({B, E}, 15, at::TensorOptions(at::kLong));
  s.stats.tokens = 40;  // 40 * 3 choices over 8 experts: 15 each
  s.stats.score_sum = at::full({B, E}, 5.0, at::kDouble);
  EXPECT_NEAR(balance_of(s, {.expert_alpha = 1}), 1, 1e-12);
  EXPECT_NEAR(balance_of(s, {.device_alpha = 1}), 1, 1e-12);
}

TEST(RouterStats, EqualWhatTheGateChose) {
  const auto config = test::tiny_deepseek_v3();
  const ParameterStore parameters(config, at::kDouble, at::kCPU);
  initialize(parameters, config, 1);
  const at::NoGradGuard no_grad;
  const auto layer = make_feed_forward(config, parameters, 1, "model.layers.1.");
  const auto x = noise({2, 4, config.hidden_size}, 1);
  ForwardContext context;
  context.balance = {.communication_alpha = 1, .device_groups = 4, .device_limit = 2, .z_alpha = 1};
  RouterStats stats;
  layer->forward(x, context, stats);
  auto counts = at::zeros({2, 8}, at::TensorOptions(at::kLong)),
       devices = at::zeros({2, 4}, at::TensorOptions(at::kLong));
  auto score_sum = at::zeros({2, 8}, at::kDouble);
  double z = 0;
  for (std::int64_t b = 0; b < 2; ++b) {
    for (std::int64_t t = 0; t < 4; ++t) {
      const auto logits = at::mv(parameters.get("model.layers.1.mlp.gate.weight"), x[b][t]);
      const std::vector<double> values(logits.data_ptr<double>(), logits.data_ptr<double>() + 8);
      std::vector<bool> visited(4, false);
      for (const auto e : test::gate_reference(values, {}, config).experts) {
        counts[b][e] += 1;
        visited[static_cast<std::size_t>(e / 2)] = true;
      }
      for (std::int64_t d = 0; d < 4; ++d) devices[b][d] += visited[static_cast<std::size_t>(d)] ? 1 : 0;
      const auto scores = at::sigmoid(logits);
      score_sum[b] += scores / scores.sum();  // V3 eq 19
      z += std::pow(logits.exp().sum().log().item<double>(), 2);
    }
  }
  EXPECT_TRUE(at::equal(stats.counts, counts));
  EXPECT_TRUE(at::equal(stats.device_counts, devices));
  EXPECT_LT(test::max_difference(stats.score_sum, score_sum), 1e-12);
  EXPECT_NEAR(stats.z_sum.item<double>(), z, 1e-10);
  EXPECT_EQ(stats.layer, 1);
}

TEST(Balance, EveryTermReachesTheRouter) {
  auto config = test::tiny_deepseek_v2();
  const auto tokens = test::random_tokens(2, 8, config.vocab_size), targets = test::next_tokens(tokens);
  const auto router_gradient = [&](const BalanceOptions& options) {
    const auto model = test::random_model(config, at::kDouble);
    model->set_balance(options);
    torch::autograd::backward({model->loss(tokens, targets).total}, {});
    return test::gradients(*model).at("model.layers.1.mlp.gate.weight");
  };
  const auto plain = router_gradient({});
  for (const BalanceOptions& options :
       {BalanceOptions{.expert_alpha = 1}, BalanceOptions{.joint_alpha = 1},
        BalanceOptions{.device_alpha = 1, .device_groups = 4},
        BalanceOptions{.communication_alpha = 1, .device_groups = 4}, BalanceOptions{.z_alpha = 1}}) {
    EXPECT_GT(test::max_difference(router_gradient(options), plain), 1e-6);
  }
}

TEST(Capacity, KeepsTheHighestWeightsOfEachRow) {
  const Sample s(4);
  const auto weights = (noise({B * T, K}, 9) * 4).round() / 4;  // with ties
  for (const bool by_device : {false, true}) {
    BalanceOptions options{.capacity_factor = 1.0};
    options.device_groups = by_device ? D : 1;
    const auto units = by_device ? D : E;
    const auto kept = within_capacity(s.experts.view({-1, K}), weights, B, E, options).view({B, T, K});
    const auto capacity = (T * K + units - 1) / units;
    for (std::int64_t b = 0; b < B; ++b) {
      std::vector<std::vector<std::pair<double, std::int64_t>>> of(static_cast<std::size_t>(units));
      for (std::int64_t t = 0; t < T; ++t) {
        for (std::int64_t k = 0; k < K; ++k) {
          of[static_cast<std::size_t>(s.expert(b, t, k) / (E / units))].emplace_back(
              -weights[b * T + t][k].item<double>(), t * K + k);
        }
      }
      for (auto& unit : of) {
        std::sort(unit.begin(), unit.end());
        for (std::size_t i = 0; i < unit.size(); ++i) {
          EXPECT_EQ(kept[b].view(-1)[unit[i].second].item<bool>(), static_cast<std::int64_t>(i) < capacity);
        }
      }
    }
  }
}

TEST(Capacity, DropsInTrainingAloneAndIsReported) {
  auto config = test::tiny_mixtral();
  const auto model = test::random_model(config, at::kDouble);
  const auto tokens = test::random_tokens(2, 20, config.vocab_size), targets = test::next_tokens(tokens);
  const auto full = model->loss(tokens, targets);
  model->set_balance({.capacity_factor = 0.5});
  const auto dropping = model->loss(tokens, targets);
  for (const auto& load : dropping.loads) {
    EXPECT_GE(load.dropped,
              2 * 20 * 2 - 6 * 2 * 4);  // capacity: ceil(0.5 * 40 / 6) = 4 of each row and expert
    EXPECT_EQ(load.counts.sum().item<std::int64_t>(), 2 * 20 * 2);
  }
  EXPECT_NE(dropping.total.item<double>(), full.total.item<double>());
  const at::NoGradGuard no_grad;
  const auto evaluation = model->loss(tokens, targets);
  EXPECT_EQ(evaluation.total.item<double>(), full.total.item<double>());
  EXPECT_EQ(evaluation.loads[0].dropped, 0);
}

TEST(CorrectionBias, MovesAgainstTheLoad) {
  auto bias = at::tensor({0.0F, 0.5F, -0.5F, 0.0F});
  update_correction_bias(bias, at::tensor({10, 0, 5, 5}, at::kLong), 0.001);
  EXPECT_LT(test::max_difference(bias, at::tensor({-0.001, 0.501, -0.5, 0.0}, at::kDouble)), 1e-7);

  const auto model = test::random_model(test::tiny_deepseek_v3(), at::kFloat);
  const auto bias_of = [&](std::int64_t layer) {
    for (const auto& parameter : model->parameters()) {
      if (parameter.name == fmt::format("model.layers.{}.mlp.gate.e_score_correction_bias", layer))
        return parameter.tensor;
    }
    return Tensor();
  };
  const auto tokens = test::random_tokens(2, 8, 61);
  const auto before = bias_of(1).clone(), mtp_before = bias_of(3).clone();
  const auto loss = model->loss(tokens, test::next_tokens(tokens));
  update_correction_biases(*model, loss.loads, 0.25);
  const auto moved = (bias_of(1) - before) * 4;
  EXPECT_TRUE(at::equal(moved.round(),
                        at::sign(loss.loads[0].counts.sum() - loss.loads[0].counts * 8).to(at::kFloat)));
  EXPECT_FALSE(at::equal(bias_of(3), mtp_before));  // the MTP layer has a gate too
}

// Loss-free balancing alone evens out a biased gate.
TEST(CorrectionBias, EvensTheLoadOut) {
  const auto logits = noise({256, 8}, 1) + noise({8}, 2) * 2;
  const GateOptions options{
      .scoring = ScoringFunc::sigmoid, .method = TopkMethod::noaux_tc, .top_k = 2, .renormalize = true};
  auto bias = at::zeros({8}, at::kDouble);
  const auto violation = [&] {
    const auto counts = at::bincount(gate(logits, bias, options).experts.view(-1), {}, 8);
    update_correction_bias(bias, counts, 0.01);
    return load_statistics(RouterLoad{0, counts, {}, 0}).max_violation;
  };
  const double first = violation();
  for (int i = 0; i < 150; ++i) violation();
  EXPECT_GT(first, 0.8);
  EXPECT_LT(violation(), 0.2);
}

TEST(LoadStatistics, OfKnownLoads) {
  const RouterLoad even{1, at::full({4}, 5, at::TensorOptions(at::kLong)), {}, 0};
  const auto a = load_statistics(even);
  EXPECT_NEAR(a.max_violation, 0, 1e-12);
  EXPECT_NEAR(a.entropy, 1, 1e-12);
  EXPECT_EQ(a.dead_experts, 0);
  const RouterLoad skewed{2, at::tensor({0, 12, 0, 4}, at::kLong), {}, 4};
  const auto b = load_statistics(skewed);
  EXPECT_NEAR(b.max_violation, 2, 1e-12);
  EXPECT_NEAR(b.entropy, -(0.75 * std::log(0.75) + 0.25 * std::log(0.25)) / std::log(4), 1e-12);
  EXPECT_EQ(b.dead_experts, 2);
  EXPECT_NEAR(b.dropped_share, 0.25, 1e-12);
  const auto all = load_statistics(std::vector<RouterLoad>{even, skewed});
  EXPECT_NEAR(all.max_violation, 2, 1e-12);
  EXPECT_NEAR(all.entropy, (a.entropy + b.entropy) / 2, 1e-12);
  EXPECT_NEAR(all.dropped_share, 4.0 / 36, 1e-12);
  EXPECT_EQ(all.dead_experts, 2);
  EXPECT_EQ(load_statistics(std::vector<RouterLoad>{}).dropped_share, 0);
}

TEST(LoadStatistics, LoadsAddUp) {
  const RouterLoad one{1, at::tensor({1, 2}, at::kLong), at::tensor({0.5F, 0.5F}), 1};
  std::vector<RouterLoad> sum;
  add_loads(sum, {one});
  add_loads(sum, {one});
  EXPECT_TRUE(at::equal(sum[0].counts, at::tensor({2, 4}, at::kLong)));
  EXPECT_TRUE(at::equal(one.counts, at::tensor({1, 2}, at::kLong)));
  EXPECT_EQ(sum[0].dropped, 2);
}

TEST(Balance, OptionsThatDoNotFit) {
  LanguageModel model(test::tiny_mixtral(), at::kFloat, at::kCPU, 1);  // 6 experts
  EXPECT_THROW(model.set_balance({.device_groups = 4}), UserError);
  EXPECT_THROW(model.set_balance({.device_groups = 2, .device_limit = 3}), UserError);
  EXPECT_THROW(model.set_balance({.expert_alpha = -1}), UserError);
  EXPECT_NO_THROW(model.set_balance({.device_groups = 3, .device_limit = 2}));
}

}  // namespace
}  // namespace sinew
