// Loads and stores of vectors that end before a vector does, or that go past the caches. See simd.hpp for how
// to include it.
#pragma once

#include <type_traits>

#include "base/index.hpp"
#include "kernels/simd.hpp"

namespace sinew {
namespace {

// The first n lanes: all, or the tail of a row through a padded copy.
template <class T>
[[gnu::always_inline]] inline Vf load_n(const T* p, index_t n) {
  if (n >= W) return load(p);
  T lanes[W] = {};
  for (index_t i = 0; i < n; ++i) lanes[i] = p[i];
  return load(lanes);
}
template <class T>
[[gnu::always_inline]] inline void store_n(T* p, Vf v, index_t n) {
  if (n >= W) return store(p, v);
  T lanes[W];
  store(lanes, v);
  for (index_t i = 0; i < n; ++i) p[i] = lanes[i];
}

// Lines of memory can be written whole, past the caches.
template <class T>
[[gnu::always_inline]] inline bool whole_lines([[maybe_unused]] const T* p, [[maybe_unused]] index_t ld) {
#if defined(__AVX512BF16__)
  return reinterpret_cast<std::uintptr_t>(p) % 64 == 0 && ld * sizeof(T) % 64 == 0;
#elif defined(__AVX512F__)
  return std::is_same_v<T, float> && reinterpret_cast<std::uintptr_t>(p) % 64 == 0 && ld % W == 0;
#else
  return false;
#endif
}
// Memory is not read first. For places within whole_lines().
template <class T>
[[gnu::always_inline]] inline void store_past_caches(T* p, Vf v) {
#if defined(__AVX512F__)
  if constexpr (std::is_same_v<T, float>) {
    _mm512_stream_ps(p, (__m512)v);
    return;
  }
#endif
#if defined(__AVX512BF16__)
  if constexpr (std::is_same_v<T, bf16>) {
    const __m256bh h = _mm512_cvtneps_pbh((__m512)v);
    _mm256_stream_si256(reinterpret_cast<__m256i*>(p), (__m256i)h);
    return;
  }
#endif
  store(p, v);
}
// Two vectors side by side: of bf16 a whole line at once, whose halves one by one might leave apart.
template <class T>
[[gnu::always_inline]] inline void store_past_caches(T* p, Vf a, Vf b) {
#if defined(__AVX512BF16__)
  if constexpr (std::is_same_v<T, bf16>) {
    const __m512bh h = _mm512_cvtne2ps_pbh((__m512)b, (__m512)a);
    _mm512_stream_si512(reinterpret_cast<__m512i*>(p), (__m512i)h);
    return;
  }
#endif
  store_past_caches(p, a);
  store_past_caches(p + W, b);
}

}  // namespace
}  // namespace sinew
