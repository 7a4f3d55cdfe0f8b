// Small helpers over ATen tensors that every operation uses.
#pragma once

#include <ATen/ATen.h>

namespace sinew {

// The type in which norms, softmax, gates and losses are computed: fp32 for half types, else unchanged.
inline at::ScalarType wide_type(at::ScalarType type) {
  return type == at::kBFloat16 || type == at::kHalf ? at::kFloat : type;
}
inline at::Tensor widen(const at::Tensor& x) { return x.to(wide_type(x.scalar_type())); }

// x [.., in] times weight [out, in] transposed, plus bias [out] if it is defined.
at::Tensor project(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias = {});

// x [N, in] times weight [out, in] transposed, as of widened operands: [N, out] in wide_type.
at::Tensor project_wide(const at::Tensor& x, const at::Tensor& weight);

// The sum of all elements, in an order that does not depend on the number of threads (ATen splits the
// sum of a long vector among them).
at::Tensor ordered_sum(const at::Tensor& x);

}  // namespace sinew
