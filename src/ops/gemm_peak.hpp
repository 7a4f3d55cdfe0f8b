// The matrix-product peak of a device as measured, which model FLOP utilisation is quoted against.
#pragma once

#include <ATen/core/Tensor.h>

namespace sinew {

struct GemmPeak {
  double fp32 = 0, bf16 = 0;  // FLOP/s (2 n^3 a product)
};

// Square products of n = 2048 (8192 on a GPU), the best of at least three over about half a second a type. On
// a CPU the better of libtorch, with its current number of threads, and our own kernels (kernels/matmul.hpp),
// since the trainer uses both. Measured once a process and device, then remembered; safe to call from any
// thread.
GemmPeak gemm_peak(at::Device device = at::kCPU);

// The same of libtorch alone, measured anew at each call, for at least `seconds`: of one type, FLOP/s, and of
// both.
double torch_gemm_peak(at::Device device, at::ScalarType type, double seconds = 0.5);
GemmPeak torch_gemm_peak(at::Device device);

}  // namespace sinew
