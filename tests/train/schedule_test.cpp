#include "train/schedule.hpp"

#include <gtest/gtest.h>

namespace sinew {
namespace {

RunConfig with(std::initializer_list<const char*> sets) {
  RunConfig config;
  for (const char* set : sets) apply_set(config, set);
  return config;
}

TEST(Schedule, WarmupIsLinearAndReachesThePeak) {
  for (const char* kind :
       {"schedule.kind=cosine", "schedule.kind=wsd", "schedule.kind=step", "schedule.kind=constant"}) {
    const RunConfig c = with({kind, "train.steps=100", "schedule.warmup=10", "optimizer.lr=0.5"});
    EXPECT_DOUBLE_EQ(learning_rate(c, 0), 0.05);
    EXPECT_DOUBLE_EQ(learning_rate(c, 4), 0.25);
    EXPECT_DOUBLE_EQ(learning_rate(c, 9), 0.5);
    EXPECT_DOUBLE_EQ(learning_rate(c, 10), 0.5);
  }
}

TEST(Schedule, CosineEndsAtTheFinalRatio) {
  const RunConfig c =
      with({"train.steps=101", "schedule.warmup=0", "optimizer.lr=2", "schedule.final_ratio=0.1"});
  EXPECT_DOUBLE_EQ(learning_rate(c, 0), 2);
  EXPECT_NEAR(learning_rate(c, 50), 1.1, 1e-12);
  EXPECT_NEAR(learning_rate(c, 25), 0.2 + 1.8 * 0.5 * (1 + std::sqrt(0.5)), 1e-12);
  EXPECT_NEAR(learning_rate(c, 100), 0.2, 1e-12);
}

TEST(Schedule, WsdHoldsThenDecaysInALine) {
  const RunConfig c = with({"schedule.kind=wsd", "train.steps=100", "optimizer.lr=1",
                            "schedule.final_ratio=0", "schedule.decay_fraction=0.2"});
  EXPECT_DOUBLE_EQ(learning_rate(c, 0), 1);
  EXPECT_DOUBLE_EQ(learning_rate(c, 79), 1);
  EXPECT_NEAR(learning_rate(c, 80), 0.95, 1e-12);
  EXPECT_NEAR(learning_rate(c, 89), 0.5, 1e-12);
  EXPECT_NEAR(learning_rate(c, 99), 0, 1e-12);
}

// DeepSeek-V2 3.1.2: 2.4e-4, times 0.316 after 60% and again after 90%.
TEST(Schedule, DeepSeekSteps) {
  const RunConfig c = with({"schedule.kind=step", "train.steps=1000", "optimizer.lr=2.4e-4"});
  EXPECT_DOUBLE_EQ(learning_rate(c, 599), 2.4e-4);
  EXPECT_DOUBLE_EQ(learning_rate(c, 600), 2.4e-4 * 0.316);
  EXPECT_DOUBLE_EQ(learning_rate(c, 899), 2.4e-4 * 0.316);
  EXPECT_DOUBLE_EQ(learning_rate(c, 900), 2.4e-4 * 0.316 * 0.316);
}

TEST(Schedule, BatchGrowsInWholeMicroBatches) {
  const RunConfig c =
      with({"train.batch=64", "train.batch_start=16", "train.batch_ramp=10", "train.micro_batch=8"});
  EXPECT_EQ(batch_size(c, 0), 16);
  EXPECT_EQ(batch_size(c, 10), 64);
  EXPECT_EQ(batch_size(c, 5), 40);
  for (int step = 1; step < 20; ++step) {
    EXPECT_GE(batch_size(c, step), batch_size(c, step - 1));
    EXPECT_EQ(batch_size(c, step) % 8, 0);
  }
  EXPECT_EQ(batch_size(with({"train.batch=7"}), 0), 7);
}

TEST(Schedule, TheBiasStopsWhenAsked) {
  const RunConfig c = with({"train.steps=100", "balance.bias_until=0.9", "balance.bias_speed=0.002"});
  EXPECT_EQ(bias_speed(c, 89), 0.002);
  EXPECT_EQ(bias_speed(c, 90), 0);
}

}  // namespace
}  // namespace sinew
