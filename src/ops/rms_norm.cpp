#include "ops/rms_norm.hpp"

#include "ops/tensor.hpp"

namespace sinew {

at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps) {
  const auto wide = widen(x);
  const auto scale = at::rsqrt((wide * wide).mean(-1, true) + eps);
  return (wide * scale * weight.to(wide.scalar_type())).to(x.scalar_type());
}

}  // namespace sinew
