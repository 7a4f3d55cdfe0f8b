#include "base/random.hpp"
#include "support/property.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <set>
#include <vector>

namespace sinew {

// Known answers of the Random123 distribution, kat_vectors, philox 4x32 10.
TEST(Philox, KnownAnswers) {
  EXPECT_EQ(philox(0, 0, 0), (std::array<std::uint32_t, 4>{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(philox(~0ull, ~0ull, ~0ull),
            (std::array<std::uint32_t, 4>{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(philox(0x299f31d0a4093822, 0x0370734413198a2e, 0x85a308d3243f6a88),
            (std::array<std::uint32_t, 4>{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(Random, NormalHasUnitMoments) {
  const Random random(7, "weights");
  double sum = 0, square = 0;
  const int n = 200000;
  for (int i = 0; i < n; ++i) {
    const double x = random.normal(i);
    sum += x;
    square += x * x;
  }
  EXPECT_NEAR(sum / n, 0, 0.01);
  EXPECT_NEAR(square / n, 1, 0.02);
}

TEST(Random, FillEqualsSingleValuesAtAnyOffset) {
  const Random random(3, "t");
  std::vector<float> whole(100), part(40);
  random.fill_normal(whole.data(), 0, 100, 0, 0.02f);
  random.fill_normal(part.data(), 60, 40, 0, 0.02f);
  EXPECT_TRUE(std::equal(part.begin(), part.end(), whole.begin() + 60));
}

PROPERTY(Permutation, IsABijection) {
  const auto size = test::draw<std::uint64_t>(1, 3000);
  const Permutation shuffle(size, test::draw_bits());
  std::set<std::uint64_t> seen;
  for (std::uint64_t i = 0; i < size; ++i) {
    HOLDS(shuffle(i) < size);
    seen.insert(shuffle(i));
  }
  HOLDS(seen.size() == size);
}

}  // namespace sinew
