// AdamW and the gradient's norm on vectors: both stream through memory. See simd.hpp for how to include it.
#pragma once

#include "kernels/memory_simd.hpp"
#include "kernels/vector.hpp"

namespace sinew {
namespace {

[[gnu::always_inline]] inline Vf square_root(Vf x) {
#if defined(__AVX512F__)
  return (Vf)_mm512_maskz_sqrt_ps(0xffff, (__m512)x);  // unmasked, GCC 12 warns of its own header
#elif defined(__AVX2__)
  return (Vf)_mm256_sqrt_ps((__m256)x);
#else
  Vf y;
  for (int l = 0; l < W; ++l) y[l] = __builtin_sqrtf(x[l]);
  return y;
#endif
}

template <class T>
void adamw(float* w, float* m, float* v, const float* g, T* narrow, index_t n, const AdamWFactors& f) {
  const bool past = whole_lines(narrow, 2 * W);  // two halves of a line follow each other
  for (index_t i = 0; i < n; i += W) {
    const index_t left = n - i;
    const Vf gradient = g != nullptr ? load_n(g + i, left) * f.gradient_scale : Vf{};
    const Vf m1 = f.beta1 * load_n(m + i, left) + f.one_less_beta1 * gradient;
    const Vf v1 = f.beta2 * load_n(v + i, left) + f.one_less_beta2 * gradient * gradient;
    const Vf w1 =
        load_n(w + i, left) * f.keep - f.step_size * m1 / (square_root(v1) * f.root_correction + f.eps);
    store_n(m + i, m1, left);
    store_n(v + i, v1, left);
    store_n(w + i, w1, left);
    if (narrow != nullptr && left >= W && past)
      store_past_caches(narrow + i, w1);
    else if (narrow != nullptr)
      store_n(narrow + i, w1, left);
  }
}

// Half a vector of floats as doubles.
typedef double Vd __attribute__((vector_size(W * 4)));
[[gnu::always_inline]] inline Vd doubles(const float* x) {
#if defined(__AVX512F__)
  return (Vd)_mm512_maskz_cvtps_pd(0xff, load_as<__m256>(x));
#elif defined(__AVX2__)
  return (Vd)_mm256_cvtps_pd(load_as<__m128>(x));
#else
  typedef float Half __attribute__((vector_size(W * 2)));
  return __builtin_convertvector(load_as<Half>(x), Vd);
#endif
}

// Quarters of x side by side: one stream alone has too few lines of memory on their way.
[[maybe_unused]] double sum_of_squares(const float* x, index_t n) {
  constexpr index_t kStreams = 4, kAhead = 256;
  const index_t part = n / kStreams / W * W;
  Vd low[kStreams] = {}, high[kStreams] = {};
  const auto add = [&](const float* p, index_t stream) {
    const Vd a = doubles(p), b = doubles(p + W / 2);
    low[stream] += a * a;
    high[stream] += b * b;
  };
  for (index_t i = 0; i < part; i += W)
#pragma GCC unroll 4
    for (index_t s = 0; s < kStreams; ++s) {
      __builtin_prefetch(x + s * part + i + kAhead);
      add(x + s * part + i, s);
    }
  for (index_t i = kStreams * part; i < n; i += W) {
    float lanes[W];
    store(lanes, load_n(x + i, n - i));
    add(lanes, 0);
  }
  Vd all = {};
  for (index_t s = 0; s < kStreams; ++s) all += low[s] + high[s];
  double total = 0;
  for (int l = 0; l < W / 2; ++l) total += all[l];
  return total;
}

}  // namespace
}  // namespace sinew
