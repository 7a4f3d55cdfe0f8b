// Products of bf16 with the dot-product instruction of AVX512-BF16.
#if defined(__x86_64__)
#define SINEW_WIDTH 16
#include <immintrin.h>

#include "kernels/gemm_simd.hpp"
#include "kernels/gemm_tables.hpp"

namespace sinew {
namespace {

template <int R>
[[gnu::always_inline]] inline void dot_rows(const bf16* a, index_t lda, const bf16* b, index_t k, float* c,
                                            index_t ldc, bool accumulate) {
  __m512 s0[R], s1[R];
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
    s0[r] = accumulate ? _mm512_loadu_ps(c + r * ldc) : _mm512_setzero_ps();
    s1[r] = accumulate ? _mm512_loadu_ps(c + r * ldc + 16) : _mm512_setzero_ps();
  }
  for (index_t i = 0; i < k; i += 2) {
    const __m512bh b0 = (__m512bh)_mm512_loadu_si512(b + i * kTile);
    const __m512bh b1 = (__m512bh)_mm512_loadu_si512(b + i * kTile + 32);
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      int pair;
      __builtin_memcpy(&pair, a + r * lda + i, sizeof pair);
      const __m512bh x = (__m512bh)_mm512_set1_epi32(pair);
      s0[r] = _mm512_dpbf16_ps(s0[r], x, b0);
      s1[r] = _mm512_dpbf16_ps(s1[r], x, b1);
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
    _mm512_storeu_ps(c + r * ldc, s0[r]);
    _mm512_storeu_ps(c + r * ldc + 16, s1[r]);
  }
}

void block_dot(const bf16* a, index_t lda, index_t rows, const bf16* panel, index_t k, float* c, index_t ldc,
               bool accumulate) {
  in_row_groups(rows, [&](auto count, index_t r) {
    dot_rows<count()>(a + r * lda, lda, panel, k, c + r * ldc, ldc, accumulate);
  });
}

}  // namespace

const GemmKernels<bf16> gemm_bf16_bf16 = kernels_with<bf16>(block_dot);

}  // namespace sinew
#endif
