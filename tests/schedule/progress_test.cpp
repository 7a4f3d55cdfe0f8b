#include "schedule/progress.hpp"

#include <gtest/gtest.h>

#include "schedule/simulate.hpp"

namespace sinew {
namespace {

// Whatever the stages cost, what is known to be over is over by then.
TEST(Progress, WhatIsKnownToBeOverIsOver) {
  for (const auto kind : schedule_kinds()) {
    for (const int ranks : {1, 2, 4}) {
      for (const int micro_batches : {1, 3, 8}) {
        const auto schedule = make_schedule(kind, ranks, micro_batches, 2);
        for (const double odd : {0.1, 1.0, 7.0}) {
          std::vector<StageCost> costs(static_cast<std::size_t>(schedule.stages()));
          for (std::size_t i = 0; i < costs.size(); i += 2) costs[i].forward = costs[i].backward_weight = odd;
          const auto simulated = simulate(schedule, costs);
          for (int rank = 0; rank < ranks; ++rank) {
            const auto known = known_progress(schedule, rank);
            const auto& own = simulated.timeline[static_cast<std::size_t>(rank)];
            ASSERT_EQ(known.size(), own.size());
            for (std::size_t i = 0; i < known.size(); ++i) {
              EXPECT_EQ(known[i][static_cast<std::size_t>(rank)], static_cast<int>(i));
              for (int q = 0; q < ranks; ++q) {
                const int over = known[i][static_cast<std::size_t>(q)];
                if (over == 0 || q == rank) continue;
                const auto& last =
                    simulated.timeline[static_cast<std::size_t>(q)][static_cast<std::size_t>(over - 1)];
                EXPECT_LE(last.end, own[i].start + 1e-9) << schedule_name(kind) << rank << q << i;
              }
            }
          }
        }
      }
    }
  }
}

// In 1F1B a gradient tells the last rank's neighbour that its activations had come.
TEST(Progress, MessagesTell) {
  const auto schedule = make_schedule(ScheduleKind::one_f_one_b, 2, 2);
  const auto known = known_progress(schedule, 0);  // F0 F1 B0 B1
  EXPECT_EQ(known[1][1], 0);
  EXPECT_EQ(known[2][1], 2);  // F0 B0
  EXPECT_EQ(known[3][1], 4);
}

}  // namespace
}  // namespace sinew
