#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "support/support.hpp"

namespace sinew {
namespace {

TEST(DoctorCommand, JsonHasTheFactsAndTheMeasurements) {
  const auto run = test::run_sinew({"doctor", "--json"});
  ASSERT_EQ(run.exit_code, 0) << run.error;
  const auto facts = nlohmann::json::parse(run.output);
  EXPECT_GE(facts["processor"]["cores"], 1);
  EXPECT_EQ(facts["processor"]["instruction_sets"][0], "scalar");
  EXPECT_GT(facts["memory"]["bytes"], 0);
  EXPECT_GT(facts["memory"]["bandwidth"], 0.0);
  EXPECT_GT(facts["disk"]["bytes"], 0);
  EXPECT_TRUE(facts["advice"].is_array());
  EXPECT_GT(facts["gemm_peak"]["sinew"]["fp32_flops"], 0.0);
  ASSERT_TRUE(facts.contains("libtorch"));
  if (facts["libtorch"].is_null()) return;  // a build that only serves
  EXPECT_FALSE(facts["libtorch"]["version"].get<std::string>().empty());
  EXPECT_GT(facts["gemm_peak"]["libtorch"]["fp32_flops"], 0.0);
  EXPECT_GT(facts["gemm_peak"]["libtorch"]["bf16_flops"], 0.0);
}

TEST(DoctorCommand, AdviceFollowsTheEnvironment) {
  const auto run = test::run_sinew({"doctor", "--quick"}, {"SINEW_ISA=scalar", "SINEW_THREADS=1"});
  EXPECT_EQ(run.exit_code, 0) << run.error;
  EXPECT_THAT(run.output, testing::HasSubstr("1 threads used"));
  if (run.output.find("(of scalar)") == std::string::npos) {
    EXPECT_THAT(run.output, testing::HasSubstr("SINEW_ISA=scalar holds the kernels below"));
  }
  const auto wrong = test::run_sinew({"doctor", "--quick"}, {"SINEW_ISA=sse9"});
  EXPECT_EQ(wrong.exit_code, 2);
}

}  // namespace
}  // namespace sinew
