#include "quant/quantize_rows.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <nlohmann/json.hpp>
#include <vector>

#include "base/files.hpp"
#include "base/random.hpp"
#include "quant/block_fit.hpp"
#include "support/property.hpp"
#include "support/support.hpp"

namespace sinew {
namespace {

std::vector<float> load_floats(const fs::path& path) {
  const std::string bytes = test::slurp(path);
  std::vector<float> out(bytes.size() / 4);
  std::memcpy(out.data(), bytes.data(), bytes.size());
  return out;
}

std::vector<std::byte> quantize(BlockFormat format, const std::vector<float>& x, std::int64_t cols,
                                Rounding rounding, const float* importance = nullptr) {
  std::vector<std::byte> out(block_bytes(format, x.size()));
  quantize_rows(format, x.data(), static_cast<std::int64_t>(x.size()) / cols, cols, importance, out.data(),
                rounding);
  return out;
}

double squared_error(const float* a, const float* b, std::size_t count) {
  double sum = 0;
  for (std::size_t i = 0; i < count; ++i)
    sum += (static_cast<double>(a[i]) - b[i]) * (static_cast<double>(a[i]) - b[i]);
  return sum;
}

std::vector<float> values_of(BlockFormat format, const std::vector<std::byte>& blocks, std::size_t count) {
  std::vector<float> out(count);
  dequantize(format, blocks.data(), out.data(), count);
  return out;
}

}  // namespace

// Row by row, not only in sum: the six rows are of different kinds and sizes.
TEST(QuantizeRows, NoWorseThanGgmlOnAnyRow) {
  SINEW_NEED_DATA();
  const auto folder = test::data_dir() / "formats" / "ggml_quant";
  const std::vector<float> input = load_floats(folder / "input.f32");
  for (const BlockInfo& info : block_formats()) {
    if (info.format == BlockFormat::f32) continue;
    const std::vector<float> theirs = load_floats(folder / (std::string(info.name) + ".dequant.f32"));
    const auto ours =
        values_of(info.format, quantize(info.format, input, 512, Rounding::search), input.size());
    for (std::size_t row = 0; row < 6; ++row) {
      const double a = squared_error(input.data() + row * 512, ours.data() + row * 512, 512);
      const double b = squared_error(input.data() + row * 512, theirs.data() + row * 512, 512);
      EXPECT_LE(a, b * (1 + 1e-9)) << info.name << " row " << row << ": rmse " << std::sqrt(a / 512)
                                   << ", ggml's " << std::sqrt(b / 512);
    }
  }
}

TEST(QuantizeRows, PlainRoundingIsGgmlsBitForBit) {
  SINEW_NEED_DATA();
  const auto folder = test::data_dir() / "formats" / "ggml_quant";
  const std::vector<float> input = load_floats(folder / "input.f32");
  for (const char* name : {"f16", "bf16", "q8_0", "q4_0", "q4_1", "q5_0", "q5_1"}) {
    const std::string expected = test::slurp(folder / (std::string(name) + ".blocks.bin"));
    const auto blocks = quantize(find_block_format(name)->format, input, 512, Rounding::plain);
    ASSERT_EQ(blocks.size(), expected.size());
    EXPECT_EQ(std::memcmp(blocks.data(), expected.data(), blocks.size()), 0) << name;
  }
}

// What is packed must be what the fit says: the dequantized bytes equal level_value of each element.
PROPERTY(QuantizeRows, PackedBlocksSayWhatTheFitSays) {
  const auto seed = test::draw_bits();
  const float spread = std::pow(10.F, static_cast<float>(test::draw(-4, 4)));
  const float shift = test::draw_of({0.F, 1.F, -2.F});
  std::vector<float> x(kSuperBlock);
  Random(seed, 0).fill_normal(x.data(), 0, x.size(), shift * spread, spread);
  for (const BlockInfo& info : block_formats()) {
    if (info.elements == 1) continue;
    const BlockShape shape = block_shape(info.format);
    for (std::size_t at = 0; at < x.size(); at += info.elements) {
      BlockFit fit;
      std::int8_t levels[kSuperBlock];
      fit_block(info.format, x.data() + at, nullptr, fit, levels);
      std::vector<std::byte> bytes(info.bytes);
      pack_block(info.format, fit, levels, bytes.data());
      const auto out = values_of(info.format, bytes, info.elements);
      for (std::size_t i = 0; i < info.elements; ++i) {
        const std::size_t group = i / shape.group_size;
        HOLDS(out[i] == level_value(info.format, fit, group, levels[i]));
        const int nearest = nearest_level(info.format, fit, group, x[at + i]);
        HOLDS(std::abs(level_value(info.format, fit, group, nearest) - x[at + i]) <=
              std::abs(out[i] - x[at + i]) * 1.0001F + 1e-30F);
      }
    }
  }
}

TEST(QuantizeRows, MoreBitsMeanLessError) {
  std::vector<float> x(64 * 256);
  Random(3, 0).fill_normal(x.data(), 0, x.size(), 0, 0.02F);
  double last = 1;
  for (const char* name : {"q2_k", "q3_k", "q4_k", "q5_k", "q6_k", "q8_0"}) {
    const BlockFormat format = find_block_format(name)->format;
    const double error = squared_error(
        x.data(), values_of(format, quantize(format, x, 256, Rounding::search), x.size()).data(), x.size());
    EXPECT_LT(error, 0.55 * last) << name;
    last = error;
  }
}

TEST(QuantizeRows, ImportanceMovesTheErrorToWhereItMattersLess) {
  std::vector<float> x(256 * 16), importance(256);
  Random(5, 0).fill_normal(x.data(), 0, x.size(), 0, 1);
  for (std::size_t i = 0; i < 256; ++i) importance[i] = i % 2 == 0 ? 100.F : 1.F;
  for (const BlockInfo& info : block_formats()) {
    if (info.elements == 1) continue;
    const auto weighted_error = [&](const float* weights) {
      const auto out =
          values_of(info.format, quantize(info.format, x, 256, Rounding::search, weights), x.size());
      double sum = 0;
      for (std::size_t i = 0; i < x.size(); ++i)
        sum += importance[i % 256] * (out[i] - x[i]) * (out[i] - x[i]);
      return sum;
    };
    EXPECT_LT(weighted_error(importance.data()), weighted_error(nullptr)) << info.name;
  }
}

TEST(QuantizeRows, ZerosHugeAndTinyValuesStayFinite) {
  for (const BlockInfo& info : block_formats()) {
    for (const float scale : {0.F, 1e-30F, 1e-8F, 1e4F, 1e6F}) {
      std::vector<float> x(256);
      for (std::size_t i = 0; i < x.size(); ++i) x[i] = scale * static_cast<float>(i % 7);
      for (const float value : values_of(info.format, quantize(info.format, x, 256, Rounding::search), 256)) {
        EXPECT_TRUE(std::isfinite(value) || (info.format == BlockFormat::f16 && scale > 60000))
            << info.name << " " << scale;
        EXPECT_TRUE(scale != 0 || value == 0) << info.name;
      }
    }
  }
}

}  // namespace sinew
