// The products of decode attention with the dot-product instruction of AVX512-BF16.
#if defined(__x86_64__)
#define SINEW_WIDTH 16
#include "kernels/decode_attention_tables.hpp"
#include "kernels/decode_attention_tiles.hpp"

namespace sinew {
namespace {

[[gnu::always_inline]] inline __m512bh pair_of(const bf16* x) {
  int pair;
  __builtin_memcpy(&pair, x, sizeof pair);
  return (__m512bh)_mm512_set1_epi32(pair);
}
[[gnu::always_inline]] inline __m512bh packed_row(const bf16* x) { return (__m512bh)_mm512_loadu_si512(x); }

struct DotProducts {
  static void begin() {}
  static void end() {}

  // 16 keys times the queries.
  static void score_16(const bf16* keys, index_t ld, const bf16* q, index_t n, float* out) {
    __m512 s[16];
#pragma GCC unroll 16
    for (int r = 0; r < 16; ++r) s[r] = _mm512_setzero_ps();
    for (index_t i = 0; i < n; i += 2) {
      const __m512bh x = packed_row(q + i * kRows);
#pragma GCC unroll 16
      for (int r = 0; r < 16; ++r) s[r] = _mm512_dpbf16_ps(s[r], pair_of(keys + r * ld + i), x);
    }
#pragma GCC unroll 16
    for (int r = 0; r < 16; ++r) _mm512_storeu_ps(out + r * kRows, s[r]);
  }
  static void scores(NarrowRows one, NarrowRows two, const bf16* q, index_t n, float* out) {
    score_16(one.at, one.ld, q, n, out);
    score_16(one.at + 16 * one.ld, one.ld, q, n, out + kTileWords);
    if (two.at == one.at) return;
    score_16(two.at, two.ld, q, n, out + 2 * kTileWords);
    score_16(two.at + 16 * two.ld, two.ld, q, n, out + 3 * kTileWords);
  }

  static void values(const bf16* weights, index_t pages, const bf16* values, float* acc) {
    for (index_t t = 0; t < 2; ++t) {
      float* const to = acc + t * kTileWords;
      __m512 s[16];
#pragma GCC unroll 16
      for (int r = 0; r < 16; ++r) s[r] = _mm512_loadu_ps(to + r * kRows);
      for (index_t p = 0; p < pages; ++p) {
        const bf16 *const v = values + (2 * p + t) * kPackedTile, *const w = weights + p * kPackedTile;
        for (index_t pair = 0; pair < 16; ++pair) {
          const __m512bh x = packed_row(v + pair * 32);
#pragma GCC unroll 16
          for (int r = 0; r < 16; ++r) s[r] = _mm512_dpbf16_ps(s[r], pair_of(w + r * 32 + pair * 2), x);
        }
      }
#pragma GCC unroll 16
      for (int r = 0; r < 16; ++r) _mm512_storeu_ps(to + r * kRows, s[r]);
    }
  }
};

}  // namespace

const DecodeKernels decode_bf16 = {attend_tiles<DotProducts>, merge_pieces};

}  // namespace sinew
#endif
