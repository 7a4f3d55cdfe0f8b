// The kernels of gemm.hpp on vectors of SINEW_WIDTH floats. See simd.hpp for how to include it.
#pragma once

#include "kernels/gemm.hpp"
#include "kernels/simd.hpp"

namespace sinew {
namespace {

// ---- packing ----

template <class T>
constexpr index_t kPair = std::is_same_v<T, bf16> ? 2 : 1;  // elements of one 32-bit word

// Word (pair of bf16, or float) i of W consecutive columns: rows kPair*i.. of a [k, n] matrix.
template <class T>
[[gnu::always_inline]] inline Vu word_column(const T* first, const T* second) {
  if constexpr (std::is_same_v<T, bf16>)
    return words(first) | (words(second) << 16);
  else
    return load_as<Vu>(first);
}

template <class T>
const T* row_of(const T* source, index_t ld, const std::int32_t* rows, index_t i) {
  return source + (rows != nullptr ? rows[i] : i) * ld;
}

// The slow, general way: one element at a time, with zeros for what is not there.
template <class T>
inline T element(const T* row, index_t column, index_t columns, bool inside) {
  return inside && column < columns ? row[column] : T{};
}

template <class T>
void pack_b_transposed(const T* source, index_t ld, index_t n, index_t k, T* panel) {
  constexpr index_t P = kPair<T>;
  const index_t words = padded_k<T>(k) / P, whole = n == kTile ? k / P / W * W : 0;
  for (index_t w = 0; w < whole; w += W) {
    for (index_t j = 0; j < kTile; j += W) {
      Vu v[W];
      for (int i = 0; i < W; ++i) {
        v[i] = load_as<Vu>(source + (j + i) * ld + w * P);
        __builtin_prefetch(source + (j + i + kTile) * ld + w * P, 0,
                           2);  // the next panel: the pattern is no stream
      }
      transpose(v);
      for (int i = 0; i < W; ++i) __builtin_memcpy(panel + ((w + i) * kTile + j) * P, &v[i], sizeof(Vu));
    }
  }
  for (index_t w = whole; w < words; ++w)
    for (index_t j = 0; j < kTile; ++j)
      for (index_t p = 0; p < P; ++p)
        panel[(w * kTile + j) * P + p] = element(source + j * ld, w * P + p, k, j < n);
}

template <class T>
void pack_b(const T* source, index_t ld, const std::int32_t* rows, index_t k, index_t n, T* panel) {
  constexpr index_t P = kPair<T>;
  const index_t words = padded_k<T>(k) / P, whole = n % W == 0 ? k / P : 0;
  for (index_t w = 0; w < whole; ++w) {
    const T* const first = row_of(source, ld, rows, w * P);
    const T* const second = P == 2 ? row_of(source, ld, rows, w * P + 1) : first;
    for (index_t j = 0; j < kTile; j += W) {
      const Vu v = j < n ? word_column(first + j, second + j) : Vu{};
      __builtin_memcpy(panel + (w * kTile + j) * P, &v, sizeof v);
    }
  }
  for (index_t w = whole; w < words; ++w)
    for (index_t p = 0; p < P; ++p) {
      const index_t i = w * P + p;
      const T* const row = i < k ? row_of(source, ld, rows, i) : source;
      for (index_t j = 0; j < kTile; ++j) panel[(w * kTile + j) * P + p] = element(row, j, n, i < k);
    }
}

template <class T>
void pack_a_transposed(const T* source, index_t ld, const std::int32_t* rows, index_t k, index_t m, T* out,
                       index_t ld_out) {
  constexpr index_t P = kPair<T>;
  const index_t words = padded_k<T>(k) / P, whole_words = k / P / W * W, whole_m = m / W * W;
  for (index_t w = 0; w < whole_words; w += W) {
    const T* line[W * P];
    for (index_t i = 0; i < W * P; ++i) {
      line[i] = row_of(source, ld, rows, w * P + i);
      __builtin_prefetch(line[i] + kTile, 0, 2);  // the next strip: the pattern is no stream
    }
    for (index_t j = 0; j < whole_m; j += W) {
      Vu v[W];
      for (int i = 0; i < W; ++i) v[i] = word_column(line[i * P] + j, line[i * P + P - 1] + j);
      transpose(v);
      for (int i = 0; i < W; ++i) __builtin_memcpy(out + (j + i) * ld_out + w * P, &v[i], sizeof(Vu));
    }
  }
  for (index_t i = 0; i < words * P; ++i) {
    const T* const row = i < k ? row_of(source, ld, rows, i) : source;
    const index_t from = i < whole_words * P ? whole_m : 0;
    for (index_t j = from; j < round_up(m, 16); ++j) out[j * ld_out + i] = element(row, j, m, i < k);
  }
}

// ---- the block: R rows by two vectors in registers ----

// The value pairs or single values of one word of the panel, times those of A (always fp32 here).
template <int R, class T>
[[gnu::always_inline]] inline void micro(const float* a, index_t lda, const T* b, index_t k, float* c,
                                         index_t ldc, bool accumulate) {
  Vf s0[R], s1[R];
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
    s0[r] = accumulate ? load(c + r * ldc) : Vf{};
    s1[r] = accumulate ? load(c + r * ldc + W) : Vf{};
  }
  if constexpr (std::is_same_v<T, float>) {
    for (index_t i = 0; i < k; ++i) {
      const Vf b0 = load(b + i * kTile), b1 = load(b + i * kTile + W);
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r) {
        const Vf x = splat(a[r * lda + i]);
        s0[r] += x * b0;
        s1[r] += x * b1;
      }
    }
  } else {
    for (index_t i = 0; i < k; i += 2) {
      const Vu w0 = load_as<Vu>(b + i * kTile), w1 = load_as<Vu>(b + i * kTile + 2 * W);
#pragma GCC unroll 2
      for (int half = 0; half < 2; ++half) {
        const Vf b0 = (Vf)(half == 0 ? w0 << 16 : w0 & 0xffff0000U);
        const Vf b1 = (Vf)(half == 0 ? w1 << 16 : w1 & 0xffff0000U);
#pragma GCC unroll 16
        for (int r = 0; r < R; ++r) {
          const Vf x = splat(a[r * lda + i + half]);
          s0[r] += x * b0;
          s1[r] += x * b1;
        }
      }
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
    store(c + r * ldc, s0[r]);
    store(c + r * ldc + W, s1[r]);
  }
}

constexpr int kMostRows = W == 16 ? 12 : W == 8 ? 6 : 4;  // whose sums fit the registers

// body(std::integral_constant<int, R>, first row): R = kMostRows as often as it goes, then what is left at
// once.
template <class Body, int R = kMostRows>
[[gnu::always_inline]] inline void in_row_groups(index_t rows, const Body& body, index_t first = 0) {
  if constexpr (R == kMostRows)
    for (; first + R <= rows; first += R) body(std::integral_constant<int, R>{}, first);
  else if (rows - first == R)
    return body(std::integral_constant<int, R>{}, first);
  if constexpr (R > 1) in_row_groups<Body, R - 1>(rows, body, first);
}

template <class T>
void rows_of_block(const float* a, index_t lda, index_t rows, const T* panel, index_t k, float* c,
                   index_t ldc, bool accumulate) {
  for (index_t j = 0; j < kTile; j += 2 * W)
    in_row_groups(rows, [&](auto count, index_t r) {
      micro<count()>(a + r * lda, lda, panel + j * kPair<T>, k, c + r * ldc + j, ldc, accumulate);
    });
}

[[maybe_unused]] void block_fp32(const float* a, index_t lda, index_t rows, const float* panel, index_t k,
                                 float* c, index_t ldc, bool accumulate) {
  rows_of_block(a, lda, rows, panel, k, c, ldc, accumulate);
}

// bf16 without bf16 instructions: A is widened piece by piece, B in registers.
[[maybe_unused]] void block_widened(const bf16* a, index_t lda, index_t rows, const bf16* panel, index_t k,
                                    float* c, index_t ldc, bool accumulate) {
  constexpr index_t kPiece = 128;
  alignas(64) float wide[kTile * kPiece];
  for (index_t start = 0; start < k; start += kPiece) {
    const index_t piece = k - start < kPiece ? k - start : kPiece;
    for (index_t r = 0; r < rows; ++r)
      for (index_t i = 0; i < piece; i += W) store(wide + r * kPiece + i, load(a + r * lda + start + i));
    rows_of_block(wide, kPiece, rows, panel + start * kTile, piece, c, ldc, accumulate || start > 0);
  }
  if (k == 0 && !accumulate)
    for (index_t r = 0; r < rows; ++r) std::memset(c + r * ldc, 0, kTile * sizeof(float));
}

[[maybe_unused]] void nothing() {}

template <class T, class Block>
constexpr GemmKernels<T> kernels_with(Block block) {
  return {.begin = nothing,
          .end = nothing,
          .pack_b_transposed = pack_b_transposed<T>,
          .pack_b = pack_b<T>,
          .pack_a_transposed = pack_a_transposed<T>,
          .block = block,
          .block_step = kPair<T>};
}

}  // namespace
}  // namespace sinew
