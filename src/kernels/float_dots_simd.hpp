// Dot products of rows of F32, F16 or BF16 with fp32 activations on vectors of SINEW_WIDTH floats. See
// simd.hpp for how to include it.
#pragma once

#include "base/float_formats.hpp"
#include "kernels/float_dots_tables.hpp"
#include "kernels/read_ahead.hpp"
#include "kernels/simd.hpp"

namespace sinew {
namespace {

template <BlockFormat F>
constexpr int kBytes = F == BlockFormat::f32 ? 4 : 2;

template <BlockFormat F>
[[gnu::always_inline]] inline Vf weights_at(const std::byte* p) {
  if constexpr (F == BlockFormat::f32) return load_as<Vf>(p);
  if constexpr (F == BlockFormat::bf16) return load(reinterpret_cast<const bf16*>(p));
  return halves(p);
}

template <BlockFormat F>
inline float weight_at(const std::byte* p) {
  if constexpr (F == BlockFormat::f32) return load_as<float>(p);
  const auto bits = load_as<std::uint16_t>(p);
  return F == BlockFormat::bf16 ? bfloat16_to_float(bits) : half_to_float(bits);
}

// Sums of one token: enough that no addition waits for the one before, and so few that those of all tokens
// stay in registers. The order of a token's additions does not depend on how many tokens there are.
constexpr int kSums = W == 16 ? 2 : 4, kTokens = W == 16 ? 4 : 2;

template <BlockFormat F, int T>
[[gnu::always_inline]] inline void dot_row(const std::byte* row, index_t cols, const float* x, index_t ld,
                                           const Ahead& ahead, float* out, index_t ld_out) {
  constexpr int step = 64;
  Vf sums[T][kSums] = {};
  index_t i = 0;
  for (; i + step <= cols; i += step) {
    const std::byte* const p = row + i * kBytes<F>;
    ahead.ask<step * kBytes<F>, step * kBytes<F>>(p, p);
#pragma GCC unroll 8
    for (int v = 0; v < step / W; ++v) {
      const Vf w = weights_at<F>(p + v * W * kBytes<F>);
#pragma GCC unroll 4
      for (int t = 0; t < T; ++t) sums[t][v % kSums] += w * load(x + t * ld + i + v * W);
    }
  }
  for (; i + W <= cols; i += W) {
    const Vf w = weights_at<F>(row + i * kBytes<F>);
    for (int t = 0; t < T; ++t) sums[t][0] += w * load(x + t * ld + i);
  }
  for (int t = 0; t < T; ++t) {
    for (int k = 1; k < kSums; ++k) sums[t][0] += sums[t][k];
    float total = sum(sums[t][0]);
    for (index_t k = i; k < cols; ++k) total += weight_at<F>(row + k * kBytes<F>) * x[t * ld + k];
    out[t * ld_out] = total;
  }
}

template <BlockFormat F, int T>
void dot_rows_of(const std::byte* rows, index_t count, index_t cols, const float* x, index_t ld,
                 const std::byte* next, float* out, index_t ld_out) {
  const Ahead ahead(rows + count * cols * kBytes<F>, next);
  for (index_t r = 0; r < count; ++r)
    dot_row<F, T>(rows + r * cols * kBytes<F>, cols, x, ld, ahead, out + r, ld_out);
}

template <BlockFormat F>
void dot_rows(const std::byte* rows, index_t count, index_t cols, const float* x, index_t ld, index_t tokens,
              const std::byte* next, float* out, index_t ld_out) {
  for (index_t t = 0; t < tokens;) {
    const index_t now = tokens - t >= kTokens ? kTokens : tokens - t;
    const std::byte* const then = t + now < tokens ? rows : next;
    const float* const from = x + t * ld;
    float* const to = out + t * ld_out;
    if constexpr (kTokens == 4) {
      if (now == 4) dot_rows_of<F, 4>(rows, count, cols, from, ld, then, to, ld_out);
      if (now == 3) dot_rows_of<F, 3>(rows, count, cols, from, ld, then, to, ld_out);
    }
    if (now == 2) dot_rows_of<F, 2>(rows, count, cols, from, ld, then, to, ld_out);
    if (now == 1) dot_rows_of<F, 1>(rows, count, cols, from, ld, then, to, ld_out);
    t += now;
  }
}

constexpr FloatDotsTable kFloatDots{dot_rows<BlockFormat::f32>, dot_rows<BlockFormat::f16>,
                                    dot_rows<BlockFormat::bf16>};

}  // namespace
}  // namespace sinew
