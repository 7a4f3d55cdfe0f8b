#include "base/machine.hpp"

#include <gtest/gtest.h>

#include "base/threads.hpp"

namespace sinew {

TEST(Machine, SaysWhatIsThere) {
  const Machine machine = this_machine();
  EXPECT_GE(machine.cores, 1);
  EXPECT_GE(machine.cores_online, machine.cores);
  EXPECT_GT(machine.memory, std::uint64_t{1} << 20);
  EXPECT_LE(machine.memory_free, machine.memory);
  EXPECT_FALSE(machine.kernel.empty());
}

TEST(Machine, ControlGroupLimits) {
  EXPECT_EQ(parse_memory_limit("max\n"), 0u);
  EXPECT_EQ(parse_memory_limit("1073741824\n"), std::uint64_t{1} << 30);
  EXPECT_EQ(parse_memory_limit(""), 0u);
  EXPECT_EQ(parse_cpu_quota("max 100000\n"), 0);
  EXPECT_EQ(parse_cpu_quota("150000 100000\n"), 1.5);
  EXPECT_EQ(parse_cpu_quota(""), 0);
}

TEST(Machine, DiskSpace) {
  const auto here = disk_space(".");
  EXPECT_GT(here.size, 0u);
  EXPECT_LE(here.free, here.size);
  EXPECT_EQ(disk_space("/no/such/folder").size, 0u);
}

}  // namespace sinew
