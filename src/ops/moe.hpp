// The routed experts of a mixture of experts as one operation: dispatch, expert SwiGLU networks, combine.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace sinew {

// Which expert computes which assignment. An assignment is (token n, choice k), numbered n*K + k; the kept
// ones are laid out expert by expert, in order of their number within one expert ("slots").
struct Dispatch {
  std::vector<std::int64_t> offsets;  // [E+1] on the host: slots of expert e are offsets[e] .. offsets[e+1]
  at::Tensor assignment;              // [M] int64: the assignment of each slot
  at::Tensor slot;                    // [N, K] int64: the slot of each assignment, M where it was dropped
};

// experts [N, K] int64; `kept` [N, K] bool or undefined (all). Counting sort: equal for any thread count.
Dispatch dispatch(const at::Tensor& experts, const at::Tensor& kept, std::int64_t n_experts);

// The weights of every expert; gate and up [I, H], down [H, I].
struct ExpertWeights {
  std::vector<at::Tensor> gate, up, down;
};

// y[n] = sum over kept k of weights[n,k] * down_e(silu(gate_e x[n]) * up_e x[n]), e = the k-th expert of n.
// x [N, H], weights [N, K] -> [N, H] in x's type. Gradients to x, weights and every expert (zero where an
// expert got no token). Keeps x and the two first products; each expert's products run on one slice. `addend`
// [N, H] or undefined (the shared experts' output) is added.
at::Tensor moe_experts(const at::Tensor& x, const at::Tensor& weights, const Dispatch& where,
                       const ExpertWeights& experts, const at::Tensor& addend = {});

}  // namespace sinew
