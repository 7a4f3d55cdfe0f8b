// Row and tile functions of every instruction set, behind one table: what the kernels do between products.
#pragma once

#include <cstdint>

#include "kernels/gemm.hpp"

namespace sinew {

template <class T>
struct VectorKernels {
  // out [rows, columns] = (accumulate ? out : 0) + scale * in
  void (*store)(const float* in, index_t ld_in, index_t rows, index_t columns, T* out, index_t ld_out,
                float scale, bool accumulate);
  // Row r of a tile (stride 32), times weight[r] (null: 1), to columns [0, columns) of out + index[r] * ld.
  void (*scatter)(const float* tile, index_t rows, index_t columns, const std::int32_t* index,
                  const float* weight, T* out, index_t ld);
  // out [n] = first addend (or 0 when null) + sum over i < count of rows[i * ld], in that order.
  void (*sum_rows)(const T* rows, index_t ld, index_t count, const T* addend, index_t n, T* out);
  void (*widen)(const T* in, index_t n, float* out);

  // SwiGLU on tiles (stride 32) of gate and up: act = silu(gate) * up; gate and up are kept as T.
  void (*swiglu_forward)(const float* gate, const float* up, index_t rows, index_t columns, T* gate_out,
                         T* up_out, index_t ld_h, T* act, index_t ld_act);
  // d_act: gradient of act before weighting, tile of stride 32. weight [rows] or null (1): act's factor.
  // dot[r] += sum over columns of d_act * act (the weight's gradient); d_gate, d_up and act * weight are
  // stored.
  void (*swiglu_backward)(const float* d_act, index_t rows, index_t columns, const T* gate, const T* up,
                          index_t ld_h, const float* weight, float* dot, T* d_gate, T* d_up, index_t ld_d,
                          T* weighted_act, index_t ld_act);
};

template <class T>
const VectorKernels<T>& vector_kernels(Isa isa);

}  // namespace sinew
