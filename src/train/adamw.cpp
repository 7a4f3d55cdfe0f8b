#include "train/adamw.hpp"

#include <algorithm>
#include <cmath>

#include "base/threads.hpp"

namespace sinew {
namespace {

constexpr std::int64_t kPiece = 16384;

struct Factors {
  float beta1, one_less_beta1, beta2, one_less_beta2, eps, step_size, root_correction, gradient_scale, keep;
};

Factors factors_of(const AdamWStep& s, bool decay) {
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

void update_piece(float* __restrict w, float* __restrict m, float* __restrict v, const float* __restrict g,
                  std::int64_t count, const Factors& f) {
  for (std::int64_t i = 0; i < count; ++i) {
    const float gradient = g == nullptr ? 0.0f : g[i] * f.gradient_scale;
    m[i] = f.beta1 * m[i] + f.one_less_beta1 * gradient;
    v[i] = f.beta2 * v[i] + f.one_less_beta2 * gradient * gradient;
    w[i] = w[i] * f.keep - f.step_size * m[i] / (std::sqrt(v[i]) * f.root_correction + f.eps);
  }
}

struct Piece {
  TrainedTensor* tensor;
  std::int64_t begin, count;
};

void update_on_cpu(const std::vector<TrainedTensor*>& tensors, const AdamWStep& step) {
  std::vector<Piece> pieces;
  for (TrainedTensor* t : tensors)
    for (std::int64_t begin = 0; begin < t->master.numel(); begin += kPiece)
      pieces.push_back({t, begin, std::min(kPiece, t->master.numel() - begin)});
  const Factors with_decay = factors_of(step, true), without = factors_of(step, false);
  parallel_for(pieces.size(), 1, [&](std::size_t first, std::size_t last) {
    for (std::size_t i = first; i < last; ++i) {
      const auto& [t, begin, count] = pieces[i];
      float* const master = t->master.data_ptr<float>() + begin;
      const float* const gradient = t->gradient.defined() ? t->gradient.data_ptr<float>() + begin : nullptr;
      update_piece(master, t->first.data_ptr<float>() + begin, t->second.data_ptr<float>() + begin, gradient,
                   count, t->decay ? with_decay : without);
      if (t->weight.scalar_type() == at::kBFloat16)
        std::copy_n(master, count, t->weight.data_ptr<at::BFloat16>() + begin);  // rounds to nearest even
    }
  });
}

void update_by_foreach(const std::vector<TrainedTensor*>& tensors, const AdamWStep& step, bool decay) {
  const Factors f = factors_of(step, decay);
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
