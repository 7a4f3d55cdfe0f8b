#include "plan/fit.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "base/error.hpp"
#include "plan/validation.hpp"
#include "support/support.hpp"

namespace sinew::plan {
namespace {

std::vector<PublishedRun> public_runs() {
  std::vector<PublishedRun> runs = read_runs(test::data_dir() / "planner/runs_public.json");
  for (PublishedRun& run : runs) assume_layout(run, fitted_constants());
  return runs;
}

// Issue 6: each run predicted by constants that never saw its source.
TEST(Validation, LeavingOutASourceKeepsTheErrorsSmall) {
  SINEW_NEED_DATA();
  const std::vector<PublishedRun> runs = public_runs();
  ASSERT_EQ(runs.size(), 381u);
  const std::vector<RowError> rows = leave_one_source_out(runs, fitted_constants());
  for (std::size_t i = 0; i < rows.size(); ++i)
    EXPECT_TRUE(std::isfinite(rows[i].predicted) && rows[i].predicted > 0) << runs[i].name;
  const Summary all = summarise(rows);
  EXPECT_EQ(all.rows, 336);
  EXPECT_LE(all.median, 0.08);
  EXPECT_LE(all.ninth_decile, 0.25);
  std::map<std::string, std::vector<RowError>> sweeps;
  std::vector<RowError> gpt3;
  for (std::size_t i = 0; i < runs.size(); ++i) {
    sweeps[runs[i].sweep].push_back(rows[i]);
    if (runs[i].name.find("gpt3-175b") != std::string::npos ||
        runs[i].name.find("GPT3-175B") != std::string::npos)
      gpt3.push_back(rows[i]);
  }
  for (const char* name : {"BigScience", "DGX Cloud", "Megatron 2021", "Megatron 2021 table 1"})
    EXPECT_GE(rank_correlation(sweeps.at(name)), 0.8) << name;
  // Half of Calculon's mean errors.
  EXPECT_LE(summarise(sweeps.at("Megatron 2021 table 1")).mean, 0.05);
  EXPECT_LE(summarise(gpt3).mean, 0.065);
  EXPECT_LE(summarise(sweeps.at("BigScience")).mean, 0.165);
}

TEST(Validation, ConstantsAreFewAndReproducible) {
  SINEW_NEED_DATA();
  EXPECT_LE(constant_count, 48);
  const auto path = test::data_dir() / "planner/runs_public.json";
  const test::TempDir dir;
  test::spit(dir / "constants.json", fit_runs(path, 12));
  const Constants again = read_constants(dir / "constants.json");
  for (int i = 0; i < constant_count; ++i)
    EXPECT_NEAR(again.values[i] / fitted_constants().values[i], 1, 0.02)
        << info(static_cast<Constant>(i)).name;
}

TEST(Runs, OddRowsAreAccepted) {
  const char* json = R"([
    {"name": "bare", "model": {"layers": 7, "hidden": 1000}},
    {"model": {"layers": 126, "hidden": 16384, "heads": 128, "kv_heads": 8, "ffn": 53248, "ffn_gated": true, "vocab": 128256},
     "system": {"accelerator": "Nonesuch 9000", "peak_bf16_tflops": 500, "hbm_gb": 64, "count": 1000},
     "layout": {"tp": 8, "pp": 16, "vpp": 8, "dp": 8, "global_batch": 999, "micro_batch": 2, "precision": "fp8", "zero_stage": null},
     "measured": {"step_time_s": 3}},
    {"name": "moe", "model": {"layers": 10, "hidden": 512, "experts": 7, "top_k": 3, "expert_ffn": 100, "attention": "mla"},
     "layout": {"tp": 3, "pp": 4, "ep": 7, "dp": 5, "recompute": "strange words", "schedule": "zero-bubble"},
     "system": {"accelerator": "H100-80GB SXM", "count": 60}, "measured": {"oom": true}}])";
  std::vector<PublishedRun> runs = parse_runs(json, "test");
  ASSERT_EQ(runs.size(), 3u);
  for (PublishedRun& run : runs) {
    assume_layout(run, prior_constants());
    const StepPrediction p = predict_run(run, prior_constants());
    EXPECT_TRUE(std::isfinite(p.seconds) && p.seconds > 0) << run.name;
  }
  EXPECT_EQ(runs[1].measured, Measured::step_time);
  EXPECT_EQ(runs[2].measured, Measured::out_of_memory);
  EXPECT_THROW(parse_runs("{", "test"), UserError);
  EXPECT_THROW(parse_runs("[3]", "test"), UserError);
  EXPECT_THROW(parse_runs(R"([{"name": "x", "model": {}}])", "test"), UserError);
}

TEST(Runs, SoftwareDates) {
  const Accelerator& h100 = find_accelerator("H100");
  EXPECT_NEAR(software_date("nemo 25.11 | x", h100), 2025.87, 0.01);
  EXPECT_NEAR(software_date("mlperf training v4.1 closed", h100), 2024.85, 0.01);
  EXPECT_NEAR(software_date("github.com/nvidia | arxiv.org/abs/2104.04473", h100), 2021.29, 0.02);
  EXPECT_NEAR(software_date("nothing known", h100), h100.year + 1.5, 1e-9);
}

TEST(Fit, RankCorrelation) {
  std::vector<RowError> rows(4);
  for (int i = 0; i < 4; ++i) rows[i] = {static_cast<double>(i), static_cast<double>(i * i), 0, true};
  EXPECT_DOUBLE_EQ(rank_correlation(rows), 1);
  std::swap(rows[0].measured, rows[3].measured);
  EXPECT_DOUBLE_EQ(rank_correlation(rows), -0.8);
}

}  // namespace
}  // namespace sinew::plan
