#include "ops/tensor.hpp"

namespace sinew {

at::Tensor project(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) {
  const auto rows = x.reshape({-1, x.size(-1)});
  auto y = bias.defined() ? at::addmm(bias, rows, weight.t()) : at::mm(rows, weight.t());
  auto shape = x.sizes().vec();
  shape.back() = weight.size(0);
  return y.view(shape);
}

at::Tensor ordered_sum(const at::Tensor& x) {
  constexpr std::int64_t width = 4096;  // below the length that ATen splits
  auto rest = x.reshape({-1});
  while (rest.numel() > width) {
    const auto whole = rest.numel() / width * width;
    auto sums = rest.narrow(0, 0, whole).view({-1, width}).sum(1);
    if (whole < rest.numel())
      sums = at::cat({sums, rest.narrow(0, whole, rest.numel() - whole).sum().view(1)});
    rest = sums;
  }
  return rest.sum();
}

}  // namespace sinew
