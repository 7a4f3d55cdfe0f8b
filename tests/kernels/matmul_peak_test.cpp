#include "kernels/matmul_peak.hpp"

#include <gtest/gtest.h>

namespace sinew {

TEST(MatmulPeak, IsMeasuredOnceAndRemembered) {
  const auto first = matmul_peak(), second = matmul_peak();
  EXPECT_GT(first.fp32, 0);
  EXPECT_GT(first.bf16, 0);
  EXPECT_EQ(first.fp32, second.fp32) << "measured again";
}

}  // namespace sinew
