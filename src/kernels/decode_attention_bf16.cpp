// The products of decode attention with the dot-product instruction of AVX512-BF16.
//
// Values are packed by pairs of rows where they are used, 32 columns into two tiles of 16 pairs by 16: the
// low one holds columns 0-3, 8-11, 16-19, 24-27 of them, as the interleaving instructions of 128-bit lanes
// leave them, the high one the others; results are put in order once, at the end.
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

constexpr index_t kPackedTile = 512;  // bf16 of a packed tile

// Columns [column, column + 32) of a page's values: [2][16 pairs][16][2].
[[gnu::always_inline]] inline void pack_values(NarrowRows values, index_t column, bf16* out) {
  const bf16* from = values.at + column;
  for (index_t pair = 0; pair < kCachePage / 2; ++pair, from += 2 * values.ld) {
    const __m512i x = _mm512_loadu_si512(from), y = _mm512_loadu_si512(from + values.ld);
    _mm512_store_si512(out + pair * 32, _mm512_unpacklo_epi16(x, y));
    _mm512_store_si512(out + pair * 32 + kPackedTile, _mm512_unpackhi_epi16(x, y));
  }
}

// Addresses of rows as sums of two registers (one of them times 2, 4 or 8): compilers make a pointer of each
// row, more of them than there are registers.
struct RowOffsets {
  index_t one, three, five, seven;

  explicit RowOffsets(index_t ld) : one(2 * ld), three(6 * ld), five(10 * ld), seven(14 * ld) {
    asm("" : "+r"(one), "+r"(three), "+r"(five), "+r"(seven));
  }
  [[gnu::always_inline]] const bf16* at(const bf16* row, int r) const {
    const auto* const p = reinterpret_cast<const std::byte*>(row);
    constexpr int kPower[] = {0, 1, 2, 1, 4, 1, 2, 1};
    const index_t odd = r == 3 || r == 6 ? three : r == 5 ? five : r == 7 ? seven : one;
    return reinterpret_cast<const bf16*>(p + odd * kPower[r]);
  }
  [[gnu::always_inline]] const bf16* eighth(const bf16* row) const { return row + 4 * one; }
};

struct DotProducts {
  static constexpr index_t kWeights = 16;  // bf16 for each key and 16 rows
  static constexpr index_t kScratch = 2 * kPages * 2 * kPackedTile;
  static void begin() {}
  static void end() {}

  // 16 keys times the queries; of the next block a line of each half is asked for every 32 columns, here and
  // for every page of values: all of it by the end, a little at a time.
  static void score_16(const bf16* keys, index_t ld, const bf16* q, index_t n, float* out,
                       BlockReader& next) {
    __m512 s[16];
#pragma GCC unroll 16
    for (int r = 0; r < 16; ++r) s[r] = _mm512_setzero_ps();
    const RowOffsets rows(ld);
    for (index_t from = 0; from < n; from += 32) {
      next.ask<1>();
      const bf16* coming = keys + from + 32;  // a row's next line from the second-level cache at each step
      for (index_t i = from; i < from + 32; i += 2, coming += ld) {
        __builtin_prefetch(coming, 0, 3);
        const __m512bh x = packed_row(q + i * kRows);
        const bf16 *low = keys + i, *high = rows.eighth(low);
        asm("" : "+r"(low), "+r"(high));
#pragma GCC unroll 8
        for (int r = 0; r < 8; ++r) s[r] = _mm512_dpbf16_ps(s[r], x, pair_of(rows.at(low, r)));
#pragma GCC unroll 8
        for (int r = 0; r < 8; ++r) s[8 + r] = _mm512_dpbf16_ps(s[8 + r], x, pair_of(rows.at(high, r)));
      }
    }
#pragma GCC unroll 16
    for (int r = 0; r < 16; ++r) _mm512_storeu_ps(out + r * kRows, s[r]);
  }
  static void scores(NarrowRows one, NarrowRows two, const bf16* q, index_t n, float* out,
                     BlockReader& next) {
    score_16(one.at, one.ld, q, n, out, next);
    score_16(one.at + 16 * one.ld, one.ld, q, n, out + kTileWords, next);
    if (two.at == one.at) return;
    score_16(two.at, two.ld, q, n, out + 2 * kTileWords, next);
    score_16(two.at + 16 * two.ld, two.ld, q, n, out + 3 * kTileWords, next);
  }

  // Weights [keys, 16] as bf16 tiles [keys / 32][16][32].
  static void turn(const float* weights, index_t keys, bf16* out, BlockReader&) {
    for (index_t k = 0; k < keys; k += 32) {
      Vu low[16], high[16];
      for (int i = 0; i < 16; ++i) {
        low[i] = load_as<Vu>(weights + (k + i) * kRows);
        high[i] = load_as<Vu>(weights + (k + 16 + i) * kRows);
      }
      transpose(low);
      transpose(high);
      for (int r = 0; r < 16; ++r) store(out + k * kRows + r * 32, (Vf)low[r], (Vf)high[r]);
    }
  }

  // acc [16, ld] of 32 columns (first ? = : +=) weights [pages][16, 32] * packed values [pages][2 tiles]:
  // eight rows and both tiles at a time, since each product of one row and one tile would want a load of its
  // own, and there are no more loads a cycle than products.
  static void weigh(const bf16* weights, index_t pages, const bf16* values, float* acc, index_t ld,
                    bool first, BlockReader& next) {
    for (index_t half = 0; half < 16; half += 8) {
      float* const to = acc + half * ld;
      __m512 s[8][2];
#pragma GCC unroll 8
      for (int r = 0; r < 8; ++r)
#pragma GCC unroll 2
        for (int t = 0; t < 2; ++t)
          s[r][t] = first ? _mm512_setzero_ps() : _mm512_loadu_ps(to + r * ld + t * 16);
      for (index_t p = 0; p < pages; ++p) {
        next.ask<1>();
        const bf16 *const v = values + 2 * p * kPackedTile, *const w = weights + p * kPackedTile + half * 32;
        for (index_t pair = 0; pair < 16; ++pair) {
          const __m512bh low = packed_row(v + pair * 32), high = packed_row(v + kPackedTile + pair * 32);
#pragma GCC unroll 8
          for (int r = 0; r < 8; ++r) {
            const __m512bh x = pair_of(w + r * 32 + pair * 2);
            s[r][0] = _mm512_dpbf16_ps(s[r][0], x, low);
            s[r][1] = _mm512_dpbf16_ps(s[r][1], x, high);
          }
        }
      }
#pragma GCC unroll 8
      for (int r = 0; r < 8; ++r)
#pragma GCC unroll 2
        for (int t = 0; t < 2; ++t) _mm512_storeu_ps(to + r * ld + t * 16, s[r][t]);
    }
  }
  // 32 columns at a time for all groups.
  static void values(const NarrowRows* values, index_t pages, const TileMemory<DotProducts>& m, bool first,
                     BlockReader& next) {
    for (index_t c = 0; c < m.columns; c += 32) {
      bf16* const packed =
          m.products + c / 32 % 2 * kPages * 2 * kPackedTile;  // the one before is being read
      for (index_t p = 0; p < pages; ++p) pack_values(values[p], c, packed + p * 2 * kPackedTile);
      for (index_t g = 0; g < m.groups; ++g)
        weigh(m.weights + g * kBlockKeys * kWeights, pages, packed, m.out + g * kRows * m.columns + c,
              m.columns, first, next);
    }
  }

  static void order(Vf a, Vf b, float* out) {
    store(out, __builtin_shufflevector(a, b, 0, 1, 2, 3, 16, 17, 18, 19, 4, 5, 6, 7, 20, 21, 22, 23),
          __builtin_shufflevector(a, b, 8, 9, 10, 11, 24, 25, 26, 27, 12, 13, 14, 15, 28, 29, 30, 31));
  }
};

}  // namespace

const DecodeKernels decode_bf16 = kTileKernels<DotProducts>;

}  // namespace sinew
#endif
