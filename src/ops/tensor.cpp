#include "ops/tensor.hpp"

namespace sinew {

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
