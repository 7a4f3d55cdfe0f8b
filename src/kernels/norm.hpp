// RMSNorm (Zhang and Sennrich 2019) of rows, with the residual addition before it, forward and backward.
#pragma once

#include "kernels/gemm.hpp"

namespace sinew {

// sum = x + addend (null: no addition, sum is not written), y = sum / sqrt(mean(sum^2) + eps) * weight.
// x [rows, n] with row stride ld; addend, sum, y [rows, n]; inverse [rows] is kept for backward.
template <class T>
void rms_norm_forward(Isa isa, index_t rows, index_t n, const T* x, index_t ld, const T* addend,
                      const T* weight, double eps, T* sum, T* y, float* inverse);

// dx [rows, n] = d_sum (null: 0) + the gradient through the norm; x: what was normalised, row stride ld.
// d_weight [n] += its gradient (accumulate) or is set to it.
template <class T>
void rms_norm_backward(Isa isa, index_t rows, index_t n, const T* x, index_t ld, const T* dy, const T* d_sum,
                       const T* weight, const float* inverse, T* dx, float* d_weight, bool accumulate);

}  // namespace sinew
