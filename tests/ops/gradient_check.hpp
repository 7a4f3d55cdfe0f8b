// Gradients against central differences in fp64, element by element.
#pragma once

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <functional>
#include <string>
#include <vector>

namespace sinew::test {

// Fixed numbers that look random: normal, fp64.
inline at::Tensor noise(at::IntArrayRef shape, std::uint64_t seed, double deviation = 1) {
  auto generator = at::detail::createCPUGenerator(seed);
  return at::randn(shape, generator, at::TensorOptions(at::kDouble)) * deviation;
}

// Checks d sum(f(inputs) * fixed weights) / d input for every element of every input.
inline void expect_gradients(const std::function<at::Tensor(const std::vector<at::Tensor>&)>& f,
                             std::vector<at::Tensor> inputs, double tolerance = 1e-6) {
  for (auto& input : inputs) input = input.detach().clone().requires_grad_(true);
  const auto y = f(inputs);
  const auto cotangent = noise(y.sizes(), 77);
  const auto grads = torch::autograd::grad({y}, inputs, {cotangent});
  const at::NoGradGuard no_grad;
  const double step = 1e-5;
  for (std::size_t n = 0; n < inputs.size(); ++n) {
    auto flat = inputs[n].view(-1);
    ASSERT_EQ(grads[n].sizes(), inputs[n].sizes());
    const auto grad = grads[n].contiguous().view(-1);
    for (std::int64_t i = 0; i < flat.numel(); ++i) {
      const double value = flat[i].item<double>();
      flat[i].fill_(value + step);
      const double above = (f(inputs) * cotangent).sum().item<double>();
      flat[i].fill_(value - step);
      const double below = (f(inputs) * cotangent).sum().item<double>();
      flat[i].fill_(value);
      const double want = (above - below) / (2 * step), got = grad[i].item<double>();
      ASSERT_NEAR(got, want, tolerance * (1 + std::abs(want))) << "input " << n << " element " << i;
    }
  }
}

inline double max_difference(const at::Tensor& a, const at::Tensor& b) {
  return a.numel() == 0 ? 0 : (a.to(at::kDouble) - b.to(at::kDouble)).abs().max().item<double>();
}

}  // namespace sinew::test
