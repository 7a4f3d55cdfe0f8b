#include "base/threads.hpp"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <stdexcept>
#include <thread>
#include <vector>

#include "base/team.hpp"

namespace sinew {

TEST(ParallelFor, CoversEveryIndexOnce) {
  std::vector<std::atomic<int>> hits(10007);
  parallel_for(hits.size(), 13, [&](std::size_t begin, std::size_t end) {
    for (std::size_t i = begin; i < end; ++i) ++hits[i];
  });
  for (const auto& hit : hits) ASSERT_EQ(hit, 1);
}

TEST(ParallelFor, RethrowsAndStaysUsable) {
  EXPECT_THROW(parallel_for(100, 1, [](std::size_t, std::size_t) { throw std::runtime_error("x"); }),
               std::runtime_error);
  std::atomic<int> sum = 0;
  parallel_for(10, 1, [&](std::size_t begin, std::size_t) { sum += static_cast<int>(begin); });
  EXPECT_EQ(sum, 45);
}

TEST(ParallelFor, NestedRunsInline) {
  std::atomic<int> count = 0;
  parallel_for(8, 1, [&](std::size_t, std::size_t) {
    parallel_for(8, 1, [&](std::size_t begin, std::size_t end) { count += static_cast<int>(end - begin); });
  });
  EXPECT_EQ(count, 64);
}

TEST(ParallelTasks, EveryTaskOnceInManyShortLoops) {
  std::vector<std::atomic<int>> hits(37);
  for (int round = 0; round < 3000; ++round)
    parallel_tasks(static_cast<std::ptrdiff_t>(hits.size()), [&](std::ptrdiff_t i) { ++hits[i]; });
  for (const auto& hit : hits) ASSERT_EQ(hit, 3000);
}

TEST(ParallelTasks, LoopsOfSeveralThreadsAtOnce) {
  std::atomic<int> sum = 0;
  std::vector<std::thread> callers;
  for (int c = 0; c < 4; ++c)
    callers.emplace_back([&] {
      for (int round = 0; round < 200; ++round) parallel_tasks(16, [&](std::ptrdiff_t) { ++sum; });
    });
  for (auto& caller : callers) caller.join();
  EXPECT_EQ(sum, 4 * 200 * 16);
}

TEST(ParallelTasks, RethrowsNestsAndSleeps) {
  EXPECT_THROW(parallel_tasks(100,
                              [](std::ptrdiff_t i) {
                                if (i == 50) throw std::runtime_error("x");
                              }),
               std::runtime_error);
  std::this_thread::sleep_for(std::chrono::milliseconds(5));  // longer than the team spins
  std::atomic<int> count = 0;
  parallel_tasks(8, [&](std::ptrdiff_t) { parallel_tasks(8, [&](std::ptrdiff_t) { ++count; }); });
  EXPECT_EQ(count, 64);
}

}  // namespace sinew
