// Matrix products in blocks: the pieces that every larger kernel (products, grouped experts, attention,
// loss) is made of. The right operand is packed into panels of 32 columns, the left is read row by row,
// sums are fp32.
//
// A panel of B [k, 32] holds for fp32 the rows [k][32]; for bf16 pairs of rows, [k/2][32][2], as the
// dot-product and tile instructions take them. k is padded with zeros to a multiple of kStep<T>.
#pragma once

#include <cstdint>
#include <type_traits>

#include "base/index.hpp"
#include "kernels/bf16.hpp"
#include "kernels/isa.hpp"

namespace sinew {

constexpr index_t kTile = 32;    // rows and columns of a block
constexpr index_t kDepth = 512;  // of k that a product takes at once
template <class T>
constexpr index_t kStep = std::is_same_v<T, bf16> ? 32 : 1;  // k is padded to a multiple of this

constexpr index_t round_up(index_t n, index_t step) { return (n + step - 1) / step * step; }
template <class T>
constexpr index_t padded_k(index_t k) {
  return round_up(k, kStep<T>);
}
template <class T>
constexpr index_t panel_size(index_t k) {  // elements
  return padded_k<T>(k) * kTile;
}

// Rows of a left operand in the form block() takes them; `step` elements further is the next of k.
template <class T>
struct Left {
  const T* a;
  index_t lda, step;

  const T* at(index_t k) const { return a + k * step; }
};

// Other work, which a product calls for at each of its steps.
struct Beside {
  void (*step)(void* context);
  void* context;
};

template <class T>
struct GemmKernels {
  // Around the use of block() on a thread: the tile registers are configured, and given back.
  void (*begin)();
  void (*end)();
  // panel <- columns 0..n-1 (n <= 32, the rest zero) of B, given as B^T: source [n, k] with row stride ld.
  void (*pack_b_transposed)(const T* source, index_t ld, index_t n, index_t k, T* panel);
  // The same from B itself: source [k, n]; row i is source + rows[i] * ld, or source + i * ld without rows.
  void (*pack_b)(const T* source, index_t ld, const std::int32_t* rows, index_t k, index_t n, T* panel);
  // out [m, padded_k(k)] <- A given as A^T: source [k, m], rows as above. Rows are padded with zeros; rows of
  // `out` up to a multiple of 16 are written.
  void (*pack_a_transposed)(const T* source, index_t ld, const std::int32_t* rows, index_t k, index_t m,
                            T* out, index_t ld_out);
  // c [rows, 32] = (accumulate ? c : 0) + a [rows, k] * panel. rows <= 32; k a multiple of block_step. Rows
  // of a and of c up to the next multiple of 16 are read and written: they must be there.
  void (*block)(const T* a, index_t lda, index_t rows, const T* panel, index_t k, float* c, index_t ldc,
                bool accumulate);

  // Kernels may have forms of their own. A panel's k is padded to a multiple of `step`, `row` elements hold
  // one of it; where make_left is set it writes what block() takes for `a` (left() calls it): k needs no
  // padding then.
  index_t step = kStep<T>, row = kTile, block_step = kStep<T>;
  // Sums over a long k run in pieces of this many, in rising order, whatever the number of threads: what a
  // first-level cache holds of both operands where they are read more often than the sums.
  index_t depth = kDepth;
  // block() beside other work, which may use vectors, `beside_steps` steps for 32 of k; null: nothing would
  // be gained.
  void (*block_beside)(const T* a, index_t lda, index_t rows, const T* panel, index_t k, float* c,
                       index_t ldc, bool accumulate, const Beside& beside) = nullptr;
  index_t beside_steps = 0;
  void (*make_left)(const T* a, index_t lda, index_t rows, index_t k, T* out) = nullptr;

  index_t panel_size(index_t k) const { return round_up(k, step) * row; }
  index_t left_size(index_t k) const { return make_left == nullptr ? 0 : panel_size(k); }
  // `scratch`: left_size(k) elements, aligned to 64 bytes.
  Left<T> left(const T* a, index_t lda, index_t rows, index_t k, T* scratch) const {
    if (make_left == nullptr) return {a, lda, 1};
    make_left(a, lda, rows, k, scratch);
    return {scratch, 0, row};
  }
};

template <class T>
const GemmKernels<T>& gemm_kernels(Isa isa);

// For products whose operands are used often enough to be worth a form of their own: the same but for fp32 on
// AMX, where they are sums of bf16 numbers (gemm_fp32_amx.cpp).
template <class T>
const GemmKernels<T>& product_kernels(Isa isa);

}  // namespace sinew
