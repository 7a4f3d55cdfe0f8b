#include "ops/rope.hpp"

#include "ops/tensor.hpp"

namespace sinew {

at::Tensor rope(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin, RopeLayout layout) {
  const auto half = x.size(-1) / 2;
  const auto wide = widen(x);
  const auto c = cos.to(wide.scalar_type()).unsqueeze(1), s = sin.to(wide.scalar_type()).unsqueeze(1);
  if (layout == RopeLayout::interleaved) {
    const auto pairs = wide.unflatten(-1, {half, 2});
    const auto a = pairs.select(-1, 0), b = pairs.select(-1, 1);
    return at::stack({a * c - b * s, a * s + b * c}, -1).flatten(-2).to(x.scalar_type());
  }
  const auto a = wide.narrow(-1, 0, half), b = wide.narrow(-1, half, half);
  return at::cat({a * c - b * s, b * c + a * s}, -1).to(x.scalar_type());
}

}  // namespace sinew
