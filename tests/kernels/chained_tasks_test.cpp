#include "kernels/chained_tasks.hpp"

#include <gtest/gtest.h>

#include <thread>
#include <vector>

#include "base/loop_threads.hpp"

namespace sinew {

TEST(ChainedTasks, EachTaskIsDoneOnce) {
  for (const std::ptrdiff_t count : {0, 1, 2, 3, 8, 100}) {
    std::vector<std::atomic<int>> done(static_cast<std::size_t>(count));
    chained_tasks(count, [&](std::ptrdiff_t i, std::ptrdiff_t next) {
      ++done[static_cast<std::size_t>(i)];
      EXPECT_LT(next, count);
      EXPECT_TRUE(next == -1 || next > i);
    });
    for (const auto& n : done) EXPECT_EQ(n, 1) << count;
  }
}

// Whoever has the first task waits for all others, also for the one it has chosen as its next.
TEST(ChainedTasks, WhatASlowThreadHasChosenIsDoneByOthers) {
  if (loop_threads() < 2) GTEST_SKIP() << "one thread";
  for (const std::ptrdiff_t count : {2, 3, 9}) {
    std::atomic<std::ptrdiff_t> done{0};
    chained_tasks(count, [&](std::ptrdiff_t i, std::ptrdiff_t) {
      while (i == 0 && done < count - 1) std::this_thread::yield();
      ++done;
    });
    EXPECT_EQ(done, count);
  }
}

}  // namespace sinew
