#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "support/support.hpp"

namespace sinew {
namespace {

using test::run_sinew;
using testing::HasSubstr;

TEST(InspectCommand, PresetsFromAnywhere) {
  const auto run = run_sinew({"inspect", "deepseek-v2", "--json"});
  EXPECT_EQ(run.exit_code, 0) << run.error;
  const auto json = nlohmann::json::parse(run.output);
  EXPECT_EQ(json["parameters"]["total"], 235'741'434'880);
  EXPECT_EQ(json["parameters"]["active"], 21'375'800'320);
  EXPECT_THAT(run_sinew({"inspect", "mixtral-8x7b"}).output, HasSubstr("46,702,792,704"));
  EXPECT_THAT(run_sinew({"inspect", "--help"}).output, HasSubstr("sinew inspect deepseek-v3"));
}

TEST(InspectCommand, DamageIsOneLineAndExitCodeTwo) {
  const test::TempDir dir;
  test::spit(dir / "config.json", R"({"model_type": "llama", "hidden_size": -1, "vocab_size": 5})");
  for (const auto& path : {(dir / "config.json").string(), dir.path().string(), (dir / "none").string(),
                           std::string("no-such-preset")}) {
    const auto run = run_sinew({"inspect", path});
    EXPECT_EQ(run.exit_code, 2) << path;
    EXPECT_EQ(run.output, "") << path;
    EXPECT_EQ(std::count(run.error.begin(), run.error.end(), '\n'), 1) << run.error;
  }
  EXPECT_THAT(run_sinew({"inspect", dir.path().string()}).error, HasSubstr("hidden_size"));
}

TEST(InspectCommand, ConfigsFolderCanBeSet) {
  const auto wrong = run_sinew({"inspect", "mixtral-8x7b"}, {"SINEW_CONFIGS=/nowhere"});
  EXPECT_EQ(wrong.exit_code, 2);
  EXPECT_THAT(wrong.error, HasSubstr("SINEW_CONFIGS"));
}

}  // namespace
}  // namespace sinew
