#include "base/threads.hpp"

#include <gtest/gtest.h>

#include <atomic>
#include <stdexcept>
#include <vector>

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

}  // namespace sinew
