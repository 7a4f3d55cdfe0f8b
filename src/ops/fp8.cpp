#include "ops/fp8.hpp"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <atomic>
#include <cmath>

#include "base/threads.hpp"
#include "ops/fused.hpp"

namespace sinew {
namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

constexpr std::int64_t kEdge = 128;
constexpr float kLargest = 448;

std::atomic<int> scopes{0};

std::int64_t tiles_of(std::int64_t n) { return (n + kEdge - 1) / kEdge; }

// Rounds tiles of `height` x 128.
Fp8Matrix round_tiles(const Tensor& x, std::int64_t height) {
  const auto source = x.detach().to(at::kCPU, at::kFloat).contiguous();
  const auto rows = source.size(0), columns = source.size(1), tiles = tiles_of(columns);
  Fp8Matrix out{at::empty({rows, columns}, at::kFloat), at::empty({rows, tiles}, at::kFloat)};
  const auto* const in = source.data_ptr<float>();
  auto* const code = out.codes.data_ptr<float>();
  auto* const scale = out.scale.data_ptr<float>();
  const auto bands = (rows + height - 1) / height;
  parallel_for(static_cast<std::size_t>(bands * tiles), 8, [&](std::size_t begin, std::size_t end) {
    for (auto t = static_cast<std::int64_t>(begin); t < static_cast<std::int64_t>(end); ++t) {
      const auto row0 = t / tiles * height, row1 = std::min(rows, row0 + height);
      const auto column0 = t % tiles * kEdge, column1 = std::min(columns, column0 + kEdge);
      float largest = 0;
      for (auto r = row0; r < row1; ++r)
        for (auto c = column0; c < column1; ++c) largest = std::max(largest, std::abs(in[r * columns + c]));
      const float step = largest > 0 ? largest / kLargest : 1;
      for (auto r = row0; r < row1; ++r) {
        scale[r * tiles + t % tiles] = step;
        for (auto c = column0; c < column1; ++c)
          code[r * columns + c] = round_to_e4m3(in[r * columns + c] / step);
      }
    }
  });
  return {out.codes.to(x.device()), out.scale.to(x.device())};
}

struct Fp8Linear : torch::autograd::Function<Fp8Linear> {
  static Tensor forward(AutogradContext* ctx, const Tensor& x, const Tensor& weight) {
    ctx->save_for_backward({x, weight});
    return fp8_product(fp8_tiles(x), fp8_blocks(weight)).to(x.scalar_type());
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    const auto &x = saved[0], &weight = saved[1];
    const auto dy = grads[0].contiguous();
    Tensor dx, dw;
    if (ctx->needs_input_grad(0))
      dx = fp8_product(fp8_tiles(dy), fp8_transposed_blocks(weight)).to(x.scalar_type());
    if (!ctx->needs_input_grad(1)) return {dx, dw};
    const auto kept = fp8_values(fp8_tiles(x));
    const auto sum = fp8_product(fp8_tiles(dy.t()), fp8_tiles(kept.t()));  // [out, in]
    const WeightGradient gradient(weight);
    if (!gradient.direct()) return {dx, sum.to(weight.scalar_type())};
    const at::NoGradGuard no_grad;
    auto grad = weight.grad();
    gradient.accumulate() ? grad.add_(sum) : grad.copy_(sum);
    return {dx, dw};
  }
};

}  // namespace

float round_to_e4m3(float x) {
  const float magnitude = std::abs(x);
  if (!(magnitude < kLargest)) return std::isnan(x) ? x : std::copysign(kLargest, x);
  const int exponent = magnitude < 0x1p-6F ? -6 : std::ilogb(magnitude);
  const float step = std::ldexp(1.0F, exponent - 3);
  return std::copysign(std::nearbyint(magnitude / step) * step, x);
}

Fp8Matrix fp8_tiles(const Tensor& x) { return round_tiles(x, 1); }
Fp8Matrix fp8_blocks(const Tensor& weight) { return round_tiles(weight, kEdge); }
Fp8Matrix fp8_transposed_blocks(const Tensor& weight) { return round_tiles(weight.t(), kEdge); }

Tensor fp8_values(const Fp8Matrix& x) {
  return x.codes * x.scale.repeat_interleave(kEdge, 1).narrow(1, 0, x.codes.size(1));
}

Tensor fp8_product(const Fp8Matrix& a, const Fp8Matrix& b) {
  const auto k = a.codes.size(1);
  auto sum = at::zeros({a.codes.size(0), b.codes.size(0)}, a.codes.options());
  for (std::int64_t t = 0; t < tiles_of(k); ++t) {
    const auto first = t * kEdge, count = std::min(kEdge, k - first);
    auto part = at::mm(a.codes.narrow(1, first, count), b.codes.narrow(1, first, count).t());
    sum.add_(part.mul_(a.scale.narrow(1, t, 1)).mul_(b.scale.narrow(1, t, 1).t()));
  }
  return sum;
}

Tensor fp8_project(const Tensor& x, const Tensor& weight) { return Fp8Linear::apply(x, weight); }

Fp8Products::Fp8Products() { ++scopes; }
Fp8Products::~Fp8Products() { --scopes; }
bool Fp8Products::active() { return scopes > 0; }

}  // namespace sinew
