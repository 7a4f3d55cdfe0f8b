#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "support/support.hpp"

namespace sinew::test {
namespace {

TEST(PlanCommand, PlansAndWritesEverything) {
  const TempDir dir;
  const auto run = run_sinew({"plan", "--model", "deepseek-v2-lite", "--accelerator", "H100", "--count", "32",
                              "--tokens", "1e12", "--batch", "128", "--top", "2", "--json", "--html",
                              (dir / "p.html").string(), "--emit", (dir / "run.toml").string()});
  ASSERT_EQ(run.exit_code, 0) << run.error;
  const auto doc = nlohmann::json::parse(run.output);
  EXPECT_EQ(doc["best"].size(), 2u);
  EXPECT_NE(slurp(dir / "p.html").find("</html>"), std::string::npos);
  EXPECT_NE(slurp(dir / "run.toml").find("deepseek-v2-lite"), std::string::npos);
}

TEST(PlanCommand, NonsenseGetsOneLine) {
  for (const std::vector<std::string>& arguments : std::vector<std::vector<std::string>>{
           {"plan"},
           {"plan", "--model", "llama-3.1-8b"},
           {"plan", "--model", "lama-3.1-8b", "--count", "8"},
           {"plan", "--model", "llama-3.1-8b", "--accelerator", "H10O", "--count", "8"},
           {"plan", "--model", "llama-3.1-8b", "--count", "8", "--precision", "bf61"},
           {"plan", "--model", "llama-3.1-8b", "--count", "8", "--tokens", "-1"},
           {"plan", "--model", "llama-3.1-8b", "--count", "8", "--only", "tq=1"},
           {"plan", "--model", "llama-3.1-8b", "--count", "8", "--optimizer", "adan"},
           {"plan", "--model", "moe-10t", "--accelerator", "B200", "--count", "4096", "--only",
            "offload=0 tp=4", "--batch", "4096", "--emit", "/nonexistent/run.toml"},
           {"plan", "--here"},
           {"plan", "--here", "--model", "shakespeare-mo"},
           {"plan", "--here", "--model", "shakespeare-moe", "--layout", "tensor=2"},
           {"plan", "--here", "--model", "shakespeare-moe", "--ranks", "2", "--layout", "tensr=2"},
           {"plan", "--here", "--model", "shakespeare-moe", "--ranks", "2", "--layout", "tensor=3"},
           {"plan", "--here", "--check", "--ranks", "3"},
           {"plan", "--here", "--check", "--ranks", "2", "--model", "nothing"},
           {"plan", "compare"},
           {"plan", "compare", "--model", "llama-3.1-8b", "--accelerator", "H100"},
           {"plan", "compare", "earas"},
           {"plan", "hardware", "TPU v44"},
           {"plan", "failures", "--recovery", "-1"},
           {"plan", "serving", "--model", "llama-3.1-8b", "--count", "4", "--tensor", "8"},
           {"plan", "validate", "/nonexistent.json"}}) {
    const auto run = run_sinew(arguments);
    EXPECT_EQ(run.exit_code, 2);
    EXPECT_EQ(std::count(run.error.begin(), run.error.end(), '\n'), 1) << run.error;
  }
}

TEST(PlanCommand, PredictsThisMachine) {
  const auto run =
      run_sinew({"plan", "--here", "--model", "shakespeare-moe", "--batch", "2", "--micro-batch", "1",
                 "--sequence", "32", "--recompute", "full", "--precision", "fp32", "--json"});
  ASSERT_EQ(run.exit_code, 0) << run.error;
  const auto doc = nlohmann::json::parse(run.output);
  EXPECT_GT(doc["step_time_s"].get<double>(), 0);
  EXPECT_GT(doc["memory_bytes"].get<double>(), 2.1e6 * 16);
}

TEST(PlanCommand, PredictsProcessesOfThisMachine) {
  const auto run =
      run_sinew({"plan", "--here", "--model", "shakespeare-moe", "--batch", "2", "--sequence", "32",
                 "--precision", "fp32", "--ranks", "2", "--layout", "tensor=2 expert=2", "--json"});
  ASSERT_EQ(run.exit_code, 0) << run.error;
  const auto doc = nlohmann::json::parse(run.output);
  EXPECT_EQ(doc["layout"], "tensor=2 expert=2");
  EXPECT_GT(doc["step_time_s"].get<double>(), 0);
  EXPECT_GT(doc["sent_bytes"].get<double>(), 1e5);
}

TEST(PlanCommand, ToolsSpeakJson) {
  for (const std::vector<std::string>& arguments : std::vector<std::vector<std::string>>{
           {"plan", "failures", "--accelerators", "1000", "--days", "5", "--trials", "2", "--json"},
           {"plan", "serving", "--model", "deepseek-v2-lite", "--count", "1", "--json"},
           {"plan", "compare", "--model", "llama-3.1-8b", "--accelerator", "H100", "--count", "8", "--batch",
            "64", "--json"}}) {
    const auto run = run_sinew(arguments);
    ASSERT_EQ(run.exit_code, 0) << run.error;
    EXPECT_FALSE(nlohmann::json::parse(run.output).empty());
  }
}

TEST(PlanCommand, ValidatesPublishedRuns) {
  SINEW_NEED_DATA();
  const auto run =
      run_sinew({"plan", "validate", (data_dir() / "planner/runs_public.json").string(), "--json"});
  ASSERT_EQ(run.exit_code, 0) << run.error;
  const auto doc = nlohmann::json::parse(run.output);
  EXPECT_EQ(doc["rows"].size(), 381u);
  EXPECT_LE(doc["summary_source_left_out"]["median_abs_error"].get<double>(), 0.08);
  EXPECT_GE(doc["summary_source_left_out"]["share_within_25_percent"].get<double>(), 0.9);
  // Half of Calculon's mean errors, and the order of layouts.
  std::map<std::string, double> most{
      {"Megatron 2021 table 1", 0.05}, {"GPT-3 175B on H100", 0.065}, {"BigScience", 0.165}};
  std::set<std::string> ranked{"BigScience", "DGX Cloud", "Megatron 2021", "Megatron 2021 table 1"};
  for (const auto& sweep : doc["sweeps"]) {
    const std::string name = sweep["name"];
    if (const auto found = most.extract(name)) {
      EXPECT_LE(sweep["source_left_out"]["mean_abs_error"].get<double>(), found.mapped()) << name;
    }
    if (ranked.erase(name) > 0) {
      EXPECT_GE(sweep["rank_correlation"].get<double>(), 0.8) << name;
    }
  }
  EXPECT_TRUE(most.empty() && ranked.empty());
}

}  // namespace
}  // namespace sinew::test
