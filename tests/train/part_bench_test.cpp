#include "train/part_bench.hpp"

#include <gtest/gtest.h>

#include "base/error.hpp"
#include "train/check_runs.hpp"
#include "train/step_bench.hpp"

namespace sinew {
namespace {

TEST(PartBench, MeasuresTheOperationsThatTheModelHas) {
  ModelConfig c = bench_preset("tiny").model;  // one dense layer, one of experts
  for (const auto type : {at::kFloat, at::kBFloat16}) {
    const StepParts parts = bench_parts(c, {2, 32, type}, RunConfig::Optimizer{}, 0);
    for (const PartSeconds& p :
         {parts.embedding, parts.attention, parts.norms, parts.dense, parts.moe, parts.head}) {
      EXPECT_GT(p.forward, 0);
      EXPECT_GT(p.backward, 0);
    }
    EXPECT_GT(parts.update, 0);
    EXPECT_EQ(parts.mtp_join.forward, 0);
  }
  c.moe = {};
  const StepParts dense = bench_parts(c, {1, 16, at::kFloat}, RunConfig::Optimizer{}, 0);
  EXPECT_EQ(dense.moe.forward, 0);
  EXPECT_GT(dense.dense.backward, 0);
  EXPECT_THROW(bench_parts(c, {0, 16, at::kFloat}, RunConfig::Optimizer{}, 0), UserError);
}

TEST(PartBench, ChecksRunsOfManyKinds) {
  const std::vector<CheckRun> runs = check_runs();
  EXPECT_GE(runs.size(), 12u);
  CheckRun tiny{"tiny", bench_preset("tiny").model, {{2, 32, at::kFloat}, 2, Recompute::full}};
  StepParts seen;
  const CheckedRun c = check_run(tiny, 2, [&](const StepParts& parts) {
    seen = parts;
    return 1.5;
  });
  EXPECT_EQ(c.predicted, 1.5);
  EXPECT_GT(seen.moe.backward, 0);
  EXPECT_GT(c.best, 0);
  EXPECT_LE(c.best, c.measured);
  EXPECT_LE(c.measured, c.worst);
}

}  // namespace
}  // namespace sinew
