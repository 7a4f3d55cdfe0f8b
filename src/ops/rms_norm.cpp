#include "ops/rms_norm.hpp"

#include <torch/csrc/autograd/custom_function.h>

#include "kernels/norm.hpp"
#include "ops/fused.hpp"
#include "ops/op_times.hpp"
#include "ops/tensor.hpp"

namespace sinew {
namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// The composition.
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

struct Norm : torch::autograd::Function<Norm> {
  // x [N, n], its rows contiguous; addend [N, n] or undefined -> {normed} or, with an addend or `beside`,
  // {sum, normed}
  static variable_list forward(AutogradContext* ctx, const Tensor& x, const Tensor& weight,
                               const OptionalTensor& maybe_addend, double eps, bool beside) {
    const OpTimer timer(OpClass::norm, false);
    const auto addend = tensor_of(maybe_addend);
    const auto rows = x.size(0), n = x.size(1);
    const auto normed = at::empty({rows, n}, x.options());
    const auto sum = addend.defined() ? at::empty_like(normed) : Tensor();
    const auto inverse = at::empty({rows}, x.options().dtype(at::kFloat));
    with_type(x, [&]<class T>(T) {
      rms_norm_forward<T>(active_isa(), rows, n, data_of<T>(x), x.stride(0), data_of<T>(addend),
                          data_of<T>(weight), eps, data_of<T>(sum), data_of<T>(normed),
                          inverse.data_ptr<float>());
    });
    ctx->save_for_backward({addend.defined() ? sum : x, weight, inverse});
    ctx->saved_data["added"] = addend.defined();
    ctx->set_materialize_grads(false);
    if (addend.defined()) return {sum, normed};
    if (beside) return {x.detach(), normed};
    return {normed};
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const OpTimer timer(OpClass::norm, true);
    const auto saved = ctx->get_saved_variables();
    const auto &x = saved[0], &weight = saved[1];
    const auto dy = grads.back().defined() ? grads.back().contiguous() : at::zeros(x.sizes(), x.options());
    const auto d_sum = grads.size() == 2 && grads[0].defined() ? grads[0].contiguous() : Tensor();
    const auto dx = at::empty(x.sizes(), x.options());
    const WeightGradient gradient(weight);
    with_type(x, [&]<class T>(T) {
      rms_norm_backward<T>(active_isa(), x.size(0), x.size(1), data_of<T>(x), x.stride(0), data_of<T>(dy),
                           data_of<T>(d_sum), data_of<T>(weight), saved[2].data_ptr<float>(), data_of<T>(dx),
                           gradient.data(), gradient.accumulate());
    });
    return {dx, gradient.for_autograd(weight.scalar_type()),
            ctx->saved_data["added"].toBool() ? dx : Tensor(), Tensor(), Tensor()};
  }
};

bool can_fuse(const Tensor& x, const Tensor& weight) {
  return fused(x) && x.scalar_type() == weight.scalar_type() && x.numel() > 0;
}

// [.., n] as rows, without a copy where they lie at a constant distance.
Tensor rows_of(const Tensor& x) {
  const auto rows = x.reshape({-1, x.size(-1)});
  return rows.stride(1) == 1 ? rows : rows.contiguous();
}

}  // namespace

Tensor rms_norm(const Tensor& x, const Tensor& weight, double eps) {
  if (can_fuse(x, weight))
    return Norm::apply(rows_of(x), weight, OptionalTensor(), eps, false)[0].view(x.sizes());
  return RmsNorm::apply(x, weight, eps);
}

AddNorm add_rms_norm(const Tensor& x, const Tensor& addend, const Tensor& weight, double eps) {
  if (can_fuse(x, weight) && addend.scalar_type() == x.scalar_type()) {
    const auto out = Norm::apply(rows_of(x), weight,
                                 optional_of(addend.reshape({-1, x.size(-1)}).contiguous()), eps, false);
    return {out[0].view(x.sizes()), out[1].view(x.sizes())};
  }
  auto sum = x + addend;
  return {sum, rms_norm(sum, weight, eps)};
}

AddNorm rms_norm_beside(const Tensor& x, const Tensor& weight, double eps) {
  if (can_fuse(x, weight)) {
    const auto out = Norm::apply(rows_of(x), weight, OptionalTensor(), eps, true);
    return {out[0].view(x.sizes()), out[1].view(x.sizes())};
  }
  return {x, rms_norm(x, weight, eps)};
}

}  // namespace sinew
