// SwiGLU (Shazeer 2020): silu(gate) * up.
#pragma once

#include <ATen/core/Tensor.h>

namespace sinew {

// gate, up [.., I] -> [.., I]; silu(x) = x * sigmoid(x). Keeps only its two inputs for the backward pass.
at::Tensor swiglu(const at::Tensor& gate, const at::Tensor& up);

// d loss / d gate and d loss / d up, given `grad` = d loss / d swiglu(gate, up).
struct SwigluGrad {
  at::Tensor gate, up;
};
SwigluGrad swiglu_backward(const at::Tensor& grad, const at::Tensor& gate, const at::Tensor& up);

}  // namespace sinew
