// RMSNorm (Zhang and Sennrich 2019).
#pragma once

#include <ATen/core/Tensor.h>

namespace sinew {

// y = x / sqrt(mean(x^2) + eps) * weight over the last dimension, computed in fp32 for half types.
// x [.., H], weight [H] -> [.., H] in x's type. Keeps x and one number a row for the backward pass.
at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps);

struct AddNorm {
  at::Tensor sum, normed;
};
// The residual connection before a norm: sum = x + addend, normed = rms_norm(sum).
AddNorm add_rms_norm(const at::Tensor& x, const at::Tensor& addend, const at::Tensor& weight, double eps);
// rms_norm(x) beside x itself for the residual connection around what follows the norm (`sum` is x). The
// gradient of that connection is added within the norm's backward pass.
AddNorm rms_norm_beside(const at::Tensor& x, const at::Tensor& weight, double eps);

}  // namespace sinew
