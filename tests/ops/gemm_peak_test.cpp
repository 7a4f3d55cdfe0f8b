#include "ops/gemm_peak.hpp"

#include <gtest/gtest.h>

namespace sinew {

TEST(GemmPeak, IsMeasuredOnceAndRemembered) {
  const auto first = gemm_peak(), second = gemm_peak();
  EXPECT_GT(first.fp32, 0);
  EXPECT_GT(first.bf16, 0);
  EXPECT_EQ(first.fp32, second.fp32) << "measured again";
  EXPECT_EQ(first.bf16, second.bf16);
}

}  // namespace sinew
