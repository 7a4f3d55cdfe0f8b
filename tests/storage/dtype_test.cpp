#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "base/error.hpp"
#include "base/float_formats.hpp"
#include "storage/safetensors.hpp"
#include "support/property.hpp"

namespace sinew {
namespace {

// The value of a minifloat by its definition.
double define(unsigned bits, int exponent_bits, int mantissa_bits, int bias) {
  const int mantissa = static_cast<int>(bits & ((1u << mantissa_bits) - 1));
  const int exponent = static_cast<int>((bits >> mantissa_bits) & ((1u << exponent_bits) - 1));
  const bool negative = ((bits >> (mantissa_bits + exponent_bits)) & 1) != 0;
  const double unit = std::ldexp(1.0, -mantissa_bits);
  const double magnitude = exponent == 0 ? std::ldexp(mantissa * unit, 1 - bias)
                                         : std::ldexp(1 + mantissa * unit, exponent - bias);
  return negative ? -magnitude : magnitude;
}

}  // namespace

TEST(FloatFormats, EveryHalfIsExactAndComesBack) {
  for (unsigned bits = 0; bits < 0x10000; ++bits) {
    const auto half = static_cast<std::uint16_t>(bits);
    const float value = half_to_float(half);
    if ((bits & 0x7c00) == 0x7c00) {
      EXPECT_TRUE((bits & 0x3ff) != 0 ? std::isnan(value) : std::isinf(value)) << bits;
    } else {
      ASSERT_EQ(value, define(bits, 5, 10, 15)) << bits;
    }
    ASSERT_TRUE(std::isnan(value) || float_to_half(value) == half) << bits;
  }
}

TEST(FloatFormats, EveryFloat8IsExact) {
  for (unsigned bits = 0; bits < 256; ++bits) {
    const float e4m3 = float8_e4m3_to_float(static_cast<std::uint8_t>(bits));
    if ((bits & 0x7f) == 0x7f) {
      EXPECT_TRUE(std::isnan(e4m3));
    } else {
      EXPECT_EQ(e4m3, define(bits, 4, 3, 7)) << bits;
    }
    const float e5m2 = float8_e5m2_to_float(static_cast<std::uint8_t>(bits));
    if ((bits & 0x7c) == 0x7c) {
      EXPECT_TRUE((bits & 3) != 0 ? std::isnan(e5m2) : std::isinf(e5m2));
    } else {
      EXPECT_EQ(e5m2, define(bits, 5, 2, 15)) << bits;
    }
  }
}

// Nearest, ties to even: no neighbour is nearer, and at equal distance ours is even.
PROPERTY(FloatFormats, HalvesRoundToNearestEven) {
  const float value =
      std::bit_cast<float>(static_cast<std::uint32_t>(test::draw_bits()) % 0x477ff000u);  // [0, 65520)
  const std::uint16_t half = float_to_half(value);
  const double error = std::abs(static_cast<double>(half_to_float(half)) - value);
  for (const int step : {-1, 1}) {
    const int neighbour = half + step;
    if (neighbour < 0 || neighbour >= 0x7c00) continue;
    const double other =
        std::abs(static_cast<double>(half_to_float(static_cast<std::uint16_t>(neighbour))) - value);
    HOLDS(other > error || (other == error && half % 2 == 0));
  }
}

TEST(FloatFormats, RoundingAtTheEdges) {
  EXPECT_EQ(float_to_half(65519.996F), 0x7bff);
  EXPECT_EQ(float_to_half(65520.F), 0x7c00);
  EXPECT_EQ(float_to_half(-1e30F), 0xfc00);
  EXPECT_EQ(float_to_half(0x1p-25F), 0);  // halfway to the smallest: to even
  EXPECT_EQ(float_to_half(0x1.000002p-25F), 1);
  EXPECT_TRUE(std::isnan(half_to_float(float_to_half(std::numeric_limits<float>::quiet_NaN()))));
  EXPECT_EQ(float_to_bfloat16(1.00390625F), 0x3f80);  // 1 + 2^-8: to even
  EXPECT_EQ(float_to_bfloat16(1.01171875F), 0x3f82);  // 1 + 3 * 2^-8: to even
  EXPECT_EQ(float_to_bfloat16(std::numeric_limits<float>::max()), 0x7f80);
  EXPECT_TRUE(std::isnan(bfloat16_to_float(float_to_bfloat16(std::bit_cast<float>(0x7f800001u)))));
}

TEST(DType, ConvertsEveryTypeItComputesWith) {
  const auto one = [](DType dtype, const auto& value) {
    float out = 0;
    to_float(dtype, reinterpret_cast<const std::byte*>(&value), &out, 1);
    return out;
  };
  EXPECT_EQ(one(DType::F64, -1.5), -1.5F);
  EXPECT_EQ(one(DType::I64, std::int64_t{-7}), -7);
  EXPECT_EQ(one(DType::U64, ~std::uint64_t{0}), 0x1p64F);
  EXPECT_EQ(one(DType::I8, std::int8_t{-128}), -128);
  EXPECT_EQ(one(DType::U8, std::uint8_t{200}), 200);
  EXPECT_EQ(one(DType::I16, std::int16_t{-300}), -300);
  EXPECT_EQ(one(DType::U32, 0xffffffffu), 0x1p32F);
  EXPECT_EQ(one(DType::BF16, std::uint16_t{0x3fc0}), 1.5F);
  EXPECT_THROW(one(DType::C64, std::uint64_t{0}), UserError);
  EXPECT_THROW(parse_dtype("f32"), UserError);
  EXPECT_EQ(dtype_name(parse_dtype("F8_E5M2FNUZ")), "F8_E5M2FNUZ");
}

TEST(DType, FloatsGoOutAndComeBack) {
  const float values[] = {0, -0.F, 1.5F, -2, 0x1p-14F, 40000};
  for (const DType dtype : {DType::F32, DType::F16}) {
    std::byte bytes[sizeof values];
    float back[6];
    from_float(dtype, values, bytes, 6);
    to_float(dtype, bytes, back, 6);
    EXPECT_EQ(std::memcmp(values, back, sizeof values), 0) << dtype_name(dtype);
  }
  std::byte out[1];
  EXPECT_THROW(from_float(DType::U8, values, out, 1), UserError);
}

}  // namespace sinew
