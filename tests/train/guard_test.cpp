#include "train/guard.hpp"

#include <gtest/gtest.h>

#include <cmath>

namespace sinew {
namespace {

TEST(SpikeGuard, NonFiniteValuesAreSkippedFromTheStart) {
  SpikeGuard guard(2);
  EXPECT_EQ(guard.judge(std::nan(""), 1), "the loss is nan");
  EXPECT_EQ(guard.judge(1, INFINITY), "the gradient norm is inf");
  EXPECT_EQ(guard.skipped_in_a_row(), 2);
  EXPECT_EQ(guard.judge(1, 1), "");
  EXPECT_EQ(guard.skipped_in_a_row(), 0);
}

TEST(SpikeGuard, SpikesAreMeasuredAgainstTheRecentMedian) {
  SpikeGuard guard(2), off(0);
  for (int i = 0; i < 40; ++i) {
    EXPECT_EQ(guard.judge(10 - 0.2 * i, 1), "");
    EXPECT_EQ(off.judge(10 - 0.2 * i, 1), "");
  }
  EXPECT_EQ(guard.judge(9.9, 1), "");  // the median of losses 2.2 to 8.4 is 5.4
  EXPECT_EQ(guard.judge(60, 1), "the loss 60.0000 is over 2 times the recent median 5.4000");
  EXPECT_EQ(off.judge(60, 1), "");
  EXPECT_EQ(guard.judge(60, 1).substr(0, 8), "the loss");  // a spike does not move the median
  EXPECT_EQ(guard.skipped_in_a_row(), 2);
}

TEST(SpikeGuard, StateCarriesOver) {
  SpikeGuard a(2), b(2);
  for (int i = 0; i < 20; ++i) a.judge(3, 1);
  a.judge(100, 1);
  b.restore(a.state());
  EXPECT_EQ(b.skipped_in_a_row(), 1);
  EXPECT_EQ(a.judge(7, 1), b.judge(7, 1));
  EXPECT_EQ(b.skipped_in_a_row(), 2);
}

}  // namespace
}  // namespace sinew
