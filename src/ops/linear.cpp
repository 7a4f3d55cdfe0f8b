#include <torch/csrc/autograd/custom_function.h>

#include "base/threads.hpp"
#include "kernels/matmul.hpp"
#include "kernels/vector.hpp"
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

struct Linear : torch::autograd::Function<Linear> {
  // x [N, in], weight [out, in] -> [N, out]
  static Tensor forward(AutogradContext* ctx, const Tensor& x, const Tensor& weight) {
    const OpTimer timer(OpClass::projection, false);
    ctx->save_for_backward({x, weight});
    auto y = at::empty({x.size(0), weight.size(0)}, x.options());
    with_type(x, [&]<class T>(T) {
      auto product = times_transposed<T>(x, weight);
      product.c_narrow = data_of<T>(y);
      matmul(active_isa(), product);
    });
    return y;
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    const auto &x = saved[0], &weight = saved[1];
    const auto dy = grads[0].contiguous();
    const auto rows = dy.size(0), out = dy.size(1), in = x.size(1);
    Tensor dx, dw;
    with_type(x, [&]<class T>(T) {
      const OpTimer timer(OpClass::projection, true);
      if (ctx->needs_input_grad(0)) {
        dx = at::empty_like(x);
        matmul(active_isa(), Matmul<T>{.m = rows,
                                       .n = in,
                                       .k = out,
                                       .a = data_of<T>(dy),
                                       .lda = out,
                                       .b = data_of<T>(weight),
                                       .ldb = in,
                                       .c_narrow = data_of<T>(dx),
                                       .ldc = in});
      }
    });
    if (!ctx->needs_input_grad(1)) return {dx, dw};
    if (auto* const later = WeightWork::current(); later != nullptr && WeightGradient::is_direct(weight))
      later->add([x, weight, dy] { weight_gradient(x, weight, dy); });
    else
      dw = weight_gradient(x, weight, dy);
    return {dx, dw};
  }

 private:
  // dy [N, out]^T x [N, in]; undefined where it went to weight.grad() in place.
  static Tensor weight_gradient(const Tensor& x, const Tensor& weight, const Tensor& dy) {
    const OpTimer timer(OpClass::projection, true);
    const WeightGradient gradient(weight);
    with_type(x, [&]<class T>(T) {
      auto product = transposed_times<T>(dy, x, gradient.data());
      product.accumulate = gradient.accumulate();
      matmul(active_isa(), product);
    });
    return gradient.for_autograd(weight.scalar_type());
  }
};

// logits [N, E] fp32 = x [N, H] weight [E, H]^T, as exact as if both were widened first: products of bf16 are
// exact in fp32.
struct WideLinear : torch::autograd::Function<WideLinear> {
  static Tensor forward(AutogradContext* ctx, const Tensor& x, const Tensor& weight) {
    const OpTimer timer(OpClass::gate, false);
    ctx->save_for_backward({x, weight});
    auto y = at::empty({x.size(0), weight.size(0)}, x.options().dtype(at::kFloat));
    with_type(x, [&]<class T>(T) {
      auto product = times_transposed<T>(x, weight);
      product.c = y.data_ptr<float>();
      matmul(active_isa(), product);
    });
    return y;
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const OpTimer timer(OpClass::gate, true);
    const auto saved = ctx->get_saved_variables();
    const auto &x = saved[0], &weight = saved[1];
    const auto rows = x.size(0), in = x.size(1), out = weight.size(0);
    const auto d = with_type(x, [&]<class T>(T) { return terms<T>(grads[0].contiguous(), x); });
    const auto width = d.size(1);
    std::vector<std::int32_t> twice(static_cast<std::size_t>(width));
    for (std::int64_t i = 0; i < width; ++i)
      twice[static_cast<std::size_t>(i)] = static_cast<std::int32_t>(i % out);
    const auto dx = at::empty_like(x);
    const WeightGradient gradient(weight);
    with_type(x, [&]<class T>(T) {
      matmul(active_isa(), Matmul<T>{.m = rows,
                                     .n = in,
                                     .k = width,
                                     .a = data_of<T>(d),
                                     .lda = width,
                                     .b = data_of<T>(weight),
                                     .ldb = in,
                                     .b_rows = twice.data(),
                                     .c_narrow = data_of<T>(dx),
                                     .ldc = in});
      for (std::int64_t first = 0; first < width; first += out) {
        auto product = transposed_times<T>(d, x, gradient.data());
        product.m = out;
        product.a += first;
        product.accumulate = first > 0 || gradient.accumulate();
        matmul(active_isa(), product);
      }
    });
    return {dx, gradient.for_autograd(weight.scalar_type())};
  }

 private:
  // The fp32 gradient d [N, E] as a sum of terms in x's type, side by side: d itself, [high | low] for bf16.
  template <class T>
  static Tensor terms(const Tensor& d, const Tensor& x) {
    if constexpr (std::is_same_v<T, float>) return d;
    const auto rows = d.size(0), n = d.size(1);
    const auto out = at::empty({rows, 2 * n}, x.options());
    const auto& vector = vector_kernels<T>(active_isa());
    parallel_for(static_cast<std::size_t>(rows), 128, [&](std::size_t begin, std::size_t end) {
      for (auto r = static_cast<std::int64_t>(begin); r < static_cast<std::int64_t>(end); ++r) {
        T* const high = data_of<T>(out) + r * 2 * n;
        vector.split(d.data_ptr<float>() + r * n, n, high, high + n);
      }
    });
    return out;
  }
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
    y = Linear::apply(rows.contiguous(), weight.contiguous());
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
    return WideLinear::apply(x.contiguous(), weight.contiguous());
  return at::mm(widen(x), widen(weight).t());
}

}  // namespace sinew
