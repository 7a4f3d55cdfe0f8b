// Products of 8-bit integers on AMX tiles: 32 tokens x 32 rows in four tiles, 64 columns a step.
#if defined(__x86_64__)
#define SINEW_WIDTH 16
#include <immintrin.h>

#include "kernels/amx_tiles.hpp"
#include "kernels/quant_isa_tables.hpp"
#include "kernels/quant_simd.hpp"
#include "kernels/unit_list.hpp"

namespace sinew {
namespace {

constexpr index_t kTileBytes = 1024;

// Tiles 0..3: the products of two groups of tokens with two of rows, [2][2][16 tokens][16 rows].
[[gnu::always_inline]] inline void multiply_two(const std::int8_t* a0, const std::int8_t* a1,
                                                const std::int8_t* b, index_t apart, index_t steps,
                                                FetchInParts& ahead) {
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  for (index_t s = 0; s < steps * kTileBytes; s += kTileBytes) {
    ahead.part();
    _tile_loadd(6, b + s, 64);
    _tile_loadd(4, a0 + s, 64);
    _tile_loadd(7, b + apart + s, 64);
    _tile_dpbssd(0, 4, 6);
    _tile_loadd(5, a1 + s, 64);
    _tile_dpbssd(1, 4, 7);
    _tile_dpbssd(2, 5, 6);
    _tile_dpbssd(3, 5, 7);
  }
}

[[gnu::always_inline]] inline void multiply_one(const std::int8_t* a, const std::int8_t* b, index_t steps,
                                                FetchInParts& ahead) {
  _tile_zero(0);
  _tile_zero(1);
  for (index_t s = 0; s < steps * kTileBytes; s += kTileBytes) {
    ahead.part();
    _tile_loadd(4, a + s, 64);
    _tile_loadd(6, b + s, 64);
    _tile_loadd(7, b + 16 * kSpan + s, 64);
    _tile_dpbssd(0, 4, 6);
    _tile_dpbssd(1, 4, 7);
  }
}

[[gnu::always_inline]] inline void store_one(std::int32_t* sums) {
  _tile_stored(0, sums, 64);
  _tile_stored(1, sums + 256, 64);
}
[[gnu::always_inline]] inline void store_two(std::int32_t* sums) {
  store_one(sums);
  _tile_stored(2, sums + 512, 64);
  _tile_stored(3, sums + 768, 64);
}

// acc [16, 32] (first ? = : +=) sums [2][16][16], scaled.
template <bool First>
[[gnu::always_inline]] inline void add_group(const std::int32_t* sums, Vf low, Vf high, const float* scale,
                                             float* acc) {
#pragma GCC unroll 4
  for (int i = 0; i < 16; ++i) {
    const Vf s = splat(scale[i]);
    float* const to = acc + i * 32;
    const Vf a = to_floats(load_as<Vi>(sums + i * 16)) * low,
             b = to_floats(load_as<Vi>(sums + 256 + i * 16)) * high;
    store(to, First ? a * s : load(to) + a * s);
    store(to + 16, First ? b * s : load(to + 16) + b * s);
  }
}

void product_tiles(const std::int8_t* a, index_t stride, index_t tokens, index_t steps, const std::int8_t* b,
                   const float* b_scale, const float* scale, const std::int32_t*, float* acc, bool first,
                   Fetch ahead) {
  const index_t groups = units(tokens, 16);
  alignas(64) std::int32_t sums[1024];
  const Vf low = load(b_scale), high = load(b_scale + 16);
  const auto add = [&](index_t from, index_t count) {
    for (index_t i = 0; i < count; ++i) {
      const index_t g = from + i;
      if (first)
        add_group<true>(sums + i * 512, low, high, scale + g * 16, acc + g * 512);
      else
        add_group<false>(sums + i * 512, low, high, scale + g * 16, acc + g * 512);
    }
  };
  // While the tiles work on two groups, vectors add up the two before: their sums are read before the new
  // ones are written, since a read behind a waiting write of the same low address bits would wait too.
  FetchInParts fetching(ahead, units(groups, 2) * steps);
  index_t g = 0;
  for (; g + 2 <= groups; g += 2) {
    multiply_two(a + g * stride, a + (g + 1) * stride, b, 16 * kSpan, steps, fetching);
    if (g > 0) add(g - 2, 2);
    store_two(sums);
  }
  if (groups % 2 != 0) {
    multiply_one(a + g * stride, b, steps, fetching);
    if (g > 0) add(g - 2, 2);
    store_one(sums);
    add(g, 1);
  } else {
    add(g - 2, 2);
  }
}

// ---- products while the next span is unpacked ----

// One step of three groups (or fewer) with two tiles of rows; between() eight times among the products: tiles
// and vectors work at the same time only where their instructions alternate this closely. Tile registers: 0
// .. 5 sums, 6 rows, 7 tokens.
template <class Between>
[[gnu::always_inline]] inline void step_of_three(const std::int8_t* a, index_t stride, index_t groups,
                                                 const std::int8_t* b, const Between& between) {
  _tile_loadd(6, b, 64);
  _tile_loadd(7, a, 64);
  _tile_dpbssd(0, 7, 6);
  between.template operator()<0>();
  if (groups > 1) {
    _tile_loadd(7, a + stride, 64);
    _tile_dpbssd(2, 7, 6);
  }
  between.template operator()<1>();
  if (groups > 2) {
    _tile_loadd(7, a + 2 * stride, 64);
    _tile_dpbssd(4, 7, 6);
    between.template operator()<2>();
    _tile_loadd(6, b + 16 * kSpan, 64);
    _tile_dpbssd(5, 7, 6);
  } else {
    between.template operator()<2>();
    _tile_loadd(6, b + 16 * kSpan, 64);
  }
  between.template operator()<3>();
  if (groups > 1) {
    _tile_loadd(7, a + stride, 64);
    _tile_dpbssd(3, 7, 6);
  }
  between.template operator()<4>();
  between.template operator()<5>();
  _tile_loadd(7, a, 64);
  _tile_dpbssd(1, 7, 6);
  between.template operator()<6>();
  between.template operator()<7>();
}

template <BlockFormat F>
void product_unpacking(const std::int8_t* a, index_t stride, index_t groups, index_t steps,
                       const std::int8_t* b, const float* b_scale, const float* scale, float* acc, bool first,
                       const SpanToUnpack& coming) {
  alignas(64) std::int32_t sums[3 * 512];
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  _tile_zero(4);
  _tile_zero(5);
  const SpanUnpacker<F, 0> low(coming.tiles, coming.cols, coming.span, 0, coming.codes, coming.scale);
  const bool two = coming.second != nullptr;
  const SpanUnpacker<F, 0> high(two ? coming.second : coming.tiles, coming.cols, coming.span, 0,
                                coming.codes + 16 * kSpan, coming.scale + kPackedRows);
  FetchInParts ahead(coming.ahead, steps * 8);
  for (index_t step = 0; step < kSpan / 64; ++step) {
    const auto n = static_cast<std::size_t>(step) * 2;
    if (step >= steps) {
      low.chunk(n);
      high.chunk(n);
      low.chunk(n + 1);
      high.chunk(n + 1);
      continue;
    }
    // Piece N of 8: 16 columns of a tile.
    const auto piece = [&]<unsigned N>() __attribute__((always_inline)) {
      ahead.part();
      if constexpr (N / 2 % 2 == 0)
        low.template half_chunk<N % 2>(n + N / 4);
      else
        high.template half_chunk<N % 2>(n + N / 4);
      asm volatile("" ::: "memory");  // stay where you are
    };
    step_of_three(a + step * kTileBytes, stride, groups, b + step * kTileBytes, piece);
  }
  low.end();
  high.end();
  if (!two) {  // nothing there: whatever was unpacked counts nothing
    const Vf zero{};
    store(coming.scale + kPackedRows, zero);
  }
  store_one(sums);
  if (groups > 1) {
    _tile_stored(2, sums + 512, 64);
    _tile_stored(3, sums + 768, 64);
  }
  if (groups > 2) {
    _tile_stored(4, sums + 1024, 64);
    _tile_stored(5, sums + 1280, 64);
  }
  const Vf left = load(b_scale), right = load(b_scale + 16);
  for (index_t g = 0; g < groups; ++g)
    if (first)
      add_group<true>(sums + g * 512, left, right, scale + g * 16, acc + g * 512);
    else
      add_group<false>(sums + g * 512, left, right, scale + g * 16, acc + g * 512);
}

[[maybe_unused]] void product_while(const std::int8_t* a, index_t stride, index_t groups, index_t steps,
                                    const std::int8_t* b, const float* b_scale, const float* scale,
                                    float* acc, bool first, const SpanToUnpack& coming) {
  with_format(coming.format, [&]<BlockFormat F>() {
    product_unpacking<F>(a, stride, groups, steps, b, b_scale, scale, acc, first, coming);
  });
}

void multiply_all(const std::int8_t* a, index_t stride, index_t groups, index_t steps, const std::int8_t* b,
                  std::int32_t* sums) {
  FetchInParts nothing({}, 1);
  for (index_t g = 0; g + 2 <= groups; g += 2) {
    multiply_two(a + g * stride, a + (g + 1) * stride, b, steps * kTileBytes, steps, nothing);
    store_two(sums + g * 512);
  }
}

}  // namespace

const QuantKernels quant_amx = {quantize_row,  quantize_pieces, dot_tiles,       unpack_span<0>,
                                product_tiles, product_while,   multiply_all,    swiglu,
                                add_scaled,    add_rows,        configure_tiles, release_tiles};

}  // namespace sinew
#endif
