// Vectors of SINEW_WIDTH floats on the compilers' vector extension: one source for every instruction set.
// Include only in a file that is compiled for one set (its name ends in it); everything here has internal
// linkage, so that no other file gets these instructions. The *_simd.hpp beside it build on it.
#pragma once

#include <cstdint>
#include <cstring>
#include <utility>

#include "kernels/bf16.hpp"

#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace sinew {
namespace {

constexpr int W = SINEW_WIDTH;
typedef float Vf __attribute__((vector_size(W * 4)));
typedef std::int32_t Vi __attribute__((vector_size(W * 4)));
typedef std::uint32_t Vu __attribute__((vector_size(W * 4)));
typedef std::uint16_t Vh __attribute__((vector_size(W * 2)));

template <class V>
[[gnu::always_inline]] inline V load_as(const void* p) {
  V v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}
[[gnu::always_inline]] inline Vf splat(float x) { return x - Vf{}; }
[[gnu::always_inline]] inline Vf load(const float* p) { return load_as<Vf>(p); }
[[gnu::always_inline]] inline Vf load(const bf16* p) {
  return (Vf)(__builtin_convertvector(load_as<Vh>(p), Vu) << 16);
}
[[gnu::always_inline]] inline void store(float* p, Vf v) { __builtin_memcpy(p, &v, sizeof v); }
[[gnu::always_inline]] inline void store(bf16* p, Vf v) {
#if defined(__AVX512BF16__)
  const __m256bh h = _mm512_cvtneps_pbh((__m512)v);
  __builtin_memcpy(p, &h, sizeof h);
#else
  const Vu u = (Vu)v;
  const Vu rounded = (u + 0x7fffU + ((u >> 16) & 1U)) >> 16;
  const Vu nan = (Vu)((u & 0x7fffffffU) > 0x7f800000U);
  const Vh h = __builtin_convertvector((nan & ((u >> 16) | 0x40U)) | (~nan & rounded), Vh);
  __builtin_memcpy(p, &h, sizeof h);
#endif
}
// Two vectors side by side.
[[gnu::always_inline]] inline void store(float* p, Vf a, Vf b) {
  store(p, a);
  store(p + W, b);
}
[[gnu::always_inline]] inline void store(bf16* p, Vf a, Vf b) {
#if defined(__AVX512BF16__)
  const __m512bh h = _mm512_cvtne2ps_pbh((__m512)b, (__m512)a);
  __builtin_memcpy(p, &h, sizeof h);
#else
  store(p, a);
  store(p + W, b);
#endif
}
inline void store_one(float* p, float v) { *p = v; }
inline void store_one(bf16* p, float v) { *p = to_bf16(v); }

[[gnu::always_inline]] inline Vf select(Vi mask, Vf a, Vf b) { return mask ? a : b; }
[[gnu::always_inline]] inline Vf maximum(Vf a, Vf b) { return a > b ? a : b; }
[[gnu::always_inline]] inline Vf minimum(Vf a, Vf b) { return a < b ? a : b; }

// Lanes summed pairwise: the same order on every run.
inline float sum(Vf v) {
  float x[W];
  store(x, v);
  for (int half = W / 2; half > 0; half /= 2)
    for (int i = 0; i < half; ++i) x[i] += x[i + half];
  return x[0];
}
inline float largest(Vf v) {
  float x[W];
  store(x, v);
  for (int half = W / 2; half > 0; half /= 2)
    for (int i = 0; i < half; ++i) x[i] = x[i] > x[i + half] ? x[i] : x[i + half];
  return x[0];
}

// e^x with relative error below 2e-7 (Cephes' polynomial after reduction by ln 2); 0 below -87.3, as at
// -inf; held at e^88 above.
[[gnu::always_inline]] inline Vf exponential(Vf x) {
  const Vf clamped = minimum(maximum(x, splat(-87.33654F)), splat(88.0F));
  const Vf shifted = clamped * 1.44269504088896341F + 12582912.0F;  // 1.5 * 2^23: rounds to an integer
  const Vf n = shifted - 12582912.0F;
  Vf r = clamped - n * 0.693359375F;
  r = r + n * 2.12194440e-4F;
  Vf p = r * 1.9875691500e-4F + 1.3981999507e-3F;
  p = p * r + 8.3334519073e-3F;
  p = p * r + 4.1665795894e-2F;
  p = p * r + 1.6666665459e-1F;
  p = p * r + 5.0000001201e-1F;
  p = p * (r * r) + r + 1.0F;
  const Vi power = ((Vi)shifted - 0x4b400000 + 127) << 23;
  const Vf result = p * (Vf)power;
  return select(x < splat(-87.33654F), Vf{}, result);
}
[[gnu::always_inline]] inline Vf sigmoid(Vf x) { return 1.0F / (1.0F + exponential(-x)); }

// ---- transposition of W x W words ----

template <int S, bool Upper, int... I>
[[gnu::always_inline]] inline Vu exchange(Vu a, Vu b, std::integer_sequence<int, I...>) {
  if constexpr (Upper)
    return __builtin_shufflevector(a, b, ((I & S) ? W + I : I + S)...);
  else
    return __builtin_shufflevector(a, b, ((I & S) ? W + I - S : I)...);
}
template <int S>
[[gnu::always_inline]] inline void exchange_all(Vu (&v)[W]) {
  constexpr auto lanes = std::make_integer_sequence<int, W>{};
#pragma GCC unroll 16
  for (int i = 0; i < W; ++i) {
    if (i & S) continue;
    const Vu a = v[i], b = v[i | S];
    v[i] = exchange<S, false>(a, b, lanes);
    v[i | S] = exchange<S, true>(a, b, lanes);
  }
}
// v[i][j] becomes v[j][i] (Eklundh: exchange of halves, quarters, ...).
[[gnu::always_inline]] inline void transpose(Vu (&v)[W]) {
  exchange_all<1>(v);
  exchange_all<2>(v);
  if constexpr (W >= 8) exchange_all<(W >= 8 ? 4 : 1)>(v);
  if constexpr (W >= 16) exchange_all<(W >= 16 ? 8 : 1)>(v);
}

}  // namespace
}  // namespace sinew
