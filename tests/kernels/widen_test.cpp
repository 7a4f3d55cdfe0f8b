#include "kernels/widen.hpp"

#include <gtest/gtest.h>

#include <cstring>
#include <vector>

#include "base/random.hpp"

namespace sinew {
namespace {

TEST(Widen, TheSameBitsAsDequantize) {
  for (const Isa isa : available_isas())
    for (const BlockFormat format :
         {BlockFormat::f16, BlockFormat::bf16, BlockFormat::q8_0, BlockFormat::q4_0}) {
      const WidenRow function = widen_row(isa, format);
      EXPECT_EQ(function == nullptr, isa == Isa::scalar);
      if (function == nullptr) continue;
      const std::size_t elements = block_info(format).elements;
      for (const std::size_t n :
           {elements, 3 * elements, elements == 1 ? std::size_t{1000} : 20 * elements}) {
        std::vector<std::byte> row(block_bytes(format, n));
        for (std::size_t i = 0; i < row.size(); ++i)  // no NaN: exponents of halves stay below the largest
          row[i] = static_cast<std::byte>(Random(n, 5).bits(i) & (i % 2 == 1 ? 0xbf : 0xff));
        std::vector<float> want(n), got(n);
        dequantize(format, row.data(), want.data(), n);
        function(row.data(), n, got.data());
        EXPECT_EQ(std::memcmp(want.data(), got.data(), n * sizeof(float)), 0)
            << isa_name(isa) << " " << block_info(format).name << " " << n;
      }
    }
}

}  // namespace
}  // namespace sinew
