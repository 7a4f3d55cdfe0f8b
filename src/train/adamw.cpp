#include "train/adamw.hpp"

#include <ATen/ATen.h>

#include <cmath>

#include "kernels/optimizer.hpp"

namespace sinew {
namespace {

AdamWFactors factors_of(const AdamWStep& s, bool decay) {
  const auto t = static_cast<double>(s.update);
  return {.beta1 = static_cast<float>(s.beta1),
          .one_less_beta1 = static_cast<float>(1 - s.beta1),
          .beta2 = static_cast<float>(s.beta2),
          .one_less_beta2 = static_cast<float>(1 - s.beta2),
          .eps = static_cast<float>(s.eps),
          .step_size = static_cast<float>(s.lr / (1 - std::pow(s.beta1, t))),
          .root_correction = static_cast<float>(1 / std::sqrt(1 - std::pow(s.beta2, t))),
          .gradient_scale = static_cast<float>(s.gradient_scale),
          .keep = decay ? static_cast<float>(1 - s.lr * s.weight_decay) : 1.0f};
}

void update_on_cpu(const std::vector<TrainedTensor*>& tensors, const AdamWStep& step) {
  const AdamWFactors with_decay = factors_of(step, true), without = factors_of(step, false);
  std::vector<AdamWSpan> spans;
  for (TrainedTensor* t : tensors) {
    const bool narrow = t->weight.scalar_type() == at::kBFloat16;
    spans.push_back({.w = t->master.data_ptr<float>(),
                     .m = t->first.data_ptr<float>(),
                     .v = t->second.data_ptr<float>(),
                     .gradient = t->gradient.defined() ? t->gradient.data_ptr<float>() : nullptr,
                     .narrow = narrow ? static_cast<bf16*>(t->weight.data_ptr()) : nullptr,
                     .n = t->master.numel(),
                     .factors = t->decay ? with_decay : without});
  }
  adamw(active_isa(), spans);
}

void update_by_foreach(const std::vector<TrainedTensor*>& tensors, const AdamWStep& step, bool decay) {
  const AdamWFactors f = factors_of(step, decay);
  std::vector<at::Tensor> masters, firsts, seconds, gradients;
  for (TrainedTensor* t : tensors) {
    if (t->decay != decay) continue;
    masters.push_back(t->master);
    firsts.push_back(t->first);
    seconds.push_back(t->second);
    gradients.push_back(t->gradient.defined() ? t->gradient : at::zeros_like(t->master));
  }
  if (masters.empty()) return;
  if (step.gradient_scale != 1) gradients = at::_foreach_mul(gradients, step.gradient_scale);
  at::_foreach_mul_(masters, static_cast<double>(f.keep));
  at::_foreach_mul_(firsts, step.beta1);
  at::_foreach_add_(firsts, gradients, 1 - step.beta1);
  at::_foreach_mul_(seconds, step.beta2);
  at::_foreach_addcmul_(seconds, gradients, gradients, 1 - step.beta2);
  auto denominators = at::_foreach_sqrt(seconds);
  at::_foreach_mul_(denominators, static_cast<double>(f.root_correction));
  at::_foreach_add_(denominators, step.eps);
  at::_foreach_addcdiv_(masters, firsts, denominators, -static_cast<double>(f.step_size));
  for (TrainedTensor* t : tensors)
    if (t->decay == decay && !t->weight.is_same(t->master)) t->weight.copy_(t->master);
}

}  // namespace

void adamw_update(const std::vector<TrainedTensor*>& tensors, const AdamWStep& step) {
  if (tensors.empty()) return;
  if (tensors[0]->master.is_cpu()) return update_on_cpu(tensors, step);
  adamw_update_by_foreach(tensors, step);
}

void adamw_update_by_foreach(const std::vector<TrainedTensor*>& tensors, const AdamWStep& step) {
  update_by_foreach(tensors, step, true);
  update_by_foreach(tensors, step, false);
}

}  // namespace sinew
