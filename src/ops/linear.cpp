#include <torch/csrc/autograd/custom_function.h>

#include "kernels/matmul.hpp"
#include "ops/fp8.hpp"
#include "ops/fused.hpp"
#include "ops/op_times.hpp"
#include "ops/tensor.hpp"
#include "ops/weight_work.hpp"

namespace sinew {
namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// x [N, in] times weight [out, in] transposed; where it goes is left open.
template <class T>
Matmul<T> times_transposed(const Tensor& x, const Tensor& weight) {
  return {.m = x.size(0),
          .n = weight.size(0),
          .k = x.size(1),
          .a = data_of<T>(x),
          .lda = x.size(1),
          .b = data_of<T>(weight),
          .ldb = x.size(1),
          .b_transposed = true,
          .ldc = weight.size(0)};
}

// d [N, out] transposed times x [N, in], to fp32 `sum` [out, in].
template <class T>
Matmul<T> transposed_times(const Tensor& d, const Tensor& x, float* sum) {
  return {.m = d.size(1),
          .n = x.size(1),
          .k = d.size(0),
          .a = data_of<T>(d),
          .lda = d.size(1),
          .a_transposed = true,
          .b = data_of<T>(x),
          .ldb = x.size(1),
          .c = sum,
          .ldc = x.size(1)};
}

// dy [N, out]^T x [N, in]; undefined where it went to weight.grad() in place.
Tensor weight_gradient(const Tensor& x, const Tensor& weight, const Tensor& dy, OpClass op) {
  const OpTimer timer(op, true);
  const WeightGradient gradient(weight);
  with_type(x, [&]<class T>(T) {
    auto product = transposed_times<T>(dy, x, gradient.data());
    product.accumulate = gradient.accumulate();
    matmul(active_isa(), product);
  });
  return gradient.for_autograd(weight.scalar_type());
}

// y [N, out] = x [N, in] weight [out, in]^T. `wide`: for the router, in fp32, as exact as if both were
// widened first (products of bf16 are exact there); its gradient is rounded to x's type, as that of every
// other activation.
struct Linear : torch::autograd::Function<Linear> {
  static Tensor forward(AutogradContext* ctx, const Tensor& x, const Tensor& weight, bool wide) {
    const OpTimer timer(class_of(wide), false);
    ctx->save_for_backward({x, weight});
    ctx->saved_data["wide"] = wide;
    auto y = at::empty({x.size(0), weight.size(0)}, wide ? x.options().dtype(at::kFloat) : x.options());
    with_type(x, [&]<class T>(T) {
      auto product = times_transposed<T>(x, weight);
      if (wide)
        product.c = data_of<float>(y);
      else
        product.c_narrow = data_of<T>(y);
      matmul(active_isa(), product);
    });
    return y;
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const OpClass op = class_of(ctx->saved_data["wide"].toBool());
    const auto saved = ctx->get_saved_variables();
    const auto &x = saved[0], &weight = saved[1];
    const auto dy = grads[0].to(x.scalar_type()).contiguous();
    Tensor dx, dw;
    with_type(x, [&]<class T>(T) {
      const OpTimer timer(op, true);
      if (ctx->needs_input_grad(0)) {
        dx = at::empty_like(x);
        matmul(active_isa(), Matmul<T>{.m = dy.size(0),
                                       .n = x.size(1),
                                       .k = dy.size(1),
                                       .a = data_of<T>(dy),
                                       .lda = dy.size(1),
                                       .b = data_of<T>(weight),
                                       .ldb = x.size(1),
                                       .c_narrow = data_of<T>(dx),
                                       .ldc = x.size(1)});
      }
    });
    if (!ctx->needs_input_grad(1)) return {dx, dw, Tensor()};
    if (auto* const later = WeightWork::current(); later != nullptr && WeightGradient::is_direct(weight))
      later->add([x, weight, dy, op] { weight_gradient(x, weight, dy, op); });
    else
      dw = weight_gradient(x, weight, dy, op);
    return {dx, dw, Tensor()};
  }

 private:
  static OpClass class_of(bool wide) { return wide ? OpClass::gate : OpClass::projection; }
};

}  // namespace

at::Tensor project(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) {
  const auto rows = x.reshape({-1, x.size(-1)});
  Tensor y;
  // Packing a weight pays from a few rows on; a token of generation reads it once as it is.
  const bool worth = rows.size(0) >= 8 || at::GradMode::is_enabled();
  if (Fp8Products::active()) {
    y = fp8_project(rows.contiguous(), weight);
    if (bias.defined()) y = y + bias;
  } else if (worth && fused(x) && x.scalar_type() == weight.scalar_type()) {
    y = Linear::apply(rows.contiguous(), weight.contiguous(), /*wide=*/false);
    if (bias.defined()) y = y + bias;
  } else {
    y = bias.defined() ? at::addmm(bias, rows, weight.t()) : at::mm(rows, weight.t());
  }
  auto shape = x.sizes().vec();
  shape.back() = weight.size(0);
  return y.view(shape);
}

at::Tensor project_wide(const at::Tensor& x, const at::Tensor& weight) {
  if (fused(x) && x.scalar_type() == weight.scalar_type())
    return Linear::apply(x.contiguous(), weight.contiguous(), /*wide=*/true);
  return at::mm(widen(x), widen(weight).t());
}

}  // namespace sinew
