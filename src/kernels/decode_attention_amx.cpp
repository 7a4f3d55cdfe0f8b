// The products of decode attention on AMX tiles.
#if defined(__x86_64__)
#define SINEW_WIDTH 16
#include "kernels/amx_tiles.hpp"
#include "kernels/decode_attention_tables.hpp"
#include "kernels/decode_attention_tiles.hpp"

namespace sinew {
namespace {

struct AmxProducts {
  static void begin() { configure_tiles(); }
  static void end() { release_tiles(); }

  // scores [64, 16]: two pages of keys (the second may be the first again) times the queries.
  static void scores(NarrowRows one, NarrowRows two, const bf16* q, index_t n, float* out) {
    const index_t stride = one.ld * static_cast<index_t>(sizeof(bf16));
    const index_t stride2 = two.ld * static_cast<index_t>(sizeof(bf16));
    const bf16 *const a = one.at, *const b = a + 16 * one.ld, *const c = two.at, *const d = c + 16 * two.ld;
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
    }
    _tile_stored(0, out, 64);
    _tile_stored(1, out + kTileWords, 64);
    _tile_stored(2, out + 2 * kTileWords, 64);
    _tile_stored(3, out + 3 * kTileWords, 64);
  }

  // acc [2 tiles] += weights [pages][16, 32] * values [pages][2 tiles].
  template <int N>
  static void values_of(const bf16* weights, const bf16* values, float* acc) {
    _tile_loadd(0, acc, 64);
    _tile_loadd(1, acc + kTileWords, 64);
    // Pages by turns through two sets of registers.
    const auto even = [&](index_t page) __attribute__((always_inline)) {
      const bf16* const v = values + 2 * page * kPackedTile;
      _tile_loadd(4, weights + page * kPackedTile, 64);
      _tile_loadd(2, v, 64);
      _tile_dpbf16ps(0, 4, 2);
      _tile_loadd(3, v + kPackedTile, 64);
      _tile_dpbf16ps(1, 4, 3);
    };
    const auto odd = [&](index_t page) __attribute__((always_inline)) {
      const bf16* const v = values + 2 * page * kPackedTile;
      _tile_loadd(5, weights + page * kPackedTile, 64);
      _tile_loadd(6, v, 64);
      _tile_dpbf16ps(0, 5, 6);
      _tile_loadd(7, v + kPackedTile, 64);
      _tile_dpbf16ps(1, 5, 7);
    };
    even(0);
    if constexpr (N > 1) odd(1);
    if constexpr (N > 2) even(2);
    if constexpr (N > 3) odd(3);
    _tile_stored(0, acc, 64);
    _tile_stored(1, acc + kTileWords, 64);
  }
  static void values(const bf16* weights, index_t pages, const bf16* values, float* acc) {
    if (pages == 1) return values_of<1>(weights, values, acc);
    if (pages == 2) return values_of<2>(weights, values, acc);
    if (pages == 3) return values_of<3>(weights, values, acc);
    values_of<4>(weights, values, acc);
  }
};

}  // namespace

const DecodeKernels decode_amx = {attend_tiles<AmxProducts>, merge_pieces};

}  // namespace sinew
#endif
