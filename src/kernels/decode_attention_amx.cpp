// The products of decode attention on AMX tiles.
//
// A row of 32 values as it lies in the cache is 16 pairs of columns, which a tile product would add up.
// Weights with a zero beside each pick the first or the second of every pair instead: twice the products, but
// tiles have time for them, and packing the values by pairs of rows took longer. So of two tiles of sums the
// first holds the even columns of 32, the second the odd ones.
#if defined(__x86_64__)
#define SINEW_WIDTH 16
#include "kernels/amx_tiles.hpp"
#include "kernels/decode_attention_tables.hpp"
#include "kernels/decode_attention_tiles.hpp"

namespace sinew {
namespace {

struct AmxProducts {
  static constexpr index_t kWeights = 64;  // bf16 for each key and 16 rows
  static constexpr index_t kScratch = 0;
  static constexpr index_t kTile = 512;  // bf16 of a tile
  static void begin() { configure_tiles(); }
  static void end() { release_tiles(); }

  // scores [64, 16]: two pages of keys (the second may be the first again) times the queries.
  static void scores(NarrowRows one, NarrowRows two, const bf16* q, index_t n, float* out,
                     BlockReader& next) {
    const index_t stride = one.ld * static_cast<index_t>(sizeof(bf16));
    const index_t stride2 = two.ld * static_cast<index_t>(sizeof(bf16));
    const bf16 *const a = one.at, *const b = a + 16 * one.ld, *const c = two.at, *const d = c + 16 * two.ld;
    order_memory();
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (index_t i = 0; i < n; i += 32) {
      _tile_loadd(6, q + i * kRows, 64);
      _tile_loadd(4, a + i, stride);
      _tile_dpbf16ps(0, 4, 6);
      _tile_loadd(5, b + i, stride);
      _tile_dpbf16ps(1, 5, 6);
      _tile_loadd(4, c + i, stride2);
      _tile_dpbf16ps(2, 4, 6);
      _tile_loadd(5, d + i, stride2);
      _tile_dpbf16ps(3, 5, 6);
      next.ask<4>();
    }
    _tile_stored(0, out, 64);
    _tile_stored(1, out + kTileWords, 64);
    _tile_stored(2, out + 2 * kTileWords, 64);
    _tile_stored(3, out + 3 * kTileWords, 64);
    order_memory();
  }

  // Weights [keys, 16] as tiles of 16 keys: [keys / 16][even, odd][16 rows][16 keys][2].
  static void turn(const float* weights, index_t keys, bf16* out, BlockReader& next) {
    for (index_t k = 0; k < keys; k += 16, out += 2 * kTile) {
      Vu rows[16];
      for (int i = 0; i < 16; ++i) rows[i] = load_as<Vu>(weights + (k + i) * kRows);
      transpose(rows);
      next.ask<2>();
      for (int r = 0; r < 16; ++r) {
        const auto narrow = (__m256i)_mm512_cvtneps_pbh((__m512)rows[r]);
        const __m512i first = _mm512_maskz_cvtepu16_epi32(0xffff, narrow);
        _mm512_storeu_si512(out + r * 32, first);
        _mm512_storeu_si512(out + kTile + r * 32, _mm512_maskz_slli_epi32(0xffff, first, 16));
      }
    }
  }

  // acc [16, ld] of 32 columns, of 64 where `Two`, (first ? = : +=) weights times values.
  template <bool Two>
  static void columns(const NarrowRows* values, index_t pages, index_t column, const bf16* weights,
                      float* acc, index_t ld, bool first, BlockReader& next) {
    const index_t bytes = ld * static_cast<index_t>(sizeof(float));
    if (first) {
      _tile_zero(0);
      _tile_zero(1);
      _tile_zero(2);
      _tile_zero(3);
    } else {
      _tile_loadd(0, acc, bytes);
      _tile_loadd(1, acc + 16, bytes);
      if constexpr (Two) {
        _tile_loadd(2, acc + 32, bytes);
        _tile_loadd(3, acc + 48, bytes);
      }
    }
    for (index_t half = 0; half < 2 * pages; ++half, weights += 2 * kTile) {
      const NarrowRows& page = values[half / 2];
      const bf16* const v = page.at + half % 2 * 16 * page.ld + column;
      const index_t stride = page.ld * static_cast<index_t>(sizeof(bf16));
      _tile_loadd(4, weights, 64);
      _tile_loadd(6, v, stride);
      _tile_dpbf16ps(0, 4, 6);
      if constexpr (Two) {
        _tile_loadd(7, v + 32, stride);
        _tile_dpbf16ps(2, 4, 7);
      }
      _tile_loadd(5, weights + kTile, 64);
      _tile_dpbf16ps(1, 5, 6);
      if constexpr (Two) _tile_dpbf16ps(3, 5, 7);
      next.ask<1>();
    }
    _tile_stored(0, acc, bytes);
    _tile_stored(1, acc + 16, bytes);
    if constexpr (Two) {
      _tile_stored(2, acc + 32, bytes);
      _tile_stored(3, acc + 48, bytes);
    }
  }
  static void values(const NarrowRows* values, index_t pages, const TileMemory<AmxProducts>& m, bool first,
                     BlockReader& next) {
    order_memory();
    for (index_t g = 0; g < m.groups; ++g) {
      const bf16* const weights = m.weights + g * kBlockKeys * kWeights;
      float* const acc = m.out + g * kRows * m.columns;
      index_t c = 0;
      for (; c + 64 <= m.columns; c += 64)
        columns<true>(values, pages, c, weights, acc + c, m.columns, first, next);
      if (c < m.columns) columns<false>(values, pages, c, weights, acc + c, m.columns, first, next);
    }
    order_memory();
  }

  static void order(Vf even, Vf odd, float* out) {
    store(out, __builtin_shufflevector(even, odd, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23),
          __builtin_shufflevector(even, odd, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31));
  }
};

}  // namespace

const DecodeKernels decode_amx = kTileKernels<AmxProducts>;

}  // namespace sinew
#endif
