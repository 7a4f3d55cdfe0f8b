#include "schedule/schedule.hpp"

#include <gtest/gtest.h>

#include <algorithm>

#include "base/error.hpp"
#include "schedule/simulate.hpp"
#include "support/property.hpp"

namespace sinew {
namespace {

double bubble(ScheduleKind kind, int ranks, int micro_batches, int chunks = 1) {
  const Schedule s = make_schedule(kind, ranks, micro_batches, chunks);
  const double part = 1.0 / s.chunks;
  return simulate(s, {{part, part, part, part, part}}).makespan - 3.0 * micro_batches;
}

PROPERTY(Schedule, IsWholeAndDoesNotHangForAnyCounts) {
  const int ranks = test::draw(1, 13), micro_batches = test::draw(1, 40);
  const int chunks = test::draw(1, 5);
  for (const ScheduleKind kind : schedule_kinds()) {
    const Schedule s = make_schedule(kind, ranks, micro_batches, chunks);
    HOLDS(schedule_problem(s) == "");
  }
}

PROPERTY(Schedule, UnevenStagesAreSimulatedWithinTheBoundsOfAnySchedule) {
  const int ranks = test::draw(1, 9), micro_batches = test::draw(1, 24);
  for (const ScheduleKind kind : schedule_kinds()) {
    const Schedule s = make_schedule(kind, ranks, micro_batches, 3);
    std::vector<StageCost> costs;
    double chain = 0;
    for (int i = 0; i < s.stages(); ++i) {
      costs.push_back({1.0 + test::draw(0, 5), 1.0 + test::draw(0, 5), 1.0 + test::draw(0, 5), 1, 1});
      chain += costs.back().forward + costs.back().backward_input;
    }
    const Simulation sim = simulate(s, costs, 0.5);
    HOLDS(sim.makespan >= chain);  // one micro-batch passes every stage twice
    for (int r = 0; r < ranks; ++r) {
      double work = 0;
      for (int c = 0; c < s.chunks; ++c) {
        const StageCost& k = costs[s.stage_of(r, c)];
        work += micro_batches * (k.forward + k.backward_input + k.backward_weight);
      }
      HOLDS(std::abs(sim.busy[r] - work) < 1e-9 * work);
      HOLDS(sim.makespan >= work - 1e-9);
      for (std::size_t i = 1; i < sim.timeline[r].size(); ++i)
        HOLDS(sim.timeline[r][i].start >= sim.timeline[r][i - 1].end);
    }
  }
}

// The closed forms of the papers, F = B = W = 1: bubble in units of one pass of a rank.
TEST(Schedule, BubblesAreThoseOfThePapers) {
  for (const int p : {2, 4, 8, 16}) {
    const int m = 4 * p;
    EXPECT_NEAR(bubble(ScheduleKind::gpipe, p, m), 3.0 * (p - 1), 1e-9);
    EXPECT_NEAR(bubble(ScheduleKind::one_f_one_b, p, m), 3.0 * (p - 1), 1e-9);
    EXPECT_NEAR(bubble(ScheduleKind::gpipe_flush, p, m), 4 * 3.0 * (p - 1), 1e-9);  // once a flush
    for (const int v : {2, 3, 4})
      EXPECT_NEAR(bubble(ScheduleKind::interleaved, p, m, v), 3.0 * (p - 1) / v, 1e-9);
    EXPECT_NEAR(bubble(ScheduleKind::zero_bubble, p, m), p - 1.0, 1e-9);  // ZB-H1: (p-1)(F + B - W)
    EXPECT_LE(bubble(ScheduleKind::dualpipe_v, p, m), p - 1.0 + 1e-9);
  }
}

PROPERTY(Schedule, BubbleOrderOnEqualStages) {
  const int p = test::draw(2, 13), m = 2 * p + test::draw(0, 3) * p;
  const double gpipe = bubble(ScheduleKind::gpipe, p, m), plain = bubble(ScheduleKind::one_f_one_b, p, m);
  const double interleaved = bubble(ScheduleKind::interleaved, p, m, 2);
  HOLDS(std::abs(plain - gpipe) < 1e-9);                   // of equal micro-batches
  HOLDS(plain < bubble(ScheduleKind::gpipe_flush, p, m));  // of equal memory
  HOLDS(interleaved < plain);
  HOLDS(bubble(ScheduleKind::zero_bubble, p, m) < interleaved);
  HOLDS(bubble(ScheduleKind::dualpipe_v, p, m) < interleaved);
}

TEST(Schedule, PeakActivationsAreThoseOfThePapers) {
  const int p = 8, m = 32;
  const auto peaks = [&](ScheduleKind kind, int chunks = 1) {
    const Schedule s = make_schedule(kind, p, m, chunks);
    const double part = 1.0 / s.chunks;
    return simulate(s, {{part, part, part, part, part}}).peak_activation;
  };
  EXPECT_EQ(peaks(ScheduleKind::gpipe), std::vector<double>(p, m));
  const std::vector<double> plain = peaks(ScheduleKind::one_f_one_b);
  const std::vector<double> flushed = peaks(ScheduleKind::gpipe_flush);
  EXPECT_EQ(*std::max_element(flushed.begin(), flushed.end()), *std::max_element(plain.begin(), plain.end()));
  for (int r = 0; r < p; ++r) EXPECT_EQ(plain[r], p - r);
  const std::vector<double> zero = peaks(ScheduleKind::zero_bubble);
  EXPECT_LE(*std::max_element(zero.begin(), zero.end()), p);  // ZB-H1 keeps the memory of 1F1B
  const std::vector<double> v = peaks(ScheduleKind::dualpipe_v);
  EXPECT_LE(*std::max_element(v.begin(), v.end()), p + 1);  // DualPipe's table: PP + 1
  // Narayanan et al. 2021: interleaving holds 1 + (p - 1) / (p v) times as much.
  EXPECT_NEAR(peaks(ScheduleKind::interleaved, 2)[0], p * (1 + (p - 1) / (2.0 * p)) + 0.5, 0.51);
}

TEST(Schedule, EveryMicroBatchRunsInOrder) {
  for (const ScheduleKind kind : schedule_kinds()) {
    const Schedule s = make_schedule(kind, 4, 11, 2);
    for (const auto& list : s.actions)
      for (int chunk = 0; chunk < s.chunks; ++chunk) {
        int forward = 0, backward = 0;  // messages rely on it: they have no names on NCCL
        for (const Action& a : list) {
          if (a.chunk != chunk || a.pass == Pass::backward_weight) continue;
          EXPECT_EQ(a.micro_batch, a.pass == Pass::forward ? forward++ : backward++);
        }
        EXPECT_EQ(forward, 11);
        EXPECT_EQ(backward, 11);
      }
  }
}

TEST(Schedule, ValidatorSeesWhatIsWrong) {
  Schedule s = make_schedule(ScheduleKind::one_f_one_b, 2, 2);
  std::swap(s.actions[1][0], s.actions[1][1]);  // backward before forward
  EXPECT_NE(schedule_problem(s), "");
  s = make_schedule(ScheduleKind::one_f_one_b, 2, 2);
  s.actions[0].pop_back();
  EXPECT_NE(schedule_problem(s), "");
  // Rank 0 wants the gradient of micro-batch 1 before it sends micro-batch 0 forward: nobody can go on.
  s = make_schedule(ScheduleKind::gpipe, 2, 2);
  s.actions[0] = {
      {Pass::forward, 1, 0}, {Pass::backward, 1, 0}, {Pass::forward, 0, 0}, {Pass::backward, 0, 0}};
  s.actions[1] = {
      {Pass::forward, 0, 0}, {Pass::backward, 0, 0}, {Pass::forward, 1, 0}, {Pass::backward, 1, 0}};
  EXPECT_EQ(schedule_problem(s), "ranks wait for each other for ever");
  EXPECT_THROW(simulate(s, {StageCost{}}), UserError);
}

TEST(Schedule, NamesAndNonsense) {
  for (const ScheduleKind kind : schedule_kinds()) EXPECT_EQ(parse_schedule_kind(schedule_name(kind)), kind);
  try {
    parse_schedule_kind("zero-buble");
    FAIL();
  } catch (const UserError& error) {
    EXPECT_NE(std::string(error.what()).find("zero-bubble"), std::string::npos);
  }
  EXPECT_THROW(make_schedule(ScheduleKind::gpipe, 0, 1), UserError);
  EXPECT_THROW(make_schedule(ScheduleKind::gpipe, 1, 1 << 30), UserError);
}

TEST(Schedule, Pictures) {
  const Schedule s = make_schedule(ScheduleKind::one_f_one_b, 2, 3);
  const Simulation sim = simulate(s, {{1, 1, 1, 1, 1}});
  EXPECT_EQ(draw_text(s, sim),
            "   0  F0 F1       B0--- F2 B1---    B2---\n"
            "   1     F0 B0--- F1 B1--- F2 B2---\n");
  const std::string svg = draw_svg(s, sim, "a < b");
  EXPECT_NE(svg.find("a &lt; b"), std::string::npos);
  EXPECT_NE(svg.find("</svg>"), std::string::npos);
  EXPECT_NE(svg.find("prefers-color-scheme:dark"), std::string::npos);  // as all other pictures
}

}  // namespace
}  // namespace sinew
