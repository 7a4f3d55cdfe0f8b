// The fused path of moe_experts() and swiglu_network(): kernels/experts.hpp as an autograd function.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <vector>

#include "kernels/routing.hpp"

namespace sinew {

// y [N, H] = addend (or 0) + the experts' outputs. x [N, H]; weights [N, K] fp32 or undefined (1);
// parameters: E gate, E up and E down matrices, all of x's type.
at::Tensor fused_experts(const at::Tensor& x, const at::Tensor& weights, const at::Tensor& addend,
                         std::shared_ptr<const ExpertRows> rows, const std::vector<at::Tensor>& parameters);

}  // namespace sinew
