#include "ops/fp8.hpp"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <atomic>

#include "base/float_formats.hpp"
#include "ops/fp8_tiles.hpp"
#include "ops/fused.hpp"

namespace sinew {
namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

std::atomic<int> scopes{0};

// Rounds tiles of `height` x 128.
Fp8Matrix round_tiles(const Tensor& x, std::int64_t height) {
  const auto source = x.detach().to(at::kCPU, at::kFloat).contiguous();
  const auto rows = source.size(0), columns = source.size(1);
  const Fp8Matrix out{at::empty({rows, columns}, at::kFloat),
                      at::empty({rows, fp8_tiles_in(columns)}, at::kFloat)};
  round_to_fp8_tiles(source.data_ptr<float>(), rows, columns, height, out.codes.data_ptr<float>(),
                     out.scale.data_ptr<float>(), round_to_e4m3);
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

float round_to_e4m3(float x) { return float8_e4m3_to_float(float_to_float8_e4m3(x)); }

Fp8Matrix fp8_tiles(const Tensor& x) { return round_tiles(x, 1); }
Fp8Matrix fp8_blocks(const Tensor& weight) { return round_tiles(weight, kFp8Tile); }
Fp8Matrix fp8_transposed_blocks(const Tensor& weight) { return round_tiles(weight.t(), kFp8Tile); }

Tensor fp8_values(const Fp8Matrix& x) {
  return x.codes * x.scale.repeat_interleave(kFp8Tile, 1).narrow(1, 0, x.codes.size(1));
}

Tensor fp8_product(const Fp8Matrix& a, const Fp8Matrix& b) {
  const auto k = a.codes.size(1);
  auto sum = at::zeros({a.codes.size(0), b.codes.size(0)}, a.codes.options());
  for (std::int64_t t = 0; t < fp8_tiles_in(k); ++t) {
    const auto first = t * kFp8Tile, count = std::min(kFp8Tile, k - first);
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
