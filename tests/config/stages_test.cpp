#include "config/stages.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <numeric>

#include "base/error.hpp"
#include "model/tiny_models.hpp"
#include "support/property.hpp"

namespace sinew {
namespace {

double cost_of(const LayerCosts& costs, const StagePart& part) {
  double sum = (part.embedding ? costs.embedding : 0) + (part.head ? costs.head : 0);
  for (auto l = part.first; l < part.end; ++l) sum += costs.layers[static_cast<std::size_t>(l)];
  return sum;
}

double worst(const LayerCosts& costs, const std::vector<StagePart>& parts) {
  double most = 0;
  for (const auto& part : parts) most = std::max(most, cost_of(costs, part));
  return most;
}

TEST(Stages, CostsSumToTheTrainingFlopsOfAToken) {
  for (auto config : {test::tiny_llama(), test::tiny_mixtral(), test::tiny_deepseek_v2(),
                      test::tiny_deepseek_v3(), load_model_config("deepseek-v3")}) {
    const auto costs = layer_costs(config, 128);
    const double sum =
        std::accumulate(costs.layers.begin(), costs.layers.end(), costs.embedding + costs.head);
    EXPECT_NEAR(sum / train_flops_per_token(config, 128), 1, 1e-12) << config.model_type;
  }
}

// The best of all cuts, one after another.
double best_by_trying(const ModelConfig& config, const LayerCosts& costs, std::int64_t stages) {
  double best = 1e300;
  const auto layers = config.num_hidden_layers;
  std::function<void(std::int64_t, std::int64_t, double)> go = [&](std::int64_t s, std::int64_t begin,
                                                                   double most) {
    if (s + 1 == stages) {
      if (begin == layers && s == 0) return;
      best = std::min(best, std::max(most, cost_of(costs, {begin, layers, s == 0, true})));
      return;
    }
    for (auto end = begin + 1; end <= layers; ++end)
      go(s + 1, end, std::max(most, cost_of(costs, {begin, end, s == 0, false})));
  };
  go(0, 0, 0);
  return best;
}

PROPERTY(Stages, AreTheBestCutThereIs) {
  auto config = test::tiny_deepseek_v3();
  config.num_hidden_layers = test::draw<std::int64_t>(1, 11);
  config.moe.first_k_dense_replace = test::draw<std::int64_t>(0, config.num_hidden_layers + 1);
  config.vocab_size = test::draw_of<std::int64_t>({64, 500, 5000});
  config.num_nextn_predict_layers = test::draw(0, 2);
  const auto stages = test::draw<std::int64_t>(1, config.num_hidden_layers + 1);
  const auto parts = balanced_stages(config, stages, 64);
  const auto costs = layer_costs(config, 64);
  HOLDS(std::ssize(parts) == stages);
  HOLDS(parts.front().first == 0 && parts.back().end == config.num_hidden_layers);
  for (std::size_t s = 0; s < parts.size(); ++s) {
    HOLDS(parts[s].embedding == (s == 0));
    HOLDS(parts[s].head == (s + 1 == parts.size()));
    HOLDS(parts[s].first < parts[s].end || (s > 0 && parts[s].head));
    if (s > 0) HOLDS(parts[s].first == parts[s - 1].end);
  }
  HOLDS(worst(costs, parts) <= best_by_trying(config, costs, stages) * (1 + 1e-9));
}

TEST(Stages, AHeavyHeadGetsFewLayers) {
  auto config = test::tiny_llama();
  config.num_hidden_layers = 8;
  const auto even = balanced_stages(config, 4, 32);
  EXPECT_EQ(even[0].end - even[0].first, 2);
  config.vocab_size = 4000;  // the head costs more than all of the layers
  EXPECT_EQ(balanced_stages(config, 4, 32).back(), (StagePart{8, 8, false, true}));
}

TEST(Stages, EveryTensorIsHeldAndOnlyTheEmbeddingTwice) {
  for (auto config : {test::tiny_llama(), test::tiny_mixtral(), test::tiny_deepseek_v3()}) {
    config.tie_word_embeddings = config.model_type == "llama";
    const auto parts = balanced_stages(config, 2, 32);
    for (const auto& spec : tensor_specs(config)) {
      const auto holders = std::count_if(parts.begin(), parts.end(),
                                         [&](auto& part) { return stage_holds(config, part, spec); });
      const bool twice = spec.name == "model.embed_tokens.weight" && config.model_type != "mixtral";
      EXPECT_EQ(holders, twice ? 2 : 1) << config.model_type << " " << spec.name;
    }
  }
}

TEST(Stages, MoreStagesThanLayersIsOneLineWithTheMost) {
  try {
    balanced_stages(test::tiny_llama(), 3, 32);
    FAIL();
  } catch (const UserError& error) {
    EXPECT_STREQ(
        error.what(),
        "3 pipeline stages for 2 layers: every stage needs a layer, so use at most 2 (pipeline ranks x "
        "chunks)");
  }
}

}  // namespace
}  // namespace sinew
