#include "kernels/quant_tables.hpp"

#include <gtest/gtest.h>

#include <algorithm>

#include "kernels/quant_support.hpp"

namespace sinew {
namespace {

struct Rows {
  index_t tokens, cols, wide = padded_cols(cols);
  test::Aligned<std::int8_t> q{tokens * wide};
  test::Aligned<float> scale{tokens * spans(cols)};
  test::Aligned<std::int32_t> sums{tokens * wide / 16};
  test::Aligned<float> pairs{tokens * wide / 32};
  QuantRow row(index_t t) {
    return {q.data() + t * wide, scale.data() + t * spans(cols), sums.data() + t * wide / 16,
            pairs.data() + t * wide / 32};
  }
  double value(index_t t, index_t i) {
    return static_cast<double>(row(t).q[i]) * static_cast<double>(row(t).scale[i / kSpan]);
  }
};

Rows quantized(const QuantKernels& kernels, const std::vector<float>& x, index_t tokens, index_t cols) {
  Rows rows{.tokens = tokens, .cols = cols};
  for (index_t t = 0; t < tokens; ++t) kernels.quantize_row(x.data() + t * cols, cols, rows.row(t));
  return rows;
}

// [tokens, rows] in fp64 from dequantized weights and the rows as they were quantized.
std::vector<double> reference(const std::vector<float>& weights, index_t rows, Rows& x) {
  std::vector<double> out(static_cast<std::size_t>(x.tokens * rows));
  for (index_t t = 0; t < x.tokens; ++t)
    for (index_t r = 0; r < rows; ++r) {
      double sum = 0;
      for (index_t i = 0; i < x.cols; ++i)
        sum += static_cast<double>(weights[static_cast<std::size_t>(r * x.cols + i)]) * x.value(t, i);
      out[static_cast<std::size_t>(t * rows + r)] = sum;
    }
  return out;
}

test::Aligned<std::byte> packed(BlockFormat format, const std::vector<std::byte>& blocks, index_t rows,
                                index_t cols) {
  test::Aligned<std::byte> out(static_cast<index_t>(packed_bytes(format, rows, cols)));
  pack_tiles(format, blocks.data(), rows, cols, 0, (rows + 15) / 16, out.data());
  return out;
}

std::vector<Isa> integer_isas() {
  std::vector<Isa> list;
  for (const Isa isa : available_isas())
    if (quant_kernels(isa) != nullptr) list.push_back(isa);
  return list;
}

std::vector<index_t> widths(BlockFormat format) {
  if (packed_layout(format).elements == 256) return {256, 768};
  return {32, 256, 352, 704};
}

}  // namespace

TEST(QuantKernels, RowsRoundToEightBitsWithOneScaleASpan) {
  for (const Isa isa : integer_isas()) {
    const index_t cols = 608;
    auto x = test::random_matrix<float>(2 * cols, 1);
    for (index_t i = 0; i < 256; ++i) x[static_cast<std::size_t>(i)] = 0;  // a span of zeros
    Rows rows = quantized(*quant_kernels(isa), x, 2, cols);
    for (index_t t = 0; t < 2; ++t) {
      for (index_t i = 0; i < cols; ++i) {
        const double step = static_cast<double>(rows.row(t).scale[i / kSpan]);
        EXPECT_NEAR(rows.value(t, i), static_cast<double>(x[static_cast<std::size_t>(t * cols + i)]),
                    0.5001 * step);
      }
      for (index_t i = 0; i < rows.wide; i += 16) {
        int sum = 0;
        for (index_t j = i; j < i + 16; ++j) sum += rows.row(t).q[j];
        EXPECT_EQ(sum, rows.row(t).sums[i / 16]);
        const int pair = sum + (i % 32 != 0 ? rows.row(t).sums[i / 16 - 1] : rows.row(t).sums[i / 16 + 1]);
        EXPECT_EQ(rows.row(t).pairs[i / 32], static_cast<float>(pair));
      }
    }
  }
}

// As quantize_row() makes it, from pieces that lie apart to steps that lie apart.
TEST(QuantKernels, PiecesOfASpanRoundAsRowsDo) {
  constexpr index_t apart = 48;
  for (const Isa isa : integer_isas())
    for (const index_t pieces : {1, 3, 8}) {
      const QuantKernels& kernels = *quant_kernels(isa);
      const auto x = test::random_matrix<float>(pieces * apart, 5);
      std::vector<float> row;
      for (index_t i = 0; i < pieces * 32; ++i)
        row.push_back(x[static_cast<std::size_t>(i / 32 * apart + i % 32)]);
      Rows want = quantized(kernels, row, 1, pieces * 32);
      std::vector<std::int8_t> got(4 * 1024, 99);
      float scale = 0;
      std::int32_t sum = 0, all = 0;
      kernels.quantize_pieces(x.data(), apart, pieces, got.data(), &scale, &sum);
      EXPECT_EQ(scale, want.row(0).scale[0]);
      for (index_t i = 0; i < want.wide; ++i) {
        EXPECT_EQ(got[static_cast<std::size_t>(i / 64 * 1024 + i % 64)], want.row(0).q[i])
            << isa_name(isa) << i;
        all += want.row(0).q[i];
      }
      EXPECT_EQ(sum, all) << isa_name(isa);
    }
}

TEST(QuantKernels, RowsAreAddedWhereTheyBelong) {
  const std::vector<std::int32_t> places = {2, 0, 3};
  const std::vector<float> factors = {0.5F, -2.0F, 3.0F};
  const auto x = test::random_matrix<float>(3 * 32, 6);
  for (const Isa isa : integer_isas())
    for (const bool listed : {true, false}) {
      std::vector<float> y(4 * 40, 1.0F), want = y;
      quant_kernels(isa)->add_rows(x.data(), listed ? places.data() : nullptr,
                                   listed ? factors.data() : nullptr, 3, y.data(), 40);
      for (std::size_t i = 0; i < 3 * 32; ++i)
        want[(listed ? static_cast<std::size_t>(places[i / 32]) : i / 32) * 40 + i % 32] +=
            (listed ? factors[i / 32] : 1.0F) * x[i];
      for (std::size_t i = 0; i < y.size(); ++i) EXPECT_NEAR(y[i], want[i], 1e-5) << isa_name(isa) << i;
    }
}

TEST(QuantKernels, FewTokensAreExact) {
  for (const BlockFormat format : test::packable_formats())
    for (const index_t cols : widths(format)) {
      const index_t rows = 40;  // the last tile is half empty
      const auto blocks = test::random_blocks(format, rows, cols, 7);
      const auto weights = test::dequantized(format, blocks, rows * cols);
      auto tiles = packed(format, blocks, rows, cols);
      const auto x = test::random_matrix<float>(kFewRows * cols, 3);
      for (const Isa isa : integer_isas())
        for (index_t tokens = 1; tokens <= kFewRows; ++tokens) {
          Rows quant = quantized(*quant_kernels(isa), x, tokens, cols);
          QuantRow row[kFewRows];
          for (index_t t = 0; t < tokens; ++t) row[t] = quant.row(t);
          test::Aligned<float> out(tokens * 48);
          quant_kernels(isa)->dot_tiles(format, tiles.data(), 3, cols, row, tokens, nullptr, out.data(), 48);
          const auto want = reference(weights, rows, quant);
          std::vector<float> got;
          for (index_t t = 0; t < tokens; ++t) {
            got.insert(got.end(), out.data() + t * 48, out.data() + t * 48 + rows);
            for (index_t r = rows; r < 48; ++r) EXPECT_EQ(out.data()[t * 48 + r], 0);
          }
          EXPECT_LT(test::relative_error(got, want), 2e-6)
              << block_info(format).name << " " << cols << " " << isa_name(isa) << " " << tokens;
        }
    }
}

TEST(QuantKernels, SpansOfOneScaleAreNearTheWeights) {
  for (const BlockFormat format : test::packable_formats())
    for (const index_t cols : widths(format)) {
      const auto blocks = test::random_blocks(format, 16, cols, 11);
      const auto weights = test::dequantized(format, blocks, 16 * cols);
      auto tile = packed(format, blocks, 16, cols);
      for (const Isa isa : integer_isas()) {
        const bool plus_128 = isa == Isa::vnni || isa == Isa::bf16;
        for (index_t span = 0; span < spans(cols); ++span) {
          test::Aligned<std::int8_t> out(16 * kSpan);
          float scale[16];
          quant_kernels(isa)->unpack_span(format, tile.data(), cols, span, out.data(), scale);
          const index_t count = std::min(kSpan, cols - span * kSpan);
          for (index_t r = 0; r < 16; ++r)
            for (index_t i = 0; i < round_up(count, 64); ++i) {
              const std::int8_t bits = out.data()[i / 4 * 64 + r * 4 + i % 4];
              const int value = plus_128 ? static_cast<std::uint8_t>(bits) - 128 : bits;
              const double want =
                  i < count ? weights[static_cast<std::size_t>(r * cols + span * kSpan + i)] : 0;
              ASSERT_NEAR(value * scale[r], want, 0.8 * scale[r])
                  << block_info(format).name << " " << cols << " " << isa_name(isa) << " row " << r << " "
                  << i;
            }
        }
      }
    }
}

TEST(QuantKernels, ProductsOfUnpackedSpansAreExact) {
  for (const Isa isa : integer_isas()) {
    const QuantKernels& kernels = *quant_kernels(isa);
    const bool plus_128 = isa == Isa::vnni || isa == Isa::bf16;
    const Random random(5, "product");
    for (const index_t tokens : {3, 16, 26, 33, 48, 77})
      for (const index_t steps : {1, 4}) {
        const index_t groups = (tokens + 15) / 16;
        test::Aligned<std::int8_t> a(groups * 16 * kSpan), b(32 * kSpan);
        test::Aligned<float> b_scale(32), scale(groups * 16), acc(groups * 16 * 32);
        test::Aligned<std::int32_t> sum(groups * 16);
        std::uint64_t n = 0;
        const auto number = [&] { return static_cast<std::int8_t>(random.bits(n++) % 255); };
        for (index_t i = 0; i < groups * 16 * kSpan; ++i)
          a.data()[i] = static_cast<std::int8_t>(std::max<int>(number(), -127));
        for (index_t i = 0; i < 32 * kSpan; ++i)
          b.data()[i] = static_cast<std::int8_t>(std::max<int>(number(), -127));
        for (index_t i = 0; i < 32; ++i) b_scale.data()[i] = static_cast<float>(0.5 + i);
        for (index_t i = 0; i < groups * 16; ++i) scale.data()[i] = static_cast<float>(2.0 - 0.1 * i);
        std::vector<double> want(static_cast<std::size_t>(tokens * 32), 1.0);
        for (index_t t = 0; t < tokens; ++t) {
          const std::int8_t* const row = a.data() + t / 16 * 16 * kSpan + t % 16 * 64;
          sum.data()[t] = 0;
          for (index_t i = 0; i < steps * 64; ++i) sum.data()[t] += row[i / 64 * 1024 + i % 64];
          for (index_t r = 0; r < 32; ++r) {
            double total = 0;
            for (index_t i = 0; i < steps * 64; ++i)
              total += row[i / 64 * 1024 + i % 64] *
                       b.data()[r / 16 * 16 * kSpan + i / 4 * 64 + r % 16 * 4 + i % 4];
            want[static_cast<std::size_t>(t * 32 + r)] +=
                total * static_cast<double>(b_scale.data()[r]) * static_cast<double>(scale.data()[t]);
          }
        }
        if (plus_128)
          for (index_t i = 0; i < 32 * kSpan; ++i) b.data()[i] = static_cast<std::int8_t>(b.data()[i] ^ 0x80);
        std::fill_n(acc.data(), groups * 16 * 32, 1.0F);
        kernels.begin();
        kernels.product(a.data(), 16 * kSpan, tokens, steps, b.data(), b_scale.data(), scale.data(),
                        sum.data(), acc.data(), false, {});
        const std::vector<float> got(acc.data(), acc.data() + tokens * 32);
        EXPECT_LT(test::relative_error(got, want), 1e-6) << isa_name(isa);
        kernels.product(a.data(), 16 * kSpan, tokens, steps, b.data(), b_scale.data(), scale.data(),
                        sum.data(), acc.data(), true, {});
        kernels.end();
        for (double& w : want) w -= 1;
        const std::vector<float> fresh(acc.data(), acc.data() + tokens * 32);
        EXPECT_LT(test::relative_error(fresh, want), 1e-6) << isa_name(isa);
      }
  }
}

// What the peak is measured with: all sums, in an order of the set's own.
TEST(QuantKernels, BareProductsAreExact) {
  constexpr index_t groups = 4, steps = 6, tokens = groups * 16, row = steps * 1024;
  const Random random(9, "bare");
  test::Aligned<std::int8_t> a(groups * row), b(2 * row);
  for (index_t i = 0; i < groups * row; ++i)
    a.data()[i] = static_cast<std::int8_t>(random.bits(static_cast<std::uint64_t>(i)) % 255 - 127);
  for (index_t i = 0; i < 2 * row; ++i)
    b.data()[i] = static_cast<std::int8_t>(random.bits(static_cast<std::uint64_t>(i) + 99999) % 255 - 127);
  for (const Isa isa : integer_isas()) {
    const QuantKernels& kernels = *quant_kernels(isa);
    const bool plus_128 = isa == Isa::vnni || isa == Isa::bf16;
    std::vector<std::int32_t> want;
    for (index_t t = 0; t < tokens; ++t)
      for (index_t r = 0; r < 32; ++r) {
        std::int32_t total = 0;
        for (index_t i = 0; i < steps * 64; ++i) {
          const std::int8_t code = b.data()[r / 16 * row + i / 4 * 64 + r % 16 * 4 + i % 4];
          total += a.data()[t / 16 * row + i / 64 * 1024 + t % 16 * 64 + i % 64] *
                   (plus_128 ? static_cast<std::uint8_t>(code) : code);
        }
        want.push_back(total);
      }
    test::Aligned<std::int32_t> sums(tokens * 32);
    kernels.begin();
    kernels.multiply(a.data(), row, groups, steps, b.data(), sums.data());
    kernels.end();
    std::vector<std::int32_t> got(sums.data(), sums.data() + tokens * 32);
    std::sort(got.begin(), got.end());
    std::sort(want.begin(), want.end());
    EXPECT_EQ(got, want) << isa_name(isa);
  }
}

TEST(QuantKernels, UnpackingBesideProductsChangesNeither) {
  for (const Isa isa : integer_isas()) {
    const QuantKernels& kernels = *quant_kernels(isa);
    if (kernels.product_while == nullptr) continue;
    const Random random(6, "beside");
    test::Aligned<std::int8_t> a(3 * 16 * kSpan), b(32 * kSpan), codes(32 * kSpan), want_codes(32 * kSpan);
    test::Aligned<float> b_scale(32), scale(48), acc(48 * 32), want(48 * 32), made(32), want_made(32);
    for (index_t i = 0; i < 3 * 16 * kSpan; ++i)
      a.data()[i] = static_cast<std::int8_t>(random.bits(static_cast<std::uint64_t>(i)) % 255 - 127);
    for (index_t i = 0; i < 32 * kSpan; ++i)
      b.data()[i] = static_cast<std::int8_t>(random.bits(static_cast<std::uint64_t>(i) + 99999) % 255 - 127);
    for (index_t i = 0; i < 32; ++i) b_scale.data()[i] = static_cast<float>(0.5 + i);
    for (index_t i = 0; i < 48; ++i) scale.data()[i] = static_cast<float>(2.0 - 0.01 * i);
    for (const BlockFormat format : test::packable_formats())
      for (const index_t cols : widths(format))
        for (const index_t groups : {1, 2, 3})
          for (const bool second : {false, true}) {
            const auto blocks = test::random_blocks(format, 32, cols, 12);
            auto tiles = packed(format, blocks, 32, cols);
            const std::byte* const other = tiles.data() + packed_layout(format).tile_bytes(cols);
            const index_t span = spans(cols) - 1, steps = second ? 4 : 2;
            std::fill_n(acc.data(), 48 * 32, 1.0F);
            std::fill_n(want.data(), 48 * 32, 1.0F);
            kernels.begin();
            kernels.product_while(a.data(), 16 * kSpan, groups, steps, b.data(), b_scale.data(), scale.data(),
                                  acc.data(), false,
                                  {format,
                                   tiles.data(),
                                   second ? other : nullptr,
                                   cols,
                                   span,
                                   codes.data(),
                                   made.data(),
                                   {tiles.data(), 5}});
            kernels.product(a.data(), 16 * kSpan, groups * 16, steps, b.data(), b_scale.data(), scale.data(),
                            nullptr, want.data(), false, {});
            kernels.end();
            kernels.unpack_span(format, tiles.data(), cols, span, want_codes.data(), want_made.data());
            kernels.unpack_span(format, other, cols, span, want_codes.data() + 16 * kSpan,
                                want_made.data() + 16);
            const index_t count = round_up(std::min(kSpan, cols - span * kSpan), 64) * 16;
            for (index_t half = 0; half < (second ? 2 : 1); ++half) {
              EXPECT_EQ(std::memcmp(codes.data() + half * 16 * kSpan, want_codes.data() + half * 16 * kSpan,
                                    static_cast<std::size_t>(count)),
                        0)
                  << block_info(format).name << " " << cols;
              EXPECT_EQ(std::memcmp(made.data() + half * 16, want_made.data() + half * 16, 64), 0);
            }
            for (index_t r = second ? 32 : 16; r < 32; ++r) EXPECT_EQ(made.data()[r], 0);
            EXPECT_EQ(std::memcmp(acc.data(), want.data(), 48 * 32 * sizeof(float)), 0)
                << block_info(format).name << " " << groups;
          }
  }
}

}  // namespace sinew
