#include "kernels/float_stream.hpp"

#include <gtest/gtest.h>

#include <cstring>
#include <vector>

#include "base/random.hpp"
#include "kernels/bf16.hpp"

namespace sinew {
namespace {

constexpr BlockFormat kFormats[] = {BlockFormat::f32, BlockFormat::f16, BlockFormat::bf16};

// A matrix at an odd place in memory, and its numbers as the product should see them.
struct Weights {
  Weights(BlockFormat format_, index_t rows_, index_t cols_, std::uint64_t seed)
      : format(format_), rows(rows_), cols(cols_), numbers(static_cast<std::size_t>(rows_ * cols_)) {
    const Random random(seed, "weights");
    for (std::size_t i = 0; i < numbers.size(); ++i) numbers[i] = static_cast<float>(random.normal(i));
    bytes.resize(block_bytes(format, numbers.size()) + 2);
    for (std::size_t i = 0; i < numbers.size(); ++i) {
      const bf16 rounded = to_bf16(numbers[i]);
      const auto half = static_cast<std::uint16_t>(random.bits(i) & 0xbfff);  // below 2
      if (format == BlockFormat::f32) std::memcpy(bytes.data() + 2 + 4 * i, &numbers[i], 4);
      if (format == BlockFormat::bf16) std::memcpy(bytes.data() + 2 + 2 * i, &rounded, 2);
      if (format == BlockFormat::f16) std::memcpy(bytes.data() + 2 + 2 * i, &half, 2);
    }
    std::vector<std::byte> copy(bytes.begin() + 2, bytes.end());
    dequantize(format, copy.data(), numbers.data(), numbers.size());
  }
  BlockFormat format;
  index_t rows, cols;
  std::vector<float> numbers;
  std::vector<std::byte> bytes;
};

std::vector<float> random_rows(index_t count, std::uint64_t seed) {
  std::vector<float> x(static_cast<std::size_t>(count));
  const Random random(seed, "rows");
  for (std::size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(random.normal(i));
  return x;
}

TEST(FloatStream, ProductsOfEveryFormatAndShape) {
  for (const Isa isa : available_isas())
    for (const BlockFormat format : kFormats) {
      EXPECT_EQ(streams_floats(isa, format), isa != Isa::scalar);
      if (isa == Isa::scalar) continue;
      const Random random(3, "shapes");
      for (std::uint64_t round = 0; round < 12; ++round) {
        const auto draw = [&](std::uint64_t n, index_t most) {
          return static_cast<index_t>(random.below(4 * round + n, static_cast<std::uint64_t>(most))) + 1;
        };
        const index_t tokens = draw(0, 8), cols = draw(1, 700);
        const Weights first(format, draw(2, 300), cols, round), second(format, draw(3, 40), cols, round + 99);
        const auto x = random_rows(tokens * (cols + 3), round), bias = random_rows(second.rows, round + 1);
        std::vector<float> y(static_cast<std::size_t>(tokens * (first.rows + second.rows)), 7.0F);
        const index_t ld = cols + 3, ldy = first.rows + second.rows;
        const auto product = [&](const Weights& w, index_t count, const float* from, float* to,
                                 const float* b) {
          return FloatProduct{format, w.bytes.data() + 2, w.rows, cols, from, ld, count, to, ldy, b};
        };
        const FloatProduct list[] = {product(first, tokens, x.data(), y.data(), nullptr),
                                     product(second, tokens, x.data(), y.data() + first.rows, bias.data())};
        float_products(isa, list);
        for (const FloatProduct& p : list) {
          const Weights& w = &p == list ? first : second;
          for (index_t t = 0; t < tokens; ++t)
            for (index_t r = 0; r < w.rows; ++r) {
              double want = p.bias != nullptr ? static_cast<double>(p.bias[r]) : 0, size = std::abs(want);
              for (index_t c = 0; c < cols; ++c) {
                const double term = static_cast<double>(w.numbers[static_cast<std::size_t>(r * cols + c)]) *
                                    static_cast<double>(x[static_cast<std::size_t>(t * ld + c)]);
                want += term;
                size += std::abs(term);
              }
              ASSERT_NEAR(static_cast<double>(p.y[t * ldy + r]), want, 1e-6 * size)
                  << isa_name(isa) << " " << block_info(format).name << " " << cols << " columns, token "
                  << t;
            }
        }
        for (index_t t = 0; t < tokens; ++t) {  // each alone: the same bits
          std::vector<float> alone(static_cast<std::size_t>(first.rows));
          const FloatProduct one = product(first, 1, x.data() + t * ld, alone.data(), nullptr);
          float_products(isa, {&one, 1});
          EXPECT_EQ(std::memcmp(alone.data(), y.data() + t * ldy, alone.size() * sizeof(float)), 0);
        }
      }
    }
}

TEST(FloatStream, WritesNoRowBeyondTheMatrix) {
  const Weights small(BlockFormat::f32, 64, 64, 1);
  const auto x = random_rows(64, 2);
  for (const index_t rows : {1, 2, 64}) {
    std::vector<float> y(64, -1.0F);
    const FloatProduct p{BlockFormat::f32, small.bytes.data() + 2, rows, 64, x.data(), 64, 1, y.data(), 64,
                         nullptr};
    if (streams_floats(best_isa(), BlockFormat::f32)) float_products(best_isa(), {&p, 1});
    for (index_t r = rows; r < 64; ++r) EXPECT_EQ(y[static_cast<std::size_t>(r)], -1.0F);
  }
}

}  // namespace
}  // namespace sinew
