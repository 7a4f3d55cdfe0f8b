#include "kernels/restart.hpp"

#include <gtest/gtest.h>

namespace sinew {

TEST(Restart, AsksForHugePagesBesideWhatTheUserAskedFor) {
  EXPECT_EQ(tunables_with_huge_pages(""), "glibc.malloc.hugetlb=1");
  EXPECT_EQ(tunables_with_huge_pages("glibc.malloc.check=3"), "glibc.malloc.check=3:glibc.malloc.hugetlb=1");
}

TEST(Restart, HappensOnceAndLeavesTheUsersChoice) {
  EXPECT_EQ(tunables_with_huge_pages(tunables_with_huge_pages("glibc.malloc.check=3")), "");
  EXPECT_EQ(tunables_with_huge_pages("glibc.malloc.hugetlb=0"), "");
}

}  // namespace sinew
