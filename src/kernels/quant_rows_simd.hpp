// The kernels of quant_tables.hpp for activations and results, on vectors of SINEW_WIDTH floats. See simd.hpp
// for how to include it.
#pragma once

#include "kernels/quant_formats_simd.hpp"

namespace sinew {
namespace {

[[gnu::always_inline]] inline Vf absolute(Vf x) { return (Vf)((Vu)x & 0x7fffffffU); }
[[gnu::always_inline]] inline Vi nearest(Vf x) { return (Vi)(x + 12582912.0F) - 0x4b400000; }  // |x| < 2^22

[[gnu::always_inline]] inline std::int32_t sum_of_16(const std::int8_t* q) {
#if defined(__ARM_NEON)
  return vaddlvq_s8(vld1q_s8(q));
#else
  // Bytes plus 128 against zero: two sums of eight.
  const __m128i bytes =
      _mm_xor_si128(_mm_loadu_si128(reinterpret_cast<const __m128i*>(q)), _mm_set1_epi8(-128));
  const __m128i sums = _mm_sad_epu8(bytes, _mm_setzero_si128());
  return _mm_cvtsi128_si32(sums) + _mm_extract_epi16(sums, 4) - 16 * 128;
#endif
}

void quantize_row(const float* x, index_t cols, const QuantRow& out) {
  for (index_t first = 0; first < cols; first += kSpan) {
    const index_t end = cols - first < kSpan ? cols : first + kSpan;  // multiples of 32
    Vf most[4] = {};  // of four sums at once: no step waits for the one before
    for (index_t i = first; i + 4 * W <= end; i += 4 * W)
#pragma GCC unroll 4
      for (int k = 0; k < 4; ++k) most[k] = maximum(most[k], absolute(load(x + i + k * W)));
    for (index_t i = first + (end - first) / (4 * W) * (4 * W); i < end; i += W)
      most[0] = maximum(most[0], absolute(load(x + i)));
    const float peak = largest(maximum(maximum(most[0], most[1]), maximum(most[2], most[3])));
    const float inverse = peak > 0 ? 127.0F / peak : 0;
    out.scale[first / kSpan] = peak / 127.0F;
    for (index_t i = first; i < end; i += W) store_bytes(out.q + i, nearest(load(x + i) * inverse));
    for (index_t i = first; i < end; i += 16) out.sums[i / 16] = sum_of_16(out.q + i);
    for (index_t i = first; i < end; i += 32)
      out.pairs[i / 32] = static_cast<float>(out.sums[i / 16] + out.sums[i / 16 + 1]);
  }
  for (index_t i = cols; i < padded_cols(cols); ++i) out.q[i] = 0;
  for (index_t i = cols / 16; i < padded_cols(cols) / 16; ++i) out.sums[i] = 0;
  for (index_t i = cols / 32; i < padded_cols(cols) / 32; ++i) out.pairs[i] = 0;
}

void quantize_pieces(const float* x, index_t piece, index_t pieces, std::int8_t* out, float* scale,
                     std::int32_t* sum) {
  constexpr int V = 32 / W;  // vectors of a piece
  Vf most[V] = {};
  for (index_t p = 0; p < pieces; ++p)
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) most[v] = maximum(most[v], absolute(load(x + p * piece + v * W)));
  for (int v = 1; v < V; ++v) most[0] = maximum(most[0], most[v]);
  const float peak = largest(most[0]), inverse = peak > 0 ? 127.0F / peak : 0;
  *scale = peak / 127.0F;
  Vi total[V] = {};
  for (index_t p = 0; p < pieces; ++p)
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) {
      const Vi codes = nearest(load(x + p * piece + v * W) * inverse);
      total[v] += codes;
      store_bytes(out + p / 2 * 1024 + p % 2 * 32 + v * W, codes);
    }
  if (pieces % 2 != 0) __builtin_memset(out + pieces / 2 * 1024 + 32, 0, 32);
  for (int v = 1; v < V; ++v) total[0] += total[v];
  std::int32_t all = 0;
  for (int i = 0; i < W; ++i) all += total[0][i];
  *sum = all;
}

void swiglu(float* gate, const float* up, index_t n) {  // n: a multiple of 16
  for (index_t i = 0; i < n; i += W) {
    const Vf g = load(gate + i);
    store(gate + i, g * sigmoid(g) * load(up + i));
  }
}

void add_scaled(const float* x, index_t piece, float factor, index_t n, float* y) {  // n: a multiple of 16
  for (index_t c = 0; c < n; c += 32, x += piece)
    for (index_t i = c; i < n && i < c + 32; i += W) store(y + i, load(y + i) + load(x + i - c) * factor);
}

void add_rows(const float* x, const std::int32_t* row, const float* factor, index_t n, float* y, index_t ld) {
  for (index_t i = 0; i < n; ++i, x += 32) {
    float* const to = y + (row != nullptr ? row[i] : i) * ld;
    const float f = factor != nullptr ? factor[i] : 1.0F;
#pragma GCC unroll 8
    for (int v = 0; v < 32; v += W) store(to + v, load(to + v) + load(x + v) * f);
  }
}

}  // namespace
}  // namespace sinew
