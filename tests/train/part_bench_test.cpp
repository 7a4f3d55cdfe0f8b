#include "train/part_bench.hpp"

#include <gtest/gtest.h>

#include "base/error.hpp"
#include "base/files.hpp"
#include "base/threads.hpp"
#include "comm/ranks.hpp"
#include "support/support.hpp"
#include "train/check_runs.hpp"
#include "train/measured_parts.hpp"
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
  const CheckedRun c = check_run(tiny, 2, [&](const StepParts& parts, const StepLinks& links) {
    seen = parts;
    EXPECT_TRUE(links.empty());
    return 1.5;
  });
  EXPECT_EQ(c.predicted, 1.5);
  EXPECT_GT(seen.moe.backward, 0);
  EXPECT_GT(c.best, 0);
  EXPECT_LE(c.best, c.measured);
  EXPECT_LE(c.measured, c.worst);
}

TEST(MeasuredParts, AreRememberedWhileTheMachineIsTheSame) {
  at::set_num_threads(default_threads());  // as every command does; the first fused operation would
  const test::TempDir dir;
  const ModelConfig model = bench_preset("tiny").model;
  const PartShape shape{2, 32, at::kFloat};
  const auto measure = [&](const ModelConfig& m, double probe) {
    return measured_parts(m, shape, RunConfig::Optimizer{}, nullptr, dir / "parts", 0, probe);
  };
  const auto first = measure(model, 1e-3), again = measure(model, 1.05e-3);
  EXPECT_FALSE(first.remembered);
  EXPECT_TRUE(again.remembered);
  EXPECT_EQ(again.parts.moe.backward, first.parts.moe.backward);
  EXPECT_EQ(again.parts.update, first.parts.update);
  EXPECT_FALSE(measure(model, 2e-3).remembered);  // another speed
  EXPECT_TRUE(measure(model, 2e-3).remembered);
  auto other = model;
  other.vocab_size *= 2;
  EXPECT_FALSE(measure(other, 2e-3).remembered);
  for (const auto& entry : fs::directory_iterator(dir / "parts"))
    write_file_atomic(entry.path(), "{\"key\": 3}");
  EXPECT_FALSE(measure(model, 2e-3).remembered);
  EXPECT_FALSE(measured_parts(model, shape, RunConfig::Optimizer{}, nullptr, "", 0).remembered);
}

// What rank 0 remembers is what all have.
TEST(MeasuredParts, AreOneForAllProcesses) {
  const test::TempDir dir;
  const ModelConfig model = bench_preset("tiny").model;
  for (const bool second : {false, true})
    test::run_ranks(2, [&](const std::shared_ptr<Endpoint>& endpoint) {
      const auto mesh = std::make_shared<Mesh>(endpoint, Layout{.data = 2});
      const auto m =
          measured_parts(model, {2, 32, at::kFloat}, RunConfig::Optimizer{}, mesh, dir / "p", 0, 1e-3);
      EXPECT_EQ(m.remembered, second);
      EXPECT_EQ(m.links.count({"data+context+tensor", "all_reduce"}), 1u);
    });
}

// Every process measures its share, and all have the same means.
TEST(PartBench, ChecksRunsOfSeveralProcesses) {
  EXPECT_GE(layout_check_runs(2).size(), 12u);
  EXPECT_THROW(layout_check_runs(3), UserError);
  const ModelConfig model = bench_preset("tiny").model;
  for (const Layout& layout :
       {Layout{.data = 1, .tensor = 2, .expert = 2}, Layout{.data = 1, .shard = 2, .zero = 3, .expert = 2},
        Layout{.data = 1, .pipeline = 2, .schedule = "zero-bubble"}}) {
    const CheckRun run{"tiny", model, {{2, 32, at::kFloat}, 2, Recompute::none}, layout};
    StepParts seen[2];
    test::run_ranks(2, [&](const std::shared_ptr<Endpoint>& endpoint) {
      const auto mesh = std::make_shared<Mesh>(endpoint, layout);
      const CheckedRun c = check_run(
          run, 2,
          [&](const StepParts& parts, const StepLinks& links) {
            seen[endpoint->rank()] = parts;
            EXPECT_EQ(links.count({"world", "all_reduce"}), 1u);
            EXPECT_EQ(links.count({"shard", "all_gather"}), layout.shard > 1 ? 1u : 0u);
            EXPECT_EQ(links.count({"pipeline", "send"}), layout.pipeline > 1 ? 1u : 0u);
            for (const auto& [key, rate] : links) EXPECT_GT(rate.seconds(1e6), 0) << key.first;
            return 1.5;
          },
          mesh);
      EXPECT_GT(c.best, 0);
    });
    EXPECT_EQ(seen[0].moe.forward, seen[1].moe.forward);
    EXPECT_EQ(seen[0].update, seen[1].update);
    EXPECT_EQ(seen[0].attention.weight > 0, layout.pipeline > 1);
  }
}

}  // namespace
}  // namespace sinew
