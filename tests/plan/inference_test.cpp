#include "plan/inference.hpp"

#include <gtest/gtest.h>

#include "base/error.hpp"
#include "config/model_config.hpp"

namespace sinew::plan {
namespace {

TEST(Inference, KvBytesAreTheModels) {
  for (const char* preset : {"deepseek-v3", "llama-3.1-70b", "mixtral-8x7b"}) {
    const ModelConfig config = load_model_config(preset);
    EXPECT_DOUBLE_EQ(kv_bytes_per_token(network_from(config, preset), 16),
                     2.0 * static_cast<double>(kv_elements_per_token(config)));
  }
}

TEST(Inference, DecodeOfOneSequenceIsBoundByReadingTheWeights) {
  const Network n = network_from(load_model_config("llama-3.1-8b"), "llama");
  const Accelerator& chip = find_accelerator("H100");
  ServingJob job;
  job.weight_bits = 16;
  const auto points = plan_serving(n, chip, 1, job);
  EXPECT_EQ(points[0].bound, "memory");
  EXPECT_GT(points[0].step_seconds, 2 * 7.5e9 / chip.memory_bandwidth);
  EXPECT_LT(points[0].step_seconds, 2 * 2 * 8.1e9 / chip.memory_bandwidth);
  for (std::size_t i = 1; i < points.size() && points[i].fits; ++i) {
    EXPECT_GE(points[i].step_seconds, points[i - 1].step_seconds);
    EXPECT_GT(points[i].tokens_per_second, points[i - 1].tokens_per_second);
    EXPECT_LT(points[i].cost_per_million, points[i - 1].cost_per_million);
  }
  EXPECT_FALSE(points.back().fits && points.back().batch < 4096);
  job.weight_bits = 4;
  EXPECT_LT(plan_serving(n, chip, 1, job)[0].step_seconds, points[0].step_seconds);
}

TEST(Inference, ExpertsOnSsdFitSmallMachinesAndCostTime) {
  const Network n = network_from(load_model_config("deepseek-v2-lite"), "lite");
  ServingJob job;
  job.weight_bits = 16;
  const auto& chip = find_accelerator("RTX 4090");
  const auto whole = plan_serving(n, chip, 1, job);
  EXPECT_FALSE(whole[0].fits);  // 31 GB of weights
  job.experts_on_ssd = true;
  job.hot_experts = 0.4;
  const auto streamed = plan_serving(n, chip, 1, job);
  EXPECT_TRUE(streamed[0].fits);
  EXPECT_EQ(streamed[0].bound, "SSD");
}

TEST(Inference, NonsenseIsRefused) {
  const Network n = network_from(load_model_config("llama-3.1-8b"), "llama");
  Accelerator chip = find_accelerator("H100");
  ServingJob job;
  job.tensor = 8;
  EXPECT_THROW(plan_serving(n, chip, 4, job), UserError);
  chip.memory_bandwidth = 0;
  EXPECT_THROW(plan_serving(n, chip, 8, job), UserError);
}

}  // namespace
}  // namespace sinew::plan
