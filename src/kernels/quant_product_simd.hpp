// The product of unpacked spans of quant_tables.hpp on vectors, for instruction sets without tiles. See
// simd.hpp for how to include it.
#pragma once

#include "kernels/quant_simd.hpp"

namespace sinew {
namespace {

// A block of R tokens and C vectors of rows: R * C sums stay in registers while C + R vectors are read for
// each four columns, so that reading keeps up with two products a cycle.
constexpr int kBlockTokens = W == 16 ? 8 : 4, kBlockVectors = 2;
template <int R>
using BlockSums = Vi[R][kBlockVectors];

// s += the products of R tokens (64 bytes apart) with the block's rows (at w[0], w[1]) over `steps` of 64
// columns.
template <int R>
[[gnu::always_inline]] inline void add_products(const std::int8_t* a, index_t steps,
                                                const std::int8_t* const (&w)[kBlockVectors], BlockSums<R>& s,
                                                FetchInParts& ahead) {
  for (index_t step = 0; step < steps; ++step) {
    ahead.part();
#pragma GCC unroll 2
    for (index_t v = 0; v < 16; ++v) {
      Vw line[kBlockVectors];
#pragma GCC unroll 2
      for (int c = 0; c < kBlockVectors; ++c) line[c] = load_as<Vw>(w[c] + (step * 16 + v) * 64);
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
        const std::int32_t x = four(a + step * 1024 + r * 64 + v * 4);
#pragma GCC unroll 2
        for (int c = 0; c < kBlockVectors; ++c)
#if SINEW_WIDTH == 16
          s[r][c] = dot(s[r][c], line[c], x);
#else
          s[r][c] = dot_signed(s[r][c], line[c], x);
#endif
      }
    }
  }
}

// Vector `c` of a panel of 32 rows whose second 16 begin `apart` bytes after the first.
[[gnu::always_inline]] inline const std::int8_t* panel_vector(const std::int8_t* b, index_t apart, int c) {
  return b + c * W / 16 * apart + c * W % 16 * 4;
}

// body.operator()<R>(token, vector) for the first token and vector of every block of R tokens: whole blocks,
// and half of one where the rest needs no more.
template <class Body>
[[gnu::always_inline]] inline void each_block(index_t tokens, const Body& body) {
  constexpr int kHalf = kBlockTokens / 2;
  for (index_t token = 0; token < tokens; token += kBlockTokens)
    for (int c = 0; c < 32 / W; c += kBlockVectors)
      if (tokens - token > kHalf)
        body.template operator()<kBlockTokens>(token, c);
      else
        body.template operator()<kHalf>(token, c);
}
constexpr index_t count_blocks(index_t tokens) {
  return (tokens + kBlockTokens - 1) / kBlockTokens * (32 / W / kBlockVectors);
}

void product(const std::int8_t* a, index_t stride, index_t tokens, index_t steps, const std::int8_t* b,
             const float* b_scale, const float* scale, const std::int32_t* sum, float* acc, bool first,
             Fetch ahead) {
  FetchInParts fetching(ahead, count_blocks(tokens) * steps);
  each_block(
      tokens, [&]<int R>(index_t token, int vector) __attribute__((always_inline)) {
        const std::int8_t* const w[] = {panel_vector(b, 16 * kSpan, vector),
                                        panel_vector(b, 16 * kSpan, vector + 1)};
        BlockSums<R> s;
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r)
#pragma GCC unroll 2
          for (int c = 0; c < kBlockVectors; ++c)
            s[r][c] = kWideCodes ? splat_int(-128 * sum[token + r]) : Vi{};
        add_products<R>(a + token / 16 * stride + token % 16 * 64, steps, w, s, fetching);
        const Vf low = load(b_scale + vector * W), high = load(b_scale + (vector + 1) * W);
        float* const to = acc + token * 32 + vector * W;
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) {
          const Vf factor = splat(scale[token + r]);
          const Vf left = to_floats(s[r][0]) * (low * factor), right = to_floats(s[r][1]) * (high * factor);
          store(to + r * 32, first ? left : load(to + r * 32) + left);
          store(to + r * 32 + W, first ? right : load(to + r * 32 + W) + right);
        }
      });
}

void multiply(const std::int8_t* a, index_t stride, index_t groups, index_t steps, const std::int8_t* b,
              std::int32_t* sums) {
  FetchInParts nothing({}, 1);
  each_block(
      groups * 16, [&]<int R>(index_t token, int vector) __attribute__((always_inline)) {
        const std::int8_t* const w[] = {panel_vector(b, steps * 1024, vector),
                                        panel_vector(b, steps * 1024, vector + 1)};
        BlockSums<R> s = {};
        add_products<R>(a + token / 16 * stride + token % 16 * 64, steps, w, s, nothing);
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r)
#pragma GCC unroll 2
          for (int c = 0; c < kBlockVectors; ++c)
            __builtin_memcpy(sums + (token + r) * 32 + (vector + c) * W, &s[r][c], sizeof s[r][c]);
      });
}

void no_tiles() {}

// `Flip`: 128 where products want codes plus 128, 0 where they want them signed.
template <int Flip>
constexpr QuantKernels kVectorProducts{quantize_row, quantize_pieces, dot_tiles, unpack_span<Flip>,
                                       product,      nullptr,         multiply,  swiglu,
                                       add_scaled,   add_rows,        no_tiles,  no_tiles};

}  // namespace
}  // namespace sinew
