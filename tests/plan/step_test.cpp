#include "plan/step.hpp"

#include <gtest/gtest.h>

#include <numeric>

#include "base/error.hpp"
#include "support/property.hpp"

namespace sinew::plan {
namespace {

plan::Setup llama_70b() {
  plan::Setup s;
  s.network = network_from(load_model_config("llama-3.1-70b"), "llama");
  s.chip = find_accelerator("H100");
  s.count = 64;
  s.layout.tensor = 4;
  s.layout.pipeline = 4;
  s.layout.chunks = 5;
  s.layout.schedule = ScheduleKind::interleaved;
  s.layout.data = 4;
  s.layout.sequence_parallel = true;
  s.job.sequence = 8192;
  s.job.global_batch = 128;
  return s;
}

double seconds(const plan::Setup& s) { return predict_step(s, prior_constants()).seconds; }

TEST(Step, TermsAddUpToTheStep) {
  const StepPrediction p = predict_step(llama_70b(), prior_constants());
  EXPECT_NEAR(p.time.total(), p.seconds, 1e-9 * p.seconds);
  EXPECT_GT(p.mfu, 0.2);
  EXPECT_LT(p.mfu, 0.7);
}

TEST(Step, FasterPartsNeverMakeItSlower) {
  const plan::Setup base = llama_70b();
  const double before = seconds(base);
  const auto better = [&](auto change) {
    plan::Setup s = base;
    change(s);
    return seconds(s);
  };
  EXPECT_LT(better([](plan::Setup& s) { s.chip.bf16_achievable *= 1.5; }), before);
  EXPECT_LT(better([](plan::Setup& s) { s.chip.memory_bandwidth *= 1.5; }), before);
  EXPECT_LT(better([](plan::Setup& s) { s.chip.scaleup *= 2; }), before);
  EXPECT_LT(better([](plan::Setup& s) { s.chip.network *= 2; }), before);
  EXPECT_GT(better([](plan::Setup& s) { s.layout.recompute.full = true; }), 1.2 * before);
  EXPECT_LT(better([](plan::Setup& s) { s.job.precision = Precision::fp8; }), before);
  EXPECT_GT(better([](plan::Setup& s) { s.layout.schedule = ScheduleKind::one_f_one_b; }), before);
}

TEST(Step, DoublingTheBatchDoublesTheWork) {
  plan::Setup s = llama_70b();
  const StepPrediction one = predict_step(s, prior_constants());
  s.job.global_batch *= 2;
  const StepPrediction two = predict_step(s, prior_constants());
  EXPECT_NEAR(two.time.work.total(), 2 * one.time.work.total(), 1e-9 * two.seconds);
  EXPECT_LT(two.seconds, 2 * one.seconds);
}

// A long pipeline is extrapolated from its steady state; the whole simulation must agree.
TEST(Step, ExtrapolationEqualsSimulation) {
  plan::Setup s = llama_70b();
  s.job.global_batch = 4 * 64;
  const auto costs = stage_costs(s, prior_constants());
  const auto full = [&](int m) {
    return simulate(make_schedule(s.layout.schedule, 4, m, 5), costs, 1e-3).makespan;
  };
  EXPECT_NEAR(full(64) - full(60), full(20) - full(16), 1e-9);
}

TEST(Step, MemoryIsSharded) {
  plan::Setup s = llama_70b();
  const MemoryUse one = predict_memory(s, prior_constants());
  s.layout.zero = 0;
  const MemoryUse none = predict_memory(s, prior_constants());
  EXPECT_NEAR(none.optimizer, 4 * one.optimizer, 1);
  EXPECT_DOUBLE_EQ(none.weights, one.weights);
  s.layout.zero = 3;
  const MemoryUse all = predict_memory(s, prior_constants());
  EXPECT_NEAR(all.weights, one.weights / 4, 1);
  s.layout.recompute.full = true;
  EXPECT_LT(predict_memory(s, prior_constants()).activations, 0.5 * all.activations);
}

PROPERTY(SplitLayers, UsesEveryLayerAndIsBalanced) {
  const int layers = test::draw(1, 200), stages = test::draw(1, 65);
  test::assume(stages <= layers);
  const std::vector<double> weights(layers, 1.0);
  const std::vector<int> cut = split_layers(layers, stages, weights, 0, 0);
  HOLDS(static_cast<int>(cut.size()) == stages);
  HOLDS(std::accumulate(cut.begin(), cut.end(), 0) == layers);
  HOLDS(*std::max_element(cut.begin(), cut.end()) <=
        (layers + stages - 1) / stages + ((layers + 2) % stages == 0 ? 1 : 0));
}

TEST(SplitLayers, PublishedPipelines) {
  const std::vector<double> w(126, 1.0);
  const std::vector<int> llama = split_layers(126, 128, w, 0, 0);  // 405B on 128 virtual stages
  EXPECT_EQ(llama.size(), 128u);
  EXPECT_EQ(std::accumulate(llama.begin(), llama.end(), 0), 126);
  const std::vector<int> sixty_four = split_layers(126, 64, w, 0, 0);
  EXPECT_EQ(sixty_four.front(), 1);
  EXPECT_EQ(sixty_four[1], 2);
  EXPECT_EQ(sixty_four.back(), 1);
  const std::vector<int> bloom = split_layers(70, 12, std::vector<double>(70, 1.0), 0, 0);
  EXPECT_EQ(bloom.front(), 5);
  EXPECT_EQ(bloom[5], 6);
}

// One moment instead of two is four bytes a parameter less; its update is more work.
TEST(Step, MuonKeepsLessAndComputesMore) {
  plan::Setup s;
  s.network = network_from(load_model_config("llama-3.1-8b"), "llama");
  s.chip = find_accelerator("H100");
  s.count = s.layout.data = 8;
  s.layout.zero = 0;
  const Constants& k = fitted_constants();
  const MemoryUse two = predict_memory(s, k);
  const StepPrediction adamw = predict_step(s, k);
  s.job.optimizer = OptimizerKind::muon;
  EXPECT_NEAR(two.optimizer - predict_memory(s, k).optimizer, 4 * count(s.network).total,
              1e-3 * two.optimizer);
  EXPECT_GT(predict_step(s, k).seconds, adamw.seconds);
  EXPECT_THROW(parse_optimizer("adam"), UserError);
}

}  // namespace
}  // namespace sinew::plan
