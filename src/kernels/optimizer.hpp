// AdamW over flat memory, on all threads. Pieces have a fixed size: nothing depends on the number of threads.
//   w = keep * w - step_size * m / (sqrt(v) * root_correction + eps),   m, v: means of g and g^2
// with keep = 1 - lr * decay, step_size = lr / (1 - beta1^t), root_correction = 1 / sqrt(1 - beta2^t)
// (Loshchilov and Hutter 2019, as PyTorch computes it).
#pragma once

#include <span>

#include "kernels/vector.hpp"

namespace sinew {

// One tensor of n elements. `narrow`: the weight in bf16 that follows w, or null.
struct AdamWSpan {
  float *w, *m, *v;
  const float* gradient;  // null: zero
  bf16* narrow;
  index_t n;
  AdamWFactors factors;
};

// Updates all spans.
void adamw(Isa isa, std::span<const AdamWSpan> spans);

// The sum of squares over all gradients; infinite or NaN where an element is.
double sum_of_squares(Isa isa, std::span<const AdamWSpan> spans);

}  // namespace sinew
