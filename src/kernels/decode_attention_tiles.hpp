// The kernels of decode_attention.hpp in bf16, on tiles of 16 x 16: for AVX512-BF16 and AMX, which differ in
// the two products (`Products`), in what these want weights to look like and in which order they leave the
// columns of results. See simd.hpp for how to include it.
//
// Scores: keys as they lie in the cache times 16 queries packed in pairs, [keys, 16].
#pragma once

#include <immintrin.h>

#include "base/float_formats.hpp"
#include "kernels/decode_attention_simd.hpp"

namespace sinew {
namespace {

constexpr index_t kRows = 16;  // queries of a group
constexpr index_t kPages = 4;  // of a block
constexpr index_t kBlockKeys = kPages * kCachePage;
constexpr index_t kTileWords = 256;  // 32-bit words of a tile

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

// 16 queries from `first` on: [wide / 32][16 pairs][16][2].
inline void pack_queries(const float* const* q, index_t rows, index_t first, index_t n, index_t wide,
                         float factor, bf16* out) {
  for (index_t i = 0; i < wide; i += 32) {
    Vu pairs[16] = {};  // first of each row, then of each pair
    for (index_t r = 0; r < kRows && first + r < rows; ++r) {
      const float* from = q[first + r] + i;
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
inline std::size_t tile_query_bytes(const CacheRows& cache, index_t rows) {
  return count(decode_rows(rows) * round_up(cache.key, 32)) * sizeof(bf16);
}
inline void prepare_tiles(const CacheRows& cache, float scale, index_t rows, const float* const* q,
                          void* out) {
  const index_t wide = round_up(cache.key, 32);
  for (index_t first = 0; first < rows; first += kRows)
    pack_queries(q, rows, first, cache.key, wide, scale * kLog2OfE, static_cast<bf16*>(out) + first * wide);
}

// Sums acc [16, columns] of the blocks before times each row's share.
inline void keep_share(const float* keep, index_t columns, float* acc) {
  for (index_t r = 0; r < kRows; ++r) {
    if (keep[r] == 1) continue;
    for (index_t c = 0; c < columns; c += W) {
      float* const at = acc + r * columns + c;
      store(at, load(at) * keep[r]);
    }
  }
}

// ---- reading ----

// Reads a block in order, the halves of all pages side by side: the pattern that memory gives fastest. Part
// of the next block is asked for while one is computed with, a few lines at a time: more of them would hold
// the line buffers that tile loads need (docs/log.md).
class BlockReader {
 public:
  BlockReader() = default;
  BlockReader(const CacheRows& cache, const CachePage* pages, index_t page_count)
      : pages_(pages),
        count_(page_count),
        values_(cache.latent ? 0 : page_bytes(cache.value_bytes)),
        ahead_(cache.latent) {
    begin(&CachePage::keys, page_bytes(cache.key_bytes));
  }

  static constexpr index_t kStreams = 2 * kPages;
  // The next N lines of each half.
  template <int N>
  [[gnu::always_inline]] void ask() {
    if (!ahead_ || line_ + N * 64 > end_) return;
#pragma GCC unroll 8
    for (int i = 0; i < N; ++i, line_ += 64)
#pragma GCC unroll 8
      for (index_t s = 0; s < kStreams; ++s) __builtin_prefetch(at_[s] + line_, 0, 3);
  }
  // All that is left.
  void finish() {
    do {
      for (; line_ < end_; line_ += 64)
        for (index_t s = 0; s < 2 * count_; ++s) {
          const __m512i line = _mm512_loadu_si512(at_[s] + line_);
          asm volatile("" ::"x"(line));
        }
    } while (next_part());
  }

 private:
  static index_t page_bytes(std::size_t row) { return static_cast<index_t>(row) * kCachePage; }
  void begin(const std::byte* CachePage::*part, index_t bytes) {
    end_ = round_up(bytes / 2, 64);  // the second half may begin with the first one's last line
    for (index_t p = 0; p < kPages; ++p) {
      at_[2 * p] = pages_[p < count_ ? p : 0].*part;
      at_[2 * p + 1] = at_[2 * p] + (bytes - end_);
    }
    line_ = 0;
  }
  bool next_part() {
    if (line_ < end_ || values_ == 0) return false;
    begin(&CachePage::values, values_);
    values_ = 0;
    return true;
  }

  const CachePage* pages_ = nullptr;
  index_t count_ = 0, values_ = 0;  // bytes of values to come
  index_t line_ = 0, end_ = 0;      // bytes of the part at hand
  bool ahead_ = false;              // a head's keys and values are few lines: nothing is gained by asking
  const std::byte* at_[kStreams] = {};
};

// ---- the whole ----

// What the work on one piece needs.
template <class Products>
struct TileMemory {
  index_t key_wide, columns, groups;  // columns: of results
  const bf16* q;
  bf16 *weights, *products, *key_scratch, *value_scratch;
  float *out, *scores, *keep;

  TileMemory(const CacheRows& cache, const DecodePiece& piece, Workspace::Frame& frame)
      : key_wide(round_up(cache.key, 32)),
        columns(decode_columns(cache.value)),
        groups(decode_rows(piece.rows) / kRows),
        q(static_cast<const bf16*>(piece.q)),
        out(piece.out) {
    weights = frame.take<bf16>(count(groups * kBlockKeys * Products::kWeights));
    products = frame.take<bf16>(count(Products::kScratch));
    key_scratch = frame.take<bf16>(count(kBlockKeys * key_wide));
    value_scratch = cache.latent ? key_scratch : frame.take<bf16>(count(kBlockKeys * columns));
    scores = frame.take<float>(count(kBlockKeys * kRows));
    keep = frame.take<float>(kRows);
    for (index_t r = 0; r < groups * kRows; ++r) piece.top[r] = kLeast, piece.sum[r] = 0;
  }
};

inline index_t least(index_t a, index_t b) { return a < b ? a : b; }
inline index_t page_count(const DecodePiece& piece) { return (piece.keys + kCachePage - 1) / kCachePage; }

// One block: scores and weights of all groups, then the values. `next`: the block that is asked for
// meanwhile.
template <class Products>
void attend_block(const CacheRows& cache, const DecodePiece& piece, index_t first, index_t pages,
                  const TileMemory<Products>& m, BlockReader& next) {
  NarrowRows keys[kPages], values[kPages];
  for (index_t p = 0; p < pages; ++p) {
    const CachePage& page = piece.pages[first + p];
    keys[p] = narrow_rows(cache.format, page.keys, cache.key_bytes, cache.key, m.key_wide,
                          m.key_scratch + p * kCachePage * m.key_wide);
    // (Where a latent does not end with a tile, the rotated part after it gives columns that nobody reads.)
    values[p] = cache.latent ? keys[p]
                             : narrow_rows(cache.format, page.values, cache.value_bytes, cache.value,
                                           m.columns, m.value_scratch + p * kCachePage * m.columns);
  }
  constexpr index_t kGroupWeights = kBlockKeys * Products::kWeights;
  for (index_t g = 0; g < m.groups; ++g) {
    const index_t row = g * kRows, rows = least(piece.rows - row, kRows);
    for (index_t p = 0; p < pages; p += 2)
      Products::scores(keys[p], keys[p + 1 < pages ? p + 1 : p], m.q + row * m.key_wide, m.key_wide,
                       m.scores + p * kCachePage * kRows, next);
    hide(piece.visible + row, rows, first * kCachePage, pages * kCachePage, m.scores, kRows);
    softmax_rows(m.scores, kRows, pages * kCachePage, piece.top + row, piece.sum + row, m.keep,
                 [&] { next.template ask<1>(); });
    Products::turn(m.scores, pages * kCachePage, m.weights + g * kGroupWeights, next);
    if (first > 0) keep_share(m.keep, m.columns, piece.out + row * m.columns);
  }
  Products::values(values, pages, m, first == 0, next);
}

template <class Products>
void attend_tiles(const CacheRows& cache, const DecodePiece& piece, const DecodePiece* coming) {
  Workspace::Frame frame(thread_workspace());
  const TileMemory<Products> m(cache, piece, frame);
  const index_t pages = page_count(piece);
  const auto reader = [&](const DecodePiece& of, index_t first) {
    return BlockReader(cache, of.pages + first, least(page_count(of) - first, kPages));
  };
  Products::begin();
  BlockReader block = reader(piece, 0);
  for (index_t first = 0; first < pages; first += kPages) {
    block.finish();
    const index_t after = first + kPages;
    BlockReader next;
    if (after < pages)
      next = reader(piece, after);
    else if (coming != nullptr)
      next = reader(*coming, 0);
    attend_block<Products>(cache, piece, first, least(pages - first, kPages), m, next);
    block = next;
  }
  Products::end();
}

// Two vectors of results as the products left them, in order.
template <class Products>
struct ProductOrder {
  static void put(const float* columns, index_t n, float* y) {
    alignas(64) float ordered[32];
    Products::order(load(columns), load(columns + 16), ordered);
    std::memcpy(y, ordered, count(n) * sizeof(float));
  }
};

template <class Products>
constexpr DecodeKernels kTileKernels{tile_query_bytes, prepare_tiles, attend_tiles<Products>,
                                     merge_pieces<ProductOrder<Products>>};

}  // namespace
}  // namespace sinew
