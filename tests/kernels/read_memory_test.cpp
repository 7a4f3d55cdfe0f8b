#include "kernels/read_memory.hpp"

#include <gtest/gtest.h>

#include <vector>

#include "base/random.hpp"

namespace sinew {
namespace {

std::uint64_t plain_xor(const std::vector<MemoryRange>& ranges) {
  std::uint64_t sum = 0;
  for (const MemoryRange& range : ranges)
    for (std::size_t i = 0; i < range.size(); ++i) sum ^= static_cast<std::uint64_t>(range[i]) << (i % 8 * 8);
  return sum;
}

}  // namespace

TEST(ReadMemory, EveryByteOnceInEveryPattern) {
  std::vector<std::byte> bytes(200'000);
  const Random random(7, "bytes to read");
  for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::byte>(random.below(i, 256));
  const std::span all(bytes);
  const std::vector<std::vector<MemoryRange>> lists = {
      {all},
      {all.subspan(64, 1)},
      {},
      {all.subspan(3, 70'001), all.subspan(90'000, 5), all.subspan(100'000, 0), all.subspan(120'003, 79'997)},
  };
  for (const auto& ranges : lists)
    for (const ReadPattern& pattern :
         {ReadPattern{1, 0, 0}, ReadPattern{8, 1024, 0}, ReadPattern{3, 3072, 512}})
      EXPECT_EQ(read_memory(ranges, pattern), plain_xor(ranges)) << ranges.size() << ", " << pattern.streams;
}

}  // namespace sinew
