// Small floating-point formats as bits: IEEE half, bfloat16, and the two 8-bit formats of OCP's OFP8. To
// float every conversion is exact; from float it rounds to nearest, ties to even. Plain arithmetic without
// float subnormals, so the results do not change when a thread flushes those to zero.
#pragma once

#include <bit>
#include <cstdint>

namespace sinew {

inline float half_to_float(std::uint16_t half) {
  const std::uint32_t sign = static_cast<std::uint32_t>(half & 0x8000) << 16;
  const std::uint32_t magnitude = half & 0x7fff;
  const float small = static_cast<float>(magnitude) * 0x1p-24F;
  std::uint32_t bits = (magnitude << 13) + (magnitude >= 0x7c00 ? 0x70000000u : 0x38000000u);
  if (magnitude < 0x400) bits = std::bit_cast<std::uint32_t>(small);
  return std::bit_cast<float>(sign | bits);
}

inline std::uint16_t float_to_half(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  const auto sign = static_cast<std::uint16_t>((bits >> 16) & 0x8000);
  std::uint32_t magnitude = bits & 0x7fffffff;
  if (magnitude > 0x7f800000) return static_cast<std::uint16_t>(sign | 0x7e00 | ((magnitude >> 13) & 0x3ff));
  if (magnitude >= 0x477ff000) return static_cast<std::uint16_t>(sign | 0x7c00);  // 65520 and more
  if (magnitude <
      0x38800000) {  // under 2^-14: a subnormal half; adding 0.5 leaves its bits, rounded, at the end
    const float shifted = std::bit_cast<float>(magnitude) + 0.5F;
    return static_cast<std::uint16_t>(sign | (std::bit_cast<std::uint32_t>(shifted) - 0x3f000000));
  }
  magnitude += 0xfff + ((magnitude >> 13) & 1);
  return static_cast<std::uint16_t>(sign | ((magnitude - 0x38000000) >> 13));
}

inline float bfloat16_to_float(std::uint16_t value) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(value) << 16);
}

inline std::uint16_t float_to_bfloat16(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  if ((bits & 0x7fffffff) > 0x7f800000) return static_cast<std::uint16_t>((bits >> 16) | 0x40);
  return static_cast<std::uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

// Four bits of exponent (bias 7), three of mantissa, no infinity; 0x7f and 0xff are NaN.
inline float float8_e4m3_to_float(std::uint8_t value) {
  const std::uint32_t sign = static_cast<std::uint32_t>(value & 0x80) << 24;
  const std::uint32_t magnitude = value & 0x7f;
  std::uint32_t bits = (magnitude << 20) + 0x3c000000;
  if (magnitude < 8) bits = std::bit_cast<std::uint32_t>(static_cast<float>(magnitude) * 0x1p-9F);
  if (magnitude == 0x7f) bits = 0x7fc00000;
  return std::bit_cast<float>(sign | bits);
}

// Above 448 saturates; NaN stays NaN.
inline std::uint8_t float_to_float8_e4m3(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  const auto sign = static_cast<std::uint8_t>((bits >> 24) & 0x80);
  std::uint32_t magnitude = bits & 0x7fffffff;
  if (magnitude > 0x7f800000) return static_cast<std::uint8_t>(sign | 0x7f);
  if (magnitude >= 0x43e00000) return static_cast<std::uint8_t>(sign | 0x7e);  // 448 and more
  if (magnitude < 0x3c800000) {  // under 2^-6: steps of 2^-9; adding 2^14 leaves them, rounded, at the end
    const float shifted = std::bit_cast<float>(magnitude) + 0x1p14F;
    return static_cast<std::uint8_t>(sign | (std::bit_cast<std::uint32_t>(shifted) - 0x46800000));
  }
  magnitude += 0x7ffff + ((magnitude >> 20) & 1);
  const std::uint32_t code = (magnitude - 0x3c000000) >> 20;
  return static_cast<std::uint8_t>(sign | (code > 0x7e ? 0x7e : code));
}

// The upper byte of a half.
inline float float8_e5m2_to_float(std::uint8_t value) {
  return half_to_float(static_cast<std::uint16_t>(value << 8));
}

}  // namespace sinew
