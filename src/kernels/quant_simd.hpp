// The kernels of quant_tables.hpp that read packed weights, on vectors of SINEW_WIDTH floats, all but the
// product of unpacked spans. See simd.hpp for how to include it.
#pragma once

#include "kernels/quant_rows_simd.hpp"
#include "kernels/read_ahead.hpp"

namespace sinew {
namespace {

// ---- few tokens ----
[[gnu::always_inline]] inline std::int32_t four(const std::int8_t* q) {
  std::int32_t x;
  __builtin_memcpy(&x, q, 4);
  return x;
}

// Integer products of the 32 columns of a chunk of 4-bit codes with one token's. High halves stay where they
// are: their products are 16 times too large.
struct Nibbles {
  Vw low[4], high[4];

  [[gnu::always_inline]] void load(const std::byte* chunk) {
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
      const Vw l = load_as<Vw>(chunk + 64 * j);
      low[j] = l & 0x0f0f;
      high[j] = l & 0xf0f0;
    }
  }
  template <BlockFormat F>
  [[gnu::always_inline]] Vi dot_with(const std::int8_t* q, std::int32_t sum) const {
    Vi a = Format<F>::bias != 0 ? splat_int(-Format<F>::bias * sum) : Vi{}, b{};
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
      a = dot(a, low[j], four(q + 8 * j));
      b = dot(b, high[j], four(q + 8 * j + 4));
    }
    return a + (b >> 4);
  }
};

// Integer products of columns [from, from + 4 n) of the 32 with one token's.
template <BlockFormat F, int N>
[[gnu::always_inline]] inline Vi dot_codes(const Vw* w, const std::int8_t* q, std::int32_t sum) {
  Vi a = Format<F>::bias != 0 ? splat_int(-Format<F>::bias * sum) : Vi{};
#if SINEW_WIDTH == 8
  // Products of small codes are added up in 16 bits first, as many as fit.
  constexpr int fit = 32767 / (2 * 127 * Format<F>::top), together = fit < N ? fit : N;
  if constexpr (!Format<F>::made_signed && together > 1) {
    __m256i pairs{};
#pragma GCC unroll 8
    for (int v = 0; v < N; ++v) {
      const __m256i more = products_in_pairs(w[v], four(q + 4 * v));
      pairs = v % together == 0 ? more : _mm256_add_epi16(pairs, more);
      if (v % together == together - 1 || v == N - 1) a += pairs_to_words(pairs);
    }
    return a;
  }
#endif
#pragma GCC unroll 8
  for (int v = 0; v < N; ++v) {
#if SINEW_WIDTH == 8
    if constexpr (Format<F>::made_signed) {
      a = dot_signed(a, w[v], four(q + 4 * v));
      continue;
    }
#endif
    a = dot(a, w[v], four(q + 4 * v));
  }
  return a;
}

// Fetch in equal parts.
class FetchInParts {
 public:
  FetchInParts(const Fetch& all, index_t parts)
      : at_(all.at),
        then_(all.then_lines > 0 ? all.then : all.at + all.lines * 64),
        left_(all.lines),
        lines_((all.lines + all.then_lines + parts - 1) / parts) {}
  [[gnu::always_inline]] void part() {
    for (index_t i = 0; i < lines_; ++i, at_ += 64) {
      if (left_-- == 0) at_ = then_;
      __builtin_prefetch(at_, 0, 2);
    }
  }

 private:
  const std::byte *at_, *then_;
  index_t left_, lines_;
};

// The codes of 32 columns as the products want them.
template <BlockFormat F>
struct ChunkCodes {
  static constexpr bool nibbles = Format<F>::nibbles && kWideCodes;
  std::conditional_t<nibbles, Nibbles, Vw[8]> codes;

  [[gnu::always_inline]] ChunkCodes(const std::byte* chunk, [[maybe_unused]] int h) {
    if constexpr (nibbles)
      codes.load(chunk);
    else
      load_codes<F>(chunk, h, codes);
  }
  // The products of G columns from `g` on.
  template <int G>
  [[gnu::always_inline]] Vi dot_with(index_t g, const std::int8_t* q, std::int32_t sum) const {
    if constexpr (nibbles)
      return codes.template dot_with<F>(q, sum);
    else
      return dot_codes<F, G / 4>(codes + g / 4, q, sum);
  }
};

// Bytes of a tile for each 32 columns, head and all.
template <BlockFormat F>
constexpr int kBytesOf32 = static_cast<int>((Format<F>::layout.head + Format<F>::layout.body()) * 32 /
                                            Format<F>::layout.elements);

// One block of one tile: total[t] += its products with T tokens.
template <BlockFormat F, int T>
[[gnu::always_inline]] inline void dot_block(const std::byte* tile, index_t heads, index_t block, int h,
                                             const QuantRow* rows, const Ahead& ahead, Vf* total) {
  using Fm = Format<F>;
  constexpr PackedLayout layout = Fm::layout;
  constexpr int G = Fm::group;
  const std::byte* const head = tile + block * layout.head;
  const std::byte* const body = tile + heads + block * layout.body();
  const Scales outer = block_scales<F>(head, h);
  const index_t column = block * layout.elements, span = column / kSpan;
  Vf sum[T] = {}, low[T] = {};
  const std::byte* const chunks = body + layout.scale_bytes;
  GroupBytes six;
  if constexpr (Fm::six_bits) group_bytes(body, six);
#pragma GCC unroll 1
  for (index_t c = 0; c < layout.elements; c += 32) {
    const std::byte* const chunk = chunks + c / 32 * layout.chunk_bytes();
    const ChunkCodes<F> codes(chunk, h);
    if (h == 0)
      ahead.ask<kBytesOf32<F>, layout.chunk_bytes()>(tile + (column + c) / 32 * kBytesOf32<F>, chunk);
#pragma GCC unroll 2
    for (index_t g = 0; g < 32; g += G) {
      const Scales inner = group_scales<F>(head, body, six, (c + g) / G, h);
#pragma GCC unroll 4
      for (int t = 0; t < T; ++t) {
        const std::int8_t* const q = rows[t].q + column + c + g;
        const std::int32_t* const s = rows[t].sums + (column + c + g) / 16;
        const std::int32_t total_q = G == 16 ? s[0] : s[0] + s[1];
        const Vf product = to_floats(codes.template dot_with<G>(g, q, total_q));
        const float counted = G == 16 ? static_cast<float>(total_q) : rows[t].pairs[(column + c) / 32];
        if constexpr (Fm::grouped) {
          sum[t] += product * inner.scale;
          if constexpr (Fm::minimum) low[t] += inner.minimum * counted;
        } else {
          sum[t] = product;
          if constexpr (Fm::minimum) low[t] = splat(counted);
        }
      }
    }
  }
#pragma GCC unroll 4
  for (int t = 0; t < T; ++t) {
    Vf v = sum[t] * outer.scale;
    if constexpr (Fm::minimum) v -= low[t] * outer.minimum;
    total[t] += v * rows[t].scale[span];
  }
}

template <BlockFormat F, int T>
void dot_format(const std::byte* tiles, index_t tile_count, index_t cols, const QuantRow* rows,
                const std::byte* next, float* out, index_t ld_out) {
  constexpr PackedLayout layout = Format<F>::layout;
  const index_t tile_bytes = layout.tile_bytes(cols), heads = layout.heads(cols),
                blocks = cols / layout.elements;
  const std::byte* const end = tiles + tile_count * tile_bytes;
  const Ahead ahead(end, next);
  for (index_t i = 0; i < tile_count; ++i) {
    const std::byte* const tile = tiles + i * tile_bytes;
    Vf total[kHalves][T] = {};
    for (index_t b = 0; b < blocks; ++b)
      for (int h = 0; h < kHalves; ++h) dot_block<F, T>(tile, heads, b, h, rows, ahead, total[h]);
    for (int t = 0; t < T; ++t)
      for (int h = 0; h < kHalves; ++h) store(out + t * ld_out + i * kPackedRows + h * W, total[h][t]);
  }
}

template <BlockFormat F>
void dot_tokens(const std::byte* tiles, index_t tile_count, index_t cols, const QuantRow* rows,
                index_t tokens, const std::byte* next, float* out, index_t ld_out) {
  switch (tokens) {
    case 1:
      return dot_format<F, 1>(tiles, tile_count, cols, rows, next, out, ld_out);
    case 2:
      return dot_format<F, 2>(tiles, tile_count, cols, rows, next, out, ld_out);
    case 3:
      return dot_format<F, 3>(tiles, tile_count, cols, rows, next, out, ld_out);
    default:
      return dot_format<F, 4>(tiles, tile_count, cols, rows, next, out, ld_out);
  }
}

// ---- many tokens: a span with one scale for each row ----

// value = inner.scale * (code - bias) - inner.minimum of each group of the span, with all scales applied.
template <BlockFormat F>
[[gnu::always_inline]] inline Scales full_scales(const std::byte* tile, index_t cols,
                                                 [[maybe_unused]] const GroupBytes& six, index_t column,
                                                 int h) {
  constexpr PackedLayout layout = Format<F>::layout;
  const index_t block = column / layout.elements;
  const std::byte* const head = tile + block * layout.head;
  const std::byte* const body = tile + layout.heads(cols) + block * layout.body();
  const Scales outer = block_scales<F>(head, h);
  if constexpr (!Format<F>::grouped) {
    return outer;
  } else {
    const Scales inner = group_scales<F>(head, body, six, column % layout.elements / Format<F>::group, h);
    return {outer.scale * inner.scale, outer.minimum * inner.minimum};
  }
}

[[gnu::always_inline]] inline Vw twice(Vi x) { return (Vw)((x & 0xffff) | (x << 16)); }

// Half `h` of the rows of a span on its way to 8 bits: chunk(0), chunk(32), .. then end().
template <BlockFormat F, int Flip>
struct SpanUnpacker {
  using Fm = Format<F>;
  static constexpr PackedLayout layout = Fm::layout;
  static constexpr std::ptrdiff_t kSpanAhead = 1024;  // bytes: products run between these reads
  const std::byte*
      packed;     // its codes: blocks of 256 are spans, smaller ones hold nothing else in their bodies
  index_t count;  // of columns
  int h;
  std::int8_t* out;
  struct Group {
    Vw factor, less;
  } group[kSpan / Fm::group];

  [[gnu::always_inline]] SpanUnpacker(const std::byte* tile, index_t cols, index_t span, int half,
                                      std::int8_t* to, float* scale)
      : packed(tile + layout.heads(cols) + span * (kSpan / layout.elements) * layout.body() +
               layout.scale_bytes),
        count(cols - span * kSpan < kSpan ? cols - span * kSpan : kSpan),
        h(half),
        out(to) {
    static_assert(layout.elements == kSpan || layout.scale_bytes == 0);
    const index_t first = span * kSpan;
    constexpr float bias = static_cast<float>(layout.bias), top = static_cast<float>(Fm::top - layout.bias);
    constexpr index_t lowest = Fm::levels ? 1 : 0;
    Scales scales[kSpan / Fm::group];
    Vf largest_value = splat(1e-30F);
    GroupBytes six;
    if constexpr (Fm::six_bits) group_bytes(packed - layout.scale_bytes, six);
    for (index_t g = 0; g < count; g += Fm::group) {
      const Scales s = full_scales<F>(tile, cols, six, first + g, h);
      scales[g / Fm::group] = s;
      largest_value =
          maximum(largest_value, absolute(s.scale * (static_cast<float>(lowest) - bias) - s.minimum));
      largest_value = maximum(largest_value, absolute(s.scale * top - s.minimum));
    }
    store(scale + h * W, largest_value * (1.0F / 127));
    const Vf inverse = (127.0F * 256) / largest_value;  // to 8 bits after the point
    for (index_t g = 0; g < count; g += Fm::group) {
      const Scales s = scales[g / Fm::group];
      const Vi rounded = nearest(s.scale * inverse);
      // 128: rounding, since what lies below 8 bits is cut off; Flip: 128 more in 8 bits.
      const Vi less = rounded * Fm::bias + nearest(s.minimum * inverse) - 128 - Flip * 256;
      group[g / Fm::group] = {twice(rounded), twice(less)};
    }
  }

  // The first (0) or second (1) 16 of columns 32 n .. 32 n + 31 of the span; none beyond its end.
  template <unsigned Part>
  [[gnu::always_inline]] void half_chunk(std::size_t n) const {
    if (static_cast<index_t>(n * 32) >= count) return;
    Vw w[8];
    const std::byte* const chunk = packed + n * static_cast<std::size_t>(layout.chunk_bytes());
    load_codes<F>(chunk, h, w);
    if (h == 0 && Part == 0) fetch<layout.chunk_bytes(), 3>(chunk + kSpanAhead);
    const Group& values = group[Fm::group == 16 ? 2 * n + Part : n];
    const Vw factor = values.factor, less = values.less;
    std::int8_t* const to = out + n * 512 + h * (64 / kHalves);
#pragma GCC unroll 4
    for (unsigned v = 4 * Part; v < 4 * Part + 4; ++v) {
      Vw even = w[v] & 0x00ff, odd = w[v] >> 8;
      if constexpr (Fm::made_signed) {
        even = (even ^ 0x0080) - 0x0080;
        odd = (odd ^ 0x0080) - 0x0080;
      }
      even = even * factor - less;
      odd = odd * factor - less;
      const Vw both = (even >> 8) | (odd & 0xff00);
      __builtin_memcpy(to + v * 64, &both, sizeof both);
    }
  }
  [[gnu::always_inline]] void chunk(std::size_t n) const {
    half_chunk<0>(n);
    half_chunk<1>(n);
  }

  [[gnu::always_inline]] void end() const {  // zeros to the next 64 columns
    const Vw zero = splat16(Flip * 0x0101);
    for (index_t v = count / 4; v < round_up(count, 64) / 4; ++v)
      __builtin_memcpy(out + v * 64 + h * (64 / kHalves), &zero, sizeof zero);
  }
};

template <BlockFormat F, int Flip>
void unpack_format(const std::byte* tile, index_t cols, index_t span, std::int8_t* out, float* scale) {
  for (int h = 0; h < kHalves; ++h) {
    const SpanUnpacker<F, Flip> span_of(tile, cols, span, h, out, scale);
    for (std::size_t n = 0; n < kSpan / 32; ++n) span_of.chunk(n);
    span_of.end();
  }
}

// ---- one function for all formats ----

// Calls function.template operator()<F>().
template <class Function>
[[gnu::always_inline]] inline void with_format(BlockFormat format, const Function& function) {
  switch (format) {
#define SINEW_FORMAT(name) \
  case BlockFormat::name:  \
    return function.template operator()<BlockFormat::name>();
    SINEW_FORMAT(q4_0)
    SINEW_FORMAT(q4_1)
    SINEW_FORMAT(q5_0)
    SINEW_FORMAT(q5_1)
    SINEW_FORMAT(q8_0)
    SINEW_FORMAT(q2_k)
    SINEW_FORMAT(q3_k)
    SINEW_FORMAT(q4_k)
    SINEW_FORMAT(q5_k)
    SINEW_FORMAT(q6_k)
    SINEW_FORMAT(iq4_nl)
    SINEW_FORMAT(iq4_xs)
#undef SINEW_FORMAT
    default:
      return;
  }
}

void dot_tiles(BlockFormat format, const std::byte* tiles, index_t tile_count, index_t cols,
               const QuantRow* rows, index_t tokens, const std::byte* next, float* out, index_t ld_out) {
  with_format(format, [&]<BlockFormat F>() {
    dot_tokens<F>(tiles, tile_count, cols, rows, tokens, next, out, ld_out);
  });
}

template <int Flip>
void unpack_span(BlockFormat format, const std::byte* tile, index_t cols, index_t span, std::int8_t* out,
                 float* scale) {
  with_format(format, [&]<BlockFormat F>() { unpack_format<F, Flip>(tile, cols, span, out, scale); });
}

}  // namespace
}  // namespace sinew
