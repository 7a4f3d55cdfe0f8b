// `sinew bench lean`: a few tiny runs, stopping and going on, bad flags.
#ifdef SINEW_TRAIN
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <csignal>
#include <nlohmann/json.hpp>

#include "cli/run_and_signal.hpp"
#include "support/tiny_run.hpp"

namespace sinew::test {
namespace {

using testing::HasSubstr;
using Arguments = std::vector<std::string>;

Arguments lean(const TempDir& dir, const Arguments& more = {}, const std::string& tokens = "1024",
               const std::string& dense = "64x1") {
  Arguments a{"bench",         "lean",
              "--data",        (dir / "text.txt").string(),
              "--out",         (dir / "out").string(),
              "--sizes",       "32x1",
              "--seeds",       "1",
              "--batch",       "2",
              "--sequence",    "32",
              "--jobs",        "2",
              "--vocabulary",  "300",
              "--tokens",      tokens,
              "--dense-sizes", dense};
  a.insert(a.end(), more.begin(), more.end());
  return a;
}

TEST(BenchLeanCommand, TrainsEveryKindOnceAndSaysHowMuchDenseComputeIsNeeded) {
  const TempDir dir;
  spit(dir / "text.txt", tiny_text());
  const auto first = run_sinew(lean(dir, {"--json"}));
  ASSERT_EQ(first.exit_code, 0) << first.error;
  const auto json = nlohmann::json::parse(first.output);
  ASSERT_EQ(json["runs"].size(), 4u);
  double least = 1e300, most = 0;  // FLOPs of the three kinds at 32x1
  for (const auto& run : json["runs"]) {
    EXPECT_GT(run["loss"].get<double>(), 0);
    EXPECT_LT(run["loss"].get<double>(), std::log(300.0) + 0.2);
    if (run["size"] == "64x1") continue;
    least = std::min(least, run["flops"].get<double>());
    most = std::max(most, run["flops"].get<double>());
  }
  EXPECT_LT(most / least, 1.01);
  EXPECT_THAT(slurp(dir / "out/lean.svg"), HasSubstr("7 of 32 experts"));
  EXPECT_THAT(slurp(dir / "out/lean.md"), HasSubstr("32x1"));
  EXPECT_FALSE(fs::exists(dir / "out/runs/fine-32x1-s1/checkpoints"));

  // Finished runs are not run again: results that no training could give stay as they are.
  spit(dir / "out/results/fine-32x1-s1.json", R"({"loss": 1.5, "bits_per_byte": 2, "seconds": 3})");
  const auto again = run_sinew(lean(dir, {"--json"}));
  ASSERT_EQ(again.exit_code, 0) << again.error;
  const auto runs = nlohmann::json::parse(again.output)["runs"];
  EXPECT_TRUE(std::any_of(runs.begin(), runs.end(), [](const auto& r) { return r["loss"] == 1.5; }));
  EXPECT_THAT(again.error, testing::Not(HasSubstr("nats a token")));  // the line of a run that ended

  const auto other = run_sinew(lean(dir, {"--lr", "0.02"}));
  EXPECT_EQ(other.exit_code, 2);
  EXPECT_THAT(other.error, HasSubstr("choose another --out"));
}

TEST(BenchLeanCommand, StopsCleanlyAndGoesOn) {
  const TempDir dir;
  spit(dir / "text.txt", tiny_text());
  auto arguments = lean(dir, {"--kinds", "dense,top2"}, "32000", "none");
  const auto begun = [&] { return fs::exists(dir / "out/runs/top2-32x1-s1/metrics.jsonl"); };
  ASSERT_EQ(run_and_signal(arguments, SIGINT, begun, dir / "said"), 128 + SIGINT) << slurp(dir / "said");
  EXPECT_THAT(slurp(dir / "said"), HasSubstr("the same command goes on"));
  EXPECT_FALSE(fs::exists(dir / "out/results/top2-32x1-s1.json"));
  const auto report = run_sinew(
      {"bench", "lean", "--data", (dir / "text.txt").string(), "--out", (dir / "out").string(), "--report"});
  EXPECT_EQ(report.exit_code, 2);  // other settings, or nothing finished: never a table of nothing
  const auto rest = run_sinew(arguments);
  ASSERT_EQ(rest.exit_code, 0) << rest.error;
  EXPECT_THAT(slurp(dir / "out/runs/top2-32x1-s1.log"), HasSubstr("going on from"));
  EXPECT_TRUE(fs::exists(dir / "out/results/top2-32x1-s1.json"));
}

TEST(BenchLeanCommand, BadFlagsAreOneLineAndExitCode2) {
  const TempDir dir;
  spit(dir / "text.txt", tiny_text());
  const std::vector<std::pair<Arguments, std::string>> cases{
      {lean(dir, {"--kinds", "sparse"}), "dense, fine and top2"},
      {{"bench", "lean", "--data", (dir / "text.txt").string(), "--sizes", "100x2"}, "HIDDENxLAYERS"},
      {{"bench", "lean", "--data", (dir / "absent").string()}, "absent"},
      {{"bench", "lean", "--data", (dir / "text.txt").string(), "--tokens", "10"}, "--tokens"},
      {{"bench", "lean", "--data", (dir / "text.txt").string(), "--seeds", "0"}, "--seeds"},
      {{"bench", "lean", "--data", (dir / "text.txt").string(), "--dtype", "fp8"}, "--dtype"},
  };
  for (const auto& [arguments, message] : cases) {
    const auto run = run_sinew(arguments);
    EXPECT_EQ(run.exit_code, 2) << message;
    EXPECT_THAT(run.error, HasSubstr(message));
    EXPECT_EQ(std::count(run.error.begin(), run.error.end(), '\n'), 1) << run.error;
  }
}

}  // namespace
}  // namespace sinew::test
#endif
