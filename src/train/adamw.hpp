// AdamW (Loshchilov & Hutter 2019): Adam with decoupled weight decay, bias-corrected as in PyTorch:
//   w -= lr*decay*w;  m = b1*m + (1-b1)*g;  v = b2*v + (1-b2)*g*g;
//   w -= lr/(1-b1^t) * m / (sqrt(v)/sqrt(1-b2^t) + eps)
#pragma once

#include <cstdint>
#include <vector>

#include "train/optimizer.hpp"

namespace sinew {

struct AdamWStep {
  double lr, beta1, beta2, eps, weight_decay, gradient_scale;
  std::int64_t update;  // t, from 1
};

// Updates masters, moments and weights. On CPU one pass over raw memory (kernels/optimizer.hpp), which leaves
// the gradients zero; elsewhere adamw_update_by_foreach().
void adamw_update(const std::vector<TrainedTensor*>& tensors, const AdamWStep& step);
// The same by ATen's foreach operations, on any device.
void adamw_update_by_foreach(const std::vector<TrainedTensor*>& tensors, const AdamWStep& step);

}  // namespace sinew
