// The kernels of decode_attention.hpp in bf16, on tiles of 16 x 16: for AVX512-BF16 and AMX, which differ in
// the two products alone (`Products`). See simd.hpp for how to include it.
//
// Scores: keys as they lie in the cache times 16 queries packed in pairs, [keys, 16]. Values are packed by
// pairs of rows where they are used, 32 columns into two tiles of 16 pairs by 16: the low one holds columns
// 0-3, 8-11, 16-19, 24-27 of them, as the interleaving instructions of 128-bit lanes leave them, the high one
// the others; results are put in order once, at the end.
#pragma once

#include <immintrin.h>

#include "base/float_formats.hpp"
#include "kernels/decode_attention_simd.hpp"

namespace sinew {
namespace {

constexpr index_t kRows = 16;  // queries of a group
constexpr index_t kPages = 4;  // of a block
constexpr index_t kBlockKeys = kPages * kCachePage;
constexpr index_t kTileWords = 256;   // 32-bit words of a tile
constexpr index_t kPackedTile = 512;  // bf16 of a packed tile

// ---- rows of a page in bf16 ----

struct NarrowRows {
  const bf16* at;
  index_t ld;
};

[[gnu::always_inline]] inline __m512 to_floats(__m128i bytes) {
  return _mm512_maskz_cvtepi32_ps(0xffff, _mm512_maskz_cvtepi8_epi32(0xffff, bytes));
}
inline void narrow_q8_0(const std::byte* row, index_t n, bf16* out) {
  const auto* const blocks = reinterpret_cast<const BlockQ8_0*>(row);
  for (index_t b = 0; b < n / 32; ++b) {
    const Vf d = splat(_cvtsh_ss(blocks[b].d));
    const auto half = [&](int i) {
      return (Vf)to_floats(_mm_loadu_si128(reinterpret_cast<const __m128i*>(blocks[b].qs + i))) * d;
    };
    store(out + b * 32, half(0), half(16));
  }
}
inline void narrow_q4_0(const std::byte* row, index_t n, bf16* out) {
  const auto* const blocks = reinterpret_cast<const BlockQ4_0*>(row);
  const __m128i low = _mm_set1_epi8(15), middle = _mm_set1_epi8(8);
  for (index_t b = 0; b < n / 32; ++b) {
    const Vf d = splat(_cvtsh_ss(blocks[b].d));
    const __m128i both = _mm_loadu_si128(reinterpret_cast<const __m128i*>(blocks[b].qs));
    const auto half = [&](__m128i codes) { return (Vf)to_floats(_mm_sub_epi8(codes, middle)) * d; };
    store(out + b * 32, half(_mm_and_si128(both, low)), half(_mm_and_si128(_mm_srli_epi16(both, 4), low)));
  }
}
inline void narrow_f16(const std::byte* row, index_t n, bf16* out) {
  const auto* const x = reinterpret_cast<const std::uint16_t*>(row);
  index_t i = 0;
  for (; i + 32 <= n; i += 32) store(out + i, halves(x + i), halves(x + i + 16));
  for (; i < n; ++i) out[i] = to_bf16(half_to_float(x[i]));
}

// The page's rows, padded with zeros to `wide` elements; `scratch` [kCachePage, wide] where they do not lie
// so.
inline NarrowRows narrow_rows(BlockFormat format, const std::byte* rows, std::size_t bytes, index_t n,
                              index_t wide, bf16* scratch) {
  if (format == BlockFormat::bf16 && n == wide)
    return {reinterpret_cast<const bf16*>(rows), static_cast<index_t>(bytes / sizeof(bf16))};
  for (index_t r = 0; r < kCachePage; ++r) {
    const std::byte* const row = rows + count(r) * bytes;
    bf16* const to = scratch + r * wide;
    if (format == BlockFormat::q8_0)
      narrow_q8_0(row, n, to);
    else if (format == BlockFormat::q4_0)
      narrow_q4_0(row, n, to);
    else if (format == BlockFormat::f16)
      narrow_f16(row, n, to);
    else
      std::memcpy(static_cast<void*>(to), row, count(n) * sizeof(bf16));
    for (index_t i = n; i < wide; ++i) to[i] = {0};
  }
  return {scratch, wide};
}

// ---- packing ----

// Columns [column, column + 32) of a page's values: [2][16 pairs][16][2].
[[gnu::always_inline]] inline void pack_values(NarrowRows values, index_t column, bf16* out) {
  const bf16* from = values.at + column;
  for (index_t pair = 0; pair < kCachePage / 2; ++pair, from += 2 * values.ld) {
    const __m512i x = _mm512_loadu_si512(from), y = _mm512_loadu_si512(from + values.ld);
    _mm512_store_si512(out + pair * 32, _mm512_unpacklo_epi16(x, y));
    _mm512_store_si512(out + pair * 32 + kPackedTile, _mm512_unpackhi_epi16(x, y));
  }
}

// 16 queries from `first` on: [wide / 32][16 pairs][16][2].
inline void pack_queries(const DecodePiece& piece, index_t first, index_t n, index_t wide, float factor,
                         bf16* out) {
  for (index_t i = 0; i < wide; i += 32) {
    Vu pairs[16] = {};  // first of each row, then of each pair
    for (index_t r = 0; r < kRows && first + r < piece.rows; ++r) {
      const float* from = piece.q[first + r] + i;
      float part[32] = {};
      if (n - i < 32) {
        std::memcpy(part, from, count(n - i) * sizeof(float));
        from = part;
      }
      store(reinterpret_cast<bf16*>(&pairs[r]), load(from) * factor, load(from + 16) * factor);
    }
    transpose(pairs);
    for (index_t pair = 0; pair < 16; ++pair)
      std::memcpy(out + (i / 2 + pair) * 32, &pairs[pair], sizeof(Vu));
  }
}

// Weights [keys, 16] as bf16 tiles [keys / 32][16][32].
inline void turn_weights(const float* weights, index_t keys, bf16* out) {
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

inline void keep_share(const float* keep, index_t tiles, float* acc) {
  bool all = true;
  for (index_t r = 0; r < kRows; ++r) all = all && keep[r] == 1;
  if (all) return;
  for (index_t t = 0; t < tiles; ++t)
    for (index_t r = 0; r < kRows; ++r) {
      float* const at = acc + t * kTileWords + r * kRows;
      store(at, load(at) * keep[r]);
    }
}

// Tiles of sums, columns as pack_values() left them, to rows.
inline void order_columns(const float* acc, index_t rows, index_t columns, float* out) {
  for (index_t c = 0; c < columns; c += 32)
    for (index_t r = 0; r < rows; ++r) {
      const float* const from = acc + c / 16 * kTileWords + r * kRows;
      const Vf a = load(from), b = load(from + kTileWords);
      const Vf low = __builtin_shufflevector(a, b, 0, 1, 2, 3, 16, 17, 18, 19, 4, 5, 6, 7, 20, 21, 22, 23);
      const Vf high =
          __builtin_shufflevector(a, b, 8, 9, 10, 11, 24, 25, 26, 27, 12, 13, 14, 15, 28, 29, 30, 31);
      float* const to = out + r * columns + c;
      if (columns - c >= 32) {
        store(to, low, high);
        continue;
      }
      float part[32];
      store(part, low, high);
      std::memcpy(to, part, count(columns - c) * sizeof(float));
    }
}

// ---- the whole ----

// What the work on one piece needs.
struct TileMemory {
  index_t key_wide, value_wide, groups, tiles;
  bf16 *q, *weights, *packed, *key_scratch, *value_scratch;
  float *acc, *scores, *top, *sum, *keep;

  TileMemory(const CacheRows& cache, index_t rows, Workspace::Frame& frame)
      : key_wide(round_up(cache.key, 32)),
        value_wide(round_up(cache.value, 32)),
        groups((rows + kRows - 1) / kRows),
        tiles(value_wide / 16) {
    q = frame.take<bf16>(count(groups * key_wide * kRows));
    weights = frame.take<bf16>(count(groups * kBlockKeys * kRows));
    packed = frame.take<bf16>(count(2 * kPages * 2 * kPackedTile));
    key_scratch = frame.take<bf16>(count(kBlockKeys * key_wide));
    value_scratch = cache.latent ? key_scratch : frame.take<bf16>(count(kBlockKeys * value_wide));
    acc = frame.take<float>(count(groups * tiles * kTileWords));
    scores = frame.take<float>(count(kBlockKeys * kRows));
    top = frame.take<float>(count(3 * groups * kRows));
    sum = top + groups * kRows;
    keep = sum + groups * kRows;
    for (index_t r = 0; r < groups * kRows; ++r) top[r] = kLeast, sum[r] = 0;
    std::memset(acc, 0, count(groups * tiles * kTileWords) * sizeof(float));
  }
};

// Reads a block in order, all pages side by side: the pattern that memory gives fastest. (Fetching the next
// block while this one is computed with gained nothing: what it saved went into waiting for line buffers.)
inline void read_block(const CacheRows& cache, const CachePage* pages, index_t page_count) {
  const auto read = [&](const std::byte* CachePage::*part, std::size_t row) {
    for (index_t l = 0; l < static_cast<index_t>(row) * kCachePage; l += 64)
      for (index_t p = 0; p < page_count; ++p) {
        const __m512i line = _mm512_loadu_si512(pages[p].*part + l);
        asm volatile("" ::"x"(line));
      }
  };
  read(&CachePage::keys, cache.key_bytes);
  if (!cache.latent) read(&CachePage::values, cache.value_bytes);
}

// One block: scores and weights of all groups, then the values, 32 columns at a time for all groups.
template <class Products>
void attend_block(const CacheRows& cache, const DecodePiece& piece, index_t first, index_t pages,
                  const TileMemory& m) {
  read_block(cache, piece.pages + first, pages);
  NarrowRows keys[kPages], values[kPages];
  for (index_t p = 0; p < pages; ++p) {
    const CachePage& page = piece.pages[first + p];
    keys[p] = narrow_rows(cache.format, page.keys, cache.key_bytes, cache.key, m.key_wide,
                          m.key_scratch + p * kCachePage * m.key_wide);
    // (Where a latent does not end with a tile, the rotated part after it gives columns that nobody reads.)
    values[p] = cache.latent ? keys[p]
                             : narrow_rows(cache.format, page.values, cache.value_bytes, cache.value,
                                           m.value_wide, m.value_scratch + p * kCachePage * m.value_wide);
  }
  for (index_t g = 0; g < m.groups; ++g) {
    const index_t row = g * kRows, rows = piece.rows - row < kRows ? piece.rows - row : kRows;
    for (index_t p = 0; p < pages; p += 2)
      Products::scores(keys[p], keys[p + 1 < pages ? p + 1 : p], m.q + g * m.key_wide * kRows, m.key_wide,
                       m.scores + p * kCachePage * kRows);
    hide(piece.visible + row, rows, first * kCachePage, pages * kCachePage, m.scores, kRows);
    softmax_rows(m.scores, kRows, pages * kCachePage, m.top + row, m.sum + row, m.keep + row);
    turn_weights(m.scores, pages * kCachePage, m.weights + g * kBlockKeys * kRows);
    keep_share(m.keep + row, m.tiles, m.acc + g * m.tiles * kTileWords);
  }
  for (index_t t = 0; t < m.tiles; t += 2) {
    bf16* const packed =
        m.packed + t / 2 % 2 * kPages * 2 * kPackedTile;  // the one before is still being read
    for (index_t p = 0; p < pages; ++p) pack_values(values[p], t * 16, packed + p * 2 * kPackedTile);
    for (index_t g = 0; g < m.groups; ++g)
      Products::values(m.weights + g * kBlockKeys * kRows, pages, packed,
                       m.acc + (g * m.tiles + t) * kTileWords);
  }
}

template <class Products>
void attend_tiles(const CacheRows& cache, float scale, const DecodePiece& piece) {
  Workspace::Frame frame(thread_workspace());
  const TileMemory m(cache, piece.rows, frame);
  for (index_t g = 0; g < m.groups; ++g)
    pack_queries(piece, g * kRows, cache.key, m.key_wide, scale * kLog2OfE, m.q + g * m.key_wide * kRows);
  const index_t pages = (piece.keys + kCachePage - 1) / kCachePage;
  Products::begin();
  for (index_t first = 0; first < pages; first += kPages) {
    attend_block<Products>(cache, piece, first, pages - first < kPages ? pages - first : kPages, m);
  }
  Products::end();
  for (index_t g = 0; g < m.groups; ++g) {
    const index_t row = g * kRows, rows = piece.rows - row < kRows ? piece.rows - row : kRows;
    order_columns(m.acc + g * m.tiles * kTileWords, rows, cache.value, piece.out + row * cache.value);
    for (index_t r = row; r < row + rows; ++r) piece.top[r] = m.top[r], piece.sum[r] = m.sum[r];
  }
}

}  // namespace
}  // namespace sinew
