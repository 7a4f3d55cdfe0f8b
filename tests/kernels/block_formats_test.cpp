#include "kernels/block_formats.hpp"

#include <gtest/gtest.h>

#include <cstring>
#include <nlohmann/json.hpp>
#include <vector>

#include "base/error.hpp"
#include "support/support.hpp"

namespace sinew {

TEST(BlockFormats, DequantizeBitForBitLikeGgml) {
  SINEW_NEED_DATA();
  const auto folder = test::data_dir() / "formats" / "ggml_quant";
  const auto manifest = nlohmann::json::parse(test::slurp(folder / "manifest.json"));
  ASSERT_EQ(manifest["types"].size(), 14u);
  for (const auto& type : manifest["types"]) {
    const std::string name = type["type"];
    const BlockInfo* info = find_block_format(name);
    ASSERT_NE(info, nullptr) << name;
    EXPECT_EQ(static_cast<std::uint32_t>(info->format), type["ggml_type_id"]) << name;
    EXPECT_EQ(info->elements, type["block_elems"]) << name;
    EXPECT_EQ(info->bytes, type["block_bytes"]) << name;
    const std::string blocks = test::slurp(folder / (name + ".blocks.bin"));
    const std::string expected = test::slurp(folder / (name + ".dequant.f32"));
    std::vector<float> out(expected.size() / 4);
    ASSERT_EQ(block_bytes(info->format, out.size()), blocks.size()) << name;
    dequantize(info->format, reinterpret_cast<const std::byte*>(blocks.data()), out.data(), out.size());
    EXPECT_EQ(std::memcmp(out.data(), expected.data(), expected.size()), 0) << name;
  }
}

TEST(BlockFormats, UnpackedScalesUseEveryBitOnce) {
  // Each bit of the packed scales lights exactly one bit of one value.
  for (std::size_t bit = 0; bit < 96; ++bit) {
    std::uint8_t packed[12] = {};
    packed[bit / 8] = static_cast<std::uint8_t>(1u << (bit % 8));
    int lit = 0;
    for (std::size_t j = 0; j < 8; ++j) {
      const ScaleMin sm = scale_min_k4(packed, j);
      lit += __builtin_popcount(sm.scale) + __builtin_popcount(sm.min);
      EXPECT_LT(sm.scale, 64);
      EXPECT_LT(sm.min, 64);
    }
    EXPECT_EQ(lit, 1) << bit;
    std::uint8_t scales[16];
    unpack_scales_q3k(packed, scales);
    lit = 0;
    for (const std::uint8_t scale : scales) lit += __builtin_popcount(scale);
    EXPECT_EQ(lit, 1) << bit;
  }
}

TEST(BlockFormats, NamesAndSizes) {
  EXPECT_EQ(find_block_format("Q4_K")->format, BlockFormat::q4_k);
  EXPECT_EQ(find_block_format("q9"), nullptr);
  EXPECT_EQ(find_block_format(9u), nullptr);
  EXPECT_EQ(block_info(BlockFormat::q4_k).bits(), 4.5);
  EXPECT_THROW(block_bytes(BlockFormat::q4_k, 255), Error);
}

}  // namespace sinew
