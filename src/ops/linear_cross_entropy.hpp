// The output head and cross-entropy as one operation that never holds all logits.
#pragma once

#include <ATen/core/Tensor.h>

namespace sinew {

// The sum over tokens of -log softmax(hidden weight^T)[target], targets of -100 left out.
// hidden [N, H], weight [V, H], targets [N] int64 -> scalar, fp32 for half types. The gradients of hidden
// and weight are computed in the same pass, chunk by chunk of tokens.
at::Tensor linear_cross_entropy(const at::Tensor& hidden, const at::Tensor& weight,
                                const at::Tensor& targets);

}  // namespace sinew
