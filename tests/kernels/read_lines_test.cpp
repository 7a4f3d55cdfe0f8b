#include "kernels/read_lines_simd.hpp"

#include <gtest/gtest.h>

#include <vector>

#include "base/random.hpp"
#include "kernels/isa.hpp"

namespace sinew {

// read_memory() takes the widest that the machine has: here each on its own.
TEST(ReadLines, EveryWidthOfVectorsReadsEveryByteOnce) {
  std::vector<std::byte> bytes(30'000);
  const Random random(7, "lines to read");
  for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::byte>(random.below(i, 256));
  for (const std::size_t count : {0, 1, 63, 256, 1024, 8191, 30'000}) {
    const MemoryRange range = std::span(bytes).first(count);
    std::uint64_t want = 0;
    for (std::size_t i = 0; i < count; ++i) want ^= static_cast<std::uint64_t>(range[i]) << (i % 8 * 8);
    for (const ReadPattern& pattern :
         {ReadPattern{1, 0, 0}, ReadPattern{8, 0, 0}, ReadPattern{4, 1024, 0}, ReadPattern{3, 3072, 512}}) {
      EXPECT_EQ(read_range_lines(range, pattern), want) << count << ", " << pattern.streams;
#if defined(__x86_64__)
      if (best_isa() >= Isa::avx512) {
        EXPECT_EQ(read_range_avx512(range, pattern), want) << count << ", " << pattern.streams;
      }
#endif
    }
  }
}

}  // namespace sinew
