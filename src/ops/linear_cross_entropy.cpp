#include "ops/linear_cross_entropy.hpp"

#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>

#include "kernels/cross_entropy.hpp"
#include "ops/fused.hpp"
#include "ops/op_times.hpp"
#include "ops/tensor.hpp"

namespace sinew {
namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// Tokens of one chunk: logits of at most 2^23 elements at a time.
std::int64_t chunk_tokens(std::int64_t vocabulary) {
  return std::max<std::int64_t>(64, (std::int64_t{1} << 23) / vocabulary);
}

struct LinearCrossEntropy : torch::autograd::Function<LinearCrossEntropy> {
  static Tensor forward(AutogradContext* ctx, const Tensor& hidden, const Tensor& weight,
                        const Tensor& targets, bool need_gradient) {
    const auto wide = wide_type(hidden.scalar_type());
    const auto tokens = hidden.size(0), chunk = chunk_tokens(weight.size(0));
    const auto counted = targets != -100;
    const auto safe = targets.masked_fill(counted.logical_not(), 0);
    auto losses = at::empty({tokens}, hidden.options().dtype(wide));
    Tensor grad_hidden, grad_weight;
    if (need_gradient) {
      grad_hidden = at::empty_like(hidden);
      grad_weight = at::zeros(weight.sizes(), weight.options().dtype(wide));
    }
    for (std::int64_t begin = 0; begin < tokens; begin += chunk) {
      const auto count = std::min(chunk, tokens - begin);
      const auto h = hidden.narrow(0, begin, count);
      const auto target = safe.narrow(0, begin, count).unsqueeze(1);
      const auto mask = counted.narrow(0, begin, count);
      auto log_p = at::log_softmax(at::mm(h, weight.t()), -1, wide);  // [count, V]
      losses.narrow(0, begin, count)
          .copy_(log_p.gather(1, target).squeeze(1).neg().masked_fill_(mask.logical_not(), 0));
      if (!need_gradient) continue;
      auto grad = log_p.exp_();  // softmax - one_hot, zero where the target does not count
      grad.scatter_add_(1, target, at::full({}, -1, grad.options()).expand_as(target));
      grad.mul_(mask.unsqueeze(1));
      const auto narrow = grad.to(h.scalar_type());
      auto slice = grad_hidden.narrow(0, begin, count);
      at::mm_out(slice, narrow, weight);
      grad_weight.add_(at::mm(narrow.t(), h));
    }
    if (need_gradient) ctx->save_for_backward({grad_hidden, grad_weight.to(weight.scalar_type())});
    return ordered_sum(losses);
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    return {(saved[0] * grads[0]).to(saved[0].scalar_type()),
            (saved[1] * grads[0]).to(saved[1].scalar_type()), Tensor(), Tensor()};
  }
};

struct FusedCrossEntropy : torch::autograd::Function<FusedCrossEntropy> {
  static Tensor forward(AutogradContext* ctx, const Tensor& hidden, const Tensor& weight,
                        const Tensor& targets, bool need_gradient) {
    const OpTimer timer(OpClass::loss, false);
    const auto d_hidden = need_gradient ? at::empty_like(hidden) : Tensor();
    const auto d_weight =
        need_gradient ? at::empty(weight.sizes(), weight.options().dtype(at::kFloat)) : Tensor();
    double sum = 0;
    with_type(hidden, [&]<class T>(T) {
      sum = cross_entropy<T>(active_isa(), hidden.size(0), hidden.size(1), weight.size(0), data_of<T>(hidden),
                             data_of<T>(weight), targets.data_ptr<std::int64_t>(), data_of<T>(d_hidden),
                             data_of<float>(d_weight));
    });
    ctx->save_for_backward({d_hidden, d_weight, weight});
    return at::full({}, sum, hidden.options().dtype(at::kFloat));
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const OpTimer timer(OpClass::loss, true);
    const auto saved = ctx->get_saved_variables();
    const auto &d_hidden = saved[0], &d_weight = saved[1], &weight = saved[2];
    const double factor = grads[0].item<double>();
    const auto dx = d_hidden * factor;
    if (!WeightGradient::is_direct(weight))
      return {dx, (d_weight * factor).to(weight.scalar_type()), Tensor(), Tensor()};
    const at::NoGradGuard no_grad;
    const WeightGradient gradient(weight);
    auto sum = weight.grad();
    if (gradient.accumulate())
      sum.add_(d_weight, factor);
    else
      at::mul_out(sum, d_weight, at::full({}, factor, d_weight.options()));
    return {dx, Tensor(), Tensor(), Tensor()};
  }
};

}  // namespace

Tensor linear_cross_entropy(const Tensor& hidden, const Tensor& weight, const Tensor& targets) {
  const bool need_gradient = at::GradMode::is_enabled() && (hidden.requires_grad() || weight.requires_grad());
  if (fused(hidden) && hidden.scalar_type() == weight.scalar_type())
    return FusedCrossEntropy::apply(hidden.contiguous(), weight.contiguous(), targets.contiguous(),
                                    need_gradient);
  return LinearCrossEntropy::apply(hidden, weight, targets, need_gradient);
}

}  // namespace sinew
