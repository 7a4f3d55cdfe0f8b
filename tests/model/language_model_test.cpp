#include "model/language_model.hpp"

#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include "base/error.hpp"
#include "model/families.hpp"
#include "model/kv_cache.hpp"
#include "model/reference_model.hpp"
#include "ops/gradient_check.hpp"
#include "ops/tensor.hpp"

namespace sinew {
namespace {

using at::Tensor;
using test::max_difference;
using test::random_model;
using test::random_tokens;

std::vector<std::int64_t> ids_of(const Tensor& row) {
  return {row.data_ptr<std::int64_t>(), row.data_ptr<std::int64_t>() + row.numel()};
}

// Every balancing term on, so that what holds for the loss holds for each of them.
BalanceOptions everything(const ModelConfig& config) {
  BalanceOptions options;
  if (config.moe.n_routed_experts == 0) return options;
  options.expert_alpha = 0.3;
  options.device_alpha = 0.2;
  options.communication_alpha = 0.1;
  options.device_groups = 2;
  options.device_limit = 1;
  options.z_alpha = 0.01;
  return options;
}

class EveryFamily : public ::testing::TestWithParam<const char*> {
 protected:
  ModelConfig config_ = test::tiny_model(GetParam());
};
INSTANTIATE_TEST_SUITE_P(Models, EveryFamily, test::all_families(), test::family_name);

TEST_P(EveryFamily, LogitsEqualTheReferenceInFp64) {
  const at::NoGradGuard no_grad;
  const auto model = random_model(config_, at::kDouble);
  const test::ReferenceModel reference(*model);
  const auto tokens = random_tokens(2, 40, config_.vocab_size);  // beyond original_max_position_embeddings
  const auto logits = model->logits(tokens);
  for (std::int64_t b = 0; b < 2; ++b) {
    const auto want = reference.logits(ids_of(tokens[b]));
    for (std::size_t t = 0; t < want.size(); ++t) {
      const auto row = logits[b][static_cast<std::int64_t>(t)];
      ASSERT_LT(max_difference(row, at::tensor(want[t], at::kDouble)), 1e-9) << "row " << b << " token " << t;
    }
  }
}

// The gradient of the whole loss, every balancing term and MTP included, along a random direction.
TEST_P(EveryFamily, LossGradientsEqualDifferencesInFp64) {
  const auto model = random_model(config_, at::kDouble);
  model->set_balance(everything(config_));
  const auto tokens = random_tokens(2, 12, config_.vocab_size), targets = test::next_tokens(tokens);
  torch::autograd::backward({model->loss(tokens, targets).total}, {});
  const at::NoGradGuard no_grad;
  for (const auto& parameter : model->parameters()) {
    if (parameter.buffer) continue;
    auto weight = parameter.tensor;
    const auto generator = at::detail::createCPUGenerator(5);
    const auto direction = at::randn(weight.sizes(), generator, weight.options().requires_grad(false));
    const double want = (weight.grad() * direction).sum().item<double>(), step = 1e-6;
    weight.add_(direction, step);
    const double above = model->loss(tokens, targets).total.item<double>();
    weight.sub_(direction, 2 * step);
    const double below = model->loss(tokens, targets).total.item<double>();
    weight.add_(direction, step);
    EXPECT_NEAR((above - below) / (2 * step), want, 1e-5 * (1 + std::abs(want))) << parameter.name;
  }
}

TEST_P(EveryFamily, TwoMicroBatchesEqualOneBatch) {
  const auto model = random_model(config_, at::kDouble);
  model->set_balance(everything(config_));
  const auto tokens = random_tokens(6, 10, config_.vocab_size);
  auto targets = test::next_tokens(tokens);
  targets.narrow(0, 0, 2).narrow(1, 0, 6).fill_(-100);  // the first micro-batch has fewer targets
  const auto whole = model->loss(tokens, targets);
  torch::autograd::backward({whole.total}, {});
  const auto want = test::gradients(*model);
  const double count = (targets != -100).sum().item<double>();
  double total = 0;
  for (const auto& [first, rows] : std::vector<std::pair<int, int>>{{0, 2}, {2, 4}}) {
    const auto part = targets.narrow(0, first, rows);
    const double share = (part != -100).sum().item<double>() / count;
    const auto loss = model->loss(tokens.narrow(0, first, rows), part, {}, share, rows / 6.0);
    total += loss.total.item<double>();
    torch::autograd::backward({loss.total}, {});
  }
  EXPECT_NEAR(total, whole.total.item<double>(), 1e-10);
  for (const auto& [name, grad] : test::gradients(*model))
    EXPECT_LT(max_difference(grad, want.at(name)), 1e-10) << name;
}

TEST_P(EveryFamily, RowsDoNotSeeEachOther) {
  const at::NoGradGuard no_grad;
  const auto model = random_model(config_, at::kDouble);
  const auto tokens = random_tokens(4, 9, config_.vocab_size);
  const auto order = at::tensor({2, 0, 3, 1}, at::kLong);
  EXPECT_LT(max_difference(model->logits(tokens.index_select(0, order)),
                           model->logits(tokens).index_select(0, order)),
            1e-10);
}

TEST_P(EveryFamily, TheFutureIsNotSeen) {
  const at::NoGradGuard no_grad;
  const auto model = random_model(config_, at::kDouble);
  const auto tokens = random_tokens(1, 12, config_.vocab_size);
  auto other = tokens.clone();
  other[0][7] = (other[0][7] + 1) % config_.vocab_size;
  const auto a = model->logits(tokens), b = model->logits(other);
  EXPECT_LT(max_difference(a.narrow(1, 0, 7), b.narrow(1, 0, 7)), 1e-10);
  EXPECT_GT(max_difference(a.narrow(1, 7, 1), b.narrow(1, 7, 1)), 1e-6);
}

TEST_P(EveryFamily, DocumentsAttendLikeSeparateRows) {
  const at::NoGradGuard no_grad;
  const auto model = random_model(config_, at::kDouble);
  const auto first = random_tokens(1, 7, config_.vocab_size, 1),
             second = random_tokens(1, 5, config_.vocab_size, 2);
  const auto documents = at::tensor({0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1}, at::kInt).unsqueeze(0);
  const auto packed = model->logits(at::cat({first, second}, 1), documents);
  EXPECT_LT(max_difference(packed.narrow(1, 0, 7), model->logits(first)), 1e-10);
  EXPECT_LT(max_difference(packed.narrow(1, 7, 5), model->logits(second)), 1e-9);
}

TEST_P(EveryFamily, CacheInAnyPiecesEqualsTheWhole) {
  const auto model = random_model(config_, at::kDouble);
  const auto tokens = random_tokens(2, 30, config_.vocab_size);
  const at::NoGradGuard no_grad;
  const auto want = model->logits(tokens);
  for (const auto& pieces :
       std::vector<std::vector<std::int64_t>>{{30}, {16, 1, 1, 1, 1, 1, 9}, {1, 12, 17}, {5, 5, 10, 10}}) {
    const auto cache = model->make_cache(2, 30);
    std::int64_t at = 0;
    for (const auto piece : pieces) {
      const auto got = model->logits(tokens.narrow(1, at, piece), {}, cache.get());
      EXPECT_LT(max_difference(got, want.narrow(1, at, piece)), 1e-9);
      at += piece;
    }
    EXPECT_EQ(cache->length(), 30);
  }
}

TEST_P(EveryFamily, RecomputationChangesNoBit) {
  for (const auto dtype : {at::kFloat, at::kBFloat16}) {
    const auto model = random_model(config_, dtype);
    model->set_balance(everything(config_));
    const auto tokens = random_tokens(2, 16, config_.vocab_size), targets = test::next_tokens(tokens);
    const auto run = [&](Recompute recompute) {
      model->set_recompute(recompute);
      const auto loss = model->loss(tokens, targets);
      torch::autograd::backward({loss.total}, {});
      return std::pair(loss, test::gradients(*model));
    };
    const auto [plain, want] = run(Recompute::none);
    for (const auto recompute : {Recompute::selective, Recompute::full}) {
      const auto [loss, got] = run(recompute);
      EXPECT_TRUE(at::equal(loss.total, plain.total));
      ASSERT_EQ(loss.loads.size(), plain.loads.size());
      for (std::size_t i = 0; i < loss.loads.size(); ++i) {
        EXPECT_TRUE(at::equal(loss.loads[i].counts, plain.loads[i].counts));
        EXPECT_EQ(loss.loads[i].layer, plain.loads[i].layer);
      }
      for (const auto& [name, grad] : got) EXPECT_TRUE(at::equal(grad, want.at(name))) << name;
    }
  }
}

TEST_P(EveryFamily, ThreadsChangeNoBit) {
  const auto model = random_model(config_, at::kFloat);
  model->set_balance(everything(config_));
  const auto tokens = random_tokens(8, 60, config_.vocab_size), targets = test::next_tokens(tokens);
  const int before = at::get_num_threads();
  const auto run = [&](int threads) {
    at::set_num_threads(threads);
    const auto loss = model->loss(tokens, targets);
    torch::autograd::backward({loss.total}, {});
    return std::pair(loss.total, test::gradients(*model));
  };
  const auto [one, want] = run(1);
  const auto [three, got] = run(3);
  at::set_num_threads(before);
  EXPECT_TRUE(at::equal(one, three));
  for (const auto& [name, grad] : got) EXPECT_TRUE(at::equal(grad, want.at(name))) << name;
}

TEST_P(EveryFamily, Bf16StaysCloseToFp32) {
  const at::NoGradGuard no_grad;
  config_.initializer_range = 0.1;  // routing margins that bf16 does not cross often
  const auto tokens = random_tokens(2, 16, config_.vocab_size), targets = test::next_tokens(tokens);
  const auto narrow = std::make_unique<LanguageModel>(config_, at::kBFloat16, at::kCPU, 1);
  const auto wide = std::make_unique<LanguageModel>(config_, at::kFloat, at::kCPU, 1);
  EXPECT_EQ(narrow->logits(tokens).scalar_type(), at::kFloat);
  EXPECT_NEAR(narrow->loss(tokens, targets).cross_entropy.item<double>(),
              wide->loss(tokens, targets).cross_entropy.item<double>(), 0.05);
}

TEST(Mtp, LossEqualsTheReference) {
  const at::NoGradGuard no_grad;
  const auto model = random_model(test::tiny_deepseek_v3(), at::kDouble);
  const test::ReferenceModel reference(*model);
  const auto tokens = random_tokens(2, 10, 61);
  double sum = 0;
  for (std::int64_t b = 0; b < 2; ++b) sum += reference.mtp_loss_sum(ids_of(tokens[b]));
  BalanceOptions options;
  options.mtp_weight = 0.25;
  model->set_balance(options);
  const auto loss = model->loss(tokens, test::next_tokens(tokens));
  EXPECT_NEAR(loss.mtp.item<double>(), sum / 18, 1e-9);  // over the 2 x 9 targets of the main loss
  EXPECT_NEAR(loss.total.item<double>(), loss.cross_entropy.item<double>() + 0.25 * sum / 18, 1e-9);
  EXPECT_EQ(loss.loads.back().layer, 3);
}

TEST(Mtp, DoesNotPredictAcrossDocuments) {
  const at::NoGradGuard no_grad;
  const auto model = random_model(test::tiny_deepseek_v3(), at::kDouble);
  const auto first = random_tokens(1, 7, 61, 1), second = random_tokens(1, 7, 61, 2);
  auto targets = at::cat({test::next_tokens(first), test::next_tokens(second)}, 1);
  const auto documents = at::tensor({0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1}, at::kInt).unsqueeze(0);
  const auto packed = model->loss(at::cat({first, second}, 1), targets, documents);
  const auto rows = at::cat({first, second}, 0);
  EXPECT_NEAR(packed.mtp.item<double>(), model->loss(rows, test::next_tokens(rows)).mtp.item<double>(), 1e-9);
}

TEST(LanguageModel, WeightsAreAFunctionOfSeedAndNameAlone) {
  auto config = test::tiny_mixtral();
  const LanguageModel a(config, at::kFloat, at::kCPU, 7), b(config, at::kFloat, at::kCPU, 7),
      c(config, at::kFloat, at::kCPU, 8);
  config.num_hidden_layers = 3;
  const LanguageModel deeper(config, at::kFloat, at::kCPU, 7);
  const Random random(7, "model.layers.1.self_attn.q_proj.weight");
  bool seen = false;
  for (std::size_t i = 0; i < a.parameters().size(); ++i) {
    const auto& parameter = a.parameters()[i];
    EXPECT_TRUE(at::equal(parameter.tensor, b.parameters()[i].tensor));
    EXPECT_EQ(at::equal(parameter.tensor, c.parameters()[i].tensor), parameter.tensor.dim() == 1);
    for (const auto& other : deeper.parameters()) {
      EXPECT_TRUE(other.name != parameter.name || at::equal(other.tensor, parameter.tensor));
    }
    if (parameter.name == "model.layers.1.self_attn.q_proj.weight") {
      EXPECT_FLOAT_EQ(parameter.tensor[3][5].item<float>(),
                      static_cast<float>(0.3 * random.normal(3 * 24 + 5)));
      seen = true;
    }
  }
  EXPECT_TRUE(seen);
}

TEST(LanguageModel, ExpertsOfALayerLieInOneBlock) {
  const LanguageModel model(test::tiny_mixtral(), at::kFloat, at::kCPU, 1);
  const float* first = nullptr;
  for (const auto& parameter : model.parameters()) {
    for (int e = 0; e < 6; ++e) {
      if (parameter.name != fmt::format("model.layers.0.block_sparse_moe.experts.{}.w2.weight", e)) continue;
      if (e == 0) first = parameter.tensor.data_ptr<float>();
      EXPECT_EQ(parameter.tensor.data_ptr<float>(), first + e * parameter.tensor.numel());
      EXPECT_TRUE(parameter.tensor.is_leaf());
    }
  }
  EXPECT_NE(first, nullptr);
}

TEST(LanguageModel, BadInput) {
  LanguageModel model(test::tiny_llama(), at::kFloat, at::kCPU, 1);
  EXPECT_THROW(model.logits(at::full({1, 2}, 61, at::TensorOptions(at::kLong))), UserError);
  EXPECT_THROW(model.logits(at::full({1, 2}, -1, at::TensorOptions(at::kLong))), UserError);
  EXPECT_THROW(model.logits(at::zeros({1, 65}, at::TensorOptions(at::kLong))), UserError);
  EXPECT_THROW(model.logits(at::zeros({0, 5}, at::TensorOptions(at::kLong))), UserError);
  const auto tokens = at::zeros({1, 4}, at::TensorOptions(at::kLong));
  EXPECT_THROW(model.loss(tokens, at::full_like(tokens, 61)), UserError);
  EXPECT_THROW(model.loss(tokens, at::zeros({1, 3}, at::TensorOptions(at::kLong))), UserError);
  // No target at all: a loss of zero, not a NaN.
  EXPECT_EQ(model.loss(tokens, at::full_like(tokens, -100)).total.item<double>(), 0);
}

}  // namespace
}  // namespace sinew
