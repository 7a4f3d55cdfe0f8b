#include "compress/units.hpp"

#include <gtest/gtest.h>

#include "compress/calibrate.hpp"
#include "compress/collector.hpp"
#include "compress/compare.hpp"
#include "engine/random_models.hpp"
#include "engine/session.hpp"
#include "quant/convert.hpp"
#include "quant/gguf_export.hpp"

namespace sinew::compress {
namespace {

class Families : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    test::write_random_model(dir_ / "hf", test::random_config(GetParam()));
    ConvertOptions options;
    options.source = dir_ / "hf";
    options.out = dir_ / "model.gguf";
    convert_model(options);
  }
  test::TempDir dir_;
};
INSTANTIATE_TEST_SUITE_P(Compress, Families,
                         testing::Values("llama", "mixtral", "qwen3_moe", "deepseek_v2", "deepseek_v3"));

std::vector<float> logits_of(const Model& model, const std::vector<Layer>& layers, LayerRunner& runner) {
  std::vector<float> out;
  runner.embed(model.embedding);
  for (const Layer& layer : layers) runner.run(layer, nullptr, true);
  runner.logits(model.final_norm, model.head, nullptr, [&](index_t, index_t count, const float* logits) {
    out.insert(out.end(), logits, logits + count * model.config.vocab_size);
  });
  return out;
}

// Layer by layer over windows is what a session computes.
TEST_P(Families, LayersGiveTheSessionsLogits) {
  const auto model = engine::load_model(dir_ / "hf");
  const auto text = test::random_text(1, 50, 96);
  LayerRunner runner(model->config, model->rope_layout, text, 20);  // windows of 20, 20 and 10
  const auto logits = logits_of(*model, model->layers, runner);
  engine::Session session(model, {.kv = engine::KvType::f32, .cache_tokens = 64});
  for (index_t begin = 0; begin < 50; begin += 20) {
    engine::Sequence sequence = session.make_sequence();
    const auto count = std::min<index_t>(20, 50 - begin);
    const auto last = session.forward(sequence, {text.data() + begin, static_cast<std::size_t>(count)});
    for (std::size_t i = 0; i < 96; ++i)
      EXPECT_NEAR(last[i], logits[static_cast<std::size_t>(begin + count - 1) * 96 + i], 1e-3);
  }
}

// Every unit put back from the rows of the file that it names: nothing changes. So its rows, its tensor and
// the order of llama's rotated halves are right.
TEST_P(Families, UnitsAreTheFilesRows) {
  for (const char* const path : {"hf", "model.gguf"}) {
    const ModelSource source = open_model_source(dir_ / path);
    const auto model = engine::load_model(dir_ / path);
    const TensorPlaces places(source);
    std::vector<Layer> layers = model->layers;
    std::vector<std::vector<float>> held;
    std::vector<index_t> covered(source.tensors.size(), 0);
    for (std::size_t l = 0; l < layers.size(); ++l)
      for (const Unit& unit : layer_units(source, places, *model, static_cast<index_t>(l)).units) {
        auto& rows = held.emplace_back(static_cast<std::size_t>(unit.rows * unit.cols));
        source.tensors[unit.tensor].rows.read(unit.first_row, unit.rows, rows.data());
        covered[unit.tensor] += unit.rows;
        EXPECT_EQ(unit.slot(layers[l]).rows, unit.rows) << unit.name;
        EXPECT_EQ(unit.slot(layers[l]).cols, unit.cols) << unit.name;
        set_unit(unit, BlockFormat::f32, reinterpret_cast<const std::byte*>(rows.data()), layers[l]);
      }
    for (std::size_t i = 0; i < covered.size(); ++i) {
      const std::string& name = source.tensors[i].name;
      if (covered[i] > 0) {
        EXPECT_EQ(covered[i], source.tensors[i].rows.rows) << name;
      }
      const bool outside = name.starts_with("token_embd") || name.starts_with("output") ||
                           source.tensors[i].fp32 || name.starts_with("blk.3.");  // multi-token prediction
      EXPECT_EQ(covered[i] > 0, !outside) << name;
    }
    const auto text = test::random_text(2, 40, 96);
    LayerRunner runner(model->config, model->rope_layout, text, 20);
    const auto before = logits_of(*model, model->layers, runner), after = logits_of(*model, layers, runner);
    for (std::size_t i = 0; i < before.size(); ++i) ASSERT_NEAR(before[i], after[i], 1e-4) << path;
  }
}

TEST_P(Families, CountsEveryTokenWhereItIsRouted) {
  const ModelSource source = open_model_source(dir_ / "hf");
  const auto model = engine::load_model(dir_ / "hf");
  const TensorPlaces places(source);
  constexpr index_t kTokens = 150;
  LayerRunner runner(model->config, model->rope_layout, test::random_text(3, kTokens, 96), 32);
  runner.embed(model->embedding);
  for (std::size_t l = 0; l < model->layers.size(); ++l) {
    const LayerUnits units = layer_units(source, places, *model, static_cast<index_t>(l));
    Layer layer = model->layers[l];
    std::vector<std::size_t> all;
    for (std::size_t i = 0; i < units.inputs.size(); ++i) all.push_back(i);
    Collector collector(units, layer, all);
    runner.run(layer, &collector, true);
    double routed = 0;
    for (std::size_t i = 0; i < units.inputs.size(); ++i) {
      const double tokens = collector.moments()[i].tokens;
      if (units.inputs[i].part == Part::expert) {
        routed += units.inputs[i].pool == 0 ? tokens : 0;
      } else {
        EXPECT_EQ(tokens, kTokens) << units.inputs[i].name;
      }
      const Hessian& hessian = collector.hessians().at(i);
      EXPECT_EQ(hessian.tokens(), tokens);
      if (tokens == 0) continue;
      const auto direct = collector.moments()[i].averages(), diagonal = hessian.moments();
      for (std::size_t c = 0; c < direct.size(); ++c)
        EXPECT_NEAR(direct[c], diagonal[c], 1e-4 * (1 + direct[c]));
    }
    if (layer.moe) {
      EXPECT_EQ(routed, static_cast<double>(kTokens * model->config.moe.num_experts_per_tok));
    }
  }
  const Statistics statistics = gather_statistics(*model, source, places, runner);
  for (const ExpertVisits& visits : statistics.visits) {
    double sum = 0;
    for (const double tokens : visits.tokens) sum += tokens;
    EXPECT_EQ(sum, static_cast<double>(kTokens * model->config.moe.num_experts_per_tok));
  }
}

TEST(Priors, UnseenExpertsGetTheAverageOfTheirPool) {
  LayerUnits units;
  units.inputs = {{"a", 2, Part::expert, 0}, {"b", 2, Part::expert, 0}, {"c", 2, Part::shared, -1}};
  std::map<std::size_t, Hessian> hessians;
  const std::vector<float> x{1, 2};
  for (std::size_t i = 0; i < 3; ++i) hessians.emplace(i, Hessian(2));
  for (int t = 0; t < 10; ++t) hessians.at(0).add(x.data(), 2, 1);
  mix_priors(units, hessians);
  EXPECT_EQ(hessians.at(0).tokens(), 10 + kPriorTokens);
  EXPECT_EQ(hessians.at(1).tokens(), kPriorTokens);
  EXPECT_EQ(hessians.at(2).tokens(), 0);
  EXPECT_EQ(hessians.at(1).moments(), (std::vector<float>{1, 4}));
  EXPECT_EQ(hessians.at(1).sums(0)[1], static_cast<float>(2 * kPriorTokens));
}

TEST(Compare, AModelIsEqualToItself) {
  const test::TempDir dir;
  test::write_random_model(dir / "m", test::random_config("mixtral"));
  const auto model = engine::load_model(dir / "m");
  const Comparison same = compare_models(*model, *model, test::random_text(5, 100, 96), 40);
  EXPECT_EQ(same.tokens, 100);
  EXPECT_NEAR(same.kl, 0, 1e-9);
  EXPECT_EQ(same.same_top, 1);
  EXPECT_EQ(same.perplexity, same.base_perplexity);
  EXPECT_EQ(same.layer_errors, std::vector<double>(3, 0.0));
}

// KL, agreement and perplexity of rows whose numbers are known.
TEST(Compare, CountsByHand) {
  const std::vector<TokenId> text{0, 1, 1, 0};
  const float base[] = {std::log(3.F), 0, 0, 0, std::log(3.F), 0, 0, 0};
  const float other[] = {0, 0, 0, 0, 0, std::log(3.F), 0, 0};
  ComparisonSums sums(text, 2, 2);
  sums.add(0, 4, base, other);
  const Comparison out = sums.result();
  const double first = 0.75 * std::log(0.75 / 0.5) + 0.25 * std::log(0.25 / 0.5),
               third = 0.75 * std::log(0.75 / 0.25) + 0.25 * std::log(0.25 / 0.75);
  EXPECT_NEAR(out.kl, (first + third) / 4, 1e-6);
  EXPECT_EQ(out.same_top, 0.75);
  // Tokens 1 and 3 are predicted, by the rows before them.
  EXPECT_NEAR(out.base_perplexity, std::exp(-(std::log(0.25) + std::log(0.75)) / 2), 1e-6);
  EXPECT_NEAR(out.perplexity, std::exp(-(std::log(0.5) + std::log(0.25)) / 2), 1e-6);
}

}  // namespace
}  // namespace sinew::compress
