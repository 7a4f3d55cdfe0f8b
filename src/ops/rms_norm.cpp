#include "ops/rms_norm.hpp"

#include <torch/csrc/autograd/custom_function.h>

#include "ops/tensor.hpp"

namespace sinew {
namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct RmsNorm : torch::autograd::Function<RmsNorm> {
  static Tensor forward(AutogradContext* ctx, const Tensor& x, const Tensor& weight, double eps) {
    const auto wide = widen(x);
    const auto scale = at::rsqrt((wide * wide).mean(-1, true).add_(eps));  // [.., 1]
    ctx->save_for_backward({x, weight, scale});
    return (wide * scale).mul_(weight.to(wide.scalar_type())).to(x.scalar_type());
  }

  // With u = x * scale: dx = scale * (g w - u * mean(g w u)), dw = sum over rows of g u.
  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    const auto &x = saved[0], &weight = saved[1], &scale = saved[2];
    const auto unit = widen(x) * scale, grad = widen(grads[0]);
    const auto weighed = grad * weight.to(unit.scalar_type());
    const auto dx = scale * (weighed - unit * (weighed * unit).mean(-1, true));
    const auto dw = (grad * unit).view({-1, x.size(-1)}).sum(0);
    return {dx.to(x.scalar_type()), dw.to(weight.scalar_type()), Tensor()};
  }
};

}  // namespace

Tensor rms_norm(const Tensor& x, const Tensor& weight, double eps) { return RmsNorm::apply(x, weight, eps); }

}  // namespace sinew
