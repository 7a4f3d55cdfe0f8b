#include "base/median_range.hpp"

#include <gtest/gtest.h>

namespace sinew {

TEST(MedianRange, IsOfValuesInAnyOrder) {
  const MedianRange odd = median_range({3, 1, 2}), even = median_range({4, 1, 3, 2}), none = median_range({});
  EXPECT_EQ(odd.least, 1);
  EXPECT_EQ(odd.median, 2);
  EXPECT_EQ(odd.greatest, 3);
  EXPECT_EQ(even.median, 3);
  EXPECT_EQ(none.least, 0);
  EXPECT_EQ(none.median, 0);
  EXPECT_EQ(none.greatest, 0);
}

TEST(MedianRange, IsWrittenInItsUnit) {
  EXPECT_EQ(range_text({0.5, 0.75, 1}, 0.01, 1), "75.0 (50.0 to 100.0)");
  EXPECT_EQ(range_text({1, 1.125, 2}, 1, 2), "1.12 (1.00 to 2.00)");
}

}  // namespace sinew
