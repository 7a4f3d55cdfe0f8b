#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <sstream>

#include "support/support.hpp"

namespace sinew {

TEST(BenchCommand, OneJsonLineForEachTypeWithTheStepsOwnNumbers) {
  const auto run =
      test::run_sinew({"bench", "train", "--preset", "tiny", "--steps", "2", "--warmup", "1", "--json"});
  ASSERT_EQ(run.exit_code, 0) << run.error;
  std::istringstream lines(run.output);
  std::vector<std::string> types;
  for (std::string line; std::getline(lines, line);) {
    const auto json = nlohmann::json::parse(line);
    types.push_back(json["dtype"]);
    EXPECT_EQ(json["preset"], "tiny");
    EXPECT_EQ(json["tokens_per_step"], 128);
    EXPECT_GT(json["flops_per_step"].get<double>(), 0);
    EXPECT_LE(json["step_s_best"].get<double>(), json["step_s_median"].get<double>());
    EXPECT_LE(json["step_s_median"].get<double>(), json["step_s_worst"].get<double>());
    EXPECT_NEAR(json["loss"].get<double>(), std::log(256.0), 0.5) << "random tokens";
    EXPECT_GT(json["seconds"]["classes"]["experts"]["backward_s"].get<double>(), 0);
    // Weights, gradients and moments of the planner's formula are exact: 18 bytes a parameter in bf16, 16 in
    // fp32.
    EXPECT_GT(json["planned_bytes"].get<double>(),
              json["parameters"].get<double>() * (json["dtype"] == "bf16" ? 18 : 16));
    const double least = json["mfu_least"], median = json["mfu"], greatest = json["mfu_greatest"];
    EXPECT_TRUE(0 < least && least <= median && median <= greatest) << least << ' ' << median;
    const auto& routing = json["routing_overhead"];
    EXPECT_GT(routing["ratio_least"].get<double>(), 0);
    EXPECT_LE(routing["ratio_least"].get<double>(), routing["ratio"].get<double>());
    EXPECT_LE(routing["ratio"].get<double>(), routing["ratio_greatest"].get<double>());
  }
  EXPECT_EQ(types, (std::vector<std::string>{"bf16", "fp32"}));
}

TEST(BenchCommand, ALayerAloneIsMeasuredWithAsManyExpertsAsAreAskedFor) {
  const auto run = test::run_sinew(
      {"bench", "train", "--preset", "tiny", "--experts", "32", "--dtype", "fp32", "--layer-only", "--json"});
  ASSERT_EQ(run.exit_code, 0) << run.error;
  const auto json = nlohmann::json::parse(run.output);
  EXPECT_EQ(json["preset"], "tiny-e32");
  EXPECT_GT(json["routing_overhead"]["moe_s"].get<double>(), 0);
  EXPECT_EQ(test::run_sinew({"bench", "train", "--preset", "gpt2", "--layer-only"}).exit_code, 2);
}

// The peak is the process's, so each type has one of its own. fp32 keeps twice the bytes of bf16.
TEST(BenchCommand, ThePlannersMemoryIsWithinATenthOfThePeak) {
  if (test::kSanitized) GTEST_SKIP() << "the sanitizer's own memory counts in the peak";
  for (const char* type : {"bf16", "fp32"}) {
    const auto run = test::run_sinew({"bench", "train", "--preset", "S", "--dtype", type, "--steps", "1",
                                      "--warmup", "1", "--no-routing", "--json"});
    ASSERT_EQ(run.exit_code, 0) << run.error;
    const auto json = nlohmann::json::parse(run.output);
    EXPECT_NEAR(json["planned_bytes"].get<double>() / json["peak_rss_bytes"].get<double>(), 1, 0.1) << type;
  }
}

TEST(BenchCommand, SaysWhichPresetsThereAre) {
  const auto run = test::run_sinew({"bench", "train", "--preset", "XL"});
  EXPECT_EQ(run.exit_code, 2);
  EXPECT_NE(run.error.find("S, M, gpt2, long, tiny"), std::string::npos) << run.error;
}

}  // namespace sinew
