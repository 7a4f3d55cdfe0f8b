// The feed-forward of many experts as one operation (DeepSeekMoE, Dai et al. 2024, eq 3-5): for each token t
// and each of its choices e with weight w, y_t += w * down_e (silu(gate_e x_t) * up_e x_t). A dense SwiGLU
// layer is the case of one expert and no weights.
//
// Rows are read where the tokens are and written where they belong: no permuted copy of the tokens exists.
// One thread makes each result, sums run in a fixed order: results do not depend on the number of threads.
#pragma once

#include "kernels/gemm.hpp"
#include "kernels/routing.hpp"

namespace sinew {

template <class T>
struct ExpertMatrices {
  index_t hidden = 0, width = 0;
  const T* const* gate = nullptr;  // [experts] of [width, hidden]
  const T* const* up = nullptr;    // [experts] of [width, hidden]
  const T* const* down = nullptr;  // [experts] of [hidden, width]
};

// Where the gradients go; each shaped like its weight.
struct ExpertGradients {
  float* const* gate = nullptr;
  float* const* up = nullptr;
  float* const* down = nullptr;
  bool accumulate = false;  // add to what is there, else overwrite
};

constexpr index_t padded_width(index_t width) { return round_up(width, kTile); }

// Elements that forward keeps for backward: gate and up products of every row, each [padded_width].
template <class T>
index_t expert_saved_size(const ExpertMatrices<T>& weights, index_t rows) {
  return rows * 2 * padded_width(weights.width);
}

// y [tokens, hidden] = addend (or 0 when null) + experts. x [tokens, hidden]; weight [tokens * top_k] by
// slot, or null: 1; saved as above, or null when there is no backward.
template <class T>
void experts_forward(Isa isa, const ExpertMatrices<T>& weights, const ExpertRows& rows, const T* x,
                     const float* weight, const T* addend, T* y, T* saved);

// Elements of `kept` below.
template <class T>
index_t expert_kept_size(const ExpertMatrices<T>& weights, index_t rows) {
  return (round_up(rows, kTile) + kTile) * 3 * padded_width(weights.width);
}

// dx [tokens, hidden] = addend (or 0) + gradient of x (null: not wanted); d_weight [tokens * top_k], 0 where
// the slot was dropped (null: not wanted); gradients of the weights unless `gradients` is null. `kept` (or
// null) is filled with what experts_weight_gradients() needs to make the gradients of the weights later, to
// the same bits, without doing anything twice.
template <class T>
void experts_backward(Isa isa, const ExpertMatrices<T>& weights, const ExpertRows& rows, const T* x,
                      const T* dy, const float* weight, const T* saved, const T* addend, T* dx,
                      float* d_weight, const ExpertGradients* gradients, T* kept = nullptr);

// The other half of a backward pass whose `gradients` was null and `kept` was not.
template <class T>
void experts_weight_gradients(Isa isa, const ExpertMatrices<T>& weights, const ExpertRows& rows, const T* x,
                              const T* dy, const T* kept, const ExpertGradients& gradients);

}  // namespace sinew
