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
#elif defined(__ARM_NEON)
#include <arm_neon.h>
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
// 16-bit words widened. (GCC 12 makes two halves of the conversion to 512 bits.)
[[gnu::always_inline]] inline Vu words(const bf16* p) {
#if defined(__AVX512F__)
  return (Vu)_mm512_maskz_cvtepu16_epi32(0xffff, load_as<__m256i>(p));
#else
  return __builtin_convertvector(load_as<Vh>(p), Vu);
#endif
}
[[gnu::always_inline]] inline Vf load(const bf16* p) { return (Vf)(words(p) << 16); }
// Numbers of fp16.
#if defined(__AVX512F__)
[[gnu::always_inline]] inline Vf halves(const void* p) {
  return (Vf)_mm512_maskz_cvtph_ps(0xffff, load_as<__m256i>(p));
}
#elif defined(__F16C__)
[[gnu::always_inline]] inline Vf halves(const void* p) { return (Vf)_mm256_cvtph_ps(load_as<__m128i>(p)); }
#elif defined(__ARM_NEON)
[[gnu::always_inline]] inline Vf halves(const void* p) { return (Vf)vcvt_f32_f16(load_as<float16x4_t>(p)); }
#endif
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
// Columns [column, column + W) of two rows of a panel `width` columns wide (gemm.hpp): fp32 row after row,
// bf16 as pairs.
[[gnu::always_inline]] inline void store_row_pair(float* rows, std::int64_t width, std::int64_t column, Vf a,
                                                  Vf b) {
  store(rows + column, a);
  store(rows + width + column, b);
}
[[gnu::always_inline]] inline void store_row_pair(bf16* rows, std::int64_t /*width*/, std::int64_t column,
                                                  Vf a, Vf b) {
#if defined(__AVX512BF16__)
  alignas(64) static constexpr std::uint16_t kPairs[32] = {0,  16, 1,  17, 2,  18, 3,  19, 4,  20, 5,
                                                           21, 6,  22, 7,  23, 8,  24, 9,  25, 10, 26,
                                                           11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
  const __m512i h = (__m512i)_mm512_cvtne2ps_pbh((__m512)b, (__m512)a);
  const __m512i pairs = _mm512_maskz_permutexvar_epi16(0xffffffffU, load_as<__m512i>(kPairs), h);
  __builtin_memcpy(rows + 2 * column, &pairs, sizeof pairs);
#else
  bf16 first[W], second[W];
  store(first, a);
  store(second, b);
  const Vu pairs = words(first) | (words(second) << 16);
  __builtin_memcpy(rows + 2 * column, &pairs, sizeof pairs);
#endif
}
inline void store_one(float* p, float v) { *p = v; }
inline void store_one(bf16* p, float v) { *p = to_bf16(v); }

[[gnu::always_inline]] inline Vf select(Vi mask, Vf a, Vf b) { return mask ? a : b; }
// a > b ? a : b, and with <.
[[gnu::always_inline]] inline Vf maximum(Vf a, Vf b) {
#if defined(__AVX512F__)
  return (Vf)_mm512_maskz_max_ps(0xffff, (__m512)a, (__m512)b);
#else
  return a > b ? a : b;
#endif
}
[[gnu::always_inline]] inline Vf minimum(Vf a, Vf b) {
#if defined(__AVX512F__)
  return (Vf)_mm512_maskz_min_ps(0xffff, (__m512)a, (__m512)b);
#else
  return a < b ? a : b;
#endif
}

#if defined(__AVX512F__)
// Lane i with lane i + half, again and again: the same order on every run.
template <class Op>
[[gnu::always_inline]] inline float fold(Vf v, Op op) {
  const __m256 y = op((__m256)__builtin_shufflevector(v, v, 0, 1, 2, 3, 4, 5, 6, 7),
                      (__m256)__builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15));
  __m128 x = _mm256_castps256_ps128(op(y, _mm256_castps128_ps256(_mm256_extractf128_ps(y, 1))));
  const auto narrow = [&](__m128 a, __m128 b) {
    return _mm256_castps256_ps128(op(_mm256_castps128_ps256(a), _mm256_castps128_ps256(b)));
  };
  x = narrow(x, _mm_movehl_ps(x, x));
  return _mm_cvtss_f32(narrow(x, _mm_shuffle_ps(x, x, 1)));
}
inline float sum(Vf v) {
  return fold(v, [](__m256 a, __m256 b) { return _mm256_add_ps(a, b); });
}
inline float largest(Vf v) {
  return fold(v, [](__m256 a, __m256 b) { return _mm256_max_ps(a, b); });
}
#else
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
#endif

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
// 2^x with relative error below 3e-7 for x <= 126 (the Taylor series after reduction to +-1/2); 0 below -126.
[[gnu::always_inline]] inline Vf power_of_two(Vf x) {
#if defined(__AVX512F__)
  constexpr int kNearest = 0x8;  // an integer, without exceptions
  const Vf low = splat(-126.0F), clamped = maximum(x, low);
  const Vf n = (Vf)_mm512_maskz_roundscale_ps(0xffff, (__m512)clamped, kNearest);
  const Vf r = clamped - n;
  Vf p = r * 1.54035304e-4F + 1.33335581e-3F;
  p = p * r + 9.61812911e-3F;
  p = p * r + 5.55041087e-2F;
  p = p * r + 2.40226507e-1F;
  p = p * r + 6.93147181e-1F;
  p = p * r + 1.0F;
  const __mmask16 inside = _mm512_cmp_ps_mask((__m512)x, (__m512)low, _CMP_GE_OQ);
  return (Vf)_mm512_maskz_scalef_ps(inside, (__m512)p, (__m512)n);
#else
  return exponential(x * 0.693147180559945F);
#endif
}
// 1 / x of x >= 1, to the last bit or two; 0 where that is below what normal numbers hold.
[[gnu::always_inline]] inline Vf reciprocal(Vf x) {
#if defined(__AVX512F__)
  const Vf r = (Vf)_mm512_maskz_rcp14_ps(0xffff, (__m512)x);
  return r * (2.0F - x * r);  // a division takes as long as all the rest of a sigmoid
#else
  return 1.0F / x;
#endif
}
[[gnu::always_inline]] inline Vf sigmoid(Vf x) { return reciprocal(1.0F + exponential(-x)); }
// With relative error below 1e-7 (1 + |x|): for results that are kept in bf16.
[[gnu::always_inline]] inline Vf rough_sigmoid(Vf x) {
#if defined(__AVX512F__)
  return reciprocal(1.0F + power_of_two(minimum(x * -1.44269504088896341F, splat(126.0F))));
#else
  return sigmoid(x);
#endif
}

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
