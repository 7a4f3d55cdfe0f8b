// bfloat16: the upper half of a float.
#pragma once

#include <bit>
#include <cstdint>

namespace sinew {

struct bf16 {
  std::uint16_t bits;
};

inline float to_float(bf16 x) { return std::bit_cast<float>(std::uint32_t{x.bits} << 16); }
inline float to_float(float x) { return x; }

// Round to nearest even; NaN stays NaN.
inline bf16 to_bf16(float x) {
  const auto u = std::bit_cast<std::uint32_t>(x);
  if ((u & 0x7fffffffU) > 0x7f800000U) return {static_cast<std::uint16_t>((u >> 16) | 0x40U)};
  return {static_cast<std::uint16_t>((u + 0x7fffU + ((u >> 16) & 1U)) >> 16)};
}

}  // namespace sinew
