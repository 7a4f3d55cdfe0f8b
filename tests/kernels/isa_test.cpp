#include "kernels/isa.hpp"

#include <gtest/gtest.h>

namespace sinew {

TEST(Isa, AvailableSetsEndAtTheBest) {
  const auto sets = available_isas();
  ASSERT_FALSE(sets.empty());
  EXPECT_EQ(sets.front(), Isa::scalar);
  EXPECT_EQ(sets.back(), best_isa());
  EXPECT_LE(active_isa(), best_isa());
}

}  // namespace sinew
