// What runs beside the layers of a network: a tensor that several of them take, and the sum of two.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

namespace sinew {

// x + y; of one shape and type.
at::Tensor add_residual(const at::Tensor& x, const at::Tensor& y);

// x for each of `count` users. Their gradients are added in one pass and in the order of the users, where
// autograd would add them two by two.
std::vector<at::Tensor> fan_out(const at::Tensor& x, std::size_t count);

}  // namespace sinew
