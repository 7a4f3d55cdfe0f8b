#include "plan/here_ranks.hpp"

#include <gtest/gtest.h>

namespace sinew::plan {
namespace {

StepParts parts() {
  StepParts p;
  p.embedding = {0.001, 0.002};
  p.attention = {0.010, 0.020, 0.008};
  p.norms = {0.001, 0.002};
  p.dense = {0.004, 0.008, 0.004};
  p.moe = {0.005, 0.012, 0.006};
  p.head = {0.006, 0.001};
  p.update = 0.050;
  return p;
}

RanksRun run_of(sinew::Layout layout, std::int64_t micro_batches = 1) {
  RanksRun run{.model = load_model_config("shakespeare-moe"), .layout = {}, .work = {}, .cores = 2};
  const std::int64_t rows = 4 * layout.data * layout.shard;
  run.layout = check_layout(
      layout,
      {.processes = layout.size(), .batch = rows * micro_batches, .micro_batch = rows, .sequence = 64},
      run.model);
  run.work.rows = 4;
  run.work.sequence = 64;
  run.work.micro_batches = micro_batches;
  return run;
}

double layers_forward(const RanksRun& run) {
  double sum = 0;
  for (std::int64_t l = 0; l < run.model.num_hidden_layers; ++l)
    sum += 0.011 + (run.model.ffn_kind(l) == FfnKind::moe ? 0.005 : 0.004);
  return sum;
}
double layers_backward(const RanksRun& run) {
  double sum = 0;
  for (std::int64_t l = 0; l < run.model.num_hidden_layers; ++l)
    sum += 0.022 + (run.model.ffn_kind(l) == FfnKind::moe ? 0.012 : 0.008);
  return sum;
}

TEST(HereRanks, OneProcessIsTheSumOfItsParts) {
  const auto run = run_of({.data = 1}, 3);
  const auto p = predict_ranks(run, parts(), {});
  EXPECT_NEAR(p.seconds, 3 * (layers_forward(run) + layers_backward(run) + 0.010) + 0.050, 1e-9);
  EXPECT_EQ(p.sent, 0);
  auto again = run;
  again.work.recompute = true;
  EXPECT_NEAR(predict_ranks(again, parts(), {}).seconds - p.seconds, 3 * layers_forward(run), 1e-9);
}

TEST(HereRanks, StateTakesItsMessages) {
  const StepLinks links{{{"data+context+tensor", "all_reduce"}, {0.001, 1e-9}},
                        {{"expert_data", "all_reduce"}, {0.001, 1e-9}},
                        {{"shard", "all_gather"}, {0.002, 2e-9}},
                        {{"expert_shard", "all_gather"}, {0.002, 2e-9}},
                        {{"world", "all_reduce"}, {0.0001, 0}}};
  const auto run = run_of({.data = 2});
  const auto p = predict_ranks(run, parts(), links);
  const auto runs = held_network(run.model, run.layout, 64, {}).runs;
  double want = 0;
  for (const StateRun& r : runs)
    want += 0.001 + 1e-9 * static_cast<double>(all_reduce_bytes(r.elements, 2, 0, 4));
  EXPECT_NEAR(p.state, want, 1e-9);
  EXPECT_NEAR(p.sums, 4 * 0.0001, 1e-12);
  EXPECT_NEAR(p.seconds, p.pipeline + p.state + p.update + p.sums, 1e-12);

  // Zero 3 gathers each unit on the way there and on the way back, zero 1 once a step.
  const auto three = run_of({.data = 1, .shard = 2, .zero = 3}, 2);
  const auto alone = predict_ranks(run_of({.data = 1}, 2), parts(), {});
  double gathered = 0;
  for (const StateRun& r : held_network(three.model, three.layout, 64, {}).runs)
    gathered += 0.002 + 2e-9 * static_cast<double>(r.piece() * 4);
  EXPECT_NEAR(predict_ranks(three, parts(), links).pipeline - alone.pipeline, 4 * gathered, 1e-6);
  const auto one = run_of({.data = 1, .shard = 2, .zero = 1}, 2);
  EXPECT_NEAR(predict_ranks(one, parts(), links).state, gathered, 1e-6);
}

TEST(HereRanks, PipelinesAreTheSimulatedOnes) {
  for (const char* name : {"gpipe", "1f1b", "zero-bubble", "interleaved", "dualpipe-v"}) {
    const bool chunks = std::string(name) == "interleaved";
    const auto run = run_of({.data = 1, .pipeline = 2, .schedule = name, .chunks = chunks ? 2 : 1}, 6);
    const StepLinks links{{{"pipeline", "send"}, {0.0005, 0}}};
    const auto p = predict_ranks(run, parts(), links);
    const auto schedule = trainer_schedule(run.layout, 6);
    EXPECT_NEAR(p.pipeline, simulate(schedule, ranks_stages(run, parts(), links), 0.0005).makespan, 1e-9)
        << name;
    EXPECT_GT(p.bubble, 0) << name;
  }
}

// With a core for each rank nobody gains by another's waiting; with fewer the cores are never idle while
// there is work, and no rank has more than one.
TEST(HereRanks, RanksThatWaitLeaveTheirCores) {
  const std::vector<StageCost> even(4, {1, 1, 1, 1, 1});
  for (const auto kind : {ScheduleKind::gpipe, ScheduleKind::one_f_one_b, ScheduleKind::zero_bubble})
    for (const int m : {1, 4, 9}) {
      const auto s = make_schedule(kind, 4, m);
      const double own = simulate(s, even, 0.25).makespan;
      EXPECT_NEAR(shared_makespan(s, even, 0.25, 4), own, 1e-9);
      EXPECT_NEAR(shared_makespan(s, even, 0.25, 8), own, 1e-9);
      const double shared = shared_makespan(s, even, 0.25, 2);
      EXPECT_LT(shared, own);
      EXPECT_GE(shared, 3.0 * m - 1e-9);  // four ranks' work on two cores, in units of half a core
    }
  // One micro-batch: one rank at a time, each on a whole core.
  EXPECT_NEAR(shared_makespan(make_schedule(ScheduleKind::gpipe, 4, 1), even, 0, 2), 12 / 2.0, 1e-9);
}

}  // namespace
}  // namespace sinew::plan
