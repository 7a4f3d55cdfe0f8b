// The functions of widen.hpp on vectors of SINEW_WIDTH floats. See simd.hpp for how to include it.
#pragma once

#include "base/float_formats.hpp"
#include "kernels/simd.hpp"
#include "kernels/widen_tables.hpp"

namespace sinew {
namespace {

typedef std::int8_t Vb __attribute__((vector_size(W)));
typedef std::uint8_t Vub __attribute__((vector_size(W)));

void widen_f16(const std::byte* row, std::size_t n, float* out) {
  const auto* const x = reinterpret_cast<const std::uint16_t*>(row);
  std::size_t i = 0;
  for (; i + W <= n; i += W) store(out + i, halves(x + i));
  for (; i < n; ++i) out[i] = half_to_float(x[i]);
}

void widen_bf16(const std::byte* row, std::size_t n, float* out) {
  const auto* const x = reinterpret_cast<const bf16*>(row);
  std::size_t i = 0;
  for (; i + W <= n; i += W) store(out + i, load(x + i));
  for (; i < n; ++i) out[i] = to_float(x[i]);
}

void widen_q8_0(const std::byte* row, std::size_t n, float* out) {
  const auto* const blocks = reinterpret_cast<const BlockQ8_0*>(row);
  for (std::size_t b = 0; b < n / kSmallBlock; ++b) {
    const float d = half_to_float(blocks[b].d);
    for (std::size_t i = 0; i < kSmallBlock; i += W)
      store(out + b * kSmallBlock + i, __builtin_convertvector(load_as<Vb>(blocks[b].qs + i), Vf) * d);
  }
}

void widen_q4_0(const std::byte* row, std::size_t n, float* out) {
  const auto* const blocks = reinterpret_cast<const BlockQ4_0*>(row);
  for (std::size_t b = 0; b < n / kSmallBlock; ++b) {
    const float d = half_to_float(blocks[b].d);
    for (std::size_t i = 0; i < kSmallBlock / 2; i += W) {
      const Vub both = load_as<Vub>(blocks[b].qs + i);
      float* const to = out + b * kSmallBlock + i;
      store(to, (__builtin_convertvector(both & 15, Vf) - 8.0F) * d);
      store(to + kSmallBlock / 2, (__builtin_convertvector(both >> 4, Vf) - 8.0F) * d);
    }
  }
}

constexpr WidenTable kWidenTable{widen_f16, widen_bf16, widen_q8_0, widen_q4_0};

}  // namespace
}  // namespace sinew
