#include "kernels/blas_core.hpp"

#include <gtest/gtest.h>

namespace sinew {

TEST(BlasCore, ReplacesOnlyKernelsOlderThanTheMachine) {
  EXPECT_EQ(better_blas_core("Prescott", Isa::bf16), "SKYLAKEX");
  EXPECT_EQ(better_blas_core("Prescott", Isa::avx2), "HASWELL");
  EXPECT_EQ(better_blas_core("Prescott", Isa::scalar), "");
  EXPECT_EQ(better_blas_core("Haswell", Isa::bf16), "") << "a known core is OpenBLAS's own choice";
  EXPECT_EQ(better_blas_core("Zen", Isa::bf16), "");
  EXPECT_EQ(better_blas_core("", Isa::bf16), "") << "no OpenBLAS";
}

}  // namespace sinew
