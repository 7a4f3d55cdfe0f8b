// One dense product over all threads: C [m, n] = A [m, k] * B [k, n], fp32 sums.
#pragma once

#include "kernels/gemm.hpp"

namespace sinew {

template <class T>
struct Matmul {
  index_t m = 0, n = 0, k = 0;
  const T* a = nullptr;
  index_t lda = 0;            // row stride of what is stored
  bool a_transposed = false;  // stored as [k, m]
  const T* b = nullptr;
  const T* packed_b = nullptr;  // pack_right()'s, for products of many A with one B
  index_t ldb = 0;
  bool b_transposed = false;  // stored as [n, k], like a linear layer's weight
  // Rows to use of a transposed `a` and of a plain `b`, [k] each; null: 0, 1, ..
  const std::int32_t* a_rows = nullptr;
  const std::int32_t* b_rows = nullptr;
  // One of the two results.
  float* c = nullptr;
  T* c_narrow = nullptr;
  index_t ldc = 0;
  bool accumulate = false;
  // Where split > 0 (a multiple of 32; m = 2 * split): two results from one `a`. Rows 0 .. valid-1 go to `c`,
  // rows split .. split+valid-1 to `c_second`, the others nowhere.
  index_t split = 0, valid = 0;
  float* c_second = nullptr;
};

// Panels of the right operand of `args`, for its packed_b; of right_size() elements.
template <class T>
index_t right_size(Isa isa, const Matmul<T>& args);
template <class T>
void pack_right(Isa isa, const Matmul<T>& args, T* out);

template <class T>
void matmul(Isa isa, const Matmul<T>& args);

}  // namespace sinew
