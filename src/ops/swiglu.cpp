#include "ops/swiglu.hpp"

#include <torch/csrc/autograd/custom_function.h>

#include "ops/tensor.hpp"

namespace sinew {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct Swiglu : torch::autograd::Function<Swiglu> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& gate, const at::Tensor& up) {
    ctx->save_for_backward({gate, up});
    return at::silu(gate).mul_(up);
  }
  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    auto grad = swiglu_backward(grads[0], saved[0], saved[1]);
    return {grad.gate, grad.up};
  }
};

}  // namespace

at::Tensor swiglu(const at::Tensor& gate, const at::Tensor& up) { return Swiglu::apply(gate, up); }

SwigluGrad swiglu_backward(const at::Tensor& grad, const at::Tensor& gate, const at::Tensor& up) {
  const auto silu = at::silu(gate);
  return {at::silu_backward(grad * up, gate), silu.mul_(grad)};
}

}  // namespace sinew
