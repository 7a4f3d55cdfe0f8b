// The feed-forward network of dense layers and shared experts (Shazeer 2020) as one operation.
#pragma once

#include <ATen/core/Tensor.h>

namespace sinew {

// down (silu(gate x) * up x). x [N, H], gate and up [I, H], down [H, I] -> [N, H]. Keeps x and the two first
// products for the backward pass.
at::Tensor swiglu_network(const at::Tensor& x, const at::Tensor& gate, const at::Tensor& up,
                          const at::Tensor& down);

}  // namespace sinew
